# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.facts import HostFacts, Intent, PciFunction
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.power import (
    RebootStep,
    plan_reboot,
    plan_reboot_due,
    rebooted,
)

NOW = "2024-05-01T09:00:00.000000Z"
BEFORE = "2024-05-01T08:00:00.000000Z"
LATER = "2024-05-01T10:00:00.000000Z"
OURS = Intent("run-1", "maintenance", NOW)
RECORDED = dataclasses.replace(OURS, boot_time=BEFORE)
REBOOT_ONLY = Intent("run-1", "reboot", NOW, boot_time=BEFORE)
PENDING = (PciFunction("0000:3b:00.0", 0x10DE, 0x1DB6, 0x0302, "V100", True, True, False),)
ACTIVE = (PciFunction("0000:3b:00.0", 0x10DE, 0x1DB6, 0x0302, "V100", True, True, True),)


def host(**changes: Any) -> HostFacts:
    plain = HostFacts("esx-1", "host-1", "gpu", "connected", True, BEFORE, devices=PENDING, intent=OURS)
    return dataclasses.replace(plain, **changes)


def plan(facts: HostFacts | None, **options: Any) -> RebootStep:
    return plan_reboot({} if facts is None else {"esx-1": facts}, ["esx-1"], run="run-2", now=NOW, **options)["esx-1"]


@pytest.mark.parametrize(
    ("facts", "options", "expected"),
    [
        # expected: (reboot, wait_beyond, stores the boot time, clears the intent)
        pytest.param(host(), {}, (True, BEFORE, True, False), id="passthrough waits"),
        pytest.param(host(intent=RECORDED), {}, (True, BEFORE, False, False), id="died before the reboot"),
        pytest.param(
            host(intent=RECORDED, devices=ACTIVE), {}, (True, BEFORE, False, False), id="recorded, not for passthrough"
        ),
        pytest.param(
            host(intent=RECORDED, devices=ACTIVE, boot_time=LATER), {}, (False, None, False, False), id="has rebooted"
        ),
        pytest.param(
            host(intent=RECORDED, boot_time=LATER), {}, (True, LATER, True, False), id="more devices since the reboot"
        ),
        pytest.param(
            host(intent=RECORDED, connection="notResponding", boot_time=None),
            {},
            (False, BEFORE, False, False),
            id="died during the reboot",
        ),
        pytest.param(host(devices=ACTIVE), {}, (False, None, False, False), id="nothing waits"),
        pytest.param(
            host(devices=ACTIVE), {"when_needed": False}, (True, BEFORE, True, False), id="asked for in any case"
        ),
        pytest.param(
            host(devices=ACTIVE, intent=RECORDED, boot_time=LATER),
            {"when_needed": False},
            (False, None, False, False),
            id="asked for, done by the interrupted run",
        ),
        pytest.param(
            host(in_maintenance=False, intent=None),
            {"force": True},
            (True, BEFORE, True, True),
            id="by force, intent of its own",
        ),
        pytest.param(
            host(in_maintenance=False, intent=REBOOT_ONLY, connection="notResponding"),
            {"force": True},
            (False, BEFORE, False, True),
            id="died during a forced reboot",
        ),
        pytest.param(
            host(in_maintenance=False, intent=REBOOT_ONLY, devices=ACTIVE, boot_time=LATER),
            {},
            (False, None, False, True),
            id="died before clearing",
        ),
    ],
)
def test_resuming(facts: HostFacts, options: dict[str, Any], expected: tuple[bool, str | None, bool, bool]) -> None:
    step = plan(facts, **options)
    assert (step.reboot, step.wait_beyond, step.write is not None, step.clear) == expected
    assert step.plan.changed == any(expected)
    assert not step.plan.failed
    if step.write is not None:
        assert step.write.boot_time == facts.boot_time
        assert step.write.action == ("maintenance" if facts.in_maintenance else "reboot")


@pytest.mark.parametrize(
    ("boot_time", "expected"),
    [
        pytest.param(None, False, id="not told"),
        pytest.param(BEFORE, False, id="the same"),
        pytest.param("2024-05-01T08:00:03.250000Z", False, id="wavers up"),
        pytest.param("2024-05-01T07:59:57.000000Z", False, id="wavers down"),
        pytest.param("2024-05-01T08:00:59.999999Z", False, id="just not"),
        pytest.param("2024-05-01T08:01:00.000000Z", True, id="just so"),
        pytest.param("2024-05-01T10:00:00Z", True, id="later"),
    ],
)
def test_a_reboot_is_told_from_a_boot_time_that_wavers(boot_time: str | None, expected: bool) -> None:
    assert rebooted(BEFORE, boot_time) is expected


