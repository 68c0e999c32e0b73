"""Hosts and clusters that come and go: create, add, move, remove."""

from __future__ import annotations

import hashlib
import typing as t

from vsphere_simulator.vmomi import make, vim, vmodl
from vsphere_simulator.world import cluster_config
from vsphere_simulator.world.entity import check_name, invalid_argument, invalid_state

if t.TYPE_CHECKING:
    from vsphere_simulator.kernel.objects import Context
    from vsphere_simulator.kernel.tasks import TaskControl
    from vsphere_simulator.world.compute import Cluster, Compute
    from vsphere_simulator.world.folders import Folder
    from vsphere_simulator.world.host import HostSystem
    from vsphere_simulator.world.load import Usage
    from vsphere_simulator.world.pools import ResourcePool

MIB: t.Final = 1024 * 1024
ADD_SECONDS: t.Final = 30
"""Simulated seconds that a vCenter takes to install its agent on a host."""
MOVE_SECONDS: t.Final = 5


def thumbprint(hardware_id: str) -> str:
    """The SHA-1 thumbprint of a host's certificate, as AA:BB:…"""
    digest = hashlib.sha1(f"certificate of {hardware_id}".encode(), usedforsecurity=False).hexdigest().upper()
    return ":".join(digest[index : index + 2] for index in range(0, len(digest), 2))


def _cpu(cluster: Cluster) -> list[Usage]:
    """What each running machine asks for and gets now."""
    return [cluster.site.load.now(vm) for host in cluster.hosts.values() for vm in host.running]


def usage(cluster: Cluster) -> t.Any:
    """ClusterUsageSummary: what is there, and what machines have reserved of it."""
    machines = [vm for host in cluster.hosts.values() for vm in host.machines.values() if not vm.template]
    off = [vm for vm in machines if not vm.is_on]
    return make(
        vim.cluster.UsageSummary,
        totalCpuCapacityMhz=cluster.capacity("cpuAllocation"),
        totalMemCapacityMB=cluster.capacity("memoryAllocation"),
        cpuReservationMhz=cluster.pool.used("cpuAllocation"),
        memReservationMB=cluster.pool.used("memoryAllocation"),
        poweredOffCpuReservationMhz=0,
        poweredOffMemReservationMB=sum(vm.reserved_memory_mb for vm in off),
        cpuDemandMhz=round(sum(one.demand for one in _cpu(cluster))),
        memDemandMB=sum(vm.memory_mb for vm in machines if vm.is_on),
        statsGenNumber=0,
        cpuEntitledMhz=round(sum(one.used for one in _cpu(cluster))),
        memEntitledMB=sum(vm.memory_mb for vm in machines if vm.is_on),
        poweredOffVmCount=len(off),
        totalVmCount=len(machines),
    )


def resource_usage(cluster: Cluster) -> t.Any:
    """ClusterResourceUsageSummary: what is used now of what there is."""
    running = [vm for host in cluster.hosts.values() for vm in host.running]
    stores = {store.moid: store for host in cluster.hosts.values() for store in host.datastores}.values()
    capacity = sum(store.capacity for store in stores)
    return make(
        vim.cluster.ResourceUsageSummary,
        cpuUsedMHz=round(sum(one.used for one in _cpu(cluster))),
        cpuCapacityMHz=cluster.capacity("cpuAllocation"),
        memUsedMB=sum(vm.memory_mb for vm in running),
        memCapacityMB=cluster.capacity("memoryAllocation"),
        storageUsedMB=(capacity - sum(store.free for store in stores)) // MIB,
        storageCapacityMB=capacity // MIB,
    )


def create_cluster(folder: Folder, name: str, spec: t.Any) -> Cluster:
    """Make a cluster in a host folder; DRS and HA are off unless the specification says otherwise."""
    from vsphere_simulator.world.build import furnish
    from vsphere_simulator.world.compute import Cluster, DrsSettings

    if folder.kind != "host":
        raise vmodl.fault.NotSupported(msg="The operation is not supported on the object.")
    check_name(name)
    folder.check_free(name)
    cluster_config.check(spec)
    cluster = Cluster(folder.site, name, folder)
    cluster.drs = DrsSettings(enabled=False, automation="fullyAutomated")
    furnish(cluster)
    try:
        cluster_config.apply(cluster, spec, modify=True)
    except vmodl.MethodFault:
        _dismantle(cluster)
        raise
    folder.world.add(cluster)
    folder.put(cluster)
    return cluster


def _dismantle(compute: Compute) -> None:
    """Remove a compute resource that has no host (any more)."""
    world = compute.world
    compute.pool.destroy_children()
    for part in (compute.pool, compute.environment, compute):
        world.remove(part)


# --- where hosts are ---


