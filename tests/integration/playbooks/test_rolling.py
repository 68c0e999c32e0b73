# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The rolling procedure with hooks of a site, on a terminal and without one."""

from __future__ import annotations

import contextlib
import os
import pty
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from lab import INVENTORY, Lab, kill_hard
from simulated import BIN, TOP, environment

ONE, TWO, THREE = "esx-gpu-01.lab", "esx-gpu-02.lab", "esx-gpu-03.lab"
HOOK = """---
- name: Say who is where
  ansible.builtin.lineinfile:
    path: "{place}/story"
    line: "{what} {{{{ inventory_hostname }}}} of {{{{ esxi_rolling_hosts | join(',') }}}}"
    create: true
    mode: "0600"
  throttle: 1
- name: Fail where asked to
  ansible.builtin.fail:
    msg: the firmware does not like {{{{ inventory_hostname }}}}
  when: inventory_hostname in {fails}
"""


def hooks(place: Path, **fails: list[str]) -> list[str]:
    """Arguments of a run whose hooks write what they see to `story`."""
    arguments = []
    for what in ("before_drain", "work", "verify", "after_restore"):
        file = place / f"{what}.yml"
        file.write_text(HOOK.format(place=place, what=what, fails=fails.get(what, [])))
        arguments += ["-e", f'{{"esxi_rolling_{what}": ["{file}"]}}']
    return arguments


def busy(model: dict[str, object]) -> None:
    model["vms"] = [{"name": "web", "host": ONE, "memory_mb": 4096, "power": "on"}]


def test_hooks_run_in_their_order_and_a_failed_host_stays_while_the_rest_goes_on(lab: Lab, tmp_path: Path) -> None:
    lab.start(change=busy)
    booted = {name: host["booted"] for name, host in lab.hosts().items()}
    run = lab.playbook(
        "esxi_rolling", *hooks(tmp_path, work=[TWO]), "-e", "esxi_rolling_reboot=always",
        "-e", "esxi_rolling_max_unavailable=2", "-e", '{"esxi_rolling_capacity_floor": {"T4": 0}}',
    )  # fmt: skip
    assert run.count("failed") == {TWO: 1}, run.output
    assert "the firmware does not like" in run.output
    hosts = lab.hosts()
    assert {name for name, host in hosts.items() if host["in_maintenance"]} == {TWO}
    assert {name for name in booted if hosts[name]["booted"] != booted[name]} == {ONE, THREE}
    assert lab.vms()["web"]["host"] == ONE
    story = (tmp_path / "story").read_text().splitlines()
    assert [line.split()[0] for line in story if f" {ONE} of" in line] == [
        "before_drain",
        "work",
        "verify",
        "after_restore",
    ]
    assert f"work {ONE} of {ONE},{TWO}" in story
    assert f"verify {ONE} of {ONE}" in story


@pytest.fixture
def short_directory() -> Iterator[Path]:
    """For sockets, whose paths have at most 107 characters."""
    with tempfile.TemporaryDirectory(prefix="gpuops-") as directory:
        yield Path(directory)


@pytest.mark.parametrize("terminal", [True, False], ids=["terminal", "no terminal"])
def test_a_terminal_shows_who_is_where(lab: Lab, short_directory: Path, terminal: bool) -> None:
    lab.start(time_scale=60)
    output: list[bytes] = []
    ours, theirs = pty.openpty() if terminal else os.pipe()
    process = subprocess.Popen(
        [str(BIN / "ansible-playbook"), "playbooks/esxi_rolling.yml", "-i", str(INVENTORY), "--limit", ONE,
         "-e", "esxi_rolling_reboot=always"],
        cwd=TOP,
        env=environment(
            PATH=f"{BIN}{os.pathsep}{os.environ['PATH']}", GPUOPS_LAB_DIR=str(lab.directory),
            TMPDIR=str(short_directory), GPUOPS_PROGRESS_INTERVAL="0.3",
        ),
        stdin=subprocess.DEVNULL, stdout=theirs, stderr=subprocess.STDOUT, text=True, start_new_session=True,
    )  # fmt: skip
    os.close(theirs)

    def read() -> None:
        with contextlib.suppress(OSError):
            while chunk := os.read(ours, 4096):
                output.append(chunk)

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    try:
        code = process.wait(timeout=240)
        reader.join(timeout=10)
    finally:
        kill_hard(process)
        os.close(ours)
    text = b"".join(output).decode()
    assert code == 0, text
    assert ("reboot: esx-gpu-01.lab" in text or "until it is back: esx-gpu-01.lab" in text) is terminal, text
    assert [path.name for path in short_directory.glob("gpuops-progress-*")] == []
