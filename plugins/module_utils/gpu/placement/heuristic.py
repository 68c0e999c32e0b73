# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The fast way: best host first, then repairs; for thousands of hosts in seconds."""

from __future__ import annotations

import dataclasses
import heapq
import itertools
import typing as t

from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.placement.admission import HostState, admit, room_for
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.placement.model import Demand, Goal, Instance, Need
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.placement.solution import Solution

_ROOM = 64
"""Room beyond this many machines makes no difference to the choice."""
_TRIES = 5_000
"""How many changes of a plan are tried in all."""
_SMALL = 5_000
"""Machines times hosts up to which every machine is tried elsewhere."""

Rank = tuple[t.Any, ...]


@dataclasses.dataclass(slots=True)
class _Budget:
    tries: int

    def take(self) -> bool:
        self.tries -= 1
        return self.tries >= 0


def solve(instance: Instance, *, tries: int = _TRIES) -> Solution:
    """A good answer. What is refused may still have found a place in a better one: see `bounds`."""
    solution = greedy(instance)
    if solution.refused:
        # The largest first leaves little room unused, the smallest first serves more when there is too little.
        served = greedy(instance, smallest_first=True).where
        fewer = greedy(instance, only=served)
        solution = min(solution, fewer, key=lambda found: found.cost.key)
    budget = _Budget(tries)
    if solution.refused:
        solution = _swap(solution, budget)
    if solution.refused and instance.max_moves:
        solution = _make_room(solution, budget)
    if instance.goal == "fewest_hosts":
        solution = _empty_hosts(solution, budget)
    if len(solution.demands) * len(solution.states) <= _SMALL:
        solution = _relocate(solution, budget)
    return solution


def greedy(instance: Instance, *, smallest_first: bool = False, only: t.Collection[str] | None = None) -> Solution:
    """Machine after machine to the host that is best for it then; `only` these, if given."""
    solution = Solution.empty(instance)
    demands = [demand for demand in solution.demands if only is None or demand.name in only]
    if smallest_first:
        demands.reverse()
    kinds = itertools.groupby(demands, key=lambda demand: (demand.needs, demand.cluster, demand.host))
    for _kind, alike in kinds:
        _place_kind(solution, list(alike), instance.goal)
    return solution


def _place_kind(solution: Solution, demands: list[Demand], goal: Goal) -> None:
    """Place machines that differ in memory, processors and groups only; hosts wait in a heap, the best first."""
    first = demands[0]
    heap: list[tuple[Rank, str]] = []
    for name, state in solution.states.items():
        if state.wants(dataclasses.replace(first, origin=None)):
            rank = _rank(state, first.needs, goal)
            if rank is not None:
                heap.append((rank, name))
    heapq.heapify(heap)
    too_small: list[tuple[Rank, str]] = []
    size = (first.memory_mb, first.cpus)
    for demand in demands:
        if (demand.memory_mb, demand.cpus) != size:
            size = (demand.memory_mb, demand.cpus)
            for item in too_small:
                heapq.heappush(heap, item)
            too_small = []
        aside = []
        while heap:
            item = heapq.heappop(heap)
            state = solution.states[item[1]]
            if demand.memory_mb > state.memory_mb or demand.cpus > state.cpus:
                too_small.append(item)
            elif state.add(demand) is None:
                aside.append(item)
            else:
                solution.where[demand.name] = item[1]
                rank = _rank(state, demand.needs, goal)
                if rank is not None:
                    heapq.heappush(heap, (rank, item[1]))
                break
        for item in aside:
            heapq.heappush(heap, item)


def _rank(state: HostState, needs: tuple[Need, ...], goal: Goal) -> Rank | None:
    """How good a host is for machines with these needs, the least first; None when its GPUs have no room."""
    policy = state.host.policy
    admitted = admit(state.gpus, policy, needs)
    if admitted is None:
        return None
    room = room_for(state.gpus, policy, needs, _ROOM)
    unused = not state.vms
    if goal == "spread":
        return (len(state.vms), -room)
    opened = sum(gpu.in_use for gpu in admitted[0]) - sum(gpu.in_use for gpu in state.gpus)
    return (opened, unused, room) if goal == "fill" else (unused, room, opened)


