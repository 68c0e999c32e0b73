"""How an ESXi host divides its CPU time: by reservation, limit, shares and demand, pool by pool.

The rules are those of the vSphere Resource Management guide ("Resource Allocation Reservation, Limit and
Shares", "Managing Resource Pools"): siblings compete in the proportion of their shares; nobody gets more than
it asks for or than its limit; nobody gets less than its reservation, as far as it asks for it; what one does
not use is for the others. A pool asks for what is asked for inside, and divides what it gets by the same rules.
"""

from __future__ import annotations

import dataclasses
import math
import typing as t


@dataclasses.dataclass(frozen=True, slots=True)
class Claim:
    """What one sibling asks for and is entitled to, in MHz."""

    demand: float
    shares: float
    reservation: float = 0.0
    limit: float = math.inf

    @property
    def most(self) -> float:
        """What it can get at most."""
        return max(0.0, min(self.demand, self.limit))

    @property
    def least(self) -> float:
        """What it gets at least."""
        return max(0.0, min(self.reservation, self.most))


@dataclasses.dataclass(frozen=True, slots=True)
class Leaf:
    """A virtual machine."""

    name: str
    claim: Claim


@dataclasses.dataclass(frozen=True, slots=True)
class Branch:
    """A resource pool; it asks for what is asked for inside."""

    shares: float
    children: tuple[Leaf | Branch, ...]
    reservation: float = 0.0
    limit: float = math.inf


def divide(capacity: float, claims: t.Sequence[Claim]) -> list[float]:
    """What each sibling gets of a capacity.

    There is one level L so that each gets `shares * L`, but not less than its least and not more than its
    most. Reservations that together exceed the capacity are cut in proportion (admission keeps that from
    happening, a host that is lost to a cluster does not).
    """
    capacity = max(0.0, capacity)
    least, most = [one.least for one in claims], [one.most for one in claims]
    if sum(most) <= capacity:
        return most
    if (reserved := sum(least)) >= capacity:
        return [one * capacity / reserved if reserved else 0.0 for one in least]
    level = _level(capacity, claims)
    return [min(high, max(low, one.shares * level)) for one, low, high in zip(claims, least, most, strict=True)]


def _level(capacity: float, claims: t.Sequence[Claim]) -> float:
    """The level at which siblings together get just the capacity.

    What they get grows with the level, in straight pieces: one starts to grow at `least / shares` and stops
    at `most / shares`.
    """
    turns: list[tuple[float, float]] = []
    for one in claims:
        if one.shares > 0 and one.most > one.least:
            turns += [(one.least / one.shares, one.shares), (one.most / one.shares, -one.shares)]
    given, growing, level = sum(one.least for one in claims), 0.0, 0.0
    for turn, shares in sorted(turns):
        more = growing * (turn - level)
        if growing and given + more >= capacity:
            break
        given, growing, level = given + more, growing + shares, turn
    return level + (capacity - given) / growing if growing else level


def share_out(capacity: float, root: Branch) -> dict[str, float]:
    """What each virtual machine below a pool gets of a capacity, by name."""
    given: dict[str, float] = {}
    _descend(capacity, root, given)
    return given


def _descend(capacity: float, branch: Branch, given: dict[str, float]) -> None:
    claims = [claim_of(child) for child in branch.children]
    for child, part in zip(branch.children, divide(capacity, claims), strict=True):
        if isinstance(child, Leaf):
            given[child.name] = part
        else:
            _descend(part, child, given)


def claim_of(node: Leaf | Branch) -> Claim:
    """What a machine or a pool claims among its siblings; a pool at least what is reserved inside."""
    if isinstance(node, Leaf):
        return node.claim
    inside = [claim_of(child) for child in node.children]
    return Claim(
        demand=sum(one.most for one in inside),
        shares=node.shares,
        reservation=max(node.reservation, sum(one.least for one in inside)),
        limit=node.limit,
    )
