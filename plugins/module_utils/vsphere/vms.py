# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What is done to virtual machines that exist: reconfigure, power; for many at once."""

from __future__ import annotations

import dataclasses
import functools
import typing as t

from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.attach import VmEdit, still_held, waves
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.facts import (
    DeviceGroup,
    GpuAttachment,
    HostFacts,
    VmFacts,
    assume_vms,
)
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.selection import normalise_address
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.client import Client
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.collector import (
    moid,
    paths,
    retrieve,
    start,
    traversal,
    watch,
)
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.errors import (
    GpuOpsError,
    InputError,
    OperationFailedError,
    OperationTimeoutError,
)
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.pyvmomi import vim
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.tasks import (
    Bounds,
    TaskOutcome,
    run_calls,
    run_tasks,
)

Moids = t.Mapping[str, str]
"""Managed object ids by name."""


def with_assumed_vms(vms: t.Mapping[str, VmFacts], params: t.Mapping[str, t.Any]) -> dict[str, VmFacts]:
    """The facts with `assume` laid over them. Raises InputError for fields that no virtual machine has."""
    try:
        return assume_vms(vms, params["assume"]["vms"])
    except (TypeError, ValueError) as error:
        raise InputError(f"assume.vms is not what the return value predicted shows: {error}.") from error


@dataclasses.dataclass(frozen=True, slots=True)
class Offer:
    """A device as a host offers it for fixed DirectPath."""

    device: t.Any
    """HostPciDevice"""
    system_id: str


@dataclasses.dataclass(frozen=True, slots=True)
class Offers:
    """What one host offers that only it can tell."""

    fixed: t.Mapping[str, Offer] = dataclasses.field(default_factory=dict)
    """By full PCI address."""
    groups: t.Mapping[str, t.Sequence[t.Any]] = dataclasses.field(default_factory=dict)
    """Device groups by name: a template (VirtualDevice) of each device."""


def host_offers(client: Client, hosts: t.Mapping[str, HostFacts], bounds: Bounds) -> dict[str, TaskOutcome]:
    """For each host its `Offers` (`TaskOutcome.result`): one `QueryConfigTarget` a host, made concurrently.

    Nothing else tells the `systemId` that a fixed device's backing needs, or the device groups.
    """
    refs = {name: client.ref(vim.HostSystem, host.moid) for name, host in hosts.items()}
    path = "environmentBrowser"
    along = traversal(vim.HostSystem, "parent")
    rows = retrieve(
        client,
        lambda: [start(ref, along) for ref in refs.values()],
        [paths(vim.HostSystem, "parent"), paths(vim.ComputeResource, path)],
    )
    browsers = {row.moid: row.props.get(path) for row in rows if isinstance(row.ref, vim.ComputeResource)}
    parents = {row.moid: moid(row.props.get("parent")) for row in rows if isinstance(row.ref, vim.HostSystem)}

    def query(name: str) -> Offers:
        browser: t.Any = browsers.get(parents.get(hosts[name].moid) or "")
        if browser is None:
            raise OperationFailedError(
                f"{name}: the vCenter does not tell where to ask for the devices the host offers: it was removed or "
                "moved meanwhile, or the user may not read it. Run again to plan from what is there.",
                code="changed_meanwhile",
                object=name,
            )
        target = browser.QueryConfigTarget(refs[name])
        fixed = {
            normalise_address(info.pciDevice.id) or info.pciDevice.id: Offer(info.pciDevice, info.systemId)
            for info in target.pciPassthrough or ()
        }
        groups = {
            info.deviceGroupName: [component.device for component in info.componentDeviceInfo or ()]
            for info in target.vendorDeviceGroupInfo or ()
        }
        return Offers(fixed, groups)

    return run_calls(
        client,
        {name: functools.partial(query, name) for name in hosts},
        max_parallel=bounds.max_parallel,
        doing="query the devices it offers",
    )


def with_device_groups(client: Client, hosts: t.Mapping[str, HostFacts], bounds: Bounds) -> dict[str, HostFacts]:
    """The facts of these hosts with the device groups they offer. One that cannot be asked offers none."""
    found = {}
    for name, outcome in host_offers(client, hosts, bounds).items():
        groups = outcome.result.groups if outcome.ok else {}
        found[name] = dataclasses.replace(
            hosts[name],
            device_groups=tuple(
                DeviceGroup(
                    group,
                    tuple(str(getattr(device.backing, "vgpu", "")) for device in devices),
                    tuple(device.deviceGroupInfo.sequenceId for device in devices),
                )
                for group, devices in sorted(groups.items())
            ),
        )
    return found


