"""Virtual devices: what a new machine has, their keys and labels, and which of them are GPUs.

Devices are pyVmomi data objects that nobody changes once they are in a machine's list: machines of one origin
share them, and an edit puts a copy in their place.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import typing as t

from vsphere_simulator.vmomi import make, vim, wsdl_name

if t.TYPE_CHECKING:
    from vsphere_simulator.world.storage import Datastore, Network

_device: t.Any = vim.vm.device
PciPassthrough: t.Any = _device.VirtualPCIPassthrough
FixedBacking: t.Any = PciPassthrough.DeviceBackingInfo
DynamicBacking: t.Any = PciPassthrough.DynamicBackingInfo
VgpuBacking: t.Any = PciPassthrough.VmiopBackingInfo

PCI_CONTROLLER = 100
KIB_PER_GB = 1024 * 1024
CARD_SHARES: t.Final = {"low": 25, "normal": 50, "high": 100}
"""Bandwidth shares of a network adapter at each level."""

_LABELS = {
    "VirtualDisk": "Hard disk",
    "VirtualPCIPassthrough": "PCI device",
    "VirtualCdrom": "CD/DVD drive",
    "VirtualFloppy": "Floppy drive",
    "VirtualSerialPort": "Serial port",
    "VirtualTPM": "Virtual TPM",
    "VirtualUSBXHCIController": "USB xHCI controller",
    "VirtualUSBController": "USB controller",
    "VirtualAHCIController": "SATA controller",
    "VirtualNVMEController": "NVME controller",
}


def copy_of(data: t.Any, **changes: t.Any) -> t.Any:
    """A data object with some fields replaced; the others are shared with the original."""
    kind: t.Any = type(data)
    built = kind.__new__(kind)
    built.__dict__.update(data.__dict__)
    built.__dict__.update(changes)
    return built


def given(spec: t.Any) -> dict[str, t.Any]:
    """The fields of a specification that its sender has set."""
    return {
        key: value
        for key, value in vars(spec).items()
        if value is not None and not (isinstance(value, list) and not value) and not key.startswith("dynamic")
    }


def is_gpu(device: t.Any) -> bool:
    """Whether a device is a passthrough device or a vGPU."""
    return isinstance(device, PciPassthrough)


def is_fixed(device: t.Any) -> bool:
    """Whether a device is fixed DirectPath: one PCI address of one host."""
    return is_gpu(device) and isinstance(device.backing, FixedBacking)


def is_dynamic(device: t.Any) -> bool:
    """Whether a device is dynamic DirectPath: any free device of a kind."""
    return is_gpu(device) and isinstance(device.backing, DynamicBacking)


def is_vgpu(device: t.Any) -> bool:
    """Whether a device is a vGPU."""
    return is_gpu(device) and isinstance(device.backing, VgpuBacking)


def mac_address(owner: str, key: int) -> str:
    """The MAC address a vCenter generates for a network adapter: the same for the same owner and key."""
    digest = hashlib.sha256(f"{owner}/{key}".encode()).digest()
    return f"00:50:56:{0x80 | digest[0] & 0x3F:02x}:{digest[1]:02x}:{digest[2]:02x}"


def first_key(device: t.Any, controller_key: int | None, unit: int | None) -> int:
    """The lowest key for a device of its kind, as ESXi numbers them."""
    if isinstance(device, _device.VirtualDisk | _device.VirtualCdrom):
        controller = controller_key or 0
        if controller >= 31000:
            return 32000 + (controller - 31000) * 64 + (unit or 0)
        if controller >= 15000:
            return 16000 + (controller - 15000) * 30 + (unit or 0)
        if controller >= 1000:
            return 2000 + (controller - 1000) * 16 + (unit or 0)
        return 3000 + max(0, controller - 200) * 2 + (unit or 0)
    for kind, key in _FIRST_KEYS:
        if isinstance(device, kind):
            return key
    return 20000


_FIRST_KEYS: tuple[tuple[t.Any, int], ...] = (
    (PciPassthrough, 13000),
    (_device.VirtualEthernetCard, 4000),
    (_device.VirtualSCSIController, 1000),
    (_device.VirtualSATAController, 15000),
    (_device.VirtualNVMEController, 31000),
    (_device.VirtualUSBXHCIController, 14000),
    (_device.VirtualUSBController, 7000),
    (_device.VirtualIDEController, 200),
    (_device.VirtualSerialPort, 9000),
    (_device.VirtualFloppy, 8000),
    (_device.VirtualTPM, 11000),
    (_device.VirtualSoundCard, 5000),
)


def described(device: t.Any, number: int) -> t.Any:
    """The label and summary that ESXi gives a device; `number` counts devices of its kind from 1."""
    if isinstance(device, _device.VirtualEthernetCard):
        return make(
            vim.Description, label=f"Network adapter {number}", summary=getattr(device.backing, "deviceName", "")
        )
    if isinstance(device, _device.VirtualSCSIController):
        return make(vim.Description, label=f"SCSI controller {number - 1}", summary="VMware paravirtual SCSI")
    kind = wsdl_name(type(device))
    base = _LABELS.get(kind, kind.removeprefix("Virtual"))
    counted_from_zero = isinstance(device, _device.VirtualController | PciPassthrough)
    label = f"{base} {number - 1 if counted_from_zero else number}"
    if isinstance(device, _device.VirtualDisk):
        return make(vim.Description, label=label, summary=f"{device.capacityInKB:,} KB")
    return make(vim.Description, label=label, summary=_gpu_summary(device) or label)


def _gpu_summary(device: t.Any) -> str:
    if is_fixed(device):
        return str(device.backing.deviceName)
    if is_vgpu(device):
        return f"NVIDIA GRID vGPU {device.backing.vgpu}"
    if is_dynamic(device):
        return str(device.backing.deviceName or "")
    return ""


def linked(devices: t.Iterable[t.Any]) -> tuple[t.Any, ...]:
    """The devices with every controller listing the keys of what is attached to it."""
    found = list(devices)
    attached: dict[int, list[int]] = {}
    for device in found:
        if device.controllerKey is not None:
            attached.setdefault(device.controllerKey, []).append(device.key)
    for index, device in enumerate(found):
        if isinstance(device, _device.VirtualController) and list(device.device) != attached.get(device.key, []):
            found[index] = copy_of(device, device=type(device.device)(attached.get(device.key, [])))
    return tuple(found)


@dataclasses.dataclass(frozen=True, slots=True)
class Blueprint:
    """The devices of a machine that nobody has changed since it was made."""

    disks_gb: tuple[int, ...]

    def devices(self, owner: str, directory: str, datastore: Datastore, network: Network | None) -> tuple[t.Any, ...]:
        """Fourteen or so devices; all but disks and network adapter are shared with every other machine."""
        shared = ordinary_devices(len(self.disks_gb), network is not None)
        disks = [make_disk(i, size * KIB_PER_GB, directory, datastore) for i, size in enumerate(self.disks_gb)]
        cards = [] if network is None else [make_card(owner, network)]
        return (*shared, *disks, *cards)


def make_disk(index: int, capacity_kb: int, directory: str, datastore: Datastore) -> t.Any:
    """A thin disk on the first SCSI controller; unit 7 is the controller's own."""
    unit = index if index < 7 else index + 1
    disk = _device.VirtualDisk
    suffix = f"_{index}" if index else ""
    return make(
        disk,
        key=2000 + unit,
        controllerKey=1000,
        unitNumber=unit,
        deviceInfo=_description(f"Hard disk {index + 1}", f"{capacity_kb:,} KB"),
        capacityInKB=capacity_kb,
        capacityInBytes=capacity_kb * 1024,
        backing=make(
            disk.FlatVer2BackingInfo,
            fileName=f"[{datastore.name}] {directory}/{directory}{suffix}.vmdk",
            datastore=datastore.ref,
            diskMode="persistent",
            thinProvisioned=True,
        ),
        shares=_shares(1000),
    )


