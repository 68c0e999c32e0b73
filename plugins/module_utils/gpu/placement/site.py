# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""From facts to a question: hosts with what their machines take, and the machines that are asked for."""

from __future__ import annotations

import collections.abc
import dataclasses
import fnmatch
import typing as t

from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.catalog import Catalog
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.facts import GpuAttachment, HostFacts, VmFacts
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.placement.admission import start_for
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.placement.model import (
    Demand,
    Gpu,
    Grant,
    Host,
    Need,
    Policy,
    Resident,
    Slot,
    Use,
)
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.placement.profiles import UnknownProfileError, profile
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.plan import Problem
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.profiles import Choice, Needs, choose
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.selection import normalise_address
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.wants import parse

_NEEDS = tuple(field.name for field in dataclasses.fields(Needs))
AntiAffinity = t.Mapping[str, t.Sequence[str]]


@dataclasses.dataclass(frozen=True, slots=True)
class Capacity:
    """What a host has beside GPUs."""

    memory_mb: int
    threads: int
    policy: Policy = "performance"


@dataclasses.dataclass(frozen=True, slots=True)
class SiteFacts:
    """All that placement reads of a vCenter."""

    hosts: t.Mapping[str, HostFacts]
    vms: t.Mapping[str, VmFacts]
    capacity: t.Mapping[str, Capacity]
    cpus: t.Mapping[str, int]
    """Virtual processors by machine."""


@dataclasses.dataclass(frozen=True, slots=True)
class Rules:
    """What a site keeps back, and who must keep apart."""

    host_memory_reserve_mb: int = 8192
    """Memory of each host that the hypervisor keeps."""
    cpu_overcommit: float = 4.0
    """Virtual processors for each logical processor of a host."""
    anti_affinity: AntiAffinity = dataclasses.field(default_factory=dict)
    """Group -> shell patterns of names: no two of a group on one host."""

    def groups(self, name: str) -> tuple[str, ...]:
        """The anti-affinity groups of a machine."""
        return tuple(
            group
            for group, patterns in sorted(self.anti_affinity.items())
            if any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)
        )


def hosts_of(
    facts: SiteFacts,
    catalog: Catalog,
    rules: Rules,
    *,
    leaving: collections.abc.Collection[str] = (),
    ignore: collections.abc.Collection[str] = (),
) -> list[Host]:
    """The hosts as placement sees them. Machines of `ignore` are about to be placed anew, and take nothing.

    A fixed device belongs to its machine also while that is off; everything else is taken by machines that run.
    Which GPU holds which vGPU comes from the host; at which slot it starts is in no API, and is worked out as if
    the largest had come first.
    """
    by_host: dict[str, list[VmFacts]] = collections.defaultdict(list)
    for vm in facts.vms.values():
        if vm.host is not None and not vm.template and vm.name not in ignore:
            by_host[vm.host].append(vm)
    return [_host(host, by_host[name], facts, catalog, rules, name in leaving) for name, host in facts.hosts.items()]


def closed_reason(host: HostFacts) -> str | None:
    """Why no machine may come to a host now."""
    if host.connection == "notResponding":
        return "does not respond"
    if not host.answers:
        return "is disconnected"
    return "is in maintenance mode" if host.in_maintenance else None


def _host(
    host: HostFacts, vms: t.Sequence[VmFacts], facts: SiteFacts, catalog: Catalog, rules: Rules, leaving: bool
) -> Host:
    capacity = facts.capacity.get(host.name, Capacity(0, 0))
    gpus = {gpu.address: gpu for gpu in _gpus(host, catalog)}
    running = [vm for vm in vms if vm.power == "poweredOn"]
    residents = []
    for vm in sorted(vms, key=lambda vm: -_largest(vm)):
        grants = _grants(vm, host, gpus, on=vm in running)
        fixed = any(gpu.mode == "fixed" for gpu in vm.gpus)
        if vm in running or (fixed and grants):
            demand = demand_of(vm, facts, rules)
            residents.append(Resident(demand, grants, movable=bool(vm.gpus) and not fixed))
    return Host(
        host.name,
        host.cluster,
        tuple(gpus[address] for address in sorted(gpus)),
        capacity.policy,
        max(0, capacity.memory_mb - rules.host_memory_reserve_mb - sum(_reserved(vm) for vm in running)),
        max(0, int(capacity.threads * rules.cpu_overcommit) - sum(facts.cpus.get(vm.name, 0) for vm in running)),
        tuple(residents),
        "is to leave its cluster" if leaving else closed_reason(host),
    )


