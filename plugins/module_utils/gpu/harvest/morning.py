# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Planner: how lent desktops come back, when that must begin so that they are ready in time, and who has to go first.

The start is counted back from the deadline: compute machines drain and leave, then desktops resume, as many at once as
hosts bear, each as long as it was measured to take; and a margin.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import datetime
import typing as t

from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.catalog import Catalog
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.facts import HostFacts, VmFacts
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.vgpu import (
    Gpu,
    Profile,
    offered,
    place,
    plain,
    profiles_of,
    running,
)

Phase = t.Literal["day", "evening", "night", "morning"]


@dataclasses.dataclass(frozen=True, slots=True)
class Timing:
    """How long things take, in seconds, and how much at once."""

    drain: float = 600.0
    """From the first signal to jobs until the last of them is requeued."""
    release: float = 120.0
    """To suspend or power off the compute machines."""
    resume: float = 120.0
    """To resume a desktop of which nothing was measured."""
    measured: t.Mapping[str, float] = dataclasses.field(default_factory=dict)
    """To resume a desktop, by name: the longest of its last times."""
    at_once: int = 16
    """Desktops that resume at once, each on a host of its own."""
    margin: float = 0.25
    """Share of all this that is added."""
    least_margin: float = 600.0
    """And what is added at least."""


@dataclasses.dataclass(frozen=True, slots=True)
class Return:
    """One desktop on its way back. Times are seconds after the resumes begin."""

    desktop: str
    host: str
    moved: bool
    """The host is not the one that it was suspended on."""
    begins: float
    ends: float


@dataclasses.dataclass(frozen=True, slots=True)
class MorningPlan:
    """Who returns where and when."""

    returns: tuple[Return, ...]
    """In the order in which they begin."""
    nowhere: t.Mapping[str, str]
    """Desktops that no host has room for, and why: to be said while something can be done about it."""
    seconds: float
    """From the first signal to a job until the last desktop is ready, with the margin."""

    def start_by(self, deadline: datetime.datetime) -> datetime.datetime:
        """When it must begin at the latest."""
        return deadline - datetime.timedelta(seconds=self.seconds)


def plan_morning(
    lent: t.Mapping[str, VmFacts],
    staying: collections.abc.Iterable[VmFacts],
    hosts: t.Mapping[str, HostFacts],
    timing: Timing,
    catalog: Catalog | None = None,
) -> MorningPlan:
    """Plan the return of all of `lent`. `staying` are the machines that run on the hosts and do not make room."""
    catalog = catalog or Catalog()
    stay = [vm for vm in staying if vm.name not in lent]
    gpus = {
        name: running(host, stay, catalog)
        for name, host in sorted(hosts.items())
        if host.answers and not host.in_maintenance
    }
    places: dict[str, str] = {}
    nowhere: dict[str, str] = {}
    # All that fit where they were go there first: others must not take their places.
    for at_home in (True, False):
        for name, vm in sorted(lent.items()):
            if name not in places:
                found = _host_for(vm, hosts, gpus, at_home=at_home)
                if found is not None:
                    places[name] = found
                elif not at_home:
                    nowhere[name] = _why_nowhere(vm, hosts)
    returns = _returns(lent, places, timing)
    work = timing.drain + timing.release + max((item.ends for item in returns), default=0.0)
    seconds = work + max(timing.least_margin, timing.margin * work) if returns else 0.0
    return MorningPlan(returns, nowhere, seconds)


def phase_at(
    now: datetime.datetime, deadline: datetime.datetime | None, start_by: datetime.datetime | None, interval: float
) -> Phase:
    """What to do at night: lend (`evening`), nothing more (`night`), or give back (`morning`).

    `start_by` is when the return must begin were all that may be lent lent; None without any. A run every `interval`
    seconds begins with the return if the next one would be too late.
    """
    if deadline is None or start_by is None:
        return "evening"
    if now + datetime.timedelta(seconds=interval) > start_by:
        return "morning"
    # What is lent now must be worth the way there and back.
    return "evening" if start_by - now > deadline - start_by else "night"


@dataclasses.dataclass(frozen=True, slots=True)
class Compute:
    """A machine that works on lent GPUs."""

    vm: VmFacts
    jobs: int = 0
    """How many jobs run on it."""


def make_room(
    desktop: VmFacts,
    compute: t.Sequence[Compute],
    others: t.Sequence[VmFacts],
    hosts: t.Mapping[str, HostFacts],
    catalog: Catalog | None = None,
) -> tuple[str, tuple[str, ...]] | None:
    """Host for one desktop that is wanted now, and the compute machines that must leave it first.

    The fewest jobs are disturbed, then the fewest machines, and its own host is preferred. None if no host has room.
    """
    catalog = catalog or Catalog()
    options: list[tuple[int, int, bool, str, tuple[str, ...]]] = []
    for name, host in sorted(hosts.items()):
        if not _may_take(desktop, host, hosts):
            continue
        here = sorted(
            (item for item in compute if item.vm.host == name and item.vm.power == "poweredOn"),
            key=lambda item: (item.jobs, item.vm.name),
        )
        for leaving in _prefixes(host, here):
            gone = {item.vm.name for item in leaving}
            vms = [vm for vm in (*others, *(item.vm for item in compute)) if vm.name not in gone]
            if _fits(profiles_of(desktop), running(host, vms, catalog), host) is not None:
                jobs = sum(item.jobs for item in leaving)
                options.append((jobs, len(leaving), name != desktop.host, name, tuple(sorted(gone))))
    if not options:
        return None
    _jobs, _machines, _moved, host_name, names = min(options)
    return host_name, names


