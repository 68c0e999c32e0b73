# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Plans of growing and shrinking: what is deleted, who goes where, and hosts that a run has left half prepared."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.facts import HostFacts, Intent, VmFacts
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.fleet_plan import FleetPlan, plan_fleet, table
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.membership import REMOVING
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.placement.site import Capacity, SiteFacts
from ansible_collections.gpuops.vsphere.plugins.modules import gpu_plan
from gpu_builders import SLOTS, V100, dynamic, fixed, gpu, host, vgpu, vm

GONE = Intent("killed", "maintenance", "2026-01-01T00:00:00Z", boot_time="2026-01-01T00:00:00.000000Z")

OURS = Intent("killed", "maintenance", "2026-01-01T00:00:00Z")
HALF_REMOVED = dataclasses.replace(OURS, action=REMOVING)


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


def fleet(*vms: VmFacts, hosts: tuple[HostFacts, ...] = ()) -> SiteFacts:
    """A site of hosts that know their machines; `b` and `z` are hosts of others."""
    found = hosts or (host("a"), host("b"), host("z", cluster="theirs"), host("old"))
    with_vms = {
        item.name: dataclasses.replace(
            item,
            vm_names=tuple(one.name for one in vms if one.host == item.name),
            powered_on_vms=tuple(one.name for one in vms if one.host == item.name and one.power == "poweredOn"),
        )
        for item in found
    }
    capacity = {item.name: Capacity(2**20, 128) for item in found}
    return SiteFacts(with_vms, {one.name: one for one in vms}, capacity, {})


def plan_of(facts: SiteFacts, **params: Any) -> FleetPlan:
    now = {name: one.cluster for name, one in facts.hosts.items()}
    plan = defaults() | {"pool_prefix": "gpu-pool-", "hosts": [{"name": "a"}], "clusters_now": now} | params
    return plan_fleet(facts, plan)


def steps(plan: FleetPlan) -> list[tuple[str, str]]:
    return [(step.action, step.object) for step in plan.steps]


def want(name: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "gpus": [{"mode": "dynamic", "id": V100, "count": "1"}], "memory_mb": 4096, **more}


@pytest.mark.parametrize(
    ("name", "where", "deleted"),
    [
        ("gpu-pool-05", "a", True),
        ("gpu-pool-100", "a", True),
        ("gpu-pool-05", "old", True),
        ("gpu-pool-05", "z", False),
        ("gpu-pool-05", "b", False),
        ("gpu-pool-05", None, False),
        ("gpu-pool-01-debug-ann", "a", False),
        ("gpu-pool-01-debug-ann", "old", False),
        ("gpu-pool-5", "a", False),
        ("gpu-pool-005", "a", False),
        ("gpu-pool-00", "a", False),
        ("gpu-pool-05\n", "a", False),
        ("GPU-POOL-05", "a", False),
        ("my-gpu-pool-05", "a", False),
    ],
)
@pytest.mark.parametrize("action", ["contract", "site"])
def test_only_machines_of_exactly_the_pool_s_names_on_hosts_of_the_run_are_deleted(
    action: str, name: str, where: str | None, deleted: bool
) -> None:
    plan = plan_of(fleet(vm(name, host=where)), action=action, retiring=["old"])
    assert plan.removed == ([name] if deleted else [])


def test_a_prefix_is_no_pattern_and_none_names_no_machine() -> None:
    facts = fleet(vm("gpuxpool-05", host="a"), vm("05", host="a"))
    assert plan_of(facts, action="contract", pool_prefix="gpu.pool-").removed == []
    assert plan_of(facts, action="contract", pool_prefix="").removed == []


def test_machines_of_the_pool_s_names_elsewhere_are_left_alone_and_that_is_said() -> None:
    vms = (vm("gpu-pool-01", host="z", power="poweredOn"), vm("gpu-pool-05", host="b"))
    plan = plan_of(fleet(*vms), action="contract", vms=[want("gpu-pool-01")])
    assert steps(plan) == []
    assert plan.where == {}
    text = (
        "gpu-pool-01 (on z), gpu-pool-05 (on b): left alone, as the host is not in the inventory, or outside --limit."
    )
    assert text in plan.warnings
    assert text in table(plan)


