"""ReconfigVM_Task: privileges by what changes, one check of everything, one change of everything."""

from __future__ import annotations

import typing as t

from vsphere_simulator.vmomi import vim, vmodl
from vsphere_simulator.world import device_groups
from vsphere_simulator.world import devices as dev
from vsphere_simulator.world.device_changes import DeviceChanges
from vsphere_simulator.world.entity import check_name, invalid_argument
from vsphere_simulator.world.vm_facts import SETTINGS

if t.TYPE_CHECKING:
    from vsphere_simulator.kernel.objects import Context
    from vsphere_simulator.kernel.tasks import TaskControl
    from vsphere_simulator.world.virtual_machine import VirtualMachine
    from vsphere_simulator.world.vm_config import VmConfig

_PREFIX = "VirtualMachine.Config."
_PRIVILEGES: dict[str, str] = {
    "numCPUs": "CPUCount", "numCoresPerSocket": "CPUCount", "cpuHotAddEnabled": "CPUCount",
    "cpuHotRemoveEnabled": "CPUCount", "memoryMB": "Memory", "memoryHotAddEnabled": "Memory",
    "cpuAllocation": "Resource", "memoryAllocation": "Resource", "memoryReservationLockedToMax": "Resource",
    "extraConfig": "AdvancedConfig", "name": "Rename", "annotation": "Annotation", "version": "UpgradeVirtualHardware",
    "managedBy": "ManagedBy",
}  # fmt: skip
"""Field of ConfigSpec -> privilege; the fields not named here need `Settings`, devices see `_device_privilege`."""
_MERGED = ("flags", "tools", "powerOpInfo", "bootOptions", "cpuAllocation", "memoryAllocation")
_HANDLED = frozenset(
    (*SETTINGS, *_MERGED, *_PRIVILEGES, "changeVersion", "firmware", "guestId", "uuid", "instanceUuid", "deviceChange")
)
_NEED_OFF = (
    "firmware",
    "version",
    "cpuHotAddEnabled",
    "cpuHotRemoveEnabled",
    "memoryHotAddEnabled",
    "numCoresPerSocket",
)
HARDWARE_VERSIONS = range(7, 23)


def _device_privilege(change: t.Any) -> str:
    if str(change.operation) == "edit":
        return "EditDevice"
    if isinstance(change.device, vim.vm.device.VirtualDisk):
        if str(change.operation) == "remove":
            return "RemoveDisk"
        return "AddNewDisk" if change.fileOperation is not None else "AddExistingDisk"
    return "AddRemoveDevice"


def needed_privileges(spec: t.Any) -> list[str]:
    """The privileges that a specification needs, each once, in a fixed order."""
    found: dict[str, None] = {}
    for key, value in dev.given(spec).items():
        if key == "deviceChange":
            found |= dict.fromkeys(_device_privilege(change) for change in value)
        elif key != "changeVersion":
            found[_PRIVILEGES.get(key, "Settings")] = None
    return [_PREFIX + name for name in sorted(found)]


def start(ctx: Context, vm: VirtualMachine, spec: t.Any) -> t.Any:
    """Check privileges, then start the task."""
    for privilege in needed_privileges(spec):
        ctx.world.authorization.require(ctx.session, vm, privilege)

    async def body(control: TaskControl) -> None:
        async with vm.lock:
            vm.host.require_connected()
            if spec.changeVersion and spec.changeVersion != vm.config.change_version:
                raise vim.fault.ConcurrentAccess(
                    msg="Cannot complete operation due to concurrent modification by another operation."
                )
            planned(vm, spec)
            await control.work(vm.site.timings.reconfigure, steps=2)
            vm.host.require_connected()
            config = planned(vm, spec)
            if spec.name:
                vm.set_name(spec.name)
            adopt(vm, config)

    return ctx.world.start_task(vm, "VirtualMachine.reconfigure", body, ctx.session)


def adopt(vm: VirtualMachine, config: VmConfig) -> None:
    """Give the machine a new configuration and tell who watches."""
    config.change_version = next_version(vm)
    vm.config = config
    vm.resources_changed()
    vm.world.changed(
        vm, "config", "summary.config", "resourceConfig", "datastore", "network", "summary.storage", "layoutEx"
    )


def next_version(vm: VirtualMachine) -> str:
    """A changeVersion that the machine has not had: the time of the change."""
    now = vm.world.clock.now().isoformat(timespec="microseconds").replace("+00:00", "Z")
    return now if now != vm.config.change_version else now.replace("Z", "1Z")


