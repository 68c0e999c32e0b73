# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

from typing import Any

import pytest
from gpu_vms import fixed, gpu_fleet, machine, vgpu_fleet
from simulated import StartVcenter


def test_check_on_repeat_off_repeat(start_vcenter: StartVcenter) -> None:
    vcenter = start_vcenter(gpu_fleet(vms=[machine("a"), machine("b", power="on")]))
    planned = vcenter.ok("vm_power", check=True, vms=["a", "b"], state="on")
    assert [planned["objects"][name]["changed"] for name in ("a", "b")] == [True, False]
    assert "PowerOnVM_Task" not in vcenter.counts()["requests"]
    made = vcenter.ok("vm_power", vms=["a", "b"], state="on")
    assert [made["objects"][name]["actions"] for name in ("a", "b")] == [["power on"], []]
    assert made["requests"]["PowerOnVM_Task"] == 1
    assert not vcenter.ok("vm_power", vms=["a", "b"], state="on")["changed"]
    off = vcenter.ok("vm_power", vms=["a", "b"], state="off")
    assert off["requests"]["ShutdownGuest"] == 2
    assert "PowerOffVM_Task" not in off["requests"]
    assert [off["objects"][name]["power"] for name in ("a", "b")] == ["poweredOff", "poweredOff"]
    assert not vcenter.ok("vm_power", vms=["a", "b"], state="off")["changed"]


def test_missing_arguments_are_named(start_vcenter: StartVcenter) -> None:
    assert "missing required arguments: state, vms" in start_vcenter(gpu_fleet()).run("vm_power").result["msg"]


@pytest.mark.parametrize("force", [False, True])
def test_a_guest_that_does_not_stop(start_vcenter: StartVcenter, force: bool) -> None:
    vcenter = start_vcenter(gpu_fleet(vms=[machine("a", power="on")], timings={"guest_shutdown": 360000}))
    options = {"vms": ["a"], "state": "off", "guest_timeout": 1}
    if force:
        assert vcenter.ok("vm_power", **options, force=True)["requests"]["PowerOffVM_Task"] == 1
        assert not vcenter.ok("vm_power", **options)["changed"]
    else:
        result = vcenter.fails("vm_power", **options)
        assert result["failure"]["code"] == "guest_timeout"
        assert "force: true" in result["msg"]
        assert result["objects"]["a"]["power"] == "poweredOn"


def test_problems_are_found_before_anything_is_done(start_vcenter: StartVcenter) -> None:
    model = gpu_fleet(vms=[machine("here"), machine("kept", "other.lab"), machine("lost", "elsewhere.lab")])
    model["clusters"].append({"name": "maintained", "hosts": [{"name": "other.lab", "in_maintenance": True}]})
    model["clusters"].append(
        {"name": "lost", "hosts": [{"name": "elsewhere.lab", "connection_state": "notResponding"}]}
    )
    vcenter = start_vcenter(model)
    result = vcenter.fails("vm_power", vms=["heer", "golden", "kept", "lost", "here"], state="on")
    codes = {name: entry.get("failure", {}).get("code") for name, entry in result["objects"].items()}
    assert codes == {
        "heer": "vm_not_found",
        "golden": "is_template",
        "kept": "host_in_maintenance",
        "lost": "host_not_connected",
        "here": None,
    }
    assert "Did you mean here?" in result["msg"]
    assert result["objects"]["here"]["changed"]


def test_a_gpu_that_another_machine_uses_says_what_to_do(start_vcenter: StartVcenter) -> None:
    first = {"mode": "fixed", "address": "0000:3b:00.0"}
    vcenter = start_vcenter(gpu_fleet(vms=[machine("a", memory_locked=True, gpus=[first])]))
    result = vcenter.fails("vm_power", vms=["a"], state="on")
    assert result["objects"]["a"]["failure"]["fault"] == "GenericVmConfigFault"
    assert "Run vm_gpu for it" in result["msg"]
    assert result["objects"]["a"]["power"] == "poweredOff"
    vcenter.ok("vm_gpu", vms=[{"name": "a", "gpus": [fixed()]}])
    assert vcenter.ok("vm_power", vms=["a"], state="on")["changed"]


def test_requests_are_constant_but_for_the_writes(start_vcenter: StartVcenter) -> None:
    vcenter = start_vcenter(gpu_fleet(vms=[machine(f"vm-{number}") for number in range(1, 112)]))
    vcenter.ok("vm_power", check=True, vms=["vm-1"], state="on")  # logs in
    seen = []
    start = 1
    for count in (1, 10, 100):
        names = [f"vm-{number}" for number in range(start, start + count)]
        start += count
        requests = vcenter.ok("vm_power", vms=names, state="on")["requests"]
        assert requests.pop("PowerOnVM_Task") == count
        requests.pop("WaitForUpdatesEx")
        seen.append((requests, vcenter.ok("vm_power", vms=names, state="on")["requests"]))
    assert seen[0] == seen[1] == seen[2]
    assert sum(seen[0][1].values()) <= 11


