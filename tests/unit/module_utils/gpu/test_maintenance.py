# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.facts import HostFacts, Intent
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.maintenance import (
    MaintenanceStep,
    plan_enter,
    plan_leave,
)
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.ownership import LEAVING, taken_over

NOW = "2024-05-01T09:00:00.000000Z"
BOOTED = "2024-05-01T08:00:00.000000Z"
OURS = Intent("run-1", "maintenance", NOW)
REBOOTING = dataclasses.replace(OURS, boot_time=BOOTED)
LEFT = dataclasses.replace(REBOOTING, action=LEAVING)


def host(**changes: Any) -> HostFacts:
    return dataclasses.replace(HostFacts("esx-1", "host-1", "gpu", "connected", False, BOOTED), **changes)


def enter(facts: HostFacts | None) -> MaintenanceStep:
    return plan_enter({} if facts is None else {"esx-1": facts}, ["esx-1"], run="run-2", now=NOW)["esx-1"]


def leave(facts: HostFacts | None) -> MaintenanceStep:
    return plan_leave({} if facts is None else {"esx-1": facts}, ["esx-1"])["esx-1"]


NEW = Intent("run-2", "maintenance", NOW)


@pytest.mark.parametrize(
    ("facts", "write", "enters", "owner"),
    [
        pytest.param(host(), NEW, True, "gpuops", id="fresh"),
        pytest.param(host(intent=OURS), None, True, "gpuops", id="died between intent and entering"),
        pytest.param(host(intent=OURS, in_maintenance=True), None, False, "gpuops", id="in it by an earlier run"),
        pytest.param(
            host(intent=REBOOTING, in_maintenance=True, connection="notResponding"),
            None,
            False,
            "gpuops",
            id="rebooting",
        ),
        pytest.param(host(in_maintenance=True), None, False, "other", id="somebody else's"),
        pytest.param(host(intent=LEFT), NEW, True, "gpuops", id="died between leaving and clearing"),
        pytest.param(host(intent=LEFT, in_maintenance=True), NEW, True, "gpuops", id="died about to leave"),
        pytest.param(
            host(intent=LEFT, in_maintenance=True, reentered=True), None, False, "other", id="somebody came after us"
        ),
        pytest.param(
            host(powered_on_vms=("a", "b"), drs_moves_vms=("a", "b")), NEW, True, "gpuops", id="DRS moves them all"
        ),
    ],
)
def test_entering(facts: HostFacts, write: Intent | None, enters: bool, owner: str) -> None:
    step = enter(facts)
    assert (step.write, step.enter, step.leave, step.clear) == (write, enters, False, False)
    assert step.settle == (facts.intent == LEFT and enters)
    assert step.plan.changed == enters
    assert step.plan.notes["maintenance_owner"] == owner
    assert step.plan.notes["left_alone"] == (owner == "other")
    assert bool(step.plan.warnings) == (owner == "other")
    assert not step.plan.failed


@pytest.mark.parametrize(
    ("facts", "leaves", "clears"),
    [
        pytest.param(host(), False, False, id="nothing to do"),
        pytest.param(host(intent=OURS, in_maintenance=True), True, True, id="ours"),
        pytest.param(host(intent=OURS), False, True, id="died between leaving and clearing"),
        pytest.param(host(in_maintenance=True), False, False, id="somebody else's"),
        pytest.param(host(intent=LEFT), False, True, id="died before clearing"),
        pytest.param(host(intent=LEFT, in_maintenance=True), True, True, id="died about to leave"),
        pytest.param(host(intent=LEFT, in_maintenance=True, reentered=True), False, False, id="somebody came after us"),
    ],
)
def test_leaving(facts: HostFacts, leaves: bool, clears: bool) -> None:
    step = leave(facts)
    assert (step.enter, step.leave, step.clear) == (False, leaves, clears)
    assert step.plan.changed == (leaves or clears)
    assert step.plan.notes["left_alone"] == (facts.in_maintenance and not leaves)
    assert not step.plan.failed
    if leaves or clears:
        assert facts.intent is not None
        assert step.mark == dataclasses.replace(facts.intent, action=LEAVING)


@pytest.mark.parametrize(
    ("now", "leaving", "changed", "expected"),
    [
        pytest.param("2024-05-01T09:00:05.000000Z", False, None, False, id="died before asking to leave"),
        pytest.param("2024-05-01T09:00:05.000000Z", False, BOOTED, False, id="only the entering is listed"),
        pytest.param("2024-05-01T09:00:05.000000Z", True, None, False, id="is leaving"),
        pytest.param("2024-05-01T11:00:05.000000Z", True, None, False, id="is leaving, for long"),
        pytest.param("2024-05-01T09:05:00.000000Z", False, "2024-05-01T09:00:20.000000Z", True, id="had left"),
        pytest.param("2024-05-01T09:20:00.000000Z", False, None, True, id="cannot be told any more"),
        pytest.param("2024-05-01T08:59:00.000000Z", False, None, False, id="clocks differ"),
    ],
)
def test_whose_maintenance_mode_it_is_after_a_run_died_leaving(
    now: str, leaving: bool, changed: str | None, expected: bool
) -> None:
    assert taken_over(LEFT, now=now, leaving=leaving, changed=changed) is expected


@pytest.mark.parametrize("started", ["", "yesterday", "2024-05-01T09:00:00"])
def test_a_mark_whose_time_cannot_be_read_is_not_relied_on(started: str) -> None:
    mark = dataclasses.replace(LEFT, started=started)
    assert taken_over(mark, now="2024-05-01T09:00:05.000000Z", leaving=False, changed=None) is True


@pytest.mark.parametrize(
    ("step", "code"),
    [
        pytest.param(enter(host(connection="notResponding", intent=LEFT)), "host_not_connected", id="silent after us"),
        pytest.param(enter(None), "host_not_found", id="enter unknown"),
        pytest.param(leave(None), "host_not_found", id="leave unknown"),
        pytest.param(enter(host(connection="notResponding")), "host_not_connected", id="enter silent"),
        pytest.param(leave(host(connection="notResponding")), "host_not_connected", id="leave silent"),
        pytest.param(
            leave(host(connection="notResponding", intent=REBOOTING)), "host_not_connected", id="leave rebooting"
        ),
        pytest.param(enter(host(powered_on_vms=("a",))), "vms_in_the_way", id="in the way"),
    ],
)
def test_refusals(step: MaintenanceStep, code: str) -> None:
    assert [problem.code for problem in step.plan.problems] == [code]
    assert not step.plan.changed


def test_virtual_machines_in_the_way_are_named_and_the_rest_counted() -> None:
    vms = tuple(f"vm-{number:02}" for number in range(11))
    problem = enter(host(powered_on_vms=("movable", *vms), drs_moves_vms=("movable",))).plan.problems[0]
    assert "vm-00, vm-01" in problem.msg
    assert "vm-07 and 3 more" in problem.msg
    assert "movable" not in problem.msg
    assert problem.kind == "state"


@pytest.mark.parametrize("facts", [host(), host(intent=OURS), host(intent=OURS, in_maintenance=True)])
def test_there_and_back_leaves_nothing_behind(facts: HostFacts) -> None:
    inside = enter(facts).after
    assert inside is not None
    assert inside.in_maintenance
    assert inside.intent is not None
    assert not enter(inside).plan.changed
    outside = leave(inside).after
    assert outside is not None
    assert not outside.in_maintenance
    assert outside.intent is None
    assert not leave(outside).plan.changed
