# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

from typing import Any

import pytest
from simulated import StartVcenter, Vcenter, fleet, killed_at_the_end, wait_for

ONE, TWO = "esx-001.lab", "esx-002.lab"
V100 = {"id": "10de:1db6"}


def prepared(vcenter: Vcenter, *names: str) -> Vcenter:
    """Passthrough set and the hosts in our maintenance mode."""
    hosts = list(names or (ONE,))
    vcenter.ok("esxi_passthrough", hosts=[{"name": name, "devices": [V100]} for name in hosts])
    vcenter.ok("esxi_maintenance", hosts=hosts)
    return vcenter


def active(vcenter: Vcenter, name: str = ONE) -> bool:
    return all(gpu["passthrough_active"] for gpu in vcenter.host(name)["gpus"])


def calls(vcenter: Vcenter) -> int:
    count: int = vcenter.counts()["requests"].get("RebootHost_Task", 0)
    return count


def test_missing_arguments_check_run_repeat(start_vcenter: StartVcenter) -> None:
    vcenter = prepared(start_vcenter(fleet(3)), ONE, TWO)
    assert "missing required arguments: hosts" in vcenter.run("esxi_power").result["msg"]
    before = vcenter.settled_state()

    vcenter = start_vcenter(fleet(3), directory=vcenter.directory)
    everybody = [ONE, TWO, "esx-003.lab"]
    planned = vcenter.ok("esxi_power", hosts=everybody, check=True, diff=True)
    assert vcenter.settled_state() == before

    vcenter = start_vcenter(fleet(3), directory=vcenter.directory)
    booted = vcenter.host(ONE)["boot_time"]
    done = vcenter.ok("esxi_power", hosts=everybody, diff=True)
    assert (done["objects"], done["diff"]) == (planned["objects"], planned["diff"])
    assert {name: item["changed"] for name, item in done["objects"].items()} == {
        ONE: True,
        TWO: True,
        "esx-003.lab": False,
    }
    assert done["objects"][ONE]["reboot_required"] is False
    assert active(vcenter)
    assert active(vcenter, TWO)
    host = vcenter.host(ONE)
    assert host["boot_time"] > booted
    assert host["intent"]["boot_time"] == booted
    assert calls(vcenter) == 2
    assert done["requests"]["CreateFilter"] == 2
    assert vcenter.ok("esxi_power", hosts=everybody)["changed"] is False
    assert vcenter.ok("esxi_power", hosts=[ONE, TWO], when_needed=False)["changed"] is False


def test_the_steps_plan_on_one_another_in_check_mode(start_vcenter: StartVcenter) -> None:
    vcenter = start_vcenter(fleet(1))
    wanted = [{"name": ONE, "devices": [V100]}]
    assume: dict[str, dict[str, Any]] = {"hosts": {}, "vms": {}}
    steps: list[tuple[str, dict[str, Any]]] = [
        ("esxi_passthrough", {"hosts": wanted}),
        ("esxi_maintenance", {"hosts": [ONE]}),
        ("esxi_power", {"hosts": [ONE]}),
        ("esxi_maintenance", {"hosts": [ONE], "state": "left"}),
    ]
    planned = []
    for module, options in steps:
        result = vcenter.ok(module, check=True, assume=assume, **options)
        planned.append(result["objects"][ONE])
        assume["hosts"][ONE] = assume["hosts"].get(ONE, {}) | result["predicted"]["hosts"].get(ONE, {})
    assert [entry["changed"] for entry in planned] == [True] * 4
    done = [vcenter.ok(module, **options)["objects"][ONE] for module, options in steps]
    assert done == planned
    assert [vcenter.ok(module, **options)["changed"] for module, options in (steps[0], steps[2], steps[3])] == [
        False
    ] * 3


def test_outside_maintenance_mode_only_by_force(start_vcenter: StartVcenter) -> None:
    vcenter = start_vcenter(fleet(1))
    vcenter.ok("esxi_passthrough", hosts=[{"name": ONE, "devices": [V100]}])
    result = vcenter.fails("esxi_power", hosts=[ONE])
    assert result["failure"]["code"] == "not_in_maintenance"
    assert calls(vcenter) == 0
    assert vcenter.ok("esxi_power", hosts=[ONE], force=True)["changed"] is True
    assert active(vcenter)
    assert vcenter.host(ONE)["intent"] is None


def test_a_due_reboot_is_recorded_then_done_once(start_vcenter: StartVcenter) -> None:
    vcenter = prepared(start_vcenter(fleet(1)))
    vcenter.ok("esxi_power", hosts=[ONE])
    due = {"hosts": [ONE], "state": "reboot_due"}
    planned = vcenter.ok("esxi_power", check=True, diff=True, **due)
    assert planned["changed"] is True
    booted = vcenter.host(ONE)["boot_time"]
    assert vcenter.host(ONE)["intent"]["boot_time"] != booted
    recorded = vcenter.ok("esxi_power", diff=True, **due)
    assert (recorded["objects"], recorded["diff"]) == (planned["objects"], planned["diff"])
    assert vcenter.host(ONE)["intent"]["boot_time"] == booted
    assert vcenter.ok("esxi_power", **due)["changed"] is False
    assert calls(vcenter) == 1
    assert [vcenter.ok("esxi_power", hosts=[ONE])["changed"] for _ in range(2)] == [True, False]
    assert calls(vcenter) == 2


