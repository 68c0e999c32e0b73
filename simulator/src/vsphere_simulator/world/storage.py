"""Datastores and networks: shared by all hosts, and otherwise just there."""

from __future__ import annotations

import typing as t

from vsphere_simulator.kernel.objects import method, prop
from vsphere_simulator.vmomi import make, vim
from vsphere_simulator.world.datastore_browser import DatastoreBrowser
from vsphere_simulator.world.entity import Entity, invalid_state

if t.TYPE_CHECKING:
    from vsphere_simulator.kernel.objects import Context
    from vsphere_simulator.world.host import HostSystem
    from vsphere_simulator.world.site import Site
    from vsphere_simulator.world.virtual_machine import VirtualMachine

GIB = 1024**3


class SharedResource(Entity):
    """What every host of the data center can reach."""

    def __init__(self, site: Site, moid: str, name: str, parent: Entity) -> None:
        super().__init__(site, moid, name, parent)
        self.hosts: dict[str, HostSystem] = {}
        self.users: dict[str, VirtualMachine] = {}
        """Virtual machines that use it, by id."""

    @prop("vm")
    def _vms(self) -> list[VirtualMachine]:
        return list(self.users.values())

    @property
    def accessible(self) -> bool:
        """Whether at least one host that answers reaches it."""
        return any(host.answers for host in self.hosts.values())


class Datastore(SharedResource):
    """A datastore; of files it knows those of virtual machines, not what is in them."""

    wsdl = vim.Datastore
    rename_privilege = "Datastore.Rename"

    def __init__(
        self, site: Site, name: str, parent: Entity, kind: str, capacity_gb: int, moid: str | None = None
    ) -> None:
        super().__init__(site, moid or site.new_id("datastore-"), name, parent)
        self.kind = kind
        self.capacity = capacity_gb * GIB
        self.browser = self.world.add(DatastoreBrowser(self))

    @property
    def url(self) -> str:
        """The datastore's location as vCenter writes it."""
        return f"ds:///vmfs/volumes/{self.site.uuid_of('datastore/' + self.moid)}/"

    @property
    def free(self) -> int:
        """Bytes that no disk of a virtual machine has taken (thick sizes)."""
        return max(0, self.capacity - sum(vm.disk_bytes for vm in self.users.values()))

    @prop("browser")
    def _browser(self) -> DatastoreBrowser:
        return self.browser

    @prop("host")
    def _mounts(self) -> list[t.Any]:
        path = self.url.removeprefix("ds://")
        info = make(vim.host.MountInfo, path=path, accessMode="readWrite", mounted=True, accessible=True)
        return [make(vim.Datastore.HostMount, key=host.ref, mountInfo=info) for host in self.hosts.values()]

    @prop("summary")
    def _summary(self) -> t.Any:
        return make(
            vim.Datastore.Summary,
            datastore=self.ref,
            name=self.name,
            url=self.url,
            capacity=self.capacity,
            freeSpace=self.free,
            uncommitted=0,
            accessible=self.accessible,
            multipleHostAccess=len(self.hosts) > 1,
            type=self.kind,
            maintenanceMode="normal",
        )

    @prop("info")
    def _info(self) -> t.Any:
        return make(
            vim.host.VmfsDatastoreInfo,
            name=self.name,
            url=self.url,
            freeSpace=self.free,
            maxFileSize=64 * 1024 * GIB,
            maxVirtualDiskCapacity=62 * 1024 * GIB,
            maxMemoryFileSize=64 * 1024 * GIB,
            timestamp=self.world.clock.now(),
            maxPhysicalRDMFileSize=64 * 1024 * GIB,
            maxVirtualRDMFileSize=62 * 1024 * GIB,
        )

    @prop("capability")
    def _capability(self) -> t.Any:
        return make(
            vim.Datastore.Capability,
            directoryHierarchySupported=True,
            rawDiskMappingsSupported=True,
            perFileThinProvisioningSupported=True,
            storageIORMSupported=True,
            nativeSnapshotSupported=False,
            topLevelDirectoryCreateSupported=True,
            seSparseSupported=True,
        )

    @method("RefreshDatastore")
    def refresh(self, ctx: Context) -> None:
        """Read free space again; here it is never stale."""

    @method("RefreshDatastoreStorageInfo")
    def refresh_storage_info(self, ctx: Context) -> None:
        """Read the usage of virtual machines again; here it is never stale."""

    def renamed(self) -> None:
        """Tell who watches that the name has changed."""
        self.world.changed(self, "name", "summary.name", "info.name")


class Network(SharedResource):
    """A standard port group."""

    wsdl = vim.Network
    rename_privilege = "Network.Config"

    def __init__(self, site: Site, name: str, parent: Entity, moid: str | None = None) -> None:
        super().__init__(site, moid or site.new_id("network-"), name, parent)

    @prop("host")
    def _hosts(self) -> list[HostSystem]:
        return list(self.hosts.values())

    @prop("summary")
    def _summary(self) -> t.Any:
        return make(
            vim.Network.Summary,
            network=self.ref,
            name=self.name,
            accessible=self.accessible,
            ipPoolName="",
            ipPoolId=None,
        )

    @method("DestroyNetwork")
    def destroy_network(self) -> None:
        """A standard port group goes with its last host, never by itself."""
        raise invalid_state(f"The network {self.name} is in use by {len(self.hosts)} hosts.")
