# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Planner of planners: facts and inventory -> the ordered steps of an expansion or a contraction.

It decides nothing that a later step decides again: hosts' own changes come from their planners as text, places from
placement. What it adds is the order, the reasons, who is touched, and whether running work loses its place.
"""

from __future__ import annotations

import dataclasses
import typing as t

from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.facts import HostFacts, VmFacts, assume_hosts
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.fleet_scope import (
    OUTSIDE,
    WIDEN,
    Scope,
    of_pool,
    places_within,
)
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.fleet_wants import differences, own_machine
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.membership import removal_begun
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.ownership import (
    maintenance_owner,
    reboot_in_progress,
    unknown_host,
)
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.placement import options
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.placement.explain import NO_ROOM
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.placement.fleet import FleetPlaces
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.placement.options import gpu_text
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.placement.site import SiteFacts, closed_reason
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.plan import ObjectPlan, Problem
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.suggest import did_you_mean, some_of

Action = t.Literal["add", "change", "drain", "remove"]
Params = t.Mapping[str, t.Any]


@dataclasses.dataclass(frozen=True, slots=True)
class Step:
    """One thing to do."""

    action: Action
    object: str
    what: str
    reason: str
    vms: tuple[str, ...] = ()
    """Virtual machines that it touches."""
    jobs: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    """What has to be done before."""


@dataclasses.dataclass(slots=True)
class FleetPlan:
    """The steps in order, and what stands in the way."""

    steps: list[Step]
    problems: list[Problem]
    warnings: list[str]
    places: FleetPlaces
    removed: list[str]
    """Virtual machines to shut down and delete."""
    where: dict[str, str]
    """Wanted virtual machine -> its host in the end."""
    work: dict[str, str] = dataclasses.field(default_factory=dict)
    """Wanted virtual machine that is made, changed or powered on -> its host."""
    moves: dict[str, str] = dataclasses.field(default_factory=dict)
    """Running virtual machine of a retiring host -> the host that it migrates to."""

    def plans(self) -> dict[str, ObjectPlan]:
        """The plan by object, for the result of a module."""
        names = dict.fromkeys([*(step.object for step in self.steps), *(item.object for item in self.problems)])
        plans = {}
        for name in names:
            steps = [step for step in self.steps if step.object == name]
            notes = {"steps": [f"{step.action}: {step.what}" for step in steps]}
            plans[name] = ObjectPlan(
                name, problems=tuple(item for item in self.problems if item.object == name), notes=notes
            )
        return plans


def plan_fleet(facts: SiteFacts, params: Params) -> FleetPlan:
    """The whole plan. `params` are the options of the module gpu_plan."""
    problems: list[Problem] = []
    retiring = [name for name in params["retiring"] if params["action"] != "expand"]
    joining = {item["name"]: item.get("cluster") for item in params["hosts"] if params["action"] != "contract"}
    facts = _prepared(facts, params["prepared"], joining, params["host_changes"])
    owned, uncounted = _own(facts, params)
    params = {**params, "vms": [*owned.values(), *params["vms"]]}
    wanted = [item["name"] for item in params["vms"]]
    scope = Scope(facts, frozenset(item["name"] for item in params["hosts"]), frozenset(retiring), params)
    removed = _removed(facts, params, scope, wanted)
    left = {name: vm for name, vm in facts.vms.items() if name not in removed}
    asked, refused = scope.asked()
    problems += refused
    changed = _changed(left, params, scope, uncounted)
    # What changes while it runs needs its place anew, on the host that it is on.
    again = {name: dataclasses.replace(left[name], power="poweredOff") for name in changed.keys() - uncounted}
    places = places_within(dataclasses.replace(facts, vms={**left, **again}), params, scope, asked)
    plan = FleetPlan([], problems, scope.left_alone(), places, removed, {})
    if uncounted and params["action"] != "contract":
        text = "its GPUs depend on what the host offers then; the plan does not count them."
        plan.warnings += [f"{name}: {text}" for name in sorted(uncounted)]
    if params["action"] != "expand" and not params["pool_sized"]:
        plan.warnings.append(_UNSIZED)
    for name, cluster in joining.items():
        _host(plan, facts.hosts.get(name), name, cluster, params, facts)
    _removals(plan, facts, params, retiring, wanted)
    for name in retiring:
        if name in facts.hosts:
            _retire(plan, facts.hosts[name], left, params, places)
        else:
            # A second run finds a removed host gone, and must not fail.
            hint = did_you_mean(name, facts.hosts.keys() - set(retiring))
            text = f"The vCenter has no host {name} of esxi_retiring: it has left already, or the name is wrong."
            plan.warnings.append(f"{text} {hint}".strip())
    _vms(plan, facts, params, scope, _Wanted(changed, uncounted, frozenset(owned)))
    _capacity(plan, params)
    return plan


def _prepared(
    facts: SiteFacts,
    prepared: t.Mapping[str, t.Any],
    joining: t.Mapping[str, str | None],
    changes: t.Mapping[str, t.Sequence[str]],
) -> SiteFacts:
    """The hosts as they are when their preparation has ended, their reboot included.

    That is also due, or under way, where an earlier run has set everything and was interrupted then.
    """
    hosts = assume_hosts(facts.hosts, prepared)
    rebooting = {name for name in joining if name in hosts and reboot_in_progress(hosts[name])}
    for name in {*prepared, *(name for name in joining if _reboots(changes.get(name))), *rebooting} & hosts.keys():
        devices = tuple(
            dataclasses.replace(device, passthrough_active=device.passthrough_enabled) for device in hosts[name].devices
        )
        hosts[name] = dataclasses.replace(hosts[name], devices=devices)
    for name in rebooting:
        hosts[name] = dataclasses.replace(hosts[name], connection="connected")
    for name, cluster in joining.items():
        host = hosts.get(name)
        if host is not None:
            ours = maintenance_owner(host) == "gpuops"
            hosts[name] = dataclasses.replace(
                host, cluster=cluster or host.cluster, in_maintenance=host.in_maintenance and not ours
            )
    return dataclasses.replace(facts, hosts=hosts)


def _reboots(changes: t.Sequence[str] | None) -> bool:
    return any("reboot" in action for action in changes or ())


@dataclasses.dataclass(frozen=True, slots=True)
class _Wanted:
    """What is known of the wanted machines beside their places."""

    changed: t.Mapping[str, t.Sequence[str]]
    """Machines that are there, and how they are to differ."""
    uncounted: frozenset[str]
    """Machines of hosts themselves whose GPUs cannot be told yet."""
    owned: frozenset[str]
    """Machines of hosts themselves; a contraction leaves them their room, and makes and changes none."""


def _own(facts: SiteFacts, params: Params) -> tuple[dict[str, t.Mapping[str, t.Any]], frozenset[str]]:
    """The machines of the run's hosts themselves, and those of them whose GPUs cannot be counted.

    Hosts that take no machines now are left out: what stands in their way is said of the host.
    """
    pool = {item["name"] for item in params["vms"]}
    service = {item["name"] for item in params["hosts"]}
    found = {
        item["name"]: own_machine(
            item,
            facts.hosts[item["host"]],
            options.rules(params),
            prepared=not params["host_changes"].get(item["host"]),
        )
        for item in params["own"]
        if item["name"] not in pool
        and item["host"] in service & facts.hosts.keys()
        and closed_reason(facts.hosts[item["host"]]) is None
    }
    uncounted = frozenset(name for name, machine in found.items() if not machine.counted)
    return {name: machine.item for name, machine in found.items()}, uncounted


def _changed(
    vms: t.Mapping[str, VmFacts], params: Params, scope: Scope, uncounted: t.Collection[str]
) -> dict[str, list[str]]:
    """The wanted machines that are there and differ from what they are to be."""
    found = {}
    own = {item["name"] for item in params["own"]} if params["action"] == "contract" else set()
    for item in params["vms"]:
        name = item["name"]
        vm = vms.get(name)
        if vm is None or vm.template or name in own or vm.host not in scope.hosts:
            continue
        host = scope.facts.hosts.get(vm.host or "")
        if host is not None and closed_reason(host) is None:
            texts = differences(item, vm, options.rules(params), gpus=name not in uncounted)
            if texts:
                found[name] = texts
    return found


def _removed(facts: SiteFacts, params: Params, scope: Scope, wanted: t.Sequence[str]) -> list[str]:
    """Machines of the pool that it has no more, or whose host leaves; others' machines are never deleted."""
    if params["action"] == "expand":
        return []
    return sorted(vm.name for vm in facts.vms.values() if not vm.template and _goes(vm, params, scope, wanted))