@pytest.mark.parametrize(("retiring", "removed"), [((), []), (("old",), ["gpu-pool-02"])])
def test_a_pool_whose_size_nobody_says_stays_as_it_is(retiring: tuple[str, ...], removed: list[str]) -> None:
    facts = fleet(vm("gpu-pool-01", host="a"), vm("gpu-pool-02", host="old"))
    plan = plan_of(facts, action="contract", pool_sized=False, retiring=list(retiring))
    assert plan.removed == removed
    assert any("gpu_fleet_pool_size is not set: the pool's size stays as it is" in text for text in plan.warnings)
    assert not any("gpu_fleet_pool_size" in text for text in plan_of(facts, action="contract").warnings)


ROOMY = (host("b", gpu(SLOTS[0])), host("z", gpu(SLOTS[0]), cluster="theirs"))


def test_a_wanted_machine_goes_to_hosts_of_the_run_only() -> None:
    facts = fleet(hosts=(host("a", gpu(SLOTS[0])), *ROOMY))
    plan = plan_of(facts, action="expand", vms=[want(f"gpu-pool-0{number}") for number in (1, 2)])
    assert plan.where == {"gpu-pool-01": "a"}
    [problem] = plan.problems
    assert problem.object == "gpu-pool-02"
    assert "b, z: not in the inventory, or outside --limit" in problem.msg


@pytest.mark.parametrize(
    ("item", "text"),
    [
        ({"host": "b"}, "b is not in the inventory, or outside --limit"),
        ({"cluster": "theirs"}, "no host of cluster theirs is in the inventory, or all are outside --limit"),
        ({"cluster": "nowhere"}, "there is no cluster nowhere"),
    ],
)
def test_a_place_outside_of_the_run_is_refused(item: dict[str, Any], text: str) -> None:
    facts = fleet(hosts=(host("a", gpu(SLOTS[0])), *ROOMY))
    plan = plan_of(facts, action="expand", vms=[want("gpu-pool-01", **item)])
    assert plan.where == {}
    assert [problem.object for problem in plan.problems] == ["gpu-pool-01"]
    assert text in plan.problems[0].msg


def test_a_machine_that_names_no_cluster_may_be_in_any_also_when_a_host_is_in_none() -> None:
    """As after a killed contraction that had taken its host out of the cluster."""
    facts = fleet(hosts=(host("a", gpu(SLOTS[0])), dataclasses.replace(host("old"), cluster=None)))
    plan = plan_of(facts, action="contract", retiring=["old"], vms=[want("gpu-pool-01", cluster=None)])
    assert (plan.where, plan.problems) == ({"gpu-pool-01": "a"}, [])


@pytest.mark.parametrize("allow", [False, True])
def test_a_machine_for_which_no_host_has_a_profile_is_a_loss_that_can_be_allowed(allow: bool) -> None:
    vms = [want("gpu-pool-01", gpus=[{"mode": "vgpu", "at_least_gb": 8, "count": "1"}])]
    plan = plan_of(fleet(), action="expand", vms=vms, allow_capacity_loss=allow)
    assert [problem.code for problem in plan.problems] == ([] if allow else ["no_such_profile"])
    assert any(text.startswith("gpu-pool-01:") for text in plan.warnings) is allow


