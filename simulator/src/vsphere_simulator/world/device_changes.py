"""Changes of a machine's devices, as a ConfigSpec lists them: checked one by one, applied together."""

from __future__ import annotations

import contextlib
import dataclasses
import typing as t

from vsphere_simulator.vmomi import make, vim
from vsphere_simulator.world import devices as dev
from vsphere_simulator.world import vgpu
from vsphere_simulator.world.admission import DYNAMIC_HARDWARE_VERSION

if t.TYPE_CHECKING:
    from vsphere_simulator.world.virtual_machine import VirtualMachine
    from vsphere_simulator.world.vm_config import VmConfig

_device: t.Any = vim.vm.device


def passthrough_limit(api_version: tuple[int, ...], hardware_version: int) -> int:
    """How many passthrough devices a machine may have: 16 in 7.x, 32 in 8.0, 64 in 8.0U1, 128 in 8.0U2 and later
    for hardware version 21.
    """
    if api_version < (8,):
        return 16
    update = api_version[2] if len(api_version) > 2 else 0
    if update >= 2 or api_version >= (8, 1):
        return 128 if hardware_version >= 21 else 64
    return 64 if update == 1 else 32


def _invalid(index: int, message: str, fault: t.Any = None) -> Exception:
    kind = fault or vim.fault.InvalidDeviceSpec
    return t.cast(
        "Exception",
        kind(
            deviceIndex=index,
            property="virtualDeviceSpec.device",
            msg=f"Invalid configuration for device '{index}'. {message}",
        ),
    )


def _bad_backing(index: int, message: str) -> Exception:
    return _invalid(index, message, vim.fault.InvalidDeviceBacking)


