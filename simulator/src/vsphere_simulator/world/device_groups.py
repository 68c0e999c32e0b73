"""Vendor device groups: GPUs joined by NVLink that a machine gets together or not at all."""

from __future__ import annotations

import collections
import typing as t

from vsphere_simulator.vmomi import make, vim, vmodl
from vsphere_simulator.world import devices as dev
from vsphere_simulator.world.catalog import CATALOG
from vsphere_simulator.world.entity import invalid_argument

if t.TYPE_CHECKING:
    from vsphere_simulator.world.hardware import PciFunction
    from vsphere_simulator.world.host import HostSystem
    from vsphere_simulator.world.virtual_machine import VirtualMachine
    from vsphere_simulator.world.vm_config import VmConfig


def joined(host: HostSystem) -> list[PciFunction]:
    """The GPUs that are joined and can run vGPUs now."""
    return [function for function in host.graphics.divisible() if function.slot in host.make.nvlink]


def offers(host: HostSystem) -> list[t.Any]:
    """VirtualMachineVendorDeviceGroupInfo of each number of joined GPUs of a type; none before vSphere 8."""
    if host.site.api_version < (8,):
        return []
    gpus = [function.gpu for function in joined(host) if function.gpu is not None]
    boards = collections.Counter(gpu.board for gpu in gpus)
    found = []
    for board, most in boards.items():
        gpu = CATALOG.by_board[board]
        profile = f"{'nvidia' if gpu.sriov else 'grid'}_{gpu.board}-{gpu.framebuffer_gb}c"
        for count in range(2, most + 1):
            name = f"Nvidia:{count}@{profile}%NVLink"
            found.append(
                make(
                    vim.vm.VendorDeviceGroupInfo,
                    name=name,
                    deviceGroupName=name,
                    deviceGroupDescription=f"{count} GPUs joined by NVLink",
                    componentDeviceInfo=[_component(profile, number) for number in range(1, count + 1)],
                )
            )
    return found


def _component(profile: str, number: int) -> t.Any:
    template = make(
        dev.PciPassthrough,
        key=-number,
        backing=make(dev.VgpuBacking, vgpu=profile),
        deviceGroupInfo=make(vim.vm.device.VirtualDevice.DeviceGroupInfo, groupInstanceKey=-1, sequenceId=number),
    )
    return make(
        vim.vm.VendorDeviceGroupInfo.ComponentDeviceInfo,
        type="vgpu",
        vendorName="NVIDIA Corporation",
        deviceName=profile,
        isConfigurable=False,
        device=template,
    )


def settle(vm: VirtualMachine, config: VmConfig, wanted: t.Any) -> None:
    """Give new groups of a ConfigSpec their keys, and check that each group is whole.

    `wanted` is the specification's `deviceGroups`, None where it has none. Raises NotSupported before vSphere 8,
    and InvalidArgument for a group that the host does not offer or that is not whole.
    """
    before = _groups(config.settings.get("deviceGroups"))
    groups = before if wanted is None else _groups(wanted)
    if wanted is not None and vm.site.api_version < (8,):
        raise vmodl.fault.NotSupported(msg="The operation is not supported: configSpec.deviceGroups")
    keys = _fresh_keys(groups, before)
    config.devices = tuple(_renumbered(device, keys) for device in config.devices or ())
    known = {info.deviceGroupName: info for info in offers(vm.host)}
    final = []
    for key, name in groups.items():
        if key not in before and name not in known:
            raise invalid_argument("configSpec.deviceGroups", f"Host {vm.host.name} has no device group {name}.")
        final.append(
            make(
                vim.vm.VirtualDeviceGroups.VendorDeviceGroup, groupInstanceKey=keys.get(key, key), deviceGroupName=name
            )
        )
    _check_whole(config, {keys.get(key, key): name for key, name in groups.items()}, known)
    if wanted is not None:
        config.settings["deviceGroups"] = make(vim.vm.VirtualDeviceGroups, deviceGroup=final)


def _groups(value: t.Any) -> dict[int, str]:
    return {group.groupInstanceKey: group.deviceGroupName for group in getattr(value, "deviceGroup", None) or ()}


def _fresh_keys(groups: dict[int, str], before: dict[int, str]) -> dict[int, int]:
    first = max((*before, *groups, 0)) + 1
    new = [key for key in groups if key not in before]
    return {key: first + number for number, key in enumerate(new)}


def _renumbered(device: t.Any, keys: dict[int, int]) -> t.Any:
    info = device.deviceGroupInfo
    if info is None or info.groupInstanceKey not in keys:
        return device
    return dev.copy_of(device, deviceGroupInfo=dev.copy_of(info, groupInstanceKey=keys[info.groupInstanceKey]))


def _check_whole(config: VmConfig, groups: dict[int, str], known: dict[str, t.Any]) -> None:
    members: dict[int, list[int]] = collections.defaultdict(list)
    for device in config.devices or ():
        if device.deviceGroupInfo is not None:
            members[device.deviceGroupInfo.groupInstanceKey].append(device.deviceGroupInfo.sequenceId)
    if members.keys() != groups.keys():
        raise invalid_argument(
            "configSpec.deviceGroups", "A device group and its devices must be added and removed together."
        )
    for key, name in groups.items():
        size = len(known[name].componentDeviceInfo) if name in known else len(members[key])
        if sorted(members[key]) != list(range(1, size + 1)):
            raise invalid_argument("configSpec.deviceGroups", f"The device group {name} is not whole.")
