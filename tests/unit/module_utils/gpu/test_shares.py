# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

import typing as t

import pytest
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.shares import (
    Allocation,
    ShareFacts,
    SharePlan,
    parse,
    plan_shares,
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
