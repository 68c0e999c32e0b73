# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Whether a host can take a virtual machine, and which GPUs it would get there.

Rules: NVIDIA's vGPU user guide (same-size and mixed-size mode, series), vSphere's assignment policies: `performance`
puts a vGPU on the GPU with the fewest, `consolidation` on the fullest that fits, the lower address on a tie. The
vCenter cannot be told which GPU to take, so the same is worked out here.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import typing as t

from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.placement.model import (
    Demand,
    Gpu,
    Grant,
    Host,
    Need,
    Policy,
    Slot,
)
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.placement.profiles import BOARDS, Profile, profile

Gpus = tuple[Gpu, ...]


def start_for(gpu: Gpu, wanted: Profile) -> int | None:
    """Where a new vGPU would start on a GPU; None when it cannot be there."""
    if gpu.held or gpu.board != wanted.board or any(slot.series != wanted.series for slot in gpu.slots):
        return None
    board, size = BOARDS[wanted.board], wanted.size
    if gpu.use == "same_size":
        if any(slot.size != size for slot in gpu.slots) or len(gpu.slots) >= board.equal[size]:
            return None
        taken = {slot.start for slot in gpu.slots}
        return next(start for index in range(len(taken) + 1) if (start := index * size) not in taken)
    if gpu.use != "mixed_size":
        return None
    for start in board.starts(size):
        if all(start + size <= slot.start or slot.start + slot.size <= start for slot in gpu.slots):
            return start
    return None


@functools.lru_cache(maxsize=200_000)
def admit(gpus: Gpus, policy: Policy, needs: tuple[Need, ...]) -> tuple[Gpus, tuple[Grant, ...]] | None:
    """The GPUs after a machine with these needs has been powered on, and what it gets; None when there is no room.

    `gpus` are in the order of their addresses. Fixed devices come before dynamic ones, and these before vGPUs.
    """
    now = list(gpus)
    grants: list[Grant] = []
    for need in sorted(needs, key=lambda need: (need.mode == "vgpu", need.mode == "dynamic", need.address is None)):
        for _number in range(need.count):
            found = _vgpu(now, policy, profile(need.profile)) if need.profile else _whole(now, need)
            if found is None:
                return None
            index, slot = found
            gpu = now[index]
            now[index] = (
                dataclasses.replace(gpu, held=True)
                if slot is None
                else dataclasses.replace(gpu, slots=(*gpu.slots, slot))
            )
            grants.append(Grant(gpu.address, slot, need.profile))
    return tuple(now), tuple(grants)


def _whole(gpus: t.Sequence[Gpu], need: Need) -> tuple[int, None] | None:
    for index, gpu in enumerate(gpus):
        if not gpu.held and suits(gpu, need):
            return index, None
    return None


def suits(gpu: Gpu, need: Need) -> bool:
    """Whether a GPU is of the kind that is needed, whoever has it."""
    if need.profile:
        return gpu.use in ("same_size", "mixed_size") and gpu.board == profile(need.profile).board
    return (
        gpu.use == "passthrough"
        and (need.id is None or need.id == gpu.id)
        and (need.label is None or need.label == gpu.label)
        and (need.address is None or need.address == gpu.address)
    )


def _vgpu(gpus: t.Sequence[Gpu], policy: Policy, wanted: Profile) -> tuple[int, Slot] | None:
    best: tuple[int, int, int] | None = None
    for index, gpu in enumerate(gpus):
        start = start_for(gpu, wanted)
        if start is None:
            continue
        rank = len(gpu.slots) if policy == "performance" else -sum(slot.size for slot in gpu.slots)
        if best is None or rank < best[0]:
            best = (rank, index, start)
    return None if best is None else (best[1], Slot(best[2], wanted.size, wanted.series))


