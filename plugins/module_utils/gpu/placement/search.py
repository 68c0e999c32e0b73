# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The exact way for small questions, without a solver: every placement that can still be the best."""

from __future__ import annotations

import dataclasses
import itertools

from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.placement.admission import HostState, States, goal_of
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.placement.heuristic import movable
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.placement.model import Demand
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.placement.solution import Solution

NODES = 20_000
"""How many partial placements are looked at before giving up."""


class TooLargeError(Exception):
    """The search gave up; the best answer known is not proven."""


@dataclasses.dataclass(slots=True)
class _Search:
    best: Solution
    nodes: int = NODES

    def run(self, start: Solution) -> None:
        self._place(start, dict(start.states), {}, 0, 0, None)

    def _place(
        self, start: Solution, states: States, where: dict[str, str], index: int, refused: int, last: str | None
    ) -> None:
        self.nodes -= 1
        if self.nodes < 0:
            raise TooLargeError
        goal = goal_of(states.values(), start.instance.goal)
        if (refused, len(start.moves), goal) >= self.best.cost.key:
            return
        if index == len(start.demands):
            found = start.copy()
            found.where, found.states = dict(where), dict(states)
            self.best = found
            return
        demand = start.demands[index]
        following = index + 1 < len(start.demands) and _alike(demand, start.demands[index + 1])
        for name, state in states.items():
            # Equal machines are taken in the order of hosts: any other order is the same answer.
            if last is not None and name < last:
                continue
            after: HostState = state.copy()
            if after.add(demand) is None:
                continue
            where[demand.name] = name
            self._place(start, {**states, name: after}, where, index + 1, refused, name if following else None)
            del where[demand.name]
        self._place(start, states, where, index + 1, refused + 1, "\uffff" if following else None)


def _alike(one: Demand, other: Demand) -> bool:
    return dataclasses.replace(one, name="") == dataclasses.replace(other, name="")


def solve(start: Solution, best: Solution) -> Solution:
    """The best answer there is, at least as good as `best`. Raises TooLargeError.

    Residents are moved only where that saves a refusal: first with none, then one, and so on.
    """
    search = _Search(best)
    layer = [start]
    for number in itertools.count():
        for base in layer:
            search.run(base)
        if search.best.cost.refused == 0 or number >= start.instance.max_moves:
            return search.best
        layer = [
            moved
            for base in layer
            for host in base.base
            for vm in movable(base, host)
            for target in base.base
            if target != host and (moved := base.after_move(vm, host, target)) is not None
        ]
        search.nodes -= len(layer)
        if not layer:
            return search.best
    raise AssertionError("unreachable")
