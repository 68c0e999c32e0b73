"""The whole inventory as JSON and back: what a server carries on with after a restart."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime as dt
import logging
import typing as t

from vsphere_simulator.model.demand import Demand
from vsphere_simulator.model.schema import Guest
from vsphere_simulator.world import codec, snapshots, vgpu
from vsphere_simulator.world.build import blueprint, furnish_host, new_site
from vsphere_simulator.world.compute import Cluster, Compute, DrsSettings, Standalone
from vsphere_simulator.world.custom_fields import CustomFieldsManager, Field
from vsphere_simulator.world.entity import Entity
from vsphere_simulator.world.environment import EnvironmentBrowser
from vsphere_simulator.world.folders import Datacenter, Folder
from vsphere_simulator.world.graphics import DeviceSetting, GraphicsState
from vsphere_simulator.world.host import HostSystem, Make, Passthrough
from vsphere_simulator.world.images import Images
from vsphere_simulator.world.maintenance import come_up
from vsphere_simulator.world.patches import Package
from vsphere_simulator.world.pools import ResourcePool
from vsphere_simulator.world.storage import Datastore, Network
from vsphere_simulator.world.tags import Tags
from vsphere_simulator.world.virtual_machine import VirtualMachine
from vsphere_simulator.world.vm_config import VmConfig

if t.TYPE_CHECKING:
    from collections.abc import Iterator

    from vsphere_simulator.kernel.registry import World
    from vsphere_simulator.model.schema import Model
    from vsphere_simulator.world.site import Site

log = logging.getLogger(__name__)
FORMAT: t.Final = 1
Json = dict[str, t.Any]


class StateError(Exception):
    """A state that cannot be restored."""


def dump(world: World) -> Json:
    """The inventory as plain JSON types; the same inventory is the same value, and nothing in it changes by itself."""
    makes: dict[Make, int] = {}
    objects: dict[str, Json] = {}
    entities = (obj for obj in world.objects.values() if isinstance(obj, Entity))
    for entity in sorted(entities, key=lambda one: _number(one.moid)):
        objects[entity.moid] = _dump_entity(entity, makes)
    fields = t.cast("CustomFieldsManager", world.content["customFieldsManager"])
    site = _site(world)
    return {
        "format": FORMAT,
        "authorization": world.authorization.dump(),
        "bare": {name: _dump_host(host, makes) for name, host in sorted(site.bare.items())},
        "ids": dict(sorted(world.ids.items())),
        "options": dict(sorted(site.options.items())),
        "tags": site.tags.dump(world),
        "images": site.images.dump(world),
        "fields": [[field.key, field.name, field.applies_to] for field in fields.fields.values()],
        "hardware": [dataclasses.asdict(made) for made in makes],
        "objects": objects,
    }


def _site(world: World) -> Site:
    return t.cast("Folder", world.root).site


def _number(moid: str) -> int:
    """The running number in an id; entities have been made in this order."""
    return int("".join(character for character in moid if character.isdigit()))


def _dump_entity(entity: Entity, makes: dict[Make, int]) -> Json:
    data: Json = {"kind": type(entity).__name__, "name": entity.name}
    if entity.parent is not None:
        data["parent"] = entity.parent.moid
    if entity.custom_values:
        data["custom_values"] = {str(key): value for key, value in sorted(entity.custom_values.items())}
    match entity:
        case Folder():
            data["folder_kind"] = entity.kind
        case Datastore():
            data |= {"type": entity.kind, "capacity": entity.capacity}
        case Compute():
            data |= {"drs": dataclasses.asdict(entity.drs), "das": codec.encode(entity.das)}
            if rules := entity.rules.dump():
                data["rules"] = rules
        case ResourcePool():
            data |= {"owner": entity.owner.moid, "version": entity.version}
            data["allocations"] = {kind: codec.encode(one) for kind, one in entity.allocations.items()}
        case HostSystem():
            data |= _dump_host(entity, makes)
        case VirtualMachine():
            data |= _dump_machine(entity)
    return data


def _dump_host(host: HostSystem, makes: dict[Make, int]) -> Json:
    graphics = host.graphics
    return {
        "hardware": makes.setdefault(host.make, len(makes)),
        "hardware_id": host.hardware_id,
        "connection": host.connection,
        "booting": host.booting,
        "lost": host.lost,
        "boot_time": host.boot_time.isoformat(),
        "in_maintenance": host.in_maintenance,
        "packages": [dataclasses.asdict(package) for package in host.packages.values()],
        "services": {key: list(state) for key, state in sorted(host.services.items())},
        "passthrough": {
            address: [state.enabled, state.active, state.label] for address, state in sorted(host.passthrough.items())
        },
        "graphics": {
            "default_type": graphics.default_type,
            "policy": graphics.policy,
            "devices": {
                address: [setting.graphics_type, setting.mode] for address, setting in sorted(graphics.devices.items())
            },
            "manager": graphics.manager,
            "running_manager": graphics.running_manager,
        },
    }


def _dump_machine(vm: VirtualMachine) -> Json:
    return {
        "host": vm.host.moid,
        "pool": vm.pool.moid if vm.pool is not None else None,
        "datastore": vm.datastore.moid,
        "network": vm.network.moid if vm.network is not None else None,
        "directory": vm.directory,
        "template": vm.template,
        "power": vm.power,
        "boot_time": vm.boot_time.isoformat() if vm.boot_time is not None else None,
        "suspended_with": vm.suspended_with,
        "assigned": {str(key): address for key, address in sorted(vm.assigned.items())},
        "vgpus": {
            str(key): [address, slot.profile.name, slot.start_gb] for key, (address, slot) in sorted(vm.vgpus.items())
        },
        "config": _dump_config(vm.config),
        "snapshots": snapshots.dump(vm, _dump_config),
        **({"guest": vm.recipe.model_dump()} if vm.recipe is not None else {}),
        **({"demand": vm.demand.model_dump()} if vm.demand is not None else {}),
    }


_PLAIN = tuple(
    field.name
    for field in dataclasses.fields(VmConfig)
    if field.name not in ("extra_config", "settings", "devices", "blueprint")
)


def _dump_config(config: VmConfig) -> Json:
    data: Json = {name: getattr(config, name) for name in _PLAIN}
    data["extra_config"] = dict(config.extra_config)
    data["settings"] = {key: codec.encode(value) for key, value in sorted(config.settings.items())}
    if config.blueprint is not None:
        data["disks_gb"] = list(config.blueprint.disks_gb)
    else:
        data["devices"] = [codec.encode(device) for device in config.devices or ()]
    return data


@contextlib.contextmanager
def understood() -> Iterator[None]:
    """Say StateError for whatever goes wrong inside: a state that is valid JSON may still be anything."""
    try:
        yield
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as problem:
        log.debug("the state cannot be restored", exc_info=True)
        raise StateError(
            f"damaged, or written by another version ({type(problem).__name__}: {problem});"
            " put a copy in its place, or remove it to begin from the model"
        ) from None


@understood()
def restore(world: World, model: Model, state: Json) -> Site:
    """Fill an empty world with a dumped inventory; the model gives timings and settings only.

    A host that was booting has come up. Raises StateError for a state that is damaged or of another format.
    """
    if state.get("format") != FORMAT:
        raise StateError(f"the state has format {state.get('format')!r}; this version reads {FORMAT}")
    site = new_site(world, model)
    site.options = dict(state["options"])
    site.tags, site.images = Tags.load(state.get("tags", {})), Images.load(state.get("images", {}))
    _Restorer(site, state).restore()
    world.ids.clear()
    world.ids.update(state["ids"])
    for obj in list(world.objects.values()):
        if isinstance(obj, HostSystem) and obj.booting:
            come_up(obj)
    site.load.follow()
    return site


class _Restorer:
    def __init__(self, site: Site, state: Json) -> None:
        self.site = site
        self.world = site.world
        self.makes = [
            Make(**{**data, "gpus": tuple(data["gpus"]), "nvlink": tuple(data.get("nvlink", ()))})
            for data in state["hardware"]
        ]
        self.fields = state["fields"]
        self.bare: dict[str, Json] = state.get("bare", {})
        self.objects: dict[str, Json] = dict(sorted(state["objects"].items(), key=lambda item: _number(item[0])))

    def restore(self) -> None:
        manager = t.cast("CustomFieldsManager", self.world.content["customFieldsManager"])
        manager.fields = {key: Field(key, name, applies_to) for key, name, applies_to in self.fields}
        for moid, data in self._of("Folder"):
            if moid not in self.world.objects:
                self.world.add(Folder(self.site, data["name"], None, data["folder_kind"], moid))
        for moid, data in self._of("Datacenter"):
            datacenter = self.world.add(Datacenter(self.site, data["name"], self._entity(data["parent"]), moid))
            t.cast("Folder", datacenter.parent).put(datacenter)
        for moid, data in self._of("Folder"):
            self._place_folder(self._entity(moid), data)
        for moid, data in self._of("Datastore"):
            store = Datastore(self.site, data["name"], self._entity(data["parent"]), data["type"], 0, moid)
            store.capacity = data["capacity"]
            self._add(store)
        for moid, data in self._of("Network"):
            self._add(Network(self.site, data["name"], self._entity(data["parent"]), moid))
        for moid, data in (*self._of("Cluster"), *self._of("Standalone")):
            kind: type[Compute] = Cluster if data["kind"] == "Cluster" else Standalone
            cluster = kind(self.site, data["name"], self._entity(data["parent"]), moid)
            cluster.drs, cluster.das = DrsSettings(**data["drs"]), codec.decode(data["das"])
            cluster.rules.load(data.get("rules", {}))
            self._add(cluster)
            cluster.environment = self.world.add(EnvironmentBrowser(cluster))
        for moid, data in self._of("ResourcePool"):
            self._pool(moid, data)
        for moid, data in self._of("HostSystem"):
            self._host(moid, data)
        for name, data in self.bare.items():
            self._bare(name, data)
        for moid, data in self._of("VirtualMachine"):
            self._machine(moid, data)
        for moid, data in self.objects.items():
            values = {int(key): value for key, value in data.get("custom_values", {}).items()}
            self._entity(moid).custom_values = values

    def _of(self, kind: str) -> list[tuple[str, Json]]:
        return [(moid, data) for moid, data in self.objects.items() if data["kind"] == kind]

    def _entity(self, moid: str) -> t.Any:
        return self.world.objects[moid]

    def _add(self, entity: Entity) -> None:
        self.world.add(entity)
        t.cast("Folder", entity.parent).put(entity)

    def _place_folder(self, folder: Folder, data: Json) -> None:
        parent = self._entity(data["parent"]) if "parent" in data else None
        if isinstance(parent, Folder):
            parent.put(folder)
        elif isinstance(parent, Datacenter):
            folder.parent = parent
            parent.folders[folder.kind] = folder

    def _pool(self, moid: str, data: Json) -> None:
        owner, parent = self._entity(data["owner"]), self._entity(data["parent"])
        pool = self.world.add(ResourcePool(self.site, data["name"], parent, owner, moid))
        pool.version = data.get("version", 1)
        pool.allocations |= {kind: codec.decode(one) for kind, one in data.get("allocations", {}).items()}
        if parent is owner:
            owner.pool = pool
        else:
            parent.children[pool.name] = pool

    def _host(self, moid: str, data: Json) -> None:
        cluster = self._entity(data["parent"])
        host = self.world.add(HostSystem(self.site, data["name"], cluster, self.makes[data["hardware"]], moid))
        furnish_host(host)
        cluster.hosts[moid] = host
        host.datastores = [obj for obj in self.world.objects.values() if isinstance(obj, Datastore)]
        host.networks = [obj for obj in self.world.objects.values() if isinstance(obj, Network)]
        for resource in (*host.datastores, *host.networks):
            resource.hosts[moid] = host
        _restore_hardware(host, data)

    def _bare(self, name: str, data: Json) -> None:
        """A host that the vCenter does not know."""
        host = HostSystem(self.site, name, None, self.makes[data["hardware"]], data["hardware_id"])
        host.graphics = GraphicsState(host)
        _restore_hardware(host, data)
        self.site.bare[name] = host

    def _machine(self, moid: str, data: Json) -> None:
        host, store = self._entity(data["host"]), self._entity(data["datastore"])
        config = _load_config(data["config"])
        vm = VirtualMachine(self.site, data["name"], host, store, config, template=data["template"], moid=moid)
        vm.network = self._entity(data["network"]) if data["network"] else None
        vm.recipe = Guest.model_validate(data["guest"]) if "guest" in data else None
        vm.demand = Demand.model_validate(data["demand"]) if "demand" in data else None
        for name in ("directory", "power", "suspended_with"):
            setattr(vm, name, data[name])
        vm.boot_time = dt.datetime.fromisoformat(data["boot_time"]) if data["boot_time"] else None
        vm.assigned = {int(key): address for key, address in data["assigned"].items()}
        profiles = vgpu.all_profiles()
        vm.vgpus = {
            int(key): (address, vgpu.Slot(profiles[name], start))
            for key, (address, name, start) in data["vgpus"].items()
        }
        self.world.add(vm)
        vm.register(self._entity(data["parent"]), self._entity(data["pool"]) if data["pool"] else None)
        snapshots.load(vm, data.get("snapshots", {}), _load_config)


def _restore_hardware(host: HostSystem, data: Json) -> None:
    """What a host is and how it is set, wherever it is."""
    host.hardware_id = data.get("hardware_id", host.moid)
    for name in ("connection", "booting", "lost", "in_maintenance"):
        setattr(host, name, data[name])
    host.boot_time = dt.datetime.fromisoformat(data["boot_time"])
    host.packages = {package["name"]: Package(**package) for package in data["packages"]}
    host.services = {key: (running, policy) for key, (running, policy) in data.get("services", {}).items()}
    host.passthrough = {address: Passthrough(*state) for address, state in data["passthrough"].items()}
    graphics = data["graphics"]
    for name in ("default_type", "policy", "manager", "running_manager"):
        setattr(host.graphics, name, graphics[name])
    host.graphics.devices = {address: DeviceSetting(*one) for address, one in graphics["devices"].items()}


def _load_config(data: Json) -> VmConfig:
    config = VmConfig(**{name: data[name] for name in _PLAIN})
    config.extra_config = dict(data["extra_config"])
    config.settings = {key: codec.decode(value) for key, value in data["settings"].items()}
    if "disks_gb" in data:
        config.blueprint = blueprint(tuple(data["disks_gb"]))
    else:
        config.devices = tuple(codec.decode(device) for device in data["devices"])
    return config
