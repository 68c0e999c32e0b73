# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Virtual machines that come and go: where they can be put, cloning, deleting; for many at once."""

from __future__ import annotations

import functools
import typing as t

from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.clone import Clone, Removal
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.facts import HostFacts, VmFacts
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.places import (
    HostPlaces,
    Place,
    Places,
    TemplatePlace,
)
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.client import Client
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.collector import (
    Row,
    all_of,
    moid,
    paths,
    retrieve,
    start,
    traversal,
)
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.convert import plain_name
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.pyvmomi import vim, vmodl
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.reads import read_vms
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.tasks import Bounds, TaskOutcome, run_tasks
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.vms import power_off_hard, wait_for_tasks


def read_places(client: Client, hosts: t.Mapping[str, HostFacts], templates: t.Mapping[str, VmFacts]) -> Places:
    """Datastores, folders and resource pools for these hosts, and where the templates are; one bulk read.

    Raises GpuOpsError.
    """
    host_refs = [client.ref(vim.HostSystem, host.moid) for host in hosts.values()]
    template_refs = [client.ref(vim.VirtualMachine, vm.moid) for vm in templates.values()]

    def along(number: int) -> t.Any:
        """From a host to the pools of its cluster, at every depth. A name may be defined once in a filter."""
        name = f"pools-{number}"
        pools = vmodl.query.PropertyCollector.SelectionSpec(name=name)
        below = traversal(vim.ResourcePool, "resourcePool", pools)
        below.name = name
        return traversal(vim.HostSystem, "parent", traversal(vim.ComputeResource, "resourcePool", below))

    def objects() -> list[t.Any]:
        return [
            *(start(ref, along(number)) for number, ref in enumerate(host_refs)),
            *(start(ref) for ref in template_refs),
            all_of(client, vim.Datastore),
            all_of(client, vim.Folder),
            all_of(client, vim.Datacenter),
        ]

    rows = retrieve(
        client,
        objects,
        [
            paths(vim.HostSystem, "parent", "datastore"),
            paths(vim.ComputeResource, "parent", "resourcePool"),
            paths(vim.ResourcePool, "name", "parent"),
            paths(vim.VirtualMachine, "datastore"),
            paths(vim.Datastore, "name", "summary.accessible", "summary.maintenanceMode"),
            paths(vim.Folder, "name", "parent"),
            paths(vim.Datacenter, "name", "parent", "vmFolder"),
        ],
    )
    tree = _Tree(rows)
    return Places(
        hosts={name: tree.host_places(host.moid) for name, host in hosts.items()},
        templates={
            name: TemplatePlace(tuple(str(moid(ref)) for ref in tree.props(vm.moid).get("datastore") or ()))
            for name, vm in templates.items()
        },
        datastores=tuple(sorted({place.path for place in tree.datastores.values()})),
    )


class _Tree:
    """The objects of the read, and the paths between them."""

    def __init__(self, rows: t.Iterable[Row]) -> None:
        self.rows = {row.moid: row for row in rows}
        self.children: dict[str, list[str]] = {}
        for row in self.rows.values():
            if isinstance(row.ref, (vim.Folder, vim.ResourcePool)):
                self.children.setdefault(moid(row.props.get("parent")) or "", []).append(row.moid)
        self.datastores = {
            row.moid: Place(row.moid, self.name(row.moid))
            for row in self.rows.values()
            if isinstance(row.ref, vim.Datastore)
        }

    def props(self, key: str) -> dict[str, t.Any]:
        row = self.rows.get(key)
        return row.props if row is not None else {}

    def name(self, key: str) -> str:
        return plain_name(self.props(key).get("name", key))

    def host_places(self, host: str) -> HostPlaces:
        props = self.props(host)
        compute = moid(props.get("parent")) or ""
        pool = moid(self.props(compute).get("resourcePool"))
        datacenter = self._datacenter(compute)
        vm_folder = moid(self.props(datacenter).get("vmFolder")) if datacenter else None
        stores = [str(moid(ref)) for ref in props.get("datastore") or ()]
        return HostPlaces(
            datastores=tuple(
                sorted((self.datastores[key] for key in stores if self._usable(key)), key=lambda place: place.path)
            ),
            folders=tuple(self._below(vm_folder, "")) if vm_folder else (),
            pools=tuple(self._below(pool, "")) if pool else (),
        )

    def _usable(self, datastore: str) -> bool:
        props = self.props(datastore)
        return bool(props.get("summary.accessible")) and props.get("summary.maintenanceMode") in (None, "normal")

    def _datacenter(self, key: str) -> str | None:
        """The datacenter above an object."""
        at: str | None = key
        while at is not None and at in self.rows and not isinstance(self.rows[at].ref, vim.Datacenter):
            at = moid(self.props(at).get("parent"))
        return at if at in self.rows else None

    def _below(self, top: str, path: str) -> t.Iterator[Place]:
        """A folder or pool and all below it, by path."""
        yield Place(top, path)
        for child in sorted(self.children.get(top, ()), key=self.name):
            yield from self._below(child, f"{path}/{self.name(child)}".lstrip("/"))


