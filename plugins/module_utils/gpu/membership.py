# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Planner: hosts in a cluster, standing alone, or out of the vCenter."""

from __future__ import annotations

import dataclasses
import typing as t

from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.facts import HostFacts, Intent
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.ownership import maintenance_owner, unknown_host
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.plan import Change, ObjectPlan, Problem
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.suggest import did_you_mean, some_of

State = t.Literal["member", "standalone", "removed"]

REMOVING = "removing"
"""Action of the intent from just before a run disconnects a host in order to remove it: it goes with the host."""


@dataclasses.dataclass(frozen=True, slots=True)
class MemberWant:
    """Where a host is to be."""

    name: str
    state: State
    cluster: str | None = None
    keep_vms: bool = False
    """Whether it may leave with machines that are off and registered on it; a removed host takes them out of the
    inventory, with their disks left where they are."""


@dataclasses.dataclass(frozen=True, slots=True)
class MemberStep:
    """The plan of one host, and what carries it out."""

    plan: ObjectPlan
    move: State | None = None
    disconnect: bool = False
    mark: Intent | None = None
    """Intent to store before it is disconnected, so that the next run knows why it does not answer."""
    clear: bool = False
    """Clear the intent in the end: the host is handed over."""
    after: HostFacts | None = None


def plan_membership(
    hosts: t.Mapping[str, HostFacts],
    wants: t.Sequence[MemberWant],
    *,
    clusters: t.Collection[str],
    known: t.Collection[str] = (),
) -> dict[str, MemberStep]:
    """Plans for all hosts. A host leaves its cluster only out of maintenance mode, and with no machine left on it."""
    return {want.name: _plan(hosts.get(want.name), want, clusters, known) for want in wants}


def removal_begun(host: HostFacts) -> bool:
    """Whether a run of ours has disconnected the host in order to remove it, and has not got further.

    It was empty and in our maintenance mode then, and nothing can run on it: that it does not answer is no obstacle
    to its removal. A host that is disconnected for any other reason has another mark, or none.
    """
    removing = host.intent is not None and host.intent.action == REMOVING
    return removing and host.connection == "disconnected" and maintenance_owner(host) == "gpuops"


def _plan(
    host: HostFacts | None, want: MemberWant, clusters: t.Collection[str], known: t.Collection[str]
) -> MemberStep:
    if want.state == "member" and want.cluster not in clusters:
        hint = did_you_mean(want.cluster or "", clusters) or f"There are: {some_of(sorted(clusters))}."
        text = f"There is no cluster {want.cluster}. {hint}"
        return MemberStep(ObjectPlan(want.name, problems=(Problem("cluster_not_found", want.name, text, "cluster"),)))
    if host is None:
        if want.state == "removed":
            return MemberStep(ObjectPlan(want.name, notes={"cluster": None, "known": False}))
        return MemberStep(unknown_host(want.name, known))
    clear = host.intent is not None and want.state == "standalone"
    if _is_there(host, want):
        if not clear:
            return MemberStep(ObjectPlan(host.name, notes=_notes(host)), after=host)
        change = Change("clear", "intent", host.intent.action if host.intent else None, None, "the host is handed over")
        after = dataclasses.replace(host, intent=None)
        return MemberStep(ObjectPlan(host.name, (change,), notes=_notes(after)), clear=True, after=after)
    problems = _problems(host, want)
    if maintenance_owner(host) == "other" and want.state != "member":
        text = f"{host.name} is in maintenance mode, and not by us: somebody works on it. It is left alone."
        return MemberStep(ObjectPlan(host.name, warnings=(text,), notes={**_notes(host), "left_alone": True}))
    after = dataclasses.replace(
        host, cluster=want.cluster if want.state == "member" else None, intent=None if clear else host.intent
    )
    plan = ObjectPlan(
        host.name, tuple(_changes(host, want)), tuple(problems), notes=_notes(host if problems else after, want)
    )
    disconnect = want.state == "removed" and host.answers
    return MemberStep(
        plan,
        move=want.state,
        disconnect=disconnect,
        mark=_mark(host.intent) if disconnect else None,
        clear=clear,
        after=after,
    )


def _mark(intent: Intent | None) -> Intent | None:
    """The intent that is to be stored, None where there is nothing to be stored.

    Without a boot time: it would say that the host does not answer because it reboots.
    """
    if intent is None:
        return None
    mark = dataclasses.replace(intent, action=REMOVING, boot_time=None)
    return None if mark == intent else mark


def _is_there(host: HostFacts, want: MemberWant) -> bool:
    if want.state == "removed":
        return False
    return host.cluster == (want.cluster if want.state == "member" else None)


def _notes(host: HostFacts, want: MemberWant | None = None) -> dict[str, t.Any]:
    gone = want is not None and want.state == "removed"
    return {
        "cluster": host.cluster,
        "known": not gone,
        "in_maintenance": host.in_maintenance,
        "vms": list(host.vm_names),
        "left_alone": False,
    }


def _changes(host: HostFacts, want: MemberWant) -> t.Iterator[Change]:
    if want.state == "member":
        yield Change("move", "cluster", host.cluster, want.cluster, f"into {want.cluster}", disruptive=False)
    elif want.state == "standalone":
        yield Change("move", "cluster", host.cluster, None, f"out of {host.cluster}", disruptive=True)
    else:
        where = f"cluster {host.cluster}" if host.cluster else "no cluster"
        if host.answers:
            yield Change("disconnect", "host", "connected", "disconnected", disruptive=True)
        yield Change("remove", "host", where, None, "out of the vCenter", disruptive=True)


def _problems(host: HostFacts, want: MemberWant) -> list[Problem]:
    leaves = host.cluster is not None or want.state == "removed"
    if not leaves:
        return [] if host.answers else [_not_connected(host)]
    problems = []
    if not host.answers and want.state != "removed":
        problems.append(_not_connected(host))
    elif host.answers and not host.in_maintenance:
        running = f" It runs {some_of(host.powered_on_vms)}." if host.powered_on_vms else ""
        text = f"must be in maintenance mode to leave.{running} Drain it first (role esxi_rolling, or contract.yml)."
        problems.append(Problem("not_in_maintenance", host.name, text, kind="state"))
    if host.vm_names and want.state != "member" and not want.keep_vms:
        text = (
            f"{len(host.vm_names)} virtual machines are still registered on it: {some_of(host.vm_names)}. Move or "
            "delete them, or set keep_vms: true "
            + ("to take them along." if want.state == "standalone" else "to take them out of the inventory.")
        )
        problems.append(Problem("vms_in_the_way", host.name, text, "keep_vms", kind="state"))
    return problems


def _not_connected(host: HostFacts) -> Problem:
    what = "does not respond" if host.connection == "notResponding" else "is disconnected"
    return Problem("host_not_connected", host.name, f"{what}. Bring it back, then run again.", kind="state")
