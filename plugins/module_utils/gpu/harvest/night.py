# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The whole plan of a moment: which phase it is, and what that means for each desktop and compute machine."""

from __future__ import annotations

import dataclasses
import datetime
import typing as t

from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.catalog import Catalog
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.facts import HostFacts, VmFacts
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.harvest.compute import ComputePlan, plan_compute
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.harvest.evening import (
    Activity,
    Decision,
    EveningPlan,
    IdlePolicy,
    plan_evening,
)
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.harvest.morning import (
    Compute,
    MorningPlan,
    Phase,
    Timing,
    make_room,
    phase_at,
    plan_morning,
    waves,
)
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.harvest.schedule import Hours
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.plan import Change, ObjectPlan, Problem
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.vgpu import Profile
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.vm_power import LENT


@dataclasses.dataclass(frozen=True, slots=True)
class NightFacts:
    """What the plan is made from."""

    vms: t.Mapping[str, VmFacts]
    """All machines on the hosts."""
    hosts: t.Mapping[str, HostFacts]
    activity: t.Mapping[str, Activity]
    opted_in: frozenset[str]
    """Desktops that are marked to be lent."""
    jobs: t.Mapping[str, int]
    """The compute machines in the order in which they start, with how many jobs run on each."""


@dataclasses.dataclass(frozen=True, slots=True)
class NightPolicy:
    """What the site wants."""

    idle: IdlePolicy
    timing: Timing
    compute: Profile
    """What room is made for."""
    interval: float = 600.0
    """Seconds between two runs."""
    phase: Phase | None = None
    """None: as the time of day says."""
    wanted: frozenset[str] = frozenset()
    """Desktops whose users wait for them now."""
    clone: bool = False
    """Compute machines that the vCenter does not know are cloned; else they are a mistake."""


