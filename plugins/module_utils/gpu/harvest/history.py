# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What harvesting remembers between runs: CPU samples, times to resume, and the figures of each night.

All of it is convenience. Which desktops are lent is remembered on themselves, in the vCenter: with this lost, desktops
are left alone until they have been seen idle for a whole window, and resume times are the ones of the options.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import datetime
import json
import typing as t

from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.facts import HostFacts, VmFacts
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.harvest.report import (
    GpuUse,
    Late,
    NightFigures,
    time_from,
    time_text,
)

VERSION = 1
RESUMES = 5
"""How many of a desktop's last resume times are kept; the longest of them counts."""
NIGHTS = 60
"""How many nights are kept."""
_KEPT = datetime.timedelta(days=1)

Samples = tuple[tuple[str, float], ...]


@dataclasses.dataclass(frozen=True, slots=True)
class NightRecord:
    """A night so far."""

    night: str
    since: str
    lent: tuple[str, ...] = ()
    said: t.Mapping[str, tuple[str, str]] = dataclasses.field(default_factory=dict)
    """Desktops of which it was said that they cannot return in time: when, and why."""
    late: t.Mapping[str, str | None] = dataclasses.field(default_factory=dict)
    """Those that were late: when they were ready, None for not yet."""
    requeued: int = 0
    series: tuple[GpuUse, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True)
class History:
    """All that is remembered."""

    cpu: t.Mapping[str, Samples] = dataclasses.field(default_factory=dict)
    """CPU usage of each desktop while it runs: time and MHz, the oldest first."""
    resumes: t.Mapping[str, tuple[float, ...]] = dataclasses.field(default_factory=dict)
    """Seconds that each desktop took to resume, the last ones last."""
    nights: t.Mapping[str, NightRecord] = dataclasses.field(default_factory=dict)
    """By deadline."""
    returned: t.Mapping[str, str] = dataclasses.field(default_factory=dict)
    """When each desktop has last returned."""


@dataclasses.dataclass(frozen=True, slots=True)
class Observed:
    """What a run saw and did."""

    time: datetime.datetime
    """When it looked."""
    ended: datetime.datetime
    """When all that it did was done."""
    deadline: str | None
    """Of the night that it was in, or, in working hours, of the night before; None where there is none."""
    working: bool
    night: str
    since: str
    cpu: t.Mapping[str, float]
    """MHz of the desktops that run."""
    desktops: collections.abc.Collection[str]
    lent: collections.abc.Collection[str]
    """Lent desktops when it looked, and those that it has lent."""
    resumed: t.Mapping[str, float]
    """Seconds that each desktop took that it has resumed."""
    stranded: t.Mapping[str, str]
    """Desktops that cannot return in time, and why."""
    requeued: int
    use: GpuUse


class HistoryError(ValueError):
    """A history that cannot be read."""


def observed(data: t.Mapping[str, t.Any], now: datetime.datetime) -> Observed:
    """A run from the options of harvest_record. Raises KeyError, TypeError or ValueError for what is none."""
    seen = data["seen"]
    ended = datetime.datetime.fromisoformat(data["ended"]) if data["ended"] else now
    if ended.tzinfo is None:
        raise ValueError(f"{data['ended']} has no offset")
    return Observed(
        time_from(seen["time"]),
        ended,
        seen["deadline"],
        bool(seen["working"]),
        seen["night"],
        seen["since"],
        {name: float(mhz) for name, mhz in seen["cpu"].items()},
        tuple(seen["desktops"]),
        tuple(data["lent"]),
        {name: float(seconds) for name, seconds in data["resumed"].items()},
        {name: str(why) for name, why in data["stranded"].items()},
        data["requeued"],
        GpuUse(**seen["use"]),
    )


def window(
    history: History,
    name: str,
    latest: tuple[datetime.datetime, float],
    length: datetime.timedelta,
    apart: datetime.timedelta,
) -> tuple[float, ...]:
    """The samples of a desktop that are not older than the window, and the latest one, which is of now.

    Samples that are less than `apart` from each other count as one, the highest: runs that follow each other at once
    have not seen more of the time.
    """
    now, mhz_now = latest
    young = sorted((time_from(time), mhz) for time, mhz in history.cpu.get(name, ()))
    head, found = now, [mhz_now]
    for time, mhz in reversed([sample for sample in young if now - length < sample[0] <= now]):
        if head - time < apart:
            found[-1] = max(found[-1], mhz)
        else:
            head = time
            found.append(mhz)
    return tuple(reversed(found))


def returned_at(history: History, name: str) -> datetime.datetime | None:
    """When a desktop has last returned; None if it never was lent."""
    time = history.returned.get(name)
    return None if time is None else time_from(time)


def returned_since(history: History, name: str, since: datetime.datetime) -> bool:
    """Whether a desktop has returned since then: its user may just have come."""
    time = returned_at(history, name)
    return time is not None and time > since


def measured(history: History) -> dict[str, float]:
    """The longest of each desktop's last times to resume."""
    return {name: max(seconds) for name, seconds in history.resumes.items() if seconds}


