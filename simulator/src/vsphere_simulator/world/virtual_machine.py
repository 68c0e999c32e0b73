"""A virtual machine: its place in the inventory, its configuration and its power state."""

from __future__ import annotations

import asyncio
import datetime as dt
import typing as t

from vsphere_simulator.kernel.objects import method
from vsphere_simulator.vmomi import vim, vmodl
from vsphere_simulator.world import instant_clone, lifecycle, migration, provisioning, reconfigure, snapshots, vm_facts
from vsphere_simulator.world.devices import copy_of, is_dynamic
from vsphere_simulator.world.entity import Entity
from vsphere_simulator.world.environment import MachineEnvironmentBrowser
from vsphere_simulator.world.vm_properties import VmProperties

if t.TYPE_CHECKING:
    from vsphere_simulator.guests.keeper import Keeper
    from vsphere_simulator.kernel.objects import Context, ManagedObject
    from vsphere_simulator.model.demand import Demand
    from vsphere_simulator.model.schema import Guest
    from vsphere_simulator.world import vgpu
    from vsphere_simulator.world.folders import Folder
    from vsphere_simulator.world.host import HostSystem
    from vsphere_simulator.world.pools import ResourcePool
    from vsphere_simulator.world.site import Site
    from vsphere_simulator.world.storage import Datastore, Network
    from vsphere_simulator.world.vm_config import VmConfig

OFF: t.Final = "poweredOff"
ON: t.Final = "poweredOn"
SUSPENDED: t.Final = "suspended"
AGENT_EXTENSION = "com.vmware.vim.eam"


