# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Planner: the exact set of GPUs of virtual machines, over all of them and all that share their hosts."""

from __future__ import annotations

import collections
import collections.abc
import dataclasses
import typing as t

from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu import vm_problems, vm_settings
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.catalog import Catalog, GpuModel, UnknownGpuError
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.facts import GpuAttachment, HostFacts, VmFacts
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.host_gpus import HostGpus
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.plan import Change, ObjectPlan, Problem
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.sharing import Share, share_out
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.wants import GpuWant, VmWant


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


def plan_gpus(
    wants: t.Mapping[str, VmWant],
    mistakes: t.Mapping[str, collections.abc.Sequence[Problem]],
    inventory: Inventory,
    *,
    catalog: Catalog,
    firmware: vm_settings.FirmwarePolicy = "check",
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
        gpus = HostGpus(host, catalog)
        shares = share_out(gpus, {name: wants[name].gpus for name in names}, residents[host_name])
        for name in names:
            plans[name] = _plan_vm(inventory.vms[name], wants[name], shares[name], problems[name], gpus, firmware)
    _stop_those_that_wait(plans, inventory.vms)
    return {name: plans[name] for name in wants}


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


def _plan_vm(
    vm: VmFacts,
    want: VmWant,
    share: Share,
    problems: list[Problem],
    host: HostGpus,
    firmware: vm_settings.FirmwarePolicy,
) -> GpuPlan:
    problems.extend(share.problems)
    kept, removed = _keep(host.gpu_attachments(vm), want.gpus, share)
    added = _new(kept, want.gpus, share, host)
    models, unknown = _models([*kept, *added], host)
    problems.extend(Problem("unknown_gpu", vm.name, text, "bar_overrides") for text in unknown)
    others = tuple(gpu for gpu in vm.gpus if gpu not in kept and gpu not in removed)
    gpus = (*others, *kept, *added)
    problems.extend(
        vm_settings.hardware_problems(
            vm, dynamic=any(gpu.mode == "dynamic" for gpu in gpus), passthrough_devices=len(gpus)
        )
    )
    settings, setting_changes, setting_problems = vm_settings.needed(
        vm, models, gpus=len(kept) + len(added), memory_mb=want.memory_mb, firmware=want.firmware or firmware
    )
    problems.extend(setting_problems)
    changes = (*_device_changes(removed, added, host), *setting_changes)
    if changes and not problems and vm.power != "poweredOff":
        problems.append(_not_off(vm, changes))
    predicted = dataclasses.replace(settings.applied_to(vm), gpus=gpus)
    notes = {"host": vm.host, "power": vm.power, "gpus": _described(predicted, host)}
    plan = ObjectPlan(vm.name, changes, tuple(problems), notes=notes)
    if problems:
        return GpuPlan(plan, None, vm)
    return GpuPlan(plan, VmEdit(tuple(added), removed, settings, share.after) if changes else None, predicted)


def _keep(
    current: collections.abc.Sequence[GpuAttachment], wanted: collections.abc.Sequence[GpuWant], share: Share
) -> tuple[list[GpuAttachment], tuple[GpuAttachment, ...]]:
    """The GPUs that stay, and those that go."""
    fixed = set(share.fixed)
    dynamic: collections.Counter[tuple[tuple[str, ...], str | None]] = collections.Counter()
    for want, count in zip(wanted, share.counts, strict=True):
        if want.mode == "dynamic":
            dynamic[want.dynamic_kind] += count
    kept: list[GpuAttachment] = []
    for gpu in sorted(current, key=lambda gpu: (gpu.address is None, gpu.key)):
        if gpu.mode == "fixed" and gpu.address in fixed:
            fixed.remove(gpu.address)
            kept.append(gpu)
        elif gpu.mode == "dynamic" and dynamic[(gpu.ids, gpu.label)] > 0:
            dynamic[(gpu.ids, gpu.label)] -= 1
            kept.append(gpu)
    return kept, tuple(gpu for gpu in current if gpu not in kept)


def _new(
    kept: collections.abc.Sequence[GpuAttachment],
    wanted: collections.abc.Sequence[GpuWant],
    share: Share,
    host: HostGpus,
) -> list[GpuAttachment]:
    """The GPUs that come, with keys -1, -2, … as a reconfigure wants them."""
    have = {gpu.address for gpu in kept if gpu.mode == "fixed"}
    added = [
        GpuAttachment("fixed", 0, address=address, ids=(host.devices[address].id,))
        for address in share.fixed
        if address not in have
    ]
    there = collections.Counter((gpu.ids, gpu.label) for gpu in kept if gpu.mode == "dynamic")
    for want, count in zip(wanted, share.counts, strict=True):
        if want.mode != "dynamic":
            continue
        ids, label = want.dynamic_kind
        stay = min(there[(ids, label)], count)
        there[(ids, label)] -= stay
        added.extend(GpuAttachment("dynamic", 0, ids=ids, label=label) for _number in range(count - stay))
    return [dataclasses.replace(gpu, key=-number) for number, gpu in enumerate(added, start=1)]


def _models(gpus: collections.abc.Iterable[GpuAttachment], host: HostGpus) -> tuple[list[GpuModel], list[str]]:
    """The boards of these GPUs, and what to say of unknown ones. A GPU by label is the largest that bears it."""
    models: list[GpuModel] = []
    unknown: dict[str, None] = {}
    for gpu in gpus:
        ids = gpu.ids or tuple(f.id for f in host.devices.values() if f.hardware_label == gpu.label)
        found = []
        for device_id in ids:
            try:
                found.append(host.catalog.require(device_id))
            except UnknownGpuError as error:
                unknown[str(error)] = None
        if found:
            models.append(max(found, key=lambda model: model.bars_gb))
    return models, list(unknown)


def _device_changes(
    removed: collections.abc.Iterable[GpuAttachment], added: collections.abc.Iterable[GpuAttachment], host: HostGpus
) -> list[Change]:
    changes = [
        Change("detach GPU", path, text, None, text)
        for path, text in ((_path(gpu), _text(gpu, host)) for gpu in removed)
    ]
    changes += [
        Change("attach GPU", path, None, text, text) for path, text in ((_path(gpu), _text(gpu, host)) for gpu in added)
    ]
    return changes


def _path(gpu: GpuAttachment) -> str:
    if gpu.mode == "fixed":
        return str(gpu.address)
    if gpu.mode == "vgpu":
        return str(gpu.profile)
    return " ".join([*gpu.ids, *([f"label {gpu.label}"] if gpu.label else [])])


def _text(gpu: GpuAttachment, host: HostGpus) -> str:
    names = [host.model_name(device_id) for device_id in gpu.ids]
    return f"{' or '.join(names) or 'any model'}, {gpu.mode}" if gpu.mode != "vgpu" else "vGPU"


def _described(vm: VmFacts, host: HostGpus) -> list[dict[str, t.Any]]:
    """The GPUs of the virtual machine as they will be, for people and reports."""
    return [
        {
            "mode": gpu.mode,
            "address": gpu.address,
            "ids": list(gpu.ids),
            "label": gpu.label,
            "model": " or ".join(host.model_name(device_id) for device_id in gpu.ids) or None,
        }
        for gpu in host.gpu_attachments(vm)
        if gpu.mode != "vgpu"
    ]


def _not_off(vm: VmFacts, changes: collections.abc.Sequence[Change]) -> Problem:
    shown = "; ".join(str(change) for change in changes[:3])
    more = f"; and {len(changes) - 3} more" if len(changes) > 3 else ""
    return Problem(
        "vm_powered_on" if vm.power == "poweredOn" else "vm_not_powered_off",
        vm.name,
        f"is {'powered on' if vm.power == 'poweredOn' else vm.power} and would have to change: {shown}{more}."
        " Power it off first (vm_power with state: off), then run again.",
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
