# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Planner: the exact set of GPUs of virtual machines, over all of them and all that share their hosts."""

from __future__ import annotations

import collections
import collections.abc
import dataclasses
import typing as t

from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu import vgpu_wants, vm_problems, vm_settings
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.catalog import Catalog
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.devices import (
    Choice,
    choose_devices,
    described,
    device_changes,
    models_of,
)
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.facts import GpuAttachment, HostFacts, VmFacts
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.host_gpus import HostGpus
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.plan import Change, ObjectPlan, Problem
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.sharing import Share, share_out
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.vgpu import plain
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.wants import GpuWant, VmWant

ACTION = "reconfigure"
"""Action of the intent on a virtual machine that is powered off to be reconfigured and powered on again after it."""

PowerPolicy = t.Literal["never", "allow", "force"]
"""What may be done to a virtual machine that is powered on and has to change: nothing, a shutdown of its guest, or a
hard power off where the guest does not shut down."""


@dataclasses.dataclass(frozen=True, slots=True)
class VmEdit:
    """One reconfigure of a virtual machine."""

    add: tuple[GpuAttachment, ...]
    """With negative keys, as new devices have in a reconfigure."""
    remove: tuple[GpuAttachment, ...]
    settings: vm_settings.Settings
    after: frozenset[str] = frozenset()
    """Virtual machines of the same call that must give up a device first."""


@dataclasses.dataclass(frozen=True, slots=True)
class GpuPlan:
    """The plan of one virtual machine, the reconfigure that carries it out, and the virtual machine as it is then."""

    plan: ObjectPlan
    edit: VmEdit | None = None
    predicted: VmFacts | None = None
    power_off: bool = False
    """Power it off first; with it goes an intent, so that a later run powers it on again."""
    power_on: bool = False
    clear: bool = False
    """Clear the intent in the end."""


@dataclasses.dataclass(frozen=True, slots=True)
class Inventory:
    """The facts a plan is made from."""

    vms: t.Mapping[str, VmFacts]
    """Those of the call and all others on their hosts."""
    hosts: t.Mapping[str, HostFacts]
    known_vms: collections.abc.Collection[str] = ()
    """Names of all virtual machines, to suggest one."""
    ambiguous: collections.abc.Collection[str] = ()
    """Names that several virtual machines have."""
    api_version: tuple[int, ...] = (8, 0, 2)
    """Of the vCenter, for example (8, 0, 3, 0)."""


def plan_gpus(
    wants: t.Mapping[str, VmWant],
    mistakes: t.Mapping[str, collections.abc.Sequence[Problem]],
    inventory: Inventory,
    *,
    catalog: Catalog,
    firmware: vm_settings.FirmwarePolicy = "check",
    power: PowerPolicy = "never",
) -> dict[str, GpuPlan]:
    """Plan all virtual machines together.

    `mistakes` are problems found in the options (`wants.parse`). A virtual machine with a problem keeps what
    it has, and still counts with what it asks for.
    """
    problems = {name: [*mistakes.get(name, ()), *_standing(want, inventory)] for name, want in wants.items()}
    plans = {name: GpuPlan(ObjectPlan(name, problems=tuple(found))) for name, found in problems.items()}
    residents: dict[str, list[VmFacts]] = collections.defaultdict(list)
    for vm in inventory.vms.values():
        residents[vm.host or ""].append(vm)
    for host_name, host in inventory.hosts.items():
        here = {vm.name for vm in residents[host_name] if not vm.template}
        names = [name for name in wants if name in here]
        if not host.answers or not names:
            continue
        on_host = _OnHost(HostGpus(host, catalog), residents[host_name], inventory.api_version, firmware, power)
        plans.update(on_host.plans({name: wants[name] for name in names}, problems))
    _stop_those_that_wait(plans, inventory.vms)
    return {name: plans[name] for name in wants}


