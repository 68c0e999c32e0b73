"""The PCI functions of a host: what is in its slots, as vSphere shows it. Hosts of one make share one object."""

from __future__ import annotations

import dataclasses
import functools
import typing as t

from vsphere_simulator.vmomi import make, vim
from vsphere_simulator.world.catalog import CATALOG, GpuType

_CLASS_NAMES = {
    0x0104: "RAID bus controller",
    0x0106: "SATA controller",
    0x0108: "Non-Volatile memory controller",
    0x0200: "Ethernet controller",
    0x0300: "VGA compatible controller",
    0x0302: "3D controller",
    0x0403: "Audio device",
    0x0600: "Host bridge",
    0x0601: "ISA bridge",
    0x0604: "PCI bridge",
    0x0880: "System peripheral",
    0x0C03: "USB controller",
    0x0C05: "SMBus",
    0x0C80: "Serial bus controller",
}
_VENDORS = {0x10DE: "NVIDIA Corporation", 0x8086: "Intel Corporation", 0x1000: "Broadcom / LSI",
            0x102B: "Matrox Electronics Systems Ltd.", 0x144D: "Samsung Electronics Co Ltd"}  # fmt: skip

# vendor, device, class, passthrough capable, name: one of each, then bridges and system peripherals fill up.
_ORDINARY: tuple[tuple[int, int, int, bool, str], ...] = (
    (0x8086, 0x09A2, 0x0880, False, "Ice Lake Memory Map/VT-d"),
    (0x8086, 0xA1C1, 0x0601, False, "C620 Series Chipset LPC/eSPI Controller"),
    (0x8086, 0xA1A3, 0x0C05, False, "C620 Series Chipset Family SMBus"),
    (0x8086, 0xA1AF, 0x0C03, True, "C620 Series Chipset Family USB 3.0 xHCI Controller"),
    (0x102B, 0x0536, 0x0300, False, "Integrated Matrox G200eW3 Graphics Controller"),
    (0x8086, 0x1572, 0x0200, True, "Ethernet Controller X710 for 10GbE SFP+"),
    (0x8086, 0x1572, 0x0200, True, "Ethernet Controller X710 for 10GbE SFP+"),
    (0x1000, 0x10E2, 0x0104, True, "MegaRAID 12GSAS/PCIe Secure SAS39xx"),
    (0x144D, 0xA80A, 0x0108, True, "NVMe SSD Controller PM9A1/PM9A3/980PRO"),
)
_FILL = ((0x8086, 0x347A, 0x0604, False, "Ice Lake PCIe Root Port"),
         (0x8086, 0x09A4, 0x0880, False, "Ice Lake Mesh 2 PCIe"))  # fmt: skip
_GPU_BUSES = (0x3B, 0x5E, 0x86, 0xAF)
ROOT_PORT = "0000:3a:00.0"


@dataclasses.dataclass(frozen=True, slots=True)
class PciFunction:
    """One PCI function of a host, before anything is configured."""

    address: str
    vendor_id: int
    device_id: int
    subsystem: tuple[int, int]
    class_id: int
    name: str
    capable: bool
    """Whether the hypervisor can pass it through."""
    depends_on: str
    """The function that must be passed through with it; its own address when there is none."""
    gpu: GpuType | None = None
    slot: int | None = None
    """Index of the GPU in the host, 0 first; None for what is no GPU."""

    @property
    def id(self) -> str:
        """`vendor:device` in lower-case hex."""
        return f"{self.vendor_id:04x}:{self.device_id:04x}"

    @property
    def vendor_name(self) -> str:
        """The vendor's name in pci.ids."""
        return _VENDORS[self.vendor_id]


def signed(value: int) -> int:
    """An unsigned 16-bit id as the API's signed short (ids of 0x8000 and more are negative)."""
    return value - 0x10000 if value >= 0x8000 else value


