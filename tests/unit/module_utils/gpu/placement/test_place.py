# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What placement answers, case by case, and what it says of machines that find no place."""

from __future__ import annotations

import dataclasses
import typing as t

import pytest
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.placement.admission import HostState, admit
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.placement.heuristic import solve
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.placement.model import (
    GOALS,
    Cost,
    Demand,
    Gpu,
    Host,
    Instance,
    Need,
    Resident,
)
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.placement.place import place, result
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.placement.profiles import UnknownProfileError, profile
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.placement.solution import Solution
from placement_cases import ADDRESSES, HALF, check, fleet, gpus, vgpu, whole


def resident(host: Host, *demands: Demand, movable: bool = True) -> Host:
    """The host with machines on it."""
    state = HostState.of(host)
    for demand in demands:
        assert state.add(demand) is not None
    return dataclasses.replace(
        host,
        gpus=state.gpus,
        free_memory_mb=state.memory_mb,
        residents=tuple(Resident(demand, grants, movable) for demand, grants in state.vms.values()),
    )


def where(instance: Instance) -> dict[str, str]:
    """Host by machine."""
    answer = place(instance)
    check(instance, answer)
    return {step.vm: step.host for step in answer.placements}


@pytest.mark.parametrize(
    ("use", "profiles", "starts"),
    [
        ("same_size", ["a100-20c", "a100-20c"], [0, 20]),
        ("same_size", ["a100-20c", "a100-10c"], None),
        ("same_size", ["a100-4c"] * 10, [0, 4, 8, 12, 16, 20, 24, 28, 32, 36]),
        ("same_size", ["a100-4c"] * 11, None),
        ("mixed_size", ["a100-20c", "a100-10c", "a100-8c"], [0, 20, 32]),
        ("mixed_size", ["a100-4c"] * 9, None),
        ("mixed_size", ["a100-8c"] * 5, None),
        ("mixed_size", ["a100-10c", "a100-8q"], None),
        ("mixed_size", ["a100d-16c"], None),
        ("none", ["a100-4c"], None),
        ("passthrough", ["a100-4c"], None),
    ],
)
def test_one_gpu_takes_what_nvidias_tables_say(use: t.Any, profiles: list[str], starts: list[int] | None) -> None:
    admitted = admit(gpus(1, use=use), "performance", tuple(vgpu(f"nvidia_{name}") for name in profiles))
    assert (admitted and [grant.slot.start for grant in admitted[1] if grant.slot]) == starts


@pytest.mark.parametrize(("policy", "used"), [("performance", [0, 1, 2]), ("consolidation", [0, 0, 0])])
def test_the_policy_of_the_host_says_which_gpu_it_takes(policy: t.Any, used: list[int]) -> None:
    admitted = admit(gpus(3), policy, (vgpu("a100-10c", 3),))
    assert admitted is not None
    assert [ADDRESSES.index(grant.address) for grant in admitted[1]] == used


def test_goals() -> None:
    hosts = tuple(Host(f"esx-{n}", "gpu", gpus(2), policy="consolidation") for n in range(3))
    wanted = tuple(Demand(f"vm-{n}", (vgpu("a100-20c"),)) for n in range(3))
    assert sorted(where(Instance(hosts, wanted, "spread")).values()) == ["esx-0", "esx-1", "esx-2"]
    assert set(where(Instance(hosts, wanted, "fewest_hosts")).values()) == {"esx-0"}
    half = resident(hosts[2], Demand("old", (vgpu("a100-20c"),)))
    fill = place(Instance((*hosts[:2], half), wanted[:1], "fill"))
    assert (fill.placements[0].host, fill.placements[0].grants[0].address) == ("esx-2", ADDRESSES[0])
    assert fill.optimal


@pytest.mark.parametrize("goal", GOALS)
@pytest.mark.parametrize("policy", ["performance", "consolidation"])
@pytest.mark.parametrize(("hosts", "each", "load"), [(60, 4, 0.7), (60, 4, 0.97), (20, 4, 0.9), (8, 8, 0.8)], ids=str)
def test_no_goal_costs_a_machine_its_place(hosts: int, each: int, load: float, policy: str, goal: t.Any) -> None:
    for seed in (1, 2, 3):
        instance = fleet(hosts, each, load, seed=seed, policy=policy, goal=goal)
        answer = place(instance, "heuristic")
        check(instance, answer)
        assert not answer.refused