@pytest.mark.parametrize("allow", [False, True])
def test_what_runs_on_a_retiring_host_may_migrate_to_a_host_outside_and_a_wanted_one_may_not(allow: bool) -> None:
    part = vgpu("grid_v100d-8q")
    vms = (vm("theirs", host="old", power="poweredOn"), vm("gpu-pool-01", part, host="old"))
    facts = fleet(*vms, hosts=(host("a"), host("b", gpu(SLOTS[0])), host("old")))
    plan = plan_of(
        facts,
        action="contract",
        retiring=["old"],
        hosts=[],
        vms=[want("gpu-pool-01")],
        allow_capacity_loss=allow,
    )
    assert plan.moves["theirs"] in ("a", "b")
    assert plan.where == {}
    assert [problem.object for problem in plan.problems] == ([] if allow else ["gpu-pool-01"])


@pytest.mark.parametrize(
    ("here", "params", "names"),
    [
        ((vm("theirs", host="old"),), {}, ["theirs"]),
        (
            (vm("theirs", host="old", power="suspended"), vm("golden", host="old", template=True)),
            {},
            ["theirs", "golden"],
        ),
        ((vm("theirs", host="old"),), {"leave_as": "removed"}, ["theirs"]),
        ((vm("theirs", host="old"),), {"allow_capacity_loss": True}, ["theirs"]),
        ((vm("theirs", host="old"),), {"keep_vms": ["old"]}, []),
        ((vm("theirs", host="old"),), {"keep_vms": ["a"]}, ["theirs"]),
        ((vm("gpu-pool-01", host="old"), vm("own", host="old")), {"leaving": ["own"]}, []),
        ((vm("theirs", host="old", power="poweredOn"),), {}, []),
    ],
    ids=["off", "suspended, template", "removed", "no loss", "kept", "another keeps", "they go", "it migrates"],
)
def test_what_is_off_on_a_retiring_host_is_in_its_way(
    here: tuple[VmFacts, ...], params: dict[str, Any], names: list[str]
) -> None:
    plan = plan_of(fleet(*here), action="contract", retiring=["old"], **params)
    assert [(problem.code, problem.object) for problem in plan.problems] == (
        [("vms_in_the_way", "old")] if names else []
    )
    for problem in plan.problems:
        assert ", ".join(names) in problem.msg
        assert "cluster_member_keep_vms" in problem.msg


@pytest.mark.parametrize("leave_as", ["standalone", "removed"])
@pytest.mark.parametrize(
    ("esx", "codes"),
    [
        (host("old", connection="notResponding"), ["host_not_connected"]),
        (host("old", connection="disconnected"), ["host_not_connected"]),
        (host("old", connection="disconnected", in_maintenance=True), []),
        (host("old", connection="disconnected", in_maintenance=True, intent=OURS), ["host_not_connected"]),
        (host("old", connection="disconnected", intent=HALF_REMOVED), ["host_not_connected"]),
        (host("old", connection="notResponding", in_maintenance=True, intent=HALF_REMOVED), ["host_not_connected"]),
    ],
    ids=[
        "does not respond",
        "disconnected",
        "somebody works on it",
        "disconnected in our maintenance mode",
        "disconnected, and out of it again",
        "lost before it was disconnected",
    ],
)
def test_a_retiring_host_that_does_not_answer_is_a_problem(esx: HostFacts, codes: list[str], leave_as: str) -> None:
    plan = plan_of(fleet(hosts=(host("a"), esx)), action="contract", retiring=["old"], leave_as=leave_as)
    assert [problem.code for problem in plan.problems] == codes


def test_a_removal_that_was_cut_off_is_all_that_is_left_to_do() -> None:
    esx = host("old", connection="disconnected", in_maintenance=True, intent=HALF_REMOVED)
    other = host("older")
    site = fleet(vm("theirs", host="old"), hosts=(host("a"), esx, other))
    asked: dict[str, Any] = {"action": "contract", "retiring": ["old", "older"]}
    plan = plan_of(site, **asked, leave_as="removed", keep_vms=["old"])
    assert plan.problems == []
    assert steps(plan) == [("remove", "old"), ("drain", "older"), ("remove", "older")]
    assert "an interrupted run has disconnected it for that" in table(plan)
    [in_the_way] = plan_of(site, **asked, leave_as="removed").problems
    assert "theirs" in in_the_way.msg
    [problem] = plan_of(site, **asked, leave_as="standalone").problems
    assert "Set gpu_fleet_leave_as: removed to finish that, or reconnect it" in problem.msg


