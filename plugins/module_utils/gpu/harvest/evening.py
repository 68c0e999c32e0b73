# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Planner: which idle desktops are suspended so that their GPUs serve compute machines until the morning.

A vGPU holds its framebuffer until its machine is suspended or off (NVIDIA vGPU documentation), so only a suspension
frees anything; and a GPU in same-size mode takes another size only once it is empty. Whatever is not known for certain
leaves the desktop alone.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import typing as t

from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.catalog import Catalog
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.facts import HostFacts, VmFacts
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.vgpu import Gpu, Profile, offered, running
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.vm_power import LENT

Heartbeat = t.Literal["green", "yellow", "red", "gray"]
Check = t.Literal["idle", "busy", "failed"]
Verdict = t.Literal["suspend", "reserve", "keep", "leave alone", "lent"]

GpuKey = tuple[str, str]
"""Host and PCI address."""


@dataclasses.dataclass(frozen=True, slots=True)
class Activity:
    """What is known of the use of one desktop."""

    cpu_mhz: tuple[float, ...] = ()
    """Averages over equal parts of the window, MHz."""
    heartbeat: Heartbeat = "gray"
    """VirtualMachine.guestHeartbeatStatus."""
    check: Check | None = None
    """What the site's own check command says; None when it was not asked."""


@dataclasses.dataclass(frozen=True, slots=True)
class IdlePolicy:
    """What counts as idle, and how many idle desktops stay ready for late users."""

    idle_mhz: float = 300.0
    """No sample of the window may be above it."""
    samples: int = 6
    """How many samples the window must have; a desktop with fewer is kept."""
    check: bool = False
    """Whether the site's own check must say `idle` too."""
    reserve: int = 0


@dataclasses.dataclass(frozen=True, slots=True)
class Decision:
    """What happens to one desktop, and why."""

    verdict: Verdict
    reason: str
    warning: bool = False
    """The reason is something to mend, not a desktop in use."""


@dataclasses.dataclass(frozen=True, slots=True)
class EveningPlan:
    """All decisions, and the room that they make."""

    decisions: t.Mapping[str, Decision]
    room: t.Mapping[str, int] = dataclasses.field(default_factory=dict)
    """How many compute vGPUs each host then takes, by host."""

    @property
    def suspend(self) -> tuple[str, ...]:
        """The desktops to suspend."""
        return tuple(name for name, decision in self.decisions.items() if decision.verdict == "suspend")


def plan_evening(
    desktops: t.Mapping[str, VmFacts],
    others: collections.abc.Iterable[VmFacts],
    hosts: t.Mapping[str, HostFacts],
    activity: t.Mapping[str, Activity],
    opted_in: collections.abc.Collection[str],
    policy: IdlePolicy,
    compute: Profile,
    catalog: Catalog | None = None,
) -> EveningPlan:
    """Decide for each of `desktops`. `others` are the further machines on the hosts; `compute` is the profile to
    make room for. A desktop is suspended only if that, with the others that are, makes room for a compute machine."""
    catalog = catalog or Catalog()
    everyone = [*desktops.values(), *(vm for vm in others if vm.name not in desktops)]
    decisions: dict[str, Decision] = {}
    idle: list[str] = []
    for name in sorted(desktops):
        decision = _kept(desktops[name], hosts, activity.get(name, Activity()), opted_in, policy)
        if decision is None:
            idle.append(name)
        else:
            decisions[name] = decision
    on = {name: _gpus_of(desktops[name], hosts) for name in idle}
    for name in _reserve(idle, on, everyone, hosts, policy.reserve):
        decisions[name] = Decision("reserve", f"idle; one of {policy.reserve} that stay ready for late users")
    candidates = [name for name in idle if name not in decisions]
    useful, room = _useful(candidates, on, everyone, hosts, compute, catalog)
    for name in candidates:
        decisions[name] = (
            Decision("suspend", "idle")
            if name in useful
            else Decision("keep", f"idle, but suspending it makes no room for {compute.name}")
        )
    return EveningPlan({name: decisions[name] for name in desktops}, room)


def _kept(
    vm: VmFacts,
    hosts: t.Mapping[str, HostFacts],
    activity: Activity,
    opted_in: collections.abc.Collection[str],
    policy: IdlePolicy,
) -> Decision | None:
    """Why a desktop is not a candidate; None when it is."""
    if vm.power == "suspended":
        if vm.intent is not None and vm.intent.action == LENT:
            return Decision("lent", "suspended by an earlier run")
        return Decision("leave alone", "somebody else has suspended it")
    if vm.power != "poweredOn":
        return Decision("leave alone", "it is off")
    if vm.name not in opted_in:
        return Decision("keep", "not marked to be lent")
    return _unable(vm, hosts.get(vm.host or "")) or _in_use(activity, policy)


