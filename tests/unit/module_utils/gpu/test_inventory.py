# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

import random

import pytest
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.catalog import Catalog
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.facts import (
    GpuAttachment,
    HostFacts,
    PciFunction,
    VmFacts,
)
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.inventory import (
    DuplicateNameError,
    host_entry,
    safe_group,
    unique_names,
    vm_entry,
)

A100 = {"vendor_id": 0x10DE, "device_id": 0x20B5, "class_id": 0x0302, "name": "NVIDIA A100 80GB"}


def host(*devices: PciFunction, **more: object) -> HostFacts:
    fields = {"cluster": "GPU East", "connection": "connected", "in_maintenance": False, "boot_time": None}
    return HostFacts(**{"name": "esx-1", "moid": "host-1", "devices": devices, **fields, **more})  # type: ignore[arg-type]


def vm(name: str, *gpus: GpuAttachment, power: str = "poweredOn") -> VmFacts:
    return VmFacts(
        name=name, moid=f"vm-{name}", host="esx-1", power=power, template=False, change_version="",  # type: ignore[arg-type]
        firmware="efi", hardware_version=21, memory_mb=1, memory_reservation_mb=0,
        memory_reservation_locked=False, cpu_hot_add=False, memory_hot_add=False, gpus=gpus,
    )  # fmt: skip


FREE = PciFunction("0000:3b:00.0", passthrough_capable=True, passthrough_enabled=True, passthrough_active=True, **A100)  # type: ignore[arg-type]
PENDING = PciFunction("0000:5e:00.0", passthrough_capable=True, passthrough_enabled=True, **A100)  # type: ignore[arg-type]
NIC = PciFunction("0000:01:00.0", 0x8086, 0x1572, 0x0200, "X710", passthrough_enabled=True)
ON_FREE = GpuAttachment("fixed", 13000, address="0000:3b:00.0", ids=("10de:20b5",))


@pytest.mark.parametrize(
    ("facts", "guests", "groups"),
    [
        (host(), [], {"esxi", "cluster_gpu_east"}),
        (host(NIC), [], {"esxi", "cluster_gpu_east"}),
        (host(FREE), [], {"esxi", "cluster_gpu_east", "gpu_hosts", "gpu_model_a100d", "gpu_free"}),
        (host(FREE), [vm("a", ON_FREE)], {"esxi", "cluster_gpu_east", "gpu_hosts", "gpu_model_a100d"}),
        (host(PENDING, cluster=None), [], {"esxi", "gpu_hosts", "gpu_model_a100d", "gpu_free", "passthrough_pending"}),
        (
            host(in_maintenance=True, connection="disconnected"),
            [],
            {"esxi", "cluster_gpu_east", "in_maintenance", "not_connected"},
        ),
    ],
)
def test_groups_of_hosts(facts: HostFacts, guests: list[VmFacts], groups: set[str]) -> None:
    assert set(host_entry(facts, "uuid", guests, Catalog())["groups"]) == groups


@pytest.mark.parametrize(
    ("facts", "groups"),
    [
        (vm("plain", power="poweredOff"), {"vms", "power_off"}),
        (vm("fixed", ON_FREE), {"vms", "power_on", "gpu_vms", "gpu_model_a100d"}),
        (
            vm("vgpu", GpuAttachment("vgpu", 1, profile="nvidia_a100d-1-10c"), power="suspended"),
            {"vms", "power_suspended", "gpu_vms", "gpu_model_a100d", "vgpu_profile_nvidia_a100d_1_10c"},
        ),
        (vm("nic", GpuAttachment("fixed", 1, ids=("8086:1572",))), {"vms", "power_on"}),
    ],
)
def test_groups_of_machines(facts: VmFacts, groups: set[str]) -> None:
    assert set(vm_entry(facts, None, None, None, Catalog())["groups"]) == groups


def test_ansible_host_is_the_guests_address_and_left_out_without_one() -> None:
    assert vm_entry(vm("a"), None, "10.0.0.7", None, Catalog())["vars"]["ansible_host"] == "10.0.0.7"
    assert "ansible_host" not in vm_entry(vm("a"), None, None, None, Catalog())["vars"]


def test_group_names_are_what_ansible_takes() -> None:
    assert safe_group("cluster_Köln 1/A-b") == "cluster_k_ln_1_a_b"


def test_duplicates_are_told_apart_whatever_their_order() -> None:
    names = [("vm-1", "web"), ("vm-2", "web"), ("vm-3", "db")]
    for _ in range(5):
        random.shuffle(names)
        assert unique_names(names, "suffix") == {"vm-1": "web_vm-1", "vm-2": "web_vm-2", "vm-3": "db"}
    assert unique_names(names, "skip") == {"vm-3": "db"}
    with pytest.raises(DuplicateNameError, match="web"):
        unique_names(names, "fail")
