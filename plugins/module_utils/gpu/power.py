# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Planners: which hosts to reboot, only to wait for, or have rebooted already; and where a reboot is put on record."""

from __future__ import annotations

import dataclasses
import datetime
import typing as t

from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.facts import HostFacts, Intent
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.ownership import (
    left_alone,
    maintenance_owner,
    not_connected,
    reboot_in_progress,
    reboot_required,
    standing,
    unknown_host,
)
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.plan import Change, ObjectPlan, Problem

ACTION = "reboot"

# A host derives its boot time from its uptime, so it wavers by seconds; two boots are always further apart.
_APART = datetime.timedelta(seconds=60)


@dataclasses.dataclass(frozen=True, slots=True)
class RebootStep:
    """What is to be done to one host, in this order."""

    plan: ObjectPlan
    write: Intent | None = None
    """Intent with the boot time before the reboot, to store before anything else."""
    reboot: bool = False
    wait_beyond: str | None = None
    """Wait until the host answers and has `rebooted` since this boot time."""
    clear: bool = False
    """Clear the intent in the end: it is for the reboot alone, not for maintenance mode."""
    after: HostFacts | None = None


def rebooted(before: str, boot_time: str | None) -> bool:
    """Whether a boot time (ISO 8601) is that of a later boot than `before`, not the same one told anew."""
    if boot_time is None:
        return False
    return datetime.datetime.fromisoformat(boot_time) - datetime.datetime.fromisoformat(before) >= _APART


def plan_reboot(
    hosts: t.Mapping[str, HostFacts],
    names: t.Sequence[str],
    *,
    run: str,
    now: str,
    when_needed: bool = True,
    always: t.Collection[str] = (),
    force: bool = False,
    known: t.Collection[str] = (),
) -> dict[str, RebootStep]:
    """One plan for each name.

    A reboot is needed where passthrough waits for one, where the host itself says so, or where an earlier step
    or run recorded that the host was about to reboot and the boot time is still the recorded one. With
    `when_needed` false every host, and else those in `always`, are rebooted in any case, but not twice for the
    same record. `force` reboots outside maintenance mode.
    """
    return {
        name: _plan(hosts.get(name), name, run, now, when_needed and name not in always, force, known) for name in names
    }


def plan_reboot_due(
    hosts: t.Mapping[str, HostFacts],
    names: t.Sequence[str],
    *,
    run: str,
    now: str,
    force: bool = False,
    known: t.Collection[str] = (),
) -> dict[str, RebootStep]:
    """One plan for each name: that the host must reboot once more than it has by now is put on record.

    To be done before the work that needs the reboot: whoever comes later, this run or the next one, then knows
    whether it has happened since. Nothing changes where a recorded reboot has not happened yet.
    """
    return {name: _plan_due(hosts.get(name), name, run, now, force, known) for name in names}


def _plan_due(
    host: HostFacts | None, name: str, run: str, now: str, force: bool, known: t.Collection[str]
) -> RebootStep:
    if host is None:
        return RebootStep(unknown_host(name, known))
    if not host.answers:
        return RebootStep(not_connected(host))
    if maintenance_owner(host) == "other":
        return RebootStep(left_alone(host))
    if not host.in_maintenance and not force:
        return RebootStep(_not_in_maintenance(host))
    recorded = host.intent.boot_time if host.intent is not None else None
    if recorded is not None and not rebooted(recorded, host.boot_time):
        return RebootStep(ObjectPlan(name, notes=standing(host)), after=host)
    write = dataclasses.replace(host.intent or Intent(run=run, action=ACTION, started=now), boot_time=host.boot_time)
    after = dataclasses.replace(host, intent=write)
    change = Change("record", "reboot", recorded, host.boot_time, "due after the work that follows")
    return RebootStep(ObjectPlan(name, changes=(change,), notes=standing(after)), write=write, after=after)


def _plan(
    host: HostFacts | None,
    name: str,
    run: str,
    now: str,
    when_needed: bool,
    force: bool,
    known: t.Collection[str],
) -> RebootStep:
    if host is None:
        return RebootStep(unknown_host(name, known))
    recorded = host.intent.boot_time if host.intent is not None else None
    own = host.intent is not None and host.intent.action == ACTION
    if reboot_in_progress(host):
        after = _after(host, own)
        change = Change("wait for", "reboot", "down", "up", "begun by an earlier run", disruptive=True)
        return RebootStep(
            ObjectPlan(name, changes=(change,), notes=standing(after)), wait_beyond=recorded, clear=own, after=after
        )
    if not host.answers:
        return RebootStep(not_connected(host))
    if maintenance_owner(host) == "other":
        return RebootStep(left_alone(host))
    reason = _reason(host, recorded, when_needed)
    if reason is None:
        return _no_reboot(host, own)
    if not host.in_maintenance and not force:
        return RebootStep(_not_in_maintenance(host))
    intent = host.intent or Intent(run=run, action=ACTION, started=now)
    again = recorded is not None and not rebooted(recorded, host.boot_time)
    boot_time = recorded if again else host.boot_time
    write = dataclasses.replace(intent, boot_time=boot_time)
    own = intent.action == ACTION
    after = _after(host, own)
    plan = ObjectPlan(
        name, changes=(Change("reboot", "host", "up", "rebooted", reason, disruptive=True),), notes=standing(after)
    )
    return RebootStep(
        plan,
        write=None if write == host.intent else write,
        reboot=True,
        wait_beyond=boot_time,
        clear=own,
        after=after,
    )


def _reason(host: HostFacts, recorded: str | None, when_needed: bool) -> str | None:
    """Why the host must reboot now, None if it need not."""
    pending = [device.address for device in host.devices if device.passthrough_enabled != device.passthrough_active]
    if pending:
        return f"passthrough of {', '.join(pending)} waits for it"
    if recorded is not None and not rebooted(recorded, host.boot_time):
        return "recorded when its software changed, or by an earlier run, and not done yet"
    if host.reboot_pending:
        return "the host says that a change of its software or settings waits for it"
    if recorded is not None:
        return None
    return None if when_needed else "asked for"


def _no_reboot(host: HostFacts, own: bool) -> RebootStep:
    if not own:
        return RebootStep(ObjectPlan(host.name, notes=standing(host)), after=host)
    after = dataclasses.replace(host, intent=None)
    change = Change("clear", "intent", ACTION, None, "left over from an interrupted run")
    return RebootStep(ObjectPlan(host.name, changes=(change,), notes=standing(after)), clear=True, after=after)


def _after(host: HostFacts, own: bool) -> HostFacts:
    """The host once it is back: passthrough is as it was set, and no reboot is on record."""
    devices = tuple(
        dataclasses.replace(device, passthrough_active=device.passthrough_enabled) for device in host.devices
    )
    intent = None if own or host.intent is None else dataclasses.replace(host.intent, boot_time=None)
    return dataclasses.replace(host, connection="connected", devices=devices, intent=intent, reboot_pending=False)


def _not_in_maintenance(host: HostFacts) -> ObjectPlan:
    return ObjectPlan(
        host.name,
        problems=(
            Problem(
                code="not_in_maintenance",
                object=host.name,
                msg="The host must reboot and is not in maintenance mode. Put it there first "
                "(gpuops.vsphere.esxi_maintenance), or set force if its virtual machines may die.",
                kind="state",
            ),
        ),
        notes={**standing(host), "reboot_required": reboot_required(host)},
    )
