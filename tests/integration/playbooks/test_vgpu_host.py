# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The vGPU path of one host: manager, shared direct, modes by nvidia-smi, reboot, profiles; again; away."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from lab import Lab

HOST = "esx-gpu-03.lab"
BUNDLE = "https://depot.lab/NVD-VGPU-800_535.154.02.zip"
WANTED = {
    "grid_host_driver_version": "535.154.02",
    "grid_host_driver_bundle": BUNDLE,
    "grid_host_driver_reboot_ok": True,
    "esxi_graphics_default_type": "sharedDirect",
    "esxi_passthrough_devices": [],
}
# Modes of one GPU, kept in a file beside it: what nvidia-smi does, as far as the role asks it. What is pending is in
# force when it is asked again: the host has rebooted by then.
NVIDIA_SMI = """#!/bin/sh
state="$(dirname "$0")/modes"
echo "$*" >> "$(dirname "$0")/calls"
case "$*" in
  *--query-gpu=*) sed -i 's/Enabled, Disabled/Disabled, Disabled/' "$state"; cat "$state" ;;
  "-i 00000000:3B:00.0 -e 0") sed -i 's/Enabled, Enabled/Enabled, Disabled/' "$state" ;;
  *) exit 3 ;;
esac
"""


def nvidia_smi(directory: Path) -> Path:
    """A stand-in for the host's nvidia-smi, reached by a local connection."""
    directory.mkdir()
    program = directory / "nvidia-smi"
    program.write_text(NVIDIA_SMI)
    program.chmod(0o755)
    (directory / "modes").write_text("00000000:3B:00.0, Enabled, Enabled, [N/A], [N/A]\n")
    return program


def profiles(lab: Lab) -> list[str]:
    found: list[str] = lab.vcenter.host(HOST)["vgpu_types"]
    return found


def test_check_install_again_remove(lab: Lab, tmp_path: Path) -> None:
    lab.start()
    program = nvidia_smi(tmp_path / "host")
    wanted: dict[str, Any] = WANTED | {
        "esxi_graphics_ecc": {"all": False},
        "esxi_graphics_nvidia_smi": str(program),
        "esxi_graphics_ssh_connection": "local",
    }
    overlay = tmp_path / "vgpu.json"
    overlay.write_text(json.dumps(wanted))
    arguments = ("--limit", HOST, "-e", f"@{overlay}")
    before = lab.state()

    checked = lab.playbook("vgpu_host", "--check", "--diff", *arguments)
    assert checked.returncode == 0, checked.output
    assert checked.count("changed") == {HOST: 6}, checked.output
    assert lab.state() == before
    assert "-e 0" not in (program.parent / "calls").read_text()

    done = lab.playbook("vgpu_host", *arguments)
    assert done.returncode == 0, done.output
    assert done.count("changed") == checked.count("changed"), done.output
    assert any("t4-16" in name for name in profiles(lab))
    assert lab.hosts()[HOST]["intent"] == []
    assert lab.hosts()[HOST]["in_maintenance"] is False
    assert (program.parent / "calls").read_text().count("-e 0") == 1
    booted = lab.hosts()[HOST]["booted"]

    again = lab.playbook("vgpu_host", *arguments)
    assert again.returncode == 0, again.output
    assert again.count("changed") == {}, again.output
    assert lab.hosts()[HOST]["booted"] == booted
