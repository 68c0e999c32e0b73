"""Snapshots of virtual machines: take, revert, rename, remove, and the tree they make."""

from __future__ import annotations

import datetime as dt
import typing as t

from vsphere_simulator.kernel.objects import ManagedObject, method, prop
from vsphere_simulator.vmomi import make, vim, vmodl
from vsphere_simulator.world import admission, lifecycle, reconfigure, vgpu, vm_facts
from vsphere_simulator.world import devices as dev

if t.TYPE_CHECKING:
    from vsphere_simulator.kernel.objects import Context
    from vsphere_simulator.kernel.tasks import TaskControl
    from vsphere_simulator.world.host import HostSystem
    from vsphere_simulator.world.virtual_machine import VirtualMachine
    from vsphere_simulator.world.vm_config import VmConfig

MAX_DEPTH: t.Final = 32
"""Longest chain of snapshots that ESXi allows."""
TAKE_SECONDS: t.Final = 5
REMOVE_SECONDS: t.Final = 5
MAX_NAME: t.Final = 255


class Snapshot(ManagedObject):
    """One snapshot: the configuration, and the power state when memory was taken with it."""

    wsdl = vim.vm.Snapshot
    parent: VirtualMachine

    def __init__(self, vm: VirtualMachine, number: int, above: Snapshot | None, moid: str | None = None) -> None:
        super().__init__(vm.world, moid or vm.site.new_id("snapshot-"))
        self.parent = vm
        self.number = number
        """Its id in the machine, from 1."""
        self.above = above
        self.below: list[Snapshot] = []
        self.name = ""
        self.description = ""
        self.created = vm.world.clock.now()
        self.power = "poweredOff"
        """What a revert brings back: poweredOn and suspended only with the memory."""
        self.suspended_with: str | None = None
        self.quiesced = False
        self.config: VmConfig = vm.config

    @property
    def depth(self) -> int:
        """How many snapshots are on the way from the first one to this, both counted."""
        return 1 + (self.above.depth if self.above is not None else 0)

    def within(self) -> list[Snapshot]:
        """This one and all below it."""
        return [self, *(inner for child in self.below for inner in child.within())]

    def tree(self) -> t.Any:
        """VirtualMachineSnapshotTree from here down."""
        return make(
            vim.vm.SnapshotTree,
            snapshot=self.ref,
            vm=self.parent.ref,
            name=self.name,
            description=self.description,
            id=self.number,
            createTime=self.created,
            state=self.power,
            quiesced=self.quiesced,
            childSnapshotList=[child.tree() for child in self.below],
            replaySupported=False,
        )

    @prop("vm")
    def _machine(self) -> VirtualMachine:
        return self.parent

    @prop("childSnapshot")
    def _children(self) -> list[Snapshot]:
        return self.below

    @prop("config")
    def _config(self) -> t.Any:
        return vm_facts.config(self.parent, self.config)

    @method("RevertToSnapshot_Task")
    def revert(self, ctx: Context, host: HostSystem | None = None, suppress_power_on: bool | None = None) -> t.Any:
        """Be again what the machine was."""
        return start_revert(ctx, self.parent, self, host, suppress=bool(suppress_power_on))

    @method("RemoveSnapshot_Task")
    def remove(self, ctx: Context, remove_children: bool, consolidate: bool | None = None) -> t.Any:  # noqa: ARG002 - disks have no content
        """Delete the snapshot, with those below it or leaving them to the one above."""

        async def body(control: TaskControl) -> None:
            async with self.parent.lock:
                self.parent.host.require_connected()
                self.parent.snapshots.require(self)
                await control.work(REMOVE_SECONDS, steps=2)
                for one in self.within() if remove_children else [self]:
                    self.parent.snapshots.drop(one)
                self.parent.snapshots.told()

        return ctx.world.start_task(self.parent, "VirtualMachine.removeSnapshot", body, ctx.session)

    @method("RenameSnapshot")
    def rename(self, name: str | None = None, description: str | None = None) -> None:
        """Change the name, the description, or both."""
        if name is not None:
            check_name(name)
            self.name = name
        if description is not None:
            self.description = description
        self.parent.snapshots.told()


def check_name(name: str) -> None:
    """Raise InvalidName for a name that no snapshot can have; two may have the same."""
    if not name or len(name) > MAX_NAME:
        raise vim.fault.InvalidName(name=name, msg=f"The name '{name}' is not valid.")


