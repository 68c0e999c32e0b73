# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Which device each demand gets: a maximum bipartite matching that keeps what is there.

Demands are served in order and phases widen the choice (Kuhn's augmenting paths), so that the result is
deterministic, serves as many demands as can be served, and moves a demand that has a device only where
another one could not be served otherwise.
"""

from __future__ import annotations

import collections
import collections.abc
import dataclasses
import typing as t

Allowed = t.Callable[["Demand", str], bool]


@dataclasses.dataclass(frozen=True, slots=True)
class Demand:
    """One device for one virtual machine."""

    vm: str
    index: int
    """Which of the virtual machine's demands; with `vm` it identifies the demand."""
    candidates: tuple[str, ...]
    """Addresses of the devices that would do, the preferred first."""


@dataclasses.dataclass(frozen=True, slots=True)
class Assignment:
    """The devices given, and what is left wanting."""

    given: t.Mapping[Demand, str]
    missing: tuple[Demand, ...]

    def contenders(self, demand: Demand) -> tuple[Demand, ...]:
        """The demands that compete with one that is missing: their devices could serve it, directly or in turn."""
        holder = {address: other for other, address in self.given.items()}
        reached: dict[Demand, None] = {}
        todo = [demand]
        while todo:
            for address in todo.pop().candidates:
                other = holder.get(address)
                if other is not None and other not in reached:
                    reached[other] = None
                    todo.append(other)
        return tuple(reached)


def assign(demands: collections.abc.Sequence[Demand], phases: collections.abc.Sequence[Allowed]) -> Assignment:
    """Give each demand a device of its own.

    `phases` say which pairs may be used; each must allow what the one before allows. Pairs of an earlier
    phase are preferred.
    """
    given: dict[Demand, str] = {}
    holder: dict[str, Demand] = {}
    for allowed in phases:
        for demand in demands:
            if demand not in given:
                _augment(demand, allowed, given, holder)
    return Assignment(given, tuple(demand for demand in demands if demand not in given))


def _augment(demand: Demand, allowed: Allowed, given: dict[Demand, str], holder: dict[str, Demand]) -> bool:
    """Give the demand a free device, or one whose holder can take another; breadth first, so that few must move."""
    came_from: dict[str, tuple[Demand, str | None]] = {}
    queue: collections.deque[tuple[Demand, str | None]] = collections.deque([(demand, None)])
    while queue:
        current, via = queue.popleft()
        for address in current.candidates:
            if address in came_from or not allowed(current, address):
                continue
            came_from[address] = (current, via)
            other = holder.get(address)
            if other is not None:
                queue.append((other, address))
                continue
            end: str | None = address
            while end is not None:
                taker, end_before = came_from[end]
                given[taker] = end
                holder[end] = taker
                end = end_before
            return True
    return False