def _goes(vm: VmFacts, params: Params, scope: Scope, wanted: t.Sequence[str]) -> bool:
    pool = of_pool(vm.name, params["pool_prefix"])
    if vm.host in scope.retiring:
        return pool or vm.name in params["leaving"]
    return pool and params["pool_sized"] and vm.host in scope.hosts and vm.name not in wanted


def _host(
    plan: FleetPlan, host: HostFacts | None, name: str, cluster: str | None, params: Params, facts: SiteFacts
) -> None:
    if host is None:
        plan.problems += unknown_host(name, tuple(facts.hosts)).problems
        return
    if not host.answers:
        plan.problems.append(Problem("host_not_connected", name, f"{name} does not answer.", kind="state"))
    if maintenance_owner(host) == "other":
        plan.warnings.append(f"{name} is in maintenance mode, and not by us. It is left alone.")
        return
    needs: tuple[str, ...] = ()
    if params["clusters_now"].get(name, cluster) != cluster and cluster:
        plan.steps.append(Step("add", name, f"join cluster {cluster}", "it is in the inventory, and in another place"))
        needs = (f"{name} in cluster {cluster}",)
    actions = params["host_changes"].get(name) or []
    if actions:
        running = host.powered_on_vms if _reboots(actions) else ()
        if running:
            jobs = _jobs(running, params)
            plan.steps.append(
                Step("drain", name, "drain for the reboot", "it needs maintenance mode", running, jobs, needs)
            )
            needs = (f"{name} drained",)
        plan.steps.append(Step("change", name, "; ".join(actions), "its GPUs are not as wanted", running, needs=needs))


