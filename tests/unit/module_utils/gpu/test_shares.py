# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

import dataclasses
import typing as t

import pytest
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.shares import (
    Allocation,
    ShareFacts,
    SharePlan,
    format_former,
    label_of,
    parse,
    parse_former,
    plan_restore,
    plan_shares,
    remembering,
)
from hypothesis import given, settings
from hypothesis import strategies as st

NORMAL = Allocation("normal", 4000, 0, -1)


def facts(**more: t.Any) -> ShareFacts:
    return ShareFacts(**{"name": "a", "moid": "vm-1", "kind": "vm", "cpu": NORMAL, "memory": NORMAL, **more})


def plan(now: ShareFacts, **item: t.Any) -> SharePlan:
    return plan_shares([parse("a", now.kind, item)], {(now.kind, "a"): [now]}, {})[
        "a" if now.kind == "vm" else "pool a"
    ]


@pytest.mark.parametrize(
    ("item", "actions"),
    [
        ({}, []),
        ({"cpu": {"shares": "normal"}}, []),
        ({"cpu": {"shares": "High "}}, ["set cpu.shares"]),
        ({"cpu": {"shares": 4000}}, ["set cpu.shares"]),
        ({"cpu": {"limit": -1}, "memory": {"reservation": 0}}, []),
        (
            {"memory": {"reservation": 512, "limit": 1024}},
            ["set memory.reservation (512 MB)", "set memory.limit (1024 MB)"],
        ),
    ],
)
def test_only_what_differs_is_changed(item: dict[str, t.Any], actions: list[str]) -> None:
    planned = plan(facts(memory_mb=4096), **item)
    assert planned.plan.problems == ()
    assert [str(change) for change in planned.plan.changes] == actions


@pytest.mark.parametrize(
    ("now", "item", "text"),
    [
        ({}, {"cpu": {"shares": "0"}}, "low, normal, high or a number"),
        ({}, {"cpu": {"reservation": -1}}, "cannot be negative"),
        ({}, {"cpu": {"limit": -2}}, "limit must be -1"),
        ({}, {"cpu": {"reservation": 10, "limit": 5}}, "raise the limit, or reserve less"),
        ({"memory_mb": 1024}, {"memory": {"reservation": 2048}}, "it has 1024 MB"),
        ({"memory_mb": 1024, "memory_locked": True}, {"memory": {"reservation": 512}}, "as GPUs need it"),
        ({"template": True}, {"cpu": {"shares": "high"}}, "template"),
        ({"kind": "pool", "root": True}, {"cpu": {"shares": "high"}}, "Name a pool below it"),
    ],
)
def test_what_cannot_be(now: dict[str, t.Any], item: dict[str, t.Any], text: str) -> None:
    planned = plan(facts(**now), **item)
    assert text in planned.plan.problems[0].msg
    assert planned.after is None


ALLOCATIONS = st.fixed_dictionaries(
    {},
    optional={
        "shares": st.sampled_from(["low", "normal", "high"]) | st.integers(1, 1_000_000).map(str),
        "reservation": st.integers(0, 8192),
        "limit": st.integers(-1, 8192),
        "expandable": st.booleans(),
    },
)


@settings(max_examples=200, deadline=None)
@given(ALLOCATIONS, ALLOCATIONS, st.sampled_from(["vm", "pool"]), st.booleans())
def test_applied_and_planned_again_is_empty(
    cpu: dict[str, t.Any], memory: dict[str, t.Any], kind: t.Any, locked: bool
) -> None:
    size = 4096 if kind == "vm" else None
    reserved = Allocation("normal", 4000, 4096, -1) if locked and kind == "vm" else NORMAL
    now = facts(kind=kind, memory_mb=size, memory_locked=locked and kind == "vm", memory=reserved)
    planned = plan(now, cpu=cpu, memory=memory)
    assert (planned.after is None) == bool(planned.plan.problems)
    if planned.after is not None:
        assert planned.after.memory.limit < 0 or planned.after.memory.limit >= planned.after.memory.reservation
        assert plan(planned.after, cpu=cpu, memory=memory).plan.changes == ()


ALLOCATIONS = st.builds(
    Allocation,
    level=st.sampled_from(["low", "normal", "high", "custom"]),
    shares=st.integers(1, 1_000_000),
    reservation=st.integers(0, 10**6),
    limit=st.one_of(st.just(-1), st.integers(0, 10**6)),
    expandable=st.booleans(),
)


@given(ALLOCATIONS, ALLOCATIONS)
def test_what_is_written_down_is_read_again(cpu: Allocation, memory: Allocation) -> None:
    assert parse_former(format_former(facts(cpu=cpu, memory=memory))) == {"cpu": cpu, "memory": memory}


def remembered(now: ShareFacts, **item: t.Any) -> SharePlan:
    planned = plan_shares([parse("a", now.kind, item)], {(now.kind, "a"): [now]}, {})
    return remembering(planned, [now])[label_of(now.kind, "a")]


def test_the_former_values_are_written_once_and_only_for_a_change() -> None:
    first = remembered(facts(), cpu={"shares": "100"})
    assert first.remember == format_former(facts())
    assert [str(change) for change in first.plan.changes] == ["set gpuops.shares", "set cpu.shares"]
    again = remembered(facts(former=first.remember), cpu={"shares": "50"})
    assert (again.remember, [str(change) for change in again.plan.changes]) == ("", ["set cpu.shares"])
    assert remembered(facts(), cpu={"shares": "normal"}).remember == ""
    assert remembered(facts(), cpu={"shares": "nonsense"}).remember == ""


def restored(now: ShareFacts) -> SharePlan:
    return plan_restore([(now.kind, "a")], {(now.kind, "a"): [now]}, {})[label_of(now.kind, "a")]


@pytest.mark.parametrize("kind", ["vm", "pool"])
def test_what_was_comes_back_and_is_forgotten(kind: t.Any) -> None:
    was = facts(kind=kind, cpu=Allocation("custom", 77, 10, 900, kind == "pool"))
    harvested = dataclasses.replace(was, cpu=Allocation("custom", 1, 0, -1, False), former=format_former(was))
    plan = restored(harvested)
    assert plan.after is not None
    assert (plan.after.cpu, plan.after.memory, plan.forget) == (was.cpu, was.memory, True)
    half = dataclasses.replace(was, former=format_former(was))
    assert [str(change) for change in restored(half).plan.changes] == ["clear gpuops.shares"]
    assert not restored(was).plan.changes
    assert not restored(was).forget


def test_locked_memory_stays_reserved_whatever_was_written_down() -> None:
    was = format_former(facts(memory_mb=4096))
    now = facts(memory=Allocation("custom", 1, 4096, -1), memory_mb=4096, memory_locked=True, former=was)
    plan = restored(now)
    assert plan.plan.problems == ()
    assert plan.after is not None
    assert plan.after.memory.reservation == 4096


def test_a_memory_that_nobody_can_read_is_said() -> None:
    (problem,) = restored(facts(former="somebody's note")).plan.problems
    assert problem.code == "bad_memory"
    assert "by hand" in problem.msg
