"""Build the inventory that a model describes."""

from __future__ import annotations

import datetime as dt
import functools
import typing as t

from vsphere_simulator.kernel.registry import World
from vsphere_simulator.kernel.service import about_info, install_services
from vsphere_simulator.model.loader import ModelError
from vsphere_simulator.model.schema import Cluster as ClusterModel
from vsphere_simulator.model.schema import FixedGpu, HostShape, HostVms, Model, VmShape, expand
from vsphere_simulator.model.schema import Host as HostModel
from vsphere_simulator.vmomi import make, vim
from vsphere_simulator.world import admission, policies
from vsphere_simulator.world import devices as dev
from vsphere_simulator.world.catalog import CATALOG
from vsphere_simulator.world.compute import Cluster, Compute, DrsSettings, Standalone
from vsphere_simulator.world.custom_fields import CustomFieldsManager
from vsphere_simulator.world.environment import EnvironmentBrowser
from vsphere_simulator.world.folders import Datacenter, Folder
from vsphere_simulator.world.graphics import DeviceSetting, GraphicsManager, GraphicsState
from vsphere_simulator.world.host import HostSystem, Make, Passthrough
from vsphere_simulator.world.host_services import CertificateManager, ServiceSystem
from vsphere_simulator.world.images import initial
from vsphere_simulator.world.options import DEFAULTS, OptionManager, typed
from vsphere_simulator.world.passthrough import PciPassthruSystem
from vsphere_simulator.world.patches import ImageConfigManager, Package, PatchManager, manager_package
from vsphere_simulator.world.performance import PerformanceManager
from vsphere_simulator.world.pools import ResourcePool
from vsphere_simulator.world.provisioning import new_config
from vsphere_simulator.world.search import SearchIndex
from vsphere_simulator.world.site import Site
from vsphere_simulator.world.storage import Datastore, Network
from vsphere_simulator.world.virtual_machine import AGENT_EXTENSION, VirtualMachine

if t.TYPE_CHECKING:
    from vsphere_simulator.kernel.clock import Clock

UPTIME = dt.timedelta(days=30)
"""How long hosts have been up when the simulation starts."""


def new_site(world: World, model: Model) -> Site:
    """An empty vCenter with a model's settings: root folder and singletons, nothing in them."""
    version = tuple(int(part) for part in model.api_version.split("."))
    options = dict(DEFAULTS) | {key: typed(key, text) for key, text in model.options.items()}
    site = Site(world, model.datacenter, version, model.timings, options)
    site.depots = {
        url: [Package(**component.model_dump()) for component in components] for url, components in model.depots.items()
    }
    world.content["rootFolder"] = world.add(Folder(site, "Datacenters", None, "root", "group-d1"))
    world.content["customFieldsManager"] = world.add(CustomFieldsManager(site))
    world.content["searchIndex"] = world.add(SearchIndex(site))
    world.content["setting"] = world.add(OptionManager(site))
    world.content["perfManager"] = world.add(PerformanceManager(site))
    world.ids["entity"] = max(1, world.ids["entity"])
    return site


def build_world(model: Model, clock: Clock, *, state: dict[str, t.Any] | None = None) -> World:
    """A whole vCenter: services, users and the inventory of a model, or of a dumped state if there is one.

    Raises ModelError for a model whose parts do not fit, StateError for a state that cannot be restored.
    """
    from vsphere_simulator.world.state import restore

    world = World(clock)
    install_services(world, about_info(model.api_version))
    try:
        if state is None:
            build(world, model)
        else:
            restore(world, model, state)
        for name, privileges in model.roles.items():
            world.authorization.add_role(name, privileges)
        for user in model.users:
            world.authorization.add_user(user.name, user.password, user.role)
        if state is not None:
            world.authorization.load(state.get("authorization", {}))
    except ValueError as error:
        raise ModelError("model", [str(error)]) from error
    except KeyError as error:
        known = ", ".join(world.authorization.roles)
        raise ModelError("model", [f"users: no role is called {error.args[0]}; known: {known}"]) from error
    return world


