# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Bulk reads: facts of many hosts or virtual machines in a constant number of requests.

Exact property paths only, one `RetrievePropertiesEx` (paged by the server) for all objects; reading
named objects costs one more, which finds the ids of the names.
"""

from __future__ import annotations

import collections
import dataclasses
import datetime
import functools
import typing as t

from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.facts import HostFacts, VmFacts
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.ownership import (
    ENTERING,
    LEAVING,
    ours_since,
    taken_over,
)
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere import convert
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.client import READ_ATTEMPTS, Client
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.collector import (
    Row,
    all_of,
    moid,
    paths,
    retrieve,
    start,
    traversal,
)
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.errors import ObjectGoneError
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.fastxml import Only
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.host_tasks import (
    ENTER,
    LEAVE,
    read_history,
    read_tasks,
)
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.pyvmomi import vim

F = t.TypeVar("F")

INTENT_ATTRIBUTE = "gpuops.intent"

HOST_PATHS = (
    "name",
    "parent",
    "customValue",
    "runtime.connectionState",
    "runtime.inMaintenanceMode",
    "runtime.bootTime",
    "summary.rebootRequired",
    "config.product.version",
    "config.product.build",
    "capability.deviceRebindWithoutRebootSupported",
    "hardware.pciDevice",
    "config.pciPassthruInfo",
    "config.graphicsInfo",
    "config.graphicsConfig",
    "config.sharedPassthruGpuTypes",
    "config.sharedGpuCapabilities",
)
VM_PATHS = (
    "name",
    "customValue",
    "runtime.powerState",
    "runtime.host",
    "config.template",
    "config.changeVersion",
    "config.firmware",
    "config.version",
    "config.hardware.memoryMB",
    "config.hardware.device",
    "config.memoryReservationLockedToMax",
    "config.memoryAllocation.reservation",
    "config.cpuHotAddEnabled",
    "config.memoryHotAddEnabled",
)
# Dozens of keys a machine, of which a few matter: read for the machines that are named only.
EXTRA_CONFIG_PATH = "config.extraConfig"
# Since vSphere 8; an older vCenter refuses a read that names it.
DEVICE_GROUPS_PATH = "config.deviceGroups"
# What tells whether the virtual machines on a host keep it from maintenance mode.
GUEST_PATHS = ("name", "runtime.powerState", "runtime.host", "config.managedBy", "config.hardware.device")

# Of a machine's devices (a dozen or more) only these tell anything about GPUs.
KEEP = {"config.hardware.device": Only(types=frozenset({"VirtualPCIPassthrough"}))}


class Found(dict[str, F]):
    """Facts by name."""

    known: tuple[str, ...] = ()
    """Names of all objects of that kind, to suggest one for a name that is not there."""
    duplicates: frozenset[str] = frozenset()
    """Names that several objects have (in different folders); the facts are of one of them."""
    unreadable: t.Mapping[str, tuple[str, ...]] = {}
    """Ids of virtual machines that the account may not read, by the name of their host."""


def read_hosts(client: Client, names: t.Collection[str] | None = None, *, guests: bool = False) -> Found[HostFacts]:
    """Facts of the named hosts, or of all; unknown names are absent.

    `guests` fills `vm_names`, `powered_on_vms` and `drs_moves_vms`, at the price of reading the machines'
    devices. Raises GpuOpsError.
    """
    rows, known = _read_hosts(client, names, GUEST_PATHS if guests else ())
    return _with_owners(client, _with_unreadable(client, _hosts(rows, known, guests), rows))


def read_fleet(client: Client, names: t.Collection[str] | None = None) -> tuple[Found[HostFacts], tuple[VmFacts, ...]]:
    """Facts of the named hosts, or of all, and of the virtual machines on them, in the requests of `read_hosts`."""
    rows, known = _read_hosts(client, names, (*VM_PATHS, "config.managedBy"))
    hosts = _with_owners(client, _with_unreadable(client, _hosts(rows, known, guests=True), rows))
    return hosts, tuple(_vms(rows, {host.moid: host.name for host in hosts.values()}))


def _read_hosts(
    client: Client, names: t.Collection[str] | None, guest_paths: t.Sequence[str]
) -> tuple[list[Row], tuple[str, ...]]:
    compute = ("name", "configurationEx") if guest_paths else ("name",)
    wanted = [paths(vim.HostSystem, *HOST_PATHS), paths(vim.ComputeResource, *compute)]
    then = [traversal(vim.HostSystem, "parent")]
    if guest_paths:
        wanted.append(paths(vim.VirtualMachine, *guest_paths))
        then.append(traversal(vim.HostSystem, "vm"))
    return _read(client, vim.HostSystem, names, wanted, then)


def _hosts(rows: t.Sequence[Row], known: tuple[str, ...], guests: bool) -> Found[HostFacts]:
    clusters = {row.moid: row for row in rows if isinstance(row.ref, vim.ClusterComputeResource)}
    guests_of = _guests_by_host(rows)
    key = intent_key(rows)
    found = []
    for row in rows:
        if not isinstance(row.ref, vim.HostSystem) or row.unreadable:
            continue
        cluster = clusters.get(moid(row.props.get("parent")) or "")
        facts = convert.host_facts(row.moid, row.props, cluster=_name(cluster) if cluster else None, intent_key=key)
        if guests:
            config = cluster.props.get("configurationEx") if cluster else None
            facts = convert.with_guests(facts, guests_of.get(row.moid, ()), cluster_config=config)
        found.append(facts)
    return _by_name(found, known)


def _with_owners(client: Client, hosts: Found[HostFacts]) -> Found[HostFacts]:
    """Find out whose maintenance mode the hosts are in that a run was putting in or taking out of it.

    Costs nothing unless there are any, else one request and the task history of each of them.
    """
    marks = {
        name: host.intent
        for name, host in hosts.items()
        if host.in_maintenance and host.intent is not None and host.intent.action in (ENTERING, LEAVING)
    }
    if marks:
        moids = {name: hosts[name].moid for name in marks}
        history = read_history(
            client, {name: (client.ref(vim.HostSystem, moids[name]), mark) for name, mark in marks.items()}
        )
        tasks = read_tasks(client, moids, LEAVE)
        now = str(convert.iso(datetime.datetime.now(datetime.UTC)))
        for name, mark in marks.items():
            if mark.action == ENTERING:
                over = not ours_since(mark, history[name], ENTER)
            else:
                over = taken_over(mark, history[name], now=now, leaving=name in tasks.running)
            # It may have left since it was read; the later state counts.
            still = name in tasks.in_maintenance
            hosts[name] = dataclasses.replace(hosts[name], in_maintenance=still, reentered=over and still)
    return hosts


def _vms(rows: t.Sequence[Row], host_names: t.Mapping[str, str]) -> list[VmFacts]:
    key = intent_key(rows)
    return [
        convert.vm_facts(row.moid, row.props, host_names=host_names, intent_key=key)
        for row in rows
        if isinstance(row.ref, vim.VirtualMachine) and not row.unreadable
    ]


def _unreadable(client: Client, hosts: t.Mapping[str, str], rows: t.Iterable[Row]) -> dict[str, tuple[str, ...]]:
    """Virtual machines in `rows` that the account may not read, by their host; a request only where there are any.

    `hosts` are names by id. The machines do not tell their host, but the hosts tell their machines.
    """
    hidden = {row.moid for row in rows if isinstance(row.ref, vim.VirtualMachine) and row.unreadable}
    if not hidden:
        return {}
    refs = [client.ref(vim.HostSystem, host) for host in hosts]
    found = retrieve(client, lambda: [start(ref) for ref in refs], [paths(vim.HostSystem, "vm")])
    on_hosts = {hosts[row.moid]: sorted({vm._moId for vm in row.props.get("vm") or ()} & hidden) for row in found}
    return {name: tuple(moids) for name, moids in on_hosts.items() if moids}


def _with_unreadable(client: Client, hosts: Found[HostFacts], rows: t.Sequence[Row]) -> Found[HostFacts]:
    """Add the virtual machines that the account may not read, as ones that keep their host from maintenance mode."""
    hosts.unreadable = _unreadable(client, {host.moid: name for name, host in hosts.items()}, rows)
    for name, moids in hosts.unreadable.items():
        hosts[name] = convert.with_unreadable(hosts[name], moids)
    return hosts


def read_vms(
    client: Client, names: t.Collection[str] | None = None, *, on_hosts: t.Collection[HostFacts] | None = None
) -> Found[VmFacts]:
    """Facts of the named virtual machines, of those on hosts read before, or of all (templates included).

    `extra_config` is filled for the named ones only. Unknown names are absent. Raises GpuOpsError.
    """
    more = () if names is None else (EXTRA_CONFIG_PATH,)
    if client.api_version >= (8,):
        more = (*more, DEVICE_GROUPS_PATH)
    wanted = [paths(vim.VirtualMachine, *VM_PATHS, *more), paths(vim.HostSystem, "name")]
    if on_hosts is None:
        rows, known = _read(client, vim.VirtualMachine, names, wanted, [traversal(vim.VirtualMachine, "runtime.host")])
    else:
        refs = [client.ref(vim.HostSystem, host.moid) for host in on_hosts]
        along = traversal(vim.HostSystem, "vm")
        rows = with_fields(client, lambda: [start(ref, along) for ref in refs], wanted) if refs else []
        known = ()
    host_names = {row.moid: _name(row) for row in rows if isinstance(row.ref, vim.HostSystem)}
    found = _by_name(_vms(rows, host_names), known)
    found.unreadable = _unreadable(client, host_names, rows)
    return found


def read_vm_names(client: Client, moids: t.Sequence[str]) -> dict[str, str]:
    """Names of virtual machines by id, for messages; no request for none. Raises GpuOpsError."""
    refs = [client.ref(vim.VirtualMachine, moid) for moid in moids]
    rows = retrieve(client, lambda: [start(ref) for ref in refs], [paths(vim.VirtualMachine, "name")]) if refs else []
    return {row.moid: _name(row) for row in rows}


def find_names(client: Client, kind: type) -> list[Row]:
    """All objects of one managed type with their names, in one request. Raises GpuOpsError."""
    return retrieve(client, lambda: [all_of(client, kind)], [paths(kind, "name")])


def _read(
    client: Client, kind: type, names: t.Collection[str] | None, wanted: list[t.Any], then: list[t.Any]
) -> tuple[list[Row], tuple[str, ...]]:
    """Rows of the named objects (or all) and of what `then` leads to, and the names of all objects of the kind."""
    if names is None:
        rows = with_fields(client, lambda: [all_of(client, kind, *then)], wanted)
        return rows, tuple(sorted(_name(row) for row in rows if isinstance(row.ref, kind) and not row.unreadable))
    for attempt in range(READ_ATTEMPTS):
        everything = [(_name(row), row.ref) for row in find_names(client, kind) if not row.unreadable]
        refs = [ref for name, ref in everything if name in set(names)]
        try:
            rows = with_fields(client, functools.partial(_starts, refs, then), wanted) if refs else []
            return rows, tuple(sorted(name for name, _ref in everything))
        except ObjectGoneError:
            # One was removed since the names were read, for example by a task that a killed run had asked for.
            if attempt == READ_ATTEMPTS - 1:
                raise
    raise AssertionError  # the last attempt returns or raises


def _starts(refs: t.Sequence[t.Any], then: t.Sequence[t.Any]) -> list[t.Any]:
    return [start(ref, *then) for ref in refs]


def with_fields(client: Client, objects: t.Callable[[], list[t.Any]], wanted: list[t.Any]) -> list[Row]:
    """Retrieve, and in the same request the definitions of custom attributes, which give the intent's key."""
    manager = client.content.customFieldsManager
    return retrieve(
        client,
        lambda: [*objects(), start(manager)],
        [*wanted, paths(vim.CustomFieldsManager, "field")],
        keep=KEEP,
    )


def intent_key(rows: t.Iterable[Row]) -> int | None:
    """Key of the attribute that holds intents, from the rows of `with_fields`; None while it is not defined."""
    for row in rows:
        for field in row.props.get("field") or ():
            if field.name == INTENT_ATTRIBUTE:
                return int(field.key)
    return None


def _guests_by_host(rows: t.Iterable[Row]) -> dict[str, list[dict[str, t.Any]]]:
    guests: dict[str, list[dict[str, t.Any]]] = {}
    for row in rows:
        host = moid(row.props.get("runtime.host"))
        if isinstance(row.ref, vim.VirtualMachine) and host is not None:
            guests.setdefault(host, []).append({**row.props, "moid": row.moid})
    return guests


def _name(row: Row) -> str:
    return convert.plain_name(row.props.get("name", row.moid))


def _by_name(found: t.Sequence[t.Any], known: tuple[str, ...]) -> Found[t.Any]:
    named: Found[t.Any] = Found(
        (facts.name, facts) for facts in sorted(found, key=lambda facts: (facts.name, facts.moid))
    )
    named.known = known
    counts = collections.Counter(facts.name for facts in found)
    named.duplicates = frozenset(name for name, count in counts.items() if count > 1)
    return named