def make_card(owner: str, network: Network) -> t.Any:
    """A vmxnet3 adapter on a network."""
    return make(
        _device.VirtualVmxnet3,
        key=4000,
        controllerKey=PCI_CONTROLLER,
        unitNumber=7,
        deviceInfo=_description("Network adapter 1", network.name),
        backing=make(
            _device.VirtualEthernetCard.NetworkBackingInfo,
            deviceName=network.name,
            network=network.ref,
            useAutoDetect=False,
        ),
        connectable=connected(),
        addressType="assigned",
        macAddress=mac_address(owner, 4000),
        wakeOnLanEnabled=True,
        resourceAllocation=bandwidth(None),
        uptCompatibilityEnabled=False,
    )


def bandwidth(given: t.Any) -> t.Any:
    """Network resource allocation (Mbit/s) of an adapter, with its share level resolved."""
    if given is None:
        return _unlimited_bandwidth()
    level = str(given.share.level) if given.share is not None else "normal"
    shares = given.share.shares if level == "custom" else CARD_SHARES[level]
    return make(
        _device.VirtualEthernetCard.ResourceAllocation,
        reservation=given.reservation or 0,
        limit=-1 if given.limit is None else given.limit,
        share=make(vim.SharesInfo, shares=shares, level=level),
    )


