# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a vCenter has measured of virtual machines: the five-minute roll-ups of its performance manager."""

from __future__ import annotations

import collections.abc
import dataclasses
import datetime
import functools
import typing as t

from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.harvest_day import INTERVAL_S, Sample
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.client import Client
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.collector import (
    Row,
    all_of,
    moid,
    paths,
    retrieve,
    start,
)
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.convert import plain_name
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.errors import GpuOpsError
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.pyvmomi import vim

LIMIT_OPTION: t.Final = "config.vpxd.stats.maxQueryMetrics"
LIMIT: t.Final = 256
"""Metrics that one query of history may ask for, where the account may not read the setting."""
MOST_MACHINES: t.Final = 1000
"""In one query, whatever the setting allows: an answer has to be held in memory."""
USED, READY = "cpu.usagemhz.average", "cpu.ready.summation"


@dataclasses.dataclass(frozen=True, slots=True)
class LoadedVm:
    """A virtual machine, its host and its pool."""

    name: str
    moid: str
    host: str | None
    """The host's id."""
    pools: tuple[tuple[str, str], ...]
    """Each pool it is in, from the nearest upwards: cluster, and path below the root pool."""


@dataclasses.dataclass(frozen=True, slots=True)
class LoadedHost:
    """The CPUs of a host."""

    cores: int
    core_mhz: int


@dataclasses.dataclass(frozen=True, slots=True)
class Measured:
    """What is needed to ask for samples, in one request."""

    vms: tuple[LoadedVm, ...]
    hosts: t.Mapping[str, LoadedHost]
    """By id."""
    pools: t.Mapping[str, tuple[str, ...]]
    """Clusters that have a pool of this path."""
    counters: t.Mapping[str, int]
    """Key by name such as `cpu.usagemhz.average`."""
    limit: int


def read_measured(client: Client) -> Measured:
    """Machines, hosts, pools, counters and the limit of queries. Raises GpuOpsError."""
    manager, setting = client.content.perfManager, client.content.setting
    kinds = (vim.VirtualMachine, vim.HostSystem, vim.ResourcePool, vim.ComputeResource)
    rows = retrieve(
        client,
        lambda: [*(all_of(client, kind) for kind in kinds), start(manager), start(setting)],
        [
            paths(vim.VirtualMachine, "name", "runtime.host", "resourcePool", "config.template"),
            paths(vim.HostSystem, "summary.hardware.numCpuCores", "summary.hardware.cpuMhz"),
            paths(vim.ResourcePool, "name", "parent", "owner"),
            paths(vim.ComputeResource, "name"),
            paths(vim.PerformanceManager, "perfCounter"),
            paths(vim.option.OptionManager, "setting"),
        ],
    )
    by_moid = {row.moid: row for row in rows}
    pools: dict[str, set[str]] = {}
    for row in rows:
        if isinstance(row.ref, vim.ResourcePool) and (above := _pools(row, by_moid)):
            pools.setdefault(above[0][1], set()).add(above[0][0])
    counters, limit = _manager(rows)
    return Measured(
        vms=tuple(_vm(row, by_moid) for row in rows if _runs(row)),
        hosts={
            row.moid: LoadedHost(
                int(row.props.get("summary.hardware.numCpuCores", 0)), int(row.props.get("summary.hardware.cpuMhz", 0))
            )
            for row in rows
            if isinstance(row.ref, vim.HostSystem)
        },
        pools={path: tuple(sorted(owners)) for path, owners in pools.items()},
        counters=counters,
        limit=limit,
    )


def _manager(rows: t.Iterable[Row]) -> tuple[dict[str, int], int]:
    counters: dict[str, int] = {}
    limit = LIMIT
    for row in rows:
        for one in row.props.get("perfCounter") or ():
            counters[f"{one.groupInfo.key}.{one.nameInfo.key}.{one.rollupType}"] = int(one.key)
        for option in row.props.get("setting") or ():
            if option.key == LIMIT_OPTION and str(option.value).lstrip("-").isdigit():
                limit = int(option.value)
    return counters, limit


