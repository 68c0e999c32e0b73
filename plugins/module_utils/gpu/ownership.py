# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Whose work a host is in: ours (marked by an intent), somebody else's, or nobody's; and hosts that are not there."""

from __future__ import annotations

import dataclasses
import datetime
import difflib
import typing as t

from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.facts import HostFacts, Intent
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.plan import ObjectPlan, Problem

Owner = t.Literal["gpuops", "other"]

LEAVING = "leaving"
"""Action of the intent from just before a run leaves maintenance mode until it clears the intent."""

ENTERING = "entering"
"""Action of the intent from just before a run enters maintenance mode until that has succeeded."""

DRAINING = "draining"
"""Action of the intent while the virtual machines are moved out of the way, before maintenance mode."""

# A vCenter keeps its tasks for 30 days unless told otherwise (task.maxAge); somewhat less, for clocks that differ.
_TASKS_KEPT_S = 29 * 24 * 3600
# Between writing a mark and the call there is nothing but the marks and calls of the other hosts of the batch.
_CALLED_WITHIN_S = 120


@dataclasses.dataclass(frozen=True, slots=True)
class TaskSeen:
    """A task on an object that has succeeded; times are the vCenter's (ISO 8601)."""

    kind: str
    queued: str
    ended: str


def maintenance_owner(host: HostFacts) -> Owner | None:
    """Who put the host into maintenance mode; None when it is not in it."""
    if not host.in_maintenance:
        return None
    if host.intent is None or host.intent.action == DRAINING or host.reentered:
        return "other"
    return "gpuops"


def ours_since(mark: Intent, history: t.Sequence[TaskSeen], kind: str) -> bool:
    """Whether what a mark announces was done by the run that wrote it, and nobody has undone and redone it since.

    `history` are the tasks that have succeeded since, the oldest first. A run asks for its task at once after
    it has written the mark; one that was asked for later is somebody else's.
    """
    if not history or history[-1].kind != kind:
        return False
    asked, limit = _moment(history[-1].queued), _moment(mark.started)
    if asked is None or limit is None:
        return False
    return (asked - limit).total_seconds() <= _CALLED_WITHIN_S


def taken_over(mark: Intent, history: t.Sequence[TaskSeen], *, now: str, leaving: bool) -> bool:
    """Whether a host in maintenance mode with the mark LEAVING is in somebody else's by now.

    `history` are the tasks that have entered or left since, `now` is this machine's time, `leaving` whether a task to
    leave goes on. A mark so old that the vCenter no longer has the tasks of its time tells nothing: the host is left
    alone then.
    """
    if leaving:
        return False
    if history:
        return True
    started, read = _moment(mark.started), _moment(now)
    return started is None or read is None or (read - started).total_seconds() > _TASKS_KEPT_S


def _moment(text: str) -> datetime.datetime | None:
    try:
        moment = datetime.datetime.fromisoformat(text)
    except (TypeError, ValueError):
        return None
    return moment if moment.tzinfo is not None else None


def reboot_in_progress(host: HostFacts) -> bool:
    """Whether a run of ours has asked the host to reboot and it has not come back yet."""
    if host.answers or host.intent is None or host.intent.action == LEAVING:
        return False
    return host.intent.boot_time is not None


def reboot_required(host: HostFacts, addresses: t.Collection[str] | None = None) -> bool:
    """Whether passthrough of any device (or of these) takes effect only after a reboot."""
    return any(
        device.passthrough_enabled != device.passthrough_active
        for device in host.devices
        if addresses is None or device.address in addresses
    )


def standing(host: HostFacts, addresses: t.Collection[str] | None = None) -> dict[str, t.Any]:
    """The notes every host module returns: what the host waits for, and who has it."""
    return {
        "reboot_required": reboot_required(host, addresses),
        "reboot_in_progress": reboot_in_progress(host),
        "in_maintenance": host.in_maintenance,
        "maintenance_owner": maintenance_owner(host),
        "unfinished": host.answers and host.intent is not None and not host.in_maintenance,
        "left_alone": False,
    }


def left_alone(host: HostFacts) -> ObjectPlan:
    """The plan for a host that somebody else has put into maintenance mode: nothing, and say so."""
    why = "and not by us: somebody works on it"
    if host.reentered and host.intent is not None and host.intent.action == LEAVING:
        why = "and since an interrupted run of ours was about to take it out, somebody seems to work on it"
    return ObjectPlan(
        host.name,
        warnings=(
            f"{host.name} is in maintenance mode, {why}. It is left alone. "
            "Run again when it has left maintenance mode.",
        ),
        notes={**standing(host), "left_alone": True},
    )


def not_connected(host: HostFacts) -> ObjectPlan:
    """The plan for a host that the vCenter cannot talk to."""
    what = "does not respond to the vCenter" if host.connection == "notResponding" else "is disconnected in the vCenter"
    return _refused(
        host.name,
        Problem(
            code="host_not_connected",
            object=host.name,
            msg=f"The host {what}. Bring it back (power, management network, reconnect), then run again.",
            kind="state",
        ),
        standing(host),
    )


def unknown_host(name: str, known: t.Collection[str]) -> ObjectPlan:
    """The plan for a name that no host of the vCenter has, with the nearest name there is."""
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    hint = f"Did you mean {near[0]}?" if near else "Add it to the vCenter first, or correct the name."
    return _refused(
        name,
        Problem(
            code="host_not_found",
            object=name,
            msg=f"The vCenter has no host of this name that the account may read. {hint}",
            option="hosts",
        ),
        {},
    )


def _refused(name: str, problem: Problem, notes: t.Mapping[str, t.Any]) -> ObjectPlan:
    return ObjectPlan(name, problems=(problem,), notes=notes)
