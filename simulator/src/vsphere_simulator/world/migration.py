"""Moving virtual machines between hosts and datastores: cold, while suspended, and by vMotion."""

from __future__ import annotations

import typing as t

from vsphere_simulator.vmomi import vim, vmodl
from vsphere_simulator.world import admission, lifecycle
from vsphere_simulator.world import devices as dev
from vsphere_simulator.world.entity import invalid_argument

if t.TYPE_CHECKING:
    from vsphere_simulator.kernel.objects import Context
    from vsphere_simulator.kernel.tasks import TaskControl
    from vsphere_simulator.world.folders import Folder
    from vsphere_simulator.world.host import HostSystem
    from vsphere_simulator.world.pools import ResourcePool
    from vsphere_simulator.world.storage import Datastore
    from vsphere_simulator.world.virtual_machine import VirtualMachine

HOT_MIGRATE: t.Final = "vgpu.hotmigrate.enabled"
"""vCenter setting without which no machine with a vGPU moves while it runs."""
_RELOCATE_FIELDS = frozenset({"host", "pool", "datastore", "folder", "diskMoveType"})


def relocate(ctx: Context, vm: VirtualMachine, spec: t.Any) -> t.Any:
    """Check privileges, then start the task: another host, pool, datastore or folder, whichever is given."""
    unknown = sorted(dev.given(spec).keys() - _RELOCATE_FIELDS)
    if unknown:
        raise vmodl.fault.NotSupported(msg=f"The operation is not supported: relocateSpec.{unknown[0]}")
    host: HostSystem | None = ctx.world.get(spec.host) if spec.host is not None else None
    pool: ResourcePool | None = ctx.world.get(spec.pool) if spec.pool is not None else None
    store: Datastore | None = ctx.world.get(spec.datastore) if spec.datastore is not None else None
    folder: Folder | None = ctx.world.get(spec.folder) if spec.folder is not None else None
    _require_privileges(ctx, vm, pool, store)
    if folder is not None:
        ctx.world.authorization.require(ctx.session, folder, "VirtualMachine.Inventory.Move")

    async def body(control: TaskControl) -> None:
        async with vm.lock:
            if folder is not None and folder is not vm.parent:
                folder.check_free(vm.name)
            await move(control, vm, host, pool, store)
            if folder is not None:
                folder.put(vm)

    return ctx.world.start_task(vm, "VirtualMachine.relocate", body, ctx.session)


def migrate(
    ctx: Context, vm: VirtualMachine, pool: ResourcePool | None, host: HostSystem | None, state: str | None
) -> t.Any:
    """Check privileges, then start the task; `state` is the power state the machine must be in."""
    _require_privileges(ctx, vm, pool, None)

    async def body(control: TaskControl) -> None:
        async with vm.lock:
            if state is not None:
                vm.require_power(str(state))
            await move(control, vm, host, pool, None)

    return ctx.world.start_task(vm, "VirtualMachine.migrate", body, ctx.session)


def _require_privileges(ctx: Context, vm: VirtualMachine, pool: ResourcePool | None, store: Datastore | None) -> None:
    require = ctx.world.authorization.require
    require(ctx.session, vm, "Resource.HotMigrate" if vm.is_on else "Resource.ColdMigrate")
    if pool is not None:
        require(ctx.session, pool, "Resource.AssignVMToPool")
    if store is not None:
        require(ctx.session, store, "Datastore.AllocateSpace")


async def move(
    control: TaskControl,
    vm: VirtualMachine,
    host: HostSystem | None,
    pool: ResourcePool | None,
    store: Datastore | None,
) -> None:
    """Move a machine whose lock the caller holds. Raises the fault of the first thing that stands in the way."""
    target = _target(vm, host, pool)
    vm.host.require_connected()
    target.require_connected()
    if vm.template and pool is not None:
        raise vmodl.fault.NotSupported(msg="The operation is not supported on the object.")
    if store is not None and store not in target.datastores:
        raise invalid_argument("spec.datastore")
    if vm.is_on and (target is not vm.host or store is not None):
        await _vmotion(control, vm, target)
    else:
        if target is not vm.host:
            if target.in_maintenance:
                target.require_open_for_work()
            if vm.power == "suspended":
                lifecycle.check_resume(vm, target)
        await control.work(vm.site.timings.migrate)
        target.require_connected()
        vm.move_to(target)
    if pool is not None:
        vm.enter_pool(pool)
    if store is not None:
        _to_datastore(vm, store)


