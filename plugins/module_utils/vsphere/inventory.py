# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the inventory plugin reads: every host and machine, in as few bytes as will do, both kinds at once."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import typing as t

from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.catalog import Catalog
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.facts import VmFacts
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.inventory import Entry, host_entry, vm_entry
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere import convert
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.client import Client
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.collector import (
    Row,
    all_of,
    moid,
    paths,
    retrieve,
    traversal,
)
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.fastxml import Keep, Only
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.pyvmomi import vim
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.reads import KEEP

HOST_PATHS = (
    "name",
    "parent",
    "runtime.connectionState",
    "runtime.inMaintenanceMode",
    "hardware.systemInfo.uuid",
    "hardware.pciDevice",
    "config.pciPassthruInfo",
    "config.graphicsInfo",
    "config.sharedPassthruGpuTypes",
)
VM_PATHS = (
    "name",
    "runtime.powerState",
    "runtime.host",
    "config.template",
    "config.instanceUuid",
    "config.hardware.device",
    "guest.ipAddress",
)


@dataclasses.dataclass(frozen=True, slots=True)
class Gathered:
    """What was read, as plain JSON types."""

    entries: dict[str, Entry]
    """By managed object id: hosts, then machines, by name."""
    unreadable: int
    """How many objects the account sees but may not read."""


def gather(client: Client, kinds: t.Collection[str], *, templates: bool, catalog: Catalog) -> Gathered:
    """Entries of `hosts`, `vms` or both. Raises GpuOpsError."""
    # What hosts have, machines use: both are needed to tell which GPU is free.
    full = "hosts" in kinds
    host_paths = HOST_PATHS if full else ("name", "parent")
    vendors = catalog.vendors
    keep = {**KEEP, "hardware.pciDevice": Only(field="vendorId", values=frozenset(map(_signed, vendors)))}
    # Made before the threads: both use them.
    client.read(lambda: client.collector)
    for kind in (vim.HostSystem, vim.VirtualMachine):
        client.read(lambda kind=kind: client.view(kind))  # type: ignore[misc]
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        reading = pool.submit(_hosts, client, host_paths, keep)
        vm_rows = _rows(client, vim.VirtualMachine, [paths(vim.VirtualMachine, *VM_PATHS)], keep)
        host_rows = reading.result()
    clusters = {row.moid: row for row in host_rows if isinstance(row.ref, vim.ClusterComputeResource)}
    hosts = {row.moid: row for row in host_rows if isinstance(row.ref, vim.HostSystem)}
    readable = [row for row in (*hosts.values(), *vm_rows) if not row.unreadable]
    names = {row.moid: convert.plain_name(row.props["name"]) for row in readable}
    in_cluster = {key: _cluster(row, clusters) for key, row in hosts.items()}
    vms = {row.moid: convert.vm_facts(row.moid, row.props, host_names=names, intent_key=None) for row in vm_rows}
    guests: dict[str | None, list[VmFacts]] = {}
    for row in vm_rows:
        guests.setdefault(moid(row.props.get("runtime.host")), []).append(vms[row.moid])
    entries: dict[str, Entry] = {}
    for row in sorted(readable, key=lambda row: (names[row.moid], row.moid)):
        if row.moid in hosts and full:
            facts = convert.host_facts(row.moid, row.props, cluster=in_cluster[row.moid], intent_key=None)
            uuid = row.props.get("hardware.systemInfo.uuid")
            entries[row.moid] = host_entry(facts, uuid, guests.get(row.moid, ()), catalog)
        elif row.moid in vms and "vms" in kinds and (templates or not vms[row.moid].template):
            cluster = in_cluster.get(moid(row.props.get("runtime.host")) or "")
            uuid, address = row.props.get("config.instanceUuid"), row.props.get("guest.ipAddress")
            entries[row.moid] = vm_entry(vms[row.moid], uuid, address, cluster, catalog)
    return Gathered(entries, len(hosts) + len(vm_rows) - len(readable))


def _signed(vendor: int) -> str:
    """A vendor id as vSphere sends it, a signed short."""
    return str(vendor - 0x10000 if vendor >= 0x8000 else vendor)


def _hosts(client: Client, names: t.Sequence[str], keep: Keep) -> list[Row]:
    wanted = [paths(vim.HostSystem, *names), paths(vim.ClusterComputeResource, "name")]
    return _rows(client, vim.HostSystem, wanted, keep, traversal(vim.HostSystem, "parent"))


def _rows(client: Client, kind: type, wanted: list[t.Any], keep: Keep, *then: t.Any) -> list[Row]:
    return retrieve(client, lambda: [all_of(client, kind, *then)], wanted, keep=keep)


def _cluster(row: Row, clusters: t.Mapping[str, Row]) -> str | None:
    cluster = clusters.get(moid(row.props.get("parent")) or "")
    return convert.plain_name(cluster.props.get("name", cluster.moid)) if cluster else None