def test_the_solver_starts_from_the_answer_that_serves_all() -> None:
    instance = fleet(8, 8, 0.8)
    answer = place(instance)
    check(instance, answer)
    assert (answer.engine, answer.refused) == ("cp-sat", ())


@pytest.mark.parametrize("use", ["same_size", "mixed_size"])
def test_with_too_little_room_every_goal_refuses_as_few(use: str) -> None:
    refused = {}
    for goal in GOALS:
        instance = fleet(20, 4, 1.2, use=use, goal=goal)
        refused[goal] = place(instance, "heuristic").cost.refused
    assert len(set(refused.values())) == 1, refused
    assert refused["spread"] > 0


def test_nobody_is_refused_who_fits_beside_the_others() -> None:
    """Memory runs short for the large: what is left over is given to those who can do with it."""
    hosts = tuple(Host(f"esx-{n}", "gpu", gpus(4, use="mixed_size"), free_memory_mb=1000) for n in range(6))
    kinds = ((40, 90), (40, 30), (20, 210), (10, 64), (8, 150), (4, 30))
    wanted = tuple(
        Demand(f"vm-{n}", (vgpu(f"a100-{size}c"),), memory_mb=memory) for n, (size, memory) in enumerate(kinds * 12)
    )
    for goal in GOALS:
        solution = solve(Instance(hosts, wanted, goal), tries=0)
        for demand in solution.refused:
            roomy = [name for name, state in solution.states.items() if state.admits(demand) is not None]
            assert not [name for name in roomy if solution.rebuilt(name, more=[demand]) is not None]


def test_spread_stays_even_where_only_full_gpus_serve_all() -> None:
    """The mean is 6.7 machines on a host: the sum of squares is within a tenth of what no answer can be below."""
    answer = place(fleet(60, 4, 0.7))
    assert answer.cost.goal <= 1.1 * answer.bound.goal


@pytest.mark.parametrize("load", [0.5, 1.2])
def test_the_work_grows_with_the_fleet_and_not_with_its_square(load: float) -> None:
    """Counted in questions to a host, as seconds depend on the machine."""
    steps = []
    for hosts in (50, 200):
        admit.cache_clear()
        solve(fleet(hosts, 4, load))
        asked = admit.cache_info()
        steps.append(asked.hits + asked.misses)
    assert steps[1] < 6 * steps[0]


def test_anti_affinity_clusters_and_fixed_hosts_hold() -> None:
    hosts = (Host("a", "gpu", gpus(2)), Host("b", "gpu", gpus(2)), Host("c", "other", gpus(2)))
    apart = tuple(Demand(f"vm-{n}", (vgpu("a100-10c"),), groups=("db",)) for n in range(3))
    assert sorted(where(Instance(hosts, apart)).values()) == ["a", "b", "c"]
    inside = Instance(hosts, tuple(dataclasses.replace(demand, cluster="gpu") for demand in apart))
    assert sorted(where(inside).values()) == ["a", "b"]
    assert where(Instance(hosts, (Demand("vm", (vgpu("a100-10c"),), host="b"),))) == {"vm": "b"}


def test_a_spare_host_is_kept_where_there_is_room_for_it() -> None:
    hosts = tuple(Host(f"esx-{n}", "gpu", gpus(2, use="passthrough")) for n in range(3))
    wanted = tuple(Demand(f"vm-{n}", (whole(2),)) for n in range(3))
    answer = place(Instance(hosts, wanted, spare_host=True))
    assert len(answer.placements) == 2
    assert answer.refused[0].code == "spare_host"
    assert "spare: none" in answer.refused[0].advice
    assert len(place(Instance(hosts, wanted)).placements) == 3


