"""Real guests behind the simulator's machines, and the lab that `make lab-up` brings: from power-on to nothing left."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pyVim.task import WaitForTask
from pyVmomi import vim
from serving import Served

TOP = Path(__file__).resolve().parents[2]
GUEST = TOP / "tools" / "guest"
NETWORKS = Path("/etc/containers/networks")
RUN_DIR = Path("/run/gpuops-guest")
LAB = [sys.executable, str(TOP / "tools" / "lab_up.py")]
DEMO_DOWN = [sys.executable, str(TOP / "tools" / "demo.py"), "down"]

MISSING = [name for name in ("podman", "mmdebstrap", "ssh") if shutil.which(name) is None]
pytestmark = [
    pytest.mark.guests,
    pytest.mark.skipif(os.geteuid() != 0, reason="guests need root"),
    pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)} (tools/guest setup)"),
]

MODEL = """
datacenter: dc
datastores: [{name: ds}]
networks: [{name: net}]
clusters: [{name: c, hosts: [{name: esx-1}, {name: esx-2}]}]
templates:
  - name: tpl
    guest: {image: trixie, environment: {SITE: lab}, volumes: [{source: SHARED, target: /mnt/shared}]}
"""


def until(condition: Callable[[], object], what: str, timeout_s: float = 120.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout_s} s: {what}"
        time.sleep(0.05)


def guests_of(instance: str) -> list[dict[str, Any]]:
    listed = subprocess.run([GUEST, "list", "--instance", instance], capture_output=True, text=True, check=True)
    found: list[dict[str, Any]] = json.loads(listed.stdout)["guests"]
    return found


def states(instance: str) -> list[str]:
    return [str(entry["state"]) for entry in guests_of(instance)]


def bridge_of(instance: str) -> Path:
    """The interface of an instance's network, while it has one."""
    network = json.loads((NETWORKS / f"gpuops.{instance}.json").read_text())
    return Path("/sys/class/net") / network["network_interface"]


def left_of(instance: str) -> list[str]:
    """Processes, mounts, networks and files that still tell of an instance."""
    mark = f"gpuops.{instance}"
    found = [str(path) for path in (*NETWORKS.glob(f"{mark}*"), *RUN_DIR.glob(f"*/{instance}.*")) if path.exists()]
    found += [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if mark in line]
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = entry.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        found += [words] if mark in words else []
    return found


def greets(address: str) -> bool:
    """Whether an sshd answers there."""
    try:
        with socket.create_connection((address, 22), 3.0) as connection:
            connection.settimeout(1.5)
            return connection.recv(4) == b"SSH-"
    except OSError:
        return False


@pytest.fixture
def instance() -> Iterator[str]:
    """The name of an instance; whatever a failed test leaves of it is removed."""
    name = f"test-{uuid.uuid4().hex[:8]}"
    yield name
    subprocess.run([GUEST, "cleanup", "--instance", name], check=True, capture_output=True)
    assert left_of(name) == []


@pytest.fixture
def key(tmp_path: Path) -> Path:
    path = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", path], check=True)
    return path


@pytest.fixture
def start(tmp_path: Path, instance: str, key: Path) -> Iterator[Callable[[], Served]]:
    """Start simulators of one lab, one after the other."""
    started: list[Served] = []
    subprocess.run([GUEST, "image", "build"], check=True, capture_output=True)
    (tmp_path / "shared").mkdir()
    options = ["--guest-command", str(GUEST), "--guest-instance", instance, "--guest-key", f"{key}.pub"]
    options += ["--state", str(tmp_path / "state.json")]

    def begin() -> Served:
        model = MODEL.replace("SHARED", str(tmp_path / "shared"))
        started.append(Served(tmp_path / f"server-{len(started)}", model, *options))
        return started[-1]

    yield begin
    for server in started:
        server.close()


