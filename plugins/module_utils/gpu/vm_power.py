# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Planner: virtual machines on, off, suspended or resumed; and what is in the way of one that does not start."""

from __future__ import annotations

import collections.abc
import dataclasses
import typing as t

from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu import vm_problems
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.catalog import Catalog
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.facts import HostFacts, Intent, Power, VmFacts
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.plan import Change, ObjectPlan, Problem
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.vgpu import predict, profiles_of, running

State = t.Literal["on", "off", "suspended", "resumed"]

_WANTED: dict[State, Power] = {
    "on": "poweredOn",
    "off": "poweredOff",
    "suspended": "suspended",
    "resumed": "poweredOn",
}


LENT = "lent"
"""Action of the intent on a desktop that is suspended so that others use its GPU, and is to be resumed."""


@dataclasses.dataclass(frozen=True, slots=True)
class PowerPlan:
    """The plan of one virtual machine, and the virtual machine as it is then."""

    plan: ObjectPlan
    predicted: VmFacts | None = None
    power: bool = True
    """Its power changes, not only its intent."""
    host: str | None = None
    """Where it moves first; None if it stays."""


def plan_power(
    names: collections.abc.Sequence[str],
    state: State,
    vms: t.Mapping[str, VmFacts],
    hosts: t.Mapping[str, HostFacts],
    *,
    force: bool = False,
    hard: bool = False,
    known: collections.abc.Collection[str] = (),
    ambiguous: collections.abc.Collection[str] = (),
    lend: Intent | None = None,
    places: t.Mapping[str, str] | None = None,
    catalog: Catalog | None = None,
) -> dict[str, PowerPlan]:
    """Plan each virtual machine of `names`; `vms` may hold others on the same hosts, whose vGPUs take room.

    `force` allows what loses data: discarding a suspended machine's memory. `hard` does not ask the guest.
    `lend` is the intent that is written to what is suspended, so that only that is resumed, and it is cleared then.
    `places` are hosts to which machines that do not run move before they are powered on.
    """
    moving = _moving(vms, places or {}) if state in ("on", "resumed") else {}
    now, vms = vms, {**vms, **moving}
    plans = {name: _plan(name, state, vms.get(name), hosts, force, hard, known, ambiguous) for name in names}
    for name in moving:
        if name in plans and plans[name].plan.changes:
            plans[name] = _moved(plans[name], now[name], moving[name], hosts)
    if lend is not None:
        plans = {name: _lent(item, vms[name], lend) if name in vms else item for name, item in plans.items()}
    if state in ("on", "resumed"):
        _add_predictions(plans, vms, hosts, catalog or Catalog())
    return plans


def _plan(
    name: str,
    state: State,
    vm: VmFacts | None,
    hosts: t.Mapping[str, HostFacts],
    force: bool,
    hard: bool,
    known: collections.abc.Collection[str],
    ambiguous: collections.abc.Collection[str],
) -> PowerPlan:
    if vm is None:
        return _refused(name, vm_problems.not_found(name, known))
    if name in ambiguous:
        return _refused(name, vm_problems.ambiguous(name))
    if vm.template:
        return _refused(name, Problem("is_template", name, "This is a template; only its clones have power.", "vms"))
    wanted = _WANTED[state]
    notes = {"host": vm.host, "power": wanted}
    if vm.power == wanted or (state == "resumed" and vm.power == "poweredOff"):
        return PowerPlan(ObjectPlan(name, notes={**notes, "power": vm.power}), vm)
    problems = _in_the_way(vm, state, hosts, force)
    change = _change(vm, state, wanted, hard)
    if problems:
        return PowerPlan(ObjectPlan(name, (change,), tuple(problems), notes={**notes, "power": vm.power}), vm)
    return PowerPlan(ObjectPlan(name, (change,), notes=notes), dataclasses.replace(vm, power=wanted))


def _moving(vms: t.Mapping[str, VmFacts], places: t.Mapping[str, str]) -> dict[str, VmFacts]:
    """The machines that are to move, as they are then."""
    return {
        name: dataclasses.replace(vms[name], host=host)
        for name, host in places.items()
        if name in vms and vms[name].host != host and vms[name].power != "poweredOn"
    }


