# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

import dataclasses
import json

import pytest
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.facts import (
    GraphicsDevice,
    HostFacts,
    Intent,
    PciFunction,
    assume_hosts,
    assume_vms,
    host_from_dict,
    predicted_host,
    to_dict,
    without_vms,
)
from gpu_builders import vm

GPU = PciFunction("0000:3b:00.0", 0x10DE, 0x1DB6, 0x0302, "V100", True)
HOST = HostFacts(
    "esx-1",
    "host-1",
    "gpu",
    "connected",
    False,
    "2024-05-01T08:00:00.000000Z",
    devices=(GPU,),
    vm_names=("a", "b"),
    intent=Intent("r", "maintenance", "2024-05-01T09:00:00.000000Z"),
    powered_on_vms=("a",),
    graphics=(GraphicsDevice(GPU.address, "shared", vm_moids=("vm-1",)),),
    vgpu_types=("grid_v100d-8q",),
)


def test_facts_survive_json() -> None:
    assert host_from_dict(json.loads(json.dumps(to_dict(HOST)))) == HOST


def test_a_prediction_holds_only_what_changes_and_merges() -> None:
    enabled = dataclasses.replace(HOST, devices=(dataclasses.replace(GPU, passthrough_enabled=True),))
    inside = dataclasses.replace(HOST, in_maintenance=True)
    first, second = predicted_host(HOST, enabled), predicted_host(HOST, inside)
    assert set(first) == {"devices"}
    assert second == {"in_maintenance": True}
    merged = json.loads(json.dumps(first | second))
    assert assume_hosts({"esx-1": HOST}, {"esx-1": merged}) == {
        "esx-1": dataclasses.replace(enabled, in_maintenance=True)
    }


def test_assumptions_about_hosts_that_are_not_there() -> None:
    assert assume_hosts({}, {"esx-1": {"in_maintenance": True}}) == {}
    assert assume_hosts({}, {"esx-1": to_dict(HOST)}) == {"esx-1": HOST}


def test_an_assumption_with_an_unknown_field_is_refused() -> None:
    with pytest.raises(TypeError, match="in_maintainance"):
        assume_hosts({"esx-1": HOST}, {"esx-1": {"in_maintainance": True}})


def test_a_machine_that_is_deleted_is_gone_from_its_host_too() -> None:
    assert assume_vms({"a": vm("a"), "b": vm("b")}, {"a": None, "c": None}).keys() == {"b"}
    host = without_vms({"esx-1": HOST}, {"a"})["esx-1"]
    assert (host.vm_names, host.powered_on_vms) == (("b",), ())
