"""An ESXi host: what it is, what state it is in, and what runs on it."""

from __future__ import annotations

import dataclasses
import datetime as dt
import functools
import typing as t

from vsphere_simulator.kernel.objects import method, prop
from vsphere_simulator.vmomi import make, vim, vmodl
from vsphere_simulator.world import cluster_admin, host_facts, host_services, maintenance
from vsphere_simulator.world.entity import Entity, Signal
from vsphere_simulator.world.hardware import PciFunction, PciLayout, passthrough_info, pci_layout

if t.TYPE_CHECKING:
    import asyncio

    from vsphere_simulator.kernel.objects import Context, ManagedObject
    from vsphere_simulator.world.admission import Grant
    from vsphere_simulator.world.compute import Compute
    from vsphere_simulator.world.graphics import GraphicsState
    from vsphere_simulator.world.patches import Package
    from vsphere_simulator.world.site import Site
    from vsphere_simulator.world.storage import Datastore, Network
    from vsphere_simulator.world.virtual_machine import VirtualMachine

GIB = 1024**3
HYPERVISOR_MHZ: t.Final = 100
"""What ESXi itself takes of the CPUs."""


@dataclasses.dataclass(frozen=True, slots=True)
class Make:
    """What a host is made of; hosts of one make share it."""

    vendor: str
    model: str
    cpu_model: str
    cpu_sockets: int
    cpu_cores: int
    """Per socket."""
    cpu_mhz: int
    memory_gb: int
    esxi_version: str
    esxi_build: str
    rebind_without_reboot: bool
    gpus: tuple[str, ...]
    """Catalogue keys in slot order."""
    pci_functions: int
    nvlink: tuple[int, ...] = ()
    """Slots of the GPUs that are joined by NVLink."""

    @property
    def layout(self) -> PciLayout:
        """Its PCI functions."""
        return pci_layout(self.gpus, self.pci_functions)


@dataclasses.dataclass(slots=True)
class Passthrough:
    """Passthrough state of one PCI function that is not simply off."""

    enabled: bool = False
    active: bool = False
    label: str | None = None


