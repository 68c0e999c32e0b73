# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Hosts into clusters and out of them, for many hosts at once."""

from __future__ import annotations

import dataclasses
import functools
import typing as t

from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.membership import MemberStep
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.client import Client
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.collector import (
    all_of,
    moid,
    paths,
    retrieve,
    start,
)
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.convert import plain_name
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.errors import ObjectGoneError
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.intents import write_intents
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.pyvmomi import vim
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.tasks import Bounds, TaskOutcome, run_tasks


@dataclasses.dataclass(frozen=True, slots=True)
class Computes:
    """Clusters and the places around them; managed object ids."""

    clusters: t.Mapping[str, str]
    """By name."""
    folder_of: t.Mapping[str, str]
    """Name of a cluster -> the folder that it is in, where its hosts would stand alone."""
    standalone: t.Mapping[str, str]
    """Host's id -> the compute resource that it is alone in."""


def read_computes(client: Client) -> Computes:
    """All clusters and standalone hosts; one request. Raises GpuOpsError."""
    rows = retrieve(
        client,
        lambda: [all_of(client, vim.ComputeResource)],
        [paths(vim.ComputeResource, "name", "parent", "host")],
    )
    clusters = [row for row in rows if isinstance(row.ref, vim.ClusterComputeResource)]
    alone = [row for row in rows if not isinstance(row.ref, vim.ClusterComputeResource)]
    return Computes(
        {plain_name(row.props["name"]): row.moid for row in clusters},
        {plain_name(row.props["name"]): str(moid(row.props["parent"])) for row in clusters},
        {str(moid(host)): row.moid for row in alone for host in row.props.get("host") or ()},
    )


def apply_membership(
    client: Client,
    moids: t.Mapping[str, str],
    clusters_of: t.Mapping[str, str | None],
    steps: t.Mapping[str, MemberStep],
    wanted: t.Mapping[str, str | None],
    computes: Computes,
    bounds: Bounds,
) -> dict[str, TaskOutcome]:
    """Carry the steps out: mark and disconnect what is to be removed, move or remove, clear intents."""
    outcomes = {name: TaskOutcome() for name in steps}
    hosts = {name: client.ref(vim.HostSystem, moids[name]) for name in steps}

    def tasks(starters: t.Mapping[str, t.Callable[[], t.Any]], doing: str) -> None:
        outcomes.update(run_tasks(client, starters, timeout=bounds.left, max_parallel=bounds.max_parallel, doing=doing))

    def ready(move: str) -> list[str]:
        return [name for name, step in steps.items() if step.move == move and outcomes[name].ok]

    marks = {name: (hosts[name], step.mark) for name, step in steps.items() if step.mark is not None}
    outcomes.update(write_intents(client, marks, max_parallel=bounds.max_parallel))
    leaving = [name for name in ready("removed") if steps[name].disconnect]
    tasks({name: hosts[name].DisconnectHost_Task for name in leaving}, "disconnect it")
    outcomes.update(_disconnected_already(client, {name: hosts[name] for name in leaving}, outcomes))
    tasks({n: _remover(client, hosts[n], computes) for n in ready("removed")}, "remove it from the vCenter")
    outcomes.update(
        {
            name: TaskOutcome()
            for name in steps
            if steps[name].move == "removed" and isinstance(outcomes[name].error, ObjectGoneError)
        }
    )
    joining = {
        name: client.ref(vim.ClusterComputeResource, computes.clusters[str(wanted[name])]) for name in ready("member")
    }
    tasks(
        {n: functools.partial(cluster.MoveHostInto_Task, hosts[n], None) for n, cluster in joining.items()},
        "move it into the cluster",
    )
    folders = {name: client.ref(vim.Folder, computes.folder_of[str(clusters_of[name])]) for name in ready("standalone")}
    tasks(
        {n: functools.partial(folder.MoveIntoFolder_Task, [hosts[n]]) for n, folder in folders.items()},
        "move it out of the cluster",
    )
    outcomes.update(_there_already(client, hosts, steps, outcomes, computes, wanted))
    cleared = {name: (hosts[name], None) for name, step in steps.items() if step.clear and outcomes[name].ok}
    outcomes.update(write_intents(client, cleared, max_parallel=bounds.max_parallel))
    return outcomes


def _disconnected_already(
    client: Client, hosts: t.Mapping[str, t.Any], outcomes: t.Mapping[str, TaskOutcome]
) -> dict[str, TaskOutcome]:
    """The refused hosts that are disconnected: a task of a killed run has done that meanwhile.

    One request, if any was refused. Raises GpuOpsError.
    """
    refused = {str(moid(host)): name for name, host in hosts.items() if _refused(outcomes[name])}
    if not refused:
        return {}
    rows = retrieve(
        client,
        lambda: [start(hosts[name]) for name in refused.values()],
        [paths(vim.HostSystem, "runtime.connectionState")],
    )
    return {
        refused[row.moid]: TaskOutcome() for row in rows if row.props.get("runtime.connectionState") == "disconnected"
    }


def _refused(outcome: TaskOutcome) -> bool:
    return outcome.error is not None and bool(outcome.error.fault)


def _there_already(
    client: Client,
    hosts: t.Mapping[str, t.Any],
    steps: t.Mapping[str, MemberStep],
    outcomes: t.Mapping[str, TaskOutcome],
    computes: Computes,
    wanted: t.Mapping[str, str | None],
) -> dict[str, TaskOutcome]:
    """The refused hosts that are where they were to go: a task of a killed run brought them there meanwhile.

    One request, if any was refused. Raises GpuOpsError.
    """
    refused = {
        str(moid(hosts[name])): name
        for name, step in steps.items()
        if step.move in ("member", "standalone") and _refused(outcomes[name])
    }
    if not refused:
        return {}
    rows = retrieve(
        client, lambda: [start(hosts[name]) for name in refused.values()], [paths(vim.HostSystem, "parent")]
    )
    arrived = {}
    for row in rows:
        name, parent = refused[row.moid], row.props.get("parent")
        if steps[name].move == "member":
            there = moid(parent) == computes.clusters[str(wanted[name])]
        else:
            there = not isinstance(parent, vim.ClusterComputeResource)
        if there:
            arrived[name] = TaskOutcome()
    return arrived


def _remover(client: Client, host: t.Any, computes: Computes) -> t.Callable[[], t.Any]:
    """A host that stands alone goes with its compute resource."""
    alone = computes.standalone.get(str(moid(host)))
    task: t.Callable[[], t.Any] = (
        client.ref(vim.ComputeResource, alone).Destroy_Task if alone is not None else host.Destroy_Task
    )
    return task
