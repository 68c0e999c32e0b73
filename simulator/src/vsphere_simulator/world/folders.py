"""The tree: root folder, data center, and the folders for virtual machines, hosts, datastores and networks."""

from __future__ import annotations

import typing as t

from vsphere_simulator.kernel.objects import method, prop
from vsphere_simulator.vmomi import make, vim, vmodl
from vsphere_simulator.world import cluster_admin, drs
from vsphere_simulator.world.entity import Entity, check_name, invalid_argument

if t.TYPE_CHECKING:
    from vsphere_simulator.kernel.objects import Context
    from vsphere_simulator.kernel.tasks import TaskControl
    from vsphere_simulator.world.compute import Cluster
    from vsphere_simulator.world.host import HostSystem
    from vsphere_simulator.world.site import Site
    from vsphere_simulator.world.virtual_machine import VirtualMachine

FolderKind = t.Literal["root", "vm", "host", "datastore", "network"]

_PREFIX: dict[str, str] = {
    "root": "group-d",
    "vm": "group-v",
    "host": "group-h",
    "datastore": "group-s",
    "network": "group-n",
}
_CHILD_TYPES: dict[str, list[str]] = {
    "root": ["vim.Folder", "vim.Datacenter"],
    "vm": ["vim.Folder", "vim.VirtualMachine", "vim.VirtualApp"],
    "host": ["vim.Folder", "vim.ComputeResource"],
    "datastore": ["vim.Folder", "vim.Datastore", "vim.StoragePod"],
    "network": ["vim.Folder", "vim.Network", "vim.DistributedVirtualSwitch"],
}
_MOVE_PRIVILEGES: dict[t.Any, str] = {
    vim.VirtualMachine: "VirtualMachine.Inventory.Move",
    vim.HostSystem: "Host.Inventory.MoveHost",
    vim.ComputeResource: "Host.Inventory.MoveHost",
    vim.ClusterComputeResource: "Host.Inventory.MoveCluster",
}


class Folder(Entity):
    """A folder of one kind; what is in it has different names."""

    wsdl = vim.Folder

    def __init__(self, site: Site, name: str, parent: Entity | None, kind: FolderKind, moid: str | None = None) -> None:
        super().__init__(site, moid or site.new_id(_PREFIX[kind]), name, parent)
        self.kind: FolderKind = kind
        self.children: dict[str, Entity] = {}
        self.reserved: set[str] = set()
        """Names of entities that running tasks are about to put here."""

    @prop("childEntity")
    def _children(self) -> list[Entity]:
        return list(self.children.values())

    @prop("childType")
    def _child_type(self) -> list[t.Any]:
        return [vim_type(name) for name in _CHILD_TYPES[self.kind]]

    def check_free(self, name: str) -> None:
        """Raise DuplicateName when something here has this name, or is about to."""
        if name in self.children or name in self.reserved:
            holder = self.children.get(name, self)
            raise vim.fault.DuplicateName(name=name, object=holder.ref, msg=f"The name '{name}' already exists.")

    def put(self, entity: Entity) -> None:
        """Make an entity a child of this folder."""
        if entity.parent is not None and entity.parent is not self and isinstance(entity.parent, Folder):
            entity.parent.take(entity)
        entity.parent = self
        self.children[entity.name] = entity
        self.world.changed(self, "childEntity")
        self.world.changed(entity, "parent")

    def take(self, entity: Entity) -> None:
        """Let go of a child."""
        if self.children.get(entity.name) is entity:
            del self.children[entity.name]
            self.world.changed(self, "childEntity")

    @method("CreateFolder")
    def create_folder(self, name: str) -> Folder:
        """Make a folder of the same kind. DuplicateName makes this the operators' atomic lock."""
        check_name(name)
        self.check_free(name)
        folder = self.world.add(Folder(self.site, name, None, self.kind))
        self.put(folder)
        return folder

    @method("MoveIntoFolder_Task", privilege="")
    def move_into(self, ctx: Context, list: t.Any) -> t.Any:
        """Move entities of the right kind here; a host that leaves its cluster for a folder stands alone."""
        entities: t.Sequence[Entity] = list
        for entity in entities:
            privilege = _MOVE_PRIVILEGES.get(entity.wsdl, "Folder.Move")
            ctx.world.authorization.require(ctx.session, entity, privilege)
            ctx.world.authorization.require(ctx.session, self, privilege)
        others = [entity for entity in entities if entity.wsdl is not vim.HostSystem]
        hosts = [t.cast("HostSystem", entity) for entity in entities if entity.wsdl is vim.HostSystem]

        async def body(control: TaskControl) -> None:
            await control.work(0.5, steps=1)
            if hosts and self.kind != "host":
                raise vim.fault.InvalidFolder(target=self.ref, msg="The folder cannot hold this entity.")
            for entity in others:
                if not isinstance(entity.parent, Folder) or entity.parent.kind != self.kind or _is_within(self, entity):
                    raise vim.fault.InvalidFolder(target=self.ref, msg="The folder cannot hold this entity.")
                if entity.parent is not self:
                    self.check_free(entity.name)
            for host in hosts:
                cluster_admin.move_to_folder(host, self)
            for entity in others:
                self.put(entity)

        return ctx.world.start_task(self, "Folder.moveInto", body, ctx.session)

    @method("Destroy_Task", privilege="")
    def destroy(self, ctx: Context) -> t.Any:
        """Delete the folder and all in it; only the folders that people made can go."""
        ctx.world.authorization.require(ctx.session, self, "Folder.Delete")
        if not isinstance(self.parent, Folder) and self.kind in _CHILD_TYPES:
            raise vmodl.fault.NotSupported(msg="The operation is not supported on the object.")
        machines = [entity for entity in self._all_within() if not isinstance(entity, Folder)]
        for machine in machines:
            ctx.world.authorization.require(ctx.session, machine, "VirtualMachine.Inventory.Delete")

        async def body(control: TaskControl) -> None:
            await control.work(1.0, steps=1)
            if self.kind != "vm" and machines:
                raise vim.fault.InvalidFolder(target=self.ref, msg="The folder is not empty.")
            for machine in machines:
                t.cast("VirtualMachine", machine).check_can_go()
            for machine in machines:
                t.cast("VirtualMachine", machine).vanish()
            for folder in (*self._all_within(), self):
                if isinstance(folder.parent, Folder):
                    folder.parent.take(folder)
                self.world.remove(folder)

        return ctx.world.start_task(self, "Folder.destroy", body, ctx.session)

    def _all_within(self) -> list[Entity]:
        found: list[Entity] = []
        for child in self.children.values():
            found += child._all_within() if isinstance(child, Folder) else []
            found.append(child)
        return found

    @method("CreateClusterEx")
    def create_cluster(self, name: str, spec: t.Any) -> Cluster:
        """Make a cluster."""
        return cluster_admin.create_cluster(self, name, spec)

    @method("CreateCluster")
    def create_old_cluster(self, name: str, spec: t.Any) -> Cluster:
        """Make a cluster, as older clients ask for it."""
        return cluster_admin.create_cluster(self, name, spec)

    @method("AddStandaloneHost_Task")
    def add_standalone_host(self, ctx: Context, spec: t.Any, add_connected: bool) -> t.Any:
        """Let the vCenter know a host that is in no cluster."""
        return cluster_admin.add_standalone(ctx, self, spec, connected=add_connected)

    @method("CreateVM_Task")
    def create_vm(self, ctx: Context, config: t.Any, pool: t.Any, host: t.Any = None) -> t.Any:
        """Make a virtual machine from a specification."""
        from vsphere_simulator.world.provisioning import create_vm

        return create_vm(ctx, self, config, pool, host)


