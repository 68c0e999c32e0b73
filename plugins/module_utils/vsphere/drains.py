# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Virtual machines out of the way of maintenance mode and back: reads, migrating, suspending, shutting down, restoring.

Each virtual machine is marked before it is touched (`gpuops.intent`, with the host it was drained from), and the
mark is cleared when it has been restored. A run that dies in between is carried on by the next one.
"""

from __future__ import annotations

import collections
import dataclasses
import typing as t

from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.drain import (
    HOT_MIGRATE,
    MOVED,
    STOPPED,
    SUSPENDED,
    SUSPENDING,
    WAYS,
    DrainFacts,
    Guest,
    GuestDrain,
    Restore,
    SharedGpu,
    Target,
    Way,
)
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.facts import Drained, HostFacts, Intent
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.ownership import ours_since
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.selection import normalise_address
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere import convert
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.client import Client
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.collector import (
    Row,
    all_of,
    moid,
    paths,
    retrieve,
    start,
    traversal,
    watch,
)
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.errors import GpuOpsError
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.host_tasks import SUSPEND, read_history
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.intents import vcenter_time, write_intents
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.pyvmomi import vim
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.reads import intent_key, with_fields
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.tasks import (
    Bounds,
    TaskOutcome,
    may_go_on,
    run_tasks,
)
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.vms import power_off, power_on, wait_for_tasks

_GUEST_PATHS = (
    "name",
    "customValue",
    "runtime.powerState",
    "runtime.host",
    "config.managedBy",
    "config.hardware.memoryMB",
    "config.hardware.device",
)
_TARGET_PATHS = (
    "name",
    "parent",
    "runtime.connectionState",
    "runtime.inMaintenanceMode",
    "hardware.memorySize",
    "config.graphicsInfo",
    "config.sharedPassthruGpuTypes",
    "config.sharedGpuCapabilities",
)
_MARKS = {"migrate": MOVED, "suspend": SUSPENDING, "shut down": STOPPED}


@dataclasses.dataclass(frozen=True, slots=True)
class DrainSettings:
    """What a drain does beside the ways."""

    run: str
    mark: bool
    """Whether what is drained is to be restored."""
    force: bool
    """Whether to cut the power where a guest does not shut down."""
    guest_timeout: float
    """Seconds that guests have to shut down."""


def wait_for_guests(client: Client, hosts: t.Sequence[HostFacts], bounds: Bounds) -> bool:
    """Wait for what is under way on virtual machines that are on these hosts, or belong there; whether there was any.

    What a killed run has asked for goes on: a machine that is being powered on counts as off until it is, one on its
    way back as elsewhere. One request, however many hosts. Raises GpuOpsError.
    """
    refs = [client.ref(vim.HostSystem, host.moid) for host in hosts]
    if not refs:
        return False
    along = traversal(vim.HostSystem, "vm", traversal(vim.VirtualMachine, "recentTask"))
    around = traversal(vim.HostSystem, "parent", traversal(vim.ComputeResource, "host", along))
    rows = with_fields(
        client,
        lambda: [start(ref, along, around) for ref in refs],
        [
            paths(vim.VirtualMachine, "customValue", "runtime.host", "recentTask"),
            paths(vim.Task, "info.state"),
        ],
    )
    going_on = {row.moid for row in rows if str(row.props.get("info.state")) in ("queued", "running")}
    names, moids, key = {host.name for host in hosts}, {host.moid for host in hosts}, intent_key(rows)
    tasks = [
        task
        for row in rows
        if isinstance(row.ref, vim.VirtualMachine)
        if moid(row.props.get("runtime.host")) in moids
        or ((mark := convert.intent(row.props, key)) is not None and mark.host in names)
        for task in row.props.get("recentTask") or ()
        if moid(task) in going_on
    ]
    if not tasks:
        return False

    def ended(_task: str, values: dict[str, t.Any]) -> bool:
        return "gone" in values or str(values.get("info.state")) in ("success", "error")

    watch(client, tasks, vim.Task, ("info.state",), ended, timeout=bounds.left)
    return True


def read_drain(client: Client, hosts: t.Sequence[HostFacts]) -> DrainFacts:
    """Everything there is to know to drain these hosts of what runs on them and on their clusters.

    Two requests, however many hosts: also where nothing ran when the hosts were read, since a task that a killed run
    had asked for may have brought a machine there meanwhile. Raises GpuOpsError.
    """
    if not hosts:
        return DrainFacts()
    refs = [client.ref(vim.HostSystem, host.moid) for host in hosts]
    along = traversal(vim.HostSystem, "vm")
    around = traversal(vim.HostSystem, "parent", traversal(vim.ComputeResource, "host", along))
    rows = with_fields(
        client,
        lambda: [start(ref, along, around) for ref in refs],
        [
            paths(vim.HostSystem, *_TARGET_PATHS),
            paths(vim.ComputeResource, "configurationEx"),
            paths(vim.VirtualMachine, *_GUEST_PATHS),
        ],
    )
    rows = [row for row in rows if not row.unreadable]
    guests = _guests(rows)
    clusters = {row.moid for row in rows if isinstance(row.ref, vim.ClusterComputeResource)}
    profiles = {key: guest.profiles for key, guest in guests.items()}
    targets = [_target(row, clusters, profiles) for row in rows if isinstance(row.ref, vim.HostSystem)]
    return DrainFacts(tuple(guests.values()), {target.name: target for target in targets}, _hot_migrate(client))


def _guests(rows: t.Sequence[Row]) -> dict[str, Guest]:
    """The virtual machines among the rows, by id."""
    hosts = {row.moid: row for row in rows if isinstance(row.ref, vim.HostSystem)}
    clusters = {row.moid: row for row in rows if isinstance(row.ref, vim.ClusterComputeResource)}
    key = intent_key(rows)
    return {row.moid: _guest(row, hosts, clusters, key) for row in rows if isinstance(row.ref, vim.VirtualMachine)}


def _guest(row: Row, hosts: t.Mapping[str, Row], clusters: t.Mapping[str, Row], key: int | None) -> Guest:
    props = {**row.props, "moid": row.moid}
    host = hosts.get(moid(props.get("runtime.host")) or "")
    cluster = clusters.get(moid(host.props.get("parent")) or "") if host is not None else None
    kind: t.Any = vim.vm.device.VirtualPCIPassthrough
    devices: list[t.Any] = [device for device in props.get("config.hardware.device") or () if isinstance(device, kind)]
    shared = [device for device in devices if isinstance(device.backing, kind.VmiopBackingInfo)]
    return Guest(
        name=convert.plain_name(props.get("name", row.moid)),
        moid=row.moid,
        host=_name(host) if host is not None else None,
        power=str(props.get("runtime.powerState", "unknown")),  # type: ignore[arg-type]
        memory_mb=props.get("config.hardware.memoryMB") or 0,
        agent="name" in props and convert.is_agent(props),
        drs_moves=convert.drs_moves(props, cluster.props.get("configurationEx") if cluster is not None else None),
        passthrough=len(shared) < len(devices),
        profiles=tuple(device.backing.vgpu for device in shared),
        intent=convert.intent(props, key),
    )


def _target(row: Row, clusters: t.Collection[str], profiles: t.Mapping[str, tuple[str, ...]]) -> Target:
    props = row.props
    parent = moid(props.get("parent"))
    capabilities = props.get("config.sharedGpuCapabilities") or ()
    left = {vm: list(held) for vm, held in profiles.items()}
    gpus = []
    for info in props.get("config.graphicsInfo") or ():
        # A machine with several vGPUs is listed at each of its GPUs, without saying which vGPU is where.
        held = [left[vm].pop() for vm in (str(moid(ref)) for ref in info.vm or ()) if left.get(vm)]
        if str(info.graphicsType) == "sharedDirect":
            mixed = getattr(info, "vgpuMode", None) == "mixedSize"
            gpus.append((normalise_address(info.pciId), SharedGpu(info.memorySizeInKB / 2**20, mixed, tuple(held))))
    return Target(
        name=_name(row),
        moid=row.moid,
        cluster=parent if parent in clusters else None,
        usable=str(props.get("runtime.connectionState")) == "connected" and not props.get("runtime.inMaintenanceMode"),
        memory_mb=int(props.get("hardware.memorySize") or 0) // 2**20,
        profiles=frozenset(props.get("config.sharedPassthruGpuTypes") or ()),
        gpus=tuple(gpu for _address, gpu in sorted(gpus, key=lambda item: str(item[0]))),
        no_migrate=frozenset(item.vgpu for item in capabilities if not item.migrateSupported),
        no_suspend=frozenset(item.vgpu for item in capabilities if not item.suspendSupported),
    )


def _name(row: Row) -> str:
    return convert.plain_name(row.props.get("name", row.moid))


def _hot_migrate(client: Client) -> bool:
    manager: t.Any = client.content.setting

    def query() -> bool:
        try:
            found = manager.QueryOptions(HOT_MIGRATE)
        except vim.fault.InvalidName:
            return False
        return any(str(option.value).lower() == "true" for option in found or ())

    try:
        return manager is not None and client.read(query)
    except GpuOpsError as error:
        if error.code == "no_permission":  # then it is the vCenter that refuses, and says why
            return True
        raise


def read_drained(client: Client, hosts: t.Mapping[str, HostFacts]) -> dict[str, tuple[Drained, ...]]:
    """By host, the virtual machines anywhere that runs of ours have drained from it. Raises GpuOpsError."""
    rows = with_fields(
        client,
        lambda: [all_of(client, vim.VirtualMachine, traversal(vim.VirtualMachine, "runtime.host"))],
        [
            paths(vim.VirtualMachine, "name", "customValue", "runtime.powerState", "runtime.host"),
            paths(vim.HostSystem, "name"),
        ],
    )
    key = intent_key(rows)
    names = {row.moid: _name(row) for row in rows if isinstance(row.ref, vim.HostSystem)}
    found: dict[str, list[Drained]] = {}
    doubtful: dict[str, tuple[t.Any, Intent]] = {}
    for row in rows:
        mark = convert.intent(row.props, key) if isinstance(row.ref, vim.VirtualMachine) else None
        if mark is None or mark.host is None or mark.host not in hosts:
            continue
        power: t.Any = str(row.props.get("runtime.powerState", "unknown"))
        now = names.get(moid(row.props.get("runtime.host")) or "")
        found.setdefault(mark.host, []).append(Drained(_name(row), row.moid, mark.action, now, power))
        if mark.action == SUSPENDING and power == "suspended":
            doubtful[row.moid] = (row.ref, mark)
    history = read_history(client, doubtful)
    foreign = {vm for vm, (_ref, mark) in doubtful.items() if not ours_since(mark, history[vm], SUSPEND)}
    return {
        host: tuple(
            dataclasses.replace(item, foreign=item.moid in foreign) for item in sorted(items, key=lambda d: d.vm)
        )
        for host, items in found.items()
    }


def drain(
    client: Client,
    work: t.Mapping[str, t.Sequence[GuestDrain]],
    targets: t.Mapping[str, str],
    settings: DrainSettings,
    bounds: Bounds,
) -> dict[str, dict[str, TaskOutcome]]:
    """Empty hosts of these virtual machines, all at once; by host and machine how it went.

    `targets` are the ids of hosts by name. Where a way surely fails the next one is tried.
    """
    shown = _shown((item.guest.moid, item.guest.name) for items in work.values() for item in items)
    drains = {shown[item.guest.moid]: item for items in work.values() for item in items}
    outcomes = {name: TaskOutcome() for name in drains}
    ways = {name: list(item.ways) for name, item in drains.items()}
    for kind in WAYS:
        step = {name: left.pop(0) for name, left in ways.items() if left and left[0].kind == kind}
        if settings.mark:
            outcomes |= _mark(client, {name: (drains[name].guest, _MARKS[kind]) for name in step}, settings.run, bounds)
            step = {name: way for name, way in step.items() if outcomes[name].ok}
        done = _go(client, kind, step, {name: drains[name].guest.moid for name in step}, targets, settings, bounds)
        outcomes |= done
        for name, outcome in done.items():
            if outcome.ok or may_go_on(outcome):
                ways[name].clear()
        if kind == "suspend" and settings.mark:
            ended = {name: (drains[name].guest, SUSPENDED) for name in done if outcomes[name].ok}
            outcomes |= _mark(client, ended, settings.run, bounds)
    return {
        host: {shown[item.guest.moid]: outcomes[shown[item.guest.moid]] for item in items}
        for host, items in work.items()
    }


def _shown(machines: t.Iterable[tuple[str, str]]) -> dict[str, str]:
    """Names by id, with the id where several machines have one name."""
    names = dict(machines)
    counts = collections.Counter(names.values())
    return {key: name if counts[name] == 1 else f"{name} ({key})" for key, name in names.items()}


def _go(
    client: Client,
    kind: str,
    step: t.Mapping[str, Way],
    moids: t.Mapping[str, str],
    targets: t.Mapping[str, str],
    settings: DrainSettings,
    bounds: Bounds,
) -> dict[str, TaskOutcome]:
    """One way for all machines that go it."""
    if not step:
        return {}
    if kind == "migrate":
        return relocate(client, moids, {name: targets[str(way.target)] for name, way in step.items()}, bounds)
    if kind == "suspend":
        return suspend(client, moids, bounds)
    return power_off(client, moids, bounds, force=settings.force, guest_timeout=settings.guest_timeout)


def relocate(
    client: Client, moids: t.Mapping[str, str], hosts: t.Mapping[str, str], bounds: Bounds
) -> dict[str, TaskOutcome]:
    """Move each machine to the host with the id in `hosts`; one that is there already, or on its way, is no failure."""

    def starter(name: str) -> t.Callable[[], t.Any]:
        vm = client.ref(vim.VirtualMachine, moids[name])
        spec = vim.vm.RelocateSpec(host=client.ref(vim.HostSystem, hosts[name]))
        return lambda: vm.RelocateVM_Task(spec, "defaultPriority")

    return _run(
        client,
        moids,
        {name: starter(name) for name in moids},
        "migrate it",
        "runtime.host",
        {name: hosts[name] for name in moids},
        bounds,
    )


def suspend(client: Client, moids: t.Mapping[str, str], bounds: Bounds) -> dict[str, TaskOutcome]:
    """Suspend machines; one that is suspended already, or about to be, is no failure."""
    starters = {name: client.ref(vim.VirtualMachine, vm).SuspendVM_Task for name, vm in moids.items()}
    wanted = dict.fromkeys(moids, "suspended")
    return _run(client, moids, starters, "suspend it", "runtime.powerState", wanted, bounds)


def _run(
    client: Client,
    moids: t.Mapping[str, str],
    starters: t.Mapping[str, t.Callable[[], t.Any]],
    doing: str,
    path: str,
    wanted: t.Mapping[str, str],
    bounds: Bounds,
) -> dict[str, TaskOutcome]:
    """Run tasks; where one fails, another's task, such as that of a killed run, may have done it meanwhile."""
    if not moids:
        return {}
    outcomes = run_tasks(client, starters, timeout=bounds.left, max_parallel=bounds.max_parallel, doing=doing)
    refused = {name: moids[name] for name, outcome in outcomes.items() if not outcome.ok and not may_go_on(outcome)}
    if not refused:
        return outcomes
    wait_for_tasks(client, refused, bounds)
    refs = [client.ref(vim.VirtualMachine, vm) for vm in refused.values()]
    rows = retrieve(client, lambda: [start(ref) for ref in refs], [paths(vim.VirtualMachine, path)])
    values = {row.moid: row.props.get(path) for row in rows}
    return outcomes | {name: TaskOutcome() for name, vm in refused.items() if _plain(values.get(vm)) == wanted[name]}