def attach(host: HostSystem, compute: Compute, pool: ResourcePool | None = None) -> None:
    """Make a host part of a compute resource, its machines part of one of the resource's pools."""
    host.parent = compute
    compute.hosts[host.moid] = host
    for vm in host.machines.values():
        if vm.pool is not None:
            vm.enter_pool(pool or compute.pool)
    _told(compute)
    host.world.changed(host, "parent")


def _detach(host: HostSystem) -> None:
    """Take a host out of its compute resource; a standalone host's resource is gone with it."""
    from vsphere_simulator.world.compute import Standalone

    compute: Compute = host.cluster
    compute.hosts.pop(host.moid, None)
    for agent in [vm for vm in host.machines.values() if vm.is_agent]:
        others = [other for other in compute.hosts.values() if other.answers]
        if others:
            agent.move_to(min(others, key=lambda other: (len(other.machines), other.name)))
        else:
            agent.stop()
            agent.vanish()
    if not isinstance(compute, Standalone):
        _told(compute)


def _told(compute: Compute) -> None:
    compute.world.changed(compute, "host", "summary", "datastore", "network", "configurationEx")
    compute.world.changed(compute.pool, "vm", "runtime", "summary", "config")


def _leave_standalone(compute: Compute, pool: ResourcePool) -> None:
    """Move what is in a standalone host's pools to another pool, and remove the compute resource."""
    compute.pool.destroy_children()
    for vm in list(compute.pool.machines.values()):
        vm.enter_pool(pool)
    t.cast("Folder", compute.parent).take(compute)
    _dismantle(compute)


def _require_movable(host: HostSystem) -> None:
    """Raise InvalidState for a member of a cluster that is in use: it must be in maintenance mode, or disconnected."""
    from vsphere_simulator.world.compute import Cluster

    if isinstance(host.cluster, Cluster) and not host.in_maintenance and host.connection != "disconnected":
        raise invalid_state(f"Host {host.name} must be in maintenance mode to leave cluster {host.cluster.name}.")


def move_into(ctx: Context, cluster: Cluster, hosts: list[HostSystem], pool: ResourcePool | None) -> t.Any:
    """Start the task. Hosts of other clusters must be in maintenance mode; `pool` is one of this cluster's."""
    for host in hosts:
        ctx.world.authorization.require(ctx.session, host, "Host.Inventory.MoveHost")
    if pool is not None and pool.owner is not cluster:
        raise invalid_argument("resourcePool")

    async def body(control: TaskControl) -> None:
        for host in hosts:
            if host.cluster is cluster:
                raise invalid_argument("host", f"Host {host.name} is in cluster {cluster.name} already.")
            _require_movable(host)
        await control.work(MOVE_SECONDS, steps=2)
        for host in hosts:
            _require_movable(host)
            move(host, cluster, pool)

    return ctx.world.start_task(cluster, "ClusterComputeResource.moveInto", body, ctx.session)


def move(host: HostSystem, target: Compute, pool: ResourcePool | None = None) -> None:
    """Move a host at once; whether it may move is the caller's affair."""
    from vsphere_simulator.world.compute import Standalone

    old: Compute = host.cluster
    _detach(host)
    attach(host, target, pool)
    if isinstance(old, Standalone):
        _leave_standalone(old, target.pool)


def standalone_for(folder: Folder, host: HostSystem) -> Compute:
    """A compute resource for one host, in a host folder. Raises DuplicateName."""
    from vsphere_simulator.world.build import furnish
    from vsphere_simulator.world.compute import Standalone

    folder.check_free(host.name)
    compute = Standalone(folder.site, host.name, folder)
    furnish(compute)
    folder.world.add(compute)
    folder.put(compute)
    return compute


def move_to_folder(host: HostSystem, folder: Folder) -> None:
    """Make a cluster's host stand alone in a folder; a host that does already moves with its compute resource."""
    from vsphere_simulator.world.compute import Standalone

    if isinstance(host.cluster, Standalone):
        if host.cluster.parent is not folder:
            folder.check_free(host.name)
            folder.put(host.cluster)
        return
    _require_movable(host)
    move(host, standalone_for(folder, host))


# --- what the vCenter knows ---


def check_login(host: HostSystem, spec: t.Any) -> None:
    """Raise the fault of a HostConnectSpec that does not let a vCenter log in to a host.

    Its thumbprint must be the host's (SSLVerifyFault) unless it says `force`; its user is root, with some password.
    """
    expected = thumbprint(host.hardware_id)
    if not spec.force and spec.sslThumbprint is not None and spec.sslThumbprint.upper() != expected:
        raise _unverified(host, expected)
    if spec.userName != "root" or not spec.password:
        raise vim.fault.InvalidLogin(msg="Cannot complete login due to an incorrect user name or password.")


def _unverified(host: HostSystem, expected: str) -> Exception:
    return t.cast(
        "Exception",
        vim.fault.SSLVerifyFault(
            selfSigned=True,
            thumbprint=expected,
            msg=f"Authenticity of the host's SSL certificate is not verified: {host.name}.",
        ),
    )


