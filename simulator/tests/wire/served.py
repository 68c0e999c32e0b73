"""A real server in its own process on a free port, and clients that verify its certificate."""

from __future__ import annotations

import json
import pathlib
import ssl
import subprocess
import sys
import time
import typing as t
import urllib.request

from pyVim.connect import Disconnect, SmartConnect

TINY = pathlib.Path(__file__).with_name("tiny_world.py")
PATIENCE = 180.0
PASSWORD = "secret"


class Served:
    """One running server."""

    def __init__(self, directory: pathlib.Path, *options: str) -> None:
        self.ready_file = directory / "ready.json"
        self.log = (directory / "log").open("w+")
        self.process = subprocess.Popen(
            [sys.executable, str(TINY), "--ready-file", str(self.ready_file), *options],
            stdout=subprocess.PIPE,
            stderr=self.log,
            text=True,
        )
        self._clients: list[t.Any] = []
        deadline = time.monotonic() + PATIENCE
        while not self.ready_file.exists():
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.process.kill()
                raise RuntimeError(f"the server did not start: {self.logged()}")
            time.sleep(0.02)
        self.ready = json.loads(self.ready_file.read_text())
        self.host, self.port = self.ready["hostname"], self.ready["port"]

    @property
    def tls(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=self.ready["certificate"])

    def connect(self, user: str = "admin@lab", password: str = PASSWORD) -> t.Any:
        client = SmartConnect(host=self.host, port=self.port, user=user, pwd=password, sslContext=self.tls)
        self._clients.append(client)
        return client

    def counts(self) -> dict[str, t.Any]:
        with urllib.request.urlopen(self.ready["counts_url"]) as reply:  # noqa: S310 - our own server
            return t.cast("dict[str, t.Any]", json.load(reply))

    def reset_counts(self) -> None:
        request = urllib.request.Request(self.ready["counts_url"] + "/reset", method="POST")  # noqa: S310
        urllib.request.urlopen(request).close()  # noqa: S310

    def logged(self) -> str:
        self.log.flush()
        return pathlib.Path(self.log.name).read_text()

    def stop(self) -> str:
        """Stop the server and return what it printed."""
        if self.process.poll() is None:
            self.process.terminate()
        try:
            output, _ = self.process.communicate(timeout=PATIENCE)
        finally:
            self.process.kill()
            self.log.close()
        return output

    def close(self) -> None:
        if self.process.poll() is None:
            for client in self._clients:
                Disconnect(client)
            self.stop()
