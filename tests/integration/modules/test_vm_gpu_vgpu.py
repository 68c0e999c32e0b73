# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""vGPUs, device groups and machines that run: what vm_gpu does for them."""

from __future__ import annotations

from typing import Any

from gpu_vms import fixed, gpu_fleet, machine, vgpu, vgpu_fleet
from simulated import StartVcenter, fleet

RECONFIGURE = "ReconfigVM_Task"
NEEDS = {"mode": "vgpu", "at_least_gb": 9, "at_most_gpu": 0.5, "migrate": True}


def wanted(name: str, *gpus: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"name": name, "gpus": list(gpus), **more}


def profiles(entry: dict[str, Any]) -> list[str]:
    return [gpu["profile"] for gpu in entry["gpus"]]


def test_check_create_repeat_swap_delete(start_vcenter: StartVcenter) -> None:
    vcenter = start_vcenter(vgpu_fleet(vms=[machine("a"), machine("b", memory_mb=65536)]))
    vms = [wanted("a", vgpu("grid_A100-10C", 2)), wanted("b", NEEDS)]
    planned = vcenter.ok("vm_gpu", check=True, vms=vms)
    reason = "nvidia_a100-10c (10 GB, 0.25 of a GPU): the smallest of esx-001.lab with compute class, at least 9 GB,"
    assert planned["objects"]["a"]["actions"] == [
        "attach GPU nvidia_a100-10c (vGPU)",
        "attach GPU nvidia_a100-10c (vGPU)",
        "set memory_reservation_locked (GPUs need all memory reserved)",
        "set pciPassthru.use64bitMMIO (64 GB for vGPUs)",
        "set pciPassthru.64bitMMIOSizeGB (64 GB for vGPUs)",
    ]
    assert planned["objects"]["b"]["actions"][0].startswith(f"attach GPU nvidia_a100-10c (vGPU, {reason}")
    assert RECONFIGURE not in vcenter.counts()["requests"]

    made = vcenter.ok("vm_gpu", vms=vms)
    assert {name: entry["actions"] for name, entry in made["objects"].items()} == {
        name: entry["actions"] for name, entry in planned["objects"].items()
    }
    assert made["requests"][RECONFIGURE] == 2
    assert "QueryConfigTarget" not in made["requests"]
    again = vcenter.ok("vm_gpu", vms=vms)
    assert not again["changed"]
    extra = {key.lower(): value for key, value in again["predicted"]["vms"]["b"]["extra_config"].items()}
    assert extra["pcipassthru.64bitmmiosizegb"] == "128"  # the board's value from 32 GB of memory on
    assert vcenter.ok("vm_power", vms=["a", "b"], state="on")["changed"]
    assert not vcenter.ok("vm_gpu", vms=vms)["changed"]
    vcenter.ok("vm_power", vms=["a"], state="off")
    swapped = vcenter.ok("vm_gpu", vms=[wanted("a", vgpu("nvidia_a100-20c"))])
    assert swapped["requests"][RECONFIGURE] == 1
    assert profiles(swapped["objects"]["a"]) == ["nvidia_a100-20c"]
    assert profiles(vcenter.ok("vm_gpu", vms=[wanted("a")])["objects"]["a"]) == []


def test_what_stands_in_the_way(start_vcenter: StartVcenter) -> None:
    host: dict[str, Any] = {"gpus": [{"gpu": "A100-40", "count": 1}]}
    managed = host | {"vgpu_manager": "16.4"}
    direct = managed | {"graphics_type": "sharedDirect"}
    hosts = {
        "bare": host,
        "shared": managed,
        "passed": {"vgpu_manager": "16.4", "gpus": [{"gpu": "A100-40", "passthrough": True}]},
        "other": direct,
        "typo": direct,
        "small": direct,
        "mixed": direct | {"gpus": [{"gpu": "A100-40", "count": 2}]},
        "bios": direct,
        "full": direct,
    }
    want: dict[str, Any] = {name: [vgpu("nvidia_a100-10c")] for name in hosts} | {
        "other": [vgpu("nvidia_a40-12c")],
        "typo": [vgpu("nvidia_a100-11c")],
        "small": [{"mode": "vgpu", "at_least_gb": 30, "at_most_gpu": 0.5}],
        "mixed": [vgpu("nvidia_a100-10c"), vgpu("nvidia_a100-10q")],
        "full": [vgpu("nvidia_a100-10c", 5)],
    }
    shape = {"bios": {"firmware": "bios"}}
    model = fleet() | {"vms": [machine(name, f"{name}.lab", **shape.get(name, {})) for name in hosts]}
    model["clusters"][0]["hosts"] = [{"name": f"{name}.lab", **value} for name, value in hosts.items()]
    vcenter = start_vcenter(model)
    result = vcenter.run("vm_gpu", vms=[wanted(name, *gpus) for name, gpus in want.items()]).result
    found = {name: entry["failure"]["code"] for name, entry in result["objects"].items()}
    assert found == {
        "bare": "no_vgpu_manager",
        "shared": "not_shared_direct",
        "passed": "gpu_passed_through",
        "other": "device_not_found",
        "typo": "profile_not_found",
        "small": "profile_not_found",
        "mixed": "vgpu_mix",
        "bios": "firmware_bios",
        "full": "gpu_shortage",
    }
    assert "Did you mean nvidia_a100-1" in result["objects"]["typo"]["msg"]
    assert "nvidia_a100-40c (40 GB, 1 of a GPU) without at_most_gpu" in result["objects"]["small"]["msg"]
    assert RECONFIGURE not in vcenter.counts()["requests"]


