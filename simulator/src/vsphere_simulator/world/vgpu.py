"""vGPU profiles and where they fit: plain rules over plain data."""

from __future__ import annotations

import dataclasses
import functools
import typing as t

from vsphere_simulator.world.catalog import CATALOG, GpuType

SERIES: t.Final = ("c", "q")
"""Compute and workstation profiles; both come in the same sizes."""


@dataclasses.dataclass(frozen=True, slots=True)
class Profile:
    """A vGPU type."""

    name: str
    board: str
    size_gb: int
    series: str

    @property
    def gpu(self) -> GpuType:
        """The board it divides."""
        return CATALOG.by_board[self.board]


@dataclasses.dataclass(frozen=True, slots=True)
class Slot:
    """One vGPU that runs on a GPU."""

    profile: Profile
    start_gb: int
    """Where in the framebuffer it begins."""


@dataclasses.dataclass(frozen=True, slots=True)
class Occupancy:
    """A GPU that vGPUs can run on, and those that do."""

    address: str
    gpu: GpuType
    mixed_size: bool
    slots: tuple[Slot, ...] = ()

    @property
    def used_gb(self) -> int:
        """Framebuffer that vGPUs hold."""
        return sum(slot.profile.size_gb for slot in self.slots)


@functools.cache
def profiles_of(board: str) -> tuple[Profile, ...]:
    """The profiles of a board: smallest first, compute before workstation.

    Boards that divide by SR-IOV (Ampere and later) are called `nvidia_…` by vCenter, older ones `grid_…`.
    """
    gpu = CATALOG.by_board[board]
    prefix = "nvidia" if gpu.sriov else "grid"
    return tuple(
        Profile(f"{prefix}_{board}-{size}{series}", board, size, series)
        for series in SERIES
        for size in sorted(gpu.equal)
    )


@functools.cache
def all_profiles() -> dict[str, Profile]:
    """Every profile by its name."""
    return {profile.name: profile for board in CATALOG.by_board for profile in profiles_of(board)}


def start_for(gpu: Occupancy, profile: Profile) -> int | None:
    """Where a new vGPU of this profile would begin on a GPU; None when the GPU cannot take it.

    Same-size mode holds one size; mixed-size mode holds different sizes at their placement ids. Series do not mix.
    """
    if gpu.gpu.board != profile.board or any(slot.profile.series != profile.series for slot in gpu.slots):
        return None
    size = profile.size_gb
    if not gpu.mixed_size:
        if any(slot.profile.size_gb != size for slot in gpu.slots) or len(gpu.slots) >= gpu.gpu.equal.get(size, 0):
            return None
        taken = {slot.start_gb for slot in gpu.slots}
        return next(start for index in range(len(taken) + 1) if (start := index * size) not in taken)
    for start in gpu.gpu.starts(size):
        if all(start + size <= slot.start_gb or slot.start_gb + slot.profile.size_gb <= start for slot in gpu.slots):
            return start
    return None


def place(gpus: t.Iterable[Occupancy], profile: Profile, policy: str) -> tuple[str, Slot] | None:
    """The GPU (address) and slot that a host gives a new vGPU; None when none fits.

    `performance` takes the GPU with the fewest vGPUs, `consolidation` the fullest one; the lower address on a tie.
    """
    fitting = [(gpu, start) for gpu in gpus if (start := start_for(gpu, profile)) is not None]
    if not fitting:
        return None
    if policy == "consolidation":
        gpu, start = min(fitting, key=lambda item: (-item[0].used_gb, item[0].address))
    else:
        gpu, start = min(fitting, key=lambda item: (len(item[0].slots), item[0].address))
    return gpu.address, Slot(profile, start)
