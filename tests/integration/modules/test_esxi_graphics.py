# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

from typing import Any

import pytest
from simulated import StartVcenter, Vcenter

ONE, TWO = "esx-001.lab", "esx-002.lab"
GPU_A, GPU_B = "0000:3b:00.0", "0000:5e:00.0"
READS = {
    "CreateContainerView": 1,
    "CreatePropertyCollector": 1,
    "DestroyPropertyCollector": 1,
    "DestroyView": 1,
    "RetrievePropertiesEx": 2,
    "RetrieveServiceContent": 1,
}


def fleet(hosts: int = 1, gpu: str = "A100-40", **more: Any) -> dict[str, Any]:
    host = {"name": f"esx-[001:{hosts:03}].lab", "gpus": [{"gpu": gpu, "count": 2}], "vgpu_manager": "16.4", **more}
    return {
        "datacenter": "lab",
        "datastores": [{"name": "shared-01"}],
        "networks": [{"name": "VM Network"}],
        "clusters": [{"name": "gpu", "hosts": [host]}],
    }


def graphics(vcenter: Vcenter, name: str = ONE) -> tuple[Any, ...]:
    host = vcenter.host(name)
    config = host["graphics_config"]
    devices = [(gpu["graphics_type"], gpu["vgpu_mode"]) for gpu in config["devices"]]
    return config["default_type"], config["assignment_policy"], devices, bool(host["vgpu_types"])


def test_missing_arguments_check_run_repeat_update_revert(start_vcenter: StartVcenter) -> None:
    vcenter = start_vcenter(fleet(2))
    assert "missing required arguments: hosts" in vcenter.run("esxi_graphics").result["msg"]
    direct = [{"name": name, "default_type": "sharedDirect"} for name in (ONE, TWO)]
    vcenter.ok("esxi_gpu_info")
    before = vcenter.settled_state()

    vcenter = start_vcenter(fleet(2), directory=vcenter.directory)
    planned = vcenter.ok("esxi_graphics", check=True, diff=True, hosts=direct)
    assert vcenter.settled_state() == before

    vcenter = start_vcenter(fleet(2), directory=vcenter.directory)
    done = vcenter.ok("esxi_graphics", diff=True, hosts=direct)
    for key in ("changed", "objects", "predicted", "diff"):
        assert done[key] == planned[key]
    assert done["objects"][ONE]["services_to_restart"] == ["xorg"]
    assert done["diff"][0]["after"] == (
        f"default_type: sharedDirect\n{GPU_A} graphics_type: sharedDirect\n{GPU_B} graphics_type: sharedDirect\n"
    )
    assert done["requests"]["UpdateGraphicsConfig"] == 2
    assert "RestartService" not in done["requests"]
    assert graphics(vcenter) == ("sharedDirect", "performance", [("sharedDirect", "sameSize")] * 2, True)
    assert vcenter.ok("esxi_graphics", hosts=direct)["changed"] is False

    mixed = [
        {"name": ONE, "assignment_policy": "consolidation", "devices": [{"address": GPU_A, "vgpu_mode": "mixedSize"}]}
    ]
    updated = vcenter.ok("esxi_graphics", hosts=mixed)
    assert updated["objects"][ONE]["services_to_restart"] == []
    devices = [("sharedDirect", "mixedSize"), ("sharedDirect", "sameSize")]
    assert graphics(vcenter) == ("sharedDirect", "consolidation", devices, True)

    back = vcenter.ok("esxi_graphics", hosts=[{"name": ONE, "default_type": "shared"}], restart_services=True)
    assert back["requests"]["RestartService"] == 1
    assert back["objects"][ONE]["services_to_restart"] == []
    assert graphics(vcenter)[3] is False


