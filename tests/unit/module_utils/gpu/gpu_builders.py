# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Facts for planners' tests, with defaults for what a test does not care about."""

from __future__ import annotations

import typing as t

from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.facts import (
    GpuAttachment,
    HostFacts,
    PciFunction,
    VmFacts,
)

V100, P100, T4, A100 = "10de:1db6", "10de:15f8", "10de:1eb8", "10de:20f1"
SLOTS = [f"0000:{bus:02x}:00.0" for bus in (0x3B, 0x5E, 0x86, 0xAF, 0xD8, 0xE1, 0xF1, 0xF8)]


def gpu(address: str, device_id: str = V100, *, active: bool = True, **more: t.Any) -> PciFunction:
    vendor, device = (int(part, 16) for part in device_id.split(":"))
    return PciFunction(
        **{
            "address": address,
            "vendor_id": vendor,
            "device_id": device,
            "class_id": 0x0302,
            "name": "NVIDIA GPU",
            "passthrough_capable": True,
            "passthrough_enabled": active,
            "passthrough_active": active,
            **more,
        }
    )


def host(name: str, *devices: PciFunction, **more: t.Any) -> HostFacts:
    return HostFacts(
        **{
            "name": name,
            "moid": f"host-{name}",
            "cluster": "gpu",
            "connection": "connected",
            "in_maintenance": False,
            "boot_time": "2026-01-01T00:00:00.000000Z",
            "devices": devices,
            **more,
        }
    )


def vm(name: str, *gpus: GpuAttachment, **more: t.Any) -> VmFacts:
    return VmFacts(
        **{
            "name": name,
            "moid": f"vm-{name}",
            "host": "esx",
            "power": "poweredOff",
            "template": False,
            "change_version": "1",
            "firmware": "efi",
            "hardware_version": 21,
            "memory_mb": 32768,
            "memory_reservation_mb": 32768,
            "memory_reservation_locked": True,
            "cpu_hot_add": False,
            "memory_hot_add": False,
            "extra_config": {"pciPassthru.use64bitMMIO": "TRUE", "pciPassthru.64bitMMIOSizeGB": "1024"},
            "gpus": gpus,
            **more,
        }
    )


def fixed(address: str, device_id: str = V100, key: int = 13000) -> GpuAttachment:
    return GpuAttachment("fixed", key, address=address, ids=(device_id,))


def dynamic(
    device_id: str | None = V100, key: int = 13000, *, label: str | None = None, assigned: str | None = None
) -> GpuAttachment:
    return GpuAttachment("dynamic", key, address=assigned, ids=(device_id,) if device_id else (), label=label)


def vgpu(profile: str, key: int = 13000) -> GpuAttachment:
    return GpuAttachment("vgpu", key, profile=profile)
