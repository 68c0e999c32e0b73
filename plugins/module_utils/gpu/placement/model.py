# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What placement reads and returns: plain, immutable data.

GPUs are values without an owner, so that equal hosts are equal and what is worked out for one holds for all.
"""

from __future__ import annotations

import dataclasses
import typing as t

from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.placement.profiles import BOARDS, profile
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.profiles import Needs

Use = t.Literal["passthrough", "same_size", "mixed_size", "none"]
Policy = t.Literal["performance", "consolidation"]
Goal = t.Literal["spread", "fill", "fewest_hosts"]
Mode = t.Literal["fixed", "dynamic", "vgpu"]

GOALS: t.Final[tuple[Goal, ...]] = ("spread", "fill", "fewest_hosts")


@dataclasses.dataclass(frozen=True, slots=True)
class Slot:
    """A vGPU on a GPU: where in the framebuffer it starts and how much it takes, in GB."""

    start: int
    size: int
    series: str


@dataclasses.dataclass(frozen=True, slots=True)
class Gpu:
    """A GPU of a host and what is taken of it."""

    address: str
    id: str
    """`vendor:device` in lower-case hex."""
    board: str | None
    """Board in profile names; None for one that cannot be divided."""
    use: Use
    """What it is set up for: passed through, vGPU in one of two modes, or (yet) nothing."""
    label: str | None = None
    held: bool = False
    """Whether a virtual machine has it by passthrough."""
    slots: tuple[Slot, ...] = ()

    @property
    def in_use(self) -> bool:
        """Whether any virtual machine has (a part of) it."""
        return self.held or bool(self.slots)


@dataclasses.dataclass(frozen=True, slots=True)
class Need:
    """GPUs of one kind for one virtual machine."""

    mode: Mode
    count: int = 1
    id: str | None = None
    label: str | None = None
    address: str | None = None
    profile: str | None = None
    wanted: Needs | None = None
    """vGPU only, instead of a profile: what it must have. Each host has its own profile for it."""
    share: float = 1.0
    """Of a GPU, where each host has its own profile: the least of them."""

    @property
    def weight(self) -> float:
        """How many GPUs' worth it is."""
        return self.count * (profile(self.profile).share if self.profile else self.share)

    def __str__(self) -> str:
        if self.wanted is not None:
            return f"{self.count} x vGPU with {self.wanted}"
        if self.mode == "vgpu":
            return f"{self.count} x {self.profile}"
        what = self.address or " ".join(
            part for part in (self.id, f"labelled {self.label}" if self.label else "") if part
        )
        return f"{self.count} x GPU {what or 'of any kind'} ({self.mode})"


@dataclasses.dataclass(frozen=True, slots=True)
class Demand:
    """A virtual machine that is to run somewhere."""

    name: str
    needs: tuple[Need, ...] = ()
    memory_mb: int = 0
    """All of it is reserved, as GPUs need it."""
    cpus: int = 0
    host: str | None = None
    """The only host it may go to."""
    cluster: str | None = None
    groups: tuple[str, ...] = ()
    """Anti-affinity: two machines of one group never share a host."""
    origin: str | None = None
    """The host it runs on now and has to leave."""

    @property
    def weight(self) -> float:
        """How many GPUs' worth it is."""
        return sum(need.weight for need in self.needs)


@dataclasses.dataclass(frozen=True, slots=True)
class Grant:
    """A GPU, or a part of one, that a virtual machine has or is predicted to get."""

    address: str
    slot: Slot | None = None
    """None: the whole GPU by passthrough."""
    profile: str | None = None
    """Of a vGPU that was placed here."""


@dataclasses.dataclass(frozen=True, slots=True)
class Resident:
    """A virtual machine that runs on a host."""

    demand: Demand
    grants: tuple[Grant, ...] = ()
    movable: bool = True
    """Whether it may be moved to make room: never one with a fixed device."""


@dataclasses.dataclass(frozen=True, slots=True)
class Host:
    """An ESXi host; `gpus` and what is free already count what its residents have."""

    name: str
    cluster: str | None = None
    gpus: tuple[Gpu, ...] = ()
    policy: Policy = "performance"
    free_memory_mb: int = 1 << 40
    free_cpus: int = 1 << 20
    residents: tuple[Resident, ...] = ()
    closed: str | None = None
    """Why no virtual machine may come: `is in maintenance mode`."""
    profiles: tuple[tuple[Needs, str], ...] = ()
    """The profile of this host for what is asked of vGPUs."""
    unmet: tuple[tuple[Needs, str], ...] = ()
    """Why it has none, in words."""

    def here(self, needs: tuple[Need, ...]) -> tuple[Need, ...] | None:
        """The needs with the profiles of this host; None when it has none for one of them."""
        if all(need.wanted is None for need in needs):
            return needs
        profiles = dict(self.profiles)
        if any(need.wanted is not None and need.wanted not in profiles for need in needs):
            return None
        return tuple(
            need if need.wanted is None else Need(need.mode, need.count, profile=profiles[need.wanted])
            for need in needs
        )


@dataclasses.dataclass(frozen=True, slots=True)
class Instance:
    """A question to placement."""

    hosts: tuple[Host, ...]
    demands: tuple[Demand, ...]
    goal: Goal = "spread"
    spare_host: bool = False
    """Whether what can restart elsewhere must still fit when any one host fails."""
    max_moves: int = 0
    """How many residents may be moved to make room."""


@dataclasses.dataclass(frozen=True, slots=True)
class Placement:
    """Where a virtual machine goes, and the GPUs it is predicted to get."""

    vm: str
    host: str
    grants: tuple[Grant, ...] = ()
    origin: str | None = None
    """The host it is moved from."""


@dataclasses.dataclass(frozen=True, slots=True)
class Refusal:
    """Why a virtual machine has no place, and what would give it one."""

    vm: str
    code: str
    reason: str
    advice: str


@dataclasses.dataclass(frozen=True, slots=True)
class Cost:
    """What is minimised, the first that differs decides."""

    refused: int = 0
    moves: int = 0
    """Residents moved to make room, beside those that have to leave their host."""
    goal: int = 0
    """spread: sum of the squares of the machines on each host; fill: GPUs in use; fewest_hosts: hosts in use."""

    @property
    def key(self) -> tuple[int, int, int]:
        """For comparison."""
        return (self.refused, self.moves, self.goal)


@dataclasses.dataclass(frozen=True, slots=True)
class Result:
    """The answer. Carried out in this order, every step finds its room."""

    moves: tuple[Placement, ...]
    """Residents to move first, in this order."""
    placements: tuple[Placement, ...]
    """In the order of powering on."""
    refused: tuple[Refusal, ...]
    cost: Cost
    bound: Cost
    """No answer can cost less."""
    engine: str
    """`heuristic`, `search` (exact) or `cp-sat`."""

    @property
    def optimal(self) -> bool:
        """Whether the cost is proven to be the least."""
        return self.cost == self.bound


def known_board(name: str | None) -> bool:
    """Whether vGPUs of a board can be planned."""
    return name in BOARDS


def order(demands: t.Iterable[Demand]) -> list[Demand]:
    """The order in which machines are placed and powered on: those with least choice first, then the largest.

    Equal demands come together. Order matters, as a host puts each vGPU on a GPU by its policy.
    """

    def key(demand: Demand) -> tuple[t.Any, ...]:
        pinned = demand.host is None, not any(need.address or need.mode == "fixed" for need in demand.needs)
        return (*pinned, -demand.weight, repr(demand.needs), demand.cluster or "", -demand.memory_mb, demand.name)

    return sorted(demands, key=key)