def _gpus(host: HostFacts, catalog: Catalog) -> t.Iterator[Gpu]:
    graphics = {device.address: device for device in host.graphics}
    for function in host.devices:
        if not catalog.is_gpu(function):
            continue
        address = normalise_address(function.address) or function.address
        model = catalog.get(function.id)
        board = model.board if model else None
        device = graphics.get(address)
        use: Use = "none"
        if function.passthrough_active != function.passthrough_enabled:
            use = "none"  # it changes with the next reboot
        elif function.passthrough_active:
            use = "passthrough"
        elif device is not None and device.graphics_type == "sharedDirect" and _offers(host, board):
            use = {"mixedSize": "mixed_size", "multiInstanceGpu": "none"}.get(device.vgpu_mode or "", "same_size")  # type: ignore[assignment]
        yield Gpu(address, function.id, board, use, function.hardware_label)


def _offers(host: HostFacts, board: str | None) -> bool:
    return board is not None and any(f"_{board}-" in f"_{name}" for name in host.vgpu_types)


def _reserved(vm: VmFacts) -> int:
    return vm.memory_mb if vm.memory_reservation_locked or vm.gpus else vm.memory_reservation_mb


def _profile(gpu: GpuAttachment) -> t.Any:
    try:
        return profile(gpu.profile or "")
    except UnknownProfileError:
        return None  # of a board the collection does not know: nothing else of ours can be on such a GPU


def _largest(vm: VmFacts) -> int:
    return max((found.size for gpu in vm.gpus if (found := _profile(gpu)) is not None), default=0)


def _grants(vm: VmFacts, host: HostFacts, gpus: dict[str, Gpu], *, on: bool) -> tuple[Grant, ...]:
    """What a machine has of the host's GPUs; it is marked as taken in `gpus`."""
    grants = []
    seen_on = {device.address for device in host.graphics if vm.moid and vm.moid in device.vm_moids}
    for attached in vm.gpus:
        if attached.mode != "vgpu":
            address = attached.address
            if address in gpus and not gpus[address].held and (on or attached.mode == "fixed"):
                gpus[address] = dataclasses.replace(gpus[address], held=True)
                grants.append(Grant(address))
            continue
        wanted = _profile(attached) if on else None
        if wanted is None:
            continue
        for address in sorted(gpus, key=lambda address: (address not in seen_on, address)):
            start = start_for(gpus[address], wanted)
            if start is not None:
                slot = Slot(start, wanted.size, wanted.series)
                gpus[address] = dataclasses.replace(gpus[address], slots=(*gpus[address].slots, slot))
                grants.append(Grant(address, slot))
                break
    return tuple(grants)


def demand_of(vm: VmFacts, facts: SiteFacts, rules: Rules, *, origin: str | None = None) -> Demand:
    """A machine that exists, as a demand; the cluster it is in holds while it is moved."""
    counts: dict[Need, int] = collections.Counter()
    for gpu in vm.gpus:
        if gpu.mode == "vgpu":
            counts[Need("vgpu", profile=gpu.profile)] += 1
        elif gpu.mode == "dynamic":
            # By label alone it allows all ids that bear it.
            one = gpu.ids[0] if gpu.ids and (len(gpu.ids) == 1 or gpu.label is None) else None
            counts[Need("dynamic", id=one, label=gpu.label)] += 1
        else:
            counts[Need("fixed", id=gpu.ids[0] if gpu.ids else None)] += 1
    return Demand(
        vm.name,
        tuple(dataclasses.replace(need, count=count) for need, count in counts.items()),
        _reserved(vm),
        facts.cpus.get(vm.name, 0),
        groups=rules.groups(vm.name),
        origin=origin,
    )


