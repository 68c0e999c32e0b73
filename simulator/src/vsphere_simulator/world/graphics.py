"""Graphics of a host: the vGPU manager, the type of each GPU, and the vGPU types on offer."""

from __future__ import annotations

import dataclasses
import typing as t

from vsphere_simulator.kernel.objects import ManagedObject, method, prop
from vsphere_simulator.vmomi import make, vim
from vsphere_simulator.world import vgpu
from vsphere_simulator.world.entity import invalid_argument

if t.TYPE_CHECKING:
    from vsphere_simulator.world.hardware import PciFunction
    from vsphere_simulator.world.host import HostSystem
    from vsphere_simulator.world.virtual_machine import VirtualMachine

KIB_PER_GB = 1024 * 1024
GRAPHICS_TYPES = ("shared", "sharedDirect")
POLICIES = ("performance", "consolidation")
MODES = ("sameSize", "mixedSize")


@dataclasses.dataclass(slots=True)
class DeviceSetting:
    """What is configured for one GPU."""

    graphics_type: str
    mode: str = "sameSize"


class GraphicsState:
    """A host's graphics settings and what follows from them."""

    def __init__(self, host: HostSystem) -> None:
        self.host = host
        self.default_type = "shared"
        self.policy = "performance"
        self.devices: dict[str, DeviceSetting] = {}
        """By address, for GPUs that do not just follow the host's default."""
        self.manager: str | None = None
        """Version of the installed vGPU manager."""
        self.running_manager: str | None = None
        """Version that the last boot has loaded."""

    def take_over(self, bare: GraphicsState) -> None:
        """Be set as another inventory object of the same hardware has been."""
        for name in ("default_type", "policy", "devices", "manager", "running_manager"):
            setattr(self, name, getattr(bare, name))

    @property
    def waits_for_boot(self) -> bool:
        """Whether a manager was installed, updated or removed since the last boot."""
        return self.manager != self.running_manager

    def booted(self) -> None:
        """Load what is installed."""
        self.running_manager = self.manager

    def setting(self, address: str) -> DeviceSetting:
        """What applies to a GPU."""
        return self.devices.get(address) or DeviceSetting(self.default_type)

    def active_type(self, function: PciFunction) -> str:
        """`direct` while passed through, `basic` without a running manager, else as configured."""
        if self.host.passthrough_of(function.address).active:
            return "direct"
        return "basic" if self.running_manager is None else self.setting(function.address).graphics_type

    def divisible(self) -> list[PciFunction]:
        """The GPUs that can run vGPUs now."""
        return [f for f in self.host.layout.gpus if self.active_type(f) == "sharedDirect"]

    def profiles(self) -> list[vgpu.Profile]:
        """The vGPU types on offer now."""
        boards = dict.fromkeys(f.gpu.board for f in self.divisible() if f.gpu is not None)
        return [profile for board in boards for profile in vgpu.profiles_of(board)]

    def type_names(self) -> list[str]:
        """The names of the vGPU types on offer now."""
        return [profile.name for profile in self.profiles()]

    def capabilities(self) -> list[t.Any]:
        """HostSharedGpuCapabilities of each type."""
        return [
            make(
                vim.host.SharedGpuCapabilities,
                vgpu=name,
                diskSnapshotSupported=False,
                memorySnapshotSupported=True,
                suspendSupported=True,
                migrateSupported=True,
            )
            for name in self.type_names()
        ]

    def occupancies(self) -> list[vgpu.Occupancy]:
        """The GPUs that can run vGPUs, with those that run or are about to arrive."""
        slots: dict[str, list[vgpu.Slot]] = {}
        held = [placed for vm in self.host.machines.values() for placed in vm.vgpus.values()]
        held += [placed for _, grant in self.host.arriving.values() for placed in grant.vgpus.values()]
        for address, slot in held:
            slots.setdefault(address, []).append(slot)
        return [
            vgpu.Occupancy(
                f.address, f.gpu, self.setting(f.address).mode == "mixedSize", tuple(slots.get(f.address, ()))
            )
            for f in self.divisible()
            if f.gpu is not None
        ]

    def users_of(self, address: str) -> list[VirtualMachine]:
        """Virtual machines with a vGPU on a GPU, or with the whole GPU."""
        return [
            vm
            for vm in self.host.machines.values()
            if any(held == address for held, _ in vm.vgpus.values()) or address in vm.assigned.values()
        ]

    def user_of(self, function: PciFunction) -> VirtualMachine | None:
        """A virtual machine that needs a GPU as it is now."""
        return next(iter(self.users_of(function.address)), None)

    def info(self) -> list[t.Any]:
        """HostGraphicsInfo of each GPU."""
        found = []
        for function in self.host.layout.gpus:
            kind = self.active_type(function)
            found.append(
                make(
                    vim.host.GraphicsInfo,
                    deviceName=function.name,
                    vendorName=function.vendor_name,
                    pciId=function.address,
                    graphicsType=kind,
                    vgpuMode=self.setting(function.address).mode if kind == "sharedDirect" else "none",
                    memorySizeInKB=function.gpu.framebuffer_gb * KIB_PER_GB if function.gpu is not None else 0,
                    vm=[vm.ref for vm in self.users_of(function.address)],
                )
            )
        return found

    def config(self) -> t.Any:
        """HostGraphicsConfig."""
        return make(
            vim.host.GraphicsConfig,
            hostDefaultGraphicsType=self.default_type,
            sharedPassthruAssignmentPolicy=self.policy,
            deviceType=[
                make(
                    vim.host.GraphicsConfig.DeviceType,
                    deviceId=f.address,
                    graphicsType=self.setting(f.address).graphics_type,
                    vgpuMode=self.setting(f.address).mode,
                )
                for f in self.host.layout.gpus
            ],
        )

    def changed(self) -> None:
        """Tell who watches that types, modes or users have changed."""
        world = self.host.world
        paths = ("graphicsInfo", "graphicsConfig", "sharedPassthruGpuTypes", "sharedGpuCapabilities")
        world.changed(self.host, *(f"config.{path}" for path in paths))
        if "graphicsManager" in self.host.managers:
            world.changed(self.host.managers["graphicsManager"], *paths)


