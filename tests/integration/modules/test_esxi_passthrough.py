# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

import json
from typing import Any

import pytest
from simulated import StartVcenter, Vcenter, fleet

ONE, TWO = "esx-001.lab", "esx-002.lab"
V100_A, V100_B = "0000:3b:00.0", "0000:5e:00.0"
V100 = {"id": "10de:1db6"}
READS = {
    "CreateContainerView": 1,
    "CreatePropertyCollector": 1,
    "DestroyPropertyCollector": 1,
    "DestroyView": 1,
    "RetrievePropertiesEx": 2,
    "RetrieveServiceContent": 1,
}


def hosts(*names: str, devices: tuple[dict[str, str], ...] = (V100,), **more: Any) -> list[dict[str, Any]]:
    return [{"name": name, "devices": list(devices), **more} for name in names or (ONE,)]


def enabled(vcenter: Vcenter, name: str = ONE) -> dict[str, tuple[bool, bool, str | None]]:
    return {
        gpu["address"]: (gpu["passthrough_enabled"], gpu["passthrough_active"], gpu["hardware_label"])
        for gpu in vcenter.host(name)["gpus"]
    }


def test_missing_arguments_check_run_repeat_revert(start_vcenter: StartVcenter) -> None:
    vcenter = start_vcenter(fleet(2))
    assert "missing required arguments: hosts" in vcenter.run("esxi_passthrough").result["msg"]
    wanted = {"hosts": hosts(ONE, TWO, hardware_label="v100")}
    vcenter.ok("esxi_gpu_info")
    before = vcenter.settled_state()

    vcenter = start_vcenter(fleet(2), directory=vcenter.directory)
    planned = vcenter.ok("esxi_passthrough", check=True, diff=True, **wanted)
    assert vcenter.settled_state() == before

    vcenter = start_vcenter(fleet(2), directory=vcenter.directory)
    done = vcenter.ok("esxi_passthrough", diff=True, **wanted)
    assert done["changed"] is planned["changed"] is True
    for key in ("objects", "predicted", "diff"):
        assert done[key] == planned[key]
    assert done["diff"][0]["after"] == (
        f"{V100_A} passthrough: true\n{V100_A} hardware_label: v100\n"
        f"{V100_B} passthrough: true\n{V100_B} hardware_label: v100\n"
    )
    assert done["objects"][ONE]["reboot_required"] is True
    assert done["objects"][ONE]["devices"] == [V100_A, V100_B]
    assert done["requests"]["UpdatePassthruConfig"] == 2
    assert enabled(vcenter) == {V100_A: (True, False, "v100"), V100_B: (True, False, "v100")}

    again = vcenter.ok("esxi_passthrough", **wanted)
    assert again["changed"] is False
    assert again["objects"][ONE]["reboot_required"] is True
    assert "UpdatePassthruConfig" not in again["requests"]

    back = vcenter.ok("esxi_passthrough", enabled=False, **wanted)
    assert back["changed"] is True
    assert back["objects"][ONE]["reboot_required"] is False
    assert {key: value[:2] for key, value in enabled(vcenter).items()} == {V100_A: (False,) * 2, V100_B: (False,) * 2}
    assert vcenter.ok("esxi_passthrough", enabled=False, **wanted)["changed"] is False


@pytest.mark.parametrize(
    "device",
    [V100, {"address": V100_A}, {"class": "0302"}, {"name": "*tesla v100*"}],
    ids=lambda device: next(iter(device)),
)
def test_every_way_to_choose(start_vcenter: StartVcenter, device: dict[str, str]) -> None:
    vcenter = start_vcenter(fleet(1))
    vcenter.ok("esxi_passthrough", hosts=hosts(devices=(device,)))
    expected = {V100_A} if "address" in device else {V100_A, V100_B}
    assert {address for address, state in enabled(vcenter).items() if state[0]} == expected


def test_at_once_where_the_host_can(start_vcenter: StartVcenter) -> None:
    model = fleet(1)
    model["clusters"][0]["hosts"][0]["rebind_without_reboot"] = True
    vcenter = start_vcenter(model)
    planned = vcenter.ok("esxi_passthrough", hosts=hosts(), check=True)
    done = vcenter.ok("esxi_passthrough", hosts=hosts())
    assert planned["objects"] == done["objects"]
    assert done["objects"][ONE]["reboot_required"] is False
    assert {state[:2] for state in enabled(vcenter).values()} == {(True, True)}


