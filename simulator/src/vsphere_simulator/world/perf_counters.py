"""The performance counters there are, and what each says of a sample."""

from __future__ import annotations

import dataclasses
import functools
import typing as t

from vsphere_simulator.vmomi import make, vim

VM: t.Final = "vm"
HOST: t.Final = "host"
CLUSTER: t.Final = "cluster"
POOL: t.Final = "pool"


@dataclasses.dataclass(frozen=True, slots=True)
class Sample:
    """One entity at one moment."""

    cpu_used: float
    """MHz."""
    cpu_demand: float
    cpu_total: float
    """MHz that it could use at most."""
    core_mhz: int
    memory_used_mb: float
    memory_active_mb: float
    memory_total_mb: float


def _ratio(part: float, whole: float) -> float:
    """Hundredths of a per cent, as the API has percentages."""
    return 10_000 * part / whole if whole else 0.0


@dataclasses.dataclass(frozen=True, slots=True)
class Counter:
    """A counter: what it is called, and its value of a sample that stands for so many seconds."""

    key: int
    group: str
    name: str
    rollup: str
    unit: str
    stats: str
    level: int
    kinds: frozenset[str]
    value: t.Callable[[Sample, int], float]
    summary: str


_ALL = frozenset((VM, HOST, CLUSTER, POOL))
_WHOLE = frozenset((VM, HOST, CLUSTER))
_ESX = frozenset((VM, HOST))
_READY: t.Final = "Milliseconds that virtual CPUs were ready to run and could not, because others had the CPUs"

COUNTERS: t.Final = {
    one.key: one
    for one in (
        Counter(2, "cpu", "usage", "average", "percent", "rate", 1, _WHOLE,
                lambda s, _: _ratio(s.cpu_used, s.cpu_total), "CPU usage as a percentage"),
        Counter(6, "cpu", "usagemhz", "average", "megaHertz", "rate", 1, _ALL,
                lambda s, _: s.cpu_used, "CPU usage in megahertz"),
        Counter(12, "cpu", "ready", "summation", "millisecond", "delta", 1, frozenset((VM,)),
                lambda s, sec: max(0.0, s.cpu_demand - s.cpu_used) / s.core_mhz * sec * 1000, _READY),
        Counter(24, "mem", "usage", "average", "percent", "absolute", 1, _WHOLE,
                lambda s, _: _ratio(s.memory_active_mb, s.memory_total_mb), "Memory usage as a percentage"),
        Counter(28, "mem", "granted", "average", "kiloBytes", "absolute", 2, _ESX,
                lambda s, _: s.memory_used_mb * 1024, "Physical memory mapped for machines"),
        Counter(33, "mem", "active", "average", "kiloBytes", "absolute", 2, _ALL,
                lambda s, _: s.memory_active_mb * 1024, "Memory in active use"),
        Counter(98, "mem", "consumed", "average", "kiloBytes", "absolute", 1, _ALL,
                lambda s, _: s.memory_used_mb * 1024, "Host memory consumed"),
        Counter(148, "cpu", "demand", "average", "megaHertz", "absolute", 2, _ESX,
                lambda s, _: s.cpu_demand, "CPU that it would use if nobody else wanted any"),
    )
}  # fmt: skip
"""By key, as a vCenter numbers them; `level` says how much statistics must be collected to have its history."""

_GROUPS: t.Final = {"cpu": "CPU", "mem": "Memory"}
_UNITS: t.Final = {"percent": "%", "megaHertz": "MHz", "millisecond": "ms", "kiloBytes": "KB"}


def _described(key: str, label: str, summary: str) -> t.Any:
    return make(vim.ElementDescription, key=key, label=label, summary=summary)


@functools.cache
def info(key: int) -> t.Any:
    """PerfCounterInfo of a counter; shared, nobody may change it."""
    one = COUNTERS[key]
    return make(
        vim.PerformanceManager.CounterInfo,
        key=key,
        nameInfo=_described(one.name, one.name.capitalize(), one.summary),
        groupInfo=_described(one.group, _GROUPS[one.group], _GROUPS[one.group]),
        unitInfo=_described(one.unit, _UNITS[one.unit], one.unit),
        rollupType=one.rollup,
        statsType=one.stats,
        level=one.level,
        perDeviceLevel=max(3, one.level),
    )