class Snapshots:
    """The snapshots of one machine."""

    def __init__(self, vm: VirtualMachine) -> None:
        self.vm = vm
        self.known: dict[str, Snapshot] = {}
        """By id, each after the one above it."""
        self.current: Snapshot | None = None
        self.last_number = 0

    @property
    def roots(self) -> list[Snapshot]:
        """Those with none above."""
        return [one for one in self.known.values() if one.above is None]

    def info(self) -> t.Any:
        """VirtualMachineSnapshotInfo; None without snapshots."""
        if not self.known:
            return None
        return make(
            vim.vm.SnapshotInfo,
            currentSnapshot=self.current.ref if self.current is not None else None,
            rootSnapshotList=[root.tree() for root in self.roots],
        )

    def require(self, snapshot: Snapshot) -> None:
        """Raise ManagedObjectNotFound when a snapshot has been removed meanwhile."""
        self.vm.world.get(snapshot.ref)

    def put(self, snapshot: Snapshot) -> None:
        """Make a snapshot known, and the one the machine goes on from."""
        self.known[snapshot.moid] = snapshot
        if snapshot.above is not None:
            snapshot.above.below.append(snapshot)
        self.last_number = max(self.last_number, snapshot.number)
        self.vm.world.add(snapshot)

    def drop(self, snapshot: Snapshot) -> None:
        """Forget a snapshot; those below it come after the one above it."""
        del self.known[snapshot.moid]
        if snapshot.above is not None:
            place = snapshot.above.below.index(snapshot)
            snapshot.above.below[place : place + 1] = snapshot.below
        for child in snapshot.below:
            child.above = snapshot.above
        snapshot.below = []
        if self.current is snapshot:
            self.current = snapshot.above
        self.vm.world.remove(snapshot)

    def told(self) -> None:
        """Give the disks their place in the chain, and tell who watches."""
        vm = self.vm
        depth = self.current.depth if self.current is not None else 0
        devices = tuple(chained(device, depth) for device in vm.devices)
        if any(new is not old for new, old in zip(devices, vm.devices, strict=True)):
            config = vm.config.copy()
            config.devices, config.blueprint = devices, None
            reconfigure.adopt(vm, config)
        vm.world.changed(vm, "snapshot", "rootSnapshot", "layoutEx", "config.hardware.device")

    def vanish(self) -> None:
        """Go with the machine."""
        for snapshot in self.known.values():
            self.vm.world.remove(snapshot)
        self.known, self.current = {}, None


def chained(device: t.Any, depth: int) -> t.Any:
    """A disk with so many delta files over its own; any other device as it is."""
    if not isinstance(device, vim.vm.device.VirtualDisk):
        return device
    backing, now = device.backing, 0
    while getattr(backing, "parent", None) is not None:
        backing, now = backing.parent, now + 1
    if now == depth:
        return device
    stem = str(backing.fileName).removesuffix(".vmdk")
    for number in range(1, depth + 1):
        backing = dev.copy_of(backing, fileName=f"{stem}-{number:06d}.vmdk", parent=backing)
    return dev.copy_of(device, backing=backing)


def check_memory(vm: VirtualMachine) -> None:
    """Raise SnapshotIncompatibleDeviceInVm when a device does not let the memory be taken."""
    for device in vm.devices:
        reason = ""
        if dev.is_fixed(device) or dev.is_dynamic(device):
            reason = "it is a PCI passthrough device"
        elif dev.is_vgpu(device) and device.backing.vgpu not in vgpu.all_profiles():
            reason = f"vGPU profile {device.backing.vgpu} does not support it"
        if reason:
            label = device.deviceInfo.label
            raise vim.fault.SnapshotIncompatibleDeviceInVm(
                fault=vim.fault.DeviceNotSupported(device=label, reason=reason, msg=f"{label}: {reason}."),
                msg=f"A snapshot with memory cannot be taken: {label}: {reason}.",
            )


def take(ctx: Context, vm: VirtualMachine, name: str, description: str, *, memory: bool, quiesce: bool) -> t.Any:
    """Start the task; its result is the snapshot. The memory counts only while the machine is on."""
    if vm.template:
        raise vmodl.fault.NotSupported(msg="The operation is not supported on the object.")
    check_name(name)

    async def body(control: TaskControl) -> Snapshot:
        async with vm.lock:
            vm.host.require_connected()
            snapshots = vm.snapshots
            if snapshots.current is not None and snapshots.current.depth >= MAX_DEPTH:
                raise vim.fault.TooManySnapshotLevels(msg=f"The machine has {MAX_DEPTH} levels of snapshots already.")
            if memory and vm.is_on:
                check_memory(vm)
            await control.work(TAKE_SECONDS + (TAKE_SECONDS if memory and vm.is_on else 0), steps=4)
            vm.host.require_connected()
            snapshot = Snapshot(vm, snapshots.last_number + 1, snapshots.current)
            snapshot.name, snapshot.description = name, description
            snapshot.quiesced = quiesce and vm.is_on and not memory
            with_memory = vm.power == "suspended" or (memory and vm.is_on)
            snapshot.power = vm.power if with_memory else "poweredOff"
            snapshot.suspended_with = vm.suspended_with or (vm.host.graphics.running_manager if vm.vgpus else None)
            snapshot.config = vm.config.copy()
            snapshot.config.devices, snapshot.config.blueprint = vm.devices, None
            snapshots.put(snapshot)
            snapshots.current = snapshot
            snapshots.told()
            return snapshot

    return ctx.world.start_task(vm, "VirtualMachine.createSnapshot", body, ctx.session)


