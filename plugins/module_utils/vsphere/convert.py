# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""From pyVmomi's objects to facts: pure functions over property values."""

from __future__ import annotations

import dataclasses
import datetime
import json
import re
import typing as t

from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.facts import (
    GpuAttachment,
    GraphicsConfig,
    GraphicsDevice,
    GraphicsSetting,
    HostFacts,
    Intent,
    PciFunction,
    VmFacts,
)
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.selection import normalise_address
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.pyvmomi import vim

Props = t.Mapping[str, t.Any]

# ESX Agent Manager deploys vCLS agents; names as in vSphere 7.0U1 to 7.0U3f `vCLS (n)`, later `vCLS-<uuid>`.
_AGENT_MANAGERS = ("com.vmware.vim.eam",)
_AGENT_NAME = re.compile(r"vCLS(-[0-9a-f]{8}-.*| \(\d+\)|)")
_ESCAPES = re.compile(r"%(2f|5c|25)", re.IGNORECASE)


def plain_name(name: str) -> str:
    """An object's name as people write it (vSphere escapes `/`, `\\` and `%`)."""
    return _ESCAPES.sub(lambda match: chr(int(match.group(1), 16)), name)


def iso(moment: datetime.datetime | None) -> str | None:
    """ISO 8601 in UTC with seconds, or None."""
    if moment is None:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=datetime.UTC)
    return moment.astimezone(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def unsigned16(value: int) -> int:
    """A PCI id as vSphere sends it (a signed short) to its unsigned value."""
    return value & 0xFFFF


def host_facts(moid: str, props: Props, *, cluster: str | None, intent_key: int | None) -> HostFacts:
    """A host's facts from `reads.HOST_PATHS`."""
    functions = {device.id: device for device in props.get("hardware.pciDevice") or ()}
    passthrough = sorted(props.get("config.pciPassthruInfo") or (), key=lambda info: info.id)
    devices = tuple(_function(functions[info.id], info) for info in passthrough if info.id in functions)
    waits = any(device.passthrough_enabled != device.passthrough_active for device in devices)
    return HostFacts(
        name=plain_name(props.get("name", moid)),
        moid=moid,
        cluster=cluster,
        connection=str(props.get("runtime.connectionState", "disconnected")),  # type: ignore[arg-type]
        in_maintenance=bool(props.get("runtime.inMaintenanceMode")),
        boot_time=iso(props.get("runtime.bootTime")),
        rebind_without_reboot=bool(props.get("capability.deviceRebindWithoutRebootSupported")),
        devices=devices,
        intent=intent(props, intent_key),
        graphics=tuple(
            GraphicsDevice(
                address=normalise_address(info.pciId) or info.pciId,
                graphics_type=str(info.graphicsType),
                vgpu_mode=info.vgpuMode,
                memory_mb=info.memorySizeInKB // 1024,
                vm_moids=tuple(sorted(str(vm._moId) for vm in info.vm or ())),
            )
            for info in props.get("config.graphicsInfo") or ()
        ),
        vgpu_types=tuple(props.get("config.sharedPassthruGpuTypes") or ()),
        vgpu_suspend=_capable(props, "suspendSupported"),
        vgpu_migrate=_capable(props, "migrateSupported"),
        version=props.get("config.product.version"),
        build=props.get("config.product.build"),
        reboot_pending=bool(props.get("summary.rebootRequired")) and not waits,
        graphics_config=_graphics_config(props.get("config.graphicsConfig")),
    )


def _graphics_config(config: t.Any) -> GraphicsConfig | None:
    if config is None or not config.hostDefaultGraphicsType:
        return None
    return GraphicsConfig(
        default_type=str(config.hostDefaultGraphicsType),
        assignment_policy=str(config.sharedPassthruAssignmentPolicy),
        devices=tuple(
            GraphicsSetting(
                address=normalise_address(device.deviceId) or device.deviceId,
                graphics_type=str(device.graphicsType),
                vgpu_mode=device.vgpuMode,
            )
            for device in config.deviceType or ()
        ),
    )


def _capable(props: Props, what: str) -> tuple[str, ...]:
    """The vGPU profiles of a host that can do something (a field of HostSharedGpuCapabilities)."""
    return tuple(item.vgpu for item in props.get("config.sharedGpuCapabilities") or () if getattr(item, what))


def _function(device: t.Any, info: t.Any) -> PciFunction:
    return PciFunction(
        address=device.id,
        vendor_id=unsigned16(device.vendorId),
        device_id=unsigned16(device.deviceId),
        class_id=unsigned16(device.classId),
        name=f"{device.vendorName or ''} {device.deviceName or ''}".strip(),
        passthrough_capable=bool(info.passthruCapable),
        passthrough_enabled=bool(info.passthruEnabled),
        passthrough_active=bool(info.passthruActive),
        dependent_device=info.dependentDevice if info.dependentDevice != device.id else None,
        hardware_label=info.hardwareLabel or None,
    )


def with_guests(facts: HostFacts, guests: t.Iterable[Props], *, cluster_config: t.Any = None) -> HostFacts:
    """Add what the virtual machines on the host mean for maintenance mode."""
    guests = sorted(guests, key=lambda props: str(props.get("name", "")))
    running = [props for props in guests if _keeps_from_maintenance(props)]
    return dataclasses.replace(
        facts,
        vm_names=tuple(plain_name(props["name"]) for props in guests if "name" in props),
        powered_on_vms=tuple(plain_name(props["name"]) for props in running),
        drs_moves_vms=tuple(plain_name(props["name"]) for props in running if drs_moves(props, cluster_config)),
    )


def with_unreadable(facts: HostFacts, moids: t.Sequence[str]) -> HostFacts:
    """Add virtual machines that the account may not read: each may run, and nobody knows whether DRS moves it."""
    named = tuple(f"{moid} (which the account may not read)" for moid in moids)
    return dataclasses.replace(
        facts, unreadable_vms=tuple(moids), powered_on_vms=tuple(dict.fromkeys((*facts.powered_on_vms, *named)))
    )


def _keeps_from_maintenance(props: Props) -> bool:
    return "name" in props and str(props.get("runtime.powerState")) == "poweredOn" and not is_agent(props)


def is_agent(props: Props) -> bool:
    """Whether a virtual machine is a vCLS agent, which the vCenter itself moves or stops."""
    managed = props.get("config.managedBy")
    by_agent_manager = managed is not None and managed.extensionKey in _AGENT_MANAGERS
    return by_agent_manager or _AGENT_NAME.fullmatch(props["name"]) is not None


def drs_moves(props: Props, cluster_config: t.Any) -> bool:
    """Whether DRS would move the machine by itself: fully automated, and no device that ties it to the host."""
    drs = getattr(cluster_config, "drsConfig", None)
    if drs is None or not drs.enabled:
        return False
    behavior = str(drs.defaultVmBehavior)
    for override in getattr(cluster_config, "drsVmConfig", None) or ():
        if drs.enableVmBehaviorOverrides is not False and override.key._moId == props.get("moid"):
            behavior = str(override.behavior or behavior) if override.enabled is not False else "manual"
    devices = props.get("config.hardware.device") or ()
    tied = any(isinstance(device, vim.vm.device.VirtualPCIPassthrough) for device in devices)
    return behavior == "fullyAutomated" and not tied


def vm_facts(moid: str, props: Props, *, host_names: t.Mapping[str, str], intent_key: int | None) -> VmFacts:
    """A virtual machine's facts from `reads.VM_PATHS`."""
    host = props.get("runtime.host")
    devices = props.get("config.hardware.device") or ()
    groups = {
        group.groupInstanceKey: getattr(group, "deviceGroupName", "")
        for group in getattr(props.get("config.deviceGroups"), "deviceGroup", None) or ()
    }
    return VmFacts(
        name=plain_name(props.get("name", moid)),
        moid=moid,
        host=host_names.get(host._moId) if host is not None else None,
        power=str(props.get("runtime.powerState", "unknown")),  # type: ignore[arg-type]
        template=bool(props.get("config.template")),
        change_version=props.get("config.changeVersion") or "",
        firmware="efi" if props.get("config.firmware") == "efi" else "bios",
        hardware_version=_hardware_version(props.get("config.version")),
        memory_mb=props.get("config.hardware.memoryMB") or 0,
        memory_reservation_mb=props.get("config.memoryAllocation.reservation") or 0,
        memory_reservation_locked=bool(props.get("config.memoryReservationLockedToMax")),
        cpu_hot_add=bool(props.get("config.cpuHotAddEnabled")),
        memory_hot_add=bool(props.get("config.memoryHotAddEnabled")),
        extra_config={
            option.key: str(option.value)
            for option in props.get("config.extraConfig") or ()
            if option.key.lower().startswith("pcipassthru.")
        },
        gpus=tuple(
            _in_group(_attachment(device), device, groups)
            for device in devices
            if isinstance(device, vim.vm.device.VirtualPCIPassthrough) and isinstance(device.backing, _backings())
        ),
        intent=intent(props, intent_key),
    )


def _hardware_version(text: str | None) -> int:
    """21 for `vmx-21`, 0 when unknown."""
    match = re.fullmatch(r"vmx-(\d+)", text or "")
    return int(match.group(1)) if match else 0


def _backings() -> tuple[type, ...]:
    kind = vim.vm.device.VirtualPCIPassthrough
    return (kind.DeviceBackingInfo, kind.DynamicBackingInfo, kind.VmiopBackingInfo)


def _in_group(attachment: GpuAttachment, device: t.Any, groups: t.Mapping[int, str]) -> GpuAttachment:
    info = device.deviceGroupInfo
    if info is None:
        return attachment
    return dataclasses.replace(
        attachment,
        group=groups.get(info.groupInstanceKey, ""),
        group_key=info.groupInstanceKey,
        sequence=info.sequenceId,
    )


def _attachment(device: t.Any) -> GpuAttachment:
    backing = device.backing
    kind = vim.vm.device.VirtualPCIPassthrough
    if isinstance(backing, kind.VmiopBackingInfo):
        return GpuAttachment(mode="vgpu", key=device.key, profile=backing.vgpu)
    if isinstance(backing, kind.DynamicBackingInfo):
        return GpuAttachment(
            mode="dynamic",
            key=device.key,
            address=normalise_address(backing.assignedId) if backing.assignedId else None,
            ids=tuple(
                sorted(
                    f"{unsigned16(item.vendorId):04x}:{unsigned16(item.deviceId):04x}"
                    for item in backing.allowedDevice or ()
                )
            ),
            label=backing.customLabel or None,
        )
    return GpuAttachment(
        mode="fixed",
        key=device.key,
        address=normalise_address(backing.id) if backing.id else None,
        ids=_fixed_ids(backing),
    )


def _fixed_ids(backing: t.Any) -> tuple[str, ...]:
    """The one `vendor:device` of a fixed device; none where the configuration does not tell it."""
    try:
        return (f"{unsigned16(backing.vendorId):04x}:{unsigned16(int(backing.deviceId, 16)):04x}",)
    except (TypeError, ValueError):
        return ()


def intent(props: Props, intent_key: int | None) -> Intent | None:
    """The intent kept in the object's custom attribute; None when absent, cleared, or not ours to read."""
    for value in props.get("customValue") or ():
        if value.key == intent_key and isinstance(value, vim.CustomFieldsManager.StringValue):
            return parse_intent(value.value)
    return None


def parse_intent(text: str) -> Intent | None:
    """An intent from its compact JSON; None for anything else, which is then treated as somebody else's."""
    try:
        data = json.loads(text)
        if data["v"] != 1:
            return None
        if data.get("boot") is not None and datetime.datetime.fromisoformat(data["boot"]).tzinfo is None:
            return None
        return Intent(
            run=data["run"],
            action=data["action"],
            started=data["started"],
            boot_time=data.get("boot"),
            host=data.get("host"),
        )
    except (ValueError, KeyError, TypeError):
        return None


def format_intent(intent: Intent | None) -> str:
    """The compact JSON of an intent; empty for none."""
    if intent is None:
        return ""
    data = {"v": 1, "run": intent.run, "action": intent.action, "started": intent.started}
    if intent.boot_time is not None:
        data["boot"] = intent.boot_time
    if intent.host is not None:
        data["host"] = intent.host
    return json.dumps(data, separators=(",", ":"))