def planned(vm: VirtualMachine, spec: t.Any, *, files: str | None = None) -> VmConfig:
    """The configuration after a change. Raises the right fault, having changed nothing."""
    given = dev.given(spec)
    unknown = sorted(given.keys() - _HANDLED)
    if unknown:
        raise vmodl.fault.NotSupported(msg=f"The operation is not supported: configSpec.{unknown[0]}")
    config = vm.config.copy()
    _check_power(vm, config, given)
    if "name" in given and given["name"] != vm.name:
        check_name(given["name"])
        vm.parent.check_free(given["name"])
    _scalars(config, given)
    _memory(config, given)
    for option in given.get("extraConfig", ()):
        if option.value is None or option.value == "":
            config.extra_config.pop(option.key, None)
        else:
            config.extra_config[option.key] = _text(option.value)
    for key in _MERGED:
        if key in given:
            config.settings[key] = _merge(config.settings.get(key), given[key])
    config.settings |= {key: given[key] for key in SETTINGS if key in given and key not in _MERGED}
    if "deviceChange" in given:
        changes = DeviceChanges(vm, config, list(vm.devices), files or vm.directory)
        config.devices = changes.apply(given["deviceChange"])
        config.blueprint = None
    before = vm.config.settings.get("deviceGroups")
    if "deviceGroups" in given or before is not None:
        config.devices = config.devices if config.devices is not None else vm.devices
        config.settings["deviceGroups"] = before
        device_groups.settle(vm, config, given.get("deviceGroups"))
    return config


def _check_power(vm: VirtualMachine, config: VmConfig, given: t.Mapping[str, t.Any]) -> None:
    if vm.power == "poweredOff":
        return
    changes = {key for key in _NEED_OFF if key in given}
    changes -= {
        key
        for key, now in {
            "firmware": config.firmware,
            "version": f"vmx-{config.hardware_version:02d}",
            "cpuHotAddEnabled": config.cpu_hot_add,
            "cpuHotRemoveEnabled": config.cpu_hot_remove,
            "memoryHotAddEnabled": config.memory_hot_add,
            "numCoresPerSocket": config.cores_per_socket,
        }.items()
        if given.get(key) == now
    }
    if "memoryMB" in given and given["memoryMB"] != config.memory_mb and not config.memory_hot_add:
        changes.add("memoryMB")
    if "numCPUs" in given and given["numCPUs"] != config.cpus and not config.cpu_hot_add:
        changes.add("numCPUs")
    if changes:
        vm.require_power("poweredOff")


def _scalars(config: VmConfig, given: t.Mapping[str, t.Any]) -> None:
    for key, field in {
        "numCPUs": "cpus", "numCoresPerSocket": "cores_per_socket", "annotation": "annotation", "guestId": "guest_id",
        "cpuHotAddEnabled": "cpu_hot_add", "cpuHotRemoveEnabled": "cpu_hot_remove",
        "memoryHotAddEnabled": "memory_hot_add", "uuid": "uuid", "instanceUuid": "instance_uuid",
    }.items():  # fmt: skip
        if key in given:
            setattr(config, field, given[key])
    if config.cpus < 1 or config.cores_per_socket < 1 or config.cpus % config.cores_per_socket:
        raise invalid_argument("configSpec.numCPUs")
    if "firmware" in given:
        if given["firmware"] not in ("bios", "efi"):
            raise invalid_argument("configSpec.firmware")
        config.firmware = given["firmware"]
    if "version" in given:
        number = str(given["version"]).removeprefix("vmx-")
        if not number.isdigit() or int(number) not in HARDWARE_VERSIONS or int(number) < config.hardware_version:
            raise invalid_argument("configSpec.version")
        config.hardware_version = int(number)


def _memory(config: VmConfig, given: t.Mapping[str, t.Any]) -> None:
    if "memoryReservationLockedToMax" in given:
        config.memory_reservation_mb = config.reserved_mb
        config.memory_locked = given["memoryReservationLockedToMax"]
    if "memoryMB" in given:
        if given["memoryMB"] < 4 or given["memoryMB"] % 4:
            raise invalid_argument("configSpec.memoryMB")
        config.memory_mb = given["memoryMB"]
    allocation = given.get("memoryAllocation")
    if allocation is not None and allocation.reservation is not None:
        if not 0 <= allocation.reservation <= config.memory_mb:
            raise invalid_argument("configSpec.memoryAllocation.reservation")
        config.memory_reservation_mb = allocation.reservation


def _merge(old: t.Any, new: t.Any) -> t.Any:
    """The fields of `new` that are set, over those of `old`."""
    if old is None:
        return new
    return dev.copy_of(old, **dev.given(new))


def _text(value: t.Any) -> str:
    if isinstance(value, bool):
        return "TRUE" if value else "FALSE"
    return str(value)
