"""Power-on admission: whether a host has what a machine needs, and which GPUs it gets."""

from __future__ import annotations

import dataclasses
import typing as t

from vsphere_simulator.vmomi import make, vim, vmodl
from vsphere_simulator.world import device_groups, vgpu
from vsphere_simulator.world.devices import is_dynamic, is_fixed, is_gpu, is_vgpu

if t.TYPE_CHECKING:
    from vsphere_simulator.world.catalog import GpuType
    from vsphere_simulator.world.hardware import PciFunction
    from vsphere_simulator.world.host import HostSystem
    from vsphere_simulator.world.virtual_machine import VirtualMachine

MIB = 1024 * 1024
DEFAULT_MMIO_BYTES = 917504 * 4096
"""MMIO space of a machine without `pciPassthru.use64bitMMIO`: what ESXi logs as its limit in pages."""
DYNAMIC_HARDWARE_VERSION = 17
HOST_OVERHEAD_MB = 8192
"""Memory that the hypervisor keeps for itself."""


@dataclasses.dataclass(slots=True)
class Grant:
    """The GPUs a machine gets at power-on, by device key."""

    assigned: dict[int, str] = dataclasses.field(default_factory=dict)
    vgpus: dict[int, tuple[str, vgpu.Slot]] = dataclasses.field(default_factory=dict)


def power_on_failed(reason: str, key: str = "msg.moduletable.powerOnFailed") -> Exception:
    """GenericVmConfigFault as a failed `DevicePowerOn` gives it: the reason first, then what it stopped."""

    def line(message_key: str, text: str) -> t.Any:
        return make(vmodl.LocalizableMessage, key=message_key, message=text)

    return t.cast(
        "Exception",
        vim.fault.GenericVmConfigFault(
            reason=reason,
            msg=f"{reason} Module 'DevicePowerOn' power on failed.",
            faultMessage=[
                line(key, reason),
                line("msg.moduletable.powerOnFailed", "Module 'DevicePowerOn' power on failed."),
                line("msg.vmx.poweron.failed", "Failed to start the virtual machine."),
            ],
        ),
    )


def admit(vm: VirtualMachine, host: HostSystem) -> Grant:
    """What the machine gets on this host. Raises the fault that ESXi or vCenter gives when it cannot run here."""
    host.cluster.rules.check(vm, host)
    _check_memory(vm, host)
    gpus = [device for device in vm.devices if is_gpu(device)]
    grant = Grant()
    if not gpus:
        return grant
    if vm.reserved_memory_mb < vm.memory_mb:
        raise power_on_failed(
            f"Invalid memory setting: memory reservation (sched.mem.min) should be equal to memsize({vm.memory_mb}).",
            "msg.sched.mem.min",
        )
    held = _held(host, vm)
    for device in gpus:
        if is_fixed(device):
            grant.assigned[device.key] = _fixed(host, device, held)
            held.add(grant.assigned[device.key])
    for device in gpus:
        if is_dynamic(device):
            grant.assigned[device.key] = _dynamic(vm, host, device, held)
            held.add(grant.assigned[device.key])
    _check_mmio(vm, host, grant)
    _place_vgpus(vm, host, [device for device in gpus if is_vgpu(device)], grant)
    return grant


def _check_memory(vm: VirtualMachine, host: HostSystem) -> None:
    capacity = host.memory_bytes // MIB - HOST_OVERHEAD_MB
    coming = [other for other, _ in host.arriving.values()]
    reserved = sum(other.reserved_memory_mb for other in (*host.running, *coming) if other is not vm)
    if reserved + vm.reserved_memory_mb > capacity or vm.memory_mb > host.memory_bytes // MIB:
        raise vim.fault.InsufficientMemoryResourcesFault(
            unreserved=(capacity - reserved) * MIB,
            requested=vm.reserved_memory_mb * MIB,
            msg="The host does not have sufficient memory resources to satisfy the reservation.",
        )


def _held(host: HostSystem, vm: VirtualMachine) -> set[str]:
    """Addresses that other machines hold by passthrough, with the functions that go with them."""
    held: set[str] = set()
    for other in host.machines.values():
        if other is not vm:
            for address in other.assigned.values():
                held |= {function.address for function in host.layout.group(host.layout.functions[address])}
    return held


def _fixed(host: HostSystem, device: t.Any, held: set[str]) -> str:
    address = str(device.backing.id)
    function = host.layout.functions.get(address)
    index = device.key - 13000
    if function is None or device.backing.systemId != host.system_id:
        raise power_on_failed(
            f"PCI passthrough device {address} of virtual device pciPassthru{index} is not on host {host.name}.",
            "msg.pciPassthru.notFound",
        )
    if not host.passthrough_of(address).active:
        raise power_on_failed(
            f"Failed to register the device pciPassthru{index} for {address} due to unavailable hardware or "
            "software support.",
            "msg.pciPassthru.registerFailed",
        )
    if address in held:
        holder = host.holder_of(function)
        used = f" by virtual machine {holder.name}" if holder is not None else ""
        raise power_on_failed(f"Device {address} is already in use{used}.", "msg.pciPassthru.inUse")
    return address