def _removals(
    plan: FleetPlan, facts: SiteFacts, params: Params, retiring: t.Sequence[str], wanted: t.Sequence[str]
) -> None:
    for name in plan.removed:
        vm = facts.vms[name]
        jobs = _jobs([name], params)
        reason = f"{vm.host} leaves" if vm.host in retiring else "the inventory has it no more"
        verbs = "shut down and delete" if vm.power == "poweredOn" else "delete"
        what = f"{verbs}, it is on {vm.host}"
        if name in wanted:
            reason += "; it is made anew on another host"
        needs = ("its jobs ended, or their time over",) if params["jobs_waited_for"].get(name) else ()
        plan.steps.append(Step("remove", name, what, reason, (name,), jobs, needs))


def _retire(
    plan: FleetPlan,
    host: HostFacts,
    vms: t.Mapping[str, VmFacts],
    params: Params,
    places: FleetPlaces,
) -> None:
    name = host.name
    if host.cluster is None and params["leave_as"] == "standalone":
        if maintenance_owner(host) == "gpuops":
            plan.steps.append(
                Step("change", name, "hand it over", "an interrupted run has taken it out of its cluster")
            )
        return
    if maintenance_owner(host) == "other":
        plan.warnings.append(f"{name} is in maintenance mode, and not by us. It is left alone.")
        return
    begun = removal_begun(host)
    if not host.answers and not (begun and params["leave_as"] == "removed"):
        text = "does not answer, so that it can neither be drained nor leave. Bring it back, or take it out by hand."
        if begun:
            text = (
                "was disconnected by an interrupted run that was to take it out of the vCenter. Set gpu_fleet_leave_as:"
                " removed to finish that, or reconnect it."
            )
        plan.problems.append(Problem("host_not_connected", name, text, "retiring", kind="state"))
        return
    needs = tuple(f"{vm} deleted" for vm in plan.removed if vm in host.vm_names)
    running = tuple(vm for vm in host.powered_on_vms if vm in vms)
    bound = [vm for vm in running if any(gpu.mode in ("fixed", "dynamic") for gpu in vms[vm].gpus)]
    if running or not host.in_maintenance:
        to = {step.vm: step.host for step in places.result.placements if step.origin == name}
        plan.moves |= {vm: to[vm] for vm in running if vm in to and vm not in bound}
        text = "; ".join(_leaves(vm, plan.moves.get(vm), vm in bound) for vm in running)
        what = f"drain ({text})" if running else "enter maintenance mode"
        plan.steps.append(Step("drain", name, what, "it is in esxi_retiring", running, _jobs(running, params), needs))
    if bound:
        text = (
            f"{some_of(bound)} cannot leave it while running: with passed-through devices nothing migrates."
            " Shut down and move to another host what is to stay, or delete it; contract.yml deletes the host's own"
            " machines (gpu_vm_vms) with gpu_fleet_own_vms: delete."
        )
        plan.problems.append(Problem("vms_in_the_way", name, text, "retiring", kind="state"))
    off = [vm for vm in host.vm_names if vm in vms and vms[vm].power != "poweredOn"]
    if off and name not in params["keep_vms"]:
        how = "take them along" if params["leave_as"] == "standalone" else "take them out of the inventory with it"
        text = (
            f"{some_of(off)}, off or suspended or a template, would stay registered on it, so that it cannot leave."
            f" Move them to another host, delete them (gpu_fleet_own_vms: delete for the host's own), or {how} with"
            " cluster_member_keep_vms: true."
        )
        plan.problems.append(Problem("vms_in_the_way", name, text, _KEEP, kind="state"))
    where = f"cluster {host.cluster}" if host.cluster else "no cluster"
    what = f"out of {where}" if params["leave_as"] == "standalone" else f"out of {where} and of the vCenter"
    reason = "an interrupted run has disconnected it for that" if begun else "it is in esxi_retiring"
    plan.steps.append(Step("remove", name, what, reason, needs=(f"{name} in maintenance mode",)))


