# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The options of harvest_plan -> what the planner wants; and its plan as the module returns it."""

from __future__ import annotations

import collections.abc
import dataclasses
import datetime
import typing as t

from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.harvest.evening import (
    Activity,
    Check,
    Heartbeat,
    IdlePolicy,
)
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.harvest.history import (
    History,
    gpu_use,
    measured,
    returned_at,
    returned_since,
    window,
)
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.harvest.morning import Timing
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.harvest.night import NightFacts, NightPlan, NightPolicy
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.harvest.report import time_text
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.harvest.schedule import (
    Hours,
    ScheduleError,
    hours_at,
    schedule_from,
)
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.harvest.show import table
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.vgpu import Profile, parse_profile

Params = t.Mapping[str, t.Any]
Averages = collections.abc.Sequence[tuple[datetime.datetime, float]]
"""When each interval ended, and the MHz used in it."""
AVERAGED: t.Final = datetime.timedelta(minutes=5)
"""How long the interval of an average is: the first level of a vCenter's statistics."""


@dataclasses.dataclass(frozen=True, slots=True)
class Moment:
    """The time that is planned for, and where it lies."""

    now: datetime.datetime
    hours: Hours


def mistakes(params: Params) -> str | None:
    """What is wrong with the options beyond their types."""
    for key in ("idle_mhz", "idle_samples", "idle_window", "reserve", "interval"):
        if params[key] < 0:
            return f"{key}: must not be negative."
    for key, value in params["timing"].items():
        least = 1 if key == "at_once" else 0
        if value < least:
            return f"timing.{key}: must be at least {least}."
    for name, check in params["checks"].items():
        if check not in t.get_args(Check):
            return f"checks.{name}: {check!r} is none of {', '.join(t.get_args(Check))}."
    names = [desktop["name"] for desktop in params["desktops"]]
    doubled = sorted({name for name in names if names.count(name) > 1})
    if doubled:
        return f"desktops: {', '.join(doubled)} is there twice."
    both = sorted({*names} & {item["name"] for item in params["compute_vms"]})
    if both:
        return f"desktops: {', '.join(both)} is also in compute_vms."
    if params["lend_tag"]:
        try:
            split_tag(params["lend_tag"])
        except ValueError as error:
            return f"lend_tag: {error}"
    unknown = sorted({*params["wanted"]} - {*names})
    if unknown:
        return f"wanted: {', '.join(unknown)} is not in desktops."
    try:
        _compute_profile(params)
        hours = moment(params).hours
    except ValueError as error:
        return str(error)
    if hours.working and params["phase"] == "evening":
        return f"phase: it is working hours until {hours.until:%Y-%m-%d %H:%M} UTC; desktops are not lent then."
    return None


def split_tag(tag: str) -> tuple[str, str]:
    """Category and name of a tag written `category:name`. Raises ValueError for what is none.

    A colon in the name is part of it.
    """
    category, name = (part.strip() for part in (*tag.split(":", 1), "")[:2])
    if not (category and name):
        raise ValueError(f"{tag!r} is no tag. Write category:name, such as gpu:lend.")
    return category, name


def moment(params: Params) -> Moment:
    """When, and in which hours. Raises ValueError for a schedule or a time that is none."""
    try:
        now = datetime.datetime.fromisoformat(params["now"]) if params["now"] else datetime.datetime.now(datetime.UTC)
    except ValueError as error:
        raise ValueError(f"now: {params['now']!r} is not a time such as 2026-01-14T19:30:00+01:00.") from error
    if now.tzinfo is None:
        raise ValueError(f"now: {params['now']!r} has no offset. Add one, such as +01:00, or Z for UTC.")
    try:
        schedules = [schedule_from(name, _mapping(name, data)) for name, data in params["schedules"].items()]
        return Moment(now, hours_at(schedules, now))
    except ScheduleError as error:
        raise ScheduleError(f"schedules: {error}") from error


def policy(params: Params, history: History) -> NightPolicy:
    """What the site wants. Raises ValueError for a profile that is none."""
    given = {desktop["name"]: desktop["resume_seconds"] for desktop in params["desktops"] if desktop["resume_seconds"]}
    return NightPolicy(
        IdlePolicy(params["idle_mhz"], params["idle_samples"], params["check_required"], params["reserve"]),
        Timing(measured={**measured(history), **given}, **params["timing"]),
        _compute_profile(params),
        params["interval"],
        None if params["phase"] == "auto" else params["phase"],
        frozenset(params["wanted"]),
        params["compute_clone"],
    )


