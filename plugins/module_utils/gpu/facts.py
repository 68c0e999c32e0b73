# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Facts that planners read: plain, immutable data about hosts and virtual machines.

Nothing here knows pyVmomi or Ansible. The vSphere layer fills these records, planners compare them
with the wanted state, and `to_dict` / `from_dict` carry them through Ansible (the `assume` option).
Names of fields follow the vSphere API where it has one.
"""

from __future__ import annotations

import dataclasses
import typing as t

Connection = t.Literal["connected", "disconnected", "notResponding"]
Power = t.Literal["poweredOn", "poweredOff", "suspended", "unknown"]
AssignmentMode = t.Literal["fixed", "dynamic", "vgpu"]


@dataclasses.dataclass(frozen=True, slots=True)
class PciFunction:
    """One PCI function of a host that passthrough can be asked for (HostPciDevice + HostPciPassthruInfo)."""

    address: str
    """PCI address as vSphere writes it, for example `0000:3b:00.0`."""
    vendor_id: int
    """Unsigned 16-bit vendor id; NVIDIA is 0x10de."""
    device_id: int
    """Unsigned 16-bit device id."""
    class_id: int
    """PCI base class and subclass, for example 0x0302 (3D controller)."""
    name: str
    passthrough_capable: bool = False
    passthrough_enabled: bool = False
    passthrough_active: bool = False
    dependent_device: str | None = None
    hardware_label: str | None = None

    @property
    def id(self) -> str:
        """`vendor:device` in lower-case hex, for example `10de:1db6`."""
        return f"{self.vendor_id:04x}:{self.device_id:04x}"


@dataclasses.dataclass(frozen=True, slots=True)
class Intent:
    """What a run was about to do to an object, kept in the custom attribute `gpuops.intent`."""

    run: str
    """Identifier of the run that wrote it."""
    action: str
    """What it does, for example `maintenance`."""
    started: str
    """UTC time in ISO 8601."""
    boot_time: str | None = None
    """Boot time of the host before the step (ISO 8601), so that a later run knows whether it has rebooted."""
    host: str | None = None
    """Of a virtual machine: name of the host that it was drained from."""


@dataclasses.dataclass(frozen=True, slots=True)
class Drained:
    """A virtual machine that a run of ours has drained from a host and not restored yet."""

    vm: str
    moid: str
    how: str
    """The action of its intent: `moved`, `suspending`, `suspended` or `stopped`."""
    host: str | None
    """Where it is now."""
    power: Power
    foreign: bool = False
    """Somebody else has suspended it: our run died before it could."""


@dataclasses.dataclass(frozen=True, slots=True)
class GraphicsDevice:
    """What a host's graphics manager knows of one GPU (HostGraphicsInfo)."""

    address: str
    graphics_type: str
    """`basic`, `shared`, `direct` or `sharedDirect`."""
    vgpu_mode: str | None = None
    """`none`, `sameSize`, `mixedSize` or `multiInstanceGpu`; None before API 8.0.3."""
    memory_mb: int = 0
    vm_moids: tuple[str, ...] = ()
    """Virtual machines that have a vGPU of this GPU now."""


@dataclasses.dataclass(frozen=True, slots=True)
class GraphicsSetting:
    """What is configured for one GPU (HostGraphicsConfig.deviceType)."""

    address: str
    graphics_type: str
    """`shared` or `sharedDirect`."""
    vgpu_mode: str | None = None
    """`sameSize` or `mixedSize`; None before API 8.0.3."""


@dataclasses.dataclass(frozen=True, slots=True)
class GraphicsConfig:
    """The graphics settings of a host (HostGraphicsConfig)."""

    default_type: str
    """`shared` or `sharedDirect`."""
    assignment_policy: str
    """`performance` (spread) or `consolidation` (fill)."""
    devices: tuple[GraphicsSetting, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True)
class DeviceGroup:
    """Devices that a host gives out together only, such as GPUs joined by NVLink (VendorDeviceGroupInfo)."""

    name: str
    """For example `Nvidia:2@nvidia_a100-80c%NVLink`."""
    profiles: tuple[str, ...] = ()
    """vGPU profile of each device, in the order of the group; empty for a device that is no vGPU."""
    sequence: tuple[int, ...] = ()
    """Sequence id of each device."""