def test_a_host_that_does_not_apply_at_once_what_it_could_needs_a_reboot(start_vcenter: StartVcenter) -> None:
    model = fleet(2)
    plain = model["clusters"][0]["hosts"].pop()
    model["clusters"][0]["hosts"] = [
        {**plain, "name": ONE, "rebind_without_reboot": True, "vgpu_manager": "16.4"},
        {**plain, "name": TWO, "rebind_without_reboot": True},
    ]
    vcenter = start_vcenter(model)
    done = vcenter.ok("esxi_passthrough", hosts=hosts(ONE, TWO))
    assert {name: entry["reboot_required"] for name, entry in done["objects"].items()} == {ONE: True, TWO: False}
    assert done["requests"]["RetrievePropertiesEx"] == 4
    assert {state[:2] for state in enabled(vcenter, ONE).values()} == {(True, False)}
    again = vcenter.ok("esxi_passthrough", hosts=hosts(ONE, TWO))
    assert again["objects"][ONE]["reboot_required"] is True


def test_a_partly_converged_cluster_changes_only_what_differs(start_vcenter: StartVcenter) -> None:
    model = fleet(3)
    plain = model["clusters"][0]["hosts"].pop()
    done, card = plain["gpus"][0] | {"passthrough": True}, {"gpu": "V100-32"}
    model["clusters"][0]["hosts"] = [
        {**plain, "name": ONE},
        {**plain, "name": TWO, "gpus": [done]},
        {**plain, "name": "esx-003.lab", "gpus": [card | {"passthrough": True}, card]},
        {**plain, "name": "esx-004.lab", "gpus": []},
    ]
    vcenter = start_vcenter(model)
    names = (ONE, TWO, "esx-003.lab", "esx-004.lab")
    result = vcenter.ok("esxi_passthrough", hosts=hosts(*names), missing="skip")
    assert {name: len(entry["actions"]) for name, entry in result["objects"].items()} == dict(
        zip(names, (2, 0, 1, 0), strict=True)
    )
    assert result["requests"]["UpdatePassthruConfig"] == 2
    assert result["objects"]["esx-004.lab"]["warnings"]


def test_functions_of_one_card_go_together_both_ways(start_vcenter: StartVcenter) -> None:
    model = fleet(1)
    model["clusters"][0]["hosts"][0]["gpus"] = [{"gpu": "RTX6000"}]
    vcenter = start_vcenter(model)
    wanted = hosts(devices=({"id": "10de:1e30"},))
    result = vcenter.ok("esxi_passthrough", hosts=wanted)
    assert len(result["objects"][ONE]["devices"]) == 4
    assert sum("goes along with" in action for action in result["objects"][ONE]["actions"]) == 3
    assert vcenter.ok("esxi_passthrough", hosts=wanted)["changed"] is False
    back = vcenter.ok("esxi_passthrough", hosts=wanted, enabled=False)
    assert len(back["objects"][ONE]["actions"]) == 4
    assert vcenter.ok("esxi_passthrough", hosts=wanted, enabled=False)["changed"] is False


def test_a_label_is_set_changed_and_removed_alone(start_vcenter: StartVcenter) -> None:
    model = fleet(1)
    model["clusters"][0]["hosts"][0]["gpus"][0]["passthrough"] = True
    vcenter = start_vcenter(model)
    for label, seen in (("v100", "v100"), ("v100-32", "v100-32"), ("", None)):
        result = vcenter.ok("esxi_passthrough", hosts=hosts(hardware_label=label))
        assert len(result["objects"][ONE]["actions"]) == 2
        assert result["objects"][ONE]["reboot_required"] is False
        assert enabled(vcenter) == {V100_A: (True, True, seen), V100_B: (True, True, seen)}