def demands_from_option(
    items: t.Sequence[t.Mapping[str, t.Any]], rules: Rules
) -> tuple[list[Demand], dict[str, list[Problem]]]:
    """The option `vms` of the modules, and what is wrong with it, by machine."""
    problems: dict[str, list[Problem]] = collections.defaultdict(list)
    demands: list[Demand] = []
    # vGPUs by profile alone have their own way, as placement has to know the board.
    others = [
        {**item, "gpus": [gpu for gpu in item.get("gpus") or () if not _by_profile(gpu)], "memory_mb": None}
        for item in items
    ]
    wants, mistakes = parse(others)
    seen: set[str] = set()
    for name, found in mistakes.items():
        problems[name] += found
    for item in items:
        name = item["name"]
        if name in seen:
            continue
        seen.add(name)
        needs = []
        for want in wants[name].gpus:
            if want.mode == "device_group":
                text = "a device group is offered by certain hosts only: name the host instead of having one chosen."
                problems[name].append(Problem("invalid_gpu", name, text, "gpus"))
            else:
                needs.append(
                    Need(
                        want.mode,
                        want.count or 0,
                        id=want.id,
                        label=want.label,
                        address=want.address,
                        wanted=want.needs,
                    )
                )
        needs += _vgpu_needs(name, item, problems)
        if any(need.count < 1 for need in needs):
            text = "count must be a whole number from 1; how many GPUs a host has is not known before it is chosen."
            problems[name].append(Problem("invalid_gpu", name, text, "gpus"))
        for need in needs:
            if need.profile and _unknown(need.profile):
                problems[name].append(Problem("unknown_profile", name, f"{_unknown(need.profile)}.", "gpus"))
        demands.append(
            Demand(
                name,
                tuple(needs),
                item.get("memory_mb") or 0,
                item.get("num_cpus") or 0,
                host=item.get("host") or None,
                cluster=item.get("cluster") or None,
                groups=rules.groups(name),
            )
        )
    return [demand for demand in demands if not problems.get(demand.name)], {n: p for n, p in problems.items() if p}


def _vgpu_needs(name: str, item: t.Mapping[str, t.Any], problems: dict[str, list[Problem]]) -> t.Iterator[Need]:
    for gpu in item.get("gpus") or ():
        if not _by_profile(gpu):
            continue
        count = str(gpu.get("count") or 1)
        if not count.isdigit() or int(count) < 1:
            problems[name].append(Problem("invalid_gpu", name, f"count must be a number, not {count!r}.", "gpus"))
        else:
            yield Need("vgpu", int(count), profile=gpu["profile"].strip().lower())


def _by_profile(gpu: t.Mapping[str, t.Any]) -> bool:
    return gpu["mode"] == "vgpu" and bool(gpu.get("profile")) and not any(gpu.get(key) for key in _NEEDS)


def with_profiles(
    hosts: t.Sequence[Host], demands: t.Sequence[Demand], facts: SiteFacts, catalog: Catalog
) -> tuple[tuple[Host, ...], tuple[Demand, ...]]:
    """The hosts with their profiles for what is asked of vGPUs, and the demands with the least share of a GPU it takes.

    Equal hosts share the work: what they offer and the modes of their GPUs decide.
    """
    wanted = list(dict.fromkeys(need.wanted for demand in demands for need in demand.needs if need.wanted is not None))
    if not wanted:
        return tuple(hosts), tuple(demands)
    known: dict[t.Any, list[Choice]] = {}
    made = []
    for host in hosts:
        offer = facts.hosts[host.name]
        modes = tuple((device.graphics_type, device.vgpu_mode) for device in offer.graphics)
        boards = tuple(gpu.board for gpu in host.gpus)
        kind = (offer.vgpu_types, offer.vgpu_migrate, offer.vgpu_suspend, modes, boards)
        if kind not in known:
            known[kind] = [chosen(needs, offer, catalog) for needs in wanted]
        choices = list(zip(wanted, known[kind], strict=True))
        made.append(
            dataclasses.replace(
                host,
                profiles=tuple((needs, choice.profile) for needs, choice in choices if choice.profile is not None),
                unmet=tuple((needs, choice.reason) for needs, choice in choices if choice.profile is None),
            )
        )
    shares: dict[Needs, float] = {}
    for host in made:
        for needs, name in host.profiles:
            shares[needs] = min(shares.get(needs, 1.0), profile(name).share)
    return tuple(made), tuple(
        dataclasses.replace(
            demand,
            needs=tuple(
                need if need.wanted is None else dataclasses.replace(need, share=shares.get(need.wanted, 1.0))
                for need in demand.needs
            ),
        )
        for demand in demands
    )


def chosen(needs: Needs, host: HostFacts, catalog: Catalog, *, has: collections.abc.Collection[str] = ()) -> Choice:
    """The host's profile for what is asked, of those that can be placed: MIG-backed ones cannot."""
    placed = tuple(name for name in host.vgpu_types if _unknown(name) is None)
    return choose(needs, dataclasses.replace(host, vgpu_types=placed), catalog, has=has)


def _unknown(name: str) -> str | None:
    try:
        profile(name)
    except UnknownProfileError as error:
        return str(error)
    return None
