"""tools/guest with real guests: their life, two instances side by side, and what crashes leave (nothing)."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

GUEST = Path(__file__).resolve().parents[2] / "tools" / "guest"
RUN_DIR = Path("/run/gpuops-guest")
BUILD_S = 600

MISSING = [name for name in ("podman", "mmdebstrap", "ssh") if shutil.which(name) is None]
pytestmark = [
    pytest.mark.guests,
    pytest.mark.skipif(os.geteuid() != 0, reason="guests need root"),
    pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)} (tools/guest setup)"),
]


def guest(*words: str, spec: object = None, code: int = 0, **environment: str) -> dict[str, Any]:
    """Run tools/guest; return its JSON, or for an expected failure {"error": its one line}."""
    result = subprocess.run(
        [GUEST, *words],
        input=None if spec is None else json.dumps(spec),
        stdin=subprocess.DEVNULL if spec is None else None,
        capture_output=True,
        text=True,
        timeout=BUILD_S,
        env={**os.environ, **environment},
        check=False,
    )
    assert result.returncode == code, result.stderr
    if code:
        assert result.stdout == ""
        assert result.stderr.count("\n") == 1
        return {"error": result.stderr}
    parsed: dict[str, Any] = json.loads(result.stdout)
    return parsed


def creating(spec: object, **environment: str) -> subprocess.Popen[str]:
    """Start `tools/guest create` and do not wait for it."""
    process = subprocess.Popen(
        [GUEST, "create"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
    )
    assert process.stdin is not None
    process.stdin.write(json.dumps(spec))
    process.stdin.close()
    process.stdin = None
    return process


def until(condition: Callable[[], object], what: str, timeout_s: float = 60.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout_s} s: {what}"
        time.sleep(0.02)


def processes() -> dict[int, str]:
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                found[int(entry.name)] = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue
    return found


def parent(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


def footprint() -> dict[str, list[str]]:
    """Return what guests occupy on the host: interfaces, mounts, processes, files."""
    mounts = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    rules = subprocess.run(["iptables-save"], capture_output=True, text=True, check=True).stdout
    resident = ("conmon", "aardvark-dns", "mmdebstrap", "podman ", "/sbin/init")
    return {
        "interfaces": sorted(entry.name for entry in Path("/sys/class/net").iterdir()),
        "mounts": sorted(mounts),
        "rules": sorted(line for line in rules.splitlines() if line.startswith("-A") and "10.89." in line),
        "processes": sorted(text for text in processes().values() if any(word in text for word in resident)),
        "files": sorted(str(path) for path in RUN_DIR.rglob("*")),
        "names": sorted(path.name for path in Path("/run/containers/networks").glob("aardvark-dns/gpuops.*")),
    }


@pytest.fixture(scope="session", autouse=True)
def _image() -> None:
    guest("image", "build")


@pytest.fixture(scope="session")
def key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("key") / "id_ed25519"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", path], check=True)
    return path


@dataclass
class Lab:
    """One instance of a test, and its ssh client."""

    instance: str
    key: Path
    directory: Path

    def spec(self, *names: str, owner_pid: int | None = None, **settings: object) -> dict[str, Any]:
        public = self.key.with_suffix(".pub").read_text().strip()
        guests = [{"name": name, "authorized_keys": [public], **settings} for name in names]
        return {"instance": self.instance, "guests": guests, "owner_pid": owner_pid}

    def create(self, *names: str, **settings: Any) -> list[dict[str, Any]]:
        made: list[dict[str, Any]] = guest("create", spec=self.spec(*names, **settings))["guests"]
        return made

    def act(self, action: str, *names: str) -> dict[str, Any]:
        entries = guest(action, "--instance", self.instance, *names)["guests"]
        assert len(entries) == 1
        entry: dict[str, Any] = entries[0]
        return entry

    def state(self, name: str) -> str:
        entries = guest("list", "--instance", self.instance)["guests"]
        return next((str(entry["state"]) for entry in entries if entry["name"] == name), "absent")

    def ssh(self, entry: dict[str, Any], command: str, code: int = 0) -> str:
        """Run a command in a guest, trusting only the host key that tools/guest reported."""
        known = self.directory / "known_hosts"
        known.write_text(entry["ssh"]["known_hosts"] + "\n")
        options = [f"UserKnownHostsFile={known}", "StrictHostKeyChecking=yes", "ConnectTimeout=10", "BatchMode=yes"]
        words = [word for option in options for word in ("-o", option)]
        target = f"{entry['ssh']['user']}@{entry['address']}"
        result = subprocess.run(
            ["ssh", *words, "-i", self.key, "-p", str(entry["ssh"]["port"]), target, command],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        if code == 0:
            assert result.returncode == 0, result.stderr
        return result.stdout.strip()


@pytest.fixture
def make_lab(key: Path, tmp_path: Path) -> Iterator[Callable[[], Lab]]:
    """Return a maker of instances; after the test the host must be as it was before."""
    before = footprint()
    labs: list[Lab] = []

    def make() -> Lab:
        directory = tmp_path / str(len(labs))
        directory.mkdir()
        labs.append(Lab(f"test-{uuid.uuid4().hex[:8]}", key, directory))
        return labs[-1]

    yield make
    for lab in labs:
        guest("cleanup", "--instance", lab.instance)
    # podman's own helpers end a moment after the last container
    until(lambda: footprint()["processes"] == before["processes"], "no process left", 20.0)
    assert footprint() == before


@pytest.fixture
def lab(make_lab: Callable[[], Lab]) -> Lab:
    return make_lab()


def greets(address: str) -> bool:
    with socket.create_connection((address, 22), 5.0) as connection:
        connection.settimeout(1.5)
        try:
            return connection.recv(4) == b"SSH-"
        except TimeoutError:
            return False


def test_the_life_of_a_guest(lab: Lab, tmp_path: Path) -> None:
    (tmp_path / "greeting").write_text("hello\n")
    settings: dict[str, Any] = {
        "hostname": "gpu-vm-01.lab",
        "memory_mb": 2048,
        "cpus": 1.5,
        "environment": {"LAB_TOKEN": "a b=c"},
        "volumes": [{"source": str(tmp_path), "target": "/mnt/shared", "read_only": True}],
    }
    (entry,) = lab.create("gpu-vm-01", **settings)
    assert (entry["state"], entry["ready"], entry["changed"]) == ("running", True, True)
    assert (entry["hostname"], entry["memory_mb"], entry["cpus"]) == ("gpu-vm-01.lab", 2048, 1.5)
    assert (entry["system"], entry["failed_units"]) == ("running", [])
    assert lab.ssh(entry, "hostname; echo $LAB_TOKEN; cat /mnt/shared/greeting").split("\n") == [
        "gpu-vm-01.lab",
        "a b=c",
        "hello",
    ]
    lab.ssh(entry, "touch /mnt/shared/x", code=1)
    assert not (tmp_path / "x").exists()
    public = tmp_path / "host.pub"
    public.write_text(entry["ssh"]["host_key"] + "\n")
    shown = subprocess.run(["ssh-keygen", "-l", "-f", public], capture_output=True, text=True, check=True).stdout
    assert entry["ssh"]["fingerprint"] == shown.split()[1]

    (again,) = lab.create("gpu-vm-01", **settings)
    assert again == {**entry, "changed": False}
    other = lab.spec("gpu-vm-01", hostname="other.lab")
    assert "exists with other settings" in guest("create", spec=other, code=5)["error"]

    frozen = lab.act("freeze", "gpu-vm-01")
    assert (frozen["state"], frozen["changed"]) == ("frozen", True)
    assert not greets(entry["address"])
    assert lab.act("freeze", "gpu-vm-01")["changed"] is False
    assert "is frozen" in guest("reboot", "--instance", lab.instance, "gpu-vm-01", code=5)["error"]
    assert lab.act("thaw", "gpu-vm-01")["changed"] is True
    assert greets(entry["address"])

    lab.ssh(entry, "echo kept > /root/file")
    assert lab.act("reboot", "gpu-vm-01")["address"] == entry["address"]
    assert lab.ssh(entry, "cat /root/file") == "kept"

    assert lab.act("stop", "gpu-vm-01")["state"] == "stopped"
    assert lab.act("stop", "gpu-vm-01")["changed"] is False
    assert "is stopped" in guest("freeze", "--instance", lab.instance, "gpu-vm-01", code=5)["error"]
    started = lab.act("start", "gpu-vm-01")
    assert started == {**entry, "changed": True}
    assert lab.ssh(started, "cat /root/file") == "kept"

    lab.act("freeze", "gpu-vm-01")
    assert lab.act("destroy", "gpu-vm-01") == {
        "name": "gpu-vm-01",
        "instance": lab.instance,
        "state": "absent",
        "changed": True,
    }
    assert lab.act("destroy", "gpu-vm-01")["changed"] is False
    assert "has no guest gpu-vm-01" in guest("start", "--instance", lab.instance, "gpu-vm-01", code=4)["error"]


def test_a_guest_reboots_and_powers_off_from_inside(lab: Lab) -> None:
    (entry,) = lab.create("vm")
    booted = "systemctl show --value --property UserspaceTimestampMonotonic"
    before = lab.ssh(entry, booted)
    lab.ssh(entry, "reboot", code=255)
    until(lambda: lab.ssh(entry, booted, code=255) not in ("", before), "up again after its own reboot")
    lab.ssh(entry, "poweroff", code=255)
    until(lambda: lab.state("vm") == "stopped", "stopped after its own power-off")
    assert lab.act("start", "vm")["changed"] is True


def test_bookworm_boots_too(lab: Lab) -> None:
    (entry,) = lab.create("vm", image="bookworm")
    assert (entry["system"], entry["failed_units"]) == ("running", [])
    assert lab.ssh(entry, ". /etc/os-release; echo $VERSION_CODENAME") == "bookworm"


def test_guests_of_an_instance_reach_each_other_by_name(lab: Lab) -> None:
    first, second = lab.create("gpu-vm-01", "gpu-vm-02")
    command = "getent ahostsv4 gpu-vm-02 && exec 3<>/dev/tcp/gpu-vm-02/22 && head -c 4 <&3"
    output = lab.ssh(first, f"bash -c '{command}'")
    assert output.split()[0] == second["address"]
    assert output.endswith("SSH-")


def test_two_instances_do_not_disturb_each_other(make_lab: Callable[[], Lab]) -> None:
    one, two = make_lab(), make_lab()
    started = [creating(lab.spec("vm", hostname="vm.lab")) for lab in (one, two)]
    results = [process.communicate(timeout=BUILD_S) for process in started]
    assert [process.returncode for process in started] == [0, 0], results
    first, second = (json.loads(out)["guests"][0] for out, _ in results)
    assert first["address"] != second["address"]
    assert (one.ssh(first, "echo one"), two.ssh(second, "echo two")) == ("one", "two")
    one.act("freeze", "vm")
    assert two.state("vm") == "running"
    assert guest("cleanup", "--instance", one.instance)["removed"] == {one.instance: ["vm"]}
    assert (one.state("vm"), two.state("vm")) == ("absent", "running")
    assert two.ssh(second, "echo two") == "two"


def reporting_podman(directory: Path) -> Path:
    """Make a podman that leaves a file when it makes a network or a container, too short to be seen by polling."""
    program = directory / "bin" / "podman"
    program.parent.mkdir()
    program.write_text(
        "#!/bin/sh\n"
        f'case "$*" in "network create "*) : >{directory}/network ;; "create "*) : >{directory}/container ;; esac\n'
        f'exec {shutil.which("podman")} "$@"\n'
    )
    program.chmod(0o755)
    return program.parent


@pytest.mark.parametrize("children", [False, True], ids=["creator", "creator-and-podman"])
@pytest.mark.parametrize("moment", ["record", "network", "container", "bridge", "conmon", "init"])
def test_a_killed_create_leaves_nothing_after_cleanup(lab: Lab, tmp_path: Path, moment: str, children: bool) -> None:
    bridges = set(Path("/sys/class/net").iterdir())
    container = f"gpuops.{lab.instance}.vm"

    def reached() -> bool:
        match moment:
            case "record":
                return (RUN_DIR / "guests" / f"{lab.instance}.vm.json").exists()
            case "network" | "container":
                return (tmp_path / moment).exists()
            case "conmon":
                return any("/conmon " in text and container in text for text in processes().values())
            case "init":
                conmon = {pid for pid, text in processes().items() if "/conmon " in text and container in text}
                return any(parent(pid) in conmon for pid, text in processes().items() if "/sbin/init" in text)
            case _:
                return bool(set(Path("/sys/class/net").iterdir()) - bridges)

    process = creating(lab.spec("vm"), PATH=f"{reporting_podman(tmp_path)}:{os.environ['PATH']}")
    until(reached, moment)
    own = [
        pid for pid, text in processes().items() if "podman" in text and lab.instance in text and "conmon" not in text
    ]
    process.kill()
    process.communicate()
    for pid in own if children else ():
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    guest("cleanup", "--instance", lab.instance)
    assert guest("list", "--instance", lab.instance) == {"guests": []}
    (entry,) = lab.create("vm")
    assert lab.ssh(entry, "echo again") == "again"


def test_a_terminated_create_takes_back_what_it_began(lab: Lab) -> None:
    process = creating(lab.spec("vm"))
    until(lambda: (RUN_DIR / "guests" / f"{lab.instance}.vm.json").exists(), "the guest is being made")
    process.terminate()
    out, err = process.communicate(timeout=120)
    assert (process.returncode, out) == (130, "")
    assert err == "guest: interrupted; what was begun has been undone\n"
    assert lab.state("vm") == "absent"


def test_a_stale_owner_takes_its_guests_along(make_lab: Callable[[], Lab]) -> None:
    lab, other = make_lab(), make_lab()
    owner = subprocess.Popen(["sleep", "600"])
    try:
        lab.create("owned", owner_pid=owner.pid)
        other.create("free")
        assert guest("cleanup", "--stale")["removed"] == {}
        owner.kill()
        owner.wait()
        assert guest("cleanup", "--stale")["removed"] == {lab.instance: ["owned"]}
        assert other.state("free") == "running"
        assert "not a running process" in guest("create", spec=lab.spec("x", owner_pid=owner.pid), code=2)["error"]
    finally:
        owner.kill()
        owner.wait()


def test_a_missing_volume_is_said_before_anything_is_made(lab: Lab, tmp_path: Path) -> None:
    volumes = [{"source": str(tmp_path / "absent"), "target": "/mnt"}]
    assert "does not exist" in guest("create", spec=lab.spec("vm", volumes=volumes), code=2)["error"]
    assert lab.state("vm") == "absent"


def test_an_image_is_built_once(tmp_path: Path) -> None:
    command = [str(GUEST), "image", "build", "--suite", "trixie", "--package", "less"]
    environment = {**os.environ, "GUEST_CACHE": str(tmp_path)}
    builds = [subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) for _ in range(2)]
    results = [json.loads(build.communicate(timeout=BUILD_S)[0]) for build in builds]
    reference = results[0]["image"]
    try:
        assert results[1]["image"] == reference
        assert sorted(result["cached"] for result in results) == [False, True]
        assert guest(*command[1:], GUEST_CACHE=str(tmp_path))["cached"] is True
        assert [path.name for path in tmp_path.iterdir()] == [f"{reference.rpartition(':')[2]}.tar"]
    finally:
        assert guest("image", "prune", reference, GUEST_CACHE=str(tmp_path))["removed"] == [reference]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("children", [False, True], ids=["builder", "builder-and-mmdebstrap"])
def test_a_killed_build_leaves_nothing_after_cleanup(lab: Lab, tmp_path: Path, children: bool) -> None:
    cache = tmp_path / "cache"
    build = subprocess.Popen(
        [GUEST, "image", "build", "--package", "less"], env={**os.environ, "GUEST_CACHE": str(cache)}
    )
    until(lambda: any(cache.glob("build.*/mmdebstrap.*/var")), "mmdebstrap is at work")
    build.kill()
    build.wait()
    for pid, text in processes().items():
        if children and "mmdebstrap" in text and str(cache) in text:
            os.kill(pid, signal.SIGKILL)
    removed = guest("cleanup", "--instance", lab.instance, GUEST_CACHE=str(cache))
    assert len(removed["builds"]) == 1
    assert not any(path.is_dir() for path in cache.iterdir())
    assert not any("mmdebstrap" in text and str(cache) in text for text in processes().values())


def test_a_failed_build_says_why_and_where_to_read_on(tmp_path: Path) -> None:
    error = guest("image", "build", "--package", "no-such-package-here", code=6, GUEST_CACHE=str(tmp_path))["error"]
    assert "no-such-package-here" in error
    log = next(tmp_path.glob("*.log"))
    assert str(log) in error
    assert not any(path.is_dir() for path in tmp_path.iterdir())