@functools.lru_cache(maxsize=200_000)
def room_for(gpus: Gpus, policy: Policy, needs: tuple[Need, ...], most: int) -> int:
    """How many machines with these needs a host's GPUs take one after the other, `most` at the most."""
    count = 0
    while count < most and (admitted := admit(gpus, policy, needs)) is not None:
        gpus = admitted[0]
        count += 1
    return count


@dataclasses.dataclass(slots=True)
class HostState:
    """A host while a plan is made. `copy` is cheap."""

    host: Host
    gpus: Gpus
    memory_mb: int
    cpus: int
    vms: dict[str, tuple[Demand, tuple[Grant, ...]]]
    """Every machine on the host and what it has."""
    groups: collections.Counter[str]

    @classmethod
    def of(cls, host: Host) -> HostState:
        """The host as it is."""
        state = cls(
            host,
            tuple(sorted(host.gpus, key=lambda gpu: gpu.address)),
            host.free_memory_mb,
            host.free_cpus,
            {resident.demand.name: (resident.demand, resident.grants) for resident in host.residents},
            collections.Counter(),
        )
        for resident in host.residents:
            state.groups.update(resident.demand.groups)
        return state

    def copy(self) -> HostState:
        """An independent copy."""
        return HostState(
            self.host, self.gpus, self.memory_mb, self.cpus, dict(self.vms), collections.Counter(self.groups)
        )

    def wants(self, demand: Demand) -> bool:
        """Whether the machine may come at all, room or not."""
        host = self.host
        return (
            host.closed is None
            and (demand.host is None or demand.host == host.name)
            and (demand.cluster is None or demand.cluster == host.cluster)
            and demand.origin != host.name
        )

    def admits(self, demand: Demand) -> tuple[Gpus, tuple[Grant, ...]] | None:
        """What the machine would get here now; None when it may not come or finds no room."""
        if demand.memory_mb > self.memory_mb or demand.cpus > self.cpus or not self.wants(demand):
            return None
        if any(self.groups[group] for group in demand.groups):
            return None
        needs = self.host.here(demand.needs)
        return None if needs is None else admit(self.gpus, self.host.policy, needs)

    def add(self, demand: Demand) -> tuple[Grant, ...] | None:
        """Put the machine here; None, and nothing done, when it finds no room."""
        admitted = self.admits(demand)
        if admitted is None:
            return None
        self.gpus, grants = admitted
        self.memory_mb -= demand.memory_mb
        self.cpus -= demand.cpus
        self.groups.update(demand.groups)
        self.vms[demand.name] = (demand, grants)
        return grants

    def remove(self, name: str) -> Demand:
        """Take a machine away and free what it has."""
        demand, grants = self.vms.pop(name)
        gpus = {gpu.address: gpu for gpu in self.gpus}
        for grant in grants:
            gpu = gpus[grant.address]
            if grant.slot is None:
                gpus[grant.address] = dataclasses.replace(gpu, held=False)
            else:
                left = list(gpu.slots)
                left.remove(grant.slot)
                gpus[grant.address] = dataclasses.replace(gpu, slots=tuple(left))
        self.gpus = tuple(gpus[gpu.address] for gpu in self.gpus)
        self.memory_mb += demand.memory_mb
        self.cpus += demand.cpus
        self.groups.subtract(demand.groups)
        return demand


States = dict[str, HostState]


def states_of(hosts: t.Iterable[Host]) -> States:
    """All hosts as they are, by name."""
    return {host.name: HostState.of(host) for host in sorted(hosts, key=lambda host: host.name)}


def goal_of(states: t.Iterable[HostState], goal: str) -> int:
    """The part of the cost that the goal asks to keep low (see `Cost.goal`); hosts that are closed do not count."""
    states = [state for state in states if state.host.closed is None]
    if goal == "spread":
        return sum(len(state.vms) ** 2 for state in states)
    if goal == "fill":
        return sum(gpu.in_use for state in states for gpu in state.gpus)
    return sum(bool(state.vms) for state in states)