def test_a_device_group_comes_and_goes_as_one(start_vcenter: StartVcenter) -> None:
    vcenter = start_vcenter(vgpu_fleet(vms=[machine("a")], nvlink=True))
    name = "Nvidia:2@nvidia_a100-40c%NVLink"
    group = {"mode": "device_group", "name": name}
    assert vcenter.ok("vm_gpu", check=True, vms=[wanted("a", group)])["objects"]["a"]["actions"][0] == (
        f"attach GPU {name} (device group)"
    )
    made = vcenter.ok("vm_gpu", vms=[wanted("a", group)])
    assert made["requests"][RECONFIGURE] == 1
    assert [gpu["group"] for gpu in made["objects"]["a"]["gpus"]] == [name, name]
    assert not vcenter.ok("vm_gpu", vms=[wanted("a", group)])["changed"]
    assert vcenter.ok("vm_power", vms=["a"], state="on")["changed"]
    vcenter.ok("vm_power", vms=["a"], state="off")
    gone = vcenter.ok("vm_gpu", vms=[wanted("a", vgpu("nvidia_a100-10c"))])
    assert profiles(gone["objects"]["a"]) == ["nvidia_a100-10c"]
    result = vcenter.fails("vm_gpu", vms=[wanted("a", {**group, "name": "Nvidia:4@nvidia_a100-40c%NVLink"})])
    assert result["failure"]["code"] == "device_group_not_found"
    assert f"Did you mean {name}?" in result["msg"]


def test_a_running_machine_is_powered_off_changed_and_on_again_where_that_is_allowed(
    start_vcenter: StartVcenter,
) -> None:
    vcenter = start_vcenter(gpu_fleet(2, vms=[machine("a", power="on"), machine("b", "esx-002.lab", power="on")]))
    refused = vcenter.fails("vm_gpu", vms=[wanted("a", fixed())])
    assert refused["failure"]["code"] == "vm_powered_on"
    assert "power: allow" in refused["msg"]
    vms = [wanted("a", fixed()), wanted("b")]
    planned = vcenter.ok("vm_gpu", check=True, vms=vms, power="allow")
    actions = planned["objects"]["a"]["actions"]
    assert (actions[0], actions[-1]) == ("power off (its devices cannot change while it runs)", "power on")
    assert planned["objects"]["b"]["actions"] == []  # fits as it is
    made = vcenter.ok("vm_gpu", vms=vms, power="allow")
    assert made["objects"]["a"]["actions"] == actions
    requests = made["requests"]
    assert (requests["ShutdownGuest"], requests[RECONFIGURE], requests["PowerOnVM_Task"]) == (1, 1, 1)
    assert "PowerOffVM_Task" not in requests
    again = vcenter.ok("vm_gpu", vms=vms, power="allow")
    assert not again["changed"]
    assert again["objects"]["a"]["power"] == "poweredOn"
    assert again["predicted"]["vms"]["a"]["intent"] is None


def test_a_guest_that_does_not_stop_is_only_forced_off(start_vcenter: StartVcenter) -> None:
    vcenter = start_vcenter(gpu_fleet(vms=[machine("a", power="on")], timings={"guest_shutdown": 360000}))
    result = vcenter.fails("vm_gpu", vms=[wanted("a", fixed())], power="allow", guest_timeout=1)
    assert result["failure"]["code"] == "guest_timeout"
    assert result["objects"]["a"]["power"] == "poweredOn"
    forced = vcenter.ok("vm_gpu", vms=[wanted("a", fixed())], power="force", guest_timeout=1)
    assert forced["requests"]["PowerOffVM_Task"] == 1
    assert not vcenter.ok("vm_gpu", vms=[wanted("a", fixed())])["changed"]


def test_a_machine_that_could_not_be_changed_is_powered_on_again(start_vcenter: StartVcenter) -> None:
    fault = {"method": RECONFIGURE, "nth": 1, "fault": {"type": "vim.fault.ConcurrentAccess", "message": "Changed."}}
    vcenter = start_vcenter(gpu_fleet(vms=[machine("a", power="on")]), faults=[fault])
    result = vcenter.fails("vm_gpu", vms=[wanted("a", fixed())], power="allow")
    assert result["failure"]["code"] == "changed_meanwhile"
    assert result["requests"]["PowerOnVM_Task"] == 1
    made = vcenter.ok("vm_gpu", vms=[wanted("a", fixed())], power="allow")
    assert made["objects"]["a"]["power"] == "poweredOn"


def test_requests_are_constant_but_for_the_writes(start_vcenter: StartVcenter) -> None:
    hosts = 100
    vms = [machine(f"vm-{n}", f"esx-{n:03}.lab", power="on") for n in range(1, hosts + 1)]
    vcenter = start_vcenter(vgpu_fleet(hosts, vms=vms))
    vcenter.ok("vm_power", check=True, vms=["vm-1"], state="on")  # logs in
    writing, reading = [], []
    start = 1
    for count in (1, 10, 89):
        some = [wanted(f"vm-{number}", vgpu("nvidia_a100-20c")) for number in range(start, start + count)]
        start += count
        requests = vcenter.ok("vm_gpu", vms=some, power="allow")["requests"]
        each = ("ShutdownGuest", RECONFIGURE, "PowerOnVM_Task")
        assert [requests.pop(method) for method in each] == [count] * 3
        assert requests.pop("SetField") == 2 * count
        for method in ("WaitForUpdatesEx", "AddCustomFieldDef"):
            requests.pop(method, None)
        writing.append(requests)
        reading.append(vcenter.ok("vm_gpu", vms=some)["requests"])
    # The first one defines the custom attribute.
    assert writing[1] == writing[2]
    assert reading[0] == reading[1] == reading[2]
    assert sum(reading[0].values()) <= 12
