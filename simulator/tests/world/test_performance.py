"""Who gets the CPUs, in quick statistics and in the performance manager's counters, at the wire."""

from __future__ import annotations

import datetime as dt
import itertools
import time
import typing as t

import pytest
from pyVim.task import WaitForTask
from pyVmomi import vim, vmodl

if t.TYPE_CHECKING:
    import pathlib
    from collections.abc import Callable

    from serving import Served

MODEL = """
datacenter: dc
datastores: [{name: ds}]
networks: [{name: net}]
clusters:
  - name: c
    hosts: [{name: h, cpu_sockets: 1, cpu_cores: 4, cpu_mhz: 2000, memory_gb: 64}]
    pools: [{name: desktops}, {name: compute}]
vms:
  - {name: desktop, host: h, pool: desktops, cpus: 2, power: on, cpu_demand: 3000}
  - {name: compute-1, host: h, pool: compute, cpus: 4, power: on, cpu_demand: 8000}
  - {name: compute-2, host: h, pool: compute, cpus: 4, power: on, cpu_demand: 8000}
  - {name: idle, host: h, cpus: 2, cpu_demand: 1000}
users: [{name: u@lab, password: p, role: ReadOnly}]
"""
FREE = 4 * 2000 - 100
"""MHz that the host has for machines."""


def keys(served: Served) -> dict[str, int]:
    counters = served.client.content.perfManager.perfCounter
    return {f"{one.groupInfo.key}.{one.nameInfo.key}.{one.rollupType}": one.key for one in counters}


def spec(served: Served, entity: t.Any, *names: str, **fields: t.Any) -> t.Any:
    known = keys(served)
    metrics = [vim.PerformanceManager.MetricId(counterId=known[name], instance="") for name in names]
    return vim.PerformanceManager.QuerySpec(entity=entity, metricId=metrics, **{"intervalId": 20} | fields)


def values(served: Served, metric: t.Any) -> dict[str, list[int]]:
    known = {key: name for name, key in keys(served).items()}
    return {known[series.id.counterId]: list(series.value) for series in metric.value}


def shares(pool: t.Any, number: int) -> None:
    allocation = vim.ResourceAllocationInfo(
        shares=vim.SharesInfo(level="custom", shares=number), reservation=0, limit=-1, expandableReservation=True
    )
    pool.UpdateConfig(config=vim.ResourceConfigSpec(cpuAllocation=allocation, memoryAllocation=allocation))


def test_quick_statistics_follow_the_shares(serve: Callable[..., t.Any]) -> None:
    served = serve(MODEL)
    root = served.find("dc/host/c/Resources")
    desktop, compute = served.find("dc/vm/desktop"), served.find("dc/vm/compute-1")
    assert desktop.summary.quickStats.overallCpuUsage == 3000
    shares(served.find("dc/host/c/Resources/desktops"), 1)
    shares(served.find("dc/host/c/Resources/compute"), 100)
    assert desktop.summary.quickStats.overallCpuUsage == round(FREE / 101)
    assert desktop.summary.quickStats.overallCpuDemand == 3000
    assert compute.summary.quickStats.overallCpuUsage == pytest.approx(FREE * 100 / 101 / 2, abs=1)
    assert served.find("dc/host/c/h").summary.quickStats.overallCpuUsage == 8000
    pool = served.find("dc/host/c/Resources/compute").summary.quickStats
    assert (pool.overallCpuUsage, pool.overallCpuDemand) == (pytest.approx(FREE * 100 / 101, abs=1), 16000)
    assert root.owner.GetResourceUsage().cpuUsedMHz == pytest.approx(FREE, abs=2)
    assert root.owner.summary.usageSummary.cpuDemandMhz == 19000
    assert served.find("dc/vm/idle").summary.quickStats.overallCpuUsage == 0


def test_a_machine_that_goes_leaves_its_part_to_the_others(serve: Callable[..., t.Any]) -> None:
    served = serve(MODEL)
    compute = served.find("dc/vm/compute-1")
    assert compute.summary.quickStats.overallCpuUsage == (FREE - 3000) // 2
    WaitForTask(served.find("dc/vm/compute-2").PowerOffVM_Task())
    assert compute.summary.quickStats.overallCpuUsage == FREE - 3000
    limited = vim.vm.ConfigSpec(cpuAllocation=vim.ResourceAllocationInfo(limit=700))
    WaitForTask(compute.ReconfigVM_Task(limited))
    assert compute.summary.quickStats.overallCpuUsage == 700


