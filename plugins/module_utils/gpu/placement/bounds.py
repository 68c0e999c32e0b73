# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What no answer can do better than: relaxations that forget all but one resource at a time."""

from __future__ import annotations

import collections
import dataclasses
import heapq
import typing as t

from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.placement.admission import HostState, goal_of, room_for
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.placement.model import Cost, Demand, Instance
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.placement.profiles import BOARDS, profile
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.placement.solution import Solution

Kind = tuple[t.Any, ...]


def bound(instance: Instance, best: Solution) -> Cost:
    """A cost that no answer can be below, given the best answer known (which says how many are placed).

    Where residents may be moved, only what holds wherever they are is counted.
    """
    empty = Solution.empty(instance)
    if instance.max_moves and best.cost.refused + best.cost.moves:
        return Cost()
    parts = _parts(empty)
    refused = sum(part.refused() for part in parts)
    now = goal_of(empty.base.values(), instance.goal)
    if best.cost.refused > refused:
        return Cost(refused, 0, now)  # with fewer placed, the goal may cost less
    if refused:
        return Cost(refused, 0, now)
    if instance.goal == "spread":
        return Cost(0, 0, sum(part.spread() for part in parts))
    if instance.goal == "fewest_hosts":
        return Cost(0, 0, sum(part.hosts() for part in parts))
    return Cost(0, 0, now + _gpus(empty))


@dataclasses.dataclass(slots=True)
class _Part:
    """Machines and hosts that have nothing to do with those of other parts."""

    states: list[HostState]
    """Open hosts that take at least one of the machines."""
    kinds: list[tuple[list[Demand], list[int]]]
    """Equal machines, and how many of them each host takes, if no other kind comes; the roomiest first."""

    def refused(self) -> int:
        """How many machines find no place at least."""
        by_kind = sum(
            # Machines that must keep apart may have less room than that.
            max(0, len(demands) - sum(rooms))
            for demands, rooms in self.kinds
        )
        free = [_free(state) for state in self.states]
        total: collections.Counter[str] = sum(free, collections.Counter())
        short = 0
        for resource, amounts in self._wanted().items():
            left, count = total[resource], 0
            for amount in sorted(amounts):
                left -= amount
                if left < 0:
                    break
                count += 1
            short = max(short, len(amounts) - count)
        return max(by_kind, short)

    def hosts(self) -> int:
        """How many hosts are in use at least, when all machines have a place."""
        used = [state for state in self.states if state.vms]
        most = max([len(used), *(_hosts(len(demands), rooms) for demands, rooms in self.kinds)])
        frees = [(_free(state), bool(state.vms)) for state in self.states]
        for resource, amounts in self._wanted().items():
            left = sum(amounts) - sum(free[resource] for free, in_use in frees if in_use)
            more = sorted((free[resource] for free, in_use in frees if not in_use), reverse=True)
            most = max(most, len(used) + sum(1 for _amount in _taken(left, more)))
        return most

    def spread(self) -> int:
        """The sum of squares when each machine could go to the emptiest host of the part."""
        heap = [len(state.vms) for state in self.states]
        heapq.heapify(heap)
        total = sum(count**2 for count in heap)
        for _number in range(sum(len(demands) for demands, _rooms in self.kinds) if heap else 0):
            count = heapq.heappop(heap)
            total += 2 * count + 1
            heapq.heappush(heap, count + 1)
        return total

    def _wanted(self) -> dict[str, list[int]]:
        wanted: dict[str, list[int]] = collections.defaultdict(list)
        for demands, _rooms in self.kinds:
            for demand in demands:
                for resource, amount in _amounts(demand).items():
                    wanted[resource].append(amount)
        return wanted


def _taken(left: int, amounts: t.Iterable[int]) -> t.Iterator[int]:
    for amount in amounts:
        if left <= 0:
            return
        left -= amount
        yield amount