def _prefixes(host: HostFacts, here: t.Sequence[Compute]) -> t.Iterator[tuple[Compute, ...]]:
    """Sets of machines that may leave: those of one GPU, the cheapest first, one more at a time; at last all."""
    yield ()
    for gpu in host.graphics:
        mine = [item for item in here if item.vm.moid in gpu.vm_moids]
        for count in range(1, len(mine) + 1):
            yield tuple(mine[:count])
    yield tuple(here)


def _host_for(
    vm: VmFacts, hosts: t.Mapping[str, HostFacts], gpus: dict[str, dict[str, Gpu]], *, at_home: bool
) -> str | None:
    """A host with room, which is taken from `gpus`; the one with the most GPUs left empty if it is not its own."""
    names = [vm.host] if at_home else sorted(gpus, key=lambda name: (-_empty(gpus[name]), name))
    for name in names:
        if name in gpus and _may_take(vm, hosts[name], hosts):
            after = _fits(profiles_of(vm), gpus[name], hosts[name])
            if after is not None:
                gpus[name] = after
                return name
    return None


def _empty(gpus: t.Mapping[str, Gpu]) -> int:
    return sum(not gpu.slots for gpu in gpus.values())


def _may_take(vm: VmFacts, host: HostFacts, hosts: t.Mapping[str, HostFacts]) -> bool:
    """A suspended machine resumes on the same GPU type only, within its cluster; it leaves only a host that answers."""
    home = hosts.get(vm.host or "")
    if home is not None and home.name != host.name and not home.answers:
        return False
    offers = all(offered(str(gpu.profile), host) is not None for gpu in vm.gpus)
    same_cluster = home is None or home.cluster == host.cluster
    return host.answers and not host.in_maintenance and offers and (host.name == vm.host or same_cluster)


def _fits(profiles: t.Sequence[Profile], gpus: t.Mapping[str, Gpu], host: HostFacts) -> dict[str, Gpu] | None:
    """The host's GPUs with the vGPUs on them; None when they do not fit."""
    after = dict(gpus)
    for profile in profiles:
        found = place(after, profile, host.assignment_policy)
        if found is None:
            return None
        after[found[0]] = after[found[0]].with_vgpu(profile, found[1])
    return after


def _why_nowhere(vm: VmFacts, hosts: t.Mapping[str, HostFacts]) -> str:
    wanted = ", ".join(plain(str(gpu.profile)) for gpu in vm.gpus)
    home = hosts.get(vm.host or "")
    able = [name for name, host in sorted(hosts.items()) if _may_take(vm, host, hosts)]
    if able:
        return f"no room for {wanted} on {', '.join(able)}, even once all compute machines have left"
    state = "is gone" if home is None else "is in maintenance mode"
    if home is not None and home.answers and not home.in_maintenance:
        state = "does not offer it any more"
    if home is not None and not home.answers:
        return f"{vm.host} does not answer, and a suspended machine leaves only a host that does"
    return f"{vm.host} {state}, and no other host of its cluster offers {wanted}"


def waves(places: t.Mapping[str, str], timing: Timing) -> tuple[tuple[str, ...], ...]:
    """Who resumes together: one desktop on each host, and the next wave when all of this one are back.

    A host powers on machines with vGPUs one after the other. Hosts with the most left to do come first, and on each the
    desktops that take the longest, so that a wave's desktops take about the same time.
    """
    seconds = {name: timing.measured.get(name, timing.resume) for name in places}
    queues: dict[str, list[str]] = {}
    for name in sorted(places, key=lambda name: (-seconds[name], name), reverse=True):
        queues.setdefault(places[name], []).append(name)
    found = []
    while queues:
        hosts = sorted(
            queues, key=lambda host: (-len(queues[host]), -sum(seconds[name] for name in queues[host]), host)
        )
        found.append(tuple(queues[host].pop() for host in hosts[: timing.at_once]))
        queues = {host: queue for host, queue in queues.items() if queue}
    return tuple(found)


def _returns(lent: t.Mapping[str, VmFacts], places: t.Mapping[str, str], timing: Timing) -> tuple[Return, ...]:
    begin = 0.0
    returns = []
    for wave in waves(places, timing):
        seconds = {name: timing.measured.get(name, timing.resume) for name in wave}
        returns += [
            Return(name, places[name], places[name] != lent[name].host, begin, begin + seconds[name]) for name in wave
        ]
        begin += max(seconds.values())
    return tuple(returns)
