"""Machines that come and go: create, clone, delete."""

from __future__ import annotations

import typing as t

from vsphere_simulator.vmomi import vim, vmodl
from vsphere_simulator.world import devices as dev
from vsphere_simulator.world import lifecycle, reconfigure
from vsphere_simulator.world.entity import check_name, invalid_argument, invalid_state
from vsphere_simulator.world.vm_config import VmConfig

if t.TYPE_CHECKING:
    from vsphere_simulator.kernel.objects import Context
    from vsphere_simulator.kernel.tasks import TaskControl
    from vsphere_simulator.world.folders import Folder
    from vsphere_simulator.world.host import HostSystem
    from vsphere_simulator.world.pools import ResourcePool
    from vsphere_simulator.world.site import Site
    from vsphere_simulator.world.snapshots import Snapshot
    from vsphere_simulator.world.storage import Datastore
    from vsphere_simulator.world.virtual_machine import VirtualMachine


def new_config(site: Site, moid: str, **fields: t.Any) -> VmConfig:
    """The configuration of a machine that is being made."""
    now = site.world.clock.now().isoformat(timespec="microseconds")
    return VmConfig(
        uuid=site.uuid_of(f"bios/{moid}"),
        instance_uuid=site.uuid_of(f"instance/{moid}"),
        change_version=now.replace("+00:00", "Z"),
        created=now,
        **fields,
    )


def host_for(pool: ResourcePool, preferred: HostSystem | None = None) -> HostSystem:
    """A host of the pool's cluster that can take a machine: the preferred one, else the emptiest."""
    able = [h for h in pool.owner.hosts.values() if h.answers and not h.in_maintenance and not h.entering_maintenance]
    if preferred is not None and preferred in able:
        return preferred
    if not able:
        raise vim.fault.NoActiveHostInCluster(
            computeResource=pool.owner.ref, msg=f"There is no active host in cluster {pool.owner.name}."
        )
    return min(able, key=lambda host: (len(host.machines), host.name))


def clone(ctx: Context, source: VirtualMachine, folder: Folder, name: str, spec: t.Any) -> t.Any:
    """Check privileges, then start the task. The new name is taken from the task's first moment."""
    require = ctx.world.authorization.require
    location = spec.location
    pool: ResourcePool | None = ctx.world.get(location.pool) if location.pool is not None else source.pool
    if source.template:
        require(
            ctx.session, source, f"VirtualMachine.Provisioning.{'CloneTemplate' if spec.template else 'DeployTemplate'}"
        )
    else:
        require(ctx.session, source, "VirtualMachine.Provisioning.Clone")
    require(ctx.session, folder, "VirtualMachine.Inventory.CreateFromExisting")
    store: Datastore = ctx.world.get(location.datastore) if location.datastore is not None else source.datastore
    require(ctx.session, store, "Datastore.AllocateSpace")
    if pool is not None and not spec.template:
        require(ctx.session, pool, "Resource.AssignVMToPool")
    if spec.powerOn:
        require(ctx.session, source, "VirtualMachine.Interact.PowerOn")
    host: HostSystem | None = ctx.world.get(location.host) if location.host is not None else None

    snapshot: Snapshot | None = ctx.world.get(spec.snapshot) if spec.snapshot is not None else None
    if snapshot is not None and snapshot.parent is not source:
        raise invalid_argument("spec.snapshot")

    async def body(control: TaskControl) -> VirtualMachine:
        if spec.customization is not None:
            raise vmodl.fault.NotSupported(msg="The simulator clones without customization.")
        origin = snapshot.config if snapshot is not None else None
        if folder.kind != "vm":
            raise invalid_argument("folder")
        check_name(name)
        folder.check_free(name)
        if pool is None and not spec.template:
            raise invalid_argument("spec.location.pool")
        source.host.require_connected()
        target = _target(source, pool, host)
        folder.reserved.add(name)
        try:
            await control.work(source.site.timings.clone, steps=10)
            source.host.require_connected()
            target.require_connected()
        finally:
            folder.reserved.discard(name)
        machine = copy_of_machine(source, name, target, store, template=spec.template, origin=origin)
        machine.world.add(machine)
        machine.register(folder, pool)
        try:
            if location.deviceChange or spec.config is not None:
                _configure(machine, location, spec.config)
        except vmodl.MethodFault:
            machine.vanish()
            raise
        return machine

    async def clone_and_start(control: TaskControl) -> VirtualMachine:
        machine = await body(control)
        if spec.powerOn and not spec.template:
            lifecycle.power_on(ctx, machine, None)
        return machine

    return ctx.world.start_task(source, "VirtualMachine.clone", clone_and_start, ctx.session)


def _target(source: VirtualMachine, pool: ResourcePool | None, host: HostSystem | None) -> HostSystem:
    if host is not None:
        host.require_connected()
        if host.in_maintenance:
            raise invalid_state(f"Host {host.name} is in maintenance mode.")
        if pool is not None and host.cluster is not pool.owner:
            raise invalid_argument(
                "spec.location.host", "The host does not belong to the cluster of the resource pool."
            )
        return host
    return source.host if pool is None else host_for(pool, source.host)


