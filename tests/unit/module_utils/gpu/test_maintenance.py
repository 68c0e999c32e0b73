# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.drain import Guest, GuestDrain, HostDrain, Way
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.facts import HostFacts, Intent
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.maintenance import (
    MaintenanceStep,
    plan_enter,
    plan_leave,
)
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.membership import REMOVING
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.ownership import (
    DRAINING,
    ENTERING,
    LEAVING,
    TaskSeen,
    ours_since,
    taken_over,
)

NOW = "2024-05-01T09:00:00.000000Z"
BOOTED = "2024-05-01T08:00:00.000000Z"
OURS = Intent("run-1", "maintenance", NOW)
REBOOTING = dataclasses.replace(OURS, boot_time=BOOTED)
LEFT = dataclasses.replace(REBOOTING, action=LEAVING)


def host(**changes: Any) -> HostFacts:
    return dataclasses.replace(HostFacts("esx-1", "host-1", "gpu", "connected", False, BOOTED), **changes)


def enter(facts: HostFacts | None, drain: HostDrain | None = None) -> MaintenanceStep:
    hosts = {} if facts is None else {"esx-1": facts}
    drains = {"esx-1": drain} if drain else {}
    return plan_enter(hosts, ["esx-1"], run="run-2", now=NOW, drains=drains)["esx-1"]


def leave(facts: HostFacts | None) -> MaintenanceStep:
    return plan_leave({} if facts is None else {"esx-1": facts}, ["esx-1"])["esx-1"]


NEW = Intent("run-2", "maintenance", NOW)
ENTERED = dataclasses.replace(OURS, action=ENTERING)
DRAINED = dataclasses.replace(OURS, action=DRAINING)
HALF_REMOVED = dataclasses.replace(OURS, action=REMOVING)


