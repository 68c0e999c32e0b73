"""What machines ask of their hosts and what they get, now and in the past.

A host's settings (who runs there, with which shares, in which pools) are remembered as they change, so that
history shows a day as it was. Before the first known time everything has been as it was then.
"""

from __future__ import annotations

import bisect
import dataclasses
import datetime as dt
import hashlib
import math
import typing as t

from vsphere_simulator.world.division import Branch, Claim, Leaf, share_out
from vsphere_simulator.world.host import HYPERVISOR_MHZ, HostSystem
from vsphere_simulator.world.pools import ResourcePool
from vsphere_simulator.world.virtual_machine import VirtualMachine
from vsphere_simulator.world.vm_facts import cpu_allocation

if t.TYPE_CHECKING:
    from vsphere_simulator.kernel.objects import ManagedObject
    from vsphere_simulator.kernel.registry import World
    from vsphere_simulator.model.demand import Demand

IDLE_MHZ: t.Final = 50
"""What each virtual CPU of a machine without a demand of its own asks for."""
SAMPLE_SECONDS: t.Final = 20
MAX_EPOCHS: t.Final = 5000
"""Changes remembered of a host; the oldest go first."""


@dataclasses.dataclass(frozen=True, slots=True)
class Usage:
    """One machine at one moment, in MHz."""

    demand: float
    used: float


@dataclasses.dataclass(frozen=True, slots=True)
class Running:
    """A machine that runs on a host, as the host's scheduler sees it."""

    moid: str
    cpus: int
    memory_mb: int
    shares: int
    reservation: float
    limit: float
    demand: Demand | None
    shift: int
    """Minutes that its day is later than the demand says."""

    def wants(self, minute: float, cpu_mhz: int) -> float:
        """MHz at a minute of the day, not more than its virtual CPUs have."""
        asked = IDLE_MHZ * self.cpus if self.demand is None else self.demand.at(minute - self.shift)
        return min(asked, float(self.cpus * cpu_mhz))


@dataclasses.dataclass(frozen=True, slots=True)
class Group:
    """A pool's part on one host."""

    shares: float
    reservation: float
    limit: float
    machines: tuple[Running, ...]
    groups: tuple[Group, ...]

    def everyone(self) -> t.Iterator[Running]:
        """The machines in it and below."""
        yield from self.machines
        for group in self.groups:
            yield from group.everyone()


@dataclasses.dataclass(frozen=True, slots=True)
class HostLoad:
    """What a host has to divide, and among whom."""

    cpu_mhz: int
    capacity: int
    root: Group

    def machines(self) -> dict[str, Running]:
        """Who runs here, by id."""
        return {one.moid: one for one in self.root.everyone()}

    def at(self, moment: dt.datetime) -> dict[str, Usage]:
        """What each machine asks for and gets at a moment, by id."""
        minute = moment.hour * 60 + moment.minute + moment.second / 60
        wanted = {one.moid: one.wants(minute, self.cpu_mhz) for one in self.root.everyone()}
        given = share_out(self.capacity - HYPERVISOR_MHZ, _branch(self.root, wanted))
        return {moid: Usage(demand, given[moid]) for moid, demand in wanted.items()}


def _branch(group: Group, wanted: dict[str, float]) -> Branch:
    leaves = [Leaf(one.moid, Claim(wanted[one.moid], one.shares, one.reservation, one.limit)) for one in group.machines]
    below = [_branch(one, wanted) for one in group.groups]
    return Branch(group.shares, (*leaves, *below), group.reservation, group.limit)


def shift_of(name: str, demand: Demand | None) -> int:
    """Minutes that a machine's day is later than its demand says, always the same for the same name."""
    if demand is None or not demand.jitter_minutes:
        return 0
    number = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4])
    return number % (2 * demand.jitter_minutes + 1) - demand.jitter_minutes


def _running(vm: VirtualMachine) -> Running:
    allocation = cpu_allocation(vm.config)
    limit = allocation.limit
    return Running(
        vm.moid,
        vm.cpus,
        vm.memory_mb,
        allocation.shares.shares,
        float(allocation.reservation),
        math.inf if limit < 0 else float(limit),
        vm.demand,
        shift_of(vm.name, vm.demand),
    )


def _power(pool: ResourcePool, host: HostSystem | None) -> int:
    """Virtual MHz that run in a pool and below, on one host or all."""
    own = sum(vm.cpus * vm.host.make.cpu_mhz for vm in pool.machines.values() if vm.is_on and host in (None, vm.host))
    return own + sum(_power(child, host) for child in pool.pools)