def build(world: World, model: Model) -> Site:
    """Fill an empty world with what a model describes. Raises ValueError for a device that no host has."""
    site = new_site(world, model)
    root = t.cast("Folder", world.content["rootFolder"])
    datacenter = world.add(Datacenter(site, model.datacenter, root))
    root.put(datacenter)
    datacenter.add_folders()
    _Builder(site, model, datacenter).build()
    site.load.follow()
    return site


class _Builder:
    def __init__(self, site: Site, model: Model, datacenter: Datacenter) -> None:
        self.site = site
        self.world = site.world
        self.model = model
        self.datacenter = datacenter
        self.stores: dict[str, Datastore] = {}
        self.networks: dict[str, Network] = {}
        self.hosts: dict[str, HostSystem] = {}
        self.clusters: dict[str, Cluster] = {}
        self.machines: dict[str, VirtualMachine] = {}

    def build(self) -> None:
        folders = self.datacenter.folders
        for store in self.model.datastores:
            made = Datastore(self.site, store.name, folders["datastore"], store.type, store.capacity_gb)
            self.stores[store.name] = self.world.add(made)
            folders["datastore"].put(made)
        for one in self.model.networks:
            network = Network(self.site, one.name, folders["network"])
            self.networks[one.name] = self.world.add(network)
            folders["network"].put(network)
        fields = t.cast("CustomFieldsManager", self.world.content["customFieldsManager"])
        for name in self.model.custom_attributes:
            fields.define(name, None)
        policies.build_categories(self.site, self.model.categories)
        for cluster in self.model.clusters:
            self._cluster(cluster)
        for entry in self.model.standalone_hosts:
            for name in expand(entry.name):
                self._standalone(name, entry)
        for item in self.model.templates:
            host = self.hosts[item.host] if item.host else next(iter(self.hosts.values()))
            self._machine(item, item.name, host, item.datastore, template=True)
        for vm in self.model.vms:
            host = self.hosts[vm.host]
            machine = self._machine(vm, vm.name, host, vm.datastore, pool=vm.pool)
            policies.build_snapshots(machine, vm.snapshots)
        for cluster in self.model.clusters:
            policies.build_rules(self.clusters[cluster.name], cluster, self._named)
        for bare in self.model.bare_hosts:
            for name in expand(bare.name):
                self._bare(name, bare)

    def _cluster(self, model: ClusterModel) -> None:
        parent = self.datacenter.folders["host"]
        cluster = self.clusters[model.name] = self.world.add(Cluster(self.site, model.name, parent))
        parent.put(cluster)
        cluster.drs = DrsSettings(
            enabled=model.drs.enabled, automation=model.drs.automation, options=dict(model.drs.options)
        )
        cluster.das.enabled = cluster.das.admissionControlEnabled = model.ha
        furnish(cluster)
        for entry in model.hosts:
            shape = merged(model.host_defaults, entry)
            for name in expand(entry.name):
                self._host(cluster, name, shape)
        policies.mark(cluster, model)
        policies.build_pools(cluster.pool, model.pools, policies.mark)
        if model.image is not None:
            self.site.images.of[cluster.moid] = initial(cluster)
            self.site.images.of[cluster.moid].components = dict(model.image)
        hosts = list(cluster.hosts.values())
        for number in range(model.vcls_agents if hosts else 0):
            self._agent(hosts[number % len(hosts)], number)

    def _host(self, cluster: Compute, name: str, shape: HostShape) -> None:
        host = self.world.add(HostSystem(self.site, name, cluster, make_of(shape)))
        furnish_host(host)
        self.hosts[name] = host
        cluster.hosts[host.moid] = host
        host.datastores = list(self.stores.values())
        host.networks = list(self.networks.values())
        for resource in (*host.datastores, *host.networks):
            resource.hosts[host.moid] = host
        self._hardware(host, shape)
        policies.mark(host, shape)
        for group in shape.vms:
            pattern = group.name.replace("{host}", name.partition(".")[0]).replace("{cluster}", cluster.name)
            for vm_name in expand(pattern):
                self._machine(group, vm_name, host, None)

    def _standalone(self, name: str, shape: HostShape) -> None:
        parent = self.datacenter.folders["host"]
        compute = self.world.add(Standalone(self.site, name, parent))
        parent.put(compute)
        furnish(compute)
        self._host(compute, name, shape)

    def _named(self, name: str) -> HostSystem | VirtualMachine:
        found = self.machines.get(name) or self.hosts.get(name)
        if found is None:
            raise ValueError(f"there is no virtual machine or host {name}")
        return found

    def _bare(self, name: str, shape: HostShape) -> None:
        host = self.site.bare[name] = HostSystem(self.site, name, None, make_of(shape))
        host.graphics = GraphicsState(host)
        self._hardware(host, shape)

    def _hardware(self, host: HostSystem, shape: HostShape) -> None:
        """How a host is set, wherever it is."""
        host.boot_time = (self.world.clock.now() - UPTIME).replace(microsecond=0)
        host.connection = shape.connection_state
        host.in_maintenance = shape.in_maintenance
        host.graphics.default_type = shape.graphics_type
        host.graphics.policy = shape.assignment_policy
        if shape.vgpu_manager is not None:
            manager = manager_package(shape.vgpu_manager)
            host.packages[manager.name] = manager
            host.graphics.manager = host.graphics.running_manager = shape.vgpu_manager
        self._gpus(host, shape)

    def _gpus(self, host: HostSystem, shape: HostShape) -> None:
        slots = [gpu for gpu in shape.gpus for _ in range(gpu.count)]
        for gpu, function in zip(slots, host.layout.gpus, strict=True):
            if gpu.passthrough or gpu.label:
                for one in host.layout.group(function):
                    host.passthrough[one.address] = Passthrough(gpu.passthrough, gpu.passthrough)
                host.passthrough[function.address].label = gpu.label
            setting = DeviceSetting(gpu.graphics_type or shape.graphics_type, gpu.vgpu_mode)
            if setting != DeviceSetting(shape.graphics_type):
                host.graphics.devices[function.address] = setting

    def _folder(self, path: str | None) -> Folder:
        folder = self.datacenter.folders["vm"]
        for name in (path or "").split("/"):
            if not name:
                continue
            child = folder.children.get(name)
            if child is None:
                child = self.world.add(Folder(self.site, name, folder, "vm"))
                folder.put(child)
            folder = t.cast("Folder", child)
        return folder

    def _machine(
        self,
        shape: VmShape,
        name: str,
        host: HostSystem,
        store: str | None,
        *,
        template: bool = False,
        pool: str | None = None,
    ) -> VirtualMachine:
        folder = self._folder(shape.folder)
        if name in folder.children:
            raise ValueError(f"virtual machine {name}: the name is there more than once")
        moid = self.site.new_id("vm-")
        config = new_config(
            self.site,
            moid,
            cpus=shape.cpus,
            memory_mb=shape.memory_mb,
            memory_locked=shape.memory_locked,
            firmware=shape.firmware,
            hardware_version=shape.hardware_version,
            guest_id=shape.guest_id,
            extra_config=dict(shape.extra_config),
            blueprint=blueprint(tuple(shape.disks_gb)),
        )
        datastore = self.stores[store] if store else next(iter(self.stores.values()))
        machine = VirtualMachine(self.site, name, host, datastore, config, template=template, moid=moid)
        machine.recipe, machine.demand = shape.guest, shape.cpu_demand
        self.world.add(machine)
        machine.register(folder, policies.pool_at(host.cluster.pool, pool))
        self.machines[name] = machine
        policies.mark(machine, shape)
        if shape.gpus:
            config.devices = dev.linked((*machine.devices, *gpu_devices(machine, shape)))
            config.blueprint = None
        if shape.power == "on" and not template:
            start_at_once(machine)
        return machine

    def _agent(self, host: HostSystem, number: int) -> None:
        shape = HostVms(cpus=1, memory_mb=128, disks_gb=[2], folder="vCLS", guest_id="vmwarePhoton64Guest")
        name = f"vCLS-{self.site.uuid_of(f'vcls/{host.cluster.name}/{number}')}"
        machine = self._machine(shape, name, host, None)
        machine.config.settings["managedBy"] = make(
            vim.ext.ManagedByInfo, extensionKey=AGENT_EXTENSION, type="cluster-agent"
        )
        start_at_once(machine)