@functools.cache
def _unlimited_bandwidth() -> t.Any:
    return bandwidth(_device.VirtualEthernetCard.ResourceAllocation())


@functools.cache
def connected() -> t.Any:
    """ConnectInfo of a device that is connected from power-on."""
    return make(
        _device.VirtualDevice.ConnectInfo, startConnected=True, allowGuestControl=True, connected=True, status="ok"
    )


@functools.cache
def _shares(shares: int) -> t.Any:
    return make(vim.SharesInfo, shares=shares, level="normal")


@functools.lru_cache(maxsize=4096)
def _description(label: str, summary: str) -> t.Any:
    return make(vim.Description, label=label, summary=summary)


@functools.cache
def ordinary_devices(disks: int, card: bool) -> tuple[t.Any, ...]:
    """Controllers and the rest that every machine has, knowing which disks and adapter are attached."""

    def device(kind: str, key: int, label: str, **fields: t.Any) -> t.Any:
        return make(getattr(_device, kind), key=key, deviceInfo=_description(label, label), **fields)

    units = [index if index < 7 else index + 1 for index in range(disks)]
    on_pci = [500, 12000, 1000, 15000, *([4000] if card else [])]
    sharing = _device.VirtualSCSIController.Sharing("noSharing")
    return (
        device("VirtualIDEController", 200, "IDE 0", busNumber=0),
        device("VirtualIDEController", 201, "IDE 1", busNumber=1),
        device("VirtualPS2Controller", 300, "PS2 controller 0", busNumber=0, device=[600, 700]),
        device("VirtualPCIController", PCI_CONTROLLER, "PCI controller 0", busNumber=0, device=on_pci),
        device("VirtualSIOController", 400, "SIO controller 0", busNumber=0),
        device("VirtualKeyboard", 600, "Keyboard", controllerKey=300, unitNumber=0),
        device("VirtualPointingDevice", 700, "Pointing device", controllerKey=300, unitNumber=1),
        device("VirtualVideoCard", 500, "Video card", controllerKey=PCI_CONTROLLER, unitNumber=0, videoRamSizeInKB=8192,
               numDisplays=1, useAutoDetect=False, enable3DSupport=False, use3dRenderer="automatic"),
        device("VirtualVMCIDevice", 12000, "VMCI device", controllerKey=PCI_CONTROLLER, unitNumber=17, id=-1),
        device("ParaVirtualSCSIController", 1000, "SCSI controller 0", controllerKey=PCI_CONTROLLER, unitNumber=3,
               busNumber=0, device=[2000 + unit for unit in units], hotAddRemove=True, sharedBus=sharing,
               scsiCtlrUnitNumber=7),
        device("VirtualAHCIController", 15000, "SATA controller 0", controllerKey=PCI_CONTROLLER, unitNumber=24,
               busNumber=0, device=[16000]),
        device("VirtualCdrom", 16000, "CD/DVD drive 1", controllerKey=15000, unitNumber=0,
               backing=make(_device.VirtualCdrom.RemotePassthroughBackingInfo, deviceName="", exclusive=False),
               connectable=make(_device.VirtualDevice.ConnectInfo, startConnected=False, allowGuestControl=True,
                                connected=False, status="untried")),
    )  # fmt: skip