def _group(pool: ResourcePool, host: HostSystem) -> Group:
    """A pool's part on a host: what it is entitled to, in the proportion of its virtual CPUs that run there."""
    part = 1.0
    if not pool.is_root and (whole := _power(pool, None)):
        part = _power(pool, host) / whole
    own = pool.allocations["cpuAllocation"]
    bounded = not pool.is_root
    return Group(
        own.shares.shares * part,
        own.reservation * part if bounded else 0.0,
        own.limit * part if bounded and own.limit >= 0 else math.inf,
        tuple(_running(vm) for vm in pool.machines.values() if vm.is_on and vm.host is host),
        tuple(_group(child, host) for child in pool.pools if _power(child, host)),
    )


def load_of(host: HostSystem) -> HostLoad:
    """A host's load as it is now."""
    return HostLoad(host.make.cpu_mhz, host.cpu_mhz_total, _group(host.cluster.pool, host))


class Load:
    """Knows every host's load at every time; follows the world once a machine has a demand."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.following = False
        self._epochs: dict[str, list[tuple[dt.datetime, HostLoad]]] = {}
        self._places: dict[str, list[tuple[dt.datetime, str]]] = {}
        self._now: dict[str, tuple[HostLoad, dt.datetime, dict[str, Usage]]] = {}

    def follow(self) -> None:
        """Remember changes from now on, when there is a machine or template whose demand is known."""
        objects = list(self.world.objects.values())
        if any(isinstance(one, VirtualMachine) and one.demand is not None for one in objects):
            self.following = True
            self.world.listeners.append(self)
            for one in objects:
                if isinstance(one, HostSystem):
                    self._note(one)

    # --- listening ---

    def object_added(self, obj: ManagedObject) -> None:
        """Nothing yet: what is added is noted when it changes something."""

    def object_removed(self, obj: ManagedObject) -> None:
        """Forget what would be remembered for nobody."""
        for known in (self._epochs, self._places, self._now):
            known.pop(obj.moid, None)

    def object_changed(self, obj: ManagedObject, paths: tuple[str, ...]) -> None:
        """Note the hosts whose division may be another one now."""
        del paths
        owner: t.Any = None
        if isinstance(obj, HostSystem):
            self._note(obj)
        elif isinstance(obj, VirtualMachine):
            if obj.pool is not None and not obj.pool.is_root:
                owner = obj.pool.owner
            else:
                self._note(obj.host)
        elif isinstance(obj, ResourcePool):
            owner = obj.owner
        for host in owner.hosts.values() if owner is not None else ():
            self._note(host)

    def _note(self, host: HostSystem) -> None:
        if not isinstance(getattr(host.parent, "pool", None), ResourcePool):
            return
        now, fresh = self.world.clock.now(), load_of(host)
        epochs = self._epochs.setdefault(host.moid, [])
        if not epochs or epochs[-1][1] != fresh:
            before = epochs[-1][1].machines() if epochs else {}
            epochs.append((now, fresh))
            del epochs[:-MAX_EPOCHS]
            for moid in fresh.machines().keys() - before.keys():
                self._places.setdefault(moid, []).append((now, host.moid))

    # --- answering ---

    def now(self, vm: VirtualMachine) -> Usage:
        """What a machine asks for and gets, refreshed as often as ESXi does."""
        if not vm.is_on:
            return Usage(0.0, 0.0)
        if not self.following:
            return Usage(float(IDLE_MHZ * vm.cpus), float(IDLE_MHZ * vm.cpus))
        return self._division(vm.host).get(vm.moid) or Usage(0.0, 0.0)

    def _division(self, host: HostSystem) -> dict[str, Usage]:
        moment = floor(self.world.clock.now(), SAMPLE_SECONDS)
        epochs = self._epochs.get(host.moid)
        load = epochs[-1][1] if epochs else load_of(host)
        known = self._now.get(host.moid)
        if known is None or known[0] is not load or known[1] != moment:
            known = self._now[host.moid] = (load, moment, load.at(moment))
        return known[2]

    def of_host(self, host: HostSystem, moment: dt.datetime) -> HostLoad:
        """A host's load at a moment."""
        epochs = self._epochs.get(host.moid)
        return _latest(epochs, moment) if epochs else load_of(host)

    def host_of(self, vm: VirtualMachine, moment: dt.datetime) -> HostSystem | None:
        """Where a machine was, if that host is still there; whether it ran, the host's load says."""
        host: t.Any = vm.host
        if places := self._places.get(vm.moid):
            host = self.world.objects.get(_latest(places, moment))
        return host if isinstance(host, HostSystem) else None


_T = t.TypeVar("_T")


def _latest(known: list[tuple[dt.datetime, _T]], moment: dt.datetime) -> _T:
    return known[max(0, bisect.bisect_right(known, moment, key=lambda one: one[0]) - 1)][1]


def floor(moment: dt.datetime, seconds: int) -> dt.datetime:
    """The last full interval of so many seconds."""
    whole = int(moment.timestamp()) // seconds * seconds
    return dt.datetime.fromtimestamp(whole, dt.UTC)
