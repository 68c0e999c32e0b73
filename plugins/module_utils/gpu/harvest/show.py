# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The plan of a night for people."""

from __future__ import annotations

import collections
import datetime
import typing as t

from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.harvest.night import NightPlan


def table(night: NightPlan, now: datetime.datetime, warnings: t.Sequence[str] = ()) -> str:
    """Phase and times, what is done in its order, how many desktops stay and why, and what is wrong."""
    needed = "a desktop needs its GPU" if night.phase in ("evening", "night") else "the night is over"
    rows = [("release", name, needed) for name in night.release]
    rows += [("resume", name, _reason(night, name)) for name in night.resume]
    rows += [("suspend", name, _reason(night, name)) for name in night.suspend]
    rows += [
        ("clone" if name in night.compute.clone else "start", name, f"on {night.compute.places[name]}")
        for name in night.compute.start
    ]
    verb, thing = (max((len(row[column]) for row in rows), default=0) for column in (0, 1))
    lines = [f"{action:<{verb}}  {name:<{thing}}  {why}" for action, name, why in rows]
    text = [f"HARVEST, {_time(now)}: {night.phase}", _times(night), "", *(lines or ["nothing to do"])]
    stay = collections.Counter(
        f"{plan.notes['verdict']}: {plan.notes['reason']}"
        for name, plan in night.plans.items()
        if plan.notes.get("verdict") not in (None, "suspend", "resume") and not plan.warnings
    )
    wrong = [f"{problem.object}: {problem.msg}" for plan in night.plans.values() for problem in plan.problems]
    warned = [*warnings, *(text for plan in night.plans.values() for text in plan.warnings)]
    for title, items in (
        ("Desktops that stay as they are", [f"{count:>4}  {why}" for why, count in sorted(stay.items())]),
        ("Warnings", warned),
        ("In the way", wrong),
    ):
        if items:
            text += ["", title, *(f"  {item}" for item in items)]
    return "\n".join(text)


def _reason(night: NightPlan, name: str) -> str:
    notes: t.Mapping[str, t.Any] = night.plans[name].notes
    return f"{notes['reason']}, on {notes['host']}" if "host" in notes else str(notes["reason"])


def _times(night: NightPlan) -> str:
    if night.deadline is None:
        return "no deadline within reach"
    if night.phase == "day":
        return f"working hours since {_time(night.deadline)}"
    back = f", return begins by {_time(night.start_by)}" if night.start_by else ""
    return f"desktops ready by {_time(night.deadline)}{back}"


def _time(time: datetime.datetime) -> str:
    return time.astimezone(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")
