"""InstantClone_Task: a running machine that shares memory and disks with the one it comes from."""

from __future__ import annotations

import typing as t

from vsphere_simulator.vmomi import vim, vmodl
from vsphere_simulator.world import devices as dev
from vsphere_simulator.world import lifecycle, provisioning, reconfigure
from vsphere_simulator.world.entity import check_name, invalid_argument

if t.TYPE_CHECKING:
    from vsphere_simulator.kernel.objects import Context
    from vsphere_simulator.kernel.tasks import TaskControl
    from vsphere_simulator.world.folders import Folder
    from vsphere_simulator.world.pools import ResourcePool
    from vsphere_simulator.world.storage import Datastore
    from vsphere_simulator.world.virtual_machine import VirtualMachine

_LOCATION: t.Final = frozenset({"folder", "pool", "datastore", "host", "deviceChange"})


def start(ctx: Context, source: VirtualMachine, spec: t.Any) -> t.Any:
    """Check privileges, then start the task; its result is the new machine, which runs on the source's host."""
    location = spec.location
    unknown = sorted(dev.given(location).keys() - _LOCATION)
    if unknown:
        raise vmodl.fault.NotSupported(msg=f"The operation is not supported: spec.location.{unknown[0]}")
    require = ctx.world.authorization.require
    folder: Folder = ctx.world.get(location.folder) if location.folder is not None else source.parent
    pool: ResourcePool | None = ctx.world.get(location.pool) if location.pool is not None else source.pool
    store: Datastore = ctx.world.get(location.datastore) if location.datastore is not None else source.datastore
    require(ctx.session, folder, "VirtualMachine.Inventory.CreateFromExisting")
    require(ctx.session, source, "VirtualMachine.Interact.PowerOn")
    require(ctx.session, store, "Datastore.AllocateSpace")
    if pool is not None:
        require(ctx.session, pool, "Resource.AssignVMToPool")

    async def body(control: TaskControl) -> VirtualMachine:
        async with source.lock:
            source.host.require_connected()
            source.require_power("poweredOn")
            _check_devices(source)
            check_name(spec.name)
            folder.check_free(spec.name)
            if pool is None or pool.owner is not source.host.cluster:
                raise invalid_argument("spec.location.pool")
            if location.host is not None and ctx.world.get(location.host) is not source.host:
                raise invalid_argument("spec.location.host", "An instant clone starts on the host of its source.")
            folder.reserved.add(spec.name)
            try:
                await control.work(source.site.timings.power_on)
            finally:
                folder.reserved.discard(spec.name)
            machine = provisioning.copy_of_machine(source, spec.name, source.host, store)
            if spec.biosUuid:
                machine.config.uuid = str(spec.biosUuid).lower()
            machine.world.add(machine)
            machine.register(folder, pool)
            change = vim.vm.ConfigSpec(extraConfig=spec.config, deviceChange=location.deviceChange)
            try:
                if dev.given(change):
                    reconfigure.adopt(machine, reconfigure.planned(machine, change))
                await lifecycle.run_power_on(control, machine)
            except vmodl.MethodFault:
                machine.vanish()
                raise
            return machine

    return ctx.world.start_task(source, "VirtualMachine.instantClone", body, ctx.session)


def _check_devices(source: VirtualMachine) -> None:
    """Raise NotSupported for a machine whose memory cannot be shared: it has a GPU."""
    for device in source.devices:
        if dev.is_gpu(device):
            raise vmodl.fault.NotSupported(
                msg=f"An instant clone cannot be made: the machine has {device.deviceInfo.label}."
            )