def test_real_time_samples_of_many_in_one_query(serve: Callable[..., t.Any]) -> None:
    served = serve(MODEL)
    manager = served.client.content.perfManager
    desktop, compute, host = (served.find(path) for path in ("dc/vm/desktop", "dc/vm/compute-1", "dc/host/c/h"))
    names = ("cpu.usagemhz.average", "cpu.usage.average", "cpu.demand.average", "mem.consumed.average")
    asked = [spec(served, one, *names, maxSample=3) for one in (desktop, compute, host)]
    asked.append(spec(served, compute, "cpu.ready.summation", maxSample=1))
    found = manager.QueryPerf(querySpec=asked)
    assert [one.entity for one in found] == [desktop, compute, host, compute]
    assert values(served, found[0]) == {
        "cpu.usagemhz.average": [3000] * 3,
        "cpu.usage.average": [7500] * 3,
        "cpu.demand.average": [3000] * 3,
        "mem.consumed.average": [4096 * 1024] * 3,
    }
    got = (FREE - 3000) / 2
    assert values(served, found[1])["cpu.usagemhz.average"] == [round(got)] * 3
    assert values(served, found[2])["cpu.usage.average"] == [10000] * 3
    assert values(served, found[3]) == {"cpu.ready.summation": [round((8000 - got) / 2000 * 20_000)]}
    times = [one.timestamp for one in found[0].sampleInfo]
    assert [(later - one).seconds for one, later in itertools.pairwise(times)] == [20, 20]


def test_csv_says_the_same(serve: Callable[..., t.Any]) -> None:
    served = serve(MODEL)
    asked = spec(served, served.find("dc/vm/desktop"), "cpu.usagemhz.average", maxSample=2, format="csv")
    (found,) = served.client.content.perfManager.QueryPerf(querySpec=[asked])
    assert found.value[0].value == "3000,3000"
    interval, first, again, second = found.sampleInfoCSV.split(",")
    assert (interval, again) == ("20", "20")
    assert dt.datetime.fromisoformat(second) - dt.datetime.fromisoformat(first) == dt.timedelta(seconds=20)


DAY = MODEL.replace(
    "cpu_demand: 3000", "cpu_demand: [{at: 06:00, mhz: 0}, {at: 08:00, mhz: 4000}, {at: 18:00, mhz: 0}]"
)


def test_a_day_of_history_is_there_at_once_and_follows_the_demand(serve: Callable[..., t.Any]) -> None:
    served = serve(DAY)
    asked = spec(served, served.find("dc/vm/desktop"), "cpu.usagemhz.average", intervalId=300)
    (found,) = served.client.content.perfManager.QueryPerf(querySpec=[asked])
    series = dict(zip((one.timestamp for one in found.sampleInfo), found.value[0].value, strict=True))
    assert len(series) in (287, 288)
    by_time = {(moment.hour, moment.minute): value for moment, value in series.items()}
    assert by_time[5, 30] == by_time[23, 0] == 0
    assert by_time[8, 0] == pytest.approx(4000, abs=100)
    assert by_time[13, 0] == pytest.approx(2000, abs=20)


def test_history_shows_what_was_when_it_was(serve: Callable[..., t.Any]) -> None:
    served = serve(MODEL, "--time-scale", "6000")
    desktop, manager = served.find("dc/vm/desktop"), served.client.content.perfManager
    began = served.client.CurrentTime()
    shares(served.find("dc/host/c/Resources/desktops"), 1)
    shares(served.find("dc/host/c/Resources/compute"), 100)
    changed = served.client.CurrentTime()
    while served.client.CurrentTime() < changed + dt.timedelta(minutes=15):
        time.sleep(0.01)
    asked = spec(served, desktop, "cpu.usagemhz.average", intervalId=300)
    (found,) = manager.QueryPerf(querySpec=[asked])
    for sample, value in zip(found.sampleInfo, found.value[0].value, strict=True):
        if sample.timestamp < began:
            assert value == 3000
        elif sample.timestamp > changed + dt.timedelta(minutes=5):
            assert value == round(FREE / 101)
    assert (found.value[0].value[0], found.value[0].value[-1]) == (3000, round(FREE / 101))


