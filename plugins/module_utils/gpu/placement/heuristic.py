# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The fast way: best host first, then repairs; for thousands of hosts in seconds."""

from __future__ import annotations

import dataclasses
import heapq
import itertools
import typing as t

from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.placement.admission import HostState, admit, room_for
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.placement.bounds import bound
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.placement.model import Demand, Instance, Need
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.placement.solution import Solution

_ROOM = 64
"""Room beyond this many machines makes no difference to the choice."""
_TRIES = 5_000
"""How many changes of a plan are tried in all."""
_SMALL = 5_000
"""Machines times hosts up to which every machine is tried elsewhere."""

_REPAIRED = 2
"""How many answers are repaired, those with the fewest refused."""

Rank = tuple[t.Any, ...]
Way = t.Literal["spread", "even", "fill", "fewest_hosts"]
"""By what hosts are ranked: a goal, or `even`: on few GPUs, but on many hosts."""
_WAYS: t.Final[tuple[Way, ...]] = ("even", "fill", "fewest_hosts", "spread")


@dataclasses.dataclass(slots=True)
class _Budget:
    tries: int

    def take(self) -> bool:
        self.tries -= 1
        return self.tries >= 0


def solve(instance: Instance, *, tries: int = _TRIES) -> Solution:
    """A good answer. What is refused may still have found a place in a better one: see `bounds`.

    A goal never costs a machine its place: how many are served is found out in the same way for every goal.
    """
    solution = greedy(instance, instance.goal)
    if solution.refused:
        solution = _serve(instance, solution, tries)
    budget = _Budget(tries)
    if instance.goal == "fewest_hosts":
        solution = _empty_hosts(solution, budget)
    if len(solution.demands) * len(solution.states) <= _SMALL:
        solution = _relocate(solution, budget)
    return _level(solution, budget) if instance.goal == "spread" else solution


def _serve(instance: Instance, own: Solution, tries: int) -> Solution:
    """The answer with the fewest refused that is found, the best of these by the goal; `own` is the goal's first.

    How many are refused in it depends on no goal: the same ways are tried, and the same answers repaired.
    """
    least = bound(instance, own).refused
    found: list[Solution] = []
    for way in _WAYS:
        found.append(_top_up(own if way == instance.goal else greedy(instance, way)))
        if len(found[-1].refused) <= least:
            return found[-1]
        # The largest first leaves little room unused, the smallest first serves more when there is too little.
        served = greedy(instance, way, smallest_first=True).where
        found.append(_top_up(greedy(instance, way, only=served)))
    found.sort(key=lambda solution: len(solution.refused))  # stable: of equals the first
    for solution in found[:_REPAIRED]:
        budget = _Budget(tries // _REPAIRED)
        repaired = _swap(solution, budget)
        found.append(_make_room(repaired, budget) if repaired.refused and instance.max_moves else repaired)
    return min(found, key=lambda solution: solution.cost.key)


def _top_up(solution: Solution) -> Solution:
    """Place what was left out and still fits, each on the first host that takes it beside those it has."""
    found = solution.copy()
    last: dict[Demand, int] = {}
    names = list(found.states)
    for demand in solution.refused:
        kind = dataclasses.replace(demand, name="")
        # Hosts only become fuller, so one that took no equal machine takes none later.
        for index in range(last.get(kind, 0), len(names)):
            last[kind] = index
            if found.states[names[index]].admits(demand) is None:
                continue
            state = found.rebuilt(names[index], more=[demand])
            if state is not None:
                found.where[demand.name], found.states[names[index]] = names[index], state
                break
        else:
            last[kind] = len(names)
    return found


def greedy(
    instance: Instance, way: Way, *, smallest_first: bool = False, only: t.Collection[str] | None = None
) -> Solution:
    """Machine after machine to the host that is best for it then; `only` these, if given."""
    solution = Solution.empty(instance)
    demands = [demand for demand in solution.demands if only is None or demand.name in only]
    if smallest_first:
        demands.reverse()
    kinds = itertools.groupby(demands, key=lambda demand: (demand.needs, demand.cluster, demand.host))
    for _kind, alike in kinds:
        _place_kind(solution, list(alike), way)
    return solution


def _place_kind(solution: Solution, demands: list[Demand], way: Way) -> None:
    """Place machines that differ in memory, processors and groups only; hosts wait in a heap, the best first."""
    first = demands[0]
    heap: list[tuple[Rank, str]] = []
    for name, state in solution.states.items():
        if state.wants(dataclasses.replace(first, origin=None)):
            rank = _rank(state, first.needs, way)
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
                rank = _rank(state, demand.needs, way)
                if rank is not None:
                    heapq.heappush(heap, (rank, item[1]))
                break
        for item in aside:
            heapq.heappush(heap, item)


def _rank(state: HostState, needs: tuple[Need, ...], way: Way) -> Rank | None:
    """How good a host is for machines with these needs, the least first; None when its GPUs have no room."""
    policy = state.host.policy
    here = state.host.here(needs)
    admitted = admit(state.gpus, policy, here) if here is not None else None
    if here is None or admitted is None:
        return None
    room = room_for(state.gpus, policy, here, _ROOM)
    unused = not state.vms
    if way == "spread":
        return (len(state.vms), -room)
    opened = sum(gpu.in_use for gpu in admitted[0]) - sum(gpu.in_use for gpu in state.gpus)
    if way == "even":
        return (opened, len(state.vms), -room)
    return (opened, unused, room) if way == "fill" else (unused, room, opened)


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


def _level(solution: Solution, budget: _Budget) -> Solution:
    """Move placed machines from the fullest hosts to the emptiest that take them, as long as there are any.

    Of equal machines on a host one is tried.
    """
    found = solution.copy()
    states = found.states
    improved = True
    while improved:
        improved = False
        emptiest = sorted(
            (name for name, state in states.items() if state.host.closed is None),
            key=lambda name: len(states[name].vms),
        )
        for host in reversed(emptiest):
            for demand in {dataclasses.replace(demand, name=""): demand for demand in found.on(host)}.values():
                for target in emptiest:
                    if len(states[target].vms) + 1 >= len(states[host].vms):
                        break
                    if not budget.take():
                        return found
                    if states[target].admits(demand) is None:
                        continue
                    without = found.rebuilt(host, without=demand)
                    there = found.rebuilt(target, more=[demand])
                    if without is not None and there is not None:
                        found.where[demand.name] = target
                        states[host], states[target] = without, there
                        improved = True
                        break
    return found


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
