"""Maintenance mode, reboot, disconnect and reconnect of a host."""

from __future__ import annotations

import asyncio
import datetime as dt
import typing as t

from vsphere_simulator.vmomi import vim
from vsphere_simulator.world import drs
from vsphere_simulator.world.entity import invalid_state

if t.TYPE_CHECKING:
    from vsphere_simulator.kernel.objects import Context
    from vsphere_simulator.kernel.tasks import TaskControl
    from vsphere_simulator.world.host import HostSystem
    from vsphere_simulator.world.virtual_machine import VirtualMachine


def enter(ctx: Context, host: HostSystem, timeout: int, evacuate: bool) -> t.Any:
    """Start the task. `timeout` is in real seconds, 0 for none; it ends the task with Timedout."""

    async def body(control: TaskControl) -> None:
        host.require_connected()
        if host.in_maintenance or host.entering_maintenance:
            raise invalid_state()
        host.entering_maintenance = True
        try:
            async with asyncio.timeout(timeout if timeout > 0 else None):
                await _empty(ctx, control, host, evacuate)
                await control.work(host.site.timings.maintenance, steps=2)
            host.require_connected()
            host.in_maintenance = True
        except TimeoutError as error:
            raise vim.fault.Timedout(msg="Operation timed out.") from error
        finally:
            host.entering_maintenance = False
        _maintenance_changed(host)

    return ctx.world.start_task(host, "HostSystem.enterMaintenanceMode", body, ctx.session)


async def _empty(ctx: Context, control: TaskControl, host: HostSystem, evacuate: bool) -> None:
    """Wait until nothing runs on a host; DRS and the vCenter's own agents help where they can."""
    control.progress(2)
    moves: dict[str, t.Any] = {}
    while in_the_way(host):
        drs.evacuate(ctx, host, moves)
        await host.machines_changed.wait(drs.REVIEW_SECONDS / host.world.clock.scale)
    for agent in host.running:
        agent.stop()
    if evacuate and host.cluster.drs.enabled:
        _reregister(host)
    elif evacuate:
        while host.machines:
            await host.machines_changed.wait(None)


def in_the_way(host: HostSystem) -> list[VirtualMachine]:
    """The running virtual machines that keep a host out of maintenance mode."""
    return [vm for vm in host.running if not vm.is_agent]


def _reregister(host: HostSystem) -> None:
    """Register what is powered off on other hosts of the cluster, where there is one that can take it."""
    others = [h for h in host.cluster.hosts.values() if h is not host and h.answers and not h.in_maintenance]
    for number, vm in enumerate(list(host.machines.values())):
        if others and not vm.is_on:
            vm.move_to(others[number % len(others)])


def leave(ctx: Context, host: HostSystem, timeout: int) -> t.Any:
    """Start the task that ends maintenance mode. `timeout` is in real seconds, 0 for none."""

    async def body(control: TaskControl) -> None:
        host.require_connected()
        if not host.in_maintenance:
            raise invalid_state()
        try:
            async with asyncio.timeout(timeout if timeout > 0 else None):
                await control.work(host.site.timings.maintenance / 4, steps=1)
        except TimeoutError as error:
            raise vim.fault.Timedout(msg="Operation timed out.") from error
        host.in_maintenance = False
        for agent in [vm for vm in host.machines.values() if vm.is_agent]:
            agent.start()
        _maintenance_changed(host)

    return ctx.world.start_task(host, "HostSystem.exitMaintenanceMode", body, ctx.session)


def _maintenance_changed(host: HostSystem) -> None:
    host.world.changed(host, "runtime.inMaintenanceMode", "summary.runtime.inMaintenanceMode")
    host.world.changed(host.cluster, "summary")


def reboot(ctx: Context, host: HostSystem, force: bool) -> t.Any:
    """Start the task: it ends when the host goes down; the host comes back after its boot time."""

    async def body(control: TaskControl) -> None:
        host.require_connected()
        if not host.in_maintenance and not force:
            raise invalid_state("The host must be in maintenance mode, or the reboot forced.")
        await control.work(2.0, steps=2)
        go_down(host)
        if control.never_returns:
            host.lost = True
        else:
            host.boot_job = asyncio.get_running_loop().create_task(_boot(host), name=f"boot of {host.name}")

    return ctx.world.start_task(host, "HostSystem.reboot", body, ctx.session)


def go_down(host: HostSystem) -> None:
    """The host stops answering; what ran on it has lost its power."""
    for vm in host.running:
        vm.stop()
    host.booting = True
    set_connection(host, "notResponding")


async def _boot(host: HostSystem) -> None:
    await host.world.clock.sleep(host.site.timings.boot)
    come_up(host)


def come_up(host: HostSystem) -> None:
    """The host answers again, with a later boot time and all that waited for a boot in force."""
    host.booting = host.lost = False
    # No two boots of a real host are closer, and a simulator started anew may find a boot time ahead of its clock.
    host.boot_time = max(host.world.clock.now(), host.boot_time + dt.timedelta(minutes=1)).replace(microsecond=0)
    for state in host.passthrough.values():
        state.active = state.enabled
    host.graphics.booted()
    if host.connection == "notResponding":
        set_connection(host, "connected")
    host.passthrough_changed()
    host.world.changed(host, "runtime.bootTime", "summary.runtime.bootTime")


def set_connection(host: HostSystem, connection: str) -> None:
    """Change the host's connection state and tell who watches it, its cluster and its machines."""
    host.connection = connection
    world = host.world
    world.changed(host, "runtime", "summary.runtime", "overallStatus", "summary.overallStatus")
    world.changed(host.cluster, "summary")
    for vm in host.machines.values():
        world.changed(vm, "runtime.connectionState", "summary.runtime.connectionState")


def disconnect(ctx: Context, host: HostSystem) -> t.Any:
    """Start the task."""

    async def body(control: TaskControl) -> None:
        if host.connection == "disconnected":
            raise invalid_state()
        await control.work(2.0, steps=1)
        set_connection(host, "disconnected")

    return ctx.world.start_task(host, "HostSystem.disconnect", body, ctx.session)


def reconnect(ctx: Context, host: HostSystem) -> t.Any:
    """Start the task; a host that is booting or lost cannot be reached."""

    async def body(control: TaskControl) -> None:
        if host.connection == "connected":
            raise invalid_state()
        await control.work(5.0, steps=1)
        if host.booting or host.lost:
            raise vim.fault.NoHost(name=host.name, msg=f"Unable to contact the specified host ({host.name}).")
        set_connection(host, "connected")

    return ctx.world.start_task(host, "HostSystem.reconnect", body, ctx.session)