@pytest.mark.parametrize("boot_time", ["2024-05-01T08:00:03.000000Z", "2024-05-01T07:59:58.000000Z"])
def test_a_reboot_on_record_is_asked_for_with_the_boot_time_on_record(boot_time: str) -> None:
    for devices in (PENDING, ACTIVE):
        step = plan(host(intent=RECORDED, boot_time=boot_time, devices=devices))
        assert (step.reboot, step.wait_beyond, step.write) == (True, BEFORE, None)


@pytest.mark.parametrize(
    ("facts", "code"),
    [
        pytest.param(None, "host_not_found", id="unknown"),
        pytest.param(host(connection="notResponding"), "host_not_connected", id="silent for another reason"),
        pytest.param(host(connection="disconnected", intent=None), "host_not_connected", id="disconnected"),
        pytest.param(host(in_maintenance=False, intent=None), "not_in_maintenance", id="not in maintenance mode"),
    ],
)
def test_refusals(facts: HostFacts | None, code: str) -> None:
    step = plan(facts)
    assert [problem.code for problem in step.plan.problems] == [code]
    assert (step.reboot, step.wait_beyond) == (False, None)


def test_a_host_somebody_works_on_is_not_rebooted() -> None:
    step = plan(host(intent=None), when_needed=False, force=True)
    assert (step.reboot, step.plan.changed, step.plan.notes["left_alone"]) == (False, False, True)


def test_the_prediction_lets_later_steps_plan_on() -> None:
    step = plan(host())
    assert step.after is not None
    assert step.after.devices == ACTIVE
    assert step.plan.notes["reboot_required"] is False
    assert not plan(step.after).plan.changed


def due(facts: HostFacts | None, **options: Any) -> RebootStep:
    hosts = {} if facts is None else {"esx-1": facts}
    return plan_reboot_due(hosts, ["esx-1"], run="run-2", now=NOW, **options)["esx-1"]


@pytest.mark.parametrize(
    ("facts", "options", "written"),
    [
        pytest.param(host(), {}, dataclasses.replace(OURS, boot_time=BEFORE), id="first record"),
        pytest.param(host(intent=RECORDED), {}, None, id="on record, not done yet"),
        pytest.param(host(intent=RECORDED, boot_time="2024-05-01T08:00:03Z"), {}, None, id="the same boot, told anew"),
        pytest.param(
            host(intent=RECORDED, boot_time=LATER),
            {},
            dataclasses.replace(OURS, boot_time=LATER),
            id="the reboot on record is done, one more is due",
        ),
        pytest.param(
            host(in_maintenance=False, intent=None),
            {"force": True},
            Intent("run-2", "reboot", NOW, boot_time=BEFORE),
            id="by force, intent of its own",
        ),
    ],
)
def test_a_due_reboot_is_recorded_once_for_each_boot(
    facts: HostFacts, options: dict[str, Any], written: Intent | None
) -> None:
    step = due(facts, **options)
    assert step.write == written
    assert (step.reboot, step.wait_beyond, step.clear, step.plan.failed) == (False, None, False, False)
    assert step.plan.changed is (written is not None)
    assert step.after is not None
    assert not due(step.after, **options).plan.changed
    later = plan(dataclasses.replace(step.after, devices=ACTIVE), **options)
    assert (later.reboot, later.wait_beyond) == (True, (step.after.intent or OURS).boot_time)


@pytest.mark.parametrize(
    ("facts", "code"),
    [
        pytest.param(None, "host_not_found", id="unknown"),
        pytest.param(host(intent=RECORDED, connection="notResponding"), "host_not_connected", id="silent"),
        pytest.param(host(in_maintenance=False, intent=None), "not_in_maintenance", id="not in maintenance mode"),
    ],
)
def test_a_due_reboot_is_not_recorded_where_it_could_not_follow(facts: HostFacts | None, code: str) -> None:
    step = due(facts)
    assert [problem.code for problem in step.plan.problems] == [code]
    assert step.write is None


def test_no_reboot_is_recorded_on_a_host_somebody_works_on() -> None:
    step = due(host(intent=None), force=True)
    assert (step.write, step.plan.changed, step.plan.notes["left_alone"]) == (None, False, True)