def test_a_host_that_has_left_its_cluster_may_be_switched_off() -> None:
    gone = host("old", cluster=None, connection="notResponding", in_maintenance=True)
    plan = plan_of(fleet(hosts=(host("a"), gone)), action="contract", retiring=["old"])
    assert plan.problems == []
    assert plan.steps == []


@pytest.mark.parametrize(("name", "hint"), [("esx-gup-04", "Did you mean esx-gpu-04?"), ("retired", "")])
def test_a_retiring_host_that_there_is_not_is_a_warning(name: str, hint: str) -> None:
    plan = plan_of(fleet(hosts=(host("a"), host("esx-gpu-04"))), action="contract", retiring=[name])
    assert plan.problems == []
    [text] = plan.warnings
    assert f"The vCenter has no host {name} of esxi_retiring: it has left already, or the name is wrong." in text
    assert text.endswith(hint or "wrong.")


def own(name: str, where: str = "a", **more: Any) -> dict[str, Any]:
    return {"name": name, "host": where, "gpus": [{"mode": "fixed", "id": V100, "count": "1"}], **more}


@pytest.mark.parametrize(
    ("gpus", "places"),
    [
        ([{"mode": "fixed", "id": V100}], {"own": "a", "gpu-pool-01": "a"}),
        ([{"mode": "fixed", "id": V100, "count": "all"}], {"own": "a"}),
        ([{"mode": "fixed", "count": "all"}], {"own": "a"}),
        ([{"mode": "fixed", "address": SLOTS[0]}], {"own": "a", "gpu-pool-01": "a"}),
        ([], {"own": "a", "gpu-pool-01": "a"}),
    ],
)
def test_the_pool_leaves_the_gpus_to_the_host_s_own_machines(
    gpus: list[dict[str, Any]], places: dict[str, str]
) -> None:
    facts = fleet(hosts=(host("a", gpu(SLOTS[0]), gpu(SLOTS[1])),))
    plan = plan_of(facts, action="expand", vms=[want("gpu-pool-01")], own=[own("own", gpus=gpus)])
    assert plan.where == places
    assert {problem.object for problem in plan.problems} == {"own", "gpu-pool-01"} - places.keys()
    assert {step.object for step in plan.steps} == places.keys()
    assert plan.work == places
    shrunk = plan_of(facts, action="contract", vms=[want("gpu-pool-01")], own=[own("own", gpus=gpus)])
    assert shrunk.work == {name: where for name, where in places.items() if name != "own"}
    assert "own" not in {step.object for step in shrunk.steps}


@pytest.mark.parametrize(
    "gpus",
    [
        [{"mode": "device_group", "name": "Nvidia:2@nvidia_a100-80c%NVLink"}],
        [{"mode": "vgpu", "at_least_gb": 4}],
        [{"mode": "vgpu", "profile": "grid_t4-8c"}],
        [{"mode": "fixt"}],
        [{}],
    ],
)
def test_gpus_that_the_plan_cannot_count_are_said_and_left_to_the_stage(gpus: list[dict[str, Any]]) -> None:
    plan = plan_of(fleet(hosts=(host("a"),)), action="expand", own=[own("own", gpus=gpus)])
    assert plan.problems == []
    assert ("add", "own") in steps(plan)
    assert any(
        "own: its GPUs depend on what the host offers then; the plan does not count them." in w for w in plan.warnings
    )


def test_a_machine_of_its_own_without_room_is_in_the_way_of_an_expansion_only() -> None:
    facts = fleet(hosts=(host("a"),))
    assert [p.object for p in plan_of(facts, action="expand", own=[own("own")]).problems] == ["own"]
    assert plan_of(facts, action="contract", own=[own("own")]).problems == []


