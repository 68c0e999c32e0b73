# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The report of harvesting, `harvest.json`: what each night gave, and what it cost.

The file is `to_dict(Report)`, version 1. Times are ISO 8601 in UTC, such as `2026-01-14T06:30:00Z`. A GPU has one use
at a time; a sample counts the GPUs of the hosts by use, and holds until the next one, but no longer than `longest_s`.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import datetime
import itertools
import typing as t

VERSION = 1

_TIME = "%Y-%m-%dT%H:%M:%SZ"


@dataclasses.dataclass(frozen=True, slots=True)
class GpuUse:
    """How many GPUs there are of each use at a time."""

    time: str
    compute: int = 0
    """A compute machine that works on lent GPUs has a vGPU there."""
    desktops_in_use: int = 0
    """A desktop that is not idle has one."""
    desktops_idle: int = 0
    """Only idle desktops have any."""
    other: int = 0
    """Other machines have it, passed through or in part."""
    empty: int = 0
    """Nobody has it."""

    @property
    def total(self) -> int:
        """All GPUs of the hosts."""
        return self.compute + self.desktops_in_use + self.desktops_idle + self.other + self.empty


@dataclasses.dataclass(frozen=True, slots=True)
class Late:
    """A desktop that was not ready at its deadline."""

    desktop: str
    ready: str | None
    """When it was; null while it is not."""
    said: str | None
    """When it was first said that it could not return in time; null if it never was."""
    reason: str


@dataclasses.dataclass(frozen=True, slots=True)
class Night:
    """One night, from the end of working hours to the deadline."""

    night: str
    """Local date on which it began, such as 2026-01-13."""
    since: str
    """End of the working hours before it."""
    deadline: str
    """When every desktop had to be ready."""
    gpu_hours_total: float
    """GPUs x hours of this night that samples tell of."""
    gpu_hours_harvested: float
    """Those in which a GPU served compute machines."""
    utilisation_with: float
    """Share of `gpu_hours_total` in which a GPU was used: by compute machines, desktops that were not idle, others."""
    utilisation_without: float
    """The same without the compute machines."""
    desktops_lent: int
    """How many different desktops were lent."""
    desktops_late: int
    """How many entries `late` has."""
    jobs_requeued: int
    late: tuple[Late, ...] = ()
    series: tuple[GpuUse, ...] = ()
    """In the order of time."""


@dataclasses.dataclass(frozen=True, slots=True)
class Total:
    """Sums over the nights; the utilisation is weighed by GPU-hours."""

    nights: int
    gpu_hours_total: float
    gpu_hours_harvested: float
    utilisation_with: float
    utilisation_without: float
    desktops_lent: int
    """Loans: a desktop that was lent in three nights counts three times."""
    desktops_late: int
    jobs_requeued: int


@dataclasses.dataclass(frozen=True, slots=True)
class Report:
    """The whole file."""

    generated: str
    total: Total
    nights: tuple[Night, ...]
    """The oldest first."""
    version: int = VERSION


@dataclasses.dataclass(frozen=True, slots=True)
class NightFigures:
    """What is known of a night, from which its entry is made."""

    night: str
    since: str
    deadline: str
    lent: collections.abc.Collection[str]
    late: tuple[Late, ...]
    jobs_requeued: int
    series: tuple[GpuUse, ...]


def report(nights: t.Iterable[NightFigures], generated: datetime.datetime, longest_s: float) -> Report:
    """The report on nights. A sample without a successor, or with one that is late, holds for `longest_s` seconds."""
    entries = tuple(_night(figures, longest_s) for figures in sorted(nights, key=lambda figures: figures.deadline))
    hours = sum(entry.gpu_hours_total for entry in entries)
    return Report(
        time_text(generated),
        Total(
            len(entries),
            round(hours, 3),
            round(sum(entry.gpu_hours_harvested for entry in entries), 3),
            _share(sum(entry.utilisation_with * entry.gpu_hours_total for entry in entries), hours),
            _share(sum(entry.utilisation_without * entry.gpu_hours_total for entry in entries), hours),
            sum(entry.desktops_lent for entry in entries),
            sum(entry.desktops_late for entry in entries),
            sum(entry.jobs_requeued for entry in entries),
        ),
        entries,
    )


def to_dict(whole: Report) -> dict[str, t.Any]:
    """The report as plain lists and dicts, for JSON."""
    return dataclasses.asdict(whole)


def time_text(time: datetime.datetime) -> str:
    """A time as the report has it."""
    return time.astimezone(datetime.UTC).strftime(_TIME)


def time_from(text: str) -> datetime.datetime:
    """The reverse of `time_text`. Raises ValueError."""
    return datetime.datetime.strptime(text, _TIME).replace(tzinfo=datetime.UTC)


def _night(figures: NightFigures, longest_s: float) -> Night:
    total = harvested = used = 0.0
    series = tuple(sorted(figures.series, key=lambda sample: sample.time))
    end = time_from(figures.deadline)
    for sample, following in itertools.zip_longest(series, series[1:]):
        begin = time_from(sample.time)
        until = end if following is None else min(end, time_from(following.time))
        hours = max(0.0, min((until - begin).total_seconds(), longest_s)) / 3600
        total += hours * sample.total
        harvested += hours * sample.compute
        used += hours * (sample.desktops_in_use + sample.other)
    return Night(
        figures.night,
        figures.since,
        figures.deadline,
        round(total, 3),
        round(harvested, 3),
        _share(harvested + used, total),
        _share(used, total),
        len(set(figures.lent)),
        len(figures.late),
        figures.jobs_requeued,
        figures.late,
        series,
    )


def _share(part: float, whole: float) -> float:
    return round(part / whole, 4) if whole else 0.0