class Datacenter(Entity):
    """The data center and its four folders."""

    wsdl = vim.Datacenter
    rename_privilege = "Datacenter.Rename"

    def __init__(self, site: Site, name: str, parent: Entity, moid: str | None = None) -> None:
        super().__init__(site, moid or site.new_id("datacenter-"), name, parent)
        self.folders: dict[str, Folder] = {}

    def add_folders(self) -> None:
        """Make the four folders every data center has."""
        kinds: tuple[FolderKind, ...] = ("vm", "host", "datastore", "network")
        for kind in kinds:
            self.folders[kind] = self.world.add(Folder(self.site, kind, self, kind))

    @prop("vmFolder")
    def _vm_folder(self) -> Folder:
        return self.folders["vm"]

    @prop("hostFolder")
    def _host_folder(self) -> Folder:
        return self.folders["host"]

    @prop("datastoreFolder")
    def _datastore_folder(self) -> Folder:
        return self.folders["datastore"]

    @prop("networkFolder")
    def _network_folder(self) -> Folder:
        return self.folders["network"]

    @prop("datastore")
    def _datastores(self) -> list[Entity]:
        return [entity for entity in self.folders["datastore"]._all_within() if not isinstance(entity, Folder)]

    @prop("network")
    def _networks(self) -> list[Entity]:
        return [entity for entity in self.folders["network"]._all_within() if not isinstance(entity, Folder)]

    @prop("configuration")
    def _configuration(self) -> t.Any:
        return make(vim.Datacenter.ConfigInfo, defaultHardwareVersionKey="vmx-20", maximumHardwareVersionKey="vmx-21")

    @method("PowerOnMultiVM_Task")
    def power_on_vms(self, ctx: Context, vm: t.Any) -> t.Any:
        """Power on many virtual machines; each has a task of its own, listed in the result.

        Where DRS places machines by itself, one that its host cannot take starts on another host of the cluster.
        """
        machines: list[VirtualMachine] = list(vm)
        if not machines:
            raise invalid_argument("vm")

        async def body(control: TaskControl) -> t.Any:
            control.progress(50)
            attempted = [
                make(vim.cluster.AttemptedVmInfo, vm=machine.ref, task=machine.power_on(ctx, drs.initial_host(machine)))
                for machine in machines
            ]
            return make(vim.cluster.PowerOnVmResult, attempted=attempted)

        return ctx.world.start_task(self, "Datacenter.powerOnVm", body, ctx.session)


def vim_type(name: str) -> t.Any:
    """The pyVmomi type of a VMODL name such as `vim.Folder`."""
    return getattr(vim, name.removeprefix("vim."))


def _is_within(folder: Entity, entity: Entity) -> bool:
    node: t.Any = folder
    while node is not None:
        if node is entity:
            return True
        node = node.parent
    return False
