# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The lab of one test: a simulator, a private directory as `inventories/lab` expects it, and playbooks on them."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
import signal
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml
from pyVim.connect import Disconnect, SmartConnect
from pyVmomi import vim
from simulated import BIN, PASSWORD, TOP, USERNAME, Vcenter, environment, start_simulator, wait_for

_QUIET_S = 0.5
INVENTORY = TOP / "inventories" / "lab"

Model = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Run:
    """What one ansible-playbook did."""

    returncode: int
    output: str

    @property
    def recap(self) -> dict[str, dict[str, int]]:
        """The counts of PLAY RECAP by host."""
        tail = self.output.rpartition("PLAY RECAP")[2]
        lines = re.findall(r"^(\S+)\s*: (ok=.*)$", tail, flags=re.MULTILINE)
        return {host: {k: int(v) for k, v in re.findall(r"(\w+)=(\d+)", counts)} for host, counts in lines}

    def count(self, key: str) -> dict[str, int]:
        """One count of the recap, for the hosts that have any."""
        return {host: counts[key] for host, counts in self.recap.items() if counts[key]}


class Lab:
    """A simulator and what Ansible does to it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.password = PASSWORD
        directory.mkdir(mode=0o700)
        self.programs: Path | None = None
        """A directory of stand-ins for programs, found before the real ones."""
        self.environment: dict[str, str] = {}
        """Further variables of the environment of Ansible's programs."""
        self._state_file = directory / "state.json"
        self._vcenter: Vcenter | None = None

    @property
    def vcenter(self) -> Vcenter:
        """The running simulator."""
        assert self._vcenter is not None, "the lab has not been started"
        return self._vcenter

    def start(
        self, *, time_scale: int = 120, change: Callable[[Model], None] | None = None, faults: Sequence[Model] = ()
    ) -> None:
        """Serve the lab's model, with a change to it and with faults."""
        model = yaml.safe_load((INVENTORY / "model.yml").read_text())
        if change:
            change(model)
        files = {name: self.directory / name for name in ("model.yml", "faults.yml", "password", "ready.json", "log")}
        files["model.yml"].write_text(yaml.safe_dump(model))
        files["faults.yml"].write_text(yaml.safe_dump(list(faults)))
        files["password"].touch(mode=0o600)
        files["password"].write_text(self.password + "\n")
        command = [
            "--listen", "127.0.0.1:0", "--time-scale", str(time_scale),
            "--model", str(files["model.yml"]), "--faults", str(files["faults.yml"]),
            "--username", USERNAME, "--password-file", str(files["password"]),
            "--state", str(self._state_file), "--ready-file", str(files["ready.json"]),
        ]  # fmt: skip
        process = start_simulator(command, files["log"])
        try:
            wait_for(lambda: files["ready.json"].exists() or process.poll() is not None, "the simulator is ready")
            assert process.poll() is None, files["log"].read_text()
        except BaseException:
            process.kill()
            process.wait()
            raise
        self._vcenter = Vcenter(self.directory, process, json.loads(files["ready.json"].read_text()))

    def stop(self) -> None:
        """End the simulator."""
        if self._vcenter is not None:
            self._vcenter.stop()

    def state(self) -> bytes:
        """The simulator's world, byte by byte, when its file has been quiet for longer than writing is put off."""
        asked = time.time()  # what has just changed may not be written yet, and the file be old

        def quiet() -> bool:
            return time.time() - max(asked, self._state_file.stat().st_mtime) > _QUIET_S

        wait_for(quiet, "the state file is quiet")
        return self._state_file.read_bytes()

    def locks(self) -> list[str]:
        """The operators' locks that somebody holds, by the names of their folders."""
        with self._all(vim.Folder) as folders:
            return [item.name for item in folders if item.name.startswith("gpuops-lock")]

    def hosts(self) -> dict[str, dict[str, Any]]:
        """Connection, maintenance mode, active passthrough, boot time and intents of every host."""
        with self._all(vim.HostSystem) as hosts:
            return {
                host.name: {
                    "connection": host.runtime.connectionState,
                    "in_maintenance": host.runtime.inMaintenanceMode,
                    "active": sorted(
                        info.id for info in (host.config.pciPassthruInfo if host.config else ()) if info.passthruActive
                    ),
                    "booted": host.runtime.bootTime,
                    "intent": [value.value for value in host.customValue if value.value],
                }
                for host in hosts
            }

    def vms(self) -> dict[str, dict[str, Any]]:
        """Power, host and number of passthrough devices of every virtual machine that is no template."""
        with self._all(vim.VirtualMachine) as vms:
            return {
                vm.name: {
                    "power": vm.runtime.powerState,
                    "host": vm.runtime.host.name,
                    "gpus": sum(isinstance(d, vim.vm.device.VirtualPCIPassthrough) for d in vm.config.hardware.device),
                }
                for vm in vms
                if not vm.config.template
            }

    def vgpus(self) -> dict[str, list[str]]:
        """The vGPU profiles of every virtual machine that has any."""
        with self._all(vim.VirtualMachine) as vms:
            found = {
                vm.name: [
                    device.backing.vgpu
                    for device in vm.config.hardware.device
                    if isinstance(device.backing, vim.vm.device.VirtualPCIPassthrough.VmiopBackingInfo)
                ]
                for vm in vms
            }
        return {name: profiles for name, profiles in found.items() if profiles}

    @contextlib.contextmanager
    def _all(self, kind: type) -> Iterator[list[Any]]:
        """All objects of a kind, read by pyVmomi alone in a session of their own."""
        context = ssl.create_default_context(cafile=self.vcenter.certificate)
        session = SmartConnect(
            host="127.0.0.1", port=self.vcenter.port, user=USERNAME, pwd=self.password, sslContext=context
        )
        try:
            content = session.RetrieveContent()
            yield list(content.viewManager.CreateContainerView(content.rootFolder, [kind], True).view)
        finally:
            Disconnect(session)

    def playbook(self, name: str, *arguments: str) -> Run:
        """Run a playbook of the collection to its end."""
        process = self.start_playbook(name, *arguments)
        output, _ = process.communicate()
        return Run(process.returncode, output)

    def start_playbook(self, name: str, *arguments: str) -> subprocess.Popen[str]:
        """Start a playbook in a process group of its own."""
        return self.start_ansible("ansible-playbook", f"playbooks/{name}.yml", "-i", str(INVENTORY), *arguments)

    def run(self, program: str, *arguments: str) -> str:
        """Run another of Ansible's programs and return what it prints; it must succeed."""
        process = self.start_ansible(program, *arguments)
        output, _ = process.communicate()
        assert process.returncode == 0, output
        return output

    def start_ansible(self, program: str, *arguments: str) -> subprocess.Popen[str]:
        """Start one of Ansible's programs in the lab."""
        temporary = str(self.directory / "tmp")
        path = [*([str(self.programs)] if self.programs else []), str(BIN), os.environ["PATH"]]
        return subprocess.Popen(
            [str(BIN / program), *arguments],
            cwd=TOP,
            env=environment(
                PATH=os.pathsep.join(path),
                GPUOPS_LAB_DIR=str(self.directory),
                ANSIBLE_LOCAL_TEMP=temporary,
                ANSIBLE_REMOTE_TEMP=temporary,
                **self.environment,
            ),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )


def kill_hard(process: subprocess.Popen[str]) -> str:
    """`kill -9` of a run and all its workers, each of which has a session of its own; what it had printed."""
    if process.poll() is None:
        for pid in _stopped_family(process.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    return process.communicate()[0]


def _stopped_family(pid: int) -> set[int]:
    """A process and all that descend from it, stopped, so that none can start another meanwhile."""
    family: set[int] = set()
    found = {pid}
    while found:
        for member in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(member, signal.SIGSTOP)
        family |= found
        found = {child for child, parent in _parents().items() if parent in family} - family
    return family


def _parents() -> dict[int, int]:
    """The parent of every process."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # gone meanwhile
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
    return parents
