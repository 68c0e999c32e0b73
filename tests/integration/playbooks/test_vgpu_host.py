# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The vGPU path of one host: manager, shared direct, modes by nvidia-smi, reboots, profiles; again; killed; refused."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from lab import Lab, Model, kill_hard
from simulated import BIN, USERNAME, wait_for

HOST, OTHER = "esx-gpu-03.lab", "esx-gpu-02.lab"
BUNDLE = "https://depot.lab/NVD-VGPU-800_535.154.02/metadata.zip"
FIRST, SECOND = "00000000:3B:00.0", "00000000:5E:00.0"
WANTED = {
    "grid_host_driver_version": "535.154.02",
    "grid_host_driver_bundle": BUNDLE,
    "grid_host_driver_reboot_ok": True,
    "esxi_graphics_default_type": "sharedDirect",
    "esxi_passthrough_devices": [],
    "esxi_graphics_ecc": {"all": False},
    "esxi_graphics_mig": {"0000:5e:00.0": True},
    "esxi_graphics_ssh_connection": "local",
}
SET = [f"-i {FIRST} -e 0", f"-i {SECOND} -mig 1"]

# What nvidia-smi does, as far as the role asks it: it answers once the driver is loaded, and what is pending comes into
# force when the host has booted since. `hang` is where a call that sets a mode stays until it is killed, `after` it has
# set it or `before`; `refuses` is what the GPU does at boot to a mode: it stays `pending`, or is `dropped`.
NVIDIA_SMI = """#!{python}
import json, pathlib, signal, ssl, sys
from pyVim.connect import Disconnect, SmartConnect
from pyVmomi import vim

place = pathlib.Path(__file__).parent
lab, gpus = (json.loads((place / name).read_text()) for name in ("lab", "gpus"))
arguments = sys.argv[1:]
with (place / "calls").open("a") as calls:
    calls.write(" ".join(arguments) + "\\n")
session = SmartConnect(
    host="127.0.0.1", port=lab["port"], user=lab["user"], pwd=lab["password"],
    sslContext=ssl.create_default_context(cafile=lab["certificate"]),
)
content = session.RetrieveContent()
hosts = content.viewManager.CreateContainerView(content.rootFolder, [vim.HostSystem], True).view
host = next(host for host in hosts if host.name == lab["host"])
booted = str(host.runtime.bootTime)
loaded = any(gpu.graphicsType in ("shared", "sharedDirect") for gpu in host.config.graphicsInfo)
Disconnect(session)
if not loaded:
    sys.exit("NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.")
if gpus["booted"] != booted:
    for modes in gpus["modes"].values():
        for mode in modes.values():
            if lab["refuses"] == "dropped":
                mode[1] = mode[0]
            elif lab["refuses"] is None:
                mode[0] = mode[1]
    gpus["booted"] = booted


def keep():
    (place / "gpus").write_text(json.dumps(gpus))


keep()
if arguments[0].startswith("--query-gpu="):
    for bus, modes in gpus["modes"].items():
        print(bus, *modes.get("ecc", ["[N/A]"] * 2), *modes.get("mig", ["[N/A]"] * 2), sep=", ")
    sys.exit()
_, bus, option, value = arguments
if lab["hang"] == "before":
    (place / "hangs").touch()
    signal.pause()
gpus["modes"][bus][option.lstrip("-").replace("e", "ecc")][1] = "Enabled" if value == "1" else "Disabled"
keep()
if lab["hang"] == "after":
    (place / "hangs").touch()
    signal.pause()
"""


