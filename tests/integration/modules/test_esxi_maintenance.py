# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

import json
import time
from typing import Any

import pytest
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.client import Client
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.options import ConnectionOptions
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.reads import read_hosts
from pyVmomi import vim
from simulated import StartVcenter, Vcenter, fleet, killed_at_the_end, wait_for

ONE, TWO = "esx-001.lab", "esx-002.lab"


def entry(result: dict[str, Any], name: str = ONE) -> dict[str, Any]:
    found: dict[str, Any] = result["objects"][name]
    return found


def test_missing_arguments_check_run_repeat_revert(start_vcenter: StartVcenter) -> None:
    vcenter = start_vcenter(fleet(2))
    assert "missing required arguments: hosts" in vcenter.run("esxi_maintenance").result["msg"]
    vcenter.ok("esxi_gpu_info")
    before = vcenter.settled_state()

    vcenter = start_vcenter(fleet(2), directory=vcenter.directory)
    planned = vcenter.ok("esxi_maintenance", hosts=[ONE, TWO], check=True, diff=True)
    assert vcenter.settled_state() == before

    vcenter = start_vcenter(fleet(2), directory=vcenter.directory)
    done = vcenter.ok("esxi_maintenance", hosts=[ONE, TWO], diff=True, run_id="run-7")
    assert (done["objects"], done["diff"]) == (planned["objects"], planned["diff"])
    assert entry(done)["maintenance_owner"] == "gpuops"
    host = vcenter.host(ONE)
    assert host["in_maintenance"] is True
    assert (host["intent"]["run"], host["intent"]["action"]) == ("run-7", "maintenance")

    again = vcenter.ok("esxi_maintenance", hosts=[ONE, TWO])
    assert again["changed"] is False
    assert entry(again)["in_maintenance"] is True

    checked = vcenter.ok("esxi_maintenance", hosts=[ONE, TWO], state="left", check=True)
    left = vcenter.ok("esxi_maintenance", hosts=[ONE, TWO], state="left")
    assert left["objects"] == checked["objects"]
    assert left["changed"] is True
    host = vcenter.host(ONE)
    assert (host["in_maintenance"], host["intent"]) == (False, None)
    assert vcenter.ok("esxi_maintenance", hosts=[ONE, TWO], state="left")["changed"] is False


def test_hosts_enter_at_the_same_time_with_a_constant_number_of_reads(start_vcenter: StartVcenter) -> None:
    counts = (1, 10, 100)
    vcenter = start_vcenter(fleet(sum(counts)))
    vcenter.ok("esxi_maintenance", check=True, hosts=[ONE])  # logs in
    reads, repeated, start = [], [], 1
    for count in counts:
        names = [f"esx-{number:03}.lab" for number in range(start, start + count)]
        start += count
        requests = vcenter.ok("esxi_maintenance", hosts=names)["requests"]
        assert requests.pop("EnterMaintenanceMode_Task") == count
        assert requests.pop("SetField") == 2 * count
        assert requests.pop("WaitForUpdatesEx") <= 3 * count + 3
        requests.pop("AddCustomFieldDef", None)  # the first time
        reads.append(requests)
        repeated.append(vcenter.ok("esxi_maintenance", hosts=names)["requests"])
    assert reads[0] == reads[1] == reads[2]
    assert reads[0]["CreateFilter"] == 1
    assert repeated[0] == repeated[1] == repeated[2]
    assert vcenter.counts()["logins"] == 1


def test_what_others_began_is_left_alone(start_vcenter: StartVcenter) -> None:
    model = fleet(1)
    model["clusters"][0]["hosts"].append({"name": TWO, "in_maintenance": True})
    vcenter = start_vcenter(model)
    for state in ("entered", "left"):
        result = vcenter.ok("esxi_maintenance", hosts=[TWO], state=state)
        assert result["changed"] is False
        assert entry(result, TWO)["left_alone"] is True
        assert entry(result, TWO)["maintenance_owner"] == "other"
        assert "somebody works on it" in entry(result, TWO)["warnings"][0]
    host = vcenter.host(TWO)
    assert (host["in_maintenance"], host["intent"]) == (True, None)