def _swap(solution: Solution, budget: _Budget) -> Solution:
    """Give refused machines a place by putting one that is placed elsewhere."""
    for demand in solution.refused:
        better = _swap_one(solution, demand, budget)
        if better is not None:
            solution = better
        if budget.tries <= 0:
            break
    return solution


def _swap_one(solution: Solution, demand: Demand, budget: _Budget) -> Solution | None:
    for host, state in solution.states.items():
        if not state.wants(demand) or not budget.take():
            continue
        direct = solution.rebuilt(host, more=[demand])
        if direct is not None:
            found = solution.copy()
            found.where[demand.name], found.states[host] = host, direct
            return found
        for other in solution.on(host):
            if not budget.take():
                return None
            here = solution.rebuilt(host, more=[demand], without=other)
            if here is None:
                continue
            for target, there in solution.states.items():
                if target == host or not there.wants(other):
                    continue
                if not budget.take():
                    return None
                then = solution.rebuilt(target, more=[other])
                if then is not None:
                    found = solution.copy()
                    found.where[demand.name], found.where[other.name] = host, target
                    found.states[host], found.states[target] = here, then
                    return found
    return None


def _make_room(solution: Solution, budget: _Budget) -> Solution:
    """Move residents, where each move gives a refused machine its place."""
    for demand in solution.refused:
        if len(solution.moves) >= solution.instance.max_moves or budget.tries <= 0:
            break
        better = _make_room_for(solution, demand, budget)
        if better is not None:
            solution = better
    return solution


def _make_room_for(solution: Solution, demand: Demand, budget: _Budget) -> Solution | None:
    for host, state in solution.states.items():
        if not state.wants(demand):
            continue
        for vm in movable(solution, host):
            for target in solution.states:
                if not budget.take():
                    return None
                if target == host or not solution.base[target].wants(solution.base[host].vms[vm][0]):
                    continue
                moved = solution.after_move(vm, host, target)
                if moved is None or len(moved.where) < len(solution.where):
                    continue
                here = moved.rebuilt(host, more=[demand])
                if here is not None:
                    moved.where[demand.name], moved.states[host] = host, here
                    return moved
    return None


def movable(solution: Solution, host: str) -> list[str]:
    """Residents of a host that may still be moved to make room."""
    if solution.instance.max_moves <= len(solution.moves) or solution.base[host].host.closed is not None:
        return []
    moved = {move.vm for move in solution.moves}
    return [
        resident.demand.name
        for resident in solution.base[host].host.residents
        if resident.movable and resident.demand.name not in moved
    ]


def _empty_hosts(solution: Solution, budget: _Budget) -> Solution:
    """Give hosts up whose machines find places on other hosts that are in use."""
    for host in sorted(solution.states, key=lambda name: (len(solution.states[name].vms), name)):
        if budget.tries <= 0:
            break
        if solution.base[host].vms or not solution.on(host):
            continue
        found = _without(solution, host, budget)
        if found is not None:
            solution = found
    return solution


def _without(solution: Solution, host: str, budget: _Budget) -> Solution | None:
    for demand in solution.on(host):
        found = _elsewhere(solution, demand, host, budget, used_only=True)
        if found is None:
            return None
        solution = found
    return solution


def _relocate(solution: Solution, budget: _Budget) -> Solution:
    """Put single machines elsewhere as long as that costs less."""
    improved = True
    while improved and budget.tries > 0:
        improved = False
        for demand in solution.demands:
            if demand.name not in solution.where or budget.tries <= 0:
                continue
            found = _elsewhere(solution, demand, solution.where[demand.name], budget, cheaper=True)
            if found is not None:
                solution, improved = found, True
    return solution


def _elsewhere(
    solution: Solution, demand: Demand, host: str, budget: _Budget, *, used_only: bool = False, cheaper: bool = False
) -> Solution | None:
    """The answer with one placed machine on another host, the first that takes it (and costs less)."""
    without = solution.rebuilt(host, without=demand)
    if without is None:
        return None
    for target, state in solution.states.items():
        if target == host or not state.wants(demand) or (used_only and not state.vms) or not budget.take():
            continue
        there = solution.rebuilt(target, more=[demand])
        if there is None:
            continue
        found = solution.copy()
        found.where[demand.name] = target
        found.states[host], found.states[target] = without, there
        if not cheaper or found.cost.key < solution.cost.key:
            return found
    return None