def allows(backing: t.Any, function: PciFunction, label: str | None) -> bool:
    """Whether a dynamic device may be given this function: one of its ids, and its label if it asks for one."""
    if backing.customLabel and backing.customLabel != label:
        return False
    for allowed in backing.allowedDevice or ():
        if (allowed.vendorId & 0xFFFF, allowed.deviceId & 0xFFFF) != (function.vendor_id, function.device_id):
            continue
        wanted = (allowed.subVendorId, allowed.subDeviceId)
        if all(want is None or want & 0xFFFF == have for want, have in zip(wanted, function.subsystem, strict=True)):
            return True
    return False


def _dynamic(vm: VirtualMachine, host: HostSystem, device: t.Any, held: set[str]) -> str:
    if vm.config.hardware_version < DYNAMIC_HARDWARE_VERSION:
        raise vim.fault.DeviceUnsupportedForVmVersion(
            deviceIndex=0,
            currentVersion=f"vmx-{vm.config.hardware_version:02d}",
            expectedVersion=f"vmx-{DYNAMIC_HARDWARE_VERSION}",
            msg=f"Dynamic DirectPath I/O needs virtual hardware version {DYNAMIC_HARDWARE_VERSION} or later.",
        )
    for address, state in sorted(host.passthrough.items()):
        if state.active and address not in held and allows(device.backing, host.layout.functions[address], state.label):
            return address
    raise vim.fault.NoCompatibleHostWithAccessToDevice(
        host=[host.ref],
        error=[
            vim.fault.DeviceNotSupported(
                device=f"pciPassthru{device.key - 13000}",
                reason="noFreeDevice",
                msg=f"Host {host.name} has no free PCI device for {device.deviceInfo.label}.",
            )
        ],
        msg="No host is compatible with the virtual machine: no free PCI device matches what "
        f"{device.deviceInfo.label} allows.",
    )


def _check_mmio(vm: VirtualMachine, host: HostSystem, grant: Grant) -> None:
    """The BARs of all passthrough GPUs must fit the MMIO space; large ones need EFI."""
    found = [host.layout.functions[address].gpu for address in grant.assigned.values()]
    gpus: list[GpuType] = [gpu for gpu in found if gpu is not None]
    if any(gpu.large_bar for gpu in gpus) and vm.config.firmware != "efi":
        raise power_on_failed(
            "A PCI passthrough device has a memory region that only the EFI firmware can map; the firmware is BIOS.",
            "msg.pciPassthru.firmware",
        )
    needed, limit = sum(gpu.bar_bytes for gpu in gpus), mmio_bytes(vm)
    if needed > limit:
        raise power_on_failed(
            f"PCIPassthru: total number of pages needed ({needed // 4096}) exceeds limit ({limit // 4096}), failing.",
            "msg.pciPassthru.mmio",
        )


def mmio_bytes(vm: VirtualMachine) -> int:
    """MMIO space that the machine offers its passthrough devices."""
    size = vm.config.extra_config.get("pciPassthru.64bitMMIOSizeGB", "").strip()
    if not vm.config.flag("pciPassthru.use64bitMMIO") or not size.isdigit():
        return DEFAULT_MMIO_BYTES
    return max(DEFAULT_MMIO_BYTES, int(size) * 1024**3)


def _place_vgpus(vm: VirtualMachine, host: HostSystem, devices: list[t.Any], grant: Grant) -> None:
    gpus = {gpu.address: gpu for gpu in host.graphics.occupancies()}
    for address in grant.assigned.values():
        gpus.pop(address, None)
    if devices and vm.config.firmware != "efi":
        raise power_on_failed("A virtual GPU needs the EFI firmware; the firmware is BIOS.", "msg.vgpu.firmware")
    linked = {function.address for function in device_groups.joined(host)}
    for device in devices:
        profile = vgpu.all_profiles().get(device.backing.vgpu)
        fitting = [gpu for gpu in gpus.values() if device.deviceGroupInfo is None or gpu.address in linked]
        placed = vgpu.place(fitting, profile, host.graphics.policy) if profile is not None else None
        if placed is None:
            raise vim.fault.InsufficientGraphicsResourcesFault(
                msg="The amount of graphics resource available in the parent resource pool is insufficient for "
                "the operation."
            )
        address, slot = placed
        gpus[address] = dataclasses.replace(gpus[address], slots=(*gpus[address].slots, slot))
        grant.vgpus[device.key] = placed
