# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""When desktops must be ready, and when their GPUs may be lent: working hours in a time zone, as UTC.

A local time that does not exist (the clock went forward) or exists twice (it went back) is read so that desktops are
never short of time: the earlier instant where they must be ready, the later one where they may be suspended.
"""

from __future__ import annotations

import dataclasses
import datetime
import typing as t
import zoneinfo

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")

# How far ahead the next working day is looked for: longer than any plant holiday.
_HORIZON_DAYS = 400

Interval = tuple[datetime.datetime, datetime.datetime]


class ScheduleError(ValueError):
    """A schedule that cannot be followed; the text names it and says what to change."""


@dataclasses.dataclass(frozen=True, slots=True)
class Schedule:
    """Working hours of the desktops that follow it."""

    name: str
    zone: zoneinfo.ZoneInfo
    days: frozenset[int]
    """Weekdays on which work begins; Monday is 0."""
    ready_by: datetime.time
    """Local time at which every desktop must be ready."""
    lend_from: datetime.time
    """Local time from which idle desktops may be suspended; at or before `ready_by`: on the next day."""
    holidays: frozenset[datetime.date] = frozenset()
    """Local dates on which no work begins."""


@dataclasses.dataclass(frozen=True, slots=True)
class Hours:
    """Where a moment lies: within working hours, or in a night between two of them. Times are in UTC."""

    working: bool
    since: datetime.datetime | None
    """Begin of these working hours, or end of the last ones; None where there were none within reach."""
    until: datetime.datetime | None
    """End of these working hours, or the deadline: begin of the next ones; None where none are within reach."""


def schedule_from(name: str, data: t.Mapping[str, t.Any]) -> Schedule:
    """Read a schedule as an inventory holds it. Raises ScheduleError for what is not one."""
    unknown = sorted(set(data) - {"timezone", "days", "ready_by", "lend_from", "holidays"})
    if unknown:
        raise ScheduleError(
            f"{name}: {', '.join(unknown)} is not a key of a schedule: timezone, days, ready_by, lend_from, holidays."
        )
    return Schedule(
        name,
        _zone(name, data.get("timezone")),
        _days(name, data.get("days", DAYS[:5])),
        _time(name, "ready_by", data.get("ready_by")),
        _time(name, "lend_from", data.get("lend_from")),
        _dates(name, data.get("holidays", ())),
    )


def hours_at(schedules: t.Collection[Schedule], now: datetime.datetime) -> Hours:
    """Where `now` (with a time zone) lies for a desktop that follows all of `schedules`.

    Working hours of several schedules, and those that touch or overlap, count as one: a desktop is only lent
    while nobody has working hours. Raises ScheduleError if `schedules` is empty.
    """
    if not schedules:
        raise ScheduleError("No schedule says when the desktops must be ready.")
    now = now.astimezone(datetime.UTC)
    # At first a few weeks, which nearly always suffice.
    for ahead in (15, _HORIZON_DAYS):
        intervals = _merged(
            interval for schedule in schedules for interval in _intervals(schedule, now, behind=15, ahead=ahead)
        )
        for begin, end in intervals:
            if begin <= now < end:
                return Hours(True, begin, end)
        following = min((begin for begin, _end in intervals if begin > now), default=None)
        if following is not None:
            break
    return Hours(False, max((end for _begin, end in intervals if end <= now), default=None), following)


def _intervals(schedule: Schedule, now: datetime.datetime, *, behind: int, ahead: int) -> t.Iterator[Interval]:
    today = now.astimezone(schedule.zone).date()
    for offset in range(-behind, ahead + 1):
        day = today + datetime.timedelta(days=offset)
        if day.weekday() in schedule.days and day not in schedule.holidays:
            last = day + datetime.timedelta(days=schedule.lend_from <= schedule.ready_by)
            begin = min(_instants(schedule.zone, day, schedule.ready_by))
            end = max(_instants(schedule.zone, last, schedule.lend_from))
            yield begin, end


def _instants(zone: zoneinfo.ZoneInfo, day: datetime.date, time: datetime.time) -> tuple[datetime.datetime, ...]:
    """What a local time can mean: two instants in the hour that is skipped or repeated, else one."""
    local = datetime.datetime.combine(day, time, zone)
    return tuple(local.replace(fold=fold).astimezone(datetime.UTC) for fold in (0, 1))


def _merged(intervals: t.Iterable[Interval]) -> list[Interval]:
    merged: list[Interval] = []
    for begin, end in sorted(intervals):
        if merged and begin <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((begin, end))
    return merged


def _zone(name: str, value: t.Any) -> zoneinfo.ZoneInfo:
    try:
        return zoneinfo.ZoneInfo(str(value))
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ScheduleError(
            f"{name}: timezone {value!r} is unknown here. Use a name of the IANA database, such as Europe/Berlin."
        ) from error


def _days(name: str, value: t.Any) -> frozenset[int]:
    given = [value] if isinstance(value, str) else value
    wrong = [day for day in given if str(day).lower()[:3] not in DAYS]
    if wrong or not given:
        raise ScheduleError(f"{name}: days are some of {', '.join(DAYS)}; not {', '.join(map(str, wrong)) or 'none'}.")
    return frozenset(DAYS.index(str(day).lower()[:3]) for day in given)


def _time(name: str, key: str, value: t.Any) -> datetime.time:
    try:
        time = datetime.time.fromisoformat(value)
    except (TypeError, ValueError) as error:
        raise ScheduleError(
            f"{name}: {key} {value!r} is not a time of day. Write it as a quoted '07:30': YAML reads 07:30 without"
            " quotes as a number."
        ) from error
    if time.tzinfo is not None:
        raise ScheduleError(f"{name}: {key} {value!r} has a time zone of its own; it is in the schedule's timezone.")
    return time


def _dates(name: str, value: t.Any) -> frozenset[datetime.date]:
    dates = set()
    for date in value:
        try:
            # YAML reads an unquoted date as one.
            dates.add(date if isinstance(date, datetime.date) else datetime.date.fromisoformat(date))
        except (TypeError, ValueError) as error:
            raise ScheduleError(f"{name}: holiday {date!r} is not a date such as 2026-12-24.") from error
    return frozenset(dates)
