# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What hosts and machines have beside GPUs, read in one request for all: the rest of what placement needs."""

from __future__ import annotations

import dataclasses
import typing as t

from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.facts import assume_vms
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.placement.site import Capacity, SiteFacts
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.client import Client
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.collector import all_of, paths, retrieve
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.convert import plain_name
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.errors import InputError
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.module import with_assumed
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.pyvmomi import vim
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.reads import read_fleet

_MB = 1024 * 1024


def read_site(client: Client) -> SiteFacts:
    """Facts of all hosts and machines, in a number of requests that does not depend on how many there are.

    Raises GpuOpsError.
    """
    hosts, vms = read_fleet(client)
    rows = retrieve(
        client,
        lambda: [all_of(client, vim.HostSystem), all_of(client, vim.VirtualMachine)],
        [
            paths(
                vim.HostSystem,
                "name",
                "hardware.memorySize",
                "summary.hardware.numCpuThreads",
                "config.graphicsConfig",
            ),
            paths(vim.VirtualMachine, "name", "config.hardware.numCPU"),
        ],
    )
    capacity: dict[str, Capacity] = {}
    cpus: dict[str, int] = {}
    for row in rows:
        name = plain_name(row.props.get("name", row.moid))
        if isinstance(row.ref, vim.HostSystem):
            config = row.props.get("config.graphicsConfig")
            policy = str(getattr(config, "sharedPassthruAssignmentPolicy", None) or "performance")
            capacity[name] = Capacity(
                int(row.props.get("hardware.memorySize") or 0) // _MB,
                int(row.props.get("summary.hardware.numCpuThreads") or 0),
                "consolidation" if policy == "consolidation" else "performance",
            )
        else:
            cpus[name] = int(row.props.get("config.hardware.numCPU") or 0)
    return SiteFacts(dict(hosts), {vm.name: vm for vm in vms}, capacity, cpus)


def assumed(facts: SiteFacts, params: t.Mapping[str, t.Any]) -> SiteFacts:
    """The facts with `assume` laid over them. Raises InputError for fields that no object has."""
    try:
        vms = assume_vms(facts.vms, params["assume"]["vms"])
    except (TypeError, ValueError) as error:
        raise InputError(f"assume.vms is not what the return value predicted shows: {error}.") from error
    return dataclasses.replace(facts, hosts=with_assumed(facts.hosts, params), vms=vms)