def test_the_fewest_moves_make_room_for_a_host_that_is_emptied() -> None:
    """Two halves leave; both find room when one quarter moves to the other."""
    leaving = resident(
        Host("old", "gpu", gpus(1)), Demand("h1", (vgpu("a100-20c"),)), Demand("h2", (vgpu("a100-20c"),))
    )
    quarter = resident(Host("a", "gpu", gpus(1)), Demand("q", (vgpu("a100-10c"),)))
    more = resident(Host("b", "gpu", gpus(1)), Demand("q2", (vgpu("a100-10c"),)))
    hosts = (dataclasses.replace(leaving, closed="is to leave"), quarter, more)
    demands = tuple(Demand(name, (vgpu("a100-20c"),), origin="old") for name in ("h1", "h2"))
    assert len(place(Instance(hosts, demands)).refused) == 2
    answer = place(Instance(hosts, demands, max_moves=3))
    check(Instance(hosts, demands, max_moves=3), answer)
    assert answer.cost.refused == 0
    assert [(step.vm, step.origin, step.host) for step in answer.moves] in ([("q", "a", "b")], [("q2", "b", "a")])
    assert {step.origin for step in answer.placements} == {"old"}
    assert answer.optimal


REFUSALS: list[tuple[str, Demand, list[Host], str, str]] = [
    ("a name", Demand("v", host="esx-9"), [Host("esx-1")], "host_not_found", "Correct the name of the host."),
    ("a cluster", Demand("v", cluster="gqu"), [Host("esx-1", "gpu")], "cluster_not_found", "Correct the name."),
    (
        "maintenance",
        Demand("v", (vgpu("a100-10c"),)),
        [Host("esx-1", None, gpus(1), closed="is in maintenance mode")],
        "hosts_closed",
        "It would fit on esx-1, which is in maintenance mode.",
    ),
    (
        "memory",
        Demand("v", (vgpu("a100-10c"),), memory_mb=9000),
        [Host("esx-1", None, gpus(1), free_memory_mb=8200)],
        "memory_short",
        "With at most 8192 MB of memory it would fit on esx-1.",
    ),
    (
        "processors",
        Demand("v", (vgpu("a100-10c"),), cpus=9),
        [Host("esx-1", None, gpus(1), free_cpus=8)],
        "cpus_short",
        "With at most 8 CPUs it would fit on esx-1; or raise cpu_overcommit.",
    ),
    (
        "another size",
        Demand("v", (vgpu("a100-10c"),)),
        [resident(Host("esx-1", None, gpus(1)), Demand("old", (vgpu("a100-20c"),)))],
        "gpus_taken",
        "Room for it appears on esx-1 when old leaves or is powered off; or add a host.",
    ),
    (
        "a move",
        Demand("v", (whole(2),)),
        [
            resident(Host("esx-1", None, gpus(2, use="passthrough")), Demand("old", (whole(),))),
            Host("esx-2", None, gpus(1, use="passthrough")),
        ],
        "gpus_taken",
        "Moving old from esx-1 to esx-2 would make room: do that first.",
    ),
    (
        "not set up",
        Demand("v", (vgpu("a100-10c"),)),
        [Host("esx-1", None, gpus(1, use="none"))],
        "gpus_not_ready",
        "Add a host with 1 x a100-10c free, or ask for less.",
    ),
    (
        "no such board",
        Demand("v", (whole(1, "10de:20b5"),)),
        [Host("esx-1", None, gpus(1, use="passthrough"))],
        "no_such_gpu",
        "Add a host with 1 x GPU 10de:20b5 (dynamic) free, or ask for less.",
    ),
    (
        "another cluster",
        Demand("v", (vgpu("a100-10c"),), cluster="gpu"),
        [Host("esx-1", "gpu"), Host("esx-2", "other", gpus(1))],
        "no_such_gpu",
        "It would fit on esx-2 in cluster other, if it might go there.",
    ),
]


@pytest.mark.parametrize(("_what", "demand", "hosts", "code", "advice"), REFUSALS, ids=[item[0] for item in REFUSALS])
def test_a_refusal_says_why_and_what_would_help(
    _what: str, demand: Demand, hosts: list[Host], code: str, advice: str
) -> None:
    (refusal,) = place(Instance(tuple(hosts), (demand,))).refused
    assert (refusal.vm, refusal.code) == ("v", code)
    assert refusal.advice == advice


def test_no_advice_waits_for_a_machine_that_is_not_there() -> None:
    """Both ask for the GPU, and neither runs: there is nobody who could leave."""
    hosts = (Host("esx-1", None, gpus(1)),)
    wanted = tuple(Demand(name, (vgpu("a100-20c"),)) for name in ("v1", "v2", "v3"))
    (refusal,) = place(Instance(hosts, wanted)).refused
    assert (refusal.vm, refusal.code) == ("v3", "gpus_taken")
    assert refusal.advice == "Add a host with 1 x a100-20c free, or ask for less."


