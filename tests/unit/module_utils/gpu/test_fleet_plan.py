# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A plan for hosts that an interrupted run has left half prepared."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.facts import HostFacts, Intent
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.fleet_plan import FleetPlan, plan_fleet
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.placement.site import Capacity, SiteFacts
from ansible_collections.gpuops.vsphere.plugins.modules import gpu_plan
from gpu_builders import SLOTS, V100, gpu, host

GONE = Intent("killed", "maintenance", "2026-01-01T00:00:00Z", boot_time="2026-01-01T00:00:00.000000Z")


def defaults() -> dict[str, Any]:
    return {name: option.get("default") for name, option in gpu_plan.argument_spec().items()}


def planned(esx: HostFacts, changes: list[str]) -> FleetPlan:
    params = defaults()
    want = {"name": "pool-1", "gpus": [{"mode": "dynamic", "id": V100, "count": "1"}], "memory_mb": 4096}
    params |= {
        "action": "expand",
        "hosts": [{"name": "esx", "cluster": "gpu"}],
        "vms": [want],
        "host_changes": {"esx": changes} if changes else {},
        "clusters_now": {"esx": "gpu"},
    }
    return plan_fleet(SiteFacts({"esx": esx}, {}, {"esx": Capacity(2**20, 128)}, {}), params)


PENDING = gpu(SLOTS[0], passthrough_active=False)


@pytest.mark.parametrize(
    ("esx", "changes"),
    [
        (host("esx", PENDING), ["reboot host"]),
        (host("esx", PENDING, in_maintenance=True, intent=GONE), ["reboot host"]),
        (host("esx", PENDING, in_maintenance=True, intent=GONE, connection="notResponding"), []),
    ],
    ids=["the reboot is due", "in our maintenance mode", "it is going on"],
)
def test_a_host_counts_as_it_is_after_the_reboot_that_an_interrupted_run_has_left(
    esx: HostFacts, changes: list[str]
) -> None:
    plan = planned(esx, changes)
    assert plan.problems == []
    assert plan.where == {"pool-1": "esx"}


def test_a_host_that_does_not_answer_for_no_work_of_ours_is_a_problem() -> None:
    plan = planned(host("esx", gpu(SLOTS[0]), connection="notResponding"), [])
    assert {problem.code for problem in plan.problems} >= {"host_not_connected"}


@pytest.mark.parametrize(
    ("esx", "steps"),
    [
        (host("esx", cluster=None), []),
        (host("esx", cluster=None, in_maintenance=True), []),
        (host("esx", cluster=None, in_maintenance=True, intent=GONE), ["change"]),
        (host("esx", in_maintenance=True, intent=GONE), ["remove"]),
    ],
    ids=["gone", "gone, somebody works on it", "its run was killed before it let go of it", "not gone yet"],
)
def test_a_host_that_a_killed_run_took_out_of_its_cluster_is_handed_over(esx: HostFacts, steps: list[str]) -> None:
    params = defaults() | {"action": "contract", "retiring": ["esx"], "hosts": [], "vms": []}
    plan = plan_fleet(SiteFacts({"esx": esx}, {}, {"esx": Capacity(2**20, 128)}, {}), params)
    assert plan.problems == []
    assert [step.action for step in plan.steps] == steps