def _target(vm: VirtualMachine, host: HostSystem | None, pool: ResourcePool | None) -> HostSystem:
    if host is None and (pool is None or pool.owner is vm.host.cluster):
        return vm.host
    if host is None:
        raise invalid_argument("spec.host", "A host must be given to move to the pool of another cluster.")
    if pool is not None and pool.owner is not host.cluster:
        raise invalid_argument("spec.pool", "The pool does not belong to the cluster of the host.")
    if pool is None and host.cluster is not vm.host.cluster and not vm.template:
        raise invalid_argument("spec.pool", "A resource pool must be given to move to another cluster.")
    return host


async def _vmotion(control: TaskControl, vm: VirtualMachine, target: HostSystem) -> None:
    """Move a running machine: its place on the target is held from the start."""
    check_vmotion(vm, target)
    grant = admission.admit(vm, target) if target is not vm.host else admission.Grant({}, dict(vm.vgpus))
    target.arriving[vm.moid] = (vm, grant)
    try:
        await control.work(vm.site.timings.migrate)
        vm.host.require_connected()
        target.require_connected()
        vm.require_power("poweredOn")
    finally:
        del target.arriving[vm.moid]
    source = vm.host
    vm.move_to(target)
    vm.vgpus = grant.vgpus
    if grant.vgpus:
        source.graphics.changed()
        target.graphics.changed()


def check_vmotion(vm: VirtualMachine, target: HostSystem) -> None:
    """Raise the fault for a running machine that cannot move to a host (room is another matter)."""
    for device in vm.devices:
        if dev.is_fixed(device) or dev.is_dynamic(device):
            label = device.deviceInfo.label
            raise vim.fault.DisallowedMigrationDeviceAttached(
                fault=vim.fault.DeviceNotSupported(
                    device=label, reason="pciPassthrough", msg=f"The PCI passthrough device {label} cannot be migrated."
                ),
                msg=f"The virtual machine has the PCI passthrough device {label}: it cannot move while it is on.",
            )
    if any(dev.is_vgpu(device) for device in vm.devices):
        _check_vgpu(vm, target)
    target.require_open_for_work()


def _check_vgpu(vm: VirtualMachine, target: HostSystem) -> None:
    if not vm.site.flag(HOT_MIGRATE):
        raise vim.fault.MigrationFeatureNotSupported(
            atSourceHost=True,
            failedHostName=vm.host.name,
            failedHost=vm.host.ref,
            msg=f"A required migration feature is not supported on the source host {vm.host.name}: "
            f"vGPU hot migration is not enabled ({HOT_MIGRATE}).",
        )
    offered = set(target.graphics.type_names())
    wanted = [device.backing.vgpu for device in vm.devices if dev.is_vgpu(device)]
    same_driver = vm.host.graphics.running_manager == target.graphics.running_manager
    if not offered.issuperset(wanted) or not same_driver:
        why = f"it does not offer {wanted[0]}" if same_driver else "its vGPU manager is of another version"
        raise vim.fault.MigrationFeatureNotSupported(
            atSourceHost=False,
            failedHostName=target.name,
            failedHost=target.ref,
            msg=f"A required migration feature is not supported on the destination host {target.name}: {why}.",
        )


def _to_datastore(vm: VirtualMachine, store: Datastore) -> None:
    """The machine's files, disks included, are on another datastore."""
    config = vm.config.copy()
    if config.blueprint is not None:
        config.devices = None
    else:
        config.devices = tuple(_on_datastore(device, store) for device in vm.devices)
    vm.datastore = store
    vm.config = config
    vm.resources_changed()
    vm.world.changed(vm, "config", "datastore", "summary.config", "layoutEx", "storage")


def _on_datastore(device: t.Any, store: Datastore) -> t.Any:
    if not isinstance(device, vim.vm.device.VirtualDisk):
        return device
    path = str(device.backing.fileName).partition("] ")[2]
    backing = dev.copy_of(device.backing, fileName=f"[{store.name}] {path}", datastore=store.ref)
    return dev.copy_of(device, backing=backing)
