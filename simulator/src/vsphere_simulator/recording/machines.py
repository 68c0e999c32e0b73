"""A virtual machine or template as a model's entry."""

from __future__ import annotations

import typing as t

from vsphere_simulator.recording import policies
from vsphere_simulator.vmomi import vim

if t.TYPE_CHECKING:
    from vsphere_simulator.recording.record import Notes

PATHS: t.Final = [
    "name",
    "parent",
    "customValue",
    "resourcePool",
    "config.template",
    "config.hardware.numCPU",
    "config.hardware.memoryMB",
    "config.hardware.device",
    "config.memoryReservationLockedToMax",
    "config.firmware",
    "config.version",
    "config.guestId",
    "config.extraConfig",
    "config.files.vmPathName",
    "config.managedBy",
    "runtime.powerState",
    "runtime.host",
    "snapshot",
]
AGENT: t.Final = "com.vmware.vim.eam"
_PCI = vim.vm.device.VirtualPCIPassthrough
_VERSIONS: t.Final = range(7, 23)


def entry(values: dict[str, t.Any], addresses: dict[str, str], notes: Notes) -> dict[str, t.Any]:
    """The entry of a machine; `addresses` maps its host's recorded GPU addresses to the simulator's."""
    devices = values.get("config.hardware.device", ())
    version = str(values.get("config.version", "")).removeprefix("vmx-")
    found: dict[str, t.Any] = {
        "name": values["name"],
        "cpus": values.get("config.hardware.numCPU", 1),
        "memory_mb": values.get("config.hardware.memoryMB", 1024),
        "firmware": str(values.get("config.firmware") or "bios"),
        "hardware_version": int(version) if version.isdigit() and int(version) in _VERSIONS else 20,
        "guest_id": str(values.get("config.guestId") or "otherGuest64"),
        "disks_gb": [
            max(1, -(-device.capacityInKB // 1024**2))
            for device in devices
            if isinstance(device, vim.vm.device.VirtualDisk)
        ],
    }
    if values.get("config.memoryReservationLockedToMax"):
        found["memory_locked"] = True
    if values.get("runtime.powerState") == "poweredOn":
        found["power"] = "on"
    elif values.get("runtime.powerState") == "suspended":
        notes.add("suspended machines (recorded as powered off)")
    extra = {one.key: str(one.value) for one in values.get("config.extraConfig", ()) if one.value is not None}
    kept = {key: value for key, value in sorted(extra.items()) if not key.startswith("guestinfo.")}
    if len(kept) < len(extra):
        notes.add("guestinfo.* settings of machines, which may hold secrets")
    if kept:
        found["extra_config"] = kept
    gpus = [gpu for device in devices if isinstance(device, _PCI) and (gpu := _gpu(device, addresses, notes))]
    if gpus:
        found["gpus"] = gpus
    if taken := policies.snapshots(values.get("snapshot")):
        found["snapshots"] = taken
        notes.add("the hardware that machines had at their snapshots")
    if sum(isinstance(device, vim.vm.device.VirtualEthernetCard) for device in devices) != 1:
        notes.add("network adapters of machines that do not have exactly one")
    return found


def _gpu(device: t.Any, addresses: dict[str, str], notes: Notes) -> dict[str, t.Any] | None:
    backing = device.backing
    if isinstance(backing, _PCI.VmiopBackingInfo):
        return {"mode": "vgpu", "profile": backing.vgpu}
    if isinstance(backing, _PCI.DynamicBackingInfo):
        ids = [f"{one.vendorId & 0xFFFF:04x}:{one.deviceId & 0xFFFF:04x}" for one in backing.allowedDevice]
        return {"mode": "dynamic", "ids": ids} | ({"label": backing.customLabel} if backing.customLabel else {})
    if isinstance(backing, _PCI.DeviceBackingInfo) and backing.id in addresses:
        return {"mode": "fixed", "address": addresses[backing.id]}
    notes.add("passthrough devices of machines that are no GPUs of their host")
    return None