def copy_of_machine(
    source: VirtualMachine,
    name: str,
    host: HostSystem,
    store: Datastore,
    *,
    template: bool = False,
    origin: VmConfig | None = None,
) -> VirtualMachine:
    """A machine like another (as it is, or as a snapshot has it) with an identity of its own; not in the world yet."""
    site = source.site
    moid = site.new_id("vm-")
    identity = new_config(site, moid)
    config = (origin or source.config).copy()
    config.uuid, config.instance_uuid = identity.uuid, identity.instance_uuid
    config.change_version, config.created = identity.change_version, identity.created
    config.settings.pop("managedBy", None)
    machine = type(source)(site, name, host, store, config, template=template, moid=moid)
    machine.network = source.network if source.network in host.networks else machine.network
    machine.recipe, machine.demand = source.recipe, source.demand
    if config.blueprint is None:
        config.devices = dev.linked(_copied(device, machine, store) for device in config.devices or ())
    else:
        config.devices = None
    return machine


def _copied(device: t.Any, machine: VirtualMachine, store: Datastore) -> t.Any:
    """A device of the clone: disks have files of their own, adapters an address of their own."""
    if isinstance(device, vim.vm.device.VirtualDisk):
        suffix = f"_{device.unitNumber}" if device.unitNumber else ""
        file_name = f"[{store.name}] {machine.directory}/{machine.directory}{suffix}.vmdk"
        return dev.copy_of(device, backing=dev.copy_of(device.backing, fileName=file_name, datastore=store.ref))
    if isinstance(device, vim.vm.device.VirtualEthernetCard) and device.addressType != "manual":
        return dev.copy_of(device, macAddress=dev.mac_address(machine.moid, device.key))
    return device


def _configure(machine: VirtualMachine, location: t.Any, spec: t.Any) -> None:
    for change in (vim.vm.ConfigSpec(deviceChange=location.deviceChange) if location.deviceChange else None, spec):
        if change is not None:
            reconfigure.adopt(machine, reconfigure.planned(machine, change))


def create_vm(ctx: Context, folder: Folder, spec: t.Any, pool: ResourcePool, host: HostSystem | None) -> t.Any:
    """Check the privileges on the pool, then start the task. `spec.files` says the datastore, as `[name]`."""
    ctx.world.authorization.require(ctx.session, pool, "Resource.AssignVMToPool")

    async def body(control: TaskControl) -> VirtualMachine:
        if folder.kind != "vm":
            raise vmodl.fault.NotSupported(msg="The operation is not supported on the object.")
        name = spec.name or ""
        check_name(name)
        folder.check_free(name)
        target = host or host_for(pool)
        target.require_connected()
        store = _datastore_of(spec, target)
        folder.reserved.add(name)
        try:
            await control.work(folder.site.timings.create, steps=2)
        finally:
            folder.reserved.discard(name)
        machine = empty_machine(target, store, spec, folder.site.new_id("vm-"))
        machine.world.add(machine)
        machine.register(folder, pool)
        try:
            plain = dev.copy_of(spec, name=None, version=None, files=None)
            reconfigure.adopt(machine, reconfigure.planned(machine, plain))
        except vmodl.MethodFault:
            machine.vanish()
            raise
        return machine

    return ctx.world.start_task(folder, "Folder.createVm", body, ctx.session)


def _datastore_of(spec: t.Any, host: HostSystem) -> Datastore:
    path = spec.files.vmPathName if spec.files is not None else ""
    name = str(path or "").removeprefix("[").partition("]")[0]
    found = next((store for store in host.datastores if store.name == name), None)
    if found is None:
        raise vim.fault.InvalidDatastorePath(
            name=name, datastorePath=str(path or ""), msg=f"The datastore path '{path or ''}' is not valid."
        )
    return found


def empty_machine(host: HostSystem, store: Datastore, spec: t.Any, moid: str) -> VirtualMachine:
    """A machine with the devices that every machine has, and no disk or adapter yet; nobody knows it so far."""
    from vsphere_simulator.world.virtual_machine import VirtualMachine

    site = host.site
    version = str(spec.version or "vmx-20").removeprefix("vmx-")
    if not version.isdigit() or int(version) not in reconfigure.HARDWARE_VERSIONS:
        raise invalid_argument("config.version")
    config = new_config(site, moid, hardware_version=int(version))
    machine = VirtualMachine(site, spec.name or "", host, store, config, moid=moid)
    removed = (vim.vm.device.VirtualSCSIController, vim.vm.device.VirtualSATAController, vim.vm.device.VirtualCdrom)
    config.devices = dev.linked(d for d in dev.ordinary_devices(0, False) if not isinstance(d, removed))
    return machine


def destroy(ctx: Context, vm: VirtualMachine) -> t.Any:
    """Start the task; InvalidPowerState unless the machine is off."""

    async def body(control: TaskControl) -> None:
        async with vm.lock:
            vm.check_can_go()
            await control.work(vm.site.timings.destroy, steps=1)
            vm.check_can_go()
            vm.vanish()
            await vm.guest_settled()

    return ctx.world.start_task(vm, "VirtualMachine.destroy", body, ctx.session)
