# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A whole answer while it is worked on: residents moved first, then machines placed in their order."""

from __future__ import annotations

import dataclasses
import typing as t

from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.placement.admission import (
    HostState,
    States,
    goal_of,
    states_of,
)
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.placement.model import (
    Cost,
    Demand,
    Instance,
    Placement,
    order,
)


@dataclasses.dataclass(slots=True)
class Solution:
    """Which machine is where. Each host's GPUs follow from the order, so a host can be worked out alone."""

    instance: Instance
    demands: list[Demand]
    """In the order of placing."""
    base: States
    """The hosts after `moves`, before anything is placed."""
    moves: list[Placement]
    where: dict[str, str]
    """Host by machine; those not in it are refused."""
    states: States
    """The hosts in the end."""
    rank: t.Mapping[str, int] = dataclasses.field(default_factory=dict)
    """Place of each machine in the order."""

    @classmethod
    def empty(cls, instance: Instance) -> Solution:
        """Nothing is placed."""
        states = states_of(instance.hosts)
        demands = order(instance.demands)
        rank = {demand.name: number for number, demand in enumerate(demands)}
        return cls(instance, demands, states, [], {}, {name: state.copy() for name, state in states.items()}, rank)

    def copy(self) -> Solution:
        """An independent copy; the states in it are replaced, never changed."""
        return dataclasses.replace(
            self, base=dict(self.base), moves=list(self.moves), where=dict(self.where), states=dict(self.states)
        )

    @property
    def refused(self) -> list[Demand]:
        """Machines that have no place."""
        return [demand for demand in self.demands if demand.name not in self.where]

    @property
    def cost(self) -> Cost:
        """What the answer costs."""
        return Cost(
            len(self.demands) - len(self.where),
            len(self.moves),
            goal_of(self.states.values(), self.instance.goal),
        )

    def on(self, host: str) -> list[Demand]:
        """The machines placed on a host, in their order."""
        here = self.base[host].vms
        return [demand for name, (demand, _grants) in self.states[host].vms.items() if name not in here]

    def rebuilt(self, host: str, *, more: t.Iterable[Demand] = (), without: Demand | None = None) -> HostState | None:
        """A host with machines added to (and one left out of) those placed on it; None when one finds no room."""
        demands = [*(demand for demand in self.on(host) if demand is not without), *more]
        state = self.base[host].copy()
        for demand in sorted(demands, key=lambda demand: self.rank[demand.name]):
            if state.add(demand) is None:
                return None
        return state

    def placed(self) -> list[Placement]:
        """The placements in their order."""
        return [
            Placement(
                demand.name,
                self.where[demand.name],
                self.states[self.where[demand.name]].vms[demand.name][1],
                demand.origin,
            )
            for demand in self.demands
            if demand.name in self.where
        ]

    def try_assign(self, where: t.Mapping[str, str]) -> Solution | None:
        """The answer with exactly these machines placed; None when a host has no room for its own."""
        found = dataclasses.replace(self, where=dict(where), base=dict(self.base), states={}, moves=list(self.moves))
        by_host: dict[str, list[Demand]] = {}
        for demand in self.demands:
            if demand.name in where:
                by_host.setdefault(where[demand.name], []).append(demand)
        for name, base in self.base.items():
            state = base.copy()
            if any(state.add(demand) is None for demand in by_host.get(name, ())):
                return None
            found.states[name] = state
        return found

    def after_move(self, vm: str, origin: str, target: str) -> Solution | None:
        """The answer with a resident moved before anything is placed; None when there is no room for it then.

        What is placed on the two hosts stays as far as it still fits: a machine that no longer does is refused.
        """
        source, goal = self.base[origin].copy(), self.base[target].copy()
        demand = dataclasses.replace(source.remove(vm), origin=origin)
        grants = goal.add(demand)
        if grants is None:
            return None
        found = self.copy()
        found.base[origin], found.base[target] = source, goal
        found.moves.append(Placement(vm, target, grants, origin))
        for name in (origin, target):
            state = found.base[name].copy()
            for placed in self.on(name):
                if state.add(placed) is None:
                    del found.where[placed.name]
            found.states[name] = state
        return found