@dataclasses.dataclass(frozen=True, slots=True)
class HostFacts:
    """An ESXi host, as far as GPUs are concerned."""

    name: str
    moid: str
    cluster: str | None
    connection: Connection
    in_maintenance: bool
    boot_time: str | None
    """ISO 8601 in UTC; None while the host does not answer."""
    rebind_without_reboot: bool = False
    """HostCapability.deviceRebindWithoutRebootSupported: passthrough can be applied at once."""
    devices: tuple[PciFunction, ...] = ()
    """Every PCI function for which the host reports passthrough information, by address."""
    vm_names: tuple[str, ...] = ()
    intent: Intent | None = None
    powered_on_vms: tuple[str, ...] = ()
    """Virtual machines that keep the host from maintenance mode (powered on, vCLS agents left out)."""
    drs_moves_vms: tuple[str, ...] = ()
    """Those of `powered_on_vms` that DRS moves away by itself when the host enters maintenance mode."""
    graphics: tuple[GraphicsDevice, ...] = ()
    vgpu_types: tuple[str, ...] = ()
    """vGPU profiles the host offers now (HostConfigInfo.sharedPassthruGpuTypes)."""
    vgpu_suspend: tuple[str, ...] = ()
    """Those of `vgpu_types` with which a virtual machine can be suspended (HostSharedGpuCapabilities)."""
    vgpu_migrate: tuple[str, ...] = ()
    """Those of `vgpu_types` with which a virtual machine can move by vMotion."""
    device_groups: tuple[DeviceGroup, ...] = ()
    """Device groups that the host offers; read only where a virtual machine asks for one."""
    reentered: bool = False
    """The intent says that a run was entering or leaving maintenance mode, and the host is in somebody else's."""
    version: str | None = None
    """Version of ESXi, for example `8.0.3`."""
    build: str | None = None
    """Build of ESXi, for example `24022510`."""
    reboot_pending: bool = False
    """The host says that it must reboot, for another reason than passthrough, for example for new software."""
    graphics_config: GraphicsConfig | None = None
    """None where the host tells nothing of its graphics."""
    unreadable_vms: tuple[str, ...] = ()
    """Ids of virtual machines on the host that the account may not read; read with its guests only."""
    drained: tuple[Drained, ...] = ()
    """What is to be restored on the host; read where it leaves maintenance mode."""

    @property
    def assignment_policy(self) -> str:
        """`performance`: a new vGPU goes to the GPU with the fewest; `consolidation`: to the fullest that takes it."""
        return self.graphics_config.assignment_policy if self.graphics_config else "performance"

    @property
    def answers(self) -> bool:
        """Whether the vCenter can talk to the host now."""
        return self.connection == "connected"


@dataclasses.dataclass(frozen=True, slots=True)
class GpuAttachment:
    """One GPU device of a virtual machine."""

    mode: AssignmentMode
    key: int
    """Device key in the virtual machine; negative while it is only planned."""
    address: str | None = None
    """Fixed: the PCI address on the host. Dynamic: the assigned address, known only while powered on."""
    ids: tuple[str, ...] = ()
    """`vendor:device` (fixed: one; dynamic: those allowed)."""
    label: str | None = None
    """Dynamic: the hardware label wanted."""
    profile: str | None = None
    """vGPU: the profile name, for example `nvidia_a100-10c`."""
    group: str | None = None
    """Name of the device group that the device came with, and can only go with."""
    group_key: int | None = None
    """Which group of the virtual machine; negative while it is only planned."""
    sequence: int | None = None
    """Its place in the group."""

    def is_dynamic(self, device_id: str | None, label: str | None) -> bool:
        """Whether it is a dynamic one that is asked for by this id, this label, or both.

        By label alone it does not matter which ids it allows: they are those that bore the label when it was attached.
        """
        return self.mode == "dynamic" and self.label == label and (device_id is None or self.ids == (device_id,))


@dataclasses.dataclass(frozen=True, slots=True)
class VmFacts:
    """A virtual machine, as far as GPUs are concerned."""

    name: str
    moid: str
    host: str | None
    power: Power
    template: bool
    change_version: str
    """VirtualMachineConfigInfo.changeVersion, sent with a reconfigure so that another's change is noticed."""
    firmware: t.Literal["bios", "efi"]
    hardware_version: int
    memory_mb: int
    memory_reservation_mb: int
    memory_reservation_locked: bool
    cpu_hot_add: bool
    memory_hot_add: bool
    extra_config: t.Mapping[str, str] = dataclasses.field(default_factory=dict)
    """The `pciPassthru.*` keys only."""
    gpus: tuple[GpuAttachment, ...] = ()
    intent: Intent | None = None


def to_dict(facts: HostFacts | VmFacts) -> dict[str, t.Any]:
    """The record as plain lists and dicts, for JSON and Ansible."""
    return dataclasses.asdict(facts)