class GraphicsManager(ManagedObject):
    """The part of a host that UpdateGraphicsConfig is called on."""

    wsdl = vim.host.GraphicsManager

    def __init__(self, host: HostSystem) -> None:
        super().__init__(host.world, f"graphicsManager-{host.moid.removeprefix('host-')}")
        self.host = host
        self.name = host.name
        self.parent = host

    @prop("graphicsInfo")
    def _info(self) -> list[t.Any]:
        return self.host.graphics.info()

    @prop("graphicsConfig")
    def _config(self) -> t.Any:
        return self.host.graphics.config()

    @prop("sharedPassthruGpuTypes")
    def _types(self) -> list[str]:
        return self.host.graphics.type_names()

    @prop("sharedGpuCapabilities")
    def _capabilities(self) -> list[t.Any]:
        return self.host.graphics.capabilities()

    @prop("value", "availableField")
    def _nothing(self) -> list[t.Any]:
        return []

    @method("RefreshGraphicsManager")
    def refresh(self) -> None:
        """Read the devices again; here the list is never stale."""
        self.host.require_connected()

    @method("IsSharedGraphicsActive")
    def is_active(self) -> bool:
        """Whether a GPU is in one of the shared types."""
        graphics = self.host.graphics
        return any(graphics.active_type(function) in GRAPHICS_TYPES for function in self.host.layout.gpus)

    @method("RetrieveVgpuDeviceInfo")
    def devices(self) -> list[t.Any]:
        """What each type of GPU on offer can be divided into."""
        return device_info(self.host)

    @method("RetrieveVgpuProfileInfo")
    def profiles(self) -> list[t.Any]:
        """The vGPU types on offer."""
        return profile_info(self.host)

    @method("UpdateGraphicsConfig")
    def update(self, config: t.Any) -> None:
        """Set the host's default type, its assignment policy, and type and mode of single GPUs.

        ResourceInUse when a GPU whose type or mode changes has vGPUs running; InvalidArgument for values that
        do not exist, a GPU that is not there, or mixed-size mode on a board that has none.
        """
        self.host.require_connected()
        graphics = self.host.graphics
        if config.hostDefaultGraphicsType not in GRAPHICS_TYPES:
            raise invalid_argument("config.hostDefaultGraphicsType")
        if config.sharedPassthruAssignmentPolicy not in POLICIES:
            raise invalid_argument("config.sharedPassthruAssignmentPolicy")
        wanted = self._wanted(config)
        for function in self.host.layout.gpus:
            now = graphics.setting(function.address)
            then = wanted.get(function.address, DeviceSetting(config.hostDefaultGraphicsType))
            if now != then and (user := graphics.user_of(function)) is not None:
                raise vim.fault.ResourceInUse(
                    type=vim.host.GraphicsInfo,
                    name=function.address,
                    msg=f"The resource '{function.address}' is in use by virtual machine {user.name}.",
                )
        graphics.default_type = config.hostDefaultGraphicsType
        graphics.policy = config.sharedPassthruAssignmentPolicy
        default = DeviceSetting(graphics.default_type)
        graphics.devices = {address: setting for address, setting in wanted.items() if setting != default}
        graphics.changed()

    def _wanted(self, config: t.Any) -> dict[str, DeviceSetting]:
        """The settings asked for; a GPU that is not named follows the default."""
        by_address = {function.address: function for function in self.host.layout.gpus}
        wanted: dict[str, DeviceSetting] = {}
        for device in config.deviceType or ():
            function = by_address.get(device.deviceId)
            mode = device.vgpuMode or self.host.graphics.setting(device.deviceId).mode
            if function is None or function.gpu is None:
                raise invalid_argument("config.deviceType.deviceId")
            if device.graphicsType not in GRAPHICS_TYPES:
                raise invalid_argument("config.deviceType.graphicsType")
            if mode not in MODES or (mode == "mixedSize" and not (function.gpu.mixed and self._has_modes)):
                raise invalid_argument(
                    "config.deviceType.vgpuMode", f"GPU {device.deviceId} does not support the vGPU mode {mode}."
                )
            wanted[device.deviceId] = DeviceSetting(device.graphicsType, mode)
        return wanted

    @property
    def _has_modes(self) -> bool:
        return self.host.site.api_version >= (8, 0, 3)