def _leaves(vm: str, to: str | None, bound: bool) -> str:
    if bound:
        return f"{vm} cannot migrate"
    return f"{vm} to {to}" if to else f"{vm} has no place"


def _vms(plan: FleetPlan, facts: SiteFacts, params: Params, scope: Scope, known: _Wanted) -> None:
    """Moves that make room, then wanted machines in their order of powering on."""
    wanted = {item["name"]: item for item in params["vms"]}
    silent = known.owned if params["action"] == "contract" else frozenset()
    plan.where |= {name: host for name, host in plan.places.staying.items() if name not in silent}
    for move in plan.places.result.moves:
        plan.steps.append(
            Step(
                "drain",
                move.vm,
                f"move from {move.origin} to {move.host}",
                "it makes room for others",
                (move.vm,),
                needs=(_BY_HAND,),
            )
        )
    for step in plan.places.result.placements:
        if step.vm not in wanted or step.vm in silent:
            continue
        if step.host not in scope.hosts:
            text = f"it finds room on {step.host} only, which is {OUTSIDE}. {WIDEN}"
            plan.problems.append(Problem("host_outside", step.vm, text, "vms", kind="state"))
            continue
        plan.where[step.vm] = step.host
        gpus = "" if step.vm in known.uncounted else f" with {gpu_text(step.grants)}"
        plan.steps.append(_vm_step(plan, facts, params, known, step.vm, step.host, gpus))
    for name in sorted(known.changed.keys() & plan.places.staying.keys()):
        plan.steps.append(_vm_step(plan, facts, params, known, name, plan.places.staying[name], ""))
    plan.work |= {step.object: plan.where[step.object] for step in plan.steps if step.object in plan.where}
    for name, entry in plan.places.plans.items():
        if entry.problems and name not in silent:
            others = scope.outside(wanted[name]) if name in wanted else []
            plan.problems += [_not_considered(problem, others) for problem in entry.problems]
            plan.where.pop(name, None)