def noted(history: History, run: Observed) -> History:
    """The history with a run added to it. The same run again, after a crash, does no harm but one sample more."""
    cpu = {
        # What was suspended, or has just returned, must be seen idle anew for a whole window.
        name: _appended(history.cpu.get(name, ()), (time_text(run.time), run.cpu[name]))
        for name in run.desktops
        if name in run.cpu and name not in run.resumed and name not in run.lent
    }
    resumes = {name: seconds for name, seconds in history.resumes.items() if name in run.desktops}
    for name, seconds in run.resumed.items():
        # Another's task may have resumed it: then nothing was measured.
        if seconds > 0:
            resumes[name] = (*resumes.get(name, ()), round(seconds, 1))[-RESUMES:]
    returned = {name: time for name, time in history.returned.items() if name in run.desktops}
    returned |= dict.fromkeys(run.resumed, time_text(run.ended))
    return History(cpu, resumes, _nights(history.nights, run), returned)


def figures(history: History) -> list[NightFigures]:
    """The figures of each night, for the report."""
    return [
        NightFigures(
            record.night,
            record.since,
            deadline,
            record.lent,
            tuple(
                Late(name, ready, record.said.get(name, (None, ""))[0], record.said.get(name, ("", "unknown"))[1])
                for name, ready in sorted(record.late.items())
            ),
            record.requeued,
            record.series,
        )
        for deadline, record in sorted(history.nights.items())
    ]


def gpu_use(
    time: datetime.datetime,
    hosts: collections.abc.Iterable[HostFacts],
    vms: collections.abc.Iterable[VmFacts],
    compute: collections.abc.Collection[str],
    desktops: t.Mapping[str, bool],
) -> GpuUse:
    """Count the GPUs of the hosts that take vGPUs. `desktops` says of each whether it is in use."""
    names = {vm.moid: vm.name for vm in vms}
    counts = dict.fromkeys(("compute", "desktops_in_use", "desktops_idle", "other", "empty"), 0)
    for host in hosts:
        for gpu in host.graphics:
            if gpu.graphics_type != "sharedDirect":
                continue
            holders = {names.get(moid, moid) for moid in gpu.vm_moids}
            if holders & set(compute):
                use = "compute"
            elif any(desktops.get(name) for name in holders):
                use = "desktops_in_use"
            elif holders - desktops.keys():
                use = "other"
            else:
                use = "desktops_idle" if holders else "empty"
            counts[use] += 1
    return GpuUse(time_text(time), **counts)


def to_text(history: History) -> str:
    """The history as JSON."""
    return json.dumps({"version": VERSION, **dataclasses.asdict(history)}, separators=(",", ":")) + "\n"


def from_text(text: str) -> History:
    """The reverse of `to_text`; an empty text is an empty history. Raises HistoryError."""
    if not text.strip():
        return History()
    try:
        data = json.loads(text)
        version = data["version"]
        known = History(
            {name: tuple((str(time), float(mhz)) for time, mhz in pairs) for name, pairs in data["cpu"].items()},
            {name: tuple(float(item) for item in seconds) for name, seconds in data["resumes"].items()},
            {deadline: _record(entry) for deadline, entry in data["nights"].items()},
            {str(name): time_text(time_from(time)) for name, time in data["returned"].items()},
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise HistoryError(f"it is not what a run has written ({error})") from error
    if version != VERSION:
        raise HistoryError(f"it is of version {version}, and this collection reads {VERSION}")
    return known


def _record(data: t.Mapping[str, t.Any]) -> NightRecord:
    return NightRecord(
        data["night"],
        data["since"],
        tuple(data["lent"]),
        {name: (time, why) for name, (time, why) in data["said"].items()},
        dict(data["late"]),
        int(data["requeued"]),
        tuple(GpuUse(**sample) for sample in data["series"]),
    )


def _appended(samples: Samples, sample: tuple[str, float]) -> Samples:
    oldest = time_from(sample[0]) - _KEPT
    return tuple(item for item in (*samples, sample) if time_from(item[0]) > oldest)


def _in_order(*series: GpuUse) -> tuple[GpuUse, ...]:
    """One sample for each time, the last that was taken: the clock may have been set back."""
    by_time = {use.time: use for use in series}
    return tuple(by_time[time] for time in sorted(by_time))


def _nights(nights: t.Mapping[str, NightRecord], run: Observed) -> dict[str, NightRecord]:
    found = dict(nights)
    known = run.deadline in found
    # Working hours begin no record: what is late then was lent in a night that has one.
    if run.deadline is None or (run.working and not known):
        return found
    record = found.get(run.deadline, NightRecord(run.night, run.since))
    deadline = time_from(run.deadline)
    late = dict(record.late)
    for name in run.lent:
        if name not in run.resumed and run.ended > deadline:
            late[name] = None
    for name in run.resumed:
        if run.ended > deadline and late.get(name) is None:
            late[name] = time_text(run.ended)
    said = {name: (time_text(run.time), why) for name, why in run.stranded.items()} | dict(record.said)
    found[run.deadline] = dataclasses.replace(
        record,
        lent=tuple(sorted({*record.lent, *run.lent})),
        said=said,
        late=late,
        requeued=record.requeued + run.requeued,
        series=record.series if run.working else _in_order(*record.series, run.use),
    )
    return dict(sorted(found.items())[-NIGHTS:])