class PciLayout:
    """The functions of a host, by address, and what the API shows of them."""

    def __init__(self, functions: t.Iterable[PciFunction]) -> None:
        self.functions = {function.address: function for function in functions}
        self.gpus = sorted((f for f in self.functions.values() if f.slot is not None), key=lambda f: f.slot or 0)

    @functools.cached_property
    def devices(self) -> list[t.Any]:
        """HostPciDevice of each function. The objects are shared: nobody may change them."""
        return [_device(function) for function in self.functions.values()]

    @functools.cached_property
    def idle_passthrough(self) -> dict[str, t.Any]:
        """HostPciPassthruInfo of each function while nothing is configured; shared as well."""
        return {
            address: passthrough_info(f, enabled=False, active=False, label=None)
            for address, f in self.functions.items()
        }

    def group(self, function: PciFunction) -> list[PciFunction]:
        """The functions that are passed through together: the one all depend on, first."""
        return [f for f in self.functions.values() if f.depends_on == function.depends_on]


@functools.cache
def pci_layout(gpu_keys: tuple[str, ...], ordinary: int) -> PciLayout:
    """The layout of a host with these GPUs (catalogue keys, in slot order) and so many other functions."""
    found = list(_ordinary_functions(ordinary))
    for slot, key in enumerate(gpu_keys):
        gpu = CATALOG.gpu(key)
        bus = _GPU_BUSES[slot] if len(gpu_keys) <= len(_GPU_BUSES) else 0x18 + slot * max(1, 0xD8 // len(gpu_keys))
        first = f"0000:{bus:02x}:00.0"
        subsystem = (int(gpu.subsystem[:4], 16), int(gpu.subsystem[5:], 16))
        found.append(
            PciFunction(
                first,
                gpu.vendor_id,
                gpu.device_id,
                subsystem,
                int(gpu.class_code, 16),
                gpu.name,
                True,
                first,
                gpu,
                slot,
            )
        )
        for number, other in enumerate(gpu.companions, start=1):
            vendor, device = int(other.pci[:4], 16), int(other.pci[5:], 16)
            address = f"0000:{bus:02x}:00.{number}"
            found.append(
                PciFunction(address, vendor, device, subsystem, int(other.class_code, 16), other.name, True, first)
            )
    return PciLayout(sorted(found, key=lambda function: function.address))


def _ordinary_functions(count: int) -> t.Iterator[PciFunction]:
    for number in range(count):
        kind = _ORDINARY[number] if number < len(_ORDINARY) else _FILL[number % len(_FILL)]
        vendor, device, class_id, capable, name = kind
        if number < len(_ORDINARY):
            address = f"0000:{number:02x}:00.0"
        else:
            address = f"0000:00:{1 + (number - len(_ORDINARY)) // 8:02x}.{(number - len(_ORDINARY)) % 8}"
        yield PciFunction(address, vendor, device, (vendor, 0x1028), class_id, name, capable, address)


def passthrough_info(function: PciFunction, *, enabled: bool, active: bool, label: str | None) -> t.Any:
    """HostPciPassthruInfo of a function in this state."""
    return make(
        vim.host.PciPassthruInfo,
        id=function.address,
        dependentDevice=function.depends_on,
        passthruCapable=function.capable,
        passthruEnabled=enabled,
        passthruActive=active,
        hardwareLabel=label,
    )


def _device(function: PciFunction) -> t.Any:
    bus, slot, number = function.address[5:7], function.address[8:10], function.address[11:]
    return make(
        vim.host.PciDevice,
        id=function.address,
        classId=signed(function.class_id),
        bus=_signed_byte(int(bus, 16)),
        slot=_signed_byte(int(slot, 16)),
        function=int(number),
        physicalSlot=None if function.slot is None else function.slot + 1,
        vendorId=signed(function.vendor_id),
        subVendorId=signed(function.subsystem[0]),
        vendorName=function.vendor_name,
        deviceId=signed(function.device_id),
        subDeviceId=signed(function.subsystem[1]),
        parentBridge=ROOT_PORT if function.slot is not None else None,
        deviceName=function.name,
        deviceClassName=_CLASS_NAMES[function.class_id],
    )


def _signed_byte(value: int) -> int:
    return value - 0x100 if value >= 0x80 else value
