# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Places as the module gives them, and what comes of them when the machines are powered on there."""

from __future__ import annotations

from typing import Any

import pytest
from gpu_vms import machine, vcenter_connection
from pyVim.task import WaitForTask
from pyVmomi import vim
from simulated import StartVcenter, fleet

V100 = "10de:1db6"


def vgpu_fleet(vms: list[dict[str, Any]] | None = None) -> dict[str, Any]:
    """Two hosts with two A100 each for vGPUs, spread and filled, in same-size and in mixed-size mode."""

    def host(name: str, policy: str) -> dict[str, Any]:
        gpus = [{"gpu": "A100-40", "vgpu_mode": mode} for mode in ("sameSize", "mixedSize")]
        vgpu = {"vgpu_manager": "550.90.05", "graphics_type": "sharedDirect", "assignment_policy": policy}
        return {"name": name, "gpus": gpus, **vgpu}

    hosts = [host("esx-001.lab", "performance"), host("esx-002.lab", "consolidation")]
    return fleet() | {"clusters": [{"name": "gpu", "hosts": hosts}], "vms": vms or []}


def asked(number: int, size: int, **more: Any) -> dict[str, Any]:
    gpus = [{"mode": "vgpu", "profile": f"nvidia_a100-{size}c"}]
    return {"name": f"vm-{number}", "memory_mb": 16384, "gpus": gpus, **more}


def test_machines_get_the_gpus_that_were_predicted(start_vcenter: StartVcenter) -> None:
    sizes = [20, 10, 10, 5, 8, 20, 4, 40]
    placed = start_vcenter(vgpu_fleet()).run(
        "gpu_placement", vms=[asked(number, size) for number, size in enumerate(sizes)], object_errors="report"
    )
    answer = placed.result
    assert not answer["changed"]
    assert len(answer["placements"]) >= 6
    made = [
        machine(
            step["vm"], step["host"], gpus=[{"mode": "vgpu", "profile": f"nvidia_a100-{sizes[int(step['vm'][3:])]}c"}]
        )
        for step in answer["placements"]
    ]
    vcenter = start_vcenter(vgpu_fleet(made))
    with vcenter_connection(vcenter) as content:
        view = content.viewManager.CreateContainerView
        vms = {vm.name: vm for vm in view(content.rootFolder, [vim.VirtualMachine], True).view}
        for vm in vms.values():
            WaitForTask(vm.ReconfigVM_Task(vim.vm.ConfigSpec(memoryReservationLockedToMax=True)))
        for step in answer["placements"]:
            WaitForTask(vms[step["vm"]].PowerOnVM_Task())
        got = {
            (vm.name, info.pciId)
            for host in view(content.rootFolder, [vim.HostSystem], True).view
            for info in host.config.graphicsInfo
            for vm in info.vm
        }
    assert got == {(step["vm"], gpu["address"]) for step in answer["placements"] for gpu in step["gpus"]}
    # What runs is left where it is, and what has no place is told why.
    again = vcenter.run("gpu_placement", vms=[asked(n, s) for n, s in enumerate(sizes)], object_errors="report").result
    assert again["placements"] == []
    assert {name for name, entry in again["objects"].items() if entry.get("existing")} == {vm for vm, _ in got}
    assert [item["vm"] for item in again["refused"]] == [item["vm"] for item in answer["refused"]]
    for item in again["refused"]:
        assert item["code"] == "gpus_taken"


