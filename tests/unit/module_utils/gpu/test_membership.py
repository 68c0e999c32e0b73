# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Plans of hosts that leave: whose machines may stay registered, and the mark of a removal that has begun."""

from __future__ import annotations

import dataclasses

import pytest
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.facts import HostFacts, Intent
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.membership import (
    REMOVING,
    MemberStep,
    MemberWant,
    State,
    plan_membership,
    removal_begun,
)
from gpu_builders import host

OURS = Intent("run-1", "maintenance", "2026-01-01T00:00:00Z")
REBOOTED = dataclasses.replace(OURS, boot_time="2025-12-31T00:00:00Z")
MARK = dataclasses.replace(OURS, action=REMOVING)


def removal(esx: HostFacts, state: State = "removed") -> MemberStep:
    return plan_membership({"esx": esx}, [MemberWant("esx", state)], clusters=["gpu"])["esx"]


@pytest.mark.parametrize("state", ["standalone", "removed"])
def test_only_the_host_that_may_keep_them_leaves_with_machines(state: State) -> None:
    hosts = {name: host(name, in_maintenance=True, intent=OURS, vm_names=("old",)) for name in ("a", "b")}
    wants = [MemberWant("a", state, keep_vms=True), MemberWant("b", state)]
    steps = plan_membership(hosts, wants, clusters=["gpu"])
    assert {name: [problem.code for problem in step.plan.problems] for name, step in steps.items()} == {
        "a": [],
        "b": ["vms_in_the_way"],
    }


@pytest.mark.parametrize(
    ("esx", "disconnect", "mark"),
    [
        (host("esx", in_maintenance=True, intent=OURS), True, MARK),
        (host("esx", in_maintenance=True, intent=REBOOTED), True, MARK),
        (host("esx", in_maintenance=True, intent=MARK), True, None),
        (host("esx", in_maintenance=True, intent=MARK, connection="disconnected"), False, None),
        (host("esx", connection="notResponding"), False, None),
    ],
    ids=["fresh", "has rebooted before", "died before disconnecting it", "died after that", "lost"],
)
def test_a_host_is_marked_before_it_is_disconnected(esx: HostFacts, disconnect: bool, mark: Intent | None) -> None:
    step = removal(esx)
    assert not step.plan.failed
    assert (step.move, step.disconnect, step.mark) == ("removed", disconnect, mark)
    if esx.answers:
        assert removal(esx, "standalone").mark is None


def test_a_removal_has_begun_where_its_mark_is_on_a_disconnected_host_in_our_maintenance_mode() -> None:
    begun = host("esx", in_maintenance=True, intent=MARK, connection="disconnected")
    assert removal_begun(begun)
    for other in (
        dataclasses.replace(begun, connection="connected"),
        dataclasses.replace(begun, connection="notResponding"),
        dataclasses.replace(begun, in_maintenance=False),
        dataclasses.replace(begun, intent=OURS),
        dataclasses.replace(begun, intent=None),
    ):
        assert not removal_begun(other)