class VirtualMachine(VmProperties):
    """A virtual machine or template."""

    wsdl = vim.VirtualMachine
    environment: MachineEnvironmentBrowser
    rename_privilege = "VirtualMachine.Config.Rename"

    def __init__(
        self,
        site: Site,
        name: str,
        host: HostSystem,
        datastore: Datastore,
        config: VmConfig,
        *,
        template: bool = False,
        moid: str | None = None,
    ) -> None:
        super().__init__(site, moid or site.new_id("vm-"), name, None)
        self.host = host
        self.pool: ResourcePool | None = None
        self.config = config
        self.template = template
        self.datastore = datastore
        """Where its configuration file is."""
        self.network: Network | None = host.networks[0] if host.networks else None
        """The network of the blueprint's adapter."""
        self.directory = name
        self.power = OFF
        self.boot_time: dt.datetime | None = None
        self.assigned: dict[int, str] = {}
        """Passthrough device key -> PCI address held since power-on."""
        self.vgpus: dict[int, tuple[str, vgpu.Slot]] = {}
        """vGPU device key -> GPU and slot held since power-on."""
        self.suspended_with: str | None = None
        """vGPU manager that ran when the machine was suspended with vGPUs; resume needs the same."""
        self.snapshots = snapshots.Snapshots(self)
        self.recipe: Guest | None = None
        """What real guest it has where the simulator has a guest command."""
        self.demand: Demand | None = None
        """What it asks of the CPUs over a day; None: little."""
        self._lock: asyncio.Lock | None = None

    # --- where it belongs ---

    def containers(self) -> tuple[ManagedObject, ...]:
        """A view finds it in its folder, its resource pool and its host."""
        return tuple(one for one in (self.parent, self.pool, self.host) if one is not None)

    def register(self, folder: Folder, pool: ResourcePool | None) -> None:
        """Put the machine in the inventory: folder, host, pool, datastores and networks know it."""
        folder.put(self)
        self.environment = self.world.add(MachineEnvironmentBrowser(self))
        self.host.machines[self.moid] = self
        if pool is not None and not self.template:
            self.enter_pool(pool)
        self.resources_changed()
        self.world.changed(self.host, "vm")

    def vanish(self) -> None:
        """Take the machine out of the inventory."""
        self.snapshots.vanish()
        if isinstance(self.parent, Entity):
            t.cast("Folder", self.parent).take(self)
        self.host.machines.pop(self.moid, None)
        self._leave_pool()
        for resource in (*self.datastores, *self.networks):
            resource.users.pop(self.moid, None)
            self.world.changed(resource, "vm", "summary")
        self.world.changed(self.host, "vm")
        self.host.machines_changed.fire()
        self.world.remove(self.environment)
        self.world.remove(self)
        self._guest_follows()

    def _leave_pool(self) -> None:
        if self.pool is not None:
            self.pool.machines.pop(self.moid, None)
            self.world.changed(self.pool, "vm")
            self.pool = None

    def enter_pool(self, pool: ResourcePool) -> None:
        """Leave the pool it is in, if any, for another."""
        self._leave_pool()
        self.pool = pool
        pool.machines[self.moid] = self
        self.world.changed(pool, "vm")
        self.world.changed(self, "resourcePool")

    def move_to(self, host: HostSystem) -> None:
        """Register the machine on another host (and in that host's cluster)."""
        old, self.host = self.host, host
        old.machines.pop(self.moid, None)
        host.machines[self.moid] = self
        if self.pool is not None and self.pool.owner is not host.cluster:
            self.enter_pool(host.cluster.pool)
        for one in (old, host):
            self.world.changed(one, "vm")
            one.machines_changed.fire()
        self.world.changed(self, "runtime.host", "summary.runtime.host")

    def resources_changed(self) -> None:
        """Let the datastores and networks that it uses now know it, and the others forget it."""
        wanted = {resource.moid: resource for resource in (*self.datastores, *self.networks)}
        known = [*self.host.datastores, *self.host.networks]
        for resource in {*known, *wanted.values()}:
            if (self.moid in resource.users) != (resource.moid in wanted):
                if resource.moid in wanted:
                    resource.users[self.moid] = self
                else:
                    resource.users.pop(self.moid, None)
                self.world.changed(resource, "vm", "summary")

    def renamed(self) -> None:
        """Tell who watches that the name has changed."""
        self.world.changed(self, "name", "config.name", "summary.config.name")

    # --- what it is ---

    @property
    def cpus(self) -> int:
        """Virtual CPUs."""
        return self.config.cpus

    @property
    def memory_mb(self) -> int:
        """Guest memory."""
        return self.config.memory_mb

    @property
    def reserved_memory_mb(self) -> int:
        """Guest memory that the host must set aside for it."""
        return self.config.reserved_mb

    @property
    def is_on(self) -> bool:
        """Whether it is powered on."""
        return self.power == ON

    @property
    def is_agent(self) -> bool:
        """Whether the vCenter itself looks after it (a vCLS agent)."""
        manager = self.config.settings.get("managedBy")
        return manager is not None and manager.extensionKey == AGENT_EXTENSION

    @property
    def devices(self) -> tuple[t.Any, ...]:
        """Its devices as configured."""
        config = self.config
        if config.devices is None:
            blueprint = config.blueprint
            config.devices = (
                () if blueprint is None else blueprint.devices(self.moid, self.directory, self.datastore, self.network)
            )
        return config.devices

    def device_list(self) -> list[t.Any]:
        """Its devices as the API shows them: dynamic ones with what they were assigned."""
        if not self.assigned:
            return list(self.devices)
        return [
            copy_of(device, backing=copy_of(device.backing, assignedId=self.assigned[device.key]))
            if device.key in self.assigned and is_dynamic(device)
            else device
            for device in self.devices
        ]

    @property
    def _disk_backings(self) -> list[t.Any]:
        return [d.backing for d in self.devices if isinstance(d, vim.vm.device.VirtualDisk)]

    @property
    def disk_bytes(self) -> int:
        """Size of all its disks."""
        if self.config.blueprint is not None:
            return sum(self.config.blueprint.disks_gb) * 1024**3
        return sum(d.capacityInKB * 1024 for d in self.devices if isinstance(d, vim.vm.device.VirtualDisk))

    @property
    def datastores(self) -> list[Datastore]:
        """The datastores that hold its files."""
        found = {self.datastore.moid: self.datastore}
        if self.config.blueprint is None:
            for backing in self._disk_backings:
                store = self.world.objects.get(backing.datastore._GetMoId()) if backing.datastore is not None else None
                if store is not None:
                    found[store.moid] = t.cast("Datastore", store)
        return list(found.values())

    @property
    def networks(self) -> list[Network]:
        """The networks that its adapters are on."""
        if self.config.blueprint is not None:
            return [] if self.network is None else [self.network]
        cards = [d for d in self.devices if isinstance(d, vim.vm.device.VirtualEthernetCard)]
        refs = [card.backing.network for card in cards if getattr(card.backing, "network", None) is not None]
        found = {ref._GetMoId(): self.world.objects.get(ref._GetMoId()) for ref in refs}
        return [t.cast("Network", network) for network in found.values() if network is not None]

    @property
    def lock(self) -> asyncio.Lock:
        """Held by whatever changes the machine: one operation at a time, in order."""
        if self._lock is None:
            self._lock = asyncio.Lock()
        return self._lock

    # --- power ---

    def require_power(self, wanted: str, requested: str | None = None) -> None:
        """Raise InvalidPowerState unless the power state is the wanted one."""
        if self.power != wanted:
            raise vim.fault.InvalidPowerState(
                requestedState=requested or wanted,
                existingState=self.power,
                msg=f"The attempted operation cannot be performed in the current state ({_STATE_NAMES[self.power]}).",
            )

    def check_can_go(self) -> None:
        """Raise InvalidPowerState when the machine cannot be deleted now."""
        self.host.require_connected()
        self.require_power(OFF)

    def start(self) -> None:
        """Be powered on from now."""
        self.power = ON
        self.boot_time = self.world.clock.now()
        self.power_changed()

    def stop(self) -> None:
        """Be powered off from now; what it held is free."""
        self.power = OFF
        self.boot_time = None
        self.release()
        self.power_changed()

    def release(self) -> None:
        """Give back the GPUs it holds."""
        if self.assigned or self.vgpus:
            self.assigned, self.vgpus = {}, {}
            self.host.graphics.changed()
            self.world.changed(self, "config.hardware.device")

    def power_changed(self) -> None:
        """Tell who watches that the power state has changed."""
        self.world.changed(self, "runtime", "summary.runtime")
        self.guest_changed()
        self.host.machines_changed.fire()
        self._guest_follows()

    def restart(self) -> None:
        """Be powered on anew, without having been off."""
        self.start()
        if self.backed is not None:
            self.backed.restart()

    # --- its guest ---

    @property
    def backed(self) -> Keeper | None:
        """Who keeps its real guest; None for a guest that is made up."""
        return self.site.guests.of(self) if self.site.guests is not None else None

    @property
    def inside(self) -> tuple[str, str] | None:
        """Host name and address that the guest tells; None while its tools do not run."""
        if not self.is_on:
            return None
        if self.backed is None:
            return self.name, vm_facts.address(self)
        entry = self.backed.entry
        return (entry.hostname, entry.address) if entry is not None else None

    def guest_changed(self) -> None:
        """Tell who watches what the guest tells."""
        self.world.changed(self, "guest", "summary.guest", "summary.quickStats", "guestHeartbeatStatus")

    def _guest_follows(self) -> None:
        if self.site.guests is not None:
            self.site.guests.follow(self)

    async def guest_settled(self) -> None:
        """Wait for a real guest to be as the machine is; its failure is an event, not a fault."""
        if self.site.guests is not None:
            await self.site.guests.settled(self)

    # --- operations ---

    @method("PowerOnVM_Task")
    def power_on(self, ctx: Context, host: HostSystem | None = None) -> t.Any:
        """Power on, or resume."""
        return lifecycle.power_on(ctx, self, host)

    @method("PowerOffVM_Task")
    def power_off(self, ctx: Context) -> t.Any:
        """Power off, hard."""
        return lifecycle.power_off(ctx, self)

    @method("ResetVM_Task")
    def reset(self, ctx: Context) -> t.Any:
        """Reset, hard."""
        return lifecycle.reset(ctx, self)

    @method("SuspendVM_Task")
    def suspend(self, ctx: Context) -> t.Any:
        """Suspend to disk."""
        return lifecycle.suspend(ctx, self)

    @method("ShutdownGuest")
    def shutdown_guest(self) -> None:
        """Ask the guest to shut down; it takes a while."""
        lifecycle.shutdown_guest(self)

    @method("RebootGuest")
    def reboot_guest(self) -> None:
        """Ask the guest to restart."""
        lifecycle.reboot_guest(self)

    @method("ReconfigVM_Task", privilege="")
    def reconfigure(self, ctx: Context, spec: t.Any) -> t.Any:
        """Change the configuration."""
        return reconfigure.start(ctx, self, spec)

    @method("CloneVM_Task", privilege="")
    def clone(self, ctx: Context, folder: Folder, name: str, spec: t.Any) -> t.Any:
        """Make a machine or template like this one."""
        return provisioning.clone(ctx, self, folder, name, spec)

    @method("InstantClone_Task")
    def instant_clone(self, ctx: Context, spec: t.Any) -> t.Any:
        """Make a running machine that starts from this one's memory."""
        return instant_clone.start(ctx, self, spec)

    @method("CreateSnapshot_Task")
    def create_snapshot(
        self, ctx: Context, name: str, memory: bool, quiesce: bool, description: str | None = None
    ) -> t.Any:
        """Take a snapshot, with the memory or with a quiesced guest."""
        return snapshots.take(ctx, self, name, description or "", memory=memory, quiesce=quiesce)

    @method("CreateSnapshotEx_Task")
    def create_snapshot_ex(
        self, ctx: Context, name: str, memory: bool, description: str | None = None, quiesce_spec: t.Any = None
    ) -> t.Any:
        """Take a snapshot; a guest is quiesced when it says how."""
        return snapshots.take(ctx, self, name, description or "", memory=memory, quiesce=quiesce_spec is not None)

    @method("RevertToCurrentSnapshot_Task")
    def revert_to_current(
        self, ctx: Context, host: HostSystem | None = None, suppress_power_on: bool | None = None
    ) -> t.Any:
        """Be again what the machine was when its current snapshot was taken."""
        return snapshots.revert_to_current(ctx, self, host, suppress=bool(suppress_power_on))

    @method("RemoveAllSnapshots_Task")
    def remove_all_snapshots(self, ctx: Context, consolidate: bool | None = None) -> t.Any:  # noqa: ARG002 - disks have no content
        """Delete all snapshots."""
        return snapshots.remove_all(ctx, self)

    @method("RelocateVM_Task", privilege="")
    def relocate(self, ctx: Context, spec: t.Any, priority: str | None = None) -> t.Any:  # noqa: ARG002 - no difference here
        """Move to another host, pool, datastore or folder."""
        return migration.relocate(ctx, self, spec)

    @method("MigrateVM_Task", privilege="")
    def migrate(
        self,
        ctx: Context,
        priority: str,  # noqa: ARG002 - no difference here
        pool: ResourcePool | None = None,
        host: HostSystem | None = None,
        state: str | None = None,
    ) -> t.Any:
        """Move to another host or pool."""
        return migration.migrate(ctx, self, pool, host, state)

    @method("MarkAsTemplate")
    def mark_as_template(self) -> None:
        """Become a template: no pool, no power."""
        if self.template:
            raise vmodl.fault.NotSupported(msg="The operation is not supported on the object.")
        self.check_can_go()
        self._leave_pool()
        self.template = True
        self.world.changed(self, "config.template", "summary.config.template", "resourcePool")

    @method("MarkAsVirtualMachine")
    def mark_as_machine(self, pool: ResourcePool, host: HostSystem | None = None) -> None:
        """Become a virtual machine in a pool."""
        if not self.template:
            raise vmodl.fault.NotSupported(msg="The operation is not supported on the object.")
        target = host or provisioning.host_for(pool, self.host)
        target.require_connected()
        self.template = False
        if target is not self.host:
            self.move_to(target)
        self.enter_pool(pool)
        self.world.changed(self, "config.template", "summary.config.template")

    @method("Destroy_Task", privilege="VirtualMachine.Inventory.Delete")
    def destroy(self, ctx: Context) -> t.Any:
        """Delete it with its files."""
        return provisioning.destroy(ctx, self)

    @method("UnregisterVM")
    def unregister(self) -> None:
        """Take it out of the inventory."""
        self.check_can_go()
        self.vanish()


_STATE_NAMES = {ON: "Powered on", OFF: "Powered off", SUSPENDED: "Suspended"}