def _parts(empty: Solution) -> list[_Part]:
    """The parts of the question that share no host; hosts in use that take no machine are one more."""
    parent: dict[t.Any, t.Any] = {}

    def root(item: t.Any) -> t.Any:
        while parent.setdefault(item, item) != item:
            item = parent[item]
        return item

    rooms: dict[Kind, list[int]] = {}
    kinds = _kinds(empty.demands)
    for kind, demands in kinds.items():
        rooms[kind] = []
        for name, state in empty.base.items():
            room = _room(state, demands[0])
            if room:
                rooms[kind].append(room)
                parent[root(name)] = root(kind)
    parts: dict[t.Any, _Part] = collections.defaultdict(lambda: _Part([], []))
    for kind, demands in kinds.items():
        parts[root(kind)].kinds.append((demands, sorted(rooms[kind], reverse=True)))
    for name, state in empty.base.items():
        if state.host.closed is None:
            parts[root(name) if name in parent else None].states.append(state)
    return list(parts.values())


def _kinds(demands: t.Iterable[Demand]) -> dict[Kind, list[Demand]]:
    kinds: dict[Kind, list[Demand]] = collections.defaultdict(list)
    for demand in demands:
        kinds[(demand.needs, demand.cluster, demand.host, demand.memory_mb, demand.cpus, demand.origin)].append(demand)
    return kinds


def _room(state: HostState, demand: Demand) -> int:
    """How many machines of a kind a host takes, if no other kind comes."""
    needs = state.host.here(demand.needs)
    if needs is None or not state.wants(demand) or any(state.groups[group] for group in demand.groups):
        return 0
    most = 1 if demand.groups else 1_000
    if demand.memory_mb:
        most = min(most, state.memory_mb // demand.memory_mb)
    if demand.cpus:
        most = min(most, state.cpus // demand.cpus)
    return room_for(state.gpus, state.host.policy, needs, max(0, most)) if needs else max(0, most)


def _free(state: HostState) -> collections.Counter[str]:
    """Memory, processors, framebuffer of each board, and GPUs of each id that a host has left."""
    free: collections.Counter[str] = collections.Counter(memory=state.memory_mb, cpus=state.cpus)
    for gpu in state.gpus:
        if gpu.use in ("same_size", "mixed_size") and gpu.board is not None:
            free[gpu.board] += BOARDS[gpu.board].framebuffer_gb - sum(slot.size for slot in gpu.slots)
        elif gpu.use == "passthrough" and not gpu.held:
            free[f"pci {gpu.id}"] += 1
    return free


def _amounts(demand: Demand) -> dict[str, int]:
    amounts: collections.Counter[str] = collections.Counter()
    amounts["memory"] += demand.memory_mb
    amounts["cpus"] += demand.cpus
    for need in demand.needs:
        if need.profile:
            wanted = profile(need.profile)
            amounts[wanted.board] += need.count * wanted.size
        elif need.id:
            amounts[f"pci {need.id}"] += need.count
    return {resource: amount for resource, amount in amounts.items() if amount}


def _hosts(count: int, rooms: t.Sequence[int]) -> int:
    """How many hosts machines of one kind need at least."""
    return sum(1 for _amount in _taken(count, rooms))


def _gpus(empty: Solution) -> int:
    """How many GPUs must be taken into use at least: whole ones, and framebuffer beyond that of GPUs in use."""
    open_gb: collections.Counter[str] = collections.Counter()
    wanted_gb: collections.Counter[str] = collections.Counter()
    whole = 0
    for state in empty.base.values():
        for gpu in state.gpus:
            if gpu.slots and gpu.board is not None and state.host.closed is None:
                open_gb[gpu.board] += BOARDS[gpu.board].framebuffer_gb - sum(slot.size for slot in gpu.slots)
    for demand in empty.demands:
        for need in demand.needs:
            if need.profile:
                wanted_gb[profile(need.profile).board] += need.count * profile(need.profile).size
            elif need.wanted is None:  # else its board and size are not known before its host
                whole += need.count
    more = sum(
        -(-max(0, amount - open_gb[board]) // BOARDS[board].framebuffer_gb) for board, amount in wanted_gb.items()
    )
    return whole + more