def test_virtual_machines_in_the_way_are_named_and_nothing_is_begun(start_vcenter: StartVcenter) -> None:
    model = fleet(2)
    model["clusters"][0]["vcls_agents"] = 2
    model["vms"] = [
        {"name": "web-1", "host": ONE, "power": "on"},
        {"name": "web-2", "host": ONE, "power": "on"},
        {"name": "idle", "host": ONE},
    ]
    vcenter = start_vcenter(model)
    result = vcenter.fails("esxi_maintenance", hosts=[ONE, TWO])
    assert result["failure"]["code"] == "vms_in_the_way"
    assert "web-1, web-2" in result["msg"]
    assert "idle" not in result["msg"]
    assert "vCLS" not in result["msg"]
    assert entry(result, TWO)["changed"] is True
    host = vcenter.host(ONE)
    assert (host["in_maintenance"], host["intent"]) == (False, None)
    assert vcenter.counts()["requests"]["EnterMaintenanceMode_Task"] == 1


def test_hosts_that_are_not_there_or_do_not_answer(start_vcenter: StartVcenter) -> None:
    model = fleet(1)
    model["clusters"][0]["hosts"].append({"name": TWO, "connection_state": "disconnected"})
    vcenter = start_vcenter(model)
    result = vcenter.fails("esxi_maintenance", hosts=[TWO, "esx-003.lab", ONE])
    assert entry(result, TWO)["failure"]["code"] == "host_not_connected"
    assert entry(result, "esx-003.lab")["failure"]["code"] == "host_not_found"
    assert entry(result)["changed"] is True


def test_a_task_that_fails_leaves_nothing_of_ours_behind(start_vcenter: StartVcenter) -> None:
    fault = {"type": "vmodl.fault.SystemError", "message": "No.", "fields": {"reason": "test"}}
    rule = {"method": "EnterMaintenanceMode_Task", "nth": 1, "fail_task_at": 60, "fault": fault}
    vcenter = start_vcenter(fleet(1), faults=[rule])
    result = vcenter.fails("esxi_maintenance", hosts=[ONE])
    assert result["failure"] == {"code": "operation_failed", "object": ONE, "fault": "SystemError"}
    assert result["changed"] is False
    assert vcenter.host(ONE)["intent"] is None
    assert vcenter.ok("esxi_maintenance", hosts=[ONE])["changed"] is True


def slow_fleet() -> dict[str, Any]:
    """One host; entering maintenance mode takes 6 s at a time scale of 10."""
    return fleet(1, timings={"maintenance": 60})


def test_a_task_that_takes_too_long_is_given_up_by_the_vcenter_itself(start_vcenter: StartVcenter) -> None:
    vcenter = start_vcenter(slow_fleet(), time_scale=10)
    result = vcenter.fails("esxi_maintenance", hosts=[ONE], timeout=4)
    assert result["failure"] == {"code": "timeout", "object": ONE, "fault": "Timedout"}
    assert result["changed"] is False
    host = vcenter.host(ONE)
    assert (host["in_maintenance"], host["intent"]) == (False, None)
    assert vcenter.ok("esxi_maintenance", hosts=[ONE])["changed"] is True


def intent(vcenter: Vcenter) -> Any:
    return vcenter.host(ONE)["intent"]


@pytest.mark.parametrize("state", ["entered", "left"])
def test_a_run_killed_half_way_is_carried_on(start_vcenter: StartVcenter, state: str) -> None:
    vcenter = start_vcenter(slow_fleet(), time_scale=10)
    method = "EnterMaintenanceMode_Task"
    if state == "left":
        vcenter.ok("esxi_maintenance", hosts=[ONE])
        method = "ExitMaintenanceMode_Task"
    with killed_at_the_end(vcenter.start("esxi_maintenance", hosts=[ONE], state=state)):
        wait_for(lambda: vcenter.counts()["requests"].get(method), f"{method} is called")
    assert intent(vcenter) is not None
    result = vcenter.ok("esxi_maintenance", hosts=[ONE], state=state)
    assert result["changed"] is True
    host = vcenter.host(ONE)
    assert host["in_maintenance"] is (state == "entered")
    assert (host["intent"] is None) is (state == "left")
    assert vcenter.ok("esxi_maintenance", hosts=[ONE], state=state)["changed"] is False


