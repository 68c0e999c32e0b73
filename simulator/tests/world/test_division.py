"""How a host's CPU time is divided: the rules, for whatever machines and pools there are."""

from __future__ import annotations

import math
import typing as t

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vsphere_simulator.world.division import Branch, Claim, Leaf, claim_of, divide, share_out

NEAR = 1e-6


@st.composite
def claims(draw: st.DrawFn) -> Claim:
    limit = draw(st.one_of(st.just(math.inf), st.floats(0, 5000)))
    return Claim(
        demand=draw(st.floats(0, 5000)),
        shares=draw(st.integers(1, 10_000)),
        reservation=min(draw(st.floats(0, 2000)), limit),
        limit=limit,
    )


CAPACITY = st.floats(0, 20_000)
SIBLINGS = st.lists(claims(), min_size=1, max_size=8)


def close(one: float, other: float) -> bool:
    return math.isclose(one, other, rel_tol=1e-9, abs_tol=NEAR)


@given(CAPACITY, SIBLINGS)
def test_all_is_given_that_is_asked_for_and_no_more_than_there_is(capacity: float, siblings: list[Claim]) -> None:
    given = divide(capacity, siblings)
    assert close(sum(given), min(capacity, sum(one.most for one in siblings)))


@given(CAPACITY, SIBLINGS)
def test_nobody_gets_more_than_asked_for_or_its_limit(capacity: float, siblings: list[Claim]) -> None:
    for got, one in zip(divide(capacity, siblings), siblings, strict=True):
        assert -NEAR <= got <= min(one.demand, one.limit) + NEAR


@given(CAPACITY, SIBLINGS)
def test_reservations_are_kept_as_far_as_they_are_asked_for(capacity: float, siblings: list[Claim]) -> None:
    if sum(one.least for one in siblings) <= capacity:
        for got, one in zip(divide(capacity, siblings), siblings, strict=True):
            assert got >= min(one.reservation, one.demand) - NEAR


@given(CAPACITY, SIBLINGS, st.integers(1, 10_000))
def test_more_shares_never_give_less(capacity: float, siblings: list[Claim], more: int) -> None:
    first, *rest = siblings
    richer = Claim(first.demand, first.shares + more, first.reservation, first.limit)
    before, after = divide(capacity, siblings), divide(capacity, [richer, *rest])
    assert after[0] >= before[0] - NEAR
    assert all(new <= old + NEAR for new, old in zip(after[1:], before[1:], strict=True))


@given(CAPACITY, SIBLINGS)
def test_who_has_neither_enough_nor_a_floor_gets_in_proportion_to_shares(
    capacity: float, siblings: list[Claim]
) -> None:
    given = divide(capacity, siblings)
    between = [
        got / one.shares
        for got, one in zip(given, siblings, strict=True)
        if one.least + NEAR < got < one.most - NEAR and sum(c.least for c in siblings) < capacity
    ]
    assert all(math.isclose(level, between[0], rel_tol=1e-6, abs_tol=1e-6) for level in between)


@given(CAPACITY, SIBLINGS, SIBLINGS, claims())
def test_pools_divide_what_they_get(capacity: float, one: list[Claim], two: list[Claim], shape: Claim) -> None:
    def pool(prefix: str, members: list[Claim]) -> Branch:
        leaves = tuple(Leaf(f"{prefix}{number}", claim) for number, claim in enumerate(members))
        return Branch(shape.shares, leaves, shape.reservation, shape.limit)

    root = Branch(1, (pool("a", one), pool("b", two)))
    given = share_out(capacity, root)
    assert len(given) == len(one) + len(two)
    assert close(sum(given.values()), min(capacity, claim_of(root).most))


TABLE: t.Final = [
    ("enough for all", 1000, [Claim(300, 1), Claim(400, 100)], [300, 400]),
    ("in proportion", 1000, [Claim(2000, 1000), Claim(2000, 3000)], [250, 750]),
    ("what one leaves is for the others", 1000, [Claim(100, 1000), Claim(2000, 1000)], [100, 900]),
    ("a reservation is a floor", 1000, [Claim(2000, 1, 400), Claim(2000, 1000)], [400, 600]),
    ("a reservation nobody asks for is lent", 1000, [Claim(50, 1, 400), Claim(2000, 1000)], [50, 950]),
    ("a limit holds also with room", 1000, [Claim(2000, 1, 0, 150), Claim(100, 1)], [150, 100]),
    ("desktops 100 to 1", 1010, [Claim(800, 100), Claim(5000, 1)], [800, 210]),
    ("reservations above the capacity are cut", 100, [Claim(200, 1, 200), Claim(200, 1, 200)], [50, 50]),
    ("nothing there", 0, [Claim(10, 1)], [0]),
]


@pytest.mark.parametrize(("what", "capacity", "siblings", "expected"), TABLE, ids=[row[0] for row in TABLE])
def test_cases_to_check_by_hand(what: str, capacity: float, siblings: list[Claim], expected: list[float]) -> None:
    assert divide(capacity, siblings) == pytest.approx(expected), what


def test_shares_of_a_pool_count_among_pools_not_among_machines() -> None:
    many = tuple(Leaf(f"many{number}", Claim(1000, 1000)) for number in range(9))
    root = Branch(1, (Branch(1000, many), Branch(1000, (Leaf("one", Claim(1000, 1000)),))))
    assert share_out(1000, root)["one"] == pytest.approx(500)
