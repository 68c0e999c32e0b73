from __future__ import annotations

import typing as t

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.gpuops.vsphere.plugins.filter.gpu_report import gpu_report
from ansible_collections.gpuops.vsphere.plugins.filter.host_changes import host_changes
from ansible_collections.gpuops.vsphere.plugins.filter.open_points import open_points
from ansible_collections.gpuops.vsphere.plugins.filter.pick import pick


def gpu(address: str, *, enabled: bool = True, active: bool = True, **more: t.Any) -> dict[str, t.Any]:
    facts = {"address": address, "id": "10de:1db6", "name": "GV100GL", "model": "V100-32", "used_by": []}
    return {**facts, "passthrough_enabled": enabled, "passthrough_active": active, "configured_in": [], **more}


def host(**more: t.Any) -> dict[str, t.Any]:
    return {"connection": "connected", "in_maintenance": False, "cluster": "gpu", "gpus": [], **more}


def test_pick_takes_values_before_defaults_and_leaves_out_what_has_neither() -> None:
    mapping = {"name": "vm1", "folder": None, "memory_mb": 0, "secret": "x"}
    defaults = {"folder": "gpu", "datastore": "", "host": "h1"}
    assert pick(mapping, ["name", "folder", "memory_mb", "datastore", "host"], defaults) == {
        "name": "vm1",
        "folder": "gpu",
        "memory_mb": 0,
        "host": "h1",
    }


def test_pick_refuses_what_is_no_mapping() -> None:
    with pytest.raises(AnsibleFilterError, match="not a str"):
        pick("vm1", ["name"])  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        pytest.param({"actions": [], "reboot_required": False}, [], id="as wanted"),
        pytest.param({"actions": ["clone vm1"]}, ["h1: still to do: clone vm1"], id="something to do"),
        pytest.param({"failed": True, "msg": "h1: does not respond"}, ["h1: does not respond"], id="in the way"),
        pytest.param({"reboot_required": True}, ["h1: still waits for a reboot"], id="pending"),
        pytest.param({"reboot_in_progress": True}, ["h1: its reboot is still going on"], id="booting"),
    ],
)
def test_open_points_of_one_entry(entry: dict[str, t.Any], expected: list[str]) -> None:
    assert open_points([{"objects": {"h1": entry, "h2": {"failed": True, "msg": "other"}}}], ["h1"]) == expected


def test_open_points_of_several_results_are_named_once() -> None:
    failure = {"failed": False, "msg": "The vCenter does not answer.", "failure": {"code": "connection_failed"}}
    assert open_points([failure, failure, {"skipped": True}], ["h1"]) == ["The vCenter does not answer."]


def test_the_report_says_which_machine_holds_which_gpu() -> None:
    facts = {
        "h1": host(gpus=[gpu("0000:3b:00.0", used_by=["vm1"]), gpu("0000:af:00.0", used_by=["vm1"])]),
        "h2": host(gpus=[gpu("0000:3b:00.0", configured_in=["vm2"])]),
    }
    report = gpu_report(facts, {"h1": {"__gpu_vm_names": ["vm1"]}, "h2": {"__gpu_vm_names": []}})
    assert report["virtual_machines"] == {
        "vm1": {
            "host": "h1",
            "powered_on": True,
            "in_inventory": True,
            "models": {"V100-32": 2},
            "vgpus": {},
            "addresses": ["0000:3b:00.0", "0000:af:00.0"],
        },
        "vm2": {
            "host": "h2",
            "powered_on": False,
            "in_inventory": False,
            "models": {"V100-32": 1},
            "vgpus": {},
            "addresses": ["0000:3b:00.0"],
        },
    }


def test_the_report_says_which_machine_has_which_vgpus() -> None:
    shared = gpu("0000:3b:00.0", enabled=False, active=False, graphics_type="sharedDirect", used_by=["on"])
    vgpus = {"off": ["grid_t4-4c"], "on": ["grid_t4-8c", "grid_t4-8c"]}
    report = gpu_report({"h1": host(gpus=[shared], vgpus=vgpus)}, {"h1": {"__gpu_vm_names": ["on", "off"]}})
    assert report["hosts"]["h1"]["gpus"][0]["shared_direct"] is True
    common = {"host": "h1", "in_inventory": True, "models": {}}
    assert report["virtual_machines"] == {
        "on": {**common, "powered_on": True, "vgpus": {"grid_t4-8c": 2}, "addresses": ["0000:3b:00.0"]},
        "off": {**common, "powered_on": False, "vgpus": {"grid_t4-4c": 1}, "addresses": []},
    }


@pytest.mark.parametrize(
    ("enabled", "active", "expected"),
    [
        (True, True, "active"),
        (True, False, "waits for a reboot"),
        (False, True, "waits for a reboot"),
        (False, False, "off"),
    ],
)
def test_passthrough_in_one_word(enabled: bool, active: bool, expected: str) -> None:
    report = gpu_report({"h1": host(gpus=[gpu("0000:3b:00.0", enabled=enabled, active=active)])}, {"h1": {}})
    assert [found["passthrough"] for found in report["hosts"]["h1"]["gpus"]] == [expected]


def test_a_host_that_was_not_read_or_failed_is_in_the_report() -> None:
    run = {
        "h1": {"__esxi_rolling_error": "did not come back", "gpuops_changes": ["h1: reboot host"]},
        "h2": {},
        "h3": {},
    }
    facts = {"h1": host(in_maintenance=True), "h3": host(connection="notResponding")}
    hosts = gpu_report(facts, run, left_alone=["h2"], failed=["h1"])["hosts"]
    assert {name: entry["state"] for name, entry in hosts.items()} == {
        "h1": "in maintenance mode",
        "h2": "not read",
        "h3": "does not respond",
    }
    assert hosts["h1"]["open_points"] == ["did not come back"]
    assert hosts["h1"]["changes"] == ["h1: reboot host"]
    assert (hosts["h1"]["failed"], hosts["h2"]["left_alone"], hosts["h3"]["failed"]) == (True, True, False)


def test_nothing_is_said_of_a_machine_whose_host_was_left_alone() -> None:
    facts = {"h1": host(gpus=[gpu("0000:3b:00.0", used_by=["vm1"])])}
    assert gpu_report(facts, {"h1": {}})["virtual_machines"]["vm1"]["in_inventory"] is None


def test_a_host_that_failed_at_once_says_why() -> None:
    failed = {"objects": {"h1": {"failed": True, "msg": "h1: does not respond"}, "h2": {"failed": False}}}
    run = {"h1": {"__esxi_passthrough_set": failed}, "h2": {"__esxi_passthrough_set": failed}}
    hosts = gpu_report({}, run, failed=["h1"])["hosts"]
    assert hosts["h1"]["open_points"] == ["h1: does not respond"]
    assert hosts["h2"]["open_points"] == []


def test_host_changes_tell_what_waits_for_maintenance_mode_too() -> None:
    objects: dict[str, dict[str, t.Any]] = {
        "a": {"actions": ["enable x"], "reboot_required": True},
        "b": {"actions": [], "pending": ["install y"], "maintenance_required": True},
        "c": {"actions": [], "reboot_required": False},
        "d": {"actions": ["enable z"], "failed": True},
    }
    assert host_changes(objects) == {"a": ["enable x", "reboot host"], "b": ["install y", "reboot host"]}