def enter_by_hand(vcenter: Vcenter) -> None:
    """What an administrator does in the vSphere client."""
    options = ConnectionOptions.from_params({"validate_certs": True, "thumbprint": None, **vcenter.options()})
    with Client.open(options) as client:
        host = client.ref(vim.HostSystem, read_hosts(client, [ONE])[ONE].moid)
        host.EnterMaintenanceMode(0, False, None)
        wait_for(lambda: host.runtime.inMaintenanceMode, "the host is in maintenance mode")


@pytest.mark.parametrize("state", ["entered", "left"])
def test_who_enters_after_a_run_that_died_before_clearing_its_mark_is_left_alone(
    start_vcenter: StartVcenter, state: str
) -> None:
    # Written before and after entering, and before leaving; the fourth write, clearing it, hangs.
    vcenter = start_vcenter(fleet(1), faults=[{"method": "SetField", "nth": 4, "delay_s": 60}])
    vcenter.ok("esxi_maintenance", hosts=[ONE])
    with killed_at_the_end(vcenter.start("esxi_maintenance", hosts=[ONE], state="left")):
        wait_for(lambda: vcenter.counts()["requests"]["SetField"] == 4, "the host has left maintenance mode")
    enter_by_hand(vcenter)
    assert intent(vcenter)["action"] == "leaving"
    result = vcenter.ok("esxi_maintenance", hosts=[ONE], state=state)
    assert result["changed"] is False
    assert (entry(result)["maintenance_owner"], entry(result)["left_alone"]) == ("other", True)
    assert "somebody seems to work on it" in entry(result)["warnings"][0]
    assert vcenter.host(ONE)["in_maintenance"] is True
    assert intent(vcenter)["action"] == "leaving"
    assert vcenter.counts()["requests"]["ExitMaintenanceMode_Task"] == 1


@pytest.mark.parametrize("state", ["entered", "left"])
def test_a_run_killed_just_before_it_asks_to_leave_is_carried_on(start_vcenter: StartVcenter, state: str) -> None:
    vcenter = start_vcenter(
        fleet(1), faults=[{"method": "ExitMaintenanceMode_Task", "nth": 1, "drop_connection": True}]
    )
    vcenter.ok("esxi_maintenance", hosts=[ONE])
    vcenter.fails("esxi_maintenance", hosts=[ONE], state="left")
    assert intent(vcenter)["action"] == "leaving"
    assert vcenter.ok("esxi_maintenance", hosts=[ONE], state=state)["changed"] is True
    host = vcenter.host(ONE)
    assert (host["in_maintenance"], (host["intent"] or {}).get("action")) == (
        (True, "maintenance") if state == "entered" else (False, None)
    )


def test_entering_waits_for_a_killed_run_that_is_leaving(start_vcenter: StartVcenter) -> None:
    vcenter = start_vcenter(slow_fleet(), time_scale=10)
    vcenter.ok("esxi_maintenance", hosts=[ONE])
    with killed_at_the_end(vcenter.start("esxi_maintenance", hosts=[ONE], state="left")):
        wait_for(lambda: vcenter.counts()["requests"].get("ExitMaintenanceMode_Task"), "the task is started")
    assert vcenter.ok("esxi_maintenance", hosts=[ONE])["changed"] is True
    host = vcenter.host(ONE)
    assert (host["in_maintenance"], host["intent"]["action"]) == (True, "maintenance")
    assert vcenter.counts()["requests"]["EnterMaintenanceMode_Task"] == 2