class _OnHost:
    """The plans of the virtual machines on one host."""

    def __init__(
        self,
        host: HostGpus,
        vms: collections.abc.Sequence[VmFacts],
        api_version: tuple[int, ...],
        firmware: vm_settings.FirmwarePolicy,
        power: PowerPolicy,
    ) -> None:
        self.host = host
        self.vms = {vm.name: vm for vm in vms}
        self.api_version = api_version
        self.firmware = firmware
        self.power = power

    def plans(self, wants: t.Mapping[str, VmWant], problems: t.Mapping[str, list[Problem]]) -> dict[str, GpuPlan]:
        """The plans; what runs and cannot be changed keeps its devices, so that nobody else is given them."""
        stuck: set[str] = set()
        while True:
            found = self._together(wants, {name: list(problems[name]) for name in wants}, stuck)
            failed = {name for name, item in found.items() if item.plan.failed and self.vms[name].power != "poweredOff"}
            if self.power == "never" or failed <= stuck:
                return found
            stuck |= failed

    def _together(
        self,
        wants: t.Mapping[str, VmWant],
        problems: t.Mapping[str, list[Problem]],
        stuck: collections.abc.Set[str],
    ) -> dict[str, GpuPlan]:
        resolved = {name: vgpu_wants.resolve(self.vms[name], want.gpus, self.host) for name, want in wants.items()}
        for name, item in resolved.items():
            problems[name].extend(item.problems)
        devices = {name: item.gpus for name, item in resolved.items()}
        running = {name for name, vm in self.vms.items() if vm.power != "poweredOff"}
        shares = share_out(self.host, devices, self.vms.values(), running)
        if self.power != "never":
            # Those that fit as they are stay so; only the others may be powered off and give devices up.
            stay = {name for name in running if name not in wants or self._fits(name, devices[name], shares[name])}
            stay |= {name for name in running & wants.keys() if self.vms[name].power != "poweredOn"} | stuck
            shares = share_out(self.host, devices, self.vms.values(), stay)
        choices = {name: self._choose(name, devices[name], shares[name]) for name in wants}
        after = {name: choice.applied_to(self.vms[name]) for name, choice in choices.items()}
        # What runs and may not be powered off keeps its vGPUs, and their room.
        bound = {name for name in running if self.power == "never" or self.vms[name].power != "poweredOn"}
        moving = {name for name in wants if name not in bound and _vgpus(after[name]) != _vgpus(self.vms[name])}
        for name, found in vgpu_wants.shortages(self.host, after, self.vms.values(), moving).items():
            problems[name].append(found)
        return {
            name: self._plan(self.vms[name], want, shares[name], choices[name], problems[name], resolved[name].reasons)
            for name, want in wants.items()
        }

    def _choose(self, name: str, wants: collections.abc.Sequence[GpuWant], share: Share) -> Choice:
        return choose_devices(self.host.gpu_attachments(self.vms[name]), wants, share, self.host)

    def _fits(self, name: str, wants: collections.abc.Sequence[GpuWant], share: Share) -> bool:
        choice = self._choose(name, wants, share)
        return not choice.added and not choice.removed and not share.problems

    def _plan(
        self,
        vm: VmFacts,
        want: VmWant,
        share: Share,
        choice: Choice,
        problems: list[Problem],
        reasons: t.Mapping[str, str],
    ) -> GpuPlan:
        host = self.host
        problems.extend(share.problems)
        mine = [*choice.kept, *choice.added]
        models, unknown = models_of(mine, host)
        problems.extend(Problem("unknown_gpu", vm.name, text, "bar_overrides") for text in unknown)
        gpus = choice.applied_to(vm).gpus
        problems.extend(
            vm_settings.hardware_problems(
                vm,
                dynamic=any(gpu.mode == "dynamic" for gpu in gpus),
                passthrough_devices=sum(gpu.mode != "vgpu" for gpu in gpus),
                api_version=self.api_version,
            )
        )
        problems.extend(vgpu_wants.several_problems(vm.name, mine, host, self.api_version))
        settings, setting_changes, setting_problems = vm_settings.needed(
            vm,
            models,
            gpus=len(mine),
            memory_mb=want.memory_mb,
            firmware=want.firmware or self.firmware,
            vgpus=vgpu_wants.boards_of(mine, host),
        )
        problems.extend(setting_problems)
        changes = [*device_changes(choice.removed, choice.added, host, reasons), *setting_changes]
        cycle = self._cycle(vm, changes, problems)
        interrupted = vm.intent is not None and vm.intent.action == ACTION
        power_on = cycle or (interrupted and vm.power == "poweredOff")
        edited = bool(changes)
        if (power_on or cycle) and host.facts.in_maintenance and not problems:
            problems.append(vm_problems.in_maintenance(vm.name, host.facts))
        if cycle:
            reason = "its devices cannot change while it runs"
            changes.insert(0, Change("power off", "power", vm.power, "poweredOff", reason, disruptive=True))
        if power_on:
            reason = "" if cycle else "an interrupted run had powered it off"
            changes.append(Change("power on", "power", "poweredOff", "poweredOn", reason))
        elif interrupted:
            changes.append(Change("clear", "intent", ACTION, None, "left over from an interrupted run"))
        if cycle:
            # What it was given dynamically it gives back, and may get another one.
            gpus = tuple(dataclasses.replace(gpu, address=None) if gpu.mode == "dynamic" else gpu for gpu in gpus)
        predicted = dataclasses.replace(settings.applied_to(vm), gpus=gpus)
        if power_on:
            predicted = dataclasses.replace(predicted, power="poweredOn")
        if interrupted:
            predicted = dataclasses.replace(predicted, intent=None)
        notes = {"host": vm.host, "power": predicted.power, "gpus": described(predicted, host)}
        if problems:
            if interrupted and vm.power == "poweredOff":
                text = "It was powered off by an interrupted run, and is powered on again once this is solved."
                problems[-1] = dataclasses.replace(problems[-1], msg=f"{problems[-1].msg} {text}")
            plan = ObjectPlan(vm.name, tuple(changes), tuple(problems), notes={**notes, "power": vm.power})
            return GpuPlan(plan, None, vm)
        edit = VmEdit(tuple(choice.added), choice.removed, settings, share.after) if edited else None
        plan = ObjectPlan(vm.name, tuple(changes), notes=notes)
        return GpuPlan(plan, edit, predicted, cycle, power_on, cycle or interrupted)

    def _cycle(self, vm: VmFacts, changes: collections.abc.Sequence[Change], problems: list[Problem]) -> bool:
        """Whether the virtual machine is to be powered off for its changes; says so where that may not be."""
        if not changes or problems or vm.power == "poweredOff":
            return False
        if vm.power != "poweredOn" or self.power == "never":
            problems.append(_not_off(vm, changes))
            return False
        if vm.intent is not None and vm.intent.action != ACTION:
            text = f"is in the hands of another run ({vm.intent.action}). Finish that first, then run again."
            problems.append(Problem("vm_in_other_hands", vm.name, text, kind="state"))
            return False
        return True


