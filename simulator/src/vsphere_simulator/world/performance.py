"""The performance manager: counters of machines, pools, hosts and clusters, computed from who got what when.

Real-time samples stand for 20 seconds and reach back an hour; roll-ups of 5 minutes, half an hour, 2 hours and
a day reach back a day, a week, a month and a year. A sample's value is that of the middle of its interval, a
longer roll-up's the mean of its 5 minutes. Before the simulator started everything was as it was then.
"""

from __future__ import annotations

import collections
import datetime as dt
import typing as t

from vsphere_simulator.kernel.objects import ManagedObject, method, prop
from vsphere_simulator.vmomi import conform, make, vim
from vsphere_simulator.world import perf_counters as pc
from vsphere_simulator.world.compute import Compute
from vsphere_simulator.world.entity import invalid_argument
from vsphere_simulator.world.host import HYPERVISOR_MHZ, HostSystem
from vsphere_simulator.world.load import SAMPLE_SECONDS, HostLoad, Running, Usage, floor
from vsphere_simulator.world.pools import ResourcePool
from vsphere_simulator.world.virtual_machine import VirtualMachine

if t.TYPE_CHECKING:
    from vsphere_simulator.kernel.objects import Context
    from vsphere_simulator.world.site import Site

MAX_QUERY_METRICS: t.Final = "config.vpxd.stats.maxQueryMetrics"
HYPERVISOR_MB: t.Final = 4096
REAL_TIME_SECONDS: t.Final = 3600
FINEST: t.Final = 300
_DAY: t.Final = 86400
INTERVALS: t.Final = (
    (1, FINEST, "Past day", _DAY),
    (2, 1800, "Past week", 7 * _DAY),
    (3, 7200, "Past month", 30 * _DAY),
    (4, _DAY, "Past year", 365 * _DAY),
)
_PERF = vim.PerformanceManager


class Past:
    """Answers about moments, each host's division computed once a query."""

    def __init__(self, site: Site) -> None:
        self.load = site.load
        self.now = site.world.clock.now()
        """Of the whole query, so that all its entities have the same samples."""
        self._divided: dict[tuple[str, dt.datetime], tuple[HostLoad, dict[str, Running], dict[str, Usage]]] = {}

    def of_host(self, host: HostSystem, moment: dt.datetime) -> tuple[HostLoad, dict[str, Running], dict[str, Usage]]:
        """A host's load, who ran there, and what each had."""
        key = (host.moid, moment)
        if key not in self._divided:
            load = self.load.of_host(host, moment)
            self._divided[key] = (load, load.machines(), load.at(moment))
        return self._divided[key]

    def sample(self, entity: ManagedObject, moment: dt.datetime) -> pc.Sample | None:
        """An entity at a moment; None when it did not run."""
        if isinstance(entity, VirtualMachine):
            host = self.load.host_of(entity, moment)
            ran = host is not None and entity.moid in self.of_host(host, moment)[1]
            return self._machines(host, moment, (entity.moid,)) if host is not None and ran else None
        if isinstance(entity, HostSystem):
            return self._host(entity, moment)
        if isinstance(entity, ResourcePool):
            names = {vm.moid for vm in _within(entity)}
            return _summed([self._machines(host, moment, names) for host in entity.owner.hosts.values()])
        return _summed([self._host(host, moment) for host in t.cast("Compute", entity).hosts.values()])

    def _machines(self, host: HostSystem, moment: dt.datetime, names: t.Collection[str]) -> pc.Sample:
        load, ran, usage = self.of_host(host, moment)
        found = [ran[name] for name in names if name in ran]
        memory = float(sum(one.memory_mb for one in found))
        return pc.Sample(
            cpu_used=sum(usage[one.moid].used for one in found),
            cpu_demand=sum(usage[one.moid].demand for one in found),
            cpu_total=float(sum(one.cpus for one in found) * load.cpu_mhz),
            core_mhz=load.cpu_mhz,
            memory_used_mb=memory,
            memory_active_mb=memory / 10,
            memory_total_mb=memory,
        )

    def _host(self, host: HostSystem, moment: dt.datetime) -> pc.Sample:
        load, ran, _ = self.of_host(host, moment)
        one = self._machines(host, moment, ran)
        return pc.Sample(
            cpu_used=one.cpu_used + HYPERVISOR_MHZ,
            cpu_demand=one.cpu_demand + HYPERVISOR_MHZ,
            cpu_total=float(load.capacity),
            core_mhz=load.cpu_mhz,
            memory_used_mb=one.memory_used_mb + HYPERVISOR_MB,
            memory_active_mb=one.memory_active_mb + HYPERVISOR_MB,
            memory_total_mb=host.memory_bytes / 1024**2,
        )


def _within(pool: ResourcePool) -> list[VirtualMachine]:
    return [*pool.machines.values(), *(vm for child in pool.pools for vm in _within(child))]


