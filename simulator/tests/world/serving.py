"""Servers of whole models in their own process, and clients that verify their certificate."""

from __future__ import annotations

import json
import pathlib
import ssl
import subprocess
import sys
import time
import typing as t

from pyVim.connect import Disconnect, SmartConnect

PATIENCE = 180.0
USER, PASSWORD = "admin@lab", "secret"


class Served:
    """One server of a model, and a connected client."""

    def __init__(self, directory: pathlib.Path, model: str, *options: str) -> None:
        directory.mkdir(exist_ok=True)
        self.directory = directory
        (directory / "model.yml").write_text(model)
        secret = directory / "password"
        secret.write_text(PASSWORD)
        secret.chmod(0o600)
        ready = directory / "ready.json"
        self.log = (directory / "log").open("w+")
        command = [sys.executable, "-m", "vsphere_simulator.cli", "serve", "--model", str(directory / "model.yml")]
        command += ["--listen", "127.0.0.1:0", "--username", USER, "--password-file", str(secret)]
        command += ["--time-scale", "500", "--ready-file", str(ready), *options]
        self.process = subprocess.Popen(command, stdout=self.log, stderr=self.log)
        deadline = time.monotonic() + PATIENCE
        while not ready.exists():
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise RuntimeError((directory / "log").read_text())
            time.sleep(0.02)
        self.ready = json.loads(ready.read_text())
        self._clients: list[t.Any] = []
        self.client = self.connect(USER, PASSWORD)

    def connect(self, user: str, password: str) -> t.Any:
        """Another client."""
        tls = ssl.create_default_context(cafile=self.ready["certificate"])
        client = SmartConnect(
            host=self.ready["hostname"], port=self.ready["port"], user=user, pwd=password, sslContext=tls
        )
        self._clients.append(client)
        return client

    def find(self, path: str, client: t.Any = None) -> t.Any:
        """The entity at an inventory path."""
        return (client or self.client).content.searchIndex.FindByInventoryPath(path)

    def stop(self) -> None:
        """Stop the server as an operator does."""
        if self.process.poll() is None:
            self.process.terminate()
        try:
            self.process.wait(timeout=PATIENCE)
        finally:
            self.process.kill()
            self.log.close()

    def kill(self) -> None:
        """End the server as a crash does."""
        self.process.kill()
        self.process.wait(timeout=PATIENCE)
        self.log.close()

    def close(self) -> None:
        """Disconnect and stop, unless that has been done."""
        if self.process.poll() is None:
            for client in self._clients:
                Disconnect(client)
            self.stop()