def start_at_once(machine: VirtualMachine) -> None:
    """Be on when the simulation starts. Raises ValueError when the host could not have powered it on."""
    try:
        grant = admission.admit(machine, machine.host)
    except vim.fault.VimFault as fault:
        raise ValueError(f"virtual machine {machine.name} cannot be on: {fault.msg}") from fault
    machine.assigned, machine.vgpus = grant.assigned, grant.vgpus
    machine.start()


@functools.lru_cache(maxsize=256)
def blueprint(disks_gb: tuple[int, ...]) -> dev.Blueprint:
    """The shared blueprint of machines with these disks."""
    return dev.Blueprint(disks_gb)


def merged(defaults: HostShape, host: HostModel) -> HostShape:
    """A host's shape: what its entry says, and the cluster's defaults for the rest."""
    said = {key: getattr(host, key) for key in host.model_fields_set if key != "name"}
    return defaults.model_copy(update=said)


def make_of(shape: HostShape) -> Make:
    """The hardware of a host."""
    return Make(
        vendor=shape.vendor,
        model=shape.model,
        cpu_model=shape.cpu_model,
        cpu_sockets=shape.cpu_sockets,
        cpu_cores=shape.cpu_cores,
        cpu_mhz=shape.cpu_mhz,
        memory_gb=shape.memory_gb,
        esxi_version=shape.esxi_version,
        esxi_build=shape.esxi_build,
        rebind_without_reboot=shape.rebind_without_reboot,
        gpus=tuple(gpu.gpu for gpu in shape.gpus for _ in range(gpu.count)),
        pci_functions=shape.pci_functions,
        nvlink=tuple(
            slot for slot, gpu in enumerate(gpu for gpu in shape.gpus for _ in range(gpu.count)) if gpu.nvlink
        ),
    )


