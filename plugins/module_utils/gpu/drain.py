# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Planner: how the virtual machines that run on hosts get out of the way, and how they come back.

Rules: a machine with a passed-through device neither migrates nor suspends. One with vGPUs migrates while the
vCenter's setting `vgpu.hotmigrate.enabled` is on, to a host that offers its profiles and has room for them, and
resumes on an unchanged GPU only (NVIDIA vGPU documentation).
"""

from __future__ import annotations

import dataclasses
import re
import typing as t

from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.facts import Drained, HostFacts, Intent, Power
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.plan import Change

WayKind = t.Literal["migrate", "suspend", "shut down"]
WAYS: tuple[WayKind, ...] = ("migrate", "suspend", "shut down")
"""In the order in which they are tried."""

# Actions of the intents of virtual machines. SUSPENDING becomes SUSPENDED when the task has ended.
MOVED, SUSPENDING, SUSPENDED, STOPPED = "moved", "suspending", "suspended", "stopped"

HOT_MIGRATE = "vgpu.hotmigrate.enabled"

_SIZE = re.compile(r"-(\d+)([a-z])\d?$")


@dataclasses.dataclass(frozen=True, slots=True)
class Guest:
    """A virtual machine, as far as it can be in the way."""

    name: str
    moid: str
    host: str | None
    """Name of its host."""
    power: Power
    memory_mb: int = 0
    agent: bool = False
    """A vCLS agent: the vCenter sees to it."""
    drs_moves: bool = False
    """DRS moves it by itself when its host enters maintenance mode."""
    passthrough: bool = False
    """It has a passed-through device, fixed or dynamic."""
    profiles: tuple[str, ...] = ()
    """Of its vGPUs."""
    intent: Intent | None = None

    @property
    def in_the_way(self) -> bool:
        """Whether it keeps its host from maintenance mode unless something is done to it."""
        return self.power == "poweredOn" and not self.agent


@dataclasses.dataclass(frozen=True, slots=True)
class SharedGpu:
    """A GPU that can take vGPUs."""

    memory_gb: float
    mixed_size: bool
    holds: tuple[str, ...] = ()
    """Profiles of the vGPUs that run on it."""


@dataclasses.dataclass(frozen=True, slots=True)
class Target:
    """A host that machines may be migrated to."""

    name: str
    moid: str
    cluster: str | None
    usable: bool
    """It answers and is not in, or on its way into, maintenance mode."""
    memory_mb: int = 0
    """All of its memory."""
    profiles: frozenset[str] = frozenset()
    """vGPU profiles that it offers."""
    gpus: tuple[SharedGpu, ...] = ()
    no_migrate: frozenset[str] = frozenset()
    """Profiles of which it says that they cannot migrate."""
    no_suspend: frozenset[str] = frozenset()
    """Profiles of which it says that they cannot be suspended."""


@dataclasses.dataclass(frozen=True, slots=True)
class DrainFacts:
    """The virtual machines on the hosts' clusters, the hosts of these, and the vCenter's setting."""

    guests: tuple[Guest, ...] = ()
    targets: t.Mapping[str, Target] = dataclasses.field(default_factory=dict)
    hot_migrate: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class DrainPolicy:
    """What may be done to virtual machines."""

    migrate: bool = True
    suspend: bool = False
    shut_down: t.Literal["never", "guest", "force"] = "never"
    targets: t.Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Machine -> the host it is to migrate to; DRS is not asked for these. Another host where that has no room."""


@dataclasses.dataclass(frozen=True, slots=True)
class Way:
    """One way out of the way."""

    kind: WayKind
    target: str | None = None
    """Host to migrate to."""


@dataclasses.dataclass(frozen=True, slots=True)
class GuestDrain:
    """One virtual machine and its ways, the first one first; the others are for when it fails."""

    guest: Guest
    ways: tuple[Way, ...]
    reason: str = ""
    """Why a better way is not open."""


@dataclasses.dataclass(frozen=True, slots=True)
class HostDrain:
    """The virtual machines of one host."""

    drs: tuple[str, ...] = ()
    """Names of those that DRS moves."""
    drains: tuple[GuestDrain, ...] = ()
    blocked: tuple[tuple[str, str], ...] = ()
    """Those for which there is no way: name and why."""

    @property
    def changes(self) -> tuple[Change, ...]:
        """What is done to the virtual machines, as changes of the host."""
        return tuple(_change(drain) for drain in self.drains)

    @property
    def moved(self) -> frozenset[str]:
        """Names of those that are on other hosts then."""
        return frozenset((*self.drs, *(item.guest.name for item in self.drains if item.ways[0].kind == "migrate")))

    def predicted(self) -> tuple[Drained, ...]:
        """What there is to restore afterwards."""
        found = []
        for drain in self.drains:
            way, guest = drain.ways[0], drain.guest
            how = {"migrate": MOVED, "suspend": SUSPENDED, "shut down": STOPPED}[way.kind]
            power: Power = "poweredOn" if how == MOVED else "suspended" if how == SUSPENDED else "poweredOff"
            found.append(Drained(guest.name, guest.moid, how, way.target or guest.host, power))
        return tuple(found)