def test_requests_do_not_grow_with_the_fleet_when_nothing_changes(start_vcenter: StartVcenter) -> None:
    for count in (1, 10, 100):
        model = fleet(count)
        model["clusters"][0]["hosts"][0]["gpus"][0]["passthrough"] = True
        vcenter = start_vcenter(model)
        wanted = hosts(*(f"esx-{number:03}.lab" for number in range(1, count + 1)))
        vcenter.ok("esxi_passthrough", hosts=wanted[:1])
        vcenter.reset_counts()
        result = vcenter.ok("esxi_passthrough", hosts=wanted)
        assert result["changed"] is False
        assert len(result["objects"]) == count
        assert result["requests"] == READS
        assert vcenter.counts() == {"requests": READS, "total": 7, "logins": 0}
        vcenter.stop()


def test_a_change_costs_one_call_a_host_and_one_read(start_vcenter: StartVcenter) -> None:
    vcenter = start_vcenter(fleet(10))
    names = [f"esx-{number:03}.lab" for number in range(1, 11)]
    result = vcenter.ok("esxi_passthrough", hosts=hosts(*names))
    assert result["requests"] == READS | {"Login": 1, "RetrievePropertiesEx": 3, "UpdatePassthruConfig": 10}


def test_one_host_s_trouble_stops_no_other(start_vcenter: StartVcenter) -> None:
    model = fleet(2)
    model["clusters"][0]["hosts"] += [
        {"name": "esx-dead.lab", "connection_state": "notResponding", "gpus": [{"gpu": "V100-32"}]},
        {"name": "esx-theirs.lab", "in_maintenance": True, "gpus": [{"gpu": "V100-32"}]},
        {"name": "esx-plain.lab"},
        {"name": "esx-broken.lab", "gpus": [{"gpu": "V100-32"}]},
    ]
    fault = {"type": "vim.fault.HostConfigFault", "message": "The host agent is confused."}
    vcenter = start_vcenter(model, faults=[{"method": "UpdatePassthruConfig", "object": "esx-broken*", "fault": fault}])
    names = (ONE, "esx-dead.lab", "esx-theirs.lab", "esx-plain.lab", "esx-broken.lab", "esx-01.lab")
    result = vcenter.fails("esxi_passthrough", hosts=hosts(*names))
    entries = result["objects"]
    assert list(entries) == list(names)
    assert entries[ONE]["changed"] is True
    codes = {name: entry["failure"]["code"] for name, entry in entries.items() if entry["failed"]}
    assert codes == {
        "esx-dead.lab": "host_not_connected",
        "esx-plain.lab": "device_not_found",
        "esx-broken.lab": "operation_failed",
        "esx-01.lab": "host_not_found",
    }
    assert result["msg"].startswith("4 of 6 failed.")
    assert "The host agent is confused" in entries["esx-broken.lab"]["msg"]
    assert entries["esx-broken.lab"]["changed"] is False
    assert entries["esx-theirs.lab"]["left_alone"] is True
    assert entries["esx-theirs.lab"]["changed"] is False
    assert "somebody works on it" in entries["esx-theirs.lab"]["warnings"][0]
    assert "esx-theirs.lab is in maintenance mode" in json.dumps(result["warnings"])
    assert not any(state[0] for state in enabled(vcenter, "esx-theirs.lab").values())

    reported = vcenter.ok("esxi_passthrough", hosts=hosts(*names), object_errors="report")
    assert reported["changed"] is False
    assert "diff" not in reported
    assert "warnings" not in reported
    assert {name for name, entry in reported["objects"].items() if entry["failed"]} == set(codes)


def test_a_missing_device_can_be_skipped(start_vcenter: StartVcenter) -> None:
    vcenter = start_vcenter(fleet(1))
    result = vcenter.ok("esxi_passthrough", hosts=hosts(devices=(V100, {"id": "10de:2331"})), missing="skip")
    assert result["changed"] is True
    assert result["objects"][ONE]["warnings"] == [f"{ONE} has no PCI device with id 10de:2331; skipped."]