@dataclasses.dataclass(frozen=True, slots=True)
class NightPlan:
    """What to do now. Times are in UTC."""

    phase: Phase
    deadline: datetime.datetime | None
    start_by: datetime.datetime | None
    """When the return of all that are or may be lent must begin at the latest."""
    plans: t.Mapping[str, ObjectPlan]
    release: tuple[str, ...] = ()
    """Compute machines that must leave, before the desktops of `resume` can return."""
    suspend: tuple[str, ...] = ()
    resume: tuple[str, ...] = ()
    """In the order in which to resume."""
    waves: tuple[tuple[str, ...], ...] = ()
    """The same, those together that resume at once."""
    room: t.Mapping[str, int] = dataclasses.field(default_factory=dict)
    """How many compute vGPUs each host then takes."""
    compute: ComputePlan = dataclasses.field(default_factory=ComputePlan)
    """What starts on the lent GPUs."""
    working: tuple[str, ...] = ()
    """The compute machines that run and stay."""
    lent: tuple[str, ...] = ()
    """The desktops that are lent now, before anything is done."""
    returned: tuple[str, ...] = ()
    """Those that run and still have the mark: a run died before it took it off, or somebody else has resumed them."""
    stranded: t.Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Lent desktops that cannot return in time, and why."""

    @property
    def places(self) -> dict[str, str]:
        """The host of each desktop that returns."""
        return {name: str(self.plans[name].notes["host"]) for name in self.resume}


def plan_night(
    names: t.Sequence[str],
    facts: NightFacts,
    policy: NightPolicy,
    hours: Hours,
    now: datetime.datetime,
    catalog: Catalog | None = None,
) -> NightPlan:
    """Plan the desktops `names` at `now` (with a time zone)."""
    catalog = catalog or Catalog()
    desktops = {name: facts.vms[name] for name in names if name in facts.vms}
    plans = {
        name: ObjectPlan(
            name, problems=(Problem("vm_not_found", name, "The vCenter has no such machine.", "desktops"),)
        )
        for name in names
        if name not in desktops
    }
    if not policy.clone:
        text = "The vCenter has no such machine. Correct the name, or have it cloned."
        plans |= {
            name: ObjectPlan(name, problems=(Problem("vm_not_found", name, text, "compute_vms"),))
            for name in facts.jobs
            if name not in facts.vms
        }
    compute = [Compute(facts.vms[name], jobs) for name, jobs in facts.jobs.items() if name in facts.vms]
    others = [vm for vm in facts.vms.values() if vm.name not in desktops and vm.name not in facts.jobs]
    lent = {name: vm for name, vm in desktops.items() if _is_lent(vm)}
    evening = plan_evening(
        desktops,
        [*others, *(item.vm for item in compute)],
        facts.hosts,
        facts.activity,
        facts.opted_in,
        policy.idle,
        policy.compute,
        catalog,
    )
    could = {name: desktops[name] for name in evening.suspend} if not hours.working else {}
    staying = [*others, *(vm for name, vm in desktops.items() if name not in lent and name not in could)]
    whole = plan_morning(lent | could, staying, facts.hosts, policy.timing, catalog)
    start_by = whole.start_by(hours.until) if hours.until is not None and not hours.working and whole.returns else None
    if policy.phase is not None:
        phase = policy.phase
    else:
        phase = "day" if hours.working else phase_at(now, hours.until, start_by, policy.interval)
    deadline = hours.since if hours.working else hours.until
    stranded = {name: why for name, why in whole.nowhere.items() if name in lent or phase == "evening"}
    if phase == "evening":
        result = _lending(NightPlan(phase, deadline, start_by, plans), evening, policy.wanted)
    else:
        plans |= {
            name: ObjectPlan(name, notes={"verdict": "lent" if name in lent else "keep", "reason": phase})
            for name in desktops
        }
        result = NightPlan(phase, deadline, start_by, plans)
        if phase in ("morning", "day"):
            back = plan_morning(lent, staying, facts.hosts, policy.timing, catalog)
            result = _giving_back(result, back, compute, now, deadline)
    result = _for_users(result, lent, policy.wanted, compute, [*others, *desktops.values()], facts.hosts, catalog)
    result = dataclasses.replace(
        _saying(result, stranded),
        lent=tuple(sorted(lent)),
        returned=tuple(sorted(name for name, vm in desktops.items() if _is_lent(vm, "poweredOn"))),
        waves=waves(result.places, policy.timing),
    )
    return _computing(result, facts, policy, catalog) if phase == "evening" else result


def _computing(plan: NightPlan, facts: NightFacts, policy: NightPolicy, catalog: Catalog) -> NightPlan:
    """Have machines start on the hosts that desktops have lent GPUs of."""
    after = dict(facts.vms)
    for name in plan.suspend:
        after[name] = dataclasses.replace(after[name], power="suspended")
    for name in plan.release:
        after[name] = dataclasses.replace(after[name], power="poweredOff")
    for name, host in plan.places.items():
        after[name] = dataclasses.replace(after[name], power="poweredOn", host=host)
    lending = {str(facts.vms[name].host) for name in {*plan.lent, *plan.suspend} - {*plan.resume}}
    # What has just made room for a desktop does not take it again at once.
    names = [name for name in facts.jobs if name not in plan.release]
    started = plan_compute(
        names, facts.vms, after.values(), facts.hosts, lending, policy.compute, clone=policy.clone, catalog=catalog
    )
    working = tuple(name for name in names if name in facts.vms and facts.vms[name].power == "poweredOn")
    return dataclasses.replace(plan, compute=started, working=working)


def _lending(plan: NightPlan, evening: EveningPlan, wanted: t.Collection[str]) -> NightPlan:
    decisions = {
        name: Decision("keep", "its user waits for it")
        if name in wanted and decision.verdict == "suspend"
        else decision
        for name, decision in evening.decisions.items()
    }
    suspend = tuple(name for name, decision in decisions.items() if decision.verdict == "suspend")
    plans = {
        name: ObjectPlan(
            name,
            changes=(Change("suspend", "desktop", "poweredOn", "suspended", decision.reason, disruptive=True),)
            if name in suspend
            else (),
            warnings=(f"{name}: {decision.reason}.",) if decision.warning else (),
            notes={"verdict": decision.verdict, "reason": decision.reason},
        )
        for name, decision in decisions.items()
    }
    return dataclasses.replace(plan, plans={**plan.plans, **plans}, suspend=suspend, room=evening.room)


def _is_lent(vm: VmFacts, power: str = "suspended") -> bool:
    return vm.power == power and vm.intent is not None and vm.intent.action == LENT


def _giving_back(
    plan: NightPlan,
    back: MorningPlan,
    compute: t.Sequence[Compute],
    now: datetime.datetime,
    deadline: datetime.datetime | None,
) -> NightPlan:
    plans, stranded = dict(plan.plans), dict(plan.stranded)
    takes = back.seconds - max((item.ends for item in back.returns), default=0.0)
    for item in back.returns:
        ready = now + datetime.timedelta(seconds=takes + item.ends)
        late = deadline is not None and ready > deadline
        text = f"ready about {ready:%H:%M} UTC"
        if late and deadline:
            stranded[item.desktop] = f"{text}, after its deadline"
        plans[item.desktop] = dataclasses.replace(
            plans[item.desktop],
            changes=(_resume(item.host, text),),
            warnings=(f"{item.desktop}: {text}, after its deadline {deadline:%H:%M} UTC.",)
            if late and deadline
            else (),
            notes={"verdict": "resume", "reason": text, "host": item.host},
        )
    # By day no GPU is lent, so none of them stays, not even where nobody returns to.
    release = tuple(sorted(item.vm.name for item in compute if item.vm.power == "poweredOn"))
    resume = tuple(item.desktop for item in back.returns)
    return dataclasses.replace(plan, plans=plans, release=release, resume=resume, stranded=stranded)


def _for_users(
    plan: NightPlan,
    lent: t.Mapping[str, VmFacts],
    wanted: frozenset[str],
    compute: t.Sequence[Compute],
    others: t.Sequence[VmFacts],
    hosts: t.Mapping[str, HostFacts],
    catalog: Catalog,
) -> NightPlan:
    """Give back what users wait for now, in any phase that does not give everything back anyway."""
    plans, release, resume = dict(plan.plans), list(plan.release), list(plan.resume)
    left = [item for item in compute if item.vm.name not in release]
    coming: list[VmFacts] = []
    for name in sorted(wanted & lent.keys() - set(resume)):
        # Those on their way take room too, though no GPU is told for them yet.
        found = make_room(lent[name], left, [*(vm for vm in others if vm.name not in resume), *coming], hosts, catalog)
        if found is None:
            text = "Its user waits for it, but no host of its cluster has room for it, even without compute machines."
            plans[name] = dataclasses.replace(
                plans[name], problems=(Problem("no_room", name, text, "wanted", kind="state"),)
            )
            continue
        host, leaving = found
        plans[name] = dataclasses.replace(
            plans[name],
            changes=(_resume(host, "its user waits for it"),),
            notes={"verdict": "resume", "reason": "its user waits for it", "host": host},
        )
        coming.append(dataclasses.replace(lent[name], host=host, power="poweredOn"))
        release += leaving
        left = [item for item in left if item.vm.name not in leaving]
        resume.append(name)
    return dataclasses.replace(plan, plans=plans, release=tuple(release), resume=tuple(resume))


def _resume(host: str, why: str) -> Change:
    return Change("resume", "desktop", "suspended", "poweredOn", f"on {host}, {why}")


def _saying(plan: NightPlan, stranded: t.Mapping[str, str]) -> NightPlan:
    """Lent desktops that can return nowhere fail now, while somebody can do something about it."""
    plans = dict(plan.plans)
    gone: dict[str, str] = {}
    for name, why in stranded.items():
        if plans[name].problems:
            continue
        if plans[name].notes.get("verdict") in ("lent", "resume"):
            text = f"It cannot return: {why}. Make room or mend the host before its deadline."
            problem = Problem("no_return", name, text, kind="state")
            plans[name] = dataclasses.replace(plans[name], problems=(problem,))
            gone[name] = why
        else:
            reason = f"could not return: {why}"
            plans[name] = ObjectPlan(
                name, warnings=(f"{name}: {reason}.",), notes={"verdict": "keep", "reason": reason}
            )
    suspend = tuple(name for name in plan.suspend if name not in stranded)
    return dataclasses.replace(plan, plans=plans, suspend=suspend, stranded={**plan.stranded, **gone})