@dataclasses.dataclass(frozen=True, slots=True)
class Restore:
    """What is to be done to one virtual machine that a run of ours has drained; the mark is cleared in the end."""

    drained: Drained
    kind: t.Literal["migrate", "power on", "forget"]


def plan_drain(
    hosts: t.Sequence[str],
    facts: DrainFacts,
    policy: DrainPolicy,
    unreadable: t.Mapping[str, t.Sequence[str]] | None = None,
) -> dict[str, HostDrain]:
    """How to empty each of the hosts; machines that migrate are shared out among hosts that stay in service.

    `unreadable` are the ids of machines on the hosts that the account may not read: they may run.
    """
    room = _Room(facts, leaving=frozenset(hosts))
    result = {}
    for host in hosts:
        guests = sorted((g for g in facts.guests if g.host == host and g.in_the_way), key=_hardest_first)
        drs = tuple(g.name for g in guests if g.drs_moves and g.name not in policy.targets and room.hosts_beside(host))
        drains = []
        blocked = [(vm, "the account may not read it") for vm in (unreadable or {}).get(host, ())]
        for guest in guests:
            if guest.name in drs:
                continue
            drain = _ways(guest, host, facts, policy, room)
            if drain.ways:
                drains.append(drain)
            else:
                blocked.append((guest.name, drain.reason))
        result[host] = HostDrain(tuple(sorted(drs)), tuple(drains), tuple(sorted(blocked)))
    return result


def plan_restore(host: HostFacts) -> tuple[Restore, ...]:
    """What brings back the virtual machines that runs of ours have drained from a host, and nobody else's."""
    return tuple(_restore(drained, host.name) for drained in host.drained)


def restore_changes(host: str, restores: t.Sequence[Restore]) -> tuple[Change, ...]:
    """The same as changes of the host."""
    changes = []
    for restore in restores:
        drained = restore.drained
        if restore.kind == "migrate":
            changes.append(Change("migrate back", drained.vm, drained.host, host))
        elif restore.kind == "power on":
            action = "resume" if drained.power == "suspended" else "power on again"
            changes.append(Change(action, drained.vm, drained.power, "poweredOn"))
        else:
            changes.append(Change("clear intent of", drained.vm, drained.how, None, "there is nothing to restore"))
    return tuple(changes)


def _restore(drained: Drained, host: str) -> Restore:
    if drained.how == MOVED:
        return Restore(drained, "forget" if drained.host == host else "migrate")
    down = "poweredOff" if drained.how == STOPPED else "suspended"
    ours = drained.power == down and not drained.foreign
    return Restore(drained, "power on" if ours else "forget")


def _change(drain: GuestDrain) -> Change:
    way, guest = drain.ways[0], drain.guest
    if way.kind == "migrate":
        return Change("migrate", guest.name, guest.host, way.target, drain.reason, disruptive=True)
    after = "suspended" if way.kind == "suspend" else "poweredOff"
    return Change(way.kind, guest.name, "poweredOn", after, drain.reason, disruptive=True)


def _hardest_first(guest: Guest) -> tuple[float, int, str]:
    return (-sum(size_gb(profile) for profile in guest.profiles), -guest.memory_mb, guest.name)


def size_gb(profile: str) -> float:
    """Framebuffer of a vGPU profile, from its name: `nvidia_a100-10c` has 10 GB, `…-0b` half a GB."""
    match = _SIZE.search(profile)
    return float(match.group(1)) or 0.5 if match else 0.0


def _ways(guest: Guest, host: str, facts: DrainFacts, policy: DrainPolicy, room: _Room) -> GuestDrain:
    ways, reasons = [], []
    why = _cannot_migrate(guest, host, facts, policy)
    target = room.take(guest, host, policy.targets.get(guest.name)) if why is None else None
    if target is not None:
        ways.append(Way("migrate", target))
    else:
        reasons.append(why or room.why_none(guest, host))
    why = _cannot_suspend(guest, host, facts, policy)
    if why is None:
        ways.append(Way("suspend"))
    elif why and why not in reasons:
        reasons.append(why)
    if policy.shut_down != "never":
        ways.append(Way("shut down"))
    return GuestDrain(guest, tuple(ways), "; ".join(reasons) if not ways or ways[0].kind != "migrate" else "")


