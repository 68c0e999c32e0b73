# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Facts -> the fleet page's model. Pure."""

from __future__ import annotations

import collections
import collections.abc
import dataclasses
import fnmatch
import typing as t

from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu import vgpu
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.catalog import Catalog
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.facts import (
    GpuAttachment,
    HostFacts,
    PciFunction,
    VmFacts,
)
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.fleet_page.capacity import Fits
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.fleet_page.model import (
    Capacity,
    Chart,
    Cluster,
    Gpu,
    GpuState,
    Host,
    HostState,
    Job,
    Kind,
    Move,
    Page,
    Plan,
    Point,
    Slot,
    Step,
    Totals,
    Vm,
)
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.ownership import maintenance_owner, reboot_required

Tenants = t.Mapping[str, t.Sequence[str]]
"""Tenant -> shell patterns of names of virtual machines."""


@dataclasses.dataclass(frozen=True, slots=True)
class GivenPlan:
    """The parts of a plan of gpu_plan that the page needs."""

    steps: tuple[Step, ...]
    where: t.Mapping[str, str]
    moves: t.Mapping[str, str]
    removed: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True)
class Inputs:
    """What the page shows beside the vCenter's facts; None or empty: not given."""

    jobs: tuple[Job, ...] | None = None
    findings: tuple[Point, ...] | None = None
    plan: GivenPlan | None = None
    harvest: tuple[Chart, ...] = ()
    benchmark: tuple[Chart, ...] = ()
    tenants: Tenants = dataclasses.field(default_factory=dict)


WAITING = "pending"
"""A job's state while it waits; every other state but `running` is shown as it is and counts as neither."""


def build_page(
    hosts: t.Mapping[str, HostFacts],
    vms: t.Iterable[VmFacts],
    catalog: Catalog,
    inputs: Inputs,
    *,
    title: str,
    source: str = "",
) -> Page:
    """The page of these hosts and the machines on them; templates and machines without GPUs are left out."""
    guests = sorted((vm for vm in vms if vm.gpus and not vm.template and vm.host in hosts), key=_by_name)
    index = {vm.moid: number for number, vm in enumerate(guests)}
    by_host: dict[str | None, list[VmFacts]] = collections.defaultdict(list)
    for vm in guests:
        by_host[vm.host].append(vm)
    fits = Fits()
    clusters: dict[str, list[Host]] = collections.defaultdict(list)
    points: list[Point] = []
    for name in sorted(hosts):
        built = _host(hosts[name], by_host[name], catalog, fits, index)
        clusters[hosts[name].cluster or ""].append(built)
        points += _host_points(hosts[name], built)
    listed = tuple(Cluster(name, tuple(clusters[name])) for name in sorted(clusters, key=lambda name: (not name, name)))
    points += inputs.findings or ()
    shown = _vms(guests, inputs)
    return Page(
        title=title,
        source=source,
        totals=_totals(listed, shown, inputs.jobs),
        clusters=listed,
        vms=shown,
        rooms=tuple(fits.rooms),
        capacity=_capacity(listed, fits),
        points=tuple(sorted(points, key=lambda point: (_ORDER[point.kind], point.object))),
        jobs=inputs.jobs,
        doctor=inputs.findings is not None,
        plan=_plan(inputs.plan, guests) if inputs.plan else None,
        harvest=inputs.harvest,
        benchmark=inputs.benchmark,
    )


_ORDER: t.Final[dict[Kind, int]] = {"host": 0, "reboot": 1, "licence": 2, "driver": 3, "health": 4}


def _by_name(vm: VmFacts) -> tuple[str, str]:
    return (vm.name, vm.moid)