def _moved(item: PowerPlan, before: VmFacts, after: VmFacts, hosts: t.Mapping[str, HostFacts]) -> PowerPlan:
    """The plan with the move put first. A machine leaves only a host that answers."""
    home = hosts.get(before.host or "")
    problems = item.plan.problems
    if home is not None and not home.answers:
        problems = (*problems, vm_problems.not_connected(before.name, home))
    changes = (Change("move", "host", before.host, after.host, f"to {after.host}"), *item.plan.changes)
    return dataclasses.replace(
        item, plan=dataclasses.replace(item.plan, changes=changes, problems=problems), host=after.host
    )


def _change(vm: VmFacts, state: State, wanted: Power, hard: bool) -> Change:
    if state == "suspended":
        return Change("suspend", "virtual machine", vm.power, wanted, disruptive=True)
    if state == "off":
        return Change("power off", "power", vm.power, wanted, "without asking its guest" if hard else "", True)
    return Change("power on", "power", vm.power, wanted, "resume it" if vm.power == "suspended" else "")


def _lent(item: PowerPlan, vm: VmFacts, lend: Intent) -> PowerPlan:
    """The plan of a machine that is lent or returned: with its intent, or why it is not ours."""
    ours = vm.intent is not None and vm.intent.action == LENT
    if vm.intent is not None and not ours:
        text = f"is in the hands of another run ({vm.intent.action}). Finish that first, then run again."
        return _refused(vm.name, Problem("in_other_hands", vm.name, text, kind="state"))
    if vm.power == "suspended" and not ours:
        text = "was suspended by somebody else, so it is not lent. Leave it to them, or resume it without lend."
        return _refused(vm.name, Problem("not_lent", vm.name, text, "lend", kind="state"))
    if item.predicted is None or item.plan.problems:
        return item
    if item.predicted.power == "suspended":
        return dataclasses.replace(item, predicted=dataclasses.replace(item.predicted, intent=vm.intent or lend))
    if not ours:
        return item
    changes = item.plan.changes or (Change("clear", "intent", LENT, None, "it has returned already"),)
    return PowerPlan(
        dataclasses.replace(item.plan, changes=changes),
        dataclasses.replace(item.predicted, intent=None),
        power=bool(item.plan.changes),
        host=item.host,
    )


def _in_the_way(vm: VmFacts, state: State, hosts: t.Mapping[str, HostFacts], force: bool) -> list[Problem]:
    host = hosts.get(vm.host or "")
    if host is None:
        return [vm_problems.no_host(vm.name)]
    if not host.answers:
        return [vm_problems.not_connected(vm.name, host)]
    if state in ("on", "resumed") and host.in_maintenance:
        return [vm_problems.in_maintenance(vm.name, host)]
    if state == "off" and vm.power == "suspended" and not force:
        return [
            Problem(
                "vm_suspended",
                vm.name,
                "is suspended; powering it off would lose what its guest was doing. Resume it first (state: on), or"
                " allow the loss with force: true.",
                "force",
                kind="state",
            )
        ]
    return _cannot_suspend(vm, host) if state == "suspended" else []


def _cannot_suspend(vm: VmFacts, host: HostFacts) -> list[Problem]:
    """Why a virtual machine cannot be suspended: it does not run, or its devices do not let it."""
    if vm.power != "poweredOn":
        text = "is powered off, so there is nothing to suspend. Power it on first, or leave it as it is."
        return [Problem("vm_powered_off", vm.name, text, "state", kind="state")]
    whole = [gpu.address or ", ".join(gpu.ids) or f"label {gpu.label}" for gpu in vm.gpus if gpu.mode != "vgpu"]
    if whole:
        text = f"has {', '.join(whole)} by passthrough, with which nothing can be suspended. Power it off instead."
        return [Problem("suspend_not_supported", vm.name, text, "state")]
    unable = [gpu.profile for gpu in vm.gpus if gpu.profile is not None and gpu.profile not in host.vgpu_suspend]
    if unable:
        text = (
            f"has the vGPU {', '.join(unable)}, with which {host.name} does not suspend. Power it off instead, or use a"
            " profile that it can suspend (esxi_gpu_info shows vgpu_suspend)."
        )
        return [Problem("suspend_not_supported", vm.name, text, "state")]
    return []