@pytest.mark.parametrize(
    ("facts", "write", "enters", "owner"),
    [
        pytest.param(host(), NEW, True, "gpuops", id="fresh"),
        pytest.param(host(intent=OURS), OURS, True, "gpuops", id="somebody took it out of our maintenance mode"),
        pytest.param(host(intent=ENTERED), OURS, True, "gpuops", id="died before it asked to enter"),
        pytest.param(host(intent=DRAINED), OURS, True, "gpuops", id="died while draining"),
        pytest.param(
            host(intent=DRAINED, in_maintenance=True), None, False, "other", id="entered after we died draining"
        ),
        pytest.param(
            host(intent=ENTERED, in_maintenance=True, reentered=True), None, False, "other", id="entered after us"
        ),
        pytest.param(host(intent=OURS, in_maintenance=True), None, False, "gpuops", id="in it by an earlier run"),
        pytest.param(
            host(intent=REBOOTING, in_maintenance=True, connection="notResponding"),
            None,
            False,
            "gpuops",
            id="rebooting",
        ),
        pytest.param(
            host(intent=HALF_REMOVED, in_maintenance=True, connection="disconnected"),
            None,
            False,
            "gpuops",
            id="died after disconnecting it for its removal",
        ),
        pytest.param(
            host(intent=HALF_REMOVED, in_maintenance=True), None, False, "gpuops", id="died before disconnecting it"
        ),
        pytest.param(host(in_maintenance=True), None, False, "other", id="somebody else's"),
        pytest.param(host(intent=LEFT), NEW, True, "gpuops", id="died between leaving and clearing"),
        pytest.param(host(intent=LEFT, in_maintenance=True), NEW, True, "gpuops", id="died about to leave"),
        pytest.param(
            host(intent=LEFT, in_maintenance=True, reentered=True), None, False, "other", id="somebody came after us"
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


def test_a_host_that_a_killed_run_has_put_into_maintenance_mode_is_ours_and_marked_so() -> None:
    step = enter(host(intent=ENTERED, in_maintenance=True))
    assert (step.write, step.enter, step.plan.changed) == (OURS, False, True)
    assert step.plan.notes["maintenance_owner"] == "gpuops"
    assert not leave(host(intent=ENTERED, in_maintenance=True)).plan.notes["left_alone"]


SOON, LATER = "2024-05-01T09:00:05.000000Z", "2024-05-01T09:10:00.000000Z"


@pytest.mark.parametrize(
    ("history", "expected"),
    [
        pytest.param([("enter", SOON, SOON)], True, id="at once"),
        pytest.param([("enter", SOON, LATER)], True, id="at once, and took long"),
        pytest.param([("enter", LATER, LATER)], False, id="by somebody, later"),
        pytest.param([("enter", SOON, SOON), ("leave", LATER, LATER)], False, id="and out again"),
        pytest.param([("enter", SOON, SOON), ("leave", SOON, SOON), ("enter", LATER, LATER)], False, id="and in again"),
        pytest.param([], False, id="it is not told who"),
    ],
)
def test_whose_maintenance_mode_it_is_after_a_run_died_entering(
    history: list[tuple[str, str, str]], expected: bool
) -> None:
    assert ours_since(ENTERED, [TaskSeen(*task) for task in history], "enter") is expected


@pytest.mark.parametrize(
    ("now", "leaving", "history", "expected"),
    [
        pytest.param(SOON, False, [], False, id="died before asking to leave"),
        pytest.param(SOON, True, [], False, id="is leaving"),
        pytest.param("2024-08-01T09:00:05.000000Z", True, [], False, id="is leaving, for long"),
        pytest.param(SOON, False, [("leave", SOON, SOON)], True, id="had left"),
        pytest.param("2024-05-02T09:20:00.000000Z", False, [], False, id="a day later"),
        pytest.param("2024-06-01T09:20:00.000000Z", False, [], True, id="cannot be told any more"),
        pytest.param("2024-05-01T08:59:00.000000Z", False, [], False, id="clocks differ"),
    ],
)
def test_whose_maintenance_mode_it_is_after_a_run_died_leaving(
    now: str, leaving: bool, history: list[tuple[str, str, str]], expected: bool
) -> None:
    assert taken_over(LEFT, [TaskSeen(*task) for task in history], now=now, leaving=leaving) is expected


@pytest.mark.parametrize("started", ["", "yesterday", "2024-05-01T09:00:00"])
def test_a_mark_whose_time_cannot_be_read_is_not_relied_on(started: str) -> None:
    mark = dataclasses.replace(LEFT, started=started)
    assert taken_over(mark, [], now=SOON, leaving=False) is True
    assert ours_since(mark, [TaskSeen("enter", SOON, SOON)], "enter") is False


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
        pytest.param(enter(host(), HostDrain(blocked=(("a", "why"),))), "vms_in_the_way", id="in the way"),
    ],
)
def test_refusals(step: MaintenanceStep, code: str) -> None:
    assert [problem.code for problem in step.plan.problems] == [code]
    assert not step.plan.changed


def test_virtual_machines_in_the_way_are_named_and_the_rest_counted() -> None:
    vms = tuple((f"vm-{number:02}", "why") for number in range(11))
    problem = enter(host(), HostDrain(drs=("movable",), blocked=vms)).plan.problems[0]
    assert "vm-00, vm-01" in problem.msg
    assert "vm-07 (why); and 3 more" in problem.msg
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


def test_what_the_host_has_on_it_meanwhile_and_then() -> None:
    facts = host(vm_names=("moves", "off", "web"), powered_on_vms=("moves", "web"), drs_moves_vms=("web",))
    guest = Guest("moves", "vm-1", "esx-1", "poweredOn", 4096)
    drain = HostDrain(drs=("web",), drains=(GuestDrain(guest, (Way("migrate", "esx-2"),)),))
    inside = enter(facts, drain).after
    assert inside is not None
    assert (inside.vm_names, inside.powered_on_vms, inside.drs_moves_vms) == (("off",), (), ())
    outside = leave(inside).after
    assert outside is not None
    assert (outside.vm_names, outside.powered_on_vms) == (("off", "moves"), ("moves",))
