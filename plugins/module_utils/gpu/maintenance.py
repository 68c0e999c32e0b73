# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Planner: hosts into and out of maintenance mode, carrying on where an earlier run stopped."""

from __future__ import annotations

import dataclasses
import typing as t

from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.facts import HostFacts, Intent
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.ownership import (
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
    write: Intent | None = None
    """Intent to store before anything else; None when ours is stored already."""
    settle: bool = False
    """Before that, wait for the end of a task by which an earlier run leaves maintenance mode."""
    enter: bool = False
    mark: Intent | None = None
    """Intent to store before leaving, with the vCenter's time as `started`: it tells then whose maintenance
    mode a host is in that is found in it later."""
    leave: bool = False
    clear: bool = False
    """Clear the intent in the end."""
    after: HostFacts | None = None


def plan_enter(
    hosts: t.Mapping[str, HostFacts], names: t.Sequence[str], *, run: str, now: str, known: t.Collection[str] = ()
) -> dict[str, MaintenanceStep]:
    """Plans that put hosts into maintenance mode, or find them there by an earlier run of ours."""
    return {name: _enter(hosts.get(name), name, run, now, known) for name in names}


def plan_leave(
    hosts: t.Mapping[str, HostFacts], names: t.Sequence[str], *, known: t.Collection[str] = ()
) -> dict[str, MaintenanceStep]:
    """Plans that take hosts out of maintenance mode where a run of ours put them there, and nowhere else."""
    return {name: _leave(hosts.get(name), name, known) for name in names}


def _enter(host: HostFacts | None, name: str, run: str, now: str, known: t.Collection[str]) -> MaintenanceStep:
    if host is None:
        return MaintenanceStep(unknown_host(name, known))
    if reboot_in_progress(host):
        # It was in our maintenance mode when it went down for the reboot.
        return MaintenanceStep(ObjectPlan(name, notes=standing(host)), after=host)
    if not host.answers:
        return MaintenanceStep(not_connected(host))
    owner = maintenance_owner(host)
    if owner == "other":
        return MaintenanceStep(left_alone(host))
    leaving = host.intent is not None and host.intent.action == LEAVING
    if owner == "gpuops" and not leaving:
        return MaintenanceStep(ObjectPlan(name, notes=standing(host)), after=host)
    in_the_way = [vm for vm in host.powered_on_vms if vm not in host.drs_moves_vms]
    write = None if host.intent is not None and not leaving else Intent(run=run, action=ACTION, started=now)
    after = dataclasses.replace(host, in_maintenance=True, intent=write or host.intent)
    reason = "an interrupted run was leaving it" if host.in_maintenance else _moves(host)
    change = Change("enter", "maintenance mode", False, True, reason, disruptive=True)
    plan = ObjectPlan(
        name,
        changes=(change,),
        problems=(_vms_in_the_way(host, in_the_way),) if in_the_way else (),
        notes=standing(host if in_the_way else after),
    )
    return MaintenanceStep(plan, write=write, settle=leaving, enter=True, after=after)


def _leave(host: HostFacts | None, name: str, known: t.Collection[str]) -> MaintenanceStep:
    if host is None:
        return MaintenanceStep(unknown_host(name, known))
    if not host.answers:
        return MaintenanceStep(not_connected(host))
    if maintenance_owner(host) == "other":
        return MaintenanceStep(left_alone(host))
    after = dataclasses.replace(host, in_maintenance=False, intent=None)
    changes = []
    if host.in_maintenance:
        changes.append(Change("leave", "maintenance mode", True, False))
    elif host.intent is not None:
        changes.append(Change("clear", "intent", host.intent.action, None, "left over from an interrupted run"))
    plan = ObjectPlan(name, changes=tuple(changes), notes=standing(after))
    mark = dataclasses.replace(host.intent, action=LEAVING) if host.intent is not None else None
    return MaintenanceStep(plan, mark=mark, leave=host.in_maintenance, clear=mark is not None, after=after)


def _moves(host: HostFacts) -> str:
    return f"DRS moves {', '.join(host.drs_moves_vms)}" if host.drs_moves_vms else ""


def _vms_in_the_way(host: HostFacts, vms: t.Sequence[str]) -> Problem:
    named = ", ".join(vms[:_NAMED]) + (f" and {len(vms) - _NAMED} more" if len(vms) > _NAMED else "")
    return Problem(
        code="vms_in_the_way",
        object=host.name,
        msg=f"These virtual machines run on the host and DRS does not move them: {named}. "
        "Move them to another host or power them off, then run again. Nothing was begun.",
        kind="state",
    )