def _add_predictions(
    plans: dict[str, PowerPlan], vms: t.Mapping[str, VmFacts], hosts: t.Mapping[str, HostFacts], catalog: Catalog
) -> None:
    """Say on which GPUs the vGPUs will be, and warn of those that seem to have no room."""
    for host in hosts.values():
        starting = {
            name: profiles_of(vms[name])
            for name, item in plans.items()
            if item.plan.changed
            and item.power
            and name in vms
            and vms[name].host == host.name
            and profiles_of(vms[name])
        }
        if not starting:
            continue
        result = predict(running(host, vms.values(), catalog), starting, host.assignment_policy)
        for name in starting:
            plan = plans[name].plan
            if name in result.addresses:
                plan = dataclasses.replace(plan, notes={**plan.notes, "predicted_gpus": list(result.addresses[name])})
            else:
                text = (
                    f"{name}: {host.name} seems to have no room for its vGPUs. {vgpus_on(host, vms.values(), catalog)}"
                )
                plan = dataclasses.replace(plan, warnings=(*plan.warnings, text))
            plans[name] = dataclasses.replace(plans[name], plan=plan)


def power_on_order(
    names: collections.abc.Sequence[str],
    vms: t.Mapping[str, VmFacts],
    hosts: t.Mapping[str, HostFacts],
    catalog: Catalog,
) -> list[str]:
    """The order in which those with vGPUs start: as many as can find room, those that cannot at the end."""
    order: list[str] = []
    for host in hosts.values():
        mine = {name: profiles_of(vms[name]) for name in names if name in vms and vms[name].host == host.name}
        result = predict(running(host, vms.values(), catalog), mine, host.assignment_policy)
        order += [*result.order, *result.missing]
    return [*order, *(name for name in names if name not in order)]


def vgpus_on(host: HostFacts, vms: collections.abc.Iterable[VmFacts], catalog: Catalog) -> str:
    """Who has vGPUs on which GPU of a host, in a sentence or two."""
    here = sorted((vm for vm in vms if vm.host == host.name and vm.power == "poweredOn"), key=lambda vm: vm.name)
    gpus = running(host, here, catalog)
    if not gpus:
        return f"No GPU of {host.name} takes vGPUs now: see esxi_graphics."
    lines = []
    for device in sorted(host.graphics, key=lambda device: device.address):
        if device.address in gpus:
            holders = [
                f"{vm.name} ({', '.join(profile.name for profile in profiles_of(vm))})"
                for vm in here
                if vm.moid in device.vm_moids
            ]
            lines.append(f"{device.address} has {', '.join(holders) or 'none'}")
    return f"On {host.name}: {'; '.join(lines)}."


def in_the_way(
    vm: VmFacts, host: HostFacts, vms: collections.abc.Collection[VmFacts], fault: str | None, catalog: Catalog
) -> str:
    """What keeps a virtual machine from starting on its host, as far as the facts tell; empty when they do not."""
    others = [one for one in vms if one.host == host.name and one.power == "poweredOn" and one.name != vm.name]
    if fault == "InsufficientGraphicsResourcesFault":
        return vgpus_on(host, others, catalog)
    if fault == "NoCompatibleHostWithAccessToDevice":
        asked = [gpu for gpu in vm.gpus if gpu.mode == "dynamic"]
        held = {gpu.address: one.name for one in others for gpu in one.gpus if gpu.address}
        found = [
            f"{function.address} {_state(function.passthrough_active, held.get(function.address))}"
            for function in host.devices
            if any(function.id in gpu.ids and gpu.label in (None, function.hardware_label) for gpu in asked)
        ]
        return f"On {host.name}: {'; '.join(found) or 'no such device'}."
    if fault == "InsufficientMemoryResourcesFault":
        largest = sorted(others, key=lambda one: -one.memory_reservation_mb)[:5]
        held_by = ", ".join(
            f"{one.name} {one.memory_reservation_mb} MB" for one in largest if one.memory_reservation_mb
        )
        return (
            f"It reserves {vm.memory_reservation_mb} MB; the largest reservations on {host.name}: {held_by or 'none'}."
        )
    return ""


def _state(active: bool, holder: str | None) -> str:
    if holder is not None:
        return f"held by {holder}"
    return "free" if active else "not active for passthrough"


def _refused(name: str, problem: Problem) -> PowerPlan:
    return PowerPlan(ObjectPlan(name, problems=(problem,)))
