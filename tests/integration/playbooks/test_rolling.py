# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The rolling procedure with hooks of a site, on a terminal and without one."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
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
    second = tmp_path / "second.yml"
    second.write_text(HOOK.format(place=tmp_path, what="second", fails=[]))
    run = lab.playbook(
        "esxi_rolling", *hooks(tmp_path, work=[TWO]), "-e", "esxi_rolling_reboot=always",
        "-e", json.dumps({"esxi_rolling_work": [str(tmp_path / "work.yml"), str(second)]}),
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
        "second",
        "verify",
        "after_restore",
    ]
    assert f"work {ONE} of {ONE},{TWO}" in story
    assert f"second {ONE} of {ONE}" in story
    assert f"verify {ONE} of {ONE}" in story


EVERY = [ONE, TWO, THREE]


def test_the_inventory_says_how_many_hosts_go_at_a_time(lab: Lab, tmp_path: Path) -> None:
    """The default of the role is not taken for the word of the inventory."""
    lab.start()
    more = tmp_path / "more.yml"
    more.write_text(yaml.safe_dump({"all": {"hosts": {name: {"esxi_rolling_max_unavailable": 2} for name in EVERY}}}))
    run = lab.playbook("esxi_rolling", "-i", str(more), *hooks(tmp_path), "-e", "esxi_rolling_reboot=never")
    assert run.returncode == 0, run.output
    story = (tmp_path / "story").read_text().splitlines()
    assert [line.removeprefix("work ") for line in story if line.startswith("work")] == [
        f"{ONE} of {ONE},{TWO}",
        f"{TWO} of {ONE},{TWO}",
        f"{THREE} of {THREE}",
    ]


@pytest.mark.parametrize(
    ("settings", "out"),
    [
        pytest.param({}, [ONE], id="as many as may be out of service"),
        pytest.param({"max_unavailable": 2}, [ONE, TWO], id="the same, two at a time"),
        pytest.param({"max_unavailable": "67%"}, [ONE, TWO], id="a percentage of the play's hosts"),
        pytest.param({"max_unavailable": "10%"}, [ONE], id="at least one"),
        pytest.param({"max_failures": 2}, [ONE, TWO], id="a limit of its own"),
        pytest.param({"max_failures": 0}, EVERY, id="no limit"),
        pytest.param({"max_failures": 0, "on_failure": "stop"}, [ONE], id="no failure at all"),
    ],
)
def test_where_every_host_fails_only_so_many_are_left_out_of_service(
    lab: Lab, tmp_path: Path, settings: dict[str, object], out: list[str]
) -> None:
    lab.start()
    extra = json.dumps({f"esxi_rolling_{name}": value for name, value in settings.items()})
    run = lab.playbook("esxi_rolling", *hooks(tmp_path, work=EVERY), "-e", extra)
    assert run.count("failed") == dict.fromkeys(EVERY, 1), run.output
    assert sorted(name for name, host in lab.hosts().items() if host["in_maintenance"]) == out
    said = " ".join(run.output.split())
    for name in EVERY:
        assert (f"{name} was not begun" in said) is (name not in out)
    if len(out) < len(EVERY):
        assert f"({', '.join(out)})" in said
        assert "run again" in said

    mended = lab.playbook("esxi_rolling", *hooks(tmp_path), "-e", extra)
    assert mended.returncode == 0, mended.output
    assert [name for name, host in lab.hosts().items() if host["in_maintenance"] or host["intent"]] == []


def test_work_goes_on_below_the_limit_and_past_hosts_that_failed_in_service(lab: Lab, tmp_path: Path) -> None:
    lab.start()
    run = lab.playbook(
        "esxi_rolling", *hooks(tmp_path, before_drain=[ONE], work=[TWO]), "-e", "esxi_rolling_max_unavailable=2"
    )
    assert run.count("failed") == {ONE: 1, TWO: 1}, run.output
    assert [name for name, host in lab.hosts().items() if host["in_maintenance"]] == [TWO]
    assert f"after_restore {THREE} of {THREE}" in (tmp_path / "story").read_text()
    # One that failed while in service takes no capacity, so it does not count for the limit of one either.
    run = lab.playbook("esxi_rolling", *hooks(tmp_path, before_drain=[ONE], after_restore=[TWO]))
    assert run.count("failed") == {ONE: 1, TWO: 1}, run.output
    assert [name for name, host in lab.hosts().items() if host["in_maintenance"]] == []
    assert "was not begun" not in run.output


def test_a_host_that_too_few_gpus_would_be_left_without_is_not_begun(lab: Lab, tmp_path: Path) -> None:
    def two_each(model: dict[str, Any]) -> None:
        for host in model["clusters"][0]["hosts"]:
            host["gpus"] = [{"gpu": "T4", "count": 2}]

    lab.start(change=two_each)
    booted = {name: host["booted"] for name, host in lab.hosts().items()}
    run = lab.playbook(
        "esxi_rolling", *hooks(tmp_path), "-e", "esxi_rolling_reboot=always", "-e", "esxi_rolling_max_unavailable=2",
        "-e", '{"esxi_rolling_capacity_floor": {"T4": 4}}',
    )  # fmt: skip
    assert run.count("failed") == {TWO: 1}, run.output
    said = " ".join(run.output.split())
    assert f"{TWO} was not begun: without it there would be free 2 T4 (at least 4 are to stay free)." in said
    assert "lower esxi_rolling_max_unavailable, or lower esxi_rolling_capacity_floor; then run again." in said
    hosts = lab.hosts()
    assert {name for name in booted if hosts[name]["booted"] != booted[name]} == {ONE, THREE}
    assert [name for name, host in hosts.items() if host["in_maintenance"] or host["intent"]] == []
    assert f" {TWO} of" not in (tmp_path / "story").read_text()


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


def test_a_lock_that_is_refused_for_one_cluster_does_not_stop_the_hosts_of_another(lab: Lab, tmp_path: Path) -> None:
    """The next host may be of another cluster; a vCenter that does not answer is the same for all."""
    other = "esx-gen-01.lab"
    more = tmp_path / "more.yml"
    more.write_text(yaml.safe_dump({"all": {"children": {"esxi_gpu": {"hosts": {other: {}}}}}}))
    lab.start()
    lab.vcenter.ok("gpu_lock", clusters=["generic"], run_id="theirs", owner="ann@ops", holder_pid=os.getpid())
    run = lab.playbook("esxi_rolling", "-i", str(more), "--limit", f"{other}:{ONE}", *hooks(tmp_path))
    assert run.count("failed") == {other: 1}, run.output
    assert "ann@ops has held it since" in " ".join(run.output.split())
    assert f"after_restore {ONE} of {ONE}" in (tmp_path / "story").read_text()


def test_a_vcenter_that_fails_while_the_lock_is_taken_is_asked_for_no_further_host(lab: Lab, tmp_path: Path) -> None:
    lab.start(faults=[{"method": "CurrentTime", "nth": 1, "fault": {"type": "vmodl.fault.SystemError"}}])
    run = lab.playbook("esxi_rolling", *hooks(tmp_path))
    assert run.count("failed") == dict.fromkeys(EVERY, 1), run.output
    said = " ".join(run.output.split())
    for name in (TWO, THREE):
        assert f"{name} was not begun, because the vCenter itself had failed: it is as it was. Look at the" in said
    assert not (tmp_path / "story").exists()
    assert lab.vcenter.counts()["requests"].get("EnterMaintenanceMode_Task", 0) == 0