def test_a_refused_leaving_keeps_the_host_ours(start_vcenter: StartVcenter) -> None:
    fault = {"type": "vmodl.fault.SystemError", "message": "No.", "fields": {"reason": "test"}}
    rule = {"method": "ExitMaintenanceMode_Task", "nth": 1, "fail_task_at": 60, "fault": fault}
    vcenter = start_vcenter(fleet(1), faults=[rule])
    vcenter.ok("esxi_maintenance", hosts=[ONE])
    vcenter.fails("esxi_maintenance", hosts=[ONE], state="left")
    assert intent(vcenter)["action"] == "maintenance"
    assert vcenter.ok("esxi_maintenance", hosts=[ONE], state="left")["changed"] is True


def test_leaving_finds_a_host_that_a_killed_run_is_about_to_take_out_of_service(start_vcenter: StartVcenter) -> None:
    # It seems to be in service, but the task goes on, and would leave it in maintenance mode without a mark.
    vcenter = start_vcenter(slow_fleet(), time_scale=10)
    with killed_at_the_end(vcenter.start("esxi_maintenance", hosts=[ONE])):
        wait_for(lambda: vcenter.counts()["requests"].get("EnterMaintenanceMode_Task"), "the task is started")
    assert vcenter.host(ONE)["in_maintenance"] is False
    assert vcenter.ok("esxi_maintenance", hosts=[ONE], state="left")["changed"] is True
    assert vcenter.counts()["requests"]["ExitMaintenanceMode_Task"] == 1
    host = vcenter.host(ONE)
    assert (host["in_maintenance"], host["intent"]) == (False, None)


@pytest.mark.parametrize("state", ["entered", "left"])
def test_who_enters_after_a_run_that_died_before_asking_to_enter_is_left_alone(
    start_vcenter: StartVcenter, state: str
) -> None:
    # At this scale a minute of the vCenter's time is half a second.
    vcenter = start_vcenter(
        fleet(1), faults=[{"method": "EnterMaintenanceMode_Task", "nth": 1, "drop_connection": True}], time_scale=120
    )
    vcenter.fails("esxi_maintenance", hosts=[ONE])
    assert intent(vcenter)["action"] == "entering"
    died = time.monotonic()
    wait_for(lambda: time.monotonic() - died > 1.5, "three minutes of the vCenter's time have passed")
    enter_by_hand(vcenter)
    result = vcenter.ok("esxi_maintenance", hosts=[ONE], state=state)
    assert result["changed"] is False
    assert (entry(result)["maintenance_owner"], entry(result)["left_alone"]) == ("other", True)
    assert vcenter.host(ONE)["in_maintenance"] is True


def test_a_run_killed_before_it_knew_that_the_host_entered_is_carried_on(start_vcenter: StartVcenter) -> None:
    vcenter = start_vcenter(fleet(1), faults=[{"method": "SetField", "nth": 2, "delay_s": 60}], time_scale=120)
    with killed_at_the_end(vcenter.start("esxi_maintenance", hosts=[ONE])):
        wait_for(lambda: vcenter.counts()["requests"].get("SetField") == 2, "the host has entered maintenance mode")
    assert intent(vcenter)["action"] == "entering"
    result = vcenter.ok("esxi_maintenance", hosts=[ONE])
    assert (entry(result)["maintenance_owner"], entry(result)["changed"]) == ("gpuops", True)
    assert intent(vcenter)["action"] == "maintenance"
    assert vcenter.counts()["requests"]["EnterMaintenanceMode_Task"] == 1


def test_a_run_told_to_stop_says_what_it_leaves(start_vcenter: StartVcenter) -> None:
    vcenter = start_vcenter(slow_fleet(), time_scale=10)
    process = vcenter.start("esxi_maintenance", hosts=[ONE])
    with killed_at_the_end(process):
        wait_for(lambda: vcenter.counts()["requests"].get("WaitForUpdatesEx"), "the module waits")
        process.terminate()
        stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 1, stderr
    result = json.loads(stdout)
    assert result["failure"]["code"] == "interrupted"
    assert result["changed"] is True
    assert "Traceback" not in stdout + stderr
    assert intent(vcenter) is not None
    assert vcenter.ok("esxi_maintenance", hosts=[ONE])["changed"] is True