@dataclasses.dataclass(slots=True)
class DeviceChanges:
    """The device list of a machine while a reconfiguration works on it."""

    vm: VirtualMachine
    config: VmConfig
    """The configuration as it will be, without its devices."""
    devices: list[t.Any]
    files: str
    """Directory for new disks."""
    keys: dict[int, int] = dataclasses.field(default_factory=dict)
    """Temporary (negative) key of the specification -> key given."""

    def apply(self, specs: t.Sequence[t.Any]) -> tuple[t.Any, ...]:
        """The devices after all changes. Raises the fault of the first change that is wrong."""
        for index, spec in enumerate(specs):
            match str(spec.operation):
                case "add":
                    self._add(index, spec)
                case "edit":
                    self._edit(index, spec)
                case "remove":
                    self._remove(index, spec)
                case _:
                    raise _invalid(index, "No operation is given.")
        self._check_gpus()
        return dev.linked(self.devices)

    def _find(self, index: int, key: int) -> int:
        for position, device in enumerate(self.devices):
            if device.key == key:
                return position
        raise _invalid(index, f"The machine has no device with key {key}.")

    def _require_off(self, device: t.Any) -> None:
        if dev.is_gpu(device) or isinstance(device, _device.VirtualTPM):
            self.vm.require_power("poweredOff")

    def _add(self, index: int, spec: t.Any) -> None:
        device = spec.device
        self._require_off(device)
        controller = self._controller(index, device)
        unit = self._unit(controller, device)
        fields: dict[str, t.Any] = {"controllerKey": controller, "unitNumber": unit}
        if isinstance(device, _device.VirtualController) and not isinstance(device, _device.VirtualUSBController):
            same = [d for d in self.devices if dev.first_key(d, None, None) == dev.first_key(device, None, None)]
            taken = {d.busNumber for d in same}
            bus = device.busNumber if device.busNumber not in taken else min(set(range(len(taken) + 1)) - taken)
            fields |= {"busNumber": bus, "device": type(device.device)()}
        key = self._key(device, controller, unit)
        if device.key is not None:
            self.keys[device.key] = key
        fields |= {"key": key, **self._completed(index, spec, device, key)}
        kind = type(device)
        number = 1 + sum(_same_label(d, device) for d in self.devices)
        built = dev.copy_of(device, **fields)
        if built.deviceInfo is None or not built.deviceInfo.label:
            built = dev.copy_of(built, deviceInfo=dev.described(built, number))
        self._check(index, built)
        if not isinstance(built, kind):
            raise _invalid(index, "The device's type cannot change.")
        self.devices.append(built)

    def _controller(self, index: int, device: t.Any) -> int | None:
        wanted = device.controllerKey
        if wanted is not None and wanted in self.keys:
            return self.keys[wanted]
        if wanted is not None and any(d.key == wanted for d in self.devices):
            return int(wanted)
        if isinstance(device, _device.VirtualDisk | _device.VirtualCdrom):
            raise _invalid(index, f"There is no controller with key {wanted}.")
        on_pci = dev.is_gpu(device) or isinstance(
            device, _device.VirtualEthernetCard | _device.VirtualSCSIController | _device.VirtualSATAController
            | _device.VirtualNVMEController | _device.VirtualUSBController | _device.VirtualUSBXHCIController
            | _device.VirtualTPM
        )  # fmt: skip
        return dev.PCI_CONTROLLER if on_pci else None

    def _unit(self, controller: int | None, device: t.Any) -> int | None:
        if controller is None:
            return None
        used = {d.unitNumber for d in self.devices if d.controllerKey == controller}
        if 1000 <= controller < 15000:
            used.add(7)
        wanted = device.unitNumber
        if wanted is not None and wanted >= 0 and wanted not in used:
            return int(wanted)
        first = 18 if dev.is_gpu(device) else 7 if controller == dev.PCI_CONTROLLER else 0
        return next(unit for unit in range(first, first + 1000) if unit not in used)

    def _key(self, device: t.Any, controller: int | None, unit: int | None) -> int:
        used = {d.key for d in self.devices}
        key = dev.first_key(device, controller, unit)
        while key in used:
            key += 1
        return key

    def _completed(self, index: int, spec: t.Any, device: t.Any, key: int) -> dict[str, t.Any]:
        """What ESXi fills in for a new disk or network adapter."""
        if isinstance(device, _device.VirtualDisk):
            return self._completed_disk(index, spec, device)
        if isinstance(device, _device.VirtualEthernetCard):
            fields: dict[str, t.Any] = {
                "backing": self._network_backing(index, device.backing),
                "resourceAllocation": dev.bandwidth(device.resourceAllocation),
            }
            if not device.macAddress:
                fields |= {"macAddress": dev.mac_address(self.vm.moid, key), "addressType": "assigned"}
            if device.connectable is None:
                fields["connectable"] = dev.connected()
            return fields
        return {}

    def _completed_disk(self, index: int, spec: t.Any, device: t.Any) -> dict[str, t.Any]:
        capacity = device.capacityInKB or (device.capacityInBytes or 0) // 1024
        backing = device.backing
        if backing is None:
            raise _bad_backing(index, "A disk needs a backing.")
        if spec.fileOperation is not None and capacity <= 0:
            raise _invalid(index, "A new disk needs a capacity.")
        store = self.vm.datastore if backing.datastore is None else self.vm.world.get(backing.datastore)
        changes: dict[str, t.Any] = {"datastore": store.ref}
        name = str(getattr(backing, "fileName", "") or "")
        if spec.fileOperation is not None and not name.endswith(".vmdk"):
            number = sum(isinstance(d, _device.VirtualDisk) for d in self.devices)
            changes["fileName"] = f"[{store.name}] {self.files}/{self.files}{f'_{number}' if number else ''}.vmdk"
        return {
            "capacityInKB": capacity,
            "capacityInBytes": capacity * 1024,
            "backing": dev.copy_of(backing, **changes),
            "shares": device.shares or make(vim.SharesInfo, shares=1000, level="normal"),
        }

    def _network_backing(self, index: int, backing: t.Any) -> t.Any:
        if not isinstance(backing, _device.VirtualEthernetCard.NetworkBackingInfo):
            raise _bad_backing(index, "The network of the adapter is not on the host.")
        for network in self.vm.host.networks:
            if backing.network is not None and backing.network._GetMoId() == network.moid:
                return dev.copy_of(backing, deviceName=network.name)
            if backing.network is None and backing.deviceName == network.name:
                return dev.copy_of(backing, network=network.ref)
        raise _bad_backing(index, f"The network {backing.deviceName} is not on host {self.vm.host.name}.")

    def _edit(self, index: int, spec: t.Any) -> None:
        position = self._find(index, spec.device.key)
        old = self.devices[position]
        if type(spec.device) is not type(old):
            raise _invalid(index, "The device's type cannot change.")
        self._require_off(old)
        given = dev.given(spec.device)
        if isinstance(old, _device.VirtualDisk) and spec.device.capacityInKB < old.capacityInKB:
            raise _invalid(index, "A disk cannot shrink.")
        if isinstance(old, _device.VirtualDisk):
            given["capacityInBytes"] = spec.device.capacityInKB * 1024
            given["deviceInfo"] = make(
                vim.Description, label=old.deviceInfo.label, summary=f"{spec.device.capacityInKB:,} KB"
            )
        if isinstance(old, _device.VirtualEthernetCard) and spec.device.backing is not None:
            given["backing"] = self._network_backing(index, spec.device.backing)
        built = dev.copy_of(old, **given)
        self._check(index, built)
        self.devices[position] = built

    def _remove(self, index: int, spec: t.Any) -> None:
        position = self._find(index, spec.device.key)
        device = self.devices[position]
        self._require_off(device)
        if any(other.controllerKey == device.key for other in self.devices):
            raise _invalid(index, "Devices are attached to the controller.")
        del self.devices[position]

    def _check(self, index: int, device: t.Any) -> None:
        if dev.is_fixed(device):
            self._check_fixed(index, device.backing)
        elif dev.is_dynamic(device):
            self._check_dynamic(index, device.backing)
        elif dev.is_vgpu(device):
            if device.backing.vgpu not in vgpu.all_profiles():
                raise _bad_backing(index, f"There is no vGPU type {device.backing.vgpu}.")
        elif dev.is_gpu(device):
            raise _bad_backing(index, "The backing of the PCI device is not known.")

    def _check_fixed(self, index: int, backing: t.Any) -> None:
        host = self.vm.host
        function = host.layout.functions.get(str(backing.id))
        if function is None or backing.systemId != host.system_id:
            raise _bad_backing(index, f"Host {host.name} has no PCI device {backing.id} with this system id.")
        known = function.device_id in _device_ids(str(backing.deviceId))
        if not known or backing.vendorId & 0xFFFF != function.vendor_id:
            raise _bad_backing(index, f"PCI device {backing.id} of host {host.name} is {function.id}.")

    def _check_dynamic(self, index: int, backing: t.Any) -> None:
        if self.config.hardware_version < DYNAMIC_HARDWARE_VERSION:
            raise vim.fault.DeviceUnsupportedForVmVersion(
                deviceIndex=index,
                property="virtualDeviceSpec.device.backing",
                currentVersion=f"vmx-{self.config.hardware_version:02d}",
                expectedVersion=f"vmx-{DYNAMIC_HARDWARE_VERSION}",
                msg=f"Device '{index}' needs virtual hardware version {DYNAMIC_HARDWARE_VERSION} or later.",
            )
        if not backing.allowedDevice:
            raise _bad_backing(index, "A dynamic DirectPath device must allow at least one device.")

    def _check_gpus(self) -> None:
        """Rules about all GPUs of the machine together."""
        passed = [d for d in self.devices if dev.is_fixed(d) or dev.is_dynamic(d)]
        limit = passthrough_limit(self.vm.site.api_version, self.config.hardware_version)
        if len(passed) > limit:
            raise vim.fault.TooManyDevices(
                property="virtualDeviceSpec.device",
                msg=f"The virtual machine has {len(passed)} PCI passthrough devices; the limit is {limit}.",
            )
        fixed = [d.backing.id for d in passed if dev.is_fixed(d)]
        if len(fixed) != len(set(fixed)):
            raise _bad_backing(len(fixed) - 1, "One PCI device is named twice.")
        profiles = [vgpu.all_profiles()[d.backing.vgpu] for d in self.devices if dev.is_vgpu(d)]
        if len(profiles) < 2:
            return
        if len({(profile.board, profile.series) for profile in profiles}) > 1:
            raise _invalid(0, "All vGPUs of a machine must be of one board and series.")
        whole = all(profile.size_gb == profile.gpu.framebuffer_gb for profile in profiles)
        if not whole and (self.vm.site.api_version < (8,) or profiles[0].series != "c"):
            raise _invalid(
                0, "Several vGPUs need profiles with the whole framebuffer, or compute profiles on vSphere 8."
            )


def _same_label(one: t.Any, other: t.Any) -> bool:
    """Whether labels of two devices are counted together."""
    for kind in (_device.VirtualEthernetCard, _device.VirtualSCSIController):
        if isinstance(one, kind) and isinstance(other, kind):
            return True
    return type(one) is type(other)


def _device_ids(text: str) -> set[int]:
    """The device ids that a backing's `deviceId` may mean: hexadecimal by the API, decimal as govmomi writes it."""
    found = set()
    for base in (16, 10):
        with contextlib.suppress(ValueError):
            found.add(int(text, base) & 0xFFFF)
    return found