def _vgpus(vm: VmFacts) -> collections.Counter[str]:
    return collections.Counter(plain(gpu.profile) for gpu in vm.gpus if gpu.profile)


def waves(edits: t.Mapping[str, VmEdit]) -> list[list[str]]:
    """The order of the reconfigures: a virtual machine that takes a device comes after the one that gives it up.

    Where some wait for each other in a circle, they come together: a powered-off virtual machine may have a
    device in its configuration that another one has too.
    """
    left = dict(edits)
    ordered: list[list[str]] = []
    while left:
        wave = [name for name, edit in left.items() if not edit.after & left.keys()] or list(left)
        ordered.append(wave)
        for name in wave:
            del left[name]
    return ordered


def _standing(want: VmWant, inventory: Inventory) -> list[Problem]:
    """What is wrong with the virtual machine or its host, whatever GPUs are asked for."""
    name = want.name
    vm = inventory.vms.get(name)
    if vm is None:
        return [vm_problems.not_found(name, inventory.known_vms)]
    if name in inventory.ambiguous:
        return [vm_problems.ambiguous(name)]
    if vm.template:
        return [Problem("is_template", name, "This is a template. Give its clones GPUs, not the template.", "vms")]
    host = inventory.hosts.get(vm.host or "")
    if host is None:
        return [vm_problems.no_host(name)]
    if want.host and want.host != vm.host:
        text = f"is on {vm.host}, not on {want.host}. Move it there, or correct its host."
        return [Problem("vm_on_other_host", name, text, "host", kind="state")]
    return [] if host.answers else [vm_problems.not_connected(name, host)]


def _not_off(vm: VmFacts, changes: collections.abc.Sequence[Change]) -> Problem:
    shown = "; ".join(str(change) for change in changes[:3])
    instead = "; or let that be done for it with power: allow" if vm.power == "poweredOn" else ""
    more = f"; and {len(changes) - 3} more" if len(changes) > 3 else ""
    return Problem(
        "vm_powered_on" if vm.power == "poweredOn" else "vm_not_powered_off",
        vm.name,
        f"is {'powered on' if vm.power == 'poweredOn' else vm.power} and would have to change: {shown}{more}."
        f" Power it off first (vm_power with state: off), then run again{instead}.",
        "power",
        kind="state",
    )


def _stop_those_that_wait(plans: dict[str, GpuPlan], vms: t.Mapping[str, VmFacts]) -> None:
    """A virtual machine that waits for a device of one that cannot be changed cannot be changed either."""
    while True:
        stuck = {
            name: sorted(other for other in plan.edit.after if plans[other].plan.failed)
            for name, plan in plans.items()
            if plan.edit is not None and any(plans[other].plan.failed for other in plan.edit.after)
        }
        if not stuck:
            return
        for name, others in stuck.items():
            plans[name] = GpuPlan(
                dataclasses.replace(plans[name].plan, problems=(still_held(name, others),)), None, vms[name]
            )


def still_held(name: str, others: collections.abc.Iterable[str]) -> Problem:
    """The problem of a virtual machine whose device another one was to give up and did not."""
    return Problem(
        "gpu_conflict",
        name,
        f"waits for a GPU that {', '.join(others)} still has and could not give up. Solve the problem there,"
        " then run again.",
        kind="state",
    )