def _host(host: HostFacts, vms: t.Sequence[VmFacts], catalog: Catalog, fits: Fits, index: t.Mapping[str, int]) -> Host:
    divided = vgpu.running(host, vms, catalog)
    known = {vm.moid for vm in vms}
    hidden = {item.address: sum(moid not in known for moid in item.vm_moids) for item in host.graphics}
    gpus = tuple(
        _gpu(function, host, vms, catalog, divided.get(function.address), fits, index, hidden.get(function.address, 0))
        for function in sorted(host.devices, key=lambda item: item.address)
        if catalog.is_gpu(function)
    )
    on_one = {vm for gpu in gpus for vm in (*gpu.vms, *(slot.vm for slot in gpu.slots))}
    return Host(
        name=host.name,
        state=_host_state(host),
        reboot=host.reboot_pending or reboot_required(host),
        gpus=gpus,
        idle=tuple(number for number in (index[vm.moid] for vm in vms) if number not in on_one),
        version=" ".join(part for part in (host.version, f"build {host.build}" if host.build else "") if part),
    )


def _host_state(host: HostFacts) -> HostState:
    if host.connection == "notResponding":
        return "not responding"
    if host.connection != "connected":
        return "disconnected"
    return "maintenance" if host.in_maintenance else "in service"


def _gpu(
    function: PciFunction,
    host: HostFacts,
    vms: t.Sequence[VmFacts],
    catalog: Catalog,
    divided: vgpu.Gpu | None,
    fits: Fits,
    index: t.Mapping[str, int],
    hidden: int,
) -> Gpu:
    model = catalog.get(function.id)
    name = model.key if model else function.name
    size = float((model.framebuffer_gb if model else None) or (divided.framebuffer_gb if divided else 0))
    holders = tuple(index[vm.moid] for vm in vms if any(_whole(device, function) for device in vm.gpus))
    if function.passthrough_enabled or function.passthrough_active or (holders and divided is None):
        state: GpuState = "full" if holders else "free"
        if function.passthrough_enabled != function.passthrough_active:
            state = "reboot"
        elif not function.passthrough_active:
            state = "unset"
        return Gpu(function.address, name, size, "passthrough", state, vms=holders)
    if divided is None:
        return Gpu(function.address, name, size, "none", "unset")
    slots = [
        Slot(slot.profile.name, slot.start_gb, slot.profile.size_gb, index.get(slot.holder or ""))
        for slot in sorted(divided.slots, key=lambda slot: slot.start_gb)
    ]
    # What the account may not see takes nobody knows how much.
    room = 0 if hidden else fits.of(divided, host.vgpu_types)
    slots += [Slot("", size, 0)] * hidden
    state = "free" if not slots else "part" if room else "full"
    open_ = () if hidden else fits.open(divided, room)
    return Gpu(function.address, name, size, "vgpu", state, divided.mode, tuple(slots), open_, room, holders)


def _whole(device: GpuAttachment, function: PciFunction) -> bool:
    return device.mode != "vgpu" and device.address == function.address


def _vms(guests: t.Sequence[VmFacts], inputs: Inputs) -> tuple[Vm, ...]:
    jobs: dict[str, list[int]] = collections.defaultdict(list)
    for number, job in enumerate(inputs.jobs or ()):
        for name in dict.fromkeys(job.vms):
            jobs[name].append(number)
    findings = collections.Counter(point.object for point in inputs.findings or ())
    return tuple(
        Vm(
            name=vm.name,
            power=vm.power,
            gpus=tuple(device.profile or "whole" for device in vm.gpus),
            tenant=_tenant(vm.name, inputs.tenants, [(inputs.jobs or ())[number] for number in jobs[vm.name]]),
            jobs=tuple(jobs[vm.name]),
            findings=findings[vm.name],
        )
        for vm in guests
    )


def _tenant(name: str, tenants: Tenants, jobs: t.Sequence[Job]) -> str:
    """Whose the machine is: the first tenant with a pattern for its name, else the only one whose jobs it runs."""
    for tenant, patterns in tenants.items():
        if any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns):
            return tenant
    found = {job.tenant for job in jobs if job.tenant}
    return found.pop() if len(found) == 1 else ""


def _host_points(facts: HostFacts, host: Host) -> list[Point]:
    points = []
    if host.state in ("disconnected", "not responding"):
        points.append(Point("host", host.name, f"The host is {host.state}: what is shown is what was known last."))
    elif host.state == "maintenance":
        ours = maintenance_owner(facts) == "gpuops"
        whose = "by a run of gpuops that has not ended" if ours else "and not by gpuops: it is left alone"
        points.append(Point("host", host.name, f"In maintenance mode, {whose}.", "run site.yml again" if ours else ""))
    waiting = [gpu.address for gpu in host.gpus if gpu.state == "reboot"]
    if waiting:
        text = f"Passthrough of {', '.join(waiting)} waits for a reboot."
        points.append(Point("reboot", host.name, text, _REBOOT))
    elif host.reboot:
        points.append(Point("reboot", host.name, "The host says that it must reboot.", _REBOOT))
    return points