def reconfigure(
    client: Client,
    vms: t.Mapping[str, VmFacts],
    hosts: t.Mapping[str, HostFacts],
    edits: t.Mapping[str, VmEdit],
    bounds: Bounds,
    *,
    failed: t.Mapping[str, TaskOutcome] | None = None,
) -> dict[str, TaskOutcome]:
    """One `ReconfigVM_Task` for each virtual machine, in waves where one takes over another's device.

    `failed` are virtual machines that could not be made ready; what waits for them is not done either.
    """
    asking = {str(vms[name].host) for name, edit in edits.items() if any(_needs_offer(gpu) for gpu in edit.add)}
    queried = host_offers(client, {name: hosts[name] for name in sorted(asking)}, bounds) if asking else {}
    outcomes: dict[str, TaskOutcome] = dict(failed or {})
    for wave in waves(edits):
        starters = {}
        for name in wave:
            waiting = [other for other in sorted(edits[name].after) if other in outcomes and not outcomes[other].ok]
            try:
                if waiting:
                    raise OperationFailedError(still_held(name, waiting).msg, code="gpu_conflict", object=name)
                spec = config_spec(vms[name], edits[name], _offers_of(vms[name], edits[name], queried))
            except GpuOpsError as error:
                outcomes[name] = TaskOutcome(error=error)
            else:
                starters[name] = functools.partial(client.ref(vim.VirtualMachine, vms[name].moid).ReconfigVM_Task, spec)
        outcomes |= run_tasks(
            client, starters, timeout=bounds.left, max_parallel=bounds.max_parallel, doing="reconfigure it"
        )
    return {name: outcome for name, outcome in outcomes.items() if name in edits}


def _needs_offer(gpu: GpuAttachment) -> bool:
    return gpu.mode == "fixed" or gpu.group is not None


def _offers_of(vm: VmFacts, edit: VmEdit, queried: t.Mapping[str, TaskOutcome]) -> Offers:
    """What the virtual machine's host offers. Raises GpuOpsError when it could not be asked, or offers too little."""
    outcome = queried.get(str(vm.host), TaskOutcome(result=Offers()))
    if outcome.error is not None:
        raise outcome.error
    offers: Offers = outcome.result
    for gpu in edit.add:
        if gpu.group is not None and gpu.group not in offers.groups:
            raise OperationFailedError(
                f"{vm.name}: {vm.host} no longer offers the device group {gpu.group}. Run again to plan from what"
                " is there.",
                code="changed_meanwhile",
                object=vm.name,
            )
        if gpu.mode == "fixed" and gpu.address not in offers.fixed:
            raise OperationFailedError(
                f"{vm.name}: {vm.host} does not offer {gpu.address} for passthrough; see what esxi_gpu_info says.",
                code="passthrough_not_active",
                object=vm.name,
            )
    return offers


def config_spec(vm: VmFacts, edit: VmEdit, offers: Offers) -> t.Any:
    """The ConfigSpec of a reconfigure: nothing but what changes, and the version of what it was planned from."""
    settings = edit.settings
    spec: t.Any = vim.vm.ConfigSpec(changeVersion=vm.change_version or None)
    if settings.memory_mb is not None:
        spec.memoryMB = settings.memory_mb
    if settings.lock_memory:
        spec.memoryReservationLockedToMax = True
    if settings.cpu_hot_add_off:
        spec.cpuHotAddEnabled = False
    if settings.memory_hot_add_off:
        spec.memoryHotAddEnabled = False
    if settings.firmware_efi:
        spec.firmware = "efi"
    spec.extraConfig = [vim.option.OptionValue(key=key, value=value) for key, value in settings.extra_config.items()]
    remove = [_removal(gpu) for gpu in edit.remove]
    add = [_addition(gpu, offers) for gpu in edit.add]
    spec.deviceChange = [*remove, *add]
    if any(gpu.group is not None for gpu in (*edit.remove, *edit.add)):
        spec.deviceGroups = _device_groups(vm, edit)
    return spec


def _device_groups(vm: VmFacts, edit: VmEdit) -> t.Any:
    """All device groups that the virtual machine has afterwards; new ones with negative keys."""
    gone = {gpu.group_key for gpu in edit.remove}
    stay = [gpu for gpu in vm.gpus if gpu.group is not None and gpu.group_key not in gone]
    groups = {gpu.group_key: gpu.group for gpu in (*stay, *edit.add) if gpu.group is not None}
    kind: t.Any = vim.vm.VirtualDeviceGroups
    return kind(
        deviceGroup=[kind.VendorDeviceGroup(groupInstanceKey=key, deviceGroupName=name) for key, name in groups.items()]
    )