def revert_to_current(ctx: Context, vm: VirtualMachine, host: HostSystem | None, *, suppress: bool) -> t.Any:
    """Start the task. NotFound without a snapshot."""
    if vm.snapshots.current is None:
        raise vim.fault.NotFound(msg="The virtual machine has no current snapshot.")
    return start_revert(ctx, vm, vm.snapshots.current, host, suppress=suppress)


def start_revert(
    ctx: Context, vm: VirtualMachine, snapshot: Snapshot, host: HostSystem | None, *, suppress: bool
) -> t.Any:
    """Start the task; `host` is where a machine that is to run runs, `suppress` leaves it off in any case."""

    async def body(control: TaskControl) -> None:
        async with vm.lock:
            vm.host.require_connected()
            vm.snapshots.require(snapshot)
            await control.work(TAKE_SECONDS, steps=2)
            if vm.power != "poweredOff":
                vm.stop()
            if host is not None and host is not vm.host:
                vm.move_to(host)
            config = snapshot.config.copy()
            reconfigure.adopt(vm, config)
            vm.snapshots.current = snapshot
            vm.snapshots.told()
            if snapshot.power == "poweredOff" or suppress:
                return
            vm.suspended_with = snapshot.suspended_with
            vm.power = "suspended"
            vm.power_changed()
            if snapshot.power == "poweredOn":
                _resume(vm)

    return ctx.world.start_task(vm, "VirtualMachine.revertToSnapshot", body, ctx.session)


def _resume(vm: VirtualMachine) -> None:
    """Run again with the memory of the snapshot; a machine that finds no room stays suspended."""
    vm.host.require_open_for_work()
    lifecycle.check_resume(vm, vm.host)
    grant = admission.admit(vm, vm.host)
    vm.assigned, vm.vgpus = grant.assigned, grant.vgpus
    vm.suspended_with = None
    vm.start()
    if grant.vgpus:
        vm.host.graphics.changed()


def remove_all(ctx: Context, vm: VirtualMachine) -> t.Any:
    """Start the task that removes all snapshots; the machine stays as it is now."""

    async def body(control: TaskControl) -> None:
        async with vm.lock:
            vm.host.require_connected()
            await control.work(REMOVE_SECONDS, steps=2)
            for snapshot in list(vm.snapshots.known.values()):
                vm.snapshots.drop(snapshot)
            vm.snapshots.told()

    return ctx.world.start_task(vm, "VirtualMachine.removeAllSnapshots", body, ctx.session)


# --- as JSON ---


def dump(vm: VirtualMachine, dump_config: t.Callable[[VmConfig], dict[str, t.Any]]) -> dict[str, t.Any]:
    """The snapshots of a machine as plain JSON types; empty when it never had one."""
    snapshots = vm.snapshots
    if not snapshots.last_number:
        return {}
    return {
        "last_number": snapshots.last_number,
        "current": snapshots.current.moid if snapshots.current is not None else None,
        "known": [
            {
                "moid": one.moid,
                "number": one.number,
                "above": one.above.moid if one.above is not None else None,
                "name": one.name,
                "description": one.description,
                "created": one.created.isoformat(),
                "power": one.power,
                "suspended_with": one.suspended_with,
                "quiesced": one.quiesced,
                "config": dump_config(one.config),
            }
            for root in snapshots.roots
            for one in root.within()
        ],
    }


def load(vm: VirtualMachine, data: dict[str, t.Any], load_config: t.Callable[[dict[str, t.Any]], VmConfig]) -> None:
    """The reverse of `dump`, for a machine that is in the world already."""
    snapshots = vm.snapshots
    for item in data.get("known", ()):
        above = snapshots.known[item["above"]] if item["above"] is not None else None
        one = Snapshot(vm, item["number"], above, item["moid"])
        for name in ("name", "description", "power", "suspended_with", "quiesced"):
            setattr(one, name, item[name])
        one.created = dt.datetime.fromisoformat(item["created"])
        one.config = load_config(item["config"])
        snapshots.put(one)
    snapshots.last_number = data.get("last_number", 0)
    current = data.get("current")
    snapshots.current = snapshots.known[current] if current is not None else None