def _runs(row: Row) -> bool:
    return isinstance(row.ref, vim.VirtualMachine) and "name" in row.props and not row.props.get("config.template")


def _vm(row: Row, by_moid: t.Mapping[str, Row]) -> LoadedVm:
    pool = by_moid.get(moid(row.props.get("resourcePool")) or "")
    return LoadedVm(
        plain_name(row.props["name"]),
        row.moid,
        moid(row.props.get("runtime.host")),
        _pools(pool, by_moid) if pool is not None else (),
    )


def _pools(row: Row, by_moid: t.Mapping[str, Row]) -> tuple[tuple[str, str], ...]:
    """A pool and those above it, without the root pool."""
    names: list[str] = []
    node: Row | None = row
    while node is not None and isinstance(node.ref, vim.ResourcePool):
        names.insert(0, plain_name(node.props.get("name", node.moid)))
        node = by_moid.get(moid(node.props.get("parent")) or "")
    owner = by_moid.get(moid(row.props.get("owner")) or "")
    cluster = plain_name(owner.props.get("name", "")) if owner is not None else ""
    return tuple((cluster, "/".join(names[1:depth])) for depth in range(len(names), 1, -1))


def vcenter_now(client: Client) -> datetime.datetime:
    """The vCenter's own time. Raises GpuOpsError."""
    service = vim.ServiceInstance("ServiceInstance", client.stub)
    return client.read(service.CurrentTime)


def read_samples(
    client: Client,
    measured: Measured,
    vms: collections.abc.Sequence[LoadedVm],
    begin: datetime.datetime,
    end: datetime.datetime,
) -> dict[str, dict[int, Sample]]:
    """Samples of each machine by its id and their time, in as few queries as the vCenter allows.

    Raises GpuOpsError.
    """
    missing = [name for name in (USED, READY) if name not in measured.counters]
    if missing:
        text = f"The vCenter has no performance counter {' and no '.join(missing)}: nothing can be said of the day."
        raise GpuOpsError(text, code="counter_missing")
    keys = {measured.counters[name]: name for name in (USED, READY)}
    metrics = [vim.PerformanceManager.MetricId(counterId=key, instance="") for key in keys]
    most = MOST_MACHINES if measured.limit <= 0 else min(MOST_MACHINES, max(1, measured.limit // len(keys)))
    manager = t.cast("vim.PerformanceManager", client.content.perfManager)
    found: dict[str, dict[int, Sample]] = {}
    for at in range(0, len(vms), most):
        specs = [
            vim.PerformanceManager.QuerySpec(
                entity=client.ref(vim.VirtualMachine, vm.moid),
                startTime=begin,
                endTime=end,
                metricId=metrics,
                intervalId=INTERVAL_S,
                format="csv",
            )
            for vm in vms[at : at + most]
        ]
        for entity in client.read(functools.partial(manager.QueryPerf, querySpec=specs)):
            found[str(moid(entity.entity))] = _samples(entity, keys)
    return found


def _samples(entity: t.Any, keys: t.Mapping[int, str]) -> dict[int, Sample]:
    """From `300,2026-03-04T00:05:00Z,300,…` and a line of values for each counter; a negative value is none."""
    times = str(entity.sampleInfoCSV or "").split(",")[1::2]
    series: dict[str, list[float]] = {}
    for one in entity.value or ():
        if one.id.counterId in keys and one.value:
            series[keys[one.id.counterId]] = [float(text) for text in str(one.value).split(",")]
    rows = zip(times, series.get(USED, ()), series.get(READY, ()), strict=False)
    return {
        int(datetime.datetime.fromisoformat(time).timestamp()): Sample(used, max(0.0, ready))
        for time, used, ready in rows
        if used >= 0
    }
