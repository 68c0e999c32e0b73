"""SearchIndex: entities by path, uuid, DNS name, address."""

from __future__ import annotations

import typing as t
from urllib.parse import unquote

from vsphere_simulator.kernel.objects import ManagedObject, method
from vsphere_simulator.vmomi import vim
from vsphere_simulator.world import host_services, vm_facts
from vsphere_simulator.world.compute import Compute
from vsphere_simulator.world.folders import Datacenter, Folder
from vsphere_simulator.world.host import HostSystem
from vsphere_simulator.world.pools import ResourcePool
from vsphere_simulator.world.virtual_machine import VirtualMachine

if t.TYPE_CHECKING:
    from collections.abc import Callable

    from vsphere_simulator.world.entity import Entity
    from vsphere_simulator.world.site import Site


class SearchIndex(ManagedObject):
    """The vCenter's search index. Names compare without regard to case, as in a vCenter."""

    wsdl = vim.SearchIndex

    def __init__(self, site: Site) -> None:
        super().__init__(site.world, "SearchIndex")
        self.name = "SearchIndex"

    @method("FindByInventoryPath")
    def by_path(self, inventory_path: str) -> Entity | None:
        """The entity at a path such as `lab/vm/templates/x`; slashes within names are written %2f."""
        node: t.Any = self.world.root
        for part in inventory_path.strip("/").split("/"):
            if part:
                node = _child(node, unquote(part))
            if node is None:
                return None
        return t.cast("Entity", node)

    @method("FindChild")
    def child(self, entity: Entity, name: str) -> Entity | None:
        """The child of an entity with this name."""
        return _child(entity, unquote(name))

    @method("FindByUuid")
    def by_uuid(
        self, uuid: str, vm_search: bool, datacenter: Datacenter | None = None, instance_uuid: bool | None = None
    ) -> Entity | None:
        """The machine or host with a BIOS (or instance) uuid."""
        return next(iter(self.all_by_uuid(uuid, vm_search, datacenter, instance_uuid)), None)

    @method("FindAllByUuid")
    def all_by_uuid(
        self, uuid: str, vm_search: bool, datacenter: Datacenter | None = None, instance_uuid: bool | None = None
    ) -> list[Entity]:
        """All machines or hosts with a BIOS (or instance) uuid."""
        key = uuid.lower()
        if not vm_search:
            return self._hosts(datacenter, lambda host: host.uuid == key)
        if instance_uuid:
            return self._machines(datacenter, lambda vm: vm.config.instance_uuid == key)
        return self._machines(datacenter, lambda vm: vm.config.uuid == key)

    @method("FindByDnsName")
    def by_dns_name(self, dns_name: str, vm_search: bool, datacenter: Datacenter | None = None) -> Entity | None:
        """The machine whose guest says it has this name, or the host of this name."""
        return next(iter(self.all_by_dns_name(dns_name, vm_search, datacenter)), None)

    @method("FindAllByDnsName")
    def all_by_dns_name(self, dns_name: str, vm_search: bool, datacenter: Datacenter | None = None) -> list[Entity]:
        """All machines or hosts of this name."""
        key = dns_name.lower()
        if not vm_search:
            return self._hosts(datacenter, lambda host: host.name.lower() == key)
        return self._machines(datacenter, lambda vm: vm.inside is not None and vm.inside[0].lower() == key)

    @method("FindByIp")
    def by_ip(self, ip: str, vm_search: bool, datacenter: Datacenter | None = None) -> Entity | None:
        """The machine whose guest has this address, or the host that is known by it."""
        return next(iter(self.all_by_ip(ip, vm_search, datacenter)), None)

    @method("FindAllByIp")
    def all_by_ip(self, ip: str, vm_search: bool, datacenter: Datacenter | None = None) -> list[Entity]:
        """All machines or hosts with this address."""
        if not vm_search:
            return self._hosts(datacenter, lambda host: ip in (host.name, host_services.address(host)))
        return self._machines(datacenter, lambda vm: vm.inside is not None and vm.inside[1] == ip)

    @method("FindByDatastorePath")
    def by_datastore_path(self, datacenter: Datacenter, path: str) -> Entity | None:
        """The machine with this VMX file."""
        return next(iter(self._machines(datacenter, lambda vm: vm_facts.path_name(vm) == path)), None)

    def _machines(self, datacenter: Datacenter | None, wanted: Callable[[VirtualMachine], bool]) -> list[Entity]:
        found = (obj for obj in self.world.objects.values() if isinstance(obj, VirtualMachine))
        return [vm for vm in found if wanted(vm) and _is_within(vm, datacenter)]

    def _hosts(self, datacenter: Datacenter | None, wanted: Callable[[HostSystem], bool]) -> list[Entity]:
        found = (obj for obj in self.world.objects.values() if isinstance(obj, HostSystem))
        return [host for host in found if wanted(host) and _is_within(host, datacenter)]


def _is_within(entity: Entity, datacenter: Datacenter | None) -> bool:
    node: t.Any = entity
    while datacenter is not None and node is not None and node is not datacenter:
        node = node.parent
    return node is datacenter or datacenter is None


def _child(entity: t.Any, name: str) -> Entity | None:
    children: dict[str, Entity] = {}
    if isinstance(entity, Folder | ResourcePool):
        children = entity.children
    elif isinstance(entity, Datacenter):
        children = {folder.name: folder for folder in entity.folders.values()}
    elif isinstance(entity, Compute):
        children = {entity.pool.name: entity.pool, **{host.name: host for host in entity.hosts.values()}}
    if name in children:
        return children[name]
    return next((child for key, child in children.items() if key.lower() == name.lower()), None)
