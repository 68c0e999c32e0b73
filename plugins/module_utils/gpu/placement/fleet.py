# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A site's facts and the options of a module -> places for its machines."""

from __future__ import annotations

import collections.abc
import dataclasses
import typing as t

from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.catalog import Catalog
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.facts import VmFacts
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.placement import options
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.placement.model import (
    Demand,
    Instance,
    Need,
    Result,
)
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.placement.place import place
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.placement.site import (
    Rules,
    SiteFacts,
    chosen,
    demand_of,
    demands_from_option,
    hosts_of,
    with_profiles,
)
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.plan import ObjectPlan, Problem
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.suggest import did_you_mean


@dataclasses.dataclass(frozen=True, slots=True)
class FleetPlaces:
    """The answer, and what it means for each machine that was asked for."""

    result: Result
    plans: t.Mapping[str, ObjectPlan]
    staying: t.Mapping[str, str]
    """Machines that were asked for and run already, with their host."""


def place_fleet(facts: SiteFacts, params: t.Mapping[str, t.Any]) -> FleetPlaces:
    """Places for the machines of `vms`, and for those that run on the hosts of `leave`."""
    rules = options.rules(params)
    asked, problems = demands_from_option(params["vms"], rules)
    unknown = [name for name in params["leave"] if name not in facts.hosts]
    for name in unknown:
        hint = did_you_mean(name, facts.hosts) or "Correct the name."
        text = f"The vCenter has no host {name}. {hint}"
        problems[name] = [Problem("host_not_found", name, text, "leave")]
    leaving = [name for name in params["leave"] if name not in unknown]
    catalog = Catalog()
    staying, new = _split(asked, facts, leaving, catalog)
    coming = {demand.name for demand in new}
    moving = leaving_demands(facts, leaving, rules, but=coming)
    hosts, demands = with_profiles(
        hosts_of(facts, catalog, rules, leaving=leaving, ignore=coming), (*new, *moving), facts, catalog
    )
    result = place(
        Instance(
            hosts,
            demands,
            params["goal"],
            spare_host=params["spare"] == "host",
            max_moves=params["max_moves"],
        ),
        params["solver"],
    )
    plans = {name: ObjectPlan(name, problems=tuple(found)) for name, found in problems.items()}
    for name, host in staying.items():
        plans[name] = ObjectPlan(
            name,
            notes={
                "vm": name,
                "host": host,
                "origin": None,
                "gpus": [],
                "existing": True,
                "text": f"{name} runs on {host}",
            },
        )
    plans |= {step.vm: options.plan_of(step) for step in (*result.moves, *result.placements)}
    plans |= {refusal.vm: options.refusal_plan(refusal) for refusal in result.refused}
    return FleetPlaces(result, plans, staying)


def _split(
    asked: t.Sequence[Demand], facts: SiteFacts, leaving: collections.abc.Collection[str], catalog: Catalog
) -> tuple[dict[str, str], list[Demand]]:
    """Machines that run keep their place; those that are off are placed where they are, unless their host leaves."""
    staying: dict[str, str] = {}
    new = []
    for demand in asked:
        vm = facts.vms.get(demand.name)
        if vm is None or vm.host is None:
            new.append(demand)
        elif vm.power == "poweredOn":
            if vm.host not in leaving:
                staying[demand.name] = vm.host
        elif vm.host in leaving:
            new.append(dataclasses.replace(demand, origin=vm.host))
        else:
            memory = demand.memory_mb or vm.memory_mb
            cpus = demand.cpus or facts.cpus.get(vm.name, 0)
            needs = tuple(_kept(need, vm, facts, catalog) for need in demand.needs)
            new.append(
                dataclasses.replace(demand, needs=needs, host=vm.host, cluster=None, memory_mb=memory, cpus=cpus)
            )
    return staying, new


def _kept(need: Need, vm: VmFacts, facts: SiteFacts, catalog: Catalog) -> Need:
    """The profile that a machine has already, where that meets what is asked: vm_gpu keeps it."""
    has = [gpu.profile for gpu in vm.gpus if gpu.profile and gpu.group is None]
    host = facts.hosts.get(vm.host or "")
    if need.wanted is None or not has or host is None:
        return need
    choice = chosen(need.wanted, host, catalog, has=has)
    return need if choice.profile is None else Need("vgpu", need.count, profile=choice.profile)


def leaving_demands(
    facts: SiteFacts,
    leaving: collections.abc.Collection[str],
    rules: Rules,
    *,
    but: collections.abc.Collection[str] = (),
) -> list[Demand]:
    """The running machines of hosts that are to be emptied, as demands on other hosts of their cluster."""
    return [
        dataclasses.replace(demand_of(vm, facts, rules, origin=vm.host), cluster=facts.hosts[vm.host].cluster)
        for vm in facts.vms.values()
        if vm.host is not None
        and vm.host in leaving
        and vm.power == "poweredOn"
        and not vm.template
        and vm.name not in but
        and vm.name in facts.hosts[vm.host].powered_on_vms
    ]