class HostSystem(Entity):
    """An ESXi host."""

    wsdl = vim.HostSystem
    rename_privilege = "Host.Inventory.EditCluster"
    graphics: GraphicsState
    managers: dict[str, ManagedObject]

    def __init__(self, site: Site, name: str, cluster: Compute | None, hardware: Make, moid: str | None = None) -> None:
        super().__init__(site, moid or site.new_id("host-"), name, cluster)
        self.make = hardware
        self.hardware_id = self.moid
        """What its uuid and certificate come from; a host that is removed and added again keeps it."""
        self.connection = "connected"
        """connected, disconnected or notResponding."""
        self.booting = False
        self.lost = False
        """Did not come back from a reboot."""
        self.boot_time: dt.datetime = self.world.clock.now()
        self.in_maintenance = False
        self.entering_maintenance = False
        self.passthrough: dict[str, Passthrough] = {}
        self.machines: dict[str, VirtualMachine] = {}
        self.arriving: dict[str, tuple[VirtualMachine, Grant]] = {}
        """Machines on their way here by vMotion, with the GPUs held for them."""
        self.packages: dict[str, Package] = {}
        """Software added to the hypervisor's own, by name."""
        self.services: dict[str, tuple[bool, str]] = {}
        """Running and policy of the services that are not as on a new host, by key."""
        self.datastores: list[Datastore] = []
        self.networks: list[Network] = []
        self.machines_changed = Signal()
        """Fired when a virtual machine comes, goes, or changes its power state."""
        self.boot_job: asyncio.Task[None] | None = None
        self.managers = {}

    # --- what it is made of ---

    @property
    def cluster(self) -> Compute:
        """The cluster it belongs to, or the compute resource that it is when it stands alone."""
        return t.cast("Compute", self.parent)

    @property
    def layout(self) -> PciLayout:
        """Its PCI functions."""
        return self.make.layout

    @functools.cached_property
    def uuid(self) -> str:
        """The hardware's uuid."""
        return self.site.uuid_of(f"host/{self.hardware_id}")

    @property
    def system_id(self) -> str:
        """What a fixed DirectPath device names its host by; only QueryConfigTarget tells it."""
        return self.uuid

    @property
    def memory_bytes(self) -> int:
        """Installed memory."""
        return self.make.memory_gb * GIB

    @property
    def cores(self) -> int:
        """Cores of all sockets."""
        return self.make.cpu_sockets * self.make.cpu_cores

    @property
    def threads(self) -> int:
        """Hardware threads of all cores."""
        return 2 * self.cores

    @property
    def cpu_mhz_total(self) -> int:
        """MHz of all cores."""
        return self.cores * self.make.cpu_mhz

    @property
    def cpu_mhz_used(self) -> int:
        """MHz that machines and ESXi itself use now."""
        return HYPERVISOR_MHZ + round(sum(self.site.load.now(vm).used for vm in self.running))

    def take_over(self, bare: HostSystem) -> None:
        """Be the hardware, with its settings and software, that another inventory object has been."""
        for name in ("hardware_id", "boot_time", "in_maintenance", "passthrough", "packages", "services"):
            setattr(self, name, getattr(bare, name))
        self.graphics.take_over(bare.graphics)

    # --- what state it is in ---

    @property
    def answers(self) -> bool:
        """Whether the vCenter can talk to it."""
        return self.connection == "connected"

    @property
    def running(self) -> list[VirtualMachine]:
        """Virtual machines that are powered on here."""
        return [vm for vm in self.machines.values() if vm.is_on]

    def require_connected(self) -> None:
        """Raise the fault of an operation on a host that the vCenter cannot talk to."""
        if self.connection == "disconnected":
            raise vmodl.fault.HostNotConnected(
                msg="Unable to communicate with the remote host, since it is disconnected."
            )
        if self.connection == "notResponding":
            raise vmodl.fault.HostCommunication(msg="An error occurred while communicating with the remote host.")

    def require_open_for_work(self) -> None:
        """Raise a fault unless virtual machines may be powered on here."""
        self.require_connected()
        if self.in_maintenance or self.entering_maintenance:
            raise vim.fault.InvalidHostState(
                host=self.ref, msg="The operation is not allowed in the current state of the host."
            )

    def passthrough_of(self, address: str) -> Passthrough:
        """The passthrough state of a function, off for one that nobody has configured."""
        return self.passthrough.get(address) or Passthrough()

    def holder_of(self, function: PciFunction) -> VirtualMachine | None:
        """The powered-on virtual machine that has this function, by passthrough."""
        return next((vm for vm in self.machines.values() if function.address in vm.assigned.values()), None)

    def passthrough_list(self) -> list[t.Any]:
        """HostPciPassthruInfo of every function, by address."""
        idle = self.layout.idle_passthrough
        if not self.passthrough:
            return list(idle.values())
        found = dict(idle)
        for address, state in self.passthrough.items():
            function = self.layout.functions[address]
            found[address] = passthrough_info(function, enabled=state.enabled, active=state.active, label=state.label)
        return list(found.values())

    def passthrough_changed(self) -> None:
        """Tell who watches that passthrough states have changed."""
        self.passthrough = {address: state for address, state in self.passthrough.items() if state != Passthrough()}
        self.world.changed(
            self,
            "config.pciPassthruInfo",
            "config.graphicsInfo",
            "config.sharedPassthruGpuTypes",
            "summary.rebootRequired",
        )
        for name, path in (("pciPassthruSystem", "pciPassthruInfo"), ("graphicsManager", "graphicsInfo")):
            if name in self.managers:
                self.world.changed(self.managers[name], path)

    # --- properties ---

    @prop("config.pciPassthruInfo")
    def _passthrough_info(self) -> list[t.Any]:
        return self.passthrough_list()

    @prop("hardware.pciDevice")
    def _pci_devices(self) -> list[t.Any]:
        return self.layout.devices

    @prop("hardware")
    def _hardware(self) -> t.Any:
        return host_facts.hardware(self)

    @prop("hardware.memorySize")
    def _memory_size(self) -> int:
        return self.memory_bytes

    @prop("runtime", "summary.runtime")
    def _runtime(self) -> t.Any:
        return host_facts.runtime(self)

    @prop("runtime.connectionState", "summary.runtime.connectionState")
    def _connection_state(self) -> str:
        return self.connection

    @prop("runtime.inMaintenanceMode", "summary.runtime.inMaintenanceMode")
    def _in_maintenance(self) -> bool:
        return self.in_maintenance

    @prop("runtime.bootTime", "summary.runtime.bootTime")
    def _boot_time(self) -> dt.datetime:
        return self.boot_time

    @prop("summary")
    def _summary(self) -> t.Any:
        return host_facts.summary(self)

    @prop("summary.rebootRequired")
    def _reboot_required(self) -> bool:
        return host_facts.reboot_required(self)

    @prop("config")
    def _config(self) -> t.Any:
        return host_facts.config(self)

    @prop("config.product", "summary.config.product")
    def _product(self) -> t.Any:
        return host_facts.product(self.make)

    @prop("config.network")
    def _network_info(self) -> t.Any:
        return host_services.network(self)

    @prop("config.graphicsInfo")
    def _graphics_info(self) -> list[t.Any]:
        return self.graphics.info()

    @prop("config.graphicsConfig")
    def _graphics_config(self) -> t.Any:
        return self.graphics.config()

    @prop("config.sharedPassthruGpuTypes")
    def _shared_types(self) -> list[str]:
        return self.graphics.type_names()

    @prop("config.sharedGpuCapabilities")
    def _shared_capabilities(self) -> list[t.Any]:
        return self.graphics.capabilities()

    @prop("capability")
    def _capability(self) -> t.Any:
        return host_facts.capability(self.make.rebind_without_reboot)

    @prop("configManager")
    def _config_manager(self) -> t.Any:
        return make(vim.host.ConfigManager, **{name: manager.ref for name, manager in self.managers.items()})

    @prop("vm")
    def _machines(self) -> list[VirtualMachine]:
        return list(self.machines.values())

    @prop("datastore")
    def _datastores(self) -> list[Datastore]:
        return self.datastores

    @prop("network")
    def _networks(self) -> list[Network]:
        return self.networks

    @prop("overallStatus", "configStatus", "summary.overallStatus")
    def _host_status(self) -> str:
        return {"connected": "green", "disconnected": "gray"}.get(self.connection, "red")

    # --- operations ---

    @method("EnterMaintenanceMode_Task")
    def enter_maintenance(
        self,
        ctx: Context,
        timeout: int,
        evacuate_powered_off_vms: bool | None = None,
        maintenance_spec: t.Any = None,  # noqa: ARG002 - says what happens to vSAN, which no host has
    ) -> t.Any:
        """Keep running until no virtual machine runs here, then enter maintenance mode."""
        return maintenance.enter(ctx, self, timeout, bool(evacuate_powered_off_vms))

    @method("ExitMaintenanceMode_Task")
    def exit_maintenance(self, ctx: Context, timeout: int) -> t.Any:
        """Leave maintenance mode."""
        return maintenance.leave(ctx, self, timeout)

    @method("RebootHost_Task")
    def reboot(self, ctx: Context, force: bool) -> t.Any:
        """Restart: needs maintenance mode or force; the host is away for its boot time."""
        return maintenance.reboot(ctx, self, force)

    @method("DisconnectHost_Task")
    def disconnect(self, ctx: Context) -> t.Any:
        """Let the vCenter stop talking to the host."""
        return maintenance.disconnect(ctx, self)

    @method("Destroy_Task", privilege="")
    def destroy(self, ctx: Context) -> t.Any:
        """Remove the host from the inventory; one in a cluster must be in maintenance mode or disconnected."""
        return cluster_admin.remove_host(ctx, self)

    @method("RetrieveHardwareUptime")
    def hardware_uptime(self) -> int:
        """Seconds since the last boot."""
        self.require_connected()
        return int((self.world.clock.now() - self.boot_time).total_seconds())

    @method("ReconnectHost_Task")
    def reconnect(self, ctx: Context, cnx_spec: t.Any = None, reconnect_spec: t.Any = None) -> t.Any:  # noqa: ARG002 - state is always in step
        """Let the vCenter talk to the host again; `cnx_spec` is for a host whose credentials have changed."""
        if cnx_spec is not None:
            cluster_admin.check_login(self, cnx_spec)
        return maintenance.reconnect(ctx, self)