class NvidiaSmi:
    """A stand-in for the host's nvidia-smi, reached by a local connection."""

    def __init__(self, lab: Lab, directory: Path) -> None:
        directory.mkdir()
        self.program = directory / "nvidia-smi"
        self.program.write_text(NVIDIA_SMI.replace("{python}", str(BIN / "python"), 1))
        self.program.chmod(0o755)
        self._lab = {
            "port": lab.vcenter.port,
            "user": USERNAME,
            "password": lab.password,
            "certificate": str(lab.vcenter.certificate),
            "host": HOST,
        }
        modes: dict[str, dict[str, list[str]]] = {
            FIRST: {"ecc": ["Enabled", "Enabled"]},
            SECOND: {"ecc": ["Disabled", "Disabled"], "mig": ["Disabled", "Disabled"]},
        }
        self._gpus = directory / "gpus"
        self._gpus.write_text(json.dumps({"booted": None, "modes": modes}))
        self.behave()

    def behave(self, *, hang: str | None = None, refuses: str | None = None) -> None:
        """From now on."""
        settings = {**self._lab, "hang": hang, "refuses": refuses}
        (self.program.parent / "lab").write_text(json.dumps(settings))

    def set_by_hand(self, bus: str, mode: str, value: str) -> None:
        """Somebody sets a mode; it is pending."""
        gpus = json.loads(self._gpus.read_text())
        gpus["modes"][bus][mode][1] = value
        self._gpus.write_text(json.dumps(gpus))

    @property
    def hangs(self) -> bool:
        """Whether a call hangs."""
        return (self.program.parent / "hangs").exists()

    @property
    def calls(self) -> list[str]:
        """The calls that set something, in their order."""
        lines = (self.program.parent / "calls").read_text().splitlines()
        return [line for line in lines if line.startswith("-i")]

    @property
    def in_force(self) -> bool:
        """Whether the modes that the tests want are in force."""
        modes = json.loads(self._gpus.read_text())["modes"]
        return modes[FIRST]["ecc"] == ["Disabled"] * 2 and modes[SECOND]["mig"] == ["Enabled"] * 2


@pytest.fixture
def smi(lab: Lab, tmp_path: Path) -> NvidiaSmi:
    lab.start()
    return NvidiaSmi(lab, tmp_path / "host")


def arguments(lab: Lab, smi: NvidiaSmi) -> tuple[str, ...]:
    overlay = lab.directory / "vgpu.json"
    overlay.write_text(json.dumps(WANTED | {"esxi_graphics_nvidia_smi": str(smi.program)}))
    return ("--limit", HOST, "-e", f"@{overlay}")


def profiles(lab: Lab) -> list[str]:
    found: list[str] = lab.vcenter.host(HOST)["vgpu_types"]
    return found


def reboots(lab: Lab) -> int:
    count: int = lab.vcenter.counts()["requests"].get("RebootHost_Task", 0)
    return count


def in_service(lab: Lab) -> bool:
    host: dict[str, Any] = lab.hosts()[HOST]
    return host["intent"] == [] and host["in_maintenance"] is False


def test_check_install_again_change(lab: Lab, smi: NvidiaSmi) -> None:
    wanted = arguments(lab, smi)
    before = lab.state()

    checked = lab.playbook("vgpu_host", "--check", "--diff", *wanted)
    assert checked.returncode == 0, checked.output
    assert "then one more reboot" in checked.output
    assert lab.state() == before
    assert smi.calls == []

    done = lab.playbook("vgpu_host", *wanted)
    assert done.returncode == 0, done.output
    assert done.count("changed") == checked.count("changed") == {HOST: 7}, checked.output + done.output
    assert any("t4-16" in name for name in profiles(lab))
    assert in_service(lab)
    assert smi.calls == SET
    assert smi.in_force
    assert reboots(lab) == 2  # for the driver, and for the modes that could be set only then

    again = lab.playbook("vgpu_host", *wanted)
    assert again.returncode == 0, again.output
    assert again.count("changed") == {}, again.output
    assert (reboots(lab), smi.calls) == (2, SET)

    # With the driver loaded, modes change before the window's one reboot.
    smi.set_by_hand(FIRST, "ecc", "Enabled")
    smi.set_by_hand(SECOND, "mig", "Disabled")
    checked = lab.playbook("vgpu_host", "--check", *wanted)
    assert "ECC off at 0000:3b:00.0" in checked.output
    assert "MIG on at 0000:5e:00.0" in checked.output
    done = lab.playbook("vgpu_host", *wanted)
    assert done.returncode == 0, done.output
    assert done.count("changed") == checked.count("changed"), checked.output + done.output
    assert in_service(lab)
    assert smi.in_force
    assert (reboots(lab), smi.calls) == (3, SET * 2)


