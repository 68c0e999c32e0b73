"""What DRS does by itself: empty a host for maintenance, and choose a host at power-on."""

from __future__ import annotations

import typing as t

from vsphere_simulator.vmomi import vmodl
from vsphere_simulator.world import admission, migration
from vsphere_simulator.world.devices import is_vgpu

if t.TYPE_CHECKING:
    from vsphere_simulator.kernel.objects import Context
    from vsphere_simulator.kernel.tasks import TaskControl
    from vsphere_simulator.world.compute import Compute
    from vsphere_simulator.world.host import HostSystem
    from vsphere_simulator.world.virtual_machine import VirtualMachine

REVIEW_SECONDS: t.Final = 60
"""Simulated seconds after which DRS looks again whether a machine that found no place has one now."""


def moves_vgpus(cluster: Compute) -> bool:
    """Whether DRS may move machines with vGPUs: off unless an advanced option of the cluster says so."""
    options = cluster.drs.options
    return "VgpuMMAutomationTimeoutSecs" in options or options.get("PassthroughDrsAutomation") == "1"


def place(vm: VirtualMachine, candidates: t.Iterable[HostSystem], *, running: bool) -> HostSystem | None:
    """The emptiest of these hosts that can take a machine; None when none can."""

    def fits(host: HostSystem) -> bool:
        try:
            host.require_open_for_work()
            if running:
                migration.check_vmotion(vm, host)
            admission.admit(vm, host)
        except vmodl.MethodFault:
            return False
        return host.cluster.rules.allows(vm, host)

    fitting = [host for host in candidates if fits(host)]
    return min(fitting, key=load) if fitting else None


def load(host: HostSystem) -> tuple[int, str]:
    """What DRS sorts hosts by: the emptiest first."""
    return (len(host.running), host.name)


def initial_host(vm: VirtualMachine) -> HostSystem | None:
    """Where DRS starts a machine that its own host cannot take; None for its own host."""
    cluster = vm.host.cluster
    if cluster.rules.drs_behaviour(vm) in ("", "manual") or vm.power != "poweredOff":
        return None
    if place(vm, [vm.host], running=False) is not None:
        return None
    return place(vm, (host for host in cluster.hosts.values() if host is not vm.host), running=False)


def evacuate(ctx: Context, host: HostSystem, started: dict[str, t.Any]) -> None:
    """Start the vMotion of every machine that can leave a host now.

    `started` holds the task of each machine that is on its way; what has failed is tried again.
    """
    cluster = host.cluster
    for vm in host.running:
        if cluster.rules.drs_behaviour(vm) != "fullyAutomated":
            continue
        task = started.get(vm.moid)
        if vm.is_agent or (task is not None and task.state in ("queued", "running")):
            continue
        if any(is_vgpu(device) for device in vm.devices) and not moves_vgpus(cluster):
            continue
        target = place(vm, (other for other in cluster.hosts.values() if other is not host), running=True)
        if target is not None:
            started[vm.moid] = host.world.get(_start_vmotion(ctx, vm, target))


def _start_vmotion(ctx: Context, vm: VirtualMachine, target: HostSystem) -> t.Any:
    async def body(control: TaskControl) -> None:
        async with vm.lock:
            vm.require_power("poweredOn")
            await migration.move(control, vm, target, None, None)

    return ctx.world.start_task(vm, "Drm.ExecuteVMotionLRO", body, ctx.session)