def with_vgpu(name: str, profile: str, **more: Any) -> dict[str, Any]:
    return machine(name, memory_locked=True, gpus=[{"mode": "vgpu", "profile": profile}], **more)


def test_suspend_and_resume(start_vcenter: StartVcenter) -> None:
    whole = {"mode": "fixed", "address": "0000:3b:00.0"}
    mmio = {"pciPassthru.use64bitMMIO": "TRUE", "pciPassthru.64bitMMIOSizeGB": "128"}
    model = vgpu_fleet(
        vms=[
            with_vgpu("a", "nvidia_a100-10c", power="on"),
            machine("plain", power="on"),
            machine("off"),
            machine("whole", "v100.lab", gpus=[whole], power="on", memory_locked=True, extra_config=mmio),
        ]
    )
    model["clusters"][0]["hosts"].append({"name": "v100.lab", "gpus": [{"gpu": "V100-32", "passthrough": True}]})
    vcenter = start_vcenter(model)
    names = ["a", "plain", "off", "whole"]
    refused = vcenter.fails("vm_power", check=True, vms=names, state="suspended")
    codes = {name: entry.get("failure", {}).get("code") for name, entry in refused["objects"].items()}
    assert codes == {"a": None, "plain": None, "off": "vm_powered_off", "whole": "suspend_not_supported"}
    assert "0000:3b:00.0 by passthrough" in refused["msg"]
    made = vcenter.ok("vm_power", vms=["a", "plain"], state="suspended")
    assert made["requests"]["SuspendVM_Task"] == 2
    assert not vcenter.ok("vm_power", vms=["a", "plain"], state="suspended")["changed"]
    resumed = vcenter.ok("vm_power", vms=names, state="resumed")
    assert {name: entry["actions"] for name, entry in resumed["objects"].items()} == {
        "a": ["power on (resume it)"],
        "plain": ["power on (resume it)"],
        "off": [],
        "whole": [],
    }
    assert resumed["objects"]["off"]["power"] == "poweredOff"
    assert not vcenter.ok("vm_power", vms=names, state="resumed")["changed"]


def test_off_without_asking(start_vcenter: StartVcenter) -> None:
    vcenter = start_vcenter(gpu_fleet(vms=[machine("a", power="on")]))
    requests = vcenter.ok("vm_power", vms=["a"], state="off", hard=True)["requests"]
    assert requests["PowerOffVM_Task"] == 1
    assert "ShutdownGuest" not in requests


def test_vgpus_start_one_after_the_other_in_an_order_in_which_all_find_room(start_vcenter: StartVcenter) -> None:
    """In the order asked for, the small ones would spread over both GPUs and leave none for the large one."""
    names = ["small-1", "small-2", "large"]
    profiles = dict(zip(names, ["nvidia_a100-10c", "nvidia_a100-10c", "nvidia_a100-40c"], strict=True))
    vcenter = start_vcenter(vgpu_fleet(vms=[with_vgpu(name, profile) for name, profile in profiles.items()]))
    planned = vcenter.ok("vm_power", check=True, vms=names, state="on")
    predicted = {name: entry["predicted_gpus"] for name, entry in planned["objects"].items()}
    made = vcenter.ok("vm_power", vms=names, state="on")
    assert {name: entry["predicted_gpus"] for name, entry in made["objects"].items()} == predicted
    gpus = {gpu["address"]: gpu["used_by"] for gpu in vcenter.host("esx-001.lab")["gpus"]}
    assert {address: sorted(used) for address, used in gpus.items()} == {
        predicted["large"][0]: ["large"],
        predicted["small-1"][0]: ["small-1", "small-2"],
    }


def test_no_room_says_who_has_it(start_vcenter: StartVcenter) -> None:
    vms = [with_vgpu(name, "nvidia_a100-40c", power="on") for name in ("a", "b")]
    vcenter = start_vcenter(vgpu_fleet(vms=[*vms, with_vgpu("c", "nvidia_a100-10c")]))
    planned = vcenter.ok("vm_power", check=True, vms=["c"], state="on")
    assert "esx-001.lab seems to have no room for its vGPUs" in planned["objects"]["c"]["warnings"][0]
    result = vcenter.fails("vm_power", vms=["c"], state="on")
    assert result["failure"]["fault"] == "InsufficientGraphicsResourcesFault"
    assert "0000:3b:00.0 has a (nvidia_a100-40c); 0000:5e:00.0 has b (nvidia_a100-40c)." in result["msg"]
