# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the machines of a fleet are to be like: in the words of placement, and beside what they are now."""

from __future__ import annotations

import dataclasses
import typing as t

from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.catalog import Catalog
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.facts import GpuAttachment, HostFacts, VmFacts
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.placement.model import Need
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.placement.site import (
    Rules,
    SiteFacts,
    demand_of,
    demands_from_option,
)
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.profiles import SERIES, Needs
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.vgpu import parse_profile
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.wants import ALL

Item = t.Mapping[str, t.Any]


@dataclasses.dataclass(frozen=True, slots=True)
class OwnMachine:
    """A machine that the inventory gives a host itself."""

    item: Item
    """As placement takes it; without GPUs where they cannot be counted."""
    counted: bool
    """Whether what GPUs it gets can be told before its host is asked."""


def own_machine(item: Item, host: HostFacts, rules: Rules, *, prepared: bool) -> OwnMachine:
    """A machine of `gpu_vm_vms`; its GPUs may be asked for in every way that vm_gpu knows.

    Which vGPUs a host offers it tells when its preparation has ended: `prepared`.
    """
    gpus = [_numbered(gpu, host, prepared) for gpu in item.get("gpus") or ()]
    known = {**item, "gpus": [gpu for gpu in gpus if gpu is not None]}
    if None in gpus or demands_from_option([known], rules)[1]:
        return OwnMachine({**item, "gpus": []}, counted=False)
    return OwnMachine(known, counted=True)


def _numbered(gpu: t.Any, host: HostFacts, prepared: bool) -> dict[str, t.Any] | None:
    """Some GPUs with their number, also where it is all that the host has; None if that cannot be told."""
    if not isinstance(gpu, dict) or gpu.get("mode") not in ("fixed", "dynamic", "vgpu"):
        return None
    if gpu["mode"] == "vgpu" and not (prepared and host.vgpu_types and gpu.get("profile")):
        return None
    if str(gpu.get("count", 1)).strip().lower() != ALL:
        return gpu
    wanted = (str(gpu.get("id") or "").strip().lower(), gpu.get("label"))
    catalog = Catalog()
    count = sum(
        catalog.is_gpu(device) and wanted[0] in ("", device.id) and wanted[1] in (None, device.hardware_label)
        for device in host.devices
    )
    return {**gpu, "count": str(count)} if count else None


def differences(item: Item, vm: VmFacts, rules: Rules, *, gpus: bool = True) -> list[str]:
    """How a machine is to differ from what it is now, as vm_gpu would change it."""
    found = []
    demands, _problems = demands_from_option([item], rules)
    if gpus and demands and not _has(vm, demands[0].needs):
        now = demand_of(vm, SiteFacts({}, {}, {}, {}), rules).needs
        found.append(f"{_text(demands[0].needs)}, now {_text(now)}")
    if item.get("memory_mb") and item["memory_mb"] != vm.memory_mb:
        found.append(f"memory {item['memory_mb']} MB, now {vm.memory_mb} MB")
    return found


def _text(needs: t.Sequence[Need]) -> str:
    return " and ".join(str(need) for need in needs) or "no GPU"


def _has(vm: VmFacts, needs: t.Sequence[Need]) -> bool:
    """Whether a machine has these GPUs and no others."""
    left = list(vm.gpus)
    for need in sorted(needs, key=lambda need: (need.address is None, need.id is None)):
        for _number in range(need.count):
            gpu = next((gpu for gpu in left if _meets(gpu, need)), None)
            if gpu is None:
                return False
            left.remove(gpu)
    return not left


def _large_enough(gpu: GpuAttachment, wanted: Needs) -> bool:
    """Whether a vGPU is of the series and size that is asked for; what else it must have its host tells vm_gpu."""
    has = parse_profile(gpu.profile or "")
    return has is not None and has.series == SERIES[wanted.profile_class] and has.size_gb >= (wanted.at_least_gb or 0)


def _meets(gpu: GpuAttachment, need: Need) -> bool:
    if gpu.mode != need.mode:
        return False
    if need.mode == "vgpu":
        return gpu.profile == need.profile if need.wanted is None else _large_enough(gpu, need.wanted)
    if need.mode == "dynamic":
        return gpu.is_dynamic(need.id, need.label)
    return need.address in (None, gpu.address) and (need.id is None or need.id in gpu.ids)
