# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What there is to say about the GPUs of a host: identity, sizes, passthrough, users, what is free."""

from __future__ import annotations

import typing as t

from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.catalog import Catalog, UnknownGpuError
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.facts import HostFacts, PciFunction, VmFacts, to_dict
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.plan import ObjectPlan, Problem


def describe_host(host: HostFacts, vms: t.Collection[VmFacts], catalog: Catalog) -> tuple[dict[str, t.Any], ObjectPlan]:
    """The host's facts with `gpus` and `vgpus` added, and a problem for every GPU that the catalogue does not know.

    `vms` are (at least) the virtual machines on the host. An unknown GPU is listed with its sizes unset.
    """
    problems: list[Problem] = []
    for function in host.devices:
        if catalog.is_gpu(function):
            try:
                catalog.require(function.id)
            except UnknownGpuError as error:
                problems.append(
                    Problem(
                        code="unknown_gpu",
                        object=host.name,
                        msg=f"{function.name} at {function.address}: {error}",
                        option="bar_overrides",
                    )
                )
    gpus = describe_gpus(host, vms, catalog)
    described = {**to_dict(host), "gpus": gpus, "vgpus": _vgpus(host, vms)}
    return described, ObjectPlan(host.name, problems=tuple(problems))


def describe_gpus(host: HostFacts, vms: t.Collection[VmFacts], catalog: Catalog) -> list[dict[str, t.Any]]:
    """The host's GPUs by address; `vms` are (at least) the virtual machines on it."""
    here = [vm for vm in vms if vm.host == host.name]
    return [_describe(host, function, here, catalog) for function in host.devices if catalog.is_gpu(function)]


def _describe(host: HostFacts, function: PciFunction, vms: t.Collection[VmFacts], catalog: Catalog) -> dict[str, t.Any]:
    model = catalog.get(function.id)
    graphics = next((item for item in host.graphics if item.address == function.address), None)
    configured = sorted(vm.name for vm in vms if _has(vm, function, fixed_only=True))
    users = sorted(
        vm.name
        for vm in vms
        if vm.power == "poweredOn"
        and (_has(vm, function, fixed_only=False) or (graphics is not None and vm.moid in graphics.vm_moids))
    )
    return {
        "address": function.address,
        "id": function.id,
        "name": function.name,
        "model": model.key if model else None,
        "board": model.board if model else None,
        "framebuffer_gb": model.framebuffer_gb if model else None,
        "bars_mb": list(model.bars_mb) if model else None,
        "passthrough_capable": function.passthrough_capable,
        "passthrough_enabled": function.passthrough_enabled,
        "passthrough_active": function.passthrough_active,
        "hardware_label": function.hardware_label,
        "graphics_type": graphics.graphics_type if graphics else None,
        "vgpu_mode": graphics.vgpu_mode if graphics else None,
        "used_by": users,
        "configured_in": configured,
        "free": not users and not configured,
    }


def _vgpus(host: HostFacts, vms: t.Collection[VmFacts]) -> dict[str, list[str]]:
    """The profiles of each virtual machine on the host that has vGPUs, running or not."""
    profiles = {
        vm.name: [gpu.profile for gpu in vm.gpus if gpu.mode == "vgpu" and gpu.profile]
        for vm in sorted(vms, key=lambda vm: vm.name)
        if vm.host == host.name
    }
    return {name: found for name, found in profiles.items() if found}


def _has(vm: VmFacts, function: PciFunction, *, fixed_only: bool) -> bool:
    return any(
        gpu.address == function.address and (gpu.mode == "fixed" or (gpu.mode == "dynamic" and not fixed_only))
        for gpu in vm.gpus
    )