ONE_GPU = [{"mode": "dynamic", "id": V100, "count": "1"}]


@pytest.mark.parametrize("power", ["poweredOn", "poweredOff"])
@pytest.mark.parametrize("action", ["expand", "contract"])
@pytest.mark.parametrize(
    ("attached", "gpus", "more", "text"),
    [
        ([dynamic()], ONE_GPU, {}, None),
        ([dynamic()], [{"mode": "dynamic", "id": V100.upper(), "count": "1"}], {}, None),
        ([dynamic()], [{"mode": "dynamic", "id": V100, "count": "2"}], {}, "2 x GPU 10de:1db6 (dynamic), now 1 x GPU"),
        ([dynamic(), dynamic(key=13001)], ONE_GPU, {}, "1 x GPU 10de:1db6 (dynamic), now 2 x GPU"),
        ([fixed(SLOTS[0])], ONE_GPU, {}, "1 x GPU 10de:1db6 (dynamic), now 1 x GPU 10de:1db6 (fixed)"),
        ([], ONE_GPU, {}, "1 x GPU 10de:1db6 (dynamic), now no GPU"),
        ([dynamic()], ONE_GPU, {"memory_mb": 65536}, "memory 65536 MB, now 32768 MB"),
        ([fixed(SLOTS[0])], [{"mode": "fixed", "address": SLOTS[0], "count": "1"}], {}, None),
        ([fixed(SLOTS[0])], [{"mode": "fixed", "address": SLOTS[1], "count": "1"}], {}, f"GPU {SLOTS[1]}"),
    ],
)
def test_what_differs_from_the_inventory_is_a_step(
    attached: list[Any], gpus: list[dict[str, Any]], more: dict[str, Any], text: str | None, action: str, power: str
) -> None:
    machine = vm("gpu-pool-01", *attached, host="a", power=power)
    facts = fleet(machine, hosts=(host("a", gpu(SLOTS[0]), gpu(SLOTS[1])),))
    item = {"name": "gpu-pool-01", "gpus": gpus, "memory_mb": 32768, **more}
    plan = plan_of(facts, action=action, vms=[item])
    assert plan.problems == []
    assert plan.where == {"gpu-pool-01": "a"}
    changes = [step for step in plan.steps if step.action == "change"]
    assert plan.work == ({} if not changes else {"gpu-pool-01": "a"})
    if power == "poweredOn" and text is None:
        assert changes == []
        return
    [step] = changes
    assert (text or "power on") in step.what
    assert ("now" in step.what) == (text is not None)
    assert any("gpu_vm_power" in need for need in step.needs) == (power == "poweredOn")


def test_a_change_without_room_is_in_the_way() -> None:
    machine = vm("gpu-pool-01", dynamic(), host="a", power="poweredOn")
    facts = fleet(machine, hosts=(host("a", gpu(SLOTS[0])),))
    item = want("gpu-pool-01") | {"gpus": [{"mode": "dynamic", "id": V100, "count": "2"}]}
    plan = plan_of(facts, action="expand", vms=[item])
    assert [problem.object for problem in plan.problems] == ["gpu-pool-01"]


def test_jobs_that_are_waited_for_are_named_and_stop_nothing() -> None:
    facts = fleet(vm("gpu-pool-01", host="a", power="poweredOn"))
    waited = {"gpu-pool-01": ["4711 (ann)"], "gpu-pool-02": ["4712 (bob)"]}
    plan = plan_of(facts, action="contract", jobs_waited_for=waited)
    assert plan.problems == []
    [step] = plan.steps
    assert step.jobs == ("4711 (ann)",)
    assert step.needs == ("its jobs ended, or their time over",)
    both = plan_of(facts, action="contract", jobs_waited_for=waited, jobs={"gpu-pool-01": ["4711 (ann)", "4713 (eve)"]})
    assert both.steps[0].jobs == ("4711 (ann)", "4713 (eve)")
    assert [problem.code for problem in both.problems] == ["jobs_running"]
