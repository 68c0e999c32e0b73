"""What a virtual hardware version offers (QueryConfigOption)."""

from __future__ import annotations

import functools
import typing as t

from vsphere_simulator.vmomi import DataObject, Enum, Reference, make, vim
from vsphere_simulator.world import vm_facts
from vsphere_simulator.world.entity import invalid_argument

HARDWARE_VERSIONS: t.Final = (13, 14, 15, 17, 18, 19, 20, 21)
DEFAULT_HARDWARE_VERSION: t.Final = 20
_OPTIONAL = 4
"""Flag of a field that may be unset, in pyVmomi's registry."""


def filled(kind: t.Any, **fields: t.Any) -> t.Any:
    """A data object whose required fields are all set: those not given are false, zero, empty, or filled likewise."""
    built = make(kind, **fields)
    for info in kind._GetPropertyList():
        if getattr(built, info.name) is None and not info.flags & _OPTIONAL:
            built.__dict__[info.name] = _empty(info.type)
    return built


def _empty(kind: t.Any) -> t.Any:
    if issubclass(kind, Enum):
        return kind(kind.values[0])
    if issubclass(kind, Reference):
        raise TypeError(f"a reference to {kind.__name__} cannot be made up")
    return filled(kind) if issubclass(kind, DataObject) else kind()


@functools.lru_cache(maxsize=64)
def config_option(key: str | None, guests: tuple[str, ...] = ()) -> t.Any:
    """VirtualMachineConfigOption of a version such as `vmx-20` (the default one if None), for all guests or some.

    Shared: nobody may change it. InvalidArgument for a version that hosts cannot run.
    """
    names = {f"vmx-{version:02d}": version for version in HARDWARE_VERSIONS}
    wanted = key or f"vmx-{DEFAULT_HARDWARE_VERSION}"
    if wanted not in names:
        raise invalid_argument("key")
    device = vim.vm.device
    amount = vim.option.IntOption
    return filled(
        vim.vm.ConfigOption,
        version=wanted,
        description=f"Virtual hardware version {names[wanted]}",
        guestOSDescriptor=[
            _guest(guest, full_name)
            for guest, full_name in vm_facts.GUEST_NAMES.items()
            if not guests or guest in guests
        ],
        hardwareOptions=filled(
            vim.vm.VirtualHardwareOption,
            hwVersion=names[wanted],
            numCPU=[1, 2, 4, 8, 16, 32, 64, 128, 256],
            numCoresPerSocket=make(amount, min=1, max=256, defaultValue=1),
            memoryMB=make(vim.option.LongOption, min=4, max=24 * 1024 * 1024, defaultValue=1024),
            numPCIControllers=make(amount, min=1, max=1, defaultValue=1),
            virtualDeviceOption=[_device_option(kind) for kind in (device.VirtualPCIPassthrough,)],
        ),
        capabilities=vm_facts.capability(),
        datastore=make(vim.vm.DatastoreOption),
        supportedMonitorType=["release"],
    )


def _device_option(kind: t.Any) -> t.Any:
    return filled(vim.vm.device.VirtualPCIPassthroughOption, type=kind)


def _guest(guest: str, full_name: str) -> t.Any:
    device = vim.vm.device
    return filled(
        vim.vm.GuestOsDescriptor,
        id=guest,
        fullName=full_name,
        family="windowsGuest" if guest.startswith("windows") else "linuxGuest",
        supportedMaxCPUs=768,
        numSupportedPhysicalSockets=128,
        numSupportedCoresPerSocket=64,
        supportedMinMemMB=512,
        supportedMaxMemMB=24 * 1024 * 1024,
        recommendedMemMB=4096,
        supportedDiskControllerList=[device.ParaVirtualSCSIController, device.VirtualAHCIController],
        recommendedDiskController=device.ParaVirtualSCSIController,
        recommendedSCSIController=device.ParaVirtualSCSIController,
        supportedNumDisks=64,
        recommendedDiskSizeMB=40 * 1024,
        recommendedCdromController=device.VirtualAHCIController,
        supportedEthernetCard=[device.VirtualVmxnet3, device.VirtualE1000e],
        recommendedEthernetCard=device.VirtualVmxnet3,
        supportsMemoryHotAdd=True,
        supportsCpuHotAdd=True,
        supportedFirmware=["bios", "efi"],
        recommendedFirmware="efi",
        supportLevel="supported",
        supportedForCreate=True,
        supportsPvscsiControllerForBoot=True,
        supportsHotPlugPCI=True,
        supportsSecureBoot=True,
    )
