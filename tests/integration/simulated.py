# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A simulated vCenter, and modules run against it as Ansible runs them. The fixture is in `conftest.py`."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from nursery import Fork, Nursery

TOP = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
USERNAME = "administrator@vsphere.local"
PASSWORD = "Tr0ub4dor&3-horse"
TIME_SCALE = 500
_PATIENCE_S = 60.0


def wait_for(condition: Callable[[], Any], what: str, timeout: float = _PATIENCE_S) -> Any:
    """Poll until the condition is true and return its value; fail with `what` otherwise."""
    pause, deadline = threading.Event(), time.monotonic() + timeout
    while not (value := condition()):
        if time.monotonic() > deadline:
            pytest.fail(f"not within {timeout:.0f} s: {what}")
        pause.wait(0.02)
    return value


def environment(**more: str) -> dict[str, str]:
    """The environment of modules and playbooks: this tree, and nothing of the caller's vCenter."""
    plain = {key: value for key, value in os.environ.items() if not key.startswith(("VMWARE_", "ANSIBLE_"))}
    return plain | {
        "ANSIBLE_CONFIG": str(TOP / "ansible.cfg"),
        "ANSIBLE_NOCOLOR": "1",
        "PYTHONPATH": str(TOP / "collections"),
    } | more  # fmt: skip


MODULES = "ansible_collections.gpuops.vsphere.plugins.modules"
_SIMULATORS = Nursery("vsphere_simulator.cli", environment=environment())
# What every module imports; the module itself is the process's own.
_RUNS = Nursery(
    "ansible.module_utils.basic",
    "pyVim.connect",
    "pyVmomi",
    "ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.module",
    environment=environment(),
)


def start_simulator(arguments: list[str], log: Path) -> Fork:
    """Start `vsphere-simulator serve`; it writes its ready file when it is ready."""
    return _SIMULATORS.start("vsphere_simulator.cli", ["serve", *arguments], log=log)


@dataclasses.dataclass
class ModuleRun:
    """What a module process said."""

    code: int
    stdout: str
    stderr: str

    @property
    def result(self) -> dict[str, Any]:
        """The module's JSON."""
        data: dict[str, Any] = json.loads(self.stdout)
        return data

    @property
    def requests(self) -> dict[str, int]:
        """The requests that the module says it made."""
        requests: dict[str, int] = self.result["requests"]
        return requests