def test_a_machine_is_placed_by_what_its_vgpus_must_have(start_vcenter: StartVcenter) -> None:
    """Each host's own profile is what vm_gpu chooses there; one that a machine has and that will do is kept."""
    half = {"mode": "vgpu", "at_least_gb": 9, "at_most_gpu": 0.5, "migrate": True}
    has = machine("has", "esx-001.lab", gpus=[{"mode": "vgpu", "profile": "nvidia_a100-20c"}])
    t4 = {
        "name": "esx-003.lab", "gpus": [{"gpu": "T4"}], "vgpu_manager": "550.90.05", "graphics_type": "sharedDirect",
    }  # fmt: skip
    model = vgpu_fleet([has])
    model["clusters"][0]["hosts"].append(t4)
    vcenter = start_vcenter(model)
    vms = [{"name": name, "memory_mb": 16384, "gpus": [half]} for name in ("has", "new")]
    vms.append(
        {"name": "small", "gpus": [{"mode": "vgpu", "at_least_gb": 8, "at_most_gpu": 0.5}], "host": "esx-003.lab"}
    )
    result = vcenter.ok("gpu_placement", vms=vms)
    got = {step["vm"]: [gpu["profile"] for gpu in step["gpus"]] for step in result["placements"]}
    assert got == {"has": ["nvidia_a100-20c"], "new": ["nvidia_a100-10c"], "small": ["grid_t4-8c"]}
    new = next(step["host"] for step in result["placements"] if step["vm"] == "new")
    made = model | {"vms": [machine("new", new)]}
    attached = start_vcenter(made).ok("vm_gpu", check=True, vms=[{"name": "new", "gpus": [half]}])
    assert "attach GPU nvidia_a100-10c" in str(attached)
    refused = vcenter.fails("gpu_placement", vms=[{"name": "v", "gpus": [{**half, "at_least_gb": 21}]}])
    assert "To be had" in refused["objects"]["v"]["advice"]
    wrong = vcenter.fails("gpu_placement", vms=[{"name": "v", "gpus": [{**half, "profile": "nvidia_a100-10c"}]}])
    assert "give either profile or at_least_gb" in wrong["objects"]["v"]["msg"]


def test_what_is_wrong_is_said_for_each_machine(start_vcenter: StartVcenter) -> None:
    vcenter = start_vcenter(vgpu_fleet())
    vms = [
        asked(1, 7),
        {"name": "nothing", "gpus": [{"mode": "vgpu"}]},
        {"name": "all", "gpus": [{"mode": "fixed", "id": V100, "count": "all"}]},
        asked(2, 10),
    ]
    result = vcenter.fails("gpu_placement", vms=vms, leave=["esx-003.lab"])
    assert {name: entry["failed"] for name, entry in result["objects"].items()} == {
        "vm-1": True, "nothing": True, "all": True, "vm-2": False, "esx-003.lab": True,
    }  # fmt: skip
    assert "it has a100-4c, a100-5c" in result["objects"]["vm-1"]["msg"]
    assert "Did you mean esx-002.lab?" in result["objects"]["esx-003.lab"]["msg"]
    for option in ({"max_moves": -1}, {"cpu_overcommit": 0}, {"anti_affinity": {"a": "b"}}):
        assert next(iter(option)) in vcenter.fails("gpu_placement", **option)["msg"]


def test_check_mode_places_on_hosts_as_they_are_going_to_be(start_vcenter: StartVcenter) -> None:
    vcenter = start_vcenter(fleet(2))
    vms = [{"name": "vm", "gpus": [{"mode": "dynamic", "id": V100, "count": "2"}]}]
    assert "gpus_not_ready" in str(vcenter.fails("gpu_placement", vms=vms)["failure"])
    planned = vcenter.ok("esxi_passthrough", check=True, hosts=[{"name": "esx-002.lab", "devices": [{"id": V100}]}])[
        "predicted"
    ]
    devices = planned["hosts"]["esx-002.lab"]["devices"]
    active = [{**item, "passthrough_active": item["passthrough_enabled"]} for item in devices]
    found = vcenter.ok("gpu_placement", check=True, vms=vms, assume={"hosts": {"esx-002.lab": {"devices": active}}})
    assert found["objects"]["vm"]["host"] == "esx-002.lab"


@pytest.mark.parametrize("hosts", [1, 10, 100])
def test_the_number_of_requests_does_not_depend_on_the_number_of_hosts(start_vcenter: StartVcenter, hosts: int) -> None:
    vcenter = start_vcenter(fleet(hosts))
    vcenter.ok("gpu_placement", vms=[])
    vcenter.reset_counts()
    vcenter.ok("gpu_placement", vms=[{"name": "vm", "memory_mb": 1024}])
    counts = vcenter.counts()
    assert counts["logins"] == 0
    pages = counts["requests"].pop("ContinueRetrievePropertiesEx", 0)
    assert pages <= hosts // 50 + 1
    assert counts["requests"] == {
        "RetrieveServiceContent": 1, "CreatePropertyCollector": 1, "CreateContainerView": 2, "RetrievePropertiesEx": 2,
        "DestroyView": 2, "DestroyPropertyCollector": 1,
    }  # fmt: skip
