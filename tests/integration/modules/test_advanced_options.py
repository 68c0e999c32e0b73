# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

from typing import Any

import pytest
from simulated import StartVcenter, Vcenter, fleet

HOT = "vgpu.hotmigrate.enabled"
DRS = {"PassthroughDrsAutomation": 1, "LBMaxVmotionPerHost": 1, "VgpuMMAutomationTimeoutSecs": -1}
WANTED: dict[str, Any] = {"vcenter": {HOT: True}, "clusters": [{"name": "gpu", "drs_options": DRS}]}


def test_check_set_repeat_update_remove(start_vcenter: StartVcenter) -> None:
    vcenter = start_vcenter(fleet(1))
    vcenter.ok("esxi_gpu_info")
    before = vcenter.settled_state()
    vcenter = start_vcenter(fleet(1), directory=vcenter.directory)
    planned = vcenter.ok("advanced_options", check=True, diff=True, **WANTED)
    assert vcenter.settled_state() == before

    vcenter = start_vcenter(fleet(1), directory=vcenter.directory)
    done = vcenter.ok("advanced_options", diff=True, **WANTED)
    for key in ("changed", "objects", "diff"):
        assert done[key] == planned[key]
    assert done["diff"][0]["after"] == f"{HOT}: true\n"
    assert len(done["objects"]["gpu"]["actions"]) == 3
    again = vcenter.ok("advanced_options", **WANTED)
    assert again["changed"] is False
    assert again["requests"]["RetrievePropertiesEx"] == 1

    update = [{"name": "gpu", "drs_options": {"LBMaxVmotionPerHost": "2", "PassthroughDrsAutomation": None}}]
    changed = vcenter.ok("advanced_options", clusters=update)
    assert changed["objects"]["gpu"]["actions"] == [
        "set LBMaxVmotionPerHost (was 1)",
        "remove PassthroughDrsAutomation (was 1)",
    ]
    assert vcenter.ok("advanced_options", clusters=update)["changed"] is False
    assert vcenter.ok("advanced_options", vcenter={HOT: "false"})["changed"] is True
    assert vcenter.ok("advanced_options", vcenter={HOT: "FALSE"})["changed"] is False


def test_one_call_a_cluster_and_one_read_for_all(start_vcenter: StartVcenter) -> None:
    for count in (1, 10, 100):
        model = fleet(1)
        model["clusters"] += [{"name": f"c-{number:03}"} for number in range(count - 1)]
        vcenter = start_vcenter(model)
        clusters = [{"name": cluster["name"], "drs_options": DRS} for cluster in model["clusters"]]
        first = vcenter.ok("advanced_options", clusters=clusters)
        assert first["requests"]["ReconfigureComputeResource_Task"] == count
        again = vcenter.ok("advanced_options", clusters=clusters)
        assert again["changed"] is False
        assert again["requests"] == {
            "CreateContainerView": 1,
            "CreatePropertyCollector": 1,
            "DestroyPropertyCollector": 1,
            "DestroyView": 1,
            "RetrievePropertiesEx": 1,
            "RetrieveServiceContent": 1,
        }
        vcenter.stop()


def test_options_newer_than_the_vcenter_are_refused_or_skipped(start_vcenter: StartVcenter) -> None:
    vcenter = start_vcenter(fleet(1) | {"api_version": "7.0.3.0"})
    result = vcenter.fails("advanced_options", **WANTED)
    assert result["objects"]["gpu"]["failure"]["code"] == "option_not_supported"
    assert "8.0.2" in result["msg"]
    assert result["objects"]["vCenter"]["changed"] is True
    skipped = vcenter.ok("advanced_options", unsupported="skip", **WANTED)
    assert skipped["objects"]["gpu"]["actions"] == ["set VgpuMMAutomationTimeoutSecs (was not set)"]
    assert len(skipped["objects"]["gpu"]["warnings"]) == 2


def test_trouble_is_named(start_vcenter: StartVcenter) -> None:
    model = fleet(1, users=[{"name": "reader", "password": "Reader-1-password", "role": "ReadOnly"}])
    model["clusters"].append({"name": "off", "drs": {"enabled": False}})
    vcenter = start_vcenter(model)
    unknown = vcenter.fails("advanced_options", clusters=[{"name": "gpuu", "drs_options": DRS}])
    assert "Did you mean gpu?" in unknown["msg"]
    off = vcenter.ok("advanced_options", clusters=[{"name": "off", "drs_options": DRS}])
    assert "DRS of off is off" in off["objects"]["off"]["warnings"][0]
    denied = vcenter.fails("advanced_options", username="reader", password="Reader-1-password", **WANTED)
    assert denied["objects"]["vCenter"]["failure"]["code"] == "no_permission"
    assert "Global.Settings" in denied["msg"]
    assert "Host.Inventory.EditCluster" in denied["msg"]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({}, "give vcenter, clusters"),
        ({"clusters": [{"name": "a", "drs_options": {}}] * 2}, "listed twice"),
        ({"vcenter": {HOT: [1]}}, "must be a text"),
    ],
)
def test_mistakes_are_found_before_anything_is_asked(vcenter: Vcenter, options: dict[str, Any], says: str) -> None:
    assert says in vcenter.fails("advanced_options", **options)["msg"]
    assert vcenter.counts()["total"] == 0