def _summed(samples: list[pc.Sample]) -> pc.Sample | None:
    if not samples:
        return None
    sums = {name: sum(getattr(one, name) for one in samples) for name in pc.Sample.__dataclass_fields__}
    return pc.Sample(**sums | {"core_mhz": samples[0].core_mhz})


def _kind(entity: ManagedObject) -> str | None:
    kinds = ((VirtualMachine, pc.VM), (HostSystem, pc.HOST), (Compute, pc.CLUSTER), (ResourcePool, pc.POOL))
    return next((kind for one, kind in kinds if isinstance(entity, one)), None)


def _utc(moment: dt.datetime) -> dt.datetime:
    return moment.replace(tzinfo=dt.UTC) if moment.tzinfo is None else moment.astimezone(dt.UTC)


class PerformanceManager(ManagedObject):
    """Counters and their samples."""

    wsdl = _PERF

    def __init__(self, site: Site) -> None:
        super().__init__(site.world, "PerfMgr")
        self.name = "PerfMgr"
        self.site = site
        self.levels = {seconds: 1 for _, seconds, _, _ in INTERVALS}
        """Statistics level of each roll-up."""

    # --- what there is ---

    @prop("perfCounter")
    def _counters(self) -> list[t.Any]:
        return [pc.info(key) for key in pc.COUNTERS]

    @prop("historicalInterval")
    def _intervals(self) -> list[t.Any]:
        return [
            make(
                vim.HistoricalInterval,
                key=key,
                samplingPeriod=seconds,
                name=name,
                length=length,
                level=self.levels[seconds],
                enabled=True,
            )
            for key, seconds, name, length in INTERVALS
        ]

    @prop("description")
    def _description(self) -> t.Any:
        def described(kind: t.Any) -> list[t.Any]:
            return [make(vim.ElementDescription, key=one, label=one, summary=one) for one in kind.values]

        info = _PERF.CounterInfo
        return make(
            vim.PerformanceDescription, counterType=described(info.RollupType), statsType=described(info.StatsType)
        )

    @method("UpdatePerfInterval")
    def update_interval(self, interval: t.Any) -> None:
        """Set how much statistics a roll-up has; its period and length stay."""
        if interval.samplingPeriod not in self.levels or not interval.enabled or not 1 <= (interval.level or 1) <= 4:
            raise invalid_argument("interval")
        self.levels[interval.samplingPeriod] = int(interval.level or 1)
        self.world.changed(self, "historicalInterval")

    @method("QueryPerfCounter")
    def query_counter(self, counter_id: t.Any) -> list[t.Any]:
        """Counters by their keys. InvalidArgument for one that is not there."""
        if not set(counter_id) <= pc.COUNTERS.keys():
            raise invalid_argument("counterId")
        return [pc.info(key) for key in counter_id]

    @method("QueryPerfCounterByLevel")
    def query_counter_by_level(self, level: int) -> list[t.Any]:
        """Counters that a statistics level has."""
        if not 1 <= level <= 4:
            raise invalid_argument("level")
        return [pc.info(one.key) for one in pc.COUNTERS.values() if one.level <= level]

    @method("QueryPerfProviderSummary")
    def query_provider(self, entity: ManagedObject) -> t.Any:
        """Whether an entity has real-time samples and roll-ups. InvalidArgument for one without counters."""
        kind = self._kind_of(entity, "entity")
        live = kind in (pc.VM, pc.HOST)
        return make(
            _PERF.ProviderSummary,
            entity=entity.ref,
            currentSupported=live,
            summarySupported=True,
            refreshRate=SAMPLE_SECONDS if live else None,
        )

    @method("QueryAvailablePerfMetric")
    def query_available(
        self,
        entity: ManagedObject,
        begin_time: dt.datetime | None = None,
        end_time: dt.datetime | None = None,
        interval_id: int | None = None,
    ) -> list[t.Any]:
        """The metrics that an entity has samples of."""
        kind = self._kind_of(entity, "entity")
        past = Past(self.site)
        if not any(
            past.sample(entity, one) for one, _ in self._times(past.now, interval_id or FINEST, begin_time, end_time)
        ):
            return []
        return [self._metric(one) for one in self._available(kind, interval_id or FINEST)]

    def _kind_of(self, entity: ManagedObject, argument: str) -> str:
        kind = _kind(entity)
        if kind is None:
            raise invalid_argument(argument)
        return kind

    def _available(self, kind: str, interval: int) -> list[pc.Counter]:
        level = 4 if interval == SAMPLE_SECONDS else self.levels.get(interval, 0)
        return [one for one in pc.COUNTERS.values() if kind in one.kinds and one.level <= level]

    @staticmethod
    def _metric(counter: pc.Counter) -> t.Any:
        return make(_PERF.MetricId, counterId=counter.key, instance="")

    # --- samples ---

    @staticmethod
    def _times(
        now: dt.datetime, interval: int, begin: dt.datetime | None, end: dt.datetime | None
    ) -> list[tuple[dt.datetime, dt.datetime]]:
        """Middle and end of each interval after `begin` up to `end`, as far as they are kept."""
        keep = REAL_TIME_SECONDS if interval == SAMPLE_SECONDS else _LENGTHS[interval]
        first = max(now - dt.timedelta(seconds=keep), _utc(begin) if begin is not None else now - _AGES)
        last = floor(min(now, _utc(end)) if end is not None else now, interval)
        step, moment, found = dt.timedelta(seconds=interval), floor(first, interval), []
        while (moment := moment + step) <= last:
            found.append((moment - step / 2, moment))
        return found

    @method("QueryPerf")
    def query(self, ctx: Context, query_spec: t.Any) -> list[t.Any]:
        """Samples of many entities."""
        specs = list(query_spec)
        targets = [ctx.world.get(spec.entity) for spec in specs]
        wanted = [self._wanted(target, spec) for target, spec in zip(targets, specs, strict=True)]
        self._check_size(specs, wanted)
        past = Past(self.site)
        return [self._answer(past, *one) for one in zip(targets, specs, wanted, strict=True)]

    @method("QueryPerfComposite")
    def query_composite(self, ctx: Context, query_spec: t.Any) -> t.Any:
        """Samples of a host and of each machine on it."""
        host = ctx.world.get(query_spec.entity)
        if not isinstance(host, HostSystem):
            raise invalid_argument("querySpec.entity")
        past = Past(self.site)
        targets = [host, *host.machines.values()]
        own, *below = [self._answer(past, one, query_spec, self._wanted(one, query_spec)) for one in targets]
        return make(_PERF.CompositeEntityMetric, entity=own, childEntity=below)

    def _wanted(self, entity: ManagedObject, spec: t.Any) -> list[pc.Counter]:
        """The counters that a query asks of an entity, without those it has no samples of."""
        kind, interval = self._kind_of(entity, "querySpec.entity"), spec.intervalId or FINEST
        live = interval == SAMPLE_SECONDS and kind in (pc.VM, pc.HOST)
        if not live and interval not in self.levels:
            raise invalid_argument("querySpec.interval")
        if any(metric.counterId not in pc.COUNTERS for metric in spec.metricId):
            raise invalid_argument("querySpec.metricId")
        if spec.format not in (None, "normal", "csv"):
            raise invalid_argument("querySpec.format")
        available = self._available(kind, interval)
        keys = {metric.counterId for metric in spec.metricId if metric.instance in ("", "*")}
        return [one for one in available if not spec.metricId or one.key in keys]

    def _check_size(self, specs: list[t.Any], wanted: list[list[pc.Counter]]) -> None:
        """A vCenter bounds how much history one query may ask for; real-time samples it does not have itself."""
        limit = self.site.options.get(MAX_QUERY_METRICS, -1)
        asked = sum(
            len(counters) for spec, counters in zip(specs, wanted, strict=True) if spec.intervalId != SAMPLE_SECONDS
        )
        if isinstance(limit, int) and 0 < limit < asked:
            raise invalid_argument("querySpec.size")

    def _answer(self, past: Past, entity: ManagedObject, spec: t.Any, counters: list[pc.Counter]) -> t.Any:
        interval = spec.intervalId or FINEST
        times = self._times(past.now, interval, spec.startTime, spec.endTime)
        if interval == SAMPLE_SECONDS and spec.maxSample:
            times = times[-spec.maxSample :]
        ends: list[dt.datetime] = []
        values: dict[int, list[int]] = collections.defaultdict(list)
        for middle, end in times:
            moments = [middle]
            if interval > FINEST:
                begin, half = end - dt.timedelta(seconds=interval), dt.timedelta(seconds=FINEST / 2)
                moments = [begin + half + number * 2 * half for number in range(interval // FINEST)]
            samples = [one for moment in moments if (one := past.sample(entity, moment)) is not None]
            if not samples:
                continue
            ends.append(end)
            for counter in counters:
                mean = sum(counter.value(one, interval) for one in samples) / len(samples)
                values[counter.key].append(round(mean))
        series = [(self._metric(one), values[one.key]) for one in counters if ends]
        if spec.format == "csv":
            return make(
                _PERF.EntityMetricCSV,
                entity=entity.ref,
                sampleInfoCSV=",".join(f"{interval},{end:%Y-%m-%dT%H:%M:%SZ}" for end in ends),
                value=[
                    make(_PERF.MetricSeriesCSV, id=metric, value=",".join(map(str, numbers)))
                    for metric, numbers in series
                ],
            )
        return make(
            _PERF.EntityMetric,
            entity=entity.ref,
            sampleInfo=[make(_PERF.SampleInfo, timestamp=end, interval=interval) for end in ends],
            value=[make(_PERF.IntSeries, id=metric, value=conform(numbers, _LONGS)) for metric, numbers in series],
        )


_LENGTHS: t.Final = {seconds: length for _, seconds, _, length in INTERVALS}
_AGES: t.Final = dt.timedelta(days=366)
_LONGS: t.Final = next(info.type for info in _PERF.IntSeries._GetPropertyList() if info.name == "value")