def _removal(gpu: GpuAttachment) -> t.Any:
    return vim.vm.device.VirtualDeviceSpec(operation="remove", device=vim.vm.device.VirtualPCIPassthrough(key=gpu.key))


def _addition(gpu: GpuAttachment, offers: Offers) -> t.Any:
    kind: t.Any = vim.vm.device.VirtualPCIPassthrough
    if gpu.group is not None:
        template = next(
            device for device in offers.groups[gpu.group] if device.deviceGroupInfo.sequenceId == gpu.sequence
        )
        member = vim.vm.device.VirtualDevice.DeviceGroupInfo(groupInstanceKey=gpu.group_key, sequenceId=gpu.sequence)
        device = type(template)(key=gpu.key, backing=template.backing, deviceGroupInfo=member)
        return vim.vm.device.VirtualDeviceSpec(operation="add", device=device)
    if gpu.mode == "vgpu":
        backing = kind.VmiopBackingInfo(vgpu=gpu.profile)
    elif gpu.mode == "fixed":
        offer = offers.fixed[str(gpu.address)]
        backing = kind.DeviceBackingInfo(
            id=offer.device.id,
            deviceId=f"{offer.device.deviceId & 0xFFFF:x}",
            vendorId=offer.device.vendorId,
            systemId=offer.system_id,
            deviceName=offer.device.deviceName,
        )
    else:
        allowed = [
            kind.AllowedDevice(vendorId=int(vendor, 16), deviceId=int(device, 16))
            for vendor, _colon, device in (device_id.partition(":") for device_id in gpu.ids)
        ]
        backing = kind.DynamicBackingInfo(deviceName="", allowedDevice=allowed, customLabel=gpu.label)
    return vim.vm.device.VirtualDeviceSpec(operation="add", device=kind(key=gpu.key, backing=backing))


def wait_for_tasks(client: Client, moids: Moids, bounds: Bounds) -> set[str]:
    """Wait for tasks that work on these virtual machines already; the names of those that had one.

    A killed run leaves its tasks going on: the vCenter refuses a second one meanwhile.
    """
    names = {vm: name for name, vm in moids.items()}
    refs = [client.ref(vim.VirtualMachine, vm) for vm in moids.values()]
    along = traversal(vim.VirtualMachine, "recentTask")
    rows = retrieve(
        client,
        lambda: [start(ref, along) for ref in refs],
        [paths(vim.VirtualMachine, "recentTask"), paths(vim.Task, "info.state", "info.entity")],
    )
    running = [row for row in rows if str(row.props.get("info.state")) in ("queued", "running")]

    def ended(_task: str, values: dict[str, t.Any]) -> bool:
        return "gone" in values or str(values.get("info.state")) in ("success", "error")

    if running:
        watch(client, [row.ref for row in running], vim.Task, ("info.state",), ended, timeout=bounds.left)
    return {names[vm] for vm in (moid(row.props.get("info.entity")) for row in running) if vm in names}


def power_on(client: Client, moids: Moids, bounds: Bounds) -> dict[str, TaskOutcome]:
    """Power on, or resume."""
    if not moids:
        return {}
    starters = {name: client.ref(vim.VirtualMachine, vm).PowerOnVM_Task for name, vm in moids.items()}
    return _power(client, moids, starters, "poweredOn", "power it on", bounds)