@pytest.mark.parametrize("moment", ["before", "after", "reboot"])
def test_a_run_killed_about_the_modes_is_carried_on_without_a_reboot_too_few_or_too_many(
    lab: Lab, smi: NvidiaSmi, moment: str
) -> None:
    wanted = arguments(lab, smi)
    smi.behave(hang=None if moment == "reboot" else moment)
    process = lab.start_playbook("vgpu_host", *wanted)
    try:
        wait_for(lambda: smi.hangs or reboots(lab) == 2 or process.poll() is not None, "the run is that far", 120)
        assert process.poll() is None
    finally:
        output = kill_hard(process)
    assert (reboots(lab) == 2) is (moment == "reboot"), output
    assert lab.hosts()[HOST]["intent"] != []

    smi.behave()
    carried_on = lab.playbook("vgpu_host", *wanted)
    assert carried_on.returncode == 0, carried_on.output
    assert smi.in_force
    assert in_service(lab)
    assert reboots(lab) == 2
    again = lab.playbook("vgpu_host", *wanted)
    assert again.count("changed") == {}, again.output


@pytest.mark.parametrize(
    ("refuses", "pending", "further"),
    # What is pending is not helped by one more reboot; what was dropped is set anew, once a run.
    [("pending", "off", 0), ("dropped", "on", 1)],
)
def test_a_mode_that_does_not_take_keeps_the_host_out_of_service_and_is_said(
    lab: Lab, smi: NvidiaSmi, refuses: str, pending: str, further: int
) -> None:
    wanted = arguments(lab, smi)
    smi.behave(refuses=refuses)
    for count in (2, 2 + further):
        run = lab.playbook("vgpu_host", *wanted)
        said = " ".join(run.output.split())
        assert run.count("failed") == {HOST: 1}, run.output
        assert f"{HOST} has come back, but not with the modes that are wanted" in said
        assert f"ECC of the GPU at 0000:3b:00.0 is wanted off, and is on (pending: {pending})" in said
        assert "MIG of the GPU at 0000:5e:00.0 is wanted on, and is off" in said
        assert "nvidia-smi -q on the host" in said
        assert lab.hosts()[HOST]["in_maintenance"] is True
        assert reboots(lab) == count


# A program in the place of ssh: runs here what is to run there, until the stand-in has been asked to set so many modes.
SSH = """#!/bin/sh
[ "$2" = ControlPersist ] && exit 0
test "$(grep -c ^-i {directory}/calls 2>/dev/null || :)" -ge {modes} && {{ echo no route to the host >&2; exit 255; }}
for command; do :; done
exec sh -c "$command"
"""

# The same, but the first try after each reboot fails: the third call is the first read after the driver's reboot, and
# after its second try and the setting of two modes, the seventh follows the modes' reboot.
LATE_SSH = """#!/bin/sh
[ "$2" = ControlPersist ] && exit 0
echo >> {directory}/tries
case $(wc -l < {directory}/tries) in 3|7) echo no route to the host >&2; exit 255;; esac
for command; do :; done
exec sh -c "$command"
"""


def instead_of_ssh(lab: Lab, script: str) -> None:
    lab.programs = lab.directory / "programs"
    lab.programs.mkdir()
    ssh = lab.programs / "ssh"
    ssh.write_text(script)
    ssh.chmod(0o755)