def _plain(value: t.Any) -> str:
    return str(moid(value)) if hasattr(value, "_moId") else str(value)


def _mark(
    client: Client, guests: t.Mapping[str, tuple[Guest, str]], run: str, bounds: Bounds
) -> dict[str, TaskOutcome]:
    """Write the intents of machines with the vCenter's time."""
    if not guests:
        return {}
    started = vcenter_time(client)
    marks = {}
    for name, (guest, action) in guests.items():
        before = guest.intent
        # A machine that was migrated here from a host that is not back yet still belongs there.
        origin = before.host if action == MOVED and before is not None and before.action == MOVED else guest.host
        marks[name] = (client.ref(vim.VirtualMachine, guest.moid), Intent(run, action, started, host=origin))
    return write_intents(client, marks, max_parallel=bounds.max_parallel)


def restore(
    client: Client, work: t.Mapping[str, t.Sequence[Restore]], hosts: t.Mapping[str, str], bounds: Bounds
) -> dict[str, dict[str, TaskOutcome]]:
    """Bring machines back to their hosts, whose ids are in `hosts`, and clear their marks; by host and machine."""
    shown = _shown((item.drained.moid, item.drained.vm) for found in work.values() for item in found)
    items = {shown[item.drained.moid]: (host, item) for host, found in work.items() for item in found}
    moids = {name: item.drained.moid for name, (_host, item) in items.items()}
    outcomes = {name: TaskOutcome() for name in items}
    back = {name: hosts[host] for name, (host, item) in items.items() if item.kind == "migrate"}
    outcomes |= relocate(client, {name: moids[name] for name in back}, back, bounds)
    up = {name: moids[name] for name, (_host, item) in items.items() if item.kind == "power on"}
    outcomes |= power_on(client, up, bounds)
    clear = {name: (client.ref(vim.VirtualMachine, moids[name]), None) for name in items if outcomes[name].ok}
    outcomes |= write_intents(client, clear, max_parallel=bounds.max_parallel)
    by_host: dict[str, dict[str, TaskOutcome]] = {host: {} for host in work}
    for name, (host, _item) in items.items():
        by_host[host][name] = outcomes[name]
    return by_host