def test_what_is_not_collected_has_no_history_until_its_level_is(serve: Callable[..., t.Any]) -> None:
    served = serve(MODEL)
    manager, desktop = served.client.content.perfManager, served.find("dc/vm/desktop")
    asked = spec(served, desktop, "cpu.demand.average", "cpu.ready.summation", intervalId=300)
    assert values(served, manager.QueryPerf(querySpec=[asked])[0]).keys() == {"cpu.ready.summation"}
    fine = manager.historicalInterval[0]
    fine.level = 2
    manager.UpdatePerfInterval(interval=fine)
    assert "cpu.demand.average" in values(served, manager.QueryPerf(querySpec=[asked])[0])


def test_providers_and_their_metrics(serve: Callable[..., t.Any]) -> None:
    served = serve(MODEL)
    manager = served.client.content.perfManager
    names = {key: name for name, key in keys(served).items()}

    def available(path: str, interval: int) -> set[str]:
        found = manager.QueryAvailablePerfMetric(entity=served.find(path), intervalId=interval)
        return {names[one.counterId] for one in found}

    live = manager.QueryPerfProviderSummary(entity=served.find("dc/vm/desktop"))
    assert (live.currentSupported, live.refreshRate) == (True, 20)
    rolled = manager.QueryPerfProviderSummary(entity=served.find("dc/host/c"))
    assert (rolled.currentSupported, rolled.summarySupported, rolled.refreshRate) == (False, True, None)
    assert "cpu.ready.summation" in available("dc/vm/desktop", 20)
    assert available("dc/vm/idle", 20) == set()
    assert available("dc/host/c", 300) >= {"cpu.usage.average", "cpu.usagemhz.average"}
    assert available("dc/host/c/Resources/compute", 300) == {"cpu.usagemhz.average", "mem.consumed.average"}
    assert {one.samplingPeriod for one in manager.historicalInterval} == {300, 1800, 7200, 86400}
    assert [one.key for one in manager.QueryPerfCounter(counterId=[6, 2])] == [6, 2]
    both = manager.QueryPerfComposite(querySpec=spec(served, served.find("dc/host/c/h"), "cpu.usagemhz.average"))
    assert len(both.childEntity) == 4


@pytest.mark.parametrize(
    ("entity", "fields", "wrong"),
    [
        ("dc/vm/desktop", {"intervalId": 7}, "querySpec.interval"),
        ("dc/host/c", {"intervalId": 20}, "querySpec.interval"),
        ("dc/vm", {}, "querySpec.entity"),
        ("dc/vm/desktop", {"format": "xml"}, "querySpec.format"),
    ],
)
def test_queries_that_make_no_sense(
    serve: Callable[..., t.Any], entity: str, fields: dict[str, t.Any], wrong: str
) -> None:
    served = serve(MODEL)
    asked = spec(served, served.find(entity), "cpu.usagemhz.average", **fields)
    with pytest.raises(vmodl.fault.InvalidArgument) as refused:
        served.client.content.perfManager.QueryPerf(querySpec=[asked])
    assert refused.value.invalidProperty == wrong


def test_a_vcenter_bounds_the_history_of_one_query(serve: Callable[..., t.Any]) -> None:
    served = serve(MODEL + "options: {config.vpxd.stats.maxQueryMetrics: '3'}\n")
    manager = served.client.content.perfManager
    names = ("cpu.usagemhz.average", "cpu.ready.summation")
    machines = [served.find(f"dc/vm/{name}") for name in ("desktop", "compute-1")]
    assert len(manager.QueryPerf(querySpec=[spec(served, one, *names) for one in machines])) == 2
    with pytest.raises(vmodl.fault.InvalidArgument) as refused:
        manager.QueryPerf(querySpec=[spec(served, one, *names, intervalId=300) for one in machines])
    assert refused.value.invalidProperty == "querySpec.size"


def test_demand_outlives_a_restart_and_goes_to_clones(serve: Callable[..., t.Any], tmp_path: pathlib.Path) -> None:
    options = ("--state", str(tmp_path / "state.json"))
    served = serve(MODEL, *options)
    source = served.find("dc/vm/idle")
    place = vim.vm.RelocateSpec()
    WaitForTask(source.CloneVM_Task(folder=source.parent, name="twin", spec=vim.vm.CloneSpec(location=place)))
    served.stop()
    again = serve(MODEL, *options)
    twin = again.find("dc/vm/twin")
    WaitForTask(twin.PowerOnVM_Task())
    assert twin.summary.quickStats.overallCpuDemand == 1000