def device_info(host: HostSystem) -> list[t.Any]:
    """VirtualMachineVgpuDeviceInfo of each type of GPU that can be divided."""
    gpus = {f.gpu.key: f for f in host.graphics.divisible() if f.gpu is not None}
    return [
        make(
            vim.vm.VgpuDeviceInfo,
            name=function.name,
            deviceName=function.name,
            deviceVendorId=device_vendor_id(function),
            maxFbSizeInGib=function.gpu.framebuffer_gb if function.gpu is not None else 0,
            timeSlicedCapable=True,
            migCapable=False,
            computeProfileCapable=True,
            quadroProfileCapable=True,
        )
        for function in gpus.values()
    ]


def profile_info(host: HostSystem) -> list[t.Any]:
    """VirtualMachineVgpuProfileInfo of each type on offer."""
    vendor_ids = {f.gpu.board: device_vendor_id(f) for f in host.graphics.divisible() if f.gpu is not None}
    return [
        make(
            vim.vm.VgpuProfileInfo,
            name=profile.name,
            profileName=profile.name,
            deviceVendorId=vendor_ids[profile.board],
            fbSizeInGib=profile.size_gb,
            profileSharing="timeSliced",
            profileClass="compute" if profile.series == "c" else "quadro",
        )
        for profile in host.graphics.profiles()
    ]


def device_vendor_id(function: PciFunction) -> int:
    """Device and vendor id in one number, the device's in the upper half."""
    return (function.device_id << 16) | function.vendor_id
