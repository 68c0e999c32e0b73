# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""GPU boards: PCI identity, framebuffer and BAR sizes.

The vSphere API shows no BAR sizes, so they are kept here. Sources: PCI ids from the pci.ids database and
NVIDIA's own device list; framebuffer and board names from the NVIDIA AI Enterprise user guide; BAR 1 from NVIDIA's
table of MMIO sizes for vSphere (the table gives the size for one GPU, which is the power of two above its BARs) and
from `lspci` of the boards. Sites correct or extend the table with the option `bar_overrides`.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import re
import typing as t

from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.facts import PciFunction

NVIDIA = 0x10DE
LARGE_BAR_GB = 0.25
"""A BAR above 256 MiB needs 64-bit MMIO, and that needs EFI."""
_DISPLAY_CLASS = 0x03
_ID = re.compile(r"[0-9a-f]{4}:[0-9a-f]{4}")


@dataclasses.dataclass(frozen=True, slots=True)
class Division:
    """How vGPU divides a board: framebuffer in GB of a profile, and how many of them one GPU takes.

    Source: the profile tables of the NVIDIA AI Enterprise user guide; P100, P40 and RTX6000 are size arithmetic.
    """

    equal: tuple[tuple[int, int], ...]
    """In same-size mode."""
    mixed: tuple[tuple[int, int], ...] = ()
    """In mixed-size mode; empty: the board has none."""
    placements: tuple[tuple[int, tuple[int, ...]], ...] = ()
    """In mixed-size mode: the slots where a profile may begin, in GB; sizes not listed take equal steps."""

    def most(self, size_gb: int) -> int:
        """How many vGPUs of a size a GPU takes in same-size mode."""
        return dict(self.equal).get(size_gb, 0)

    def starts(self, size_gb: int, framebuffer_gb: int) -> tuple[int, ...]:
        """The slots (in GB) at which a vGPU of this size may begin in mixed-size mode."""
        listed = dict(self.placements).get(size_gb)
        if listed is not None:
            return listed
        count = dict(self.mixed).get(size_gb, 0)
        return tuple(index * (framebuffer_gb // count) for index in range(count)) if count else ()


@dataclasses.dataclass(frozen=True, slots=True)
class GpuModel:
    """One GPU board. Sizes are binary: 1 GB = 1024 MB = 2**30 bytes."""

    key: str
    """Catalogue key, for example `V100-32`; for a device known only from an override, its id."""
    board: str | None
    """Board in vGPU profile names, for example `v100d`."""
    id: str
    """`vendor:device` in lower-case hex."""
    framebuffer_gb: int | None
    bar1_gb: float
    bar0_mb: float = 16
    bar3_mb: float = 32
    vgpu: Division | None = None
    """How vGPU divides it; None where that is not known."""

    @property
    def bars_mb(self) -> tuple[float, float, float]:
        """Sizes of BAR 0, BAR 1 and BAR 3 in MB."""
        return (self.bar0_mb, self.bar1_gb * 1024, self.bar3_mb)

    @property
    def bars_gb(self) -> float:
        """The sum of all BARs in GB."""
        return sum(self.bars_mb) / 1024

    @property
    def large_bar(self) -> bool:
        """Whether any BAR is above 256 MB."""
        return max(self.bars_mb) > LARGE_BAR_GB * 1024


_16 = Division(((4, 4), (8, 2), (16, 1)))
_24 = Division(((4, 6), (6, 4), (8, 3), (12, 2), (24, 1)))
_24_MIXED = Division(_24.equal, ((4, 4), (6, 4), (8, 2), (12, 2), (24, 1)), ((8, (0, 16)), (4, (0, 8, 12, 20))))
_32 = Division(((4, 8), (8, 4), (16, 2), (32, 1)))
_40 = Division(
    ((4, 10), (5, 8), (8, 5), (10, 4), (20, 2), (40, 1)),
    ((4, 8), (5, 8), (8, 4), (10, 4), (20, 2), (40, 1)),
    (
        (20, (0, 20)),
        (10, (0, 10, 20, 30)),
        (8, (0, 12, 20, 32)),
        (5, (0, 5, 10, 15, 20, 25, 30, 35)),
        (4, (0, 6, 10, 16, 20, 26, 30, 36)),
    ),
)
_48 = Division(
    ((4, 12), (6, 8), (8, 6), (12, 4), (16, 3), (24, 2), (48, 1)),
    ((4, 8), (6, 8), (8, 4), (12, 4), (16, 2), (24, 2), (48, 1)),
)
_80_PLACEMENTS = ((16, (0, 24, 40, 64)), (8, (0, 12, 20, 32, 40, 52, 60, 72)))
_80_AMPERE = Division(
    ((4, 20), (8, 10), (10, 8), (16, 5), (20, 4), (40, 2), (80, 1)),
    ((4, 16), (8, 8), (10, 8), (16, 4), (20, 4), (40, 2), (80, 1)),
    _80_PLACEMENTS,
)
_80_HOPPER = Division(
    ((4, 20), (5, 16), (8, 10), (10, 8), (16, 5), (20, 4), (40, 2), (80, 1)),
    ((4, 16), (5, 16), (8, 8), (10, 8), (16, 4), (20, 4), (40, 2), (80, 1)),
    _80_PLACEMENTS,
)
_141 = Division(((4, 32), (7, 20), (8, 16), (14, 10), (17, 8), (28, 5), (35, 4), (70, 2), (141, 1)))

KNOWN: tuple[GpuModel, ...] = (
    GpuModel("P100-16", "p100", "10de:15f8", 16, 16, vgpu=_16),
    GpuModel("P40", "p40", "10de:1b38", 24, 32, vgpu=_24),
    GpuModel("V100-16", "v100", "10de:1db4", 16, 16, vgpu=_16),
    GpuModel("V100-32", "v100d", "10de:1db6", 32, 32, vgpu=_32),
    GpuModel("V100-SXM2-16", "v100x", "10de:1db1", 16, 16, vgpu=_16),
    GpuModel("V100-SXM2-32", "v100dx", "10de:1db5", 32, 32, vgpu=_32),
    GpuModel("RTX6000", "rtx6000", "10de:1e30", 24, 0.25, vgpu=_24),
    GpuModel("T4", "t4", "10de:1eb8", 16, 0.25, vgpu=_16),
    GpuModel("A10", "a10", "10de:2236", 24, 32, vgpu=_24),
    GpuModel("A30", "a30", "10de:20b7", 24, 32, vgpu=_24_MIXED),
    GpuModel("A40", "a40", "10de:2235", 48, 64, vgpu=_48),
    GpuModel("A100-40", "a100", "10de:20f1", 40, 64, vgpu=_40),
    GpuModel("A100-80", "a100d", "10de:20b5", 80, 128, vgpu=_80_AMPERE),
    GpuModel("A100-SXM4-40", "a100x", "10de:20b0", 40, 64, vgpu=_40),
    GpuModel("A100-SXM4-80", "a100dx", "10de:20b2", 80, 128, vgpu=_80_AMPERE),
    GpuModel("L4", "l4", "10de:27b8", 24, 32, vgpu=_24_MIXED),
    GpuModel("L40", "l40", "10de:26b5", 48, 64, vgpu=_48),
    GpuModel("L40S", "l40s", "10de:26b9", 48, 64, vgpu=_48),
    GpuModel("H100-80", "h100", "10de:2331", 80, 128, vgpu=_80_HOPPER),
    GpuModel("H100-SXM5-80", "h100xm", "10de:2330", 80, 128, vgpu=_80_HOPPER),
    GpuModel("H200-141", "h200", "10de:233b", 141, 256, vgpu=_141),
    GpuModel("H200-SXM-141", "h200x", "10de:2335", 141, 256, vgpu=_141),
)
"""The boards without a site's overrides; the only table of boards and their profiles in the collection."""

_BAR_KEYS = ("bar0_mb", "bar1_gb", "bar3_mb")


class UnknownGpuError(LookupError):
    """A device whose BAR sizes nobody has told; the message says what to set."""


class OverrideError(ValueError):
    """`bar_overrides` is not what it must be; the message names every mistake."""


class Catalog:
    """The boards by `vendor:device`, with a site's overrides applied."""

    def __init__(self, overrides: t.Mapping[str, t.Any] | None = None) -> None:
        """Apply `overrides`: `{"10de:1db6": {"bar1_gb": 32}}`, with `bar0_mb` and `bar3_mb` optional.

        Raises `OverrideError` for an id or a size that cannot be.
        """
        self._models = {model.id: model for model in KNOWN}
        self._boards = {model.board: model for model in KNOWN if model.board}
        mistakes: list[str] = []
        for raw_id, sizes in (overrides or {}).items():
            device_id = str(raw_id).lower()
            found = _override_mistakes(str(raw_id), device_id, sizes, known=device_id in self._models)
            mistakes.extend(found)
            if not found:
                base = self._models.get(device_id) or GpuModel(device_id, None, device_id, None, 0)
                self._models[device_id] = dataclasses.replace(
                    base,
                    bar0_mb=float(sizes.get("bar0_mb", base.bar0_mb)),
                    bar1_gb=float(sizes.get("bar1_gb", base.bar1_gb)),
                    bar3_mb=float(sizes.get("bar3_mb", base.bar3_mb)),
                )
        if mistakes:
            raise OverrideError("bar_overrides: " + "; ".join(mistakes))

    def get(self, device_id: str) -> GpuModel | None:
        """The board of a `vendor:device` id, or None."""
        return self._models.get(device_id.lower())

    def of_board(self, board: str) -> GpuModel | None:
        """The board of a vGPU profile's name, with a site's overrides, or None."""
        model = self._boards.get(board.lower())
        return self._models[model.id] if model is not None else None

    def require(self, device_id: str) -> GpuModel:
        """The board of a `vendor:device` id; raises `UnknownGpuError`."""
        model = self.get(device_id)
        if model is None:
            raise UnknownGpuError(
                f"The BAR sizes of device {device_id} are not known. Tell the size of its large memory region, as"
                f' `lspci -v` shows it, for example bar_overrides: {{"{device_id}": {{bar1_gb: 32}}}}.'
            )
        return model

    @property
    def vendors(self) -> frozenset[int]:
        """Vendor ids of all that may be a GPU."""
        return frozenset({NVIDIA, *(int(device_id[:4], 16) for device_id in self._models)})

    def is_gpu(self, function: PciFunction) -> bool:
        """Whether a PCI function is a GPU: a display controller of NVIDIA's, or a device the catalogue knows."""
        nvidia_display = function.vendor_id == NVIDIA and function.class_id >> 8 == _DISPLAY_CLASS
        return nvidia_display or function.id in self._models


def valid_id(text: str) -> bool:
    """Whether `text` is a `vendor:device` id: two times four hex digits."""
    return _ID.fullmatch(text.lower()) is not None


def _override_mistakes(raw_id: str, device_id: str, sizes: t.Any, *, known: bool) -> list[str]:
    if not valid_id(device_id):
        return [f"{raw_id!r} is not a vendor:device id such as 10de:1db6"]
    if not isinstance(sizes, t.Mapping) or not sizes:
        return [f"{raw_id} must be a mapping such as {{bar1_gb: 32}}"]
    mistakes = []
    for key, value in sizes.items():
        if key not in _BAR_KEYS:
            near = difflib.get_close_matches(str(key), _BAR_KEYS, n=1, cutoff=0.5)
            mistakes.append(f"{raw_id}: unknown key {key!r}, use {near[0] if near else ', '.join(_BAR_KEYS)}")
        elif not _is_size(value):
            mistakes.append(f"{raw_id}: {key} must be a positive number, not {value!r}")
    if not known and "bar1_gb" not in sizes:
        mistakes.append(f"{raw_id} is not in the catalogue, so it needs bar1_gb")
    return mistakes


def _is_size(value: t.Any) -> bool:
    if isinstance(value, bool):
        return False
    try:
        size = float(value)
    except (TypeError, ValueError):
        return False
    return math.isfinite(size) and size > 0