def furnish(cluster: Compute) -> None:
    """Give a cluster or standalone host its root resource pool and its environment browser."""
    cluster.pool = cluster.world.add(ResourcePool(cluster.site, "Resources", cluster, cluster))
    cluster.environment = cluster.world.add(EnvironmentBrowser(cluster))


def furnish_host(host: HostSystem) -> None:
    """Give a host its graphics and its managers."""
    host.graphics = GraphicsState(host)
    host.managers = {
        "pciPassthruSystem": host.world.add(PciPassthruSystem(host)),
        "graphicsManager": host.world.add(GraphicsManager(host)),
        "patchManager": host.world.add(PatchManager(host)),
        "imageConfigManager": host.world.add(ImageConfigManager(host)),
        "serviceSystem": host.world.add(ServiceSystem(host)),
        "certificateManager": host.world.add(CertificateManager(host)),
    }


def gpu_devices(machine: VirtualMachine, shape: VmShape) -> list[t.Any]:
    """The GPU devices that a model gives a machine."""
    found = []
    for index, gpu in enumerate(shape.gpus):
        if isinstance(gpu, FixedGpu):
            function = machine.host.layout.functions.get(gpu.address)
            if function is None:
                raise ValueError(
                    f"virtual machine {machine.name}: host {machine.host.name} has no PCI device {gpu.address}"
                )
            backing = make(
                dev.FixedBacking,
                id=gpu.address,
                deviceId=f"{function.device_id:x}",
                systemId=machine.host.system_id,
                vendorId=function.vendor_id,
                deviceName=function.name,
            )
        elif gpu.mode == "dynamic":
            ids = [(int(one[:4], 16), int(one[5:], 16)) for one in gpu.ids]
            names = [CATALOG.by_pci[one].name for one in gpu.ids if one in CATALOG.by_pci]
            backing = make(
                dev.DynamicBacking,
                deviceName=names[0] if names else "",
                customLabel=gpu.label,
                allowedDevice=[make(dev.PciPassthrough.AllowedDevice, vendorId=v, deviceId=d) for v, d in ids],
            )
        else:
            backing = make(dev.VgpuBacking, vgpu=gpu.profile)
        plain = make(
            dev.PciPassthrough,
            key=13000 + index,
            controllerKey=dev.PCI_CONTROLLER,
            unitNumber=18 + index,
            backing=backing,
        )
        found.append(dev.copy_of(plain, deviceInfo=dev.described(plain, index + 1)))
    return found