def test_who_finds_room_only_after_the_others_is_told_so() -> None:
    """The largest come first, and performance gives each an empty GPU; the solver is not asked to do better."""
    hosts = (Host("esx-1", None, gpus(1)),)
    demand = Demand("v", (vgpu("a100-20c"),))
    (refusal,) = result(Solution.empty(Instance(hosts, (demand,))), Cost(), "heuristic").refused
    assert refusal.code == "placed_too_early"
    assert "none" not in refusal.advice
    assert refusal.reason == (
        "it needs 1 x a100-20c, and finds that nowhere: there is room when the others have been placed, and no"
        " order was found in which all fit, on esx-1."
    )
    assert refusal.advice == "Power on the others, then ask for it again: it would fit on esx-1."


def test_each_host_has_its_own_profile_for_what_is_asked() -> None:
    half = Need("vgpu", wanted=HALF)
    hosts = (
        Host("a", "gpu", gpus(1), profiles=((HALF, "nvidia_a100-10c"),)),
        Host("b", "gpu", gpus(1), profiles=((HALF, "nvidia_a100-20c"),)),
        Host("c", "gpu", gpus(1), unmet=((HALF, "No vGPU profile of c has that."),)),
    )
    for solver in ("heuristic", "search", "cp_sat"):
        instance = Instance(hosts, tuple(Demand(f"vm-{n}", (half,)) for n in range(7)))
        answer = place(instance, t.cast("t.Any", solver))
        check(instance, answer)
        got = sorted((step.host, step.grants[0].profile) for step in answer.placements)
        assert got == [("a", "nvidia_a100-10c")] * 4 + [("b", "nvidia_a100-20c")] * 2
        assert [refusal.code for refusal in answer.refused] == ["gpus_taken"]
        assert "1 x vGPU with compute class, at least 10 GB, at most 0.5 of a GPU" in answer.refused[0].reason
    (refusal,) = place(Instance(hosts[2:], (Demand("v", (half,)),))).refused
    assert (refusal.code, refusal.advice) == ("no_such_profile", "No vGPU profile of c has that.")


def test_labels_and_addresses_choose_among_gpus() -> None:
    hosts = (
        Host(
            "esx",
            None,
            (
                Gpu(ADDRESSES[0], "10de:20f1", "a100", "passthrough"),
                Gpu(ADDRESSES[1], "10de:20f1", "a100", "passthrough", label="fast"),
            ),
        ),
    )
    needs = {"l": Need("dynamic", label="fast"), "a": Need("fixed", address=ADDRESSES[0])}
    answer = place(Instance(hosts, tuple(Demand(name, (need,)) for name, need in needs.items())))
    assert {step.vm: step.grants[0].address for step in answer.placements} == {"l": ADDRESSES[1], "a": ADDRESSES[0]}


def test_a_profile_that_does_not_exist_is_named_with_those_that_do() -> None:
    with pytest.raises(UnknownProfileError, match=r"a100 has no profile of 7 GB; it has a100-4c, a100-5c"):
        profile("nvidia_a100-7c")
    with pytest.raises(UnknownProfileError, match="not the name of a vGPU profile"):
        profile("fast")
    with pytest.raises(UnknownProfileError, match=r"nvidia_a100-1-5c is MIG-backed.*choose a host for its machine"):
        profile("nvidia_a100-1-5c")


def test_without_ortools_answers_are_bounded_and_keep_every_rule(monkeypatch: pytest.MonkeyPatch) -> None:
    from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.placement import cpsat

    monkeypatch.setattr(cpsat, "HAS_ORTOOLS", False)
    hosts = tuple(Host(f"esx-{n}", "gpu", gpus(2, use="mixed_size")) for n in range(8))
    sizes = (4, 8, 10, 20)
    instance = Instance(
        hosts, tuple(Demand(f"vm-{n}", (vgpu(f"a100-{sizes[n % 4]}c"),)) for n in range(40)), "fewest_hosts"
    )
    answer = place(instance)
    check(instance, answer)
    assert answer.engine == "heuristic"
    assert answer.bound.key <= answer.cost.key