def _cannot_migrate(guest: Guest, host: str, facts: DrainFacts, policy: DrainPolicy) -> str | None:
    if guest.passthrough:
        return "it has a passed-through device"
    if not policy.migrate:
        return "migrating is not allowed"
    if guest.profiles and not facts.hot_migrate:
        return f"the vCenter's setting {HOT_MIGRATE} is off"
    source = facts.targets.get(host)
    fixed = [profile for profile in guest.profiles if source is not None and profile in source.no_migrate]
    return f"the vGPU {fixed[0]} cannot migrate" if fixed else None


def _cannot_suspend(guest: Guest, host: str, facts: DrainFacts, policy: DrainPolicy) -> str | None:
    """Why it cannot be suspended, empty where that need not be said; None if it can."""
    if guest.passthrough:
        return "it has a passed-through device"
    if not policy.suspend:
        return ""
    source = facts.targets.get(host)
    fixed = [profile for profile in guest.profiles if source is not None and profile in source.no_suspend]
    return f"the vGPU {fixed[0]} cannot be suspended" if fixed else None


class _Room:
    """What hosts have room for, as machines are promised to them one after the other."""

    def __init__(self, facts: DrainFacts, leaving: frozenset[str]) -> None:
        self.targets = facts.targets
        self.open = {name: t for name, t in facts.targets.items() if t.usable and name not in leaving}
        self.gpus = {name: list(target.gpus) for name, target in self.open.items()}
        self.memory = {name: target.memory_mb for name, target in self.open.items()}
        for guest in facts.guests:
            if guest.host in self.memory and guest.power == "poweredOn":
                self.memory[guest.host] -= guest.memory_mb

    def hosts_beside(self, host: str) -> list[str]:
        """Hosts of the same cluster that stay in service."""
        source = self.targets.get(host)
        if source is None or source.cluster is None:
            return []
        return [name for name, target in self.open.items() if target.cluster == source.cluster and name != host]

    def take(self, guest: Guest, host: str, first: str | None = None) -> str | None:
        """The host `first`, else that with the most free memory that can take it; it then has that much less room."""
        for name in sorted(self.hosts_beside(host), key=lambda other: (other != first, -self.memory[other], other)):
            placed = self._placed(guest, name)
            if placed is not None and self.memory[name] >= guest.memory_mb:
                self.gpus[name] = placed
                self.memory[name] -= guest.memory_mb
                return name
        return None

    def why_none(self, guest: Guest, host: str) -> str:
        """Why `take` finds none."""
        beside = self.hosts_beside(host)
        if not beside:
            return "no other host of its cluster is in service"
        offering = [name for name in beside if self.open[name].profiles.issuperset(guest.profiles)]
        if not offering:
            return f"no other host in service offers the vGPU {guest.profiles[0]}"
        what = f"the vGPU {', '.join(guest.profiles)}" if guest.profiles else f"its {guest.memory_mb} MB of memory"
        return f"no other host in service has room for {what}"

    def _placed(self, guest: Guest, host: str) -> list[SharedGpu] | None:
        """The GPUs of a host with the machine's vGPUs on them; None when they do not fit."""
        if not self.open[host].profiles.issuperset(guest.profiles):
            return None
        gpus = list(self.gpus[host])
        for profile in guest.profiles:
            index = next((i for i, gpu in enumerate(gpus) if fits(gpu, profile)), None)
            if index is None:
                return None
            gpus[index] = dataclasses.replace(gpus[index], holds=(*gpus[index].holds, profile))
        return gpus


def fits(gpu: SharedGpu, profile: str) -> bool:
    """Whether a GPU can take one more vGPU: by size, and with one size on a GPU unless it is in mixed-size mode.

    An estimate: where a machine is put is decided by the vCenter, and a wrong guess fails there.
    """
    held = [size_gb(other) for other in gpu.holds]
    if not gpu.mixed_size and any(size != size_gb(profile) for size in held):
        return False
    if any(other[-1] != profile[-1] for other in gpu.holds):
        return False
    # Hosts report somewhat less than the board's name says, where ECC takes its share.
    return sum(held) + size_gb(profile) <= gpu.memory_gb * 1.1