def test_requests_do_not_grow_with_the_fleet_when_nothing_changes(start_vcenter: StartVcenter) -> None:
    for count in (1, 10, 100):
        vcenter = start_vcenter(fleet(count, graphics_type="sharedDirect"))
        wanted = [{"name": f"esx-{n:03}.lab", "default_type": "sharedDirect"} for n in range(1, count + 1)]
        vcenter.ok("esxi_graphics", hosts=wanted[:1])
        vcenter.reset_counts()
        result = vcenter.ok("esxi_graphics", hosts=wanted)
        assert result["changed"] is False
        assert result["requests"] == READS
        assert vcenter.counts() == {"requests": READS, "total": 7, "logins": 0}
        vcenter.stop()


def test_a_change_costs_one_call_a_host_and_one_read(start_vcenter: StartVcenter) -> None:
    vcenter = start_vcenter(fleet(10))
    wanted = [{"name": f"esx-{n:03}.lab", "default_type": "sharedDirect"} for n in range(1, 11)]
    result = vcenter.ok("esxi_graphics", hosts=wanted)
    assert result["requests"] == READS | {"Login": 1, "RetrievePropertiesEx": 3, "UpdateGraphicsConfig": 10}


def test_a_gpu_in_use_keeps_its_type_and_the_other_host_is_served(start_vcenter: StartVcenter) -> None:
    model = fleet(2, graphics_type="sharedDirect")
    model["vms"] = [
        {
            "name": "trainer",
            "host": ONE,
            "power": "on",
            "memory_locked": True,
            "firmware": "efi",
            "gpus": [{"mode": "vgpu", "profile": "nvidia_a100-10c"}],
            "extra_config": {"pciPassthru.use64bitMMIO": "TRUE", "pciPassthru.64bitMMIOSizeGB": "128"},
        }
    ]
    vcenter = start_vcenter(model)
    result = vcenter.fails("esxi_graphics", hosts=[{"name": name, "default_type": "shared"} for name in (ONE, TWO)])
    assert result["objects"][ONE]["failure"]["code"] == "gpu_in_use"
    assert "trainer" in result["objects"][ONE]["msg"]
    assert result["objects"][TWO]["changed"] is True
    assert vcenter.counts()["requests"]["UpdateGraphicsConfig"] == 1


def test_a_service_that_does_not_restart_is_reported_and_the_change_counted(start_vcenter: StartVcenter) -> None:
    fault = {"type": "vim.fault.HostConfigFault", "message": "X will not come up."}
    vcenter = start_vcenter(fleet(1), faults=[{"method": "RestartService", "fault": fault}])
    wanted = [{"name": ONE, "default_type": "sharedDirect"}]
    result = vcenter.fails("esxi_graphics", hosts=wanted, restart_services=True)
    assert result["changed"] is True
    assert "X will not come up" in result["msg"]
    assert vcenter.ok("esxi_graphics", hosts=wanted)["changed"] is False


@pytest.mark.parametrize(
    ("wanted", "says"),
    [
        ([{"name": ONE, "devices": [{"id": "a100", "vgpu_mode": "sameSize"}]}], "vendor:device"),
        ([{"name": ONE, "devices": [{"address": GPU_A}]}], "graphics_type or vgpu_mode"),
        ([{"name": ONE}, {"name": ONE}], "listed twice"),
    ],
)
def test_mistakes_are_found_before_anything_is_asked(vcenter: Vcenter, wanted: list[dict[str, Any]], says: str) -> None:
    result = vcenter.fails("esxi_graphics", hosts=wanted)
    assert result["failure"]["code"] == "invalid_input"
    assert says in result["msg"]
    assert vcenter.counts()["total"] == 0


def test_a_missing_privilege_is_named_with_its_host(start_vcenter: StartVcenter) -> None:
    model = fleet(1) | {"users": [{"name": "reader", "password": "Reader-1-password", "role": "ReadOnly"}]}
    vcenter = start_vcenter(model)
    wanted = [{"name": ONE, "default_type": "sharedDirect"}]
    result = vcenter.fails("esxi_graphics", hosts=wanted, username="reader", password="Reader-1-password")
    assert result["failure"] == {"code": "no_permission", "object": ONE, "fault": "NoPermission"}
    assert f"the privilege Host.Config.Settings on {ONE}" in result["msg"]