def test_a_device_in_use_is_not_taken_away(start_vcenter: StartVcenter) -> None:
    model = fleet(1)
    model["clusters"][0]["hosts"][0]["gpus"][0]["passthrough"] = True
    model["vms"] = [
        {
            "name": "trainer",
            "host": ONE,
            "power": "on",
            "memory_locked": True,
            "firmware": "efi",
            "gpus": [{"mode": "fixed", "address": V100_A}],
            "extra_config": {"pciPassthru.use64bitMMIO": "TRUE", "pciPassthru.64bitMMIOSizeGB": "64"},
        }
    ]
    vcenter = start_vcenter(model)
    result = vcenter.fails("esxi_passthrough", hosts=hosts(), enabled=False)
    assert result["failure"]["code"] == "device_in_use"
    assert "trainer" in result["msg"]
    assert "UpdatePassthruConfig" not in vcenter.counts()["requests"]


@pytest.mark.parametrize(
    ("wanted", "says"),
    [
        ([{"name": ONE, "devices": [{"id": "v100"}]}], "vendor:device"),
        ([{"name": ONE, "devices": [{}]}], "exactly one of"),
        ([{"name": ONE, "devices": [V100]}, {"name": ONE, "devices": [V100]}], "listed twice"),
    ],
)
def test_mistakes_are_found_before_anything_is_asked(vcenter: Vcenter, wanted: list[dict[str, Any]], says: str) -> None:
    result = vcenter.fails("esxi_passthrough", hosts=wanted)
    assert result["failure"]["code"] == "invalid_input"
    assert says in result["msg"]
    assert vcenter.counts()["total"] == 0


def test_a_missing_privilege_is_named_with_its_host(start_vcenter: StartVcenter) -> None:
    model = fleet(1)
    model["users"] = [{"name": "reader", "password": "Reader-1-password", "role": "ReadOnly"}]
    vcenter = start_vcenter(model)
    result = vcenter.fails("esxi_passthrough", hosts=hosts(), username="reader", password="Reader-1-password")
    assert result["failure"] == {"code": "no_permission", "object": ONE, "fault": "NoPermission"}
    assert f"the privilege Host.Config.PciPassthru on {ONE}" in result["msg"]


def test_a_write_on_a_dropped_connection_is_not_repeated_blindly(start_vcenter: StartVcenter) -> None:
    vcenter = start_vcenter(fleet(1), faults=[{"method": "UpdatePassthruConfig", "nth": 1, "drop_connection": True}])
    result = vcenter.fails("esxi_passthrough", hosts=hosts())
    assert result["failure"]["code"] == "connection_lost"
    assert result["changed"] is True
    assert "run again" in result["msg"]
    assert vcenter.counts()["requests"]["UpdatePassthruConfig"] == 1
    assert vcenter.ok("esxi_passthrough", hosts=hosts())["changed"] is True
    assert vcenter.ok("esxi_passthrough", hosts=hosts())["changed"] is False


def test_assumptions_count_in_check_mode_only(start_vcenter: StartVcenter) -> None:
    vcenter = start_vcenter(fleet(1))
    predicted = vcenter.ok("esxi_passthrough", hosts=hosts(), check=True)["predicted"]
    assert set(predicted["hosts"][ONE]) == {"devices"}
    assert vcenter.ok("esxi_passthrough", hosts=hosts(), check=True, assume=predicted)["changed"] is False
    result = vcenter.fails("esxi_passthrough", hosts=hosts(), check=True, assume={"hosts": {ONE: {"colour": "red"}}})
    assert "assume.hosts" in result["msg"]
    assert vcenter.ok("esxi_passthrough", hosts=hosts(), assume=predicted)["changed"] is True


def test_a_host_can_differ_from_the_others(start_vcenter: StartVcenter) -> None:
    vcenter = start_vcenter(fleet(2))
    one, two = "esx-001.lab", "esx-002.lab"
    vcenter.ok("esxi_passthrough", hosts=[{"name": two, "devices": [{"id": "10de:1db6"}]}])
    wanted = [
        {"name": one, "devices": [{"id": "10de:1db6"}, {"id": "10de:2331"}], "missing": "skip"},
        {"name": two, "devices": [{"id": "10de:1db6"}], "enabled": False},
    ]
    result = vcenter.ok("esxi_passthrough", hosts=wanted)
    assert result["changed"]
    assert {state[0] for state in enabled(vcenter, one).values()} == {True}
    assert {state[0] for state in enabled(vcenter, two).values()} == {False}