def activity(
    params: Params,
    history: History,
    now: datetime.datetime,
    seen: t.Mapping[str, tuple[Heartbeat, float | None]],
    averages: t.Mapping[str, Averages] | None = None,
) -> dict[str, Activity]:
    """What is known of each desktop's use.

    Samples of the site; or else the vCenter's averages, where they are to be used; or else those remembered. The last
    two with the one of now.
    """
    length = datetime.timedelta(seconds=params["idle_window"] + params["interval"] / 2)
    known = {}
    for desktop in params["desktops"]:
        heartbeat, cpu = seen.get(desktop["name"], ("gray", None))
        # Samples of before its user came say nothing of it.
        samples = () if returned_since(history, desktop["name"], now - length) else tuple(desktop["cpu_mhz"])
        if not samples and cpu is not None:
            apart = datetime.timedelta(seconds=params["interval"] / 2)
            samples = (
                window(history, desktop["name"], (now, cpu), length, apart)
                if averages is None
                else (*_since_return(averages.get(desktop["name"], ()), returned_at(history, desktop["name"])), cpu)
            )
        known[desktop["name"]] = Activity(samples, heartbeat, params["checks"].get(desktop["name"]))
    return known


def _since_return(averages: Averages, back: datetime.datetime | None) -> tuple[float, ...]:
    """Those of intervals that began after the desktop had returned."""
    return tuple(mhz for time, mhz in averages if back is None or time - AVERAGED > back)


def record_dict(params: Params, at: Moment, facts: NightFacts, cpu: t.Mapping[str, float | None]) -> dict[str, t.Any]:
    """What a run has seen, for harvest_record to remember."""
    limit = params["idle_mhz"]
    in_use = {name: not activity.cpu_mhz or activity.cpu_mhz[-1] > limit for name, activity in facts.activity.items()}
    first = schedule_from("", next(iter(params["schedules"].values())))
    clusters = {facts.hosts[host].cluster for host in _homes(facts) if host in facts.hosts}
    hosts = [host for host in facts.hosts.values() if host.cluster in clusters]
    end = at.hours.since if at.hours.working else at.hours.until
    since = None if at.hours.working else at.hours.since
    return {
        "time": time_text(at.now),
        "working": at.hours.working,
        "night": (since or at.now).astimezone(first.zone).date().isoformat(),
        "since": time_text(since or at.now),
        "deadline": None if end is None else time_text(end),
        "cpu": {name: mhz for name, mhz in cpu.items() if mhz is not None and name in facts.activity},
        "desktops": list(facts.activity),
        "use": dataclasses.asdict(gpu_use(at.now, hosts, facts.vms.values(), facts.jobs, in_use)),
    }


def _homes(facts: NightFacts) -> set[str]:
    return {str(facts.vms[name].host) for name in facts.activity if name in facts.vms}


def result_dict(night: NightPlan, now: datetime.datetime, warnings: t.Sequence[str] = ()) -> dict[str, t.Any]:
    """The plan beside its objects, times as ISO 8601 in UTC. `warnings` are those of no desktop."""
    return {
        "table": table(night, now, warnings),
        "phase": night.phase,
        "deadline": _utc(night.deadline),
        "start_by": _utc(night.start_by),
        "release": list(night.release),
        "suspend": list(night.suspend),
        "resume": list(night.resume),
        "waves": [list(wave) for wave in night.waves],
        "places": night.places,
        "room": dict(night.room),
        "start": list(night.compute.start),
        "clone": [{"name": name, "host": night.compute.places[name]} for name in night.compute.clone],
        "attach": list(night.compute.attach),
        "working": list(night.working),
        "start_places": dict(night.compute.places),
        "lent": list(night.lent),
        "returned": list(night.returned),
        "stranded": dict(night.stranded),
    }


def _compute_profile(params: Params) -> Profile:
    profile = parse_profile(params["compute_profile"])
    if profile is None:
        raise ValueError(f"compute_profile: {params['compute_profile']!r} is no vGPU profile such as nvidia_a100-40c.")
    return profile


def _mapping(name: str, data: t.Any) -> t.Mapping[str, t.Any]:
    if not isinstance(data, t.Mapping):
        raise ScheduleError(f"{name}: a schedule has keys: timezone, ready_by, lend_from.")
    return data


def _utc(time: datetime.datetime | None) -> str | None:
    return None if time is None else time.astimezone(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