def ssh(key: Path, vm: Any, instance: str, command: str) -> str:
    """Run a command in a guest at the address that the vCenter tells; the guest must show its own key."""
    address = str(vm.guest.ipAddress)
    (line,) = (one["ssh"]["known_hosts"] for one in guests_of(instance) if one["address"] == address)
    known = key.with_name("known_hosts")
    known.write_text(line + "\n")
    options = [f"UserKnownHostsFile={known}", "StrictHostKeyChecking=yes", "BatchMode=yes", "ConnectTimeout=10"]
    words = [word for option in options for word in ("-o", option)]
    result = subprocess.run(
        ["ssh", *words, "-i", key, f"root@{address}", command], capture_output=True, text=True, timeout=60, check=True
    )
    return result.stdout.strip()


def test_machines_live_and_die_with_their_guests(
    start: Callable[[], Served], instance: str, key: Path, tmp_path: Path
) -> None:
    lab = start()
    template, cluster = lab.find("dc/vm/tpl"), lab.find("dc/host/c")
    location = vim.vm.RelocateSpec(pool=cluster.resourcePool)
    tasks = [
        template.CloneVM_Task(template.parent, name, vim.vm.CloneSpec(location=location, powerOn=True, template=False))
        for name in ("gpu-vm-01", "gpu-vm-02")
    ]
    for task in tasks:
        WaitForTask(task, lab.client)
    first, second = (task.info.result for task in tasks)
    for vm in (first, second):
        until(lambda vm=vm: vm.guest.toolsRunningStatus == "guestToolsRunning", "the guest is up")  # type: ignore[misc]
    assert (first.guest.hostName, second.summary.guest.hostName) == ("gpu-vm-01", "gpu-vm-02")
    assert first.guest.ipAddress != second.guest.ipAddress
    assert lab.client.content.searchIndex.FindByIp(ip=first.guest.ipAddress, vmSearch=True) == first
    address, bridge = str(first.guest.ipAddress), bridge_of(instance)
    assert ssh(key, first, instance, "hostname; echo $SITE; touch /mnt/shared/seen") == "gpu-vm-01\nlab"
    assert (tmp_path / "shared" / "seen").exists()
    assert ssh(key, first, instance, "getent ahostsv4 gpu-vm-02").split()[0] == second.guest.ipAddress
    booted = "systemctl show --value --property UserspaceTimestampMonotonic"
    boot = ssh(key, first, instance, f"echo kept > /root/file; {booted}")

    WaitForTask(first.SuspendVM_Task(), lab.client)
    assert not greets(address)
    assert first.guest.ipAddress is None
    assert greets(second.guest.ipAddress)
    WaitForTask(first.PowerOnVM_Task(), lab.client)
    until(lambda: first.guest.ipAddress == address, "resumed")
    assert ssh(key, first, instance, booted) == boot

    first.RebootGuest()
    until(lambda: not first.guest.ipAddress, "restarting")
    until(lambda: first.guest.ipAddress == address, "up again")
    assert ssh(key, first, instance, booted) != boot
    WaitForTask(first.PowerOffVM_Task(), lab.client)
    assert not greets(address)
    WaitForTask(first.PowerOnVM_Task(), lab.client)
    until(lambda: first.guest.ipAddress == address, "up after power-off")
    assert ssh(key, first, instance, "cat /root/file") == "kept"

    second.ShutdownGuest()
    until(lambda: second.runtime.powerState == "poweredOff", "shut down")
    assert sorted(states(instance)) == ["running", "stopped"]
    WaitForTask(second.Destroy_Task(), lab.client)
    assert states(instance) == ["running"]
    WaitForTask(lab.find("dc/host/c/" + first.runtime.host.name).RebootHost_Task(force=True), lab.client)
    until(lambda: states(instance) == ["stopped"], "down with its host")
    lab.stop()
    assert (states(instance), bridge.exists()) == ([], False)
    until(lambda: left_of(instance) == [], "nothing is left", 20.0)