class Vcenter:
    """One running simulator."""

    def __init__(self, directory: Path, process: Fork, ready: dict[str, Any]) -> None:
        self.directory = directory
        self.process = process
        self.port: int = ready["port"]
        self.url: str = ready["url"]
        self.thumbprint: str = ready["thumbprint"]
        self.certificate: str = ready["certificate"]
        self._counts_url: str = ready["counts_url"]
        self.state_file = directory / "state.json"
        self.session_dir = directory / "sessions"

    def options(self, **more: Any) -> dict[str, Any]:
        """Connection options of a module."""
        return {
            "hostname": "127.0.0.1",
            "port": self.port,
            "username": USERNAME,
            "password": PASSWORD,
            "ca_file": self.certificate,
            "session_dir": str(self.session_dir),
        } | more

    def counts(self) -> dict[str, Any]:
        """What the simulator has counted: `requests` by method, `total`, `logins`."""
        with urllib.request.urlopen(self._counts_url, timeout=10) as answer:  # noqa: S310 - our own process
            counts: dict[str, Any] = json.load(answer)
        return counts

    def privileges(self) -> set[str]:
        """The privileges that calls asked for since the counts began, held or not."""
        with urllib.request.urlopen(f"{self._counts_url}/privileges", timeout=10) as answer:  # noqa: S310 - our own process
            return set(json.load(answer))

    def reset_counts(self) -> None:
        """Count from zero."""
        request = urllib.request.Request(f"{self._counts_url}/reset", method="POST")  # noqa: S310 - our own process
        with urllib.request.urlopen(request, timeout=10):  # noqa: S310 - our own process
            pass

    def start(self, module: str, *, check: bool = False, diff: bool = False, **params: Any) -> subprocess.Popen[str]:
        """Start a module as a process of its own, as Ansible does; None leaves out a connection option."""
        process = subprocess.Popen(
            [sys.executable, "-m", f"{MODULES}.{module}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(),
        )
        assert process.stdin is not None
        process.stdin.write(self._given(check, diff, params))
        process.stdin.close()
        process.stdin = None
        return process

    def run(self, module: str, *, check: bool = False, diff: bool = False, **params: Any) -> ModuleRun:
        """Run a module to its end."""
        with tempfile.TemporaryDirectory(dir=self.directory) as place:
            given, output, errors = (Path(place) / name for name in ("given", "output", "errors"))
            given.touch(mode=0o600)
            given.write_text(self._given(check, diff, params))
            code = _RUNS.run(f"{MODULES}.{module}", given=given, output=output, errors=errors, timeout=120)
            return ModuleRun(code, output.read_text(), errors.read_text())

    def _given(self, check: bool, diff: bool, params: Mapping[str, Any]) -> str:
        arguments = {key: value for key, value in (self.options() | params).items() if value is not None}
        arguments |= {"_ansible_check_mode": check, "_ansible_diff": diff}
        return json.dumps({"ANSIBLE_MODULE_ARGS": arguments})

    def ok(self, module: str, *, check: bool = False, diff: bool = False, **params: Any) -> dict[str, Any]:
        """The result of a module that must succeed."""
        ran = self.run(module, check=check, diff=diff, **params)
        assert ran.code == 0, ran.stdout + ran.stderr
        return ran.result

    def fails(self, module: str, **params: Any) -> dict[str, Any]:
        """The result of a module that must fail, decently: one screen, no traceback, no password."""
        ran = self.run(module, **params)
        assert ran.code == 1, ran.stdout
        assert "Traceback" not in ran.stdout + ran.stderr
        assert PASSWORD not in ran.stdout + ran.stderr
        result = ran.result
        assert result["failed"] is True
        assert result["failure"]["code"]
        assert len(result["msg"].splitlines()) <= 24
        assert len(result["msg"]) <= 24 * 80
        return result

    def host(self, name: str) -> dict[str, Any]:
        """What `esxi_gpu_info` says of a host."""
        host: dict[str, Any] = self.ok("esxi_gpu_info", hosts=[name])["hosts"][name]
        return host

    def stop(self) -> None:
        """End the simulator as an operator does."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    def settled_state(self) -> bytes:
        """Stop the simulator, and give the state it leaves."""
        self.stop()
        return self.state_file.read_bytes()


@contextlib.contextmanager
def killed_at_the_end(process: subprocess.Popen[str]) -> Iterator[subprocess.Popen[str]]:
    """A process that must not outlive the block."""
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def fleet(hosts: int = 1, **more: Any) -> dict[str, Any]:
    """A model with one cluster `gpu` of hosts `esx-001.lab`…, two V100 each."""
    return {
        "datacenter": "lab",
        "datastores": [{"name": "shared-01"}],
        "networks": [{"name": "VM Network"}],
        "clusters": [
            {"name": "gpu", "hosts": [{"name": f"esx-[001:{hosts:03}].lab", "gpus": [{"gpu": "V100-32", "count": 2}]}]}
        ],
    } | more


StartVcenter = Callable[..., Vcenter]


def launch(
    place: Path,
    model: Mapping[str, Any] | Path,
    *,
    faults: list[dict[str, Any]] | None = None,
    time_scale: float = TIME_SCALE,
    latency_ms: float = 0,
    arguments: tuple[str, ...] = (),
) -> Vcenter:
    """Start a simulator with its files in `place`; a place used before keeps its state."""
    place.mkdir(exist_ok=True)
    password = place / "password"
    password.touch(mode=0o600)
    password.write_text(PASSWORD)
    if isinstance(model, Path):
        model_file = model
    else:
        model_file = place / "model.yml"
        model_file.write_text(yaml.safe_dump(dict(model)))
    ready = place / "ready.json"
    ready.unlink(missing_ok=True)
    command = [
        "--model", str(model_file), "--listen", "127.0.0.1:0",
        "--username", USERNAME, "--password-file", str(password), "--time-scale", str(time_scale),
        "--latency-ms", str(latency_ms), "--ready-file", str(ready), "--state", str(place / "state.json"),
        *arguments,
    ]  # fmt: skip
    if faults is not None:
        (place / "faults.yml").write_text(yaml.safe_dump(faults))
        command += ["--faults", str(place / "faults.yml")]
    process = start_simulator(command, place / "log")
    try:
        wait_for(lambda: ready.exists() or process.poll() is not None, "the simulator is ready")
        if process.poll() is not None:
            pytest.fail((place / "log").read_text())
        return Vcenter(place, process, json.loads(ready.read_text()))
    except BaseException:
        process.kill()
        process.wait()
        raise
