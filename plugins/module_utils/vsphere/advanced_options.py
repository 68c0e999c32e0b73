# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Advanced settings of a vCenter (OptionManager) and of its clusters' DRS: read in one request, written in one each."""

from __future__ import annotations

import typing as t

from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.advanced_options import (
    VCENTER,
    ClusterOptions,
    OptionFacts,
    Scalar,
)
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.client import Client
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.collector import all_of, paths, retrieve, start
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.convert import plain_name
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.pyvmomi import vim
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.tasks import (
    Bounds,
    TaskOutcome,
    run_calls,
    run_tasks,
)


def read_options(client: Client, vcenter: t.Collection[str]) -> OptionFacts:
    """The DRS options of all clusters, and all settings of the vCenter if any of them is wanted. Raises GpuOpsError."""
    manager = client.content.setting
    kind = vim.ClusterComputeResource
    wanted = [paths(kind, "name", "configurationEx")]
    if vcenter:
        wanted.append(paths(vim.option.OptionManager, "setting"))

    def objects() -> list[t.Any]:
        return [all_of(client, kind), *([start(manager)] if vcenter else [])]

    settings: dict[str, Scalar] = {}
    clusters = {}
    for row in retrieve(client, objects, wanted):
        if isinstance(row.ref, vim.option.OptionManager):
            settings = {option.key: option.value for option in row.props.get("setting") or ()}
        elif "name" in row.props:
            drs = getattr(row.props.get("configurationEx"), "drsConfig", None)
            options = {option.key: str(option.value) for option in getattr(drs, "option", None) or ()}
            enabled = bool(drs is not None and drs.enabled)
            clusters[plain_name(row.props["name"])] = ClusterOptions(row.moid, enabled, options)
    return OptionFacts(str(client.content.about.apiVersion), settings, clusters)


def apply_options(
    client: Client, facts: OptionFacts, values: t.Mapping[str, t.Mapping[str, Scalar]], bounds: Bounds
) -> dict[str, TaskOutcome]:
    """Set the options of each object with one call; never raises for one object."""
    outcomes = {}
    if VCENTER in values:
        manager: t.Any = client.content.setting
        changed = [vim.option.OptionValue(key=key, value=value) for key, value in values[VCENTER].items()]
        outcomes = run_calls(
            client,
            {VCENTER: lambda: manager.UpdateOptions(changed)},
            max_parallel=1,
            doing="change its advanced settings",
        )

    def starter(name: str) -> t.Callable[[], t.Any]:
        cluster: t.Any = client.ref(vim.ClusterComputeResource, facts.clusters[name].moid)
        options = [vim.option.OptionValue(key=key, value=str(value)) for key, value in values[name].items()]
        spec = vim.cluster.ConfigSpecEx(drsConfig=vim.cluster.DrsConfigInfo(option=options))
        return lambda: cluster.ReconfigureComputeResource_Task(spec, True)

    starters = {name: starter(name) for name in values if name != VCENTER}
    return outcomes | run_tasks(
        client, starters, timeout=bounds.left, max_parallel=bounds.max_parallel, doing="change its DRS options"
    )