def host_from_dict(data: t.Mapping[str, t.Any]) -> HostFacts:
    """The reverse of `to_dict` for a host."""
    fields = dict(data)
    fields["devices"] = tuple(PciFunction(**device) for device in fields.get("devices", ()))
    fields["vm_names"] = tuple(fields.get("vm_names", ()))
    fields["powered_on_vms"] = tuple(fields.get("powered_on_vms", ()))
    fields["drs_moves_vms"] = tuple(fields.get("drs_moves_vms", ()))
    fields["graphics"] = tuple(
        GraphicsDevice(**{**device, "vm_moids": tuple(device.get("vm_moids", ()))})
        for device in fields.get("graphics", ())
    )
    fields["unreadable_vms"] = tuple(fields.get("unreadable_vms", ()))
    fields["graphics_config"] = _graphics_config(fields.get("graphics_config"))
    for key in ("vgpu_types", "vgpu_suspend", "vgpu_migrate"):
        fields[key] = tuple(fields.get(key, ()))
    fields["device_groups"] = tuple(
        DeviceGroup(group["name"], tuple(group["profiles"]), tuple(group["sequence"]))
        for group in fields.get("device_groups", ())
    )
    fields["intent"] = Intent(**fields["intent"]) if fields.get("intent") else None
    fields["drained"] = tuple(Drained(**drained) for drained in fields.get("drained", ()))
    return HostFacts(**fields)


def _graphics_config(data: t.Mapping[str, t.Any] | None) -> GraphicsConfig | None:
    if data is None:
        return None
    devices = tuple(GraphicsSetting(**device) for device in data.get("devices", ()))
    return GraphicsConfig(**{**data, "devices": devices})


def vm_from_dict(data: t.Mapping[str, t.Any]) -> VmFacts:
    """The reverse of `to_dict` for a virtual machine."""
    fields = dict(data)
    fields["gpus"] = tuple(GpuAttachment(**{**gpu, "ids": tuple(gpu.get("ids", ()))}) for gpu in fields.get("gpus", ()))
    fields["extra_config"] = dict(fields.get("extra_config", {}))
    fields["intent"] = Intent(**fields["intent"]) if fields.get("intent") else None
    return VmFacts(**fields)


def predicted_host(before: HostFacts, after: HostFacts) -> dict[str, t.Any]:
    """The fields of `after` that differ from `before`, in the form of `to_dict`.

    A step predicts only what it changes, so that predictions of several steps merge, and facts that a
    step did not read are never overwritten by their defaults.
    """
    was, will_be = to_dict(before), to_dict(after)
    return {key: value for key, value in will_be.items() if value != was[key]}


def assume_hosts(
    hosts: t.Mapping[str, HostFacts], assumed: t.Mapping[str, t.Mapping[str, t.Any]]
) -> dict[str, HostFacts]:
    """Facts of hosts with predictions of earlier steps laid over them.

    Hosts that were not read are left out, unless their prediction is complete. Raises TypeError for a
    field that no host has.
    """
    merged = {
        name: host_from_dict({**to_dict(host), **assumed[name]}) if name in assumed else host
        for name, host in hosts.items()
    }
    required = {
        field.name
        for field in dataclasses.fields(HostFacts)
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    }
    for name, fields in assumed.items():
        if name not in merged and required <= fields.keys():
            merged[name] = host_from_dict(fields)
    return merged


def without_vms(hosts: t.Mapping[str, HostFacts], gone: t.Collection[str]) -> dict[str, HostFacts]:
    """Facts of hosts without these virtual machines."""
    if not gone:
        return dict(hosts)

    def left(names: t.Iterable[str]) -> tuple[str, ...]:
        return tuple(name for name in names if name not in gone)

    return {
        name: dataclasses.replace(
            host,
            vm_names=left(host.vm_names),
            powered_on_vms=left(host.powered_on_vms),
            drs_moves_vms=left(host.drs_moves_vms),
        )
        for name, host in hosts.items()
    }


def assume_vms(
    vms: t.Mapping[str, VmFacts], assumed: t.Mapping[str, t.Mapping[str, t.Any] | None]
) -> dict[str, VmFacts]:
    """Facts of virtual machines with predictions of earlier steps laid over them.

    A virtual machine that was not read is added when its prediction is complete, as that of a clone is. None is
    predicted of one that is deleted.
    Raises TypeError for a field that no virtual machine has.
    """
    required = {
        field.name
        for field in dataclasses.fields(VmFacts)
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    }
    merged = dict(vms)
    for name, fields in assumed.items():
        if fields is None:
            merged.pop(name, None)
        elif name in merged:
            merged[name] = vm_from_dict({**to_dict(merged[name]), **fields})
        elif required <= fields.keys():
            merged[name] = vm_from_dict(fields)
    return merged