def _vm_step(
    plan: FleetPlan, facts: SiteFacts, params: Params, known: _Wanted, name: str, host: str, gpus: str
) -> Step:
    """How a machine is made, changed or powered on."""
    there = facts.vms.get(name) if name not in plan.removed else None
    needs: tuple[str, ...] = (f"{name} deleted",) if name in plan.removed else ()
    if params["host_changes"].get(host):
        needs += (f"{host} prepared",)
    if there is None:
        reason = "it is in the inventory, and does not exist"
        return Step("add", name, f"clone to {host}{gpus}", reason, (name,), needs=needs)
    texts = list(known.changed.get(name, ()))
    reason = "it is not as the inventory says" if texts else "it is in the inventory, and is off"
    if there.power == "poweredOn":
        needs += (_POWER,)
        return Step("change", name, "; ".join(texts), reason, (name,), _jobs([name], params), needs)
    return Step("change", name, "; ".join([*texts, f"power on {host}{gpus}"]), reason, (name,), needs=needs)


def _not_considered(problem: Problem, others: t.Sequence[str]) -> Problem:
    if problem.kind != "state" or not others:
        return problem
    return dataclasses.replace(problem, msg=f"{problem.msg} Not considered: {some_of(others)}: {OUTSIDE}.")


def _capacity(plan: FleetPlan, params: Params) -> None:
    """Work that would lose its place stops the plan, unless that is allowed."""
    for step in plan.steps:
        lost = [job for vm in step.vms for job in params["jobs"].get(vm) or ()]
        if step.action == "remove" and lost:
            text = f"is to be deleted, and runs {some_of(lost)}. Drain it first, or wait for its jobs."
            plan.problems.append(Problem("jobs_running", step.object, text, "allow_capacity_loss", kind="state"))
    if params["allow_capacity_loss"]:
        ours = [
            problem
            for problem in plan.problems
            if problem.kind == "state" and problem.code in _LOSSES and problem.option != _KEEP
        ]
        plan.warnings += [f"{problem.object}: {problem.msg}" for problem in ours]
        plan.problems[:] = [problem for problem in plan.problems if problem not in ours]


_POWER = "to be off meanwhile, as gpu_vm_power may allow"
_KEEP = "keep_vms"
"""What stands in the way for want of this option does so whatever may be lost: the host could not leave."""
_UNSIZED = (
    "gpu_fleet_pool_size is not set: the pool's size stays as it is, but for machines on retiring hosts: they are"
    " deleted, and not made anew."
)
_BY_HAND = "an operator who moves it, the playbooks do not"
_LOSSES = NO_ROOM | {"jobs_running", "vms_in_the_way", "host_outside"}


def _jobs(vms: t.Iterable[str], params: Params) -> tuple[str, ...]:
    known = (params["jobs"], params["jobs_waited_for"])
    return tuple(dict.fromkeys(job for vm in vms for jobs in known for job in jobs.get(vm) or ()))


def table(plan: FleetPlan) -> str:
    """The plan for people: the steps in order, the reason below each, and what stands in the way."""
    action = max((len(step.action) for step in plan.steps), default=0)
    name = max((len(step.object) for step in plan.steps), default=0)
    number = len(str(len(plan.steps)))
    lines = []
    for count, step in enumerate(plan.steps, start=1):
        lines.append(f"{count:>{number}}  {step.action:<{action}}  {step.object:<{name}}  {step.what}")
        more = [f"needs {', '.join(step.needs)}"] if step.needs else []
        more += [f"jobs {', '.join(step.jobs)}"] if step.jobs else []
        lines.append(" " * (number + action + name + 6) + "; ".join([step.reason, *more]))
    text = ["PLAN", "", *(lines or ["nothing to do, everything is as wanted"])]
    for title, items in (
        ("Warnings", plan.warnings),
        ("In the way", [f"{problem.object}: {problem.msg}" for problem in plan.problems]),
    ):
        if items:
            text += ["", title, *(f"  {item}" for item in items)]
    return "\n".join(text)