def _unable(vm: VmFacts, host: HostFacts | None) -> Decision | None:
    if vm.intent is not None and vm.intent.action != LENT:
        return Decision("leave alone", f"run {vm.intent.run} is at work on it ({vm.intent.action})")
    if any(gpu.mode != "vgpu" for gpu in vm.gpus):
        return Decision(
            "keep", "it has a GPU by passthrough and cannot be suspended; take the mark to be lent off it", warning=True
        )
    if not vm.gpus:
        return Decision("keep", "it has no vGPU, so that suspending it frees none; take the mark off it", warning=True)
    if host is None or not host.answers or host.in_maintenance:
        return Decision("leave alone", f"{vm.host or 'its host'} does not answer or is in maintenance mode")
    unable = [str(gpu.profile) for gpu in vm.gpus if offered(str(gpu.profile), host) not in host.vgpu_suspend]
    if unable:
        return Decision("keep", f"{host.name} cannot suspend a machine with {', '.join(unable)}", warning=True)
    if not _gpus_of(vm, {host.name: host}):
        return Decision("keep", f"{host.name} does not tell on which GPU it is", warning=True)
    return None


def _in_use(activity: Activity, policy: IdlePolicy) -> Decision | None:
    if len(activity.cpu_mhz) < policy.samples:
        return Decision("keep", f"only {len(activity.cpu_mhz)} of {policy.samples} CPU samples are known", warning=True)
    if max(activity.cpu_mhz, default=0.0) > policy.idle_mhz:
        return Decision("keep", f"in use: {max(activity.cpu_mhz):.0f} MHz, idle is up to {policy.idle_mhz:.0f}")
    if activity.heartbeat != "green":
        return Decision("keep", f"its guest's heartbeat is {activity.heartbeat}, which says nothing of its use")
    if policy.check and activity.check != "idle":
        said = {"busy": "says that it is in use", "failed": "failed or hung"}.get(str(activity.check), "was not made")
        return Decision("keep", f"the site's check {said}", warning=activity.check != "busy")
    return None


def _gpus_of(vm: VmFacts, hosts: t.Mapping[str, HostFacts]) -> frozenset[GpuKey]:
    host = hosts.get(vm.host or "")
    return (
        frozenset((host.name, gpu.address) for gpu in host.graphics if vm.moid in gpu.vm_moids) if host else frozenset()
    )


def _reserve(
    idle: t.Sequence[str],
    on: t.Mapping[str, frozenset[GpuKey]],
    everyone: t.Sequence[VmFacts],
    hosts: t.Mapping[str, HostFacts],
    wanted: int,
) -> list[str]:
    """The idle desktops that stay: on as few GPUs as will do, first on those that others keep from being empty."""
    names = {vm.moid: vm.name for vm in everyone}
    holders = {
        (host.name, gpu.address): {names.get(moid, moid) for moid in gpu.vm_moids}
        for host in hosts.values()
        for gpu in host.graphics
    }
    free = set(idle)
    stuck = {name for name in idle if any(holders[gpu] - free for gpu in on[name])}
    groups: dict[frozenset[GpuKey], list[str]] = {}
    for name in idle:
        if name not in stuck:
            groups.setdefault(on[name], []).append(name)
    chosen = [name for name in idle if name in stuck][:wanted]
    left = sorted(groups.values(), key=lambda group: (-len(group), group))
    while left and len(chosen) < wanted:
        short = wanted - len(chosen)
        enough = [group for group in left if len(group) >= short]
        group = min(enough, key=lambda group: (len(group), group)) if enough else left[0]
        left.remove(group)
        chosen += group[:short]
    return chosen


def _useful(
    candidates: t.Sequence[str],
    on: t.Mapping[str, frozenset[GpuKey]],
    everyone: t.Sequence[VmFacts],
    hosts: t.Mapping[str, HostFacts],
    compute: Profile,
    catalog: Catalog,
) -> tuple[set[str], dict[str, int]]:
    """The candidates whose GPUs take more compute vGPUs once all of them are suspended, and the room on each host."""
    gone = set(candidates)
    before, after = (
        {
            (host.name, address): _room(gpu, compute)
            for host in hosts.values()
            if host.answers and not host.in_maintenance and offered(compute.name, host)
            for address, gpu in running(host, (vm for vm in everyone if vm.name not in without), catalog).items()
        }
        for without in (set(), gone)
    )
    gaining = {gpu for gpu, count in after.items() if count > before[gpu]}
    useful = {name for name in candidates if on[name] & gaining}
    room: dict[str, int] = {}
    for (host, _address), count in after.items():
        room[host] = room.get(host, 0) + count
    return useful, {host: count for host, count in room.items() if count}


def _room(gpu: Gpu, profile: Profile) -> int:
    """How many vGPUs of a profile a GPU takes."""
    count = 0
    while (start := gpu.start_for(profile)) is not None:
        gpu, count = gpu.with_vgpu(profile, start), count + 1
    return count