_REBOOT = "run playbooks/esxi_rolling.yml, which empties it first"


def _totals(clusters: t.Sequence[Cluster], vms: t.Sequence[Vm], jobs: t.Sequence[Job] | None) -> Totals:
    hosts = [host for cluster in clusters for host in cluster.hosts]
    gpus = [gpu for host in hosts for gpu in host.gpus]
    given = [gpu for gpu in gpus if gpu.use != "none"]
    return Totals(
        hosts=len(hosts),
        hosts_in_service=sum(host.state == "in service" for host in hosts),
        gpus=len(gpus),
        gpus_by_state=dict(sorted(collections.Counter(gpu.state for gpu in gpus).items())),
        vgpus=sum(len(gpu.slots) for gpu in gpus),
        gb=sum(gpu.gb for gpu in given),
        gb_used=sum(_used(gpu) for gpu in given),
        vms=len(vms),
        vms_running=sum(vm.power == "poweredOn" for vm in vms),
        vms_suspended=sum(vm.power == "suspended" for vm in vms),
        jobs_running=sum(job.state == "running" for job in jobs or ()),
        jobs_waiting=sum(job.state == WAITING for job in jobs or ()),
        reboots=sum(host.reboot for host in hosts),
    )


def _used(gpu: Gpu) -> float:
    return gpu.gb if gpu.vms else sum(slot.gb for slot in gpu.slots)


def _capacity(clusters: t.Sequence[Cluster], fits: Fits) -> tuple[Capacity, ...]:
    """By profile in use or to be had, and by model of GPUs that are given out whole; the largest first."""
    used: collections.Counter[str] = collections.Counter()
    free: collections.Counter[str] = collections.Counter()
    names: dict[str, str] = {}
    whole: dict[str, list[Gpu]] = collections.defaultdict(list)
    free_whole: collections.Counter[str] = collections.Counter()
    for host in (host for cluster in clusters for host in cluster.hosts):
        for gpu in host.gpus:
            for slot in gpu.slots:
                if slot.profile:
                    used[names.setdefault(vgpu.plain(slot.profile), slot.profile)] += 1
            if gpu.use == "passthrough" and gpu.state != "unset":
                whole[gpu.model].append(gpu)
                free_whole[gpu.model] += gpu.state == "free" and host.state == "in service"
            if host.state == "in service":
                for profile, count in fits.rooms[gpu.room].items():
                    free[names.setdefault(vgpu.plain(profile), profile)] += count
    rows = [Capacity(name, fits.board_of(name), fits.size_of(name), used[name], free[name]) for name in {*used, *free}]
    rows += [
        Capacity(f"{model} whole", model, gpus[0].gb, sum(bool(gpu.vms) for gpu in gpus), free_whole[model], whole=True)
        for model, gpus in whole.items()
    ]
    return tuple(sorted(rows, key=lambda row: (row.whole, row.model, -row.gb, row.profile)))


def _plan(given: GivenPlan, vms: t.Sequence[VmFacts]) -> Plan:
    """The plan with the machines of each host that it changes, before and after."""
    before = {vm.name: vm.host or "" for vm in vms}
    after = {**before, **given.moves}
    for name in given.removed:
        after.pop(name, None)
    after |= given.where
    there: dict[str, list[str]] = collections.defaultdict(list)
    then: dict[str, list[str]] = collections.defaultdict(list)
    for places, names in ((before, there), (after, then)):
        for name in sorted(places):
            names[places[name]].append(name)
    moves = [
        Move(host, tuple(there[host]), tuple(then[host]))
        for host in sorted({*there, *then})
        if there[host] != then[host]
    ]
    return Plan(given.steps, given.warnings, given.problems, tuple(moves))
