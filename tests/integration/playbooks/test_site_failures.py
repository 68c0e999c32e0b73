# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""site.yml where not everything goes well: interruptions, hosts of others, hosts that fail, one host at a time."""

from __future__ import annotations

import json
import typing as t

from lab import Lab, kill_hard
from simulated import wait_for

ONE, TWO, THREE = "esx-gpu-01.lab", "esx-gpu-02.lab", "esx-gpu-03.lab"


def gpu_hosts(model: dict[str, t.Any]) -> dict[str, dict[str, t.Any]]:
    return {host["name"]: host for cluster in model["clusters"] for host in cluster["hosts"]}


def open_points(lab: Lab) -> dict[str, dict[str, t.Any]]:
    report = json.loads((lab.directory / "report.json").read_text(encoding="utf-8"))
    return t.cast("dict[str, dict[str, t.Any]]", report["hosts"])


def test_one_host_then_an_interrupted_run_then_the_rest(lab: Lab) -> None:
    lab.start(time_scale=60)
    booted = {name: host["booted"] for name, host in lab.hosts().items()}

    limited = lab.playbook("site", "--limit", ONE)
    assert limited.returncode == 0, limited.output
    assert set(limited.recap) == {ONE}
    hosts = lab.hosts()
    assert {name for name in hosts if hosts[name]["booted"] != booted[name]} == {ONE}
    assert set(lab.vms()) == {"gpu-server-01"}

    run = lab.start_playbook("site")
    try:
        wait_for(
            lambda: run.poll() is not None or lab.hosts()[TWO]["connection"] == "notResponding",
            "the second host reboots",
        )
        assert run.poll() is None, "the run ended before the second host rebooted"
    finally:
        kill_hard(run)
    interrupted = lab.hosts()
    assert interrupted[TWO]["intent"], "nothing on the host says whose work it is"
    assert interrupted[THREE]["booted"] == booted[THREE]

    again = lab.playbook("site")
    assert again.returncode == 0, again.output
    assert set(again.count("changed")) == {TWO, THREE}
    finished = lab.hosts()
    assert not any(host["in_maintenance"] or host["intent"] for host in finished.values())
    assert {vm["power"] for vm in lab.vms().values()} == {"poweredOn"}
    assert len(lab.vms()) == 3
    assert lab.vcenter.counts()["requests"]["RebootHost_Task"] == 3, "a host was rebooted twice"


def test_a_run_killed_as_a_host_is_back_in_service_leaves_no_mark_after_the_next(lab: Lab) -> None:
    # The mark is written twice, with the boot time the second time; the third write, clearing it, hangs.
    lab.start(time_scale=1000, faults=[{"method": "SetField", "object": ONE, "nth": 3, "delay_s": 60}])
    run = lab.start_playbook("esxi_passthrough", "--limit", ONE)
    try:
        wait_for(
            lambda: run.poll() is not None or lab.vcenter.counts()["requests"].get("SetField") == 3,
            "the host has left maintenance mode",
        )
        assert run.poll() is None, "the run ended before it could be killed"
    finally:
        kill_hard(run)
    marked = lab.hosts()[ONE]
    assert (marked["in_maintenance"], bool(marked["intent"]), len(marked["active"])) == (False, True, 2)

    again = lab.playbook("esxi_passthrough", "--limit", ONE)
    assert again.returncode == 0, again.output
    assert again.count("changed") == {ONE: 1}
    assert lab.hosts()[ONE]["intent"] == []
    assert lab.vcenter.counts()["requests"]["EnterMaintenanceMode_Task"] == 1, "it was taken out of service for nothing"
    assert not lab.playbook("esxi_passthrough", "--limit", ONE).count("changed")


def test_a_host_of_an_administrator_is_left_and_a_silent_one_fails_alone(lab: Lab) -> None:
    def change(model: dict[str, t.Any]) -> None:
        gpu_hosts(model)[ONE]["in_maintenance"] = True
        gpu_hosts(model)[TWO]["connection_state"] = "notResponding"

    lab.start(change=change)
    run = lab.playbook("site")
    assert run.returncode != 0
    assert run.count("failed") == {TWO: 1}
    assert set(run.count("changed")) == {THREE}
    assert "esx-gpu-01.lab is in maintenance mode, and not by us" in run.output
    hosts = lab.hosts()
    assert hosts[ONE]["in_maintenance"]
    assert hosts[ONE]["active"] == []
    assert set(lab.vms()) == {"gpu-server-03"}
    report = open_points(lab)
    assert {name: (entry["left_alone"], entry["failed"], entry["state"]) for name, entry in report.items()} == {
        ONE: (True, False, "in maintenance mode"),
        TWO: (False, True, "does not respond"),
        THREE: (False, False, "in service"),
    }

    strict = lab.playbook("site", "-e", "esxi_passthrough_foreign_maintenance=fail", "--limit", f"{ONE},{THREE}")
    assert strict.count("failed") == {ONE: 1}
    assert strict.count("changed") == {}


def test_a_host_that_does_not_come_back_stays_in_maintenance_mode(lab: Lab) -> None:
    lab.start(faults=[{"method": "RebootHost_Task", "object": TWO, "never_returns": True}])
    run = lab.playbook("site", "-e", "esxi_rolling_timeout=5", "-e", "esxi_rolling_max_unavailable=2")
    assert run.returncode != 0
    assert run.count("failed") == {TWO: 1}
    assert run.count("rescued") == {TWO: 1}
    assert {name for name, host in lab.hosts().items() if host["in_maintenance"]} == {TWO}
    assert set(lab.vms()) == {"gpu-server-01", "gpu-server-03"}
    entry = open_points(lab)[TWO]
    assert entry["failed"]
    assert "not back from its reboot" in " ".join(entry["open_points"])


def test_the_rest_waits_when_a_failure_is_to_stop_the_work(lab: Lab) -> None:
    lab.start(faults=[{"method": "EnterMaintenanceMode_Task", "object": ONE, "fail_task_at": 60}])
    run = lab.playbook("site", "-e", "esxi_rolling_on_failure=stop")
    assert set(run.count("failed")) == {ONE, TWO, THREE}
    assert "was not begun, because another host had failed" in run.output
    assert lab.vcenter.counts()["requests"].get("RebootHost_Task", 0) == 0
    assert lab.vms() == {}


def test_without_leave_to_reboot_hosts_are_prepared_and_reported(lab: Lab) -> None:
    lab.start()
    run = lab.playbook("site", "-e", "esxi_passthrough_reboot_ok=false", "--limit", ONE)
    assert run.count("failed") == {ONE: 1}
    assert "esxi_passthrough_reboot_ok" in run.output
    assert lab.vcenter.counts()["requests"].get("EnterMaintenanceMode_Task", 0) == 0
    assert lab.vms() == {}
    assert open_points(lab)[ONE]["gpus"][0]["passthrough"] == "waits for a reboot"
