# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

import dataclasses
import typing as t

from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.catalog import Catalog
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.describe import describe_host
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.facts import (
    AssignmentMode,
    GpuAttachment,
    GraphicsDevice,
    HostFacts,
    PciFunction,
    Power,
    VmFacts,
)

A, B = "0000:3b:00.0", "0000:5e:00.0"
V100 = PciFunction(A, 0x10DE, 0x1DB6, 0x0302, "Tesla V100", True, True, True, hardware_label="v")
NEW = PciFunction(B, 0x10DE, 0x9999, 0x0302, "Next", True)
NIC = PciFunction("0000:18:00.0", 0x8086, 0x1572, 0x0200, "X710")
SHARED = GraphicsDevice(A, "shared", "none")
HOST = HostFacts("esx-1", "host-1", "gpu", "connected", False, None, devices=(NIC, V100), graphics=(SHARED,))


def vm(name: str, *gpus: tuple[AssignmentMode, str | None], power: Power = "poweredOn", host: str = "esx-1") -> VmFacts:
    attached = tuple(GpuAttachment(mode, 13000 + n, address) for n, (mode, address) in enumerate(gpus))
    return VmFacts(
        name, f"vm-{name}", host, power, False, "1", "efi", 21, 1024, 1024, True, False, False, gpus=attached
    )


def test_only_gpus_are_described() -> None:
    described, plan = describe_host(HOST, [], Catalog())
    assert [gpu["address"] for gpu in described["gpus"]] == [A]
    assert not plan.failed
    gpu = described["gpus"][0]
    assert (gpu["model"], gpu["framebuffer_gb"], gpu["hardware_label"]) == ("V100-32", 32, "v")
    assert (gpu["graphics_type"], gpu["vgpu_mode"], gpu["free"]) == ("shared", "none", True)


def test_users_of_each_kind() -> None:
    vms = [
        vm("fixed", ("fixed", A)),
        vm("off", ("fixed", A), power="poweredOff"),
        vm("dynamic", ("dynamic", A)),
        vm("unassigned", ("dynamic", None)),
        vm("elsewhere", ("fixed", A), host="esx-2"),
        vm("other", ("fixed", B)),
    ]
    gpu = describe_host(HOST, vms, Catalog())[0]["gpus"][0]
    assert gpu["used_by"] == ["dynamic", "fixed"]
    assert gpu["configured_in"] == ["fixed", "off"]
    assert gpu["free"] is False


def test_vgpus_are_told_by_machine_running_or_not() -> None:
    def sliced(name: str, *profiles: str, **more: t.Any) -> VmFacts:
        gpus = tuple(GpuAttachment("vgpu", 13000 + n, profile=profile) for n, profile in enumerate(profiles))
        return dataclasses.replace(vm(name, **more), gpus=gpus)

    vms = [
        sliced("two", "grid_t4-8c", "grid_t4-8c"),
        sliced("off", "grid_t4-4c", power="poweredOff"),
        sliced("elsewhere", "grid_t4-4c", host="esx-2"),
        vm("whole", ("fixed", A)),
    ]
    assert describe_host(HOST, vms, Catalog())[0]["vgpus"] == {
        "off": ["grid_t4-4c"],
        "two": ["grid_t4-8c", "grid_t4-8c"],
    }


def test_users_of_a_shared_gpu() -> None:
    host = HostFacts(
        "esx-1", "host-1", "gpu", "connected", False, None, devices=(V100,),
        graphics=(GraphicsDevice(A, "sharedDirect", vm_moids=("vm-slice", "vm-gone")),),
    )  # fmt: skip
    gpu = describe_host(host, [vm("slice", ("vgpu", None))], Catalog())[0]["gpus"][0]
    assert (gpu["used_by"], gpu["configured_in"], gpu["free"]) == (["slice"], [], False)


def test_an_unknown_gpu_is_a_problem_that_says_what_to_set() -> None:
    host = HostFacts("esx-1", "host-1", "gpu", "connected", False, None, devices=(V100, NEW))
    described, plan = describe_host(host, [], Catalog())
    assert [problem.code for problem in plan.problems] == ["unknown_gpu"]
    assert "10de:9999" in plan.problems[0].msg
    assert "bar_overrides" in plan.problems[0].msg
    assert described["gpus"][1]["model"] is None
    assert described["gpus"][1]["bars_mb"] is None
    described, plan = describe_host(host, [], Catalog({"10de:9999": {"bar1_gb": 64}}))
    assert not plan.failed
    assert described["gpus"][1]["bars_mb"] == [16, 65536, 32]
