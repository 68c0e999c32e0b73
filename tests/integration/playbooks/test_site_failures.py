# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""site.yml where not everything goes well: hosts of others, hosts that fail, hosts that may not be rebooted."""

from __future__ import annotations

import json
import typing as t

from lab import Lab

ONE, TWO, THREE = "esx-gpu-01.lab", "esx-gpu-02.lab", "esx-gpu-03.lab"


def gpu_hosts(model: dict[str, t.Any]) -> dict[str, dict[str, t.Any]]:
    return {host["name"]: host for cluster in model["clusters"] for host in cluster["hosts"]}


def open_points(lab: Lab) -> dict[str, dict[str, t.Any]]:
    report = json.loads((lab.directory / "report.json").read_text(encoding="utf-8"))
    return t.cast("dict[str, dict[str, t.Any]]", report["hosts"])


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
    assert set(lab.vms()) == {"gpu-server-03a", "gpu-server-03b"}
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
    assert run.count("failed") == {TWO: 1}, run.output
    # In the rolling play, and where it is counted as failed and reported.
    assert run.count("rescued") == {TWO: 2}
    assert {name for name, host in lab.hosts().items() if host["in_maintenance"]} == {TWO}
    assert set(lab.vms()) == {"gpu-server-01", "gpu-server-03a", "gpu-server-03b"}
    entry = open_points(lab)[TWO]
    assert entry["failed"]
    assert "not back from its reboot" in " ".join(entry["open_points"])


def test_where_every_host_fails_the_report_is_written_all_the_same(lab: Lab) -> None:
    lab.start(faults=[{"method": "UpdatePassthruConfig", "fault": {"type": "vim.fault.HostConfigFault"}}])
    run = lab.playbook("site", "--limit", f"{ONE},{TWO}")
    assert set(run.count("failed")) == {ONE, TWO}, run.output
    report = open_points(lab)
    assert {name: (entry["failed"], bool(entry["open_points"])) for name, entry in report.items()} == {
        ONE: (True, True),
        TWO: (True, True),
    }


def test_a_vgpu_host_that_fails_alone_is_reported_too(lab: Lab) -> None:
    lab.start(faults=[{"method": "UpdateGraphicsConfig", "fault": {"type": "vim.fault.HostConfigFault"}}])
    run = lab.playbook("vgpu_host", "--limit", THREE)
    assert run.count("failed") == {THREE: 1}, run.output
    entry = open_points(lab)[THREE]
    assert entry["failed"]
    assert "could not set the graphics" in " ".join(entry["open_points"])


def test_the_plan_tells_what_may_not_be_done(lab: Lab) -> None:
    lab.start()
    run = lab.playbook("site", "--check", "-e", "esxi_passthrough_reboot_ok=false", "--limit", ONE)
    assert run.count("failed") == {ONE: 1}
    assert "its virtual machines would not be made or changed" in " ".join(run.output.split())


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
