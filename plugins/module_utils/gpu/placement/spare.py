# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Spare capacity: whether everything that can restart elsewhere still fits when any one host fails."""

from __future__ import annotations

import collections
import dataclasses
import typing as t

from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.placement.admission import HostState, States
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.placement.heuristic import solve
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.placement.model import GOALS, Instance, order
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.placement.solution import Solution


def fragile(states: States) -> set[str]:
    """Hosts after whose failure some machine finds no room in their cluster.

    Machines with a fixed device restart nowhere else, so they do not count. Machines restart in the order of placing,
    each on the first host with room.
    """
    candidates: dict[t.Any, list[str]] = {}
    lost = set()
    for name, state in states.items():
        if state.vms and not _survives(name, state, states, candidates):
            lost.add(name)
    return lost


def _survives(failed: str, state: HostState, states: States, candidates: dict[t.Any, list[str]]) -> bool:
    changed: dict[str, HostState] = {}
    cluster = state.host.cluster
    for demand in order(demand for demand, _grants in state.vms.values()):
        if any(need.mode == "fixed" for need in demand.needs):
            continue
        free = dataclasses.replace(demand, name=f"{demand.name} restarted", host=None, cluster=cluster, origin=failed)
        kind = (free.needs, free.memory_mb, free.cpus, cluster)
        if kind not in candidates:
            alone = dataclasses.replace(free, origin=None, groups=())
            candidates[kind] = [name for name, other in states.items() if other.admits(alone) is not None]
        for name in candidates[kind]:
            if name == failed:
                continue
            there = changed.get(name) or states[name].copy()
            if there.add(free) is not None:
                changed[name] = there
                break
        else:
            return False
    return True


def solve_with_spare(instance: Instance) -> Solution:
    """An answer that makes no host's failure worse than it is now.

    Where machines are refused, the other goals are tried too: another distribution may leave the spare room as well.
    """
    best = _solve(instance)
    for goal in GOALS:
        if best.refused and goal != instance.goal:
            other = dataclasses.replace(_solve(dataclasses.replace(instance, goal=goal)), instance=instance)
            best = min(best, other, key=lambda solution: solution.cost.key)
    return best


def _solve(instance: Instance) -> Solution:
    """First as if there were no such wish; if that fails, with the roomiest host of each cluster held back; if that
    fails, as many machines as possible, in their order.
    """
    before = fragile(Solution.empty(instance).states)

    def good(solution: Solution) -> bool:
        return fragile(solution.states) <= before

    first = solve(instance)
    if good(first):
        return first
    held = _held_back(instance)
    second = _restored(instance, solve(dataclasses.replace(instance, hosts=held)))
    if second is not None and good(second):
        return second
    best = Solution.empty(instance)
    for trial in (first, *([second] if second is not None else [])):
        names = [demand.name for demand in trial.demands if demand.name in trial.where]
        low, high = 0, len(names)
        while low < high:
            middle = (low + high + 1) // 2
            fewer = trial.try_assign({name: trial.where[name] for name in names[:middle]})
            if fewer is not None and good(fewer):
                low = middle
                best = max(best, fewer, key=lambda solution: len(solution.where))
            else:
                high = middle - 1
    return best


def _held_back(instance: Instance) -> tuple[t.Any, ...]:
    """The hosts with one of each cluster closed: an empty one with the most GPUs, if there is any."""
    clusters: dict[str | None, list[t.Any]] = collections.defaultdict(list)
    for host in instance.hosts:
        if host.closed is None:
            clusters[host.cluster].append(host)
    spare = {
        min(hosts, key=lambda host: (len(host.residents), -len(host.gpus), -host.free_memory_mb, host.name)).name
        for hosts in clusters.values()
    }
    return tuple(
        dataclasses.replace(host, closed="is held back for the failure of another host") if host.name in spare else host
        for host in instance.hosts
    )


def _restored(instance: Instance, solution: Solution) -> Solution | None:
    """The same answer with the hosts as they really are."""
    start = Solution.empty(instance)
    for move in solution.moves:
        moved = start.after_move(move.vm, str(move.origin), move.host)
        if moved is None:
            return None
        start = moved
    return start.try_assign(solution.where)
