# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A day of harvesting by shares: what desktops and compute machines asked for and got of the CPUs. Pure.

A vCenter keeps usage and ready time of each machine for a day, every five minutes; the demand it keeps only where its
statistics level is raised. Both together are the demand: what a machine used, and what it was ready to use and had to
wait for.
"""

from __future__ import annotations

import dataclasses
import datetime
import typing as t

VERSION = 1
INTERVAL_S = 300
NOTICEABLE_MHZ = 100.0
"""A desktop that asks for less than this in five minutes does nothing that anybody could wait for."""

Kind = t.Literal["desktop", "compute"]
KINDS: t.Final[tuple[Kind, ...]] = ("desktop", "compute")
_NAMES: t.Final[dict[Kind, str]] = {"desktop": "desktops", "compute": "compute"}


@dataclasses.dataclass(frozen=True, slots=True)
class Sample:
    """Five minutes of a machine."""

    used_mhz: float
    ready_ms: float
    """Summed over its virtual CPUs."""

    def demand_mhz(self, core_mhz: float) -> float:
        """What it would have used if it never had had to wait."""
        return self.used_mhz + self.ready_ms / (INTERVAL_S * 1000) * core_mhz


@dataclasses.dataclass(frozen=True, slots=True)
class Machine:
    """A desktop or compute machine and its samples by the time they end, in seconds since 1970."""

    name: str
    kind: Kind
    core_mhz: float
    samples: t.Mapping[int, Sample]


@dataclasses.dataclass(frozen=True, slots=True)
class Worst:
    """When a desktop had to wait most."""

    desktop: str
    time: str
    share: float
    """What it got of what it asked for."""


@dataclasses.dataclass(frozen=True, slots=True)
class Use:
    """One kind over the day, in MHz for each time."""

    machines: int
    asked: tuple[float, ...]
    got: tuple[float, ...]

    @property
    def share(self) -> float | None:
        """What it got of what it asked for, None where it asked for nothing."""
        asked = sum(self.asked)
        return sum(self.got) / asked if asked else None


@dataclasses.dataclass(frozen=True, slots=True)
class Day:
    """The whole day."""

    times: tuple[int, ...]
    capacity_mhz: float
    """Of the hosts that the machines are on."""
    use: t.Mapping[Kind, Use]
    worst: Worst | None
    """None where no desktop did anything noticeable."""

    @property
    def harvested_ghz_hours(self) -> float:
        """What compute machines got."""
        return sum(self.use["compute"].got) * INTERVAL_S / 3600 / 1000

    def utilisation(self, *kinds: Kind) -> float | None:
        """Share of the capacity that these kinds used; None without hosts or times."""
        whole = self.capacity_mhz * len(self.times)
        return sum(sum(self.use[kind].got) for kind in kinds) / whole if whole else None


def grid(begin: datetime.datetime, end: datetime.datetime) -> tuple[int, ...]:
    """The ends of the five minutes that lie in a span, in seconds since 1970."""
    first = int(begin.timestamp()) // INTERVAL_S + 1
    return tuple(number * INTERVAL_S for number in range(first, int(end.timestamp()) // INTERVAL_S + 1))


def day(machines: t.Sequence[Machine], times: t.Sequence[int], capacity_mhz: float) -> Day:
    """The sums of all machines; one that was off asked for nothing.

    The day is as long as there are samples: the vCenter may have dropped the first and not have rolled up the last.
    """
    known = {time for machine in machines for time in machine.samples}
    times = [time for time in times if known and min(known) <= time <= max(known)]
    use = {}
    for kind in KINDS:
        mine = [machine for machine in machines if machine.kind == kind]
        asked, got = [], []
        for time in times:
            samples = [(machine.samples[time], machine.core_mhz) for machine in mine if time in machine.samples]
            asked.append(sum(sample.demand_mhz(core) for sample, core in samples))
            got.append(sum(sample.used_mhz for sample, _core in samples))
        use[kind] = Use(len(mine), tuple(asked), tuple(got))
    return Day(tuple(times), capacity_mhz, use, _worst(machines, times))


def _worst(machines: t.Sequence[Machine], times: t.Sequence[int]) -> Worst | None:
    waits = [
        (sample.used_mhz / asked, machine.name, time)
        for machine in machines
        if machine.kind == "desktop"
        for time in times
        if (sample := machine.samples.get(time)) is not None
        and (asked := sample.demand_mhz(machine.core_mhz)) >= NOTICEABLE_MHZ
    ]
    if not waits:
        return None
    share, name, time = min(waits)
    return Worst(name, time_text(time), round(share, 4))


def time_text(seconds: float) -> str:
    """ISO 8601 in UTC."""
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def figures(one: Day) -> dict[str, t.Any]:
    """The numbers of the day; null for what cannot be said."""
    return {
        "desktops": one.use["desktop"].machines,
        "compute_machines": one.use["compute"].machines,
        "desktops_got": _rounded(one.use["desktop"].share),
        "desktops_worst": dataclasses.asdict(one.worst) if one.worst is not None else None,
        "compute_got": _rounded(one.use["compute"].share),
        "harvested_ghz_hours": round(one.harvested_ghz_hours, 3),
        "capacity_ghz": round(one.capacity_mhz / 1000, 3),
        "utilisation_with": _rounded(one.utilisation(*KINDS)),
        "utilisation_without": _rounded(one.utilisation("desktop")),
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


def report(one: Day, *, generated: str, source: str, timezone: str) -> dict[str, t.Any]:
    """The day as JSON: figures, and charts as the fleet page draws them."""
    return {
        "version": VERSION,
        "generated": generated,
        "source": source,
        "timezone": timezone,
        "figures": figures(one),
        "charts": charts(one, timezone) if one.times else [],
    }


def charts(one: Day, timezone: str) -> list[dict[str, t.Any]]:
    """CPU time by use, and what each kind asked for and got."""
    common = {"time": True, "timezone": timezone, "x": list(one.times), "y_label": "GHz"}
    by_use = {
        "title": "CPU time by use",
        "kind": "stacked",
        **common,
        "series": [{"name": _NAMES[kind], "values": _ghz(one.use[kind].got)} for kind in KINDS],
        "note": f"The hosts have {one.capacity_mhz / 1000:.1f} GHz.",
    }
    return [
        by_use,
        *(
            {
                "title": f"{_NAMES[kind].capitalize()}: asked for and got",
                "kind": "lines",
                **common,
                "series": [
                    {"name": "asked for", "values": _ghz(one.use[kind].asked)},
                    {"name": "got", "values": _ghz(one.use[kind].got)},
                ],
            }
            for kind in KINDS
        ),
    ]


def _ghz(mhz: t.Iterable[float]) -> list[float]:
    return [round(value / 1000, 3) for value in mhz]