@pytest.mark.parametrize(
    ("modes", "said", "times_rebooted"),
    [
        (0, "the ECC and MIG modes cannot be read", 0),
        (1, "not all ECC and MIG modes are set", 1),
        (2, "the ECC and MIG modes cannot be read", 2),
    ],
    ids=["before the work", "while they are set", "after the reboot"],
)
def test_a_host_that_takes_no_ssh_fails_and_the_lock_is_given_back(
    lab: Lab, smi: NvidiaSmi, modes: int, said: str, times_rebooted: int
) -> None:
    (smi.program.parent / "calls").touch()
    instead_of_ssh(lab, SSH.format(directory=smi.program.parent, modes=modes))
    over_ssh = {"esxi_graphics_ssh_connection": "ssh", "__esxi_graphics_ssh_retries": 0}
    run = lab.playbook("vgpu_host", *arguments(lab, smi), "-e", json.dumps(over_ssh))
    assert run.count("failed") == {HOST: 1}, run.output
    assert f"{HOST}: {said}, as the host cannot be reached over SSH" in " ".join(run.output.split())
    assert reboots(lab) == times_rebooted
    assert lab.hosts()[HOST]["in_maintenance"] is (modes > 0)
    assert lab.locks() == []


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A port of 127.0.0.1 that nobody listens on, and nobody else gets meanwhile."""
    with socket.socket() as place:
        place.bind(("127.0.0.1", 0))
        yield place.getsockname()[1]


@pytest.mark.parametrize(
    ("limits", "goes_on"),
    [
        ({"max_failures": 0}, True),
        ({"max_unavailable": 2}, True),
        ({"max_failures": 1}, False),
    ],
    ids=["alone in its batch", "with another", "as many failures as are allowed"],
)
def test_a_host_whose_ssh_is_off_after_the_reboot_counts_as_failed_and_ends_no_run(
    lab: Lab, tmp_path: Path, closed_port: int, limits: dict[str, int], goes_on: bool
) -> None:
    """With the real client of SSH: the port is closed once the host has rebooted."""

    def two_alike(model: Model) -> None:
        model["clusters"][0]["hosts"][1]["gpus"] = [{"gpu": "T4", "count": 2}]

    lab.start(change=two_alike)
    smi = NvidiaSmi(lab, tmp_path / "host")
    rebooted = f"inventory_hostname == '{OTHER}' and (__esxi_rolling_stage | default('')).startswith('rebooted')"
    settings = {f"esxi_rolling_{name}": number for name, number in limits.items()} | {
        "ansible_host": "127.0.0.1",
        "ansible_port": closed_port,
        "esxi_graphics_ssh_connection": f"{{{{ 'ssh' if {rebooted} else 'local' }}}}",
        "__esxi_graphics_ssh_retries": 1,
    }
    run = lab.playbook("vgpu_host", *arguments(lab, smi), "--limit", f"{OTHER}:{HOST}", "-e", json.dumps(settings))
    said = " ".join(run.output.split())
    assert run.count("unreachable") == {}, run.output
    assert run.count("failed") == ({OTHER: 1} if goes_on else {OTHER: 1, HOST: 1}), run.output
    assert (
        f"{OTHER}: the ECC and MIG modes cannot be read, as the host cannot be reached over SSH (Failed to connect"
        in said
    )
    assert f"port {closed_port}: Connection refused). Look at its service SSH" in said
    assert (f"{HOST} was not begun, because as many hosts as" in said) is not goes_on
    assert lab.hosts()[OTHER]["in_maintenance"] is True
    assert in_service(lab)
    assert smi.in_force is goes_on
    assert lab.locks() == []


def test_a_host_that_takes_ssh_a_moment_after_its_reboot_is_waited_for(lab: Lab, smi: NvidiaSmi) -> None:
    """Its agent answers the vCenter sooner than its SSH does."""
    instead_of_ssh(lab, LATE_SSH.format(directory=smi.program.parent))
    run = lab.playbook("vgpu_host", *arguments(lab, smi), "-e", "esxi_graphics_ssh_connection=ssh")
    assert run.returncode == 0, run.output
    assert smi.in_force
    assert in_service(lab)
    assert (reboots(lab), smi.calls) == (2, SET)


def test_a_driver_that_does_not_answer_is_said_with_its_own_words(lab: Lab, smi: NvidiaSmi) -> None:
    wanted = arguments(lab, smi)
    smi.program.write_text("#!/bin/sh\necho 'No devices were found'\nexit 6\n")
    run = lab.playbook("vgpu_host", *wanted)
    said = " ".join(run.output.split())
    assert run.count("failed") == {HOST: 1}, run.output
    assert f"{HOST}: the ECC and MIG modes cannot be read" in said
    assert "No devices were found" in said
    assert lab.hosts()[HOST]["in_maintenance"] is True
