"""A host as a model's entry."""

from __future__ import annotations

import itertools
import typing as t

from vsphere_simulator.vmomi import vmodl
from vsphere_simulator.world.catalog import CATALOG
from vsphere_simulator.world.hardware import pci_layout

if t.TYPE_CHECKING:
    from vsphere_simulator.recording.record import Notes

PATHS: t.Final = [
    "name",
    "parent",
    "customValue",
    "summary.hardware",
    "config.product",
    "hardware.pciDevice",
    "config.pciPassthruInfo",
    "config.graphicsConfig",
    "capability.deviceRebindWithoutRebootSupported",
    "configManager.imageConfigManager",
    "runtime.connectionState",
    "runtime.inMaintenanceMode",
]
_MAX_FUNCTIONS: t.Final = 200
_MIN_FUNCTIONS: t.Final = 8


def entry(values: dict[str, t.Any], notes: Notes) -> tuple[dict[str, t.Any], dict[str, str]]:
    """The entry of a host, and for each recorded GPU address the one that it has in the simulator."""
    name = values["name"]
    found: dict[str, t.Any] = {"name": name}
    hardware = values.get("summary.hardware")
    if hardware is not None:
        packages = max(1, hardware.numCpuPkgs)
        found |= {
            "vendor": hardware.vendor,
            "model": hardware.model,
            "cpu_model": hardware.cpuModel,
            "cpu_sockets": packages,
            "cpu_cores": max(1, hardware.numCpuCores // packages),
            "cpu_mhz": hardware.cpuMhz,
            "memory_gb": max(1, round(hardware.memorySize / 1024**3)),
        }
    product = values.get("config.product")
    if product is not None:
        found |= {"esxi_version": product.version, "esxi_build": product.build}
    if values.get("capability.deviceRebindWithoutRebootSupported"):
        found["rebind_without_reboot"] = True
    graphics = values.get("config.graphicsConfig")
    if graphics is not None:
        found["graphics_type"] = "sharedDirect" if graphics.hostDefaultGraphicsType == "sharedDirect" else "shared"
        found["assignment_policy"] = str(graphics.sharedPassthruAssignmentPolicy)
    addresses = _gpus(found, values, graphics, notes)
    if addresses and (release := _manager(name, values, notes)):
        found["vgpu_manager"] = release
    if values.get("runtime.connectionState", "connected") != "connected":
        found["connection_state"] = str(values["runtime.connectionState"])
    if values.get("runtime.inMaintenanceMode"):
        found["in_maintenance"] = True
    return found, addresses


def _gpus(found: dict[str, t.Any], values: dict[str, t.Any], graphics: t.Any, notes: Notes) -> dict[str, str]:
    """Add the GPUs, in the order of their addresses, and the number of other functions."""
    passthrough = {one.id: one for one in values.get("config.pciPassthruInfo", ())}
    types = {one.deviceId: one for one in (graphics.deviceType if graphics is not None else ())}
    functions = sorted(values.get("hardware.pciDevice", ()), key=lambda one: str(one.id))
    keys, addresses, rows, companions = [], [], [], 0
    for function in functions:
        gpu = CATALOG.by_pci.get(f"{function.vendorId & 0xFFFF:04x}:{function.deviceId & 0xFFFF:04x}")
        if gpu is None:
            if function.vendorId & 0xFFFF == 0x10DE and function.classId & 0xFF00 == 0x0300:
                notes.add(f"GPUs that the catalogue does not know: {function.deviceName}")
            continue
        state, setting = passthrough.get(function.id), types.get(function.id)
        row: dict[str, t.Any] = {"gpu": gpu.key}
        if state is not None and getattr(state, "passthruEnabled", False):
            row["passthrough"] = True
            if not state.passthruActive:
                notes.add("passthrough that waits for a reboot (recorded as active)")
        if state is not None and state.hardwareLabel:
            row["label"] = state.hardwareLabel
        if setting is not None and setting.graphicsType in ("shared", "sharedDirect"):
            if setting.graphicsType != found.get("graphics_type"):
                row["graphics_type"] = str(setting.graphicsType)
            if setting.vgpuMode == "mixedSize":
                row["vgpu_mode"] = "mixedSize"
        keys.append(gpu.key)
        addresses.append(str(function.id))
        rows.append(row)
        companions += len(gpu.companions)
    if functions:
        others = len(functions) - len(keys) - companions
        found["pci_functions"] = min(_MAX_FUNCTIONS, max(_MIN_FUNCTIONS, others))
    if not keys:
        return {}
    found["gpus"] = [
        row | ({"count": count} if count > 1 else {})
        for row, group in itertools.groupby(rows)
        if (count := len(list(group)))
    ]
    own = [gpu.address for gpu in pci_layout(tuple(keys), found["pci_functions"]).gpus]
    if own != addresses:
        notes.add("PCI addresses of GPUs (the simulator has its own)")
    return dict(zip(addresses, own, strict=True))


def _manager(name: str, values: dict[str, t.Any], notes: Notes) -> str | None:
    """Release of the installed vGPU manager."""
    reader = values.get("configManager.imageConfigManager")
    if reader is None:
        return None
    try:
        packages = reader.FetchSoftwarePackages()
    except vmodl.MethodFault:
        notes.add("installed software of hosts that did not tell", name)
        return None
    for package in packages:
        if package.vendor.upper().startswith(("NVIDIA", "NVD")) and "driver" in package.name.lower():
            return str(package.version).partition("-")[0]
    return None
