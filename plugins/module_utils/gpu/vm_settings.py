# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The settings a virtual machine needs beside its GPUs: memory, hot-add, firmware, MMIO, hardware version.

Rules from VMware's documentation of DirectPath I/O and NVIDIA's vGPU and AI Enterprise guides: all guest
memory reserved, CPU and memory hot-add off, EFI and 64-bit MMIO for large BARs, dynamic DirectPath from
hardware version 17, and VMware's configuration maximums for the number of devices.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import typing as t

from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu import mmio
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.catalog import GpuModel
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.facts import VmFacts
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.plan import Change, Problem

FirmwarePolicy = t.Literal["check", "efi"]

DYNAMIC_HARDWARE_VERSION = 17


def most_devices(api_version: tuple[int, ...], hardware_version: int) -> int:
    """How many passthrough devices a virtual machine may have: 16 before vSphere 8, 32 in 8.0, 64 in 8.0 U1, and 128
    from 8.0 U2 on with hardware version 21.
    """
    if api_version < (8,) or hardware_version < 20:
        return 16
    if api_version >= (8, 0, 2):
        return 128 if hardware_version >= 21 else 64
    return 64 if api_version >= (8, 0, 1) else 32


@dataclasses.dataclass(frozen=True, slots=True)
class Settings:
    """What a reconfigure sets beside the devices; None and empty leave things as they are."""

    memory_mb: int | None = None
    lock_memory: bool = False
    cpu_hot_add_off: bool = False
    memory_hot_add_off: bool = False
    firmware_efi: bool = False
    extra_config: t.Mapping[str, str] = dataclasses.field(default_factory=dict)

    def applied_to(self, vm: VmFacts) -> VmFacts:
        """The virtual machine with these settings."""
        memory_mb = self.memory_mb or vm.memory_mb
        locked = vm.memory_reservation_locked or self.lock_memory
        return dataclasses.replace(
            vm,
            memory_mb=memory_mb,
            memory_reservation_locked=locked,
            memory_reservation_mb=memory_mb if locked else vm.memory_reservation_mb,
            cpu_hot_add=vm.cpu_hot_add and not self.cpu_hot_add_off,
            memory_hot_add=vm.memory_hot_add and not self.memory_hot_add_off,
            firmware="efi" if self.firmware_efi else vm.firmware,
            extra_config={**vm.extra_config, **self.extra_config},
        )


def needed(
    vm: VmFacts,
    models: collections.abc.Sequence[GpuModel],
    *,
    gpus: int,
    memory_mb: int | None,
    firmware: FirmwarePolicy,
    vgpus: collections.abc.Sequence[GpuModel | None] = (),
) -> tuple[Settings, list[Change], list[Problem]]:
    """What must be set for a virtual machine that is to have `gpus` GPUs, of these models as far as known.

    `models` are those passed through, `vgpus` the boards of its vGPUs.
    Without any GPU only `memory_mb` counts: settings that GPUs needed once do no harm and stay.
    """
    changes: list[Change] = []
    problems: list[Problem] = []
    new_memory = memory_mb if memory_mb is not None and memory_mb != vm.memory_mb else None
    if new_memory is not None:
        changes.append(Change("set", "memory_mb", vm.memory_mb, new_memory))
    if not gpus:
        return Settings(memory_mb=new_memory), changes, problems

    lock = not vm.memory_reservation_locked
    if lock:
        changes.append(Change("set", "memory_reservation_locked", False, True, "GPUs need all memory reserved"))
    if vm.cpu_hot_add:
        changes.append(Change("set", "cpu_hot_add", True, False, "not with GPUs"))
    if vm.memory_hot_add:
        changes.append(Change("set", "memory_hot_add", True, False, "not with GPUs"))
    to_efi = False
    vgpu_gb = mmio.vgpu_size_gb(vgpus, memory_mb or vm.memory_mb)
    if (vgpus or mmio.needs_64bit(models)) and vm.firmware != "efi":
        if firmware == "efi":
            to_efi = True
            changes.append(Change("set", "firmware", vm.firmware, "efi", "64-bit MMIO needs EFI"))
        else:
            needy = "vGPUs" if vgpus else "its GPUs have BARs that"
            problems.append(
                Problem(
                    "firmware_bios",
                    vm.name,
                    f"has BIOS firmware, and {needy} need EFI. A guest that is installed cannot be changed over: make"
                    " its template with EFI. If no guest is installed yet, set firmware: efi.",
                    option="firmware",
                )
            )
    extra_config = mmio.wanted_settings(models, vm.extra_config, vgpu_gb)
    total = sum(model.bars_gb for model in models)
    causes = [f"BARs of {total:.4g} GB"] if models else []
    causes += [f"{vgpu_gb} GB for vGPUs"] if vgpus else []
    changes.extend(
        Change("set", key, vm.extra_config.get(key), value, " and ".join(causes)) for key, value in extra_config.items()
    )
    return (
        Settings(new_memory, lock, vm.cpu_hot_add, vm.memory_hot_add, to_efi, extra_config),
        changes,
        problems,
    )


def hardware_problems(
    vm: VmFacts, *, dynamic: bool, passthrough_devices: int, api_version: tuple[int, ...] = (8, 0, 2)
) -> list[Problem]:
    """Whether the virtual hardware is too old for what is asked of it."""
    problems = []
    if dynamic and vm.hardware_version < DYNAMIC_HARDWARE_VERSION:
        problems.append(
            Problem(
                "hardware_version",
                vm.name,
                f"has virtual hardware version {vm.hardware_version}; dynamic GPUs need {DYNAMIC_HARDWARE_VERSION} or"
                " newer. Upgrade the compatibility of the virtual machine (or of its template), or use mode fixed.",
                option="gpus",
            )
        )
    most = most_devices(api_version, vm.hardware_version)
    if passthrough_devices > most:
        problems.append(
            Problem(
                "too_many_devices",
                vm.name,
                f"would have {passthrough_devices} passthrough devices; virtual hardware version"
                f" {vm.hardware_version} on vSphere {'.'.join(map(str, api_version[:3]))} allows {most}. Ask for fewer,"
                " or upgrade the virtual hardware (and vSphere).",
                option="gpus",
            )
        )
    return problems
