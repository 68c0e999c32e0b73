# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""How much memory-mapped I/O space the GPUs of a virtual machine need, and which settings say so.

The rule is VMware's: add up all BARs of all GPUs of the virtual machine and round up to the next power of two;
64-bit MMIO (and with it EFI) is needed as soon as one BAR is above 256 MB, or when all BARs together
no longer fit below 4 GB beside what the virtual hardware takes there. For a virtual machine with vGPUs NVIDIA asks for
at least 64 GB, and for what the whole boards would need once it has 32 GB of memory or more.
"""

from __future__ import annotations

import collections.abc
import typing as t

from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.catalog import GpuModel

USE_64BIT = "pciPassthru.use64bitMMIO"
SIZE_GB = "pciPassthru.64bitMMIOSizeGB"
LOW_MMIO_GB = 3.75
"""What a virtual machine can map below 4 GB."""
VGPU_LEAST_GB = 64
VGPU_BOARD_MEMORY_MB = 32 * 1024
"""From this much memory on, a vGPU needs the MMIO size of its whole board."""


def vgpu_size_gb(boards: collections.abc.Sequence[GpuModel | None], memory_mb: int) -> int:
    """What the vGPUs of a virtual machine add, in GB: one entry of `boards` a vGPU, None for an unknown board."""
    if not boards:
        return 0
    if memory_mb < VGPU_BOARD_MEMORY_MB:
        return VGPU_LEAST_GB
    return max(VGPU_LEAST_GB, sum(_power_of_two(board.bars_gb) for board in boards if board is not None))


def _power_of_two(total: float) -> int:
    size = 1
    while size < total:
        size *= 2
    return size


def needs_64bit(models: collections.abc.Iterable[GpuModel]) -> bool:
    """Whether a virtual machine with these GPUs needs 64-bit MMIO and EFI."""
    boards = list(models)
    return any(board.large_bar for board in boards) or sum(board.bars_gb for board in boards) > LOW_MMIO_GB


def mmio_size_gb(models: collections.abc.Iterable[GpuModel], vgpu_gb: int = 0) -> int:
    """The MMIO size in GB: the sum of all BARs and of what vGPUs add (`vgpu_size_gb`), rounded up to a power of two.

    0 where no 64-bit MMIO is needed.
    """
    boards = list(models)
    if not vgpu_gb and not needs_64bit(boards):
        return 0
    return _power_of_two(vgpu_gb + sum(board.bars_gb for board in boards))


def wanted_settings(
    models: collections.abc.Iterable[GpuModel], extra_config: t.Mapping[str, str], vgpu_gb: int = 0
) -> dict[str, str]:
    """The MMIO keys that must be written to the virtual machine's extraConfig; empty when those there already fit.

    A larger power of two is left as it is. Keys and values compare without regard to case, as ESXi reads them, and
    a key that is there keeps its spelling.
    """
    size = mmio_size_gb(models, vgpu_gb)
    if not size:
        return {}
    spelling = {key.lower(): key for key in extra_config}
    use_key = spelling.get(USE_64BIT.lower(), USE_64BIT)
    size_key = spelling.get(SIZE_GB.lower(), SIZE_GB)
    settings = {}
    if extra_config.get(use_key, "").strip().lower() != "true":
        settings[use_key] = "TRUE"
    if not _large_enough(extra_config.get(size_key, ""), size):
        settings[size_key] = str(size)
    return settings


def _large_enough(value: str, size: int) -> bool:
    text = value.strip()
    if not (text.isascii() and text.isdigit()):
        return False
    there = int(text)
    return there >= size and there & (there - 1) == 0