def test_what_others_began_is_left_alone(start_vcenter: StartVcenter) -> None:
    model = fleet(1)
    model["clusters"][0]["hosts"][0]["in_maintenance"] = True
    vcenter = start_vcenter(model)
    result = vcenter.ok("esxi_power", hosts=[ONE], when_needed=False, force=True)
    assert result["changed"] is False
    assert result["objects"][ONE]["left_alone"] is True
    assert calls(vcenter) == 0


def test_a_run_killed_before_or_during_the_reboot_is_carried_on_without_a_second_one(
    start_vcenter: StartVcenter,
) -> None:
    vcenter = prepared(start_vcenter(fleet(1, timings={"boot": 600}), time_scale=60))
    with killed_at_the_end(vcenter.start("esxi_power", hosts=[ONE])):
        wait_for(lambda: vcenter.host(ONE)["connection"] == "notResponding", "the host goes down")
    seen = vcenter.ok("esxi_passthrough", hosts=[{"name": ONE, "devices": [V100]}])
    assert (seen["changed"], seen["objects"][ONE]["reboot_in_progress"]) == (False, True)
    inside = vcenter.ok("esxi_maintenance", hosts=[ONE])
    assert (inside["changed"], inside["objects"][ONE]["maintenance_owner"]) == (False, "gpuops")
    result = vcenter.ok("esxi_power", hosts=[ONE])
    assert result["objects"][ONE]["actions"] == ["wait for reboot (begun by an earlier run)"]
    assert calls(vcenter) == 1
    assert active(vcenter)
    assert vcenter.ok("esxi_power", hosts=[ONE])["changed"] is False


def test_a_reboot_task_that_still_runs_is_not_asked_for_again(start_vcenter: StartVcenter) -> None:
    vcenter = prepared(start_vcenter(fleet(1, timings={"maintenance": 0.1}), time_scale=0.4))
    with killed_at_the_end(vcenter.start("esxi_power", hosts=[ONE])):
        wait_for(lambda: calls(vcenter), "the reboot is asked for")
    assert vcenter.host(ONE)["connection"] == "connected"
    with killed_at_the_end(vcenter.start("esxi_power", hosts=[ONE])):
        wait_for(lambda: vcenter.host(ONE)["connection"] == "notResponding", "the host goes down")
    assert calls(vcenter) == 1


def test_a_host_that_does_not_come_back_is_reported_and_waited_for_next_time(start_vcenter: StartVcenter) -> None:
    rule = {"method": "RebootHost_Task", "object": ONE, "nth": 1, "never_returns": True}
    vcenter = prepared(start_vcenter(fleet(2), faults=[rule]), ONE, TWO)
    result = vcenter.fails("esxi_power", hosts=[ONE, TWO], timeout=4)
    assert result["objects"][ONE]["failure"]["code"] == "timeout"
    assert "not back from its reboot" in result["objects"][ONE]["msg"]
    assert result["objects"][ONE]["changed"] is True
    assert result["objects"][TWO]["failed"] is False
    assert active(vcenter, TWO)
    again = vcenter.fails("esxi_power", hosts=[ONE], timeout=1)
    assert again["failure"]["code"] == "timeout"
    assert calls(vcenter) == 2


def test_requests_grow_with_nothing_but_the_reboots(start_vcenter: StartVcenter) -> None:
    counts = (1, 10, 100)
    vcenter = start_vcenter(fleet(sum(counts)))
    writing, reading, start = [], [], 1
    for count in counts:
        hosts = [f"esx-{number:03}.lab" for number in range(start, start + count)]
        start += count
        prepared(vcenter, *hosts)
        requests = vcenter.ok("esxi_power", hosts=hosts)["requests"]
        assert requests.pop("RebootHost_Task") == count
        assert requests.pop("SetField") == count
        assert requests.pop("WaitForUpdatesEx") <= 6 * count + 6
        writing.append(requests)
        reading.append(vcenter.ok("esxi_power", hosts=hosts)["requests"])
    assert writing[0] == writing[1] == writing[2]
    assert reading[0] == reading[1] == reading[2]
    assert sum(reading[0].values()) <= 10
    assert vcenter.counts()["logins"] == 1


@pytest.mark.parametrize("nth", [1, 2])
def test_a_dropped_connection_while_waiting_does_no_harm(start_vcenter: StartVcenter, nth: int) -> None:
    vcenter = prepared(start_vcenter(fleet(1)))
    vcenter.stop()
    rule = {"method": "WaitForUpdatesEx", "nth": nth, "drop_connection": True}
    vcenter = start_vcenter(fleet(1), directory=vcenter.directory, faults=[rule])
    assert vcenter.ok("esxi_power", hosts=[ONE])["changed"] is True
    assert active(vcenter)
    assert calls(vcenter) == 1