def test_a_killed_simulator_leaves_nothing_after_the_next_start(
    start: Callable[[], Served], instance: str, key: Path, tmp_path: Path
) -> None:
    lab = start()
    template, cluster = lab.find("dc/vm/tpl"), lab.find("dc/host/c")
    location = vim.vm.RelocateSpec(pool=cluster.resourcePool)
    spec = vim.vm.CloneSpec(location=location, powerOn=True, template=False)
    task = template.CloneVM_Task(template.parent, "vm", spec)
    WaitForTask(task, lab.client)
    until(lambda: task.info.result.guest.ipAddress, "the guest is up")
    ssh(key, task.info.result, instance, "echo old > /root/file")
    until(lambda: '"power": "poweredOn"' in (tmp_path / "state.json").read_text(), "the state is written")
    lab.kill()
    assert states(instance) == ["running"]

    again = start()
    vm = again.find("dc/vm/vm")
    until(lambda: vm.guest.ipAddress, "the machine that was on has a new guest")
    assert len(guests_of(instance)) == 1
    assert ssh(key, vm, instance, "test -e /root/file || echo new") == "new"
    again.stop()
    assert states(instance) == []


def test_lab_up_and_down(tmp_path: Path) -> None:
    directory = tmp_path / "lab"
    environment = {**os.environ, "GPUOPS_LAB_DIR": str(directory), "ANSIBLE_NOCOLOR": "1"}
    down = {"env": environment, "capture_output": True, "text": True, "timeout": 120}
    try:
        up = subprocess.run(LAB, env=environment, capture_output=True, text=True, check=False, timeout=400)
        assert up.returncode == 0, up.stdout[-3000:] + up.stderr
        instance = (directory / "instance").read_text().strip()
        assert states(instance) == ["running"] * 4
        assert (directory / "guest_key").stat().st_mode & 0o777 == 0o600
        lines = re.findall(r"^  (gpu-server-\w+): (ssh .*)$", up.stdout, re.MULTILINE)
        assert [name for name, _ in lines] == ["gpu-server-01", "gpu-server-02", "gpu-server-03a", "gpu-server-03b"]
        for name, line in lines:
            shown = subprocess.run(
                [*line.split(), "hostname"], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True
            )
            assert shown.stdout.strip() == name
        inventory = re.findall(r"ansible lab_guests -i (\S+) -m ping", up.stdout)
        ping = [str(Path(sys.executable).with_name("ansible")), "lab_guests", "-i", *inventory, "-m", "ping"]
        said = subprocess.run(ping, env=environment, capture_output=True, text=True, check=False, timeout=120)
        assert (said.returncode, said.stdout.count("pong")) == (0, 4), said.stdout + said.stderr
        bridge = bridge_of(instance)
    finally:
        ended = subprocess.run(DEMO_DOWN, **down, check=False)  # type: ignore[call-overload]
    assert ended.returncode == 0, ended.stderr
    assert (states(instance), bridge.exists(), directory.exists()) == ([], False, False)
    until(lambda: left_of(instance) == [], "nothing is left", 20.0)


@pytest.mark.parametrize("program", ["lab_up.py", "pool_demo.py"])
def test_without_podman_a_lab_says_so_in_one_line(tmp_path: Path, program: str) -> None:
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "python3").symlink_to(sys.executable)
    environment = {**os.environ, "GPUOPS_LAB_DIR": str(tmp_path / "lab"), "PATH": f"{tools}:/nowhere"}
    env = shutil.which("env")
    assert env is not None
    (tools / "env").symlink_to(env)
    command = [sys.executable, str(TOP / "tools" / program)]
    said = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)
    assert said.returncode == 1
    assert (said.stdout, said.stderr.count("\n")) == ("", 1)
    assert said.stderr.startswith(f"tools/{program}: guest: this is not a Debian or Ubuntu host; install by hand: ")
    assert not (tmp_path / "lab" / "simulator.pid").exists()