def power_off(
    client: Client, moids: Moids, bounds: Bounds, *, force: bool, guest_timeout: float
) -> dict[str, TaskOutcome]:
    """Shut the guests down; with `force`, power off those that have no running tools or do not stop in time.

    `guest_timeout` in seconds is how long the guests have.
    """
    tools = "guest.toolsRunningStatus"
    refs = {name: client.ref(vim.VirtualMachine, vm) for name, vm in moids.items()}
    rows = retrieve(client, lambda: [start(ref) for ref in refs.values()], [paths(vim.VirtualMachine, tools)])
    with_tools = {row.moid for row in rows if row.props.get(tools) == "guestToolsRunning"}
    asked = run_calls(
        client,
        {name: ref.ShutdownGuest for name, ref in refs.items() if moids[name] in with_tools},
        max_parallel=bounds.max_parallel,
        doing="shut down its guest",
    )
    # One that is going off already, for an earlier run or by somebody else, refuses to be asked again.
    stopping = {
        name: refs[name]
        for name, outcome in asked.items()
        if outcome.error is None or outcome.error.fault == "InvalidPowerState"
    }
    late = _wait_for_power(client, stopping, "poweredOff", min(bounds.left, guest_timeout))
    outcomes = {name: TaskOutcome() for name in stopping if name not in late}
    # A guest that a killed run has asked already may be down by now.
    outcomes |= {name: TaskOutcome() for name in _are_off(client, {n: refs[n] for n in refs if n not in stopping})}
    hard = {name: vm for name, vm in moids.items() if name not in outcomes}
    if force:
        return outcomes | power_off_hard(client, hard, bounds)
    return outcomes | {
        name: TaskOutcome(error=_still_on(name, name in late, guest_timeout, asked.get(name))) for name in hard
    }


def power_off_hard(client: Client, moids: Moids, bounds: Bounds) -> dict[str, TaskOutcome]:
    """Power off without asking the guest; what a suspended machine was doing is lost."""
    starters = {name: client.ref(vim.VirtualMachine, vm).PowerOffVM_Task for name, vm in moids.items()}
    return _power(client, moids, starters, "poweredOff", "power it off", bounds)


def suspend(client: Client, moids: Moids, bounds: Bounds) -> dict[str, TaskOutcome]:
    """Suspend to disk."""
    starters = {name: client.ref(vim.VirtualMachine, vm).SuspendVM_Task for name, vm in moids.items()}
    return _power(client, moids, starters, "suspended", "suspend it", bounds)


def _still_on(name: str, late: bool, guest_timeout: float, asked: TaskOutcome | None) -> GpuOpsError:
    if late:
        return OperationTimeoutError(
            f"{name}: the guest has not shut down within {guest_timeout:.0f} s. Look at its console, or power it off"
            " hard with force: true.",
            object=name,
            code="guest_timeout",
        )
    if asked is not None and asked.error is not None:
        return asked.error
    return OperationFailedError(
        f"{name}: no VMware Tools run in the guest, so it cannot be asked to shut down. Power it off hard with"
        " force: true.",
        object=name,
        code="tools_not_running",
    )


def _are_off(client: Client, refs: t.Mapping[str, t.Any]) -> list[str]:
    """Names of those that are powered off now."""
    path = "runtime.powerState"
    names = {str(moid(ref)): name for name, ref in refs.items()}
    rows = (
        retrieve(client, lambda: [start(ref) for ref in refs.values()], [paths(vim.VirtualMachine, path)])
        if refs
        else []
    )
    return [names[row.moid] for row in rows if str(row.props.get(path)) == "poweredOff"]


def _wait_for_power(client: Client, refs: t.Mapping[str, t.Any], power: str, timeout: float) -> set[str]:
    """Wait until the virtual machines have this power state; the names of those that have not."""
    path = "runtime.powerState"
    names = {str(moid(ref)): name for name, ref in refs.items()}
    if not refs:
        return set()
    left = watch(
        client,
        list(refs.values()),
        vim.VirtualMachine,
        (path,),
        lambda _vm, values: str(values.get(path)) == power,
        timeout=timeout,
    )
    return {names[vm] for vm in left}


def _power(
    client: Client,
    moids: Moids,
    starters: t.Mapping[str, t.Callable[[], t.Any]],
    power: str,
    doing: str,
    bounds: Bounds,
) -> dict[str, TaskOutcome]:
    """Run power tasks; a refusal because it is done already, or another task is about to do it, is no failure."""
    outcomes = run_tasks(client, starters, timeout=bounds.left, max_parallel=bounds.max_parallel, doing=doing)
    refused = {
        name: moids[name]
        for name, outcome in outcomes.items()
        if outcome.error is not None and outcome.error.fault in ("InvalidPowerState", "TaskInProgress", "InvalidState")
    }
    if not refused:
        return outcomes
    wait_for_tasks(client, refused, bounds)
    path = "runtime.powerState"
    refs = [client.ref(vim.VirtualMachine, vm) for vm in refused.values()]
    rows = retrieve(client, lambda: [start(ref) for ref in refs], [paths(vim.VirtualMachine, path)])
    reached = {row.moid for row in rows if str(row.props.get(path)) == power}
    return outcomes | {name: TaskOutcome() for name, vm in refused.items() if vm in reached}
