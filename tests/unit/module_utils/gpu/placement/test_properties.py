# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""No answer breaks a rule; the engines agree; bounds hold."""

from __future__ import annotations

import dataclasses
import re

from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.placement import cpsat, search
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.placement.admission import admit
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.placement.bounds import bound
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.placement.heuristic import solve
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.placement.model import GOALS, Cost, Gpu, Instance, Need
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.placement.place import place, result
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.placement.solution import Solution
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.placement.spare import fragile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from placement_cases import ADDRESSES, PROFILES, brute_force, check, instances

from vsphere_simulator.world import vgpu as other
from vsphere_simulator.world.catalog import CATALOG

RELAXED = settings(deadline=None, suppress_health_check=list(HealthCheck))


@settings(RELAXED, max_examples=150)
@given(instances(hosts=4, demands=8, moves=2))
def test_no_answer_breaks_a_rule_and_no_bound_is_above_it(instance: Instance) -> None:
    check(instance, place(instance))


@settings(RELAXED, max_examples=150)
@given(instances(hosts=4, demands=8, moves=1), st.booleans())
def test_no_goal_costs_a_machine_its_place(instance: Instance, spare: bool) -> None:
    refused = {
        place(dataclasses.replace(instance, goal=goal, spare_host=spare), "heuristic").cost.refused for goal in GOALS
    }
    assert len(refused) == 1


@settings(RELAXED, max_examples=150)
@given(instances(hosts=3, demands=8, moves=1), st.booleans())
def test_advice_names_only_machines_that_are_there(instance: Instance, spare: bool) -> None:
    refused = place(dataclasses.replace(instance, spare_host=spare)).refused
    asked = {demand.name for demand in instance.demands}
    for refusal in refused:
        assert not asked & set(re.findall(r"[\w-]+", refusal.advice))
        assert spare or (refusal.code != "spare_host" and "spare" not in refusal.advice)


@settings(RELAXED, max_examples=80)
@given(instances(demands=4))
def test_search_solver_and_brute_force_find_the_same_cost(instance: Instance) -> None:
    least = brute_force(instance)
    start, heuristic = Solution.empty(instance), solve(instance)
    assert bound(instance, heuristic).key <= least <= heuristic.cost.key
    # From nothing, so that the heuristic's answer helps neither.
    assert search.solve(start, start).cost.key == least
    solved, proven = cpsat.solve(start, start, Cost())
    check(instance, result(solved, proven, "cp-sat"))
    assert proven.key <= least <= solved.cost.key
    assert solved.cost.key == least


@settings(RELAXED, max_examples=80)
@given(instances(demands=4, moves=2))
def test_with_moves_search_and_solver_agree_and_break_no_rule(instance: Instance) -> None:
    heuristic = solve(instance)
    check(instance, result(heuristic, bound(instance, heuristic), "heuristic"))
    exact = search.solve(Solution.empty(instance), heuristic)
    solved, proven = cpsat.solve(Solution.empty(instance), heuristic, bound(instance, heuristic))
    check(instance, result(exact, exact.cost, "search"))
    check(instance, result(solved, proven, "cp-sat"))
    assert proven.key <= exact.cost.key
    assert exact.cost.refused == solved.cost.refused


@settings(RELAXED, max_examples=60)
@given(instances(hosts=4, demands=5, spare=True))
def test_with_a_spare_host_no_failure_becomes_worse(instance: Instance) -> None:
    answer = place(instance)
    check(instance, answer)
    start = Solution.empty(instance)
    after = start.try_assign({step.vm: step.host for step in answer.placements})
    assert after is not None
    assert fragile(after.states) <= fragile(start.states)


@settings(RELAXED, max_examples=60)
@given(instances(hosts=4, demands=6, moves=1))
def test_the_same_question_has_the_same_answer(instance: Instance) -> None:
    assert place(instance) == place(dataclasses.replace(instance, hosts=instance.hosts[::-1]))


@settings(RELAXED, max_examples=100)
@given(
    st.lists(st.sampled_from(PROFILES), max_size=16),
    st.lists(st.sampled_from(["same_size", "mixed_size"]), min_size=1, max_size=3),
    st.sampled_from(["performance", "consolidation"]),
)
def test_hosts_choose_gpus_as_the_simulated_ones_do(profiles: list[str], uses: list[str], policy: str) -> None:
    ours = tuple(Gpu(address, "10de:20f1", "a100", use) for address, use in zip(ADDRESSES, uses, strict=False))  # type: ignore[arg-type]
    theirs = {
        gpu.address: other.Occupancy(gpu.address, CATALOG.by_board["a100"], gpu.use == "mixed_size") for gpu in ours
    }
    for name in profiles:
        admitted = admit(ours, policy, (Need("vgpu", profile=name),))  # type: ignore[arg-type]
        placed = other.place(theirs.values(), other.all_profiles()[name], policy)
        assert (admitted is None) == (placed is None)
        if admitted is None or placed is None:
            continue
        ours, (grant,) = admitted
        address, slot = placed
        assert grant.slot is not None
        assert (grant.address, grant.slot.start) == (address, slot.start_gb)
        theirs[address] = dataclasses.replace(theirs[address], slots=(*theirs[address].slots, slot))