def clone(client: Client, clones: t.Mapping[str, Clone], bounds: Bounds) -> dict[str, TaskOutcome]:
    """One `CloneVM_Task` for each name, all at once.

    Where the name is taken by a clone that an interrupted run left going on, that one is waited for.
    """
    outcomes = _clone(client, clones, bounds)
    taken = {name: clones[name] for name, outcome in outcomes.items() if _duplicate(outcome)}
    if not taken:
        return outcomes
    sources = {item.template: item.template for item in taken.values()}
    wait_for_tasks(client, sources, bounds)
    there = read_vms(client, list(taken))
    outcomes |= {name: TaskOutcome() for name in taken if name in there and there[name].change_version}
    # The other clone may have failed, and then its name is free again.
    return outcomes | _clone(client, {name: item for name, item in taken.items() if name not in there}, bounds)


def _clone(client: Client, clones: t.Mapping[str, Clone], bounds: Bounds) -> dict[str, TaskOutcome]:
    starters = {}
    for name, item in clones.items():
        template = client.ref(vim.VirtualMachine, item.template)
        folder = client.ref(vim.Folder, item.folder)
        starters[name] = functools.partial(template.CloneVM_Task, folder, name, _clone_spec(client, item))
    return run_tasks(client, starters, timeout=bounds.left, max_parallel=bounds.max_parallel, doing="clone it")


def _clone_spec(client: Client, item: Clone) -> t.Any:
    location = vim.vm.RelocateSpec(
        host=client.ref(vim.HostSystem, item.host),
        pool=client.ref(vim.ResourcePool, item.pool),
        datastore=client.ref(vim.Datastore, item.datastore),
    )
    spec: t.Any = vim.vm.CloneSpec(location=location, powerOn=False, template=False)
    if item.num_cpus or item.memory_mb or item.annotation:
        spec.config = vim.vm.ConfigSpec(numCPUs=item.num_cpus, memoryMB=item.memory_mb, annotation=item.annotation)
    return spec


def _duplicate(outcome: TaskOutcome) -> bool:
    return outcome.error is not None and outcome.error.code == "duplicate_name"


def remove(client: Client, removals: t.Mapping[str, Removal], bounds: Bounds) -> dict[str, TaskOutcome]:
    """Power off what is to be powered off, then delete with all disks. One that is gone already is no failure."""
    running = {name: item.moid for name, item in removals.items() if item.power_off}
    outcomes = power_off_hard(client, running, bounds) if running else {}
    off = {
        name: client.ref(vim.VirtualMachine, item.moid).Destroy_Task
        for name, item in removals.items()
        if name not in outcomes or outcomes[name].ok
    }
    outcomes |= run_tasks(client, off, timeout=bounds.left, max_parallel=bounds.max_parallel, doing="delete it")
    return {
        name: TaskOutcome() if outcome.error is not None and outcome.error.code == "object_gone" else outcome
        for name, outcome in outcomes.items()
    }