def _known_host(ctx: Context, spec: t.Any) -> HostSystem:
    """The host that a HostConnectSpec means. Raises the fault that says why it cannot be added."""
    from vsphere_simulator.world.host import HostSystem

    name = spec.hostName or ""
    bare = t.cast("Folder", ctx.world.root).site.bare
    if name not in bare:
        if any(isinstance(obj, HostSystem) and obj.name == name for obj in ctx.world.objects.values()):
            raise vim.fault.AlreadyConnected(name=name, msg=f"The host {name} is already managed by this vCenter.")
        raise vim.fault.NoHost(name=name, msg=f"Unable to contact the specified host ({name}).")
    host: HostSystem = bare[name]
    if not spec.force and spec.sslThumbprint is None:
        raise _unverified(host, thumbprint(host.hardware_id))
    check_login(host, spec)
    return host


def _add(bare: HostSystem, compute: Compute, pool: ResourcePool | None, *, connected: bool) -> HostSystem:
    """Register a host that the vCenter did not know, as it left its last inventory."""
    from vsphere_simulator.world.build import furnish_host
    from vsphere_simulator.world.host import HostSystem
    from vsphere_simulator.world.storage import Datastore, Network

    host = HostSystem(compute.site, bare.name, compute, bare.make)
    furnish_host(host)
    host.take_over(bare)
    world = compute.world
    host.datastores = [obj for obj in world.objects.values() if isinstance(obj, Datastore)]
    host.networks = [obj for obj in world.objects.values() if isinstance(obj, Network)]
    host.connection = "connected" if connected else "disconnected"
    world.add(host)
    for resource in (*host.datastores, *host.networks):
        resource.hosts[host.moid] = host
        world.changed(resource, "host")
    attach(host, compute, pool)
    del compute.site.bare[bare.name]
    return host


def add_host(ctx: Context, cluster: Cluster, spec: t.Any, *, connected: bool, pool: ResourcePool | None) -> t.Any:
    """Start the task; its result is the host."""

    async def body(control: TaskControl) -> HostSystem:
        _known_host(ctx, spec)
        await control.work(ADD_SECONDS)
        return _add(_known_host(ctx, spec), cluster, pool, connected=connected)

    return ctx.world.start_task(cluster, "ClusterComputeResource.addHost", body, ctx.session)


def add_standalone(ctx: Context, folder: Folder, spec: t.Any, *, connected: bool) -> t.Any:
    """Start the task; its result is the compute resource that the host is."""
    if folder.kind != "host":
        raise vmodl.fault.NotSupported(msg="The operation is not supported on the object.")

    async def body(control: TaskControl) -> Compute:
        folder.check_free(_known_host(ctx, spec).name)
        await control.work(ADD_SECONDS)
        bare = _known_host(ctx, spec)
        compute = standalone_for(folder, bare)
        _add(bare, compute, None, connected=connected)
        return compute

    return ctx.world.start_task(folder, "Folder.addStandaloneHost", body, ctx.session)


def _forget(host: HostSystem) -> None:
    """Remove a host and its machines from the inventory; the machine room still has it."""
    world = host.world
    _detach(host)
    for vm in list(host.machines.values()):
        if vm.is_on:
            vm.stop()
        vm.vanish()
    for resource in (*host.datastores, *host.networks):
        resource.hosts.pop(host.moid, None)
        world.changed(resource, "host")
    for manager in host.managers.values():
        world.remove(manager)
    world.remove(host)
    host.site.bare[host.name] = host


def remove_host(ctx: Context, host: HostSystem) -> t.Any:
    """Start the task that removes a host from the inventory."""
    from vsphere_simulator.world.compute import Standalone

    ctx.world.authorization.require(ctx.session, host, "Host.Inventory.RemoveHostFromCluster")

    async def body(control: TaskControl) -> None:
        _require_movable(host)
        await control.work(MOVE_SECONDS, steps=1)
        _require_movable(host)
        compute = host.cluster
        _forget(host)
        if isinstance(compute, Standalone):
            t.cast("Folder", compute.parent).take(compute)
            _dismantle(compute)

    return ctx.world.start_task(host, "HostSystem.destroy", body, ctx.session)


def destroy(ctx: Context, cluster: Cluster) -> t.Any:
    """Start the task; its hosts go with it, and must not be in use."""
    ctx.world.authorization.require(ctx.session, cluster, "Host.Inventory.DeleteCluster")

    def check() -> None:
        for host in cluster.hosts.values():
            _require_movable(host)

    async def body(control: TaskControl) -> None:
        check()
        await control.work(MOVE_SECONDS, steps=1)
        check()
        for host in list(cluster.hosts.values()):
            _forget(host)
        t.cast("Folder", cluster.parent).take(cluster)
        _dismantle(cluster)

    return ctx.world.start_task(cluster, "ClusterComputeResource.destroy", body, ctx.session)
