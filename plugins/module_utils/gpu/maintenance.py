# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Planner: hosts into and out of maintenance mode, carrying on where an earlier run stopped."""

from __future__ import annotations

import dataclasses
import typing as t

from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.drain import (
    GuestDrain,
    HostDrain,
    Restore,
    plan_restore,
    restore_changes,
)
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.facts import HostFacts, Intent
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.membership import removal_begun
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.ownership import (
    ENTERING,
    LEAVING,
    left_alone,
    maintenance_owner,
    not_connected,
    reboot_in_progress,
    standing,
    unknown_host,
)
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.plan import Change, ObjectPlan, Problem

ACTION = "maintenance"
_NAMED = 8


@dataclasses.dataclass(frozen=True, slots=True)
class MaintenanceStep:
    """What is to be done to one host, in this order."""

    plan: ObjectPlan
    settle: bool = False
    """Before anything else, wait for the end of a task by which an earlier run leaves maintenance mode."""
    drain: tuple[GuestDrain, ...] = ()
    """Virtual machines to get out of the way."""
    enter: bool = False
    write: Intent | None = None
    """Intent to store once the host is in maintenance mode; until then its action is DRAINING, then ENTERING."""
    mark: Intent | None = None
    """Intent to store before leaving, with the vCenter's time as `started`: it tells then whose maintenance
    mode a host is in that is found in it later."""
    leave: bool = False
    restore: tuple[Restore, ...] = ()
    """Virtual machines to bring back after the host has left."""
    clear: bool = False
    """Clear the intent in the end."""
    after: HostFacts | None = None


def plan_enter(
    hosts: t.Mapping[str, HostFacts],
    names: t.Sequence[str],
    *,
    run: str,
    now: str,
    drains: t.Mapping[str, HostDrain] | None = None,
    restore: bool = True,
    known: t.Collection[str] = (),
) -> dict[str, MaintenanceStep]:
    """Plans that put hosts into maintenance mode, or find them there by an earlier run of ours.

    `drains` say how to empty those hosts of `to_drain`; `restore` whether what is drained is brought back later.
    """
    drains = drains or {}
    return {
        name: _enter(hosts.get(name), name, run, now, drains.get(name, HostDrain()), restore, known) for name in names
    }


def to_drain(hosts: t.Mapping[str, HostFacts], names: t.Sequence[str]) -> list[str]:
    """Names of the hosts that are to enter maintenance mode, for which drains have to be planned."""
    steps = plan_enter({name: host for name, host in hosts.items() if name in names}, names, run="", now="")
    return [name for name, step in steps.items() if step.enter]


def plan_leave(
    hosts: t.Mapping[str, HostFacts], names: t.Sequence[str], *, known: t.Collection[str] = ()
) -> dict[str, MaintenanceStep]:
    """Plans that take hosts out of maintenance mode where a run of ours put them there, and nowhere else."""
    return {name: _leave(hosts.get(name), name, known) for name in names}


def _enter(
    host: HostFacts | None, name: str, run: str, now: str, drain: HostDrain, restore: bool, known: t.Collection[str]
) -> MaintenanceStep:
    if host is None:
        return MaintenanceStep(unknown_host(name, known))
    if reboot_in_progress(host):
        # It was in our maintenance mode when it went down for the reboot.
        return MaintenanceStep(ObjectPlan(name, notes=standing(host)), after=host)
    if removal_begun(host):
        # It was in our maintenance mode when it was disconnected; whatever needs it to answer refuses it.
        return MaintenanceStep(ObjectPlan(name, notes=standing(host)), after=host)
    if not host.answers:
        return MaintenanceStep(not_connected(host))
    owner = maintenance_owner(host)
    if owner == "other":
        return MaintenanceStep(left_alone(host))
    leaving = host.intent is not None and host.intent.action == LEAVING
    entering = host.intent is not None and host.intent.action == ENTERING
    if owner == "gpuops" and not leaving and not entering:
        return MaintenanceStep(ObjectPlan(name, notes=standing(host)), after=host)
    intent = Intent(run=run, action=ACTION, started=now)
    if host.intent is not None and not leaving:
        intent = dataclasses.replace(host.intent, action=ACTION)
    if owner == "gpuops" and entering:
        after = dataclasses.replace(host, intent=intent)
        change = Change("keep", "maintenance mode", ENTERING, ACTION, "an interrupted run has entered it")
        return MaintenanceStep(ObjectPlan(name, changes=(change,), notes=standing(after)), write=intent, after=after)
    drained = (*host.drained, *drain.predicted()) if restore else host.drained
    left = tuple(vm for vm in host.vm_names if vm not in drain.moved)
    after = dataclasses.replace(
        host, in_maintenance=True, intent=intent, drained=drained, vm_names=left, powered_on_vms=(), drs_moves_vms=()
    )
    reason = "an interrupted run was leaving it" if host.in_maintenance else _moves(drain.drs)
    change = Change("enter", "maintenance mode", False, True, reason, disruptive=True)
    plan = ObjectPlan(
        name,
        changes=(*drain.changes, change),
        problems=(_vms_in_the_way(host, drain.blocked),) if drain.blocked else (),
        notes=standing(host if drain.blocked else after),
    )
    return MaintenanceStep(plan, write=intent, settle=leaving, drain=drain.drains, enter=True, after=after)


def _leave(host: HostFacts | None, name: str, known: t.Collection[str]) -> MaintenanceStep:
    if host is None:
        return MaintenanceStep(unknown_host(name, known))
    if not host.answers:
        return MaintenanceStep(not_connected(host))
    if maintenance_owner(host) == "other":
        return MaintenanceStep(left_alone(host))
    restore = plan_restore(host)
    back = tuple(item.drained.vm for item in restore)
    after = dataclasses.replace(
        host,
        in_maintenance=False,
        intent=None,
        drained=(),
        vm_names=tuple(dict.fromkeys((*host.vm_names, *back))),
        powered_on_vms=tuple(dict.fromkeys((*host.powered_on_vms, *back))),
    )
    changes = list(restore_changes(name, restore))
    if host.in_maintenance:
        changes.insert(0, Change("leave", "maintenance mode", True, False))
    elif host.intent is not None:
        changes.append(Change("clear", "intent", host.intent.action, None, "left over from an interrupted run"))
    plan = ObjectPlan(name, changes=tuple(changes), notes=standing(after))
    mark = dataclasses.replace(host.intent, action=LEAVING) if host.intent is not None else None
    return MaintenanceStep(
        plan, mark=mark, leave=host.in_maintenance, restore=restore, clear=mark is not None, after=after
    )


def _moves(vms: t.Sequence[str]) -> str:
    return f"DRS moves {', '.join(vms)}" if vms else ""


def _vms_in_the_way(host: HostFacts, vms: t.Sequence[tuple[str, str]]) -> Problem:
    by_reason: dict[str, list[str]] = {}
    for name, reason in vms[:_NAMED]:
        by_reason.setdefault(reason, []).append(name)
    named = "; ".join(f"{', '.join(names)} ({reason})" for reason, names in by_reason.items())
    more = f"; and {len(vms) - _NAMED} more" if len(vms) > _NAMED else ""
    return Problem(
        code="vms_in_the_way",
        object=host.name,
        msg=f"These virtual machines run on the host, and there is no way to get them out of the way: {named}{more}. "
        "Move or stop them, or allow more (suspend, shut_down), then run again. Nothing was begun.",
        kind="state",
    )
