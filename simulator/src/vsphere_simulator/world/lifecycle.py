"""Power operations of a virtual machine."""

from __future__ import annotations

import asyncio
import typing as t

from vsphere_simulator.vmomi import vim, vmodl
from vsphere_simulator.world import admission, vgpu
from vsphere_simulator.world.devices import is_dynamic, is_fixed, is_vgpu

if t.TYPE_CHECKING:
    from vsphere_simulator.kernel.objects import Context
    from vsphere_simulator.kernel.tasks import TaskControl
    from vsphere_simulator.world.host import HostSystem
    from vsphere_simulator.world.virtual_machine import VirtualMachine

_background: set[asyncio.Task[None]] = set()
"""Guests that are shutting down; the loop itself keeps no strong reference to them."""


def power_on(ctx: Context, vm: VirtualMachine, host: HostSystem | None) -> t.Any:
    """Start the task; `host` moves a machine that is off there first."""
    if vm.template:
        raise vmodl.fault.NotSupported(msg="The operation is not supported on the object.")

    async def body(control: TaskControl) -> None:
        async with vm.lock:
            await run_power_on(control, vm, host)

    return ctx.world.start_task(vm, "VirtualMachine.powerOn", body, ctx.session)


async def run_power_on(control: TaskControl, vm: VirtualMachine, host: HostSystem | None = None) -> None:
    """Admit, take time, be on. What was granted is given back when the operation fails on the way."""
    if vm.power not in ("poweredOff", "suspended"):
        vm.require_power("poweredOff", requested="poweredOn")
    target = host or vm.host
    target.require_open_for_work()
    if vm.power == "suspended":
        check_resume(vm, target)
    grant = admission.admit(vm, target)
    if target is not vm.host:
        vm.move_to(target)
    vm.assigned, vm.vgpus = grant.assigned, grant.vgpus
    was = vm.power
    try:
        await control.work(vm.site.timings.power_on)
        target.require_connected()
    except BaseException:
        vm.assigned, vm.vgpus = {}, {}
        raise
    vm.start()
    if was == "suspended":
        vm.suspended_with = None
    if grant.assigned or grant.vgpus:
        vm.world.changed(vm, "config.hardware.device")
        target.graphics.changed()


def check_resume(vm: VirtualMachine, host: HostSystem) -> None:
    """Raise a fault when a suspended machine cannot resume on a host: its vGPUs need the same GPU and driver."""
    if vm.suspended_with is not None and vm.suspended_with != host.graphics.running_manager:
        raise vim.fault.InvalidState(
            msg=f"The vGPU manager of host {host.name} is not the one that the machine was suspended with."
        )


def power_off(ctx: Context, vm: VirtualMachine) -> t.Any:
    """Start the task."""

    async def body(control: TaskControl) -> None:
        async with vm.lock:
            vm.host.require_connected()
            if vm.power == "poweredOff":
                vm.require_power("poweredOn", requested="poweredOff")
            await control.work(vm.site.timings.power_off, steps=2)
            vm.stop()
            await vm.guest_settled()

    return ctx.world.start_task(vm, "VirtualMachine.powerOff", body, ctx.session)


def reset(ctx: Context, vm: VirtualMachine) -> t.Any:
    """Start the task; the machine keeps its GPUs."""

    async def body(control: TaskControl) -> None:
        async with vm.lock:
            vm.host.require_connected()
            vm.require_power("poweredOn")
            await control.work(vm.site.timings.power_off, steps=2)
            vm.restart()

    return ctx.world.start_task(vm, "VirtualMachine.reset", body, ctx.session)


def suspend(ctx: Context, vm: VirtualMachine) -> t.Any:
    """Start the task. A machine with a passed-through device cannot be suspended; its vGPUs must support it."""

    async def body(control: TaskControl) -> None:
        async with vm.lock:
            vm.host.require_connected()
            vm.require_power("poweredOn", requested="suspended")
            check_suspend(vm)
            await control.work(vm.site.timings.suspend)
            vm.suspended_with = vm.host.graphics.running_manager if vm.vgpus else None
            vm.power = "suspended"
            vm.boot_time = None
            vm.release()
            vm.power_changed()
            await vm.guest_settled()

    return ctx.world.start_task(vm, "VirtualMachine.suspend", body, ctx.session)


def check_suspend(vm: VirtualMachine) -> None:
    """Raise a fault when the machine's devices do not let it be suspended."""
    for device in vm.devices:
        if is_fixed(device) or is_dynamic(device):
            raise vim.fault.GenericVmConfigFault(
                reason="PCI passthrough device",
                msg="The virtual machine cannot be suspended: it has the PCI passthrough device "
                f"{device.deviceInfo.label}.",
            )
        if is_vgpu(device) and device.backing.vgpu not in vgpu.all_profiles():
            raise vmodl.fault.NotSupported(msg=f"The vGPU {device.backing.vgpu} does not support suspend.")


def shutdown_guest(vm: VirtualMachine) -> None:
    """Ask the guest to power off; ToolsUnavailable when it does not run."""
    _require_tools(vm)
    if vm.backed is not None:
        vm.backed.shut_down()
    else:
        _later(vm, vm.site.timings.guest_shutdown, vm.stop)


def reboot_guest(vm: VirtualMachine) -> None:
    """Ask the guest to restart; ToolsUnavailable when it does not run."""
    _require_tools(vm)
    if vm.backed is not None:
        vm.restart()
    else:
        _later(vm, vm.site.timings.guest_shutdown, vm.start)


def _require_tools(vm: VirtualMachine) -> None:
    vm.host.require_connected()
    vm.require_power("poweredOn")
    if vm.inside is None:
        raise vim.fault.ToolsUnavailable(
            msg="Cannot complete operation because VMware Tools is not running in this virtual machine."
        )


def _later(vm: VirtualMachine, seconds: float, action: t.Callable[[], None]) -> None:
    async def wait() -> None:
        await vm.world.clock.sleep(seconds)
        if vm.is_on and vm.moid in vm.world.objects:
            action()

    job = asyncio.get_running_loop().create_task(wait(), name=f"guest of {vm.name}")
    _background.add(job)
    job.add_done_callback(_background.discard)
