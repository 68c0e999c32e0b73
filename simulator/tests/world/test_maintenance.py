"""Maintenance mode, reboot and connection of hosts."""

from __future__ import annotations

import asyncio

import pytest
from inventory import Inventory, simulate, until

from vsphere_simulator.kernel.tasks import next_task_rule
from vsphere_simulator.vmomi import vim, vmodl

MODEL = """
clusters:
  - name: c
    vcls_agents: 1
    hosts: [{name: h1}, {name: h2}]
  - name: plain
    drs: {enabled: false}
    hosts: [{name: p1}, {name: p2}]
vms:
  - {name: running, host: h2, power: "on"}
  - {name: stopped, host: h2}
  - {name: other, host: p1}
"""


def test_a_host_without_running_machines_enters_and_leaves() -> None:
    async def scenario(lab: Inventory) -> None:
        host = lab["h1"]
        agent = next(vm for vm in host.machines.values() if vm.name.startswith("vCLS-"))
        assert agent.is_on
        await lab.run(host, "EnterMaintenanceMode_Task", timeout=0)
        assert host.in_maintenance
        assert not agent.is_on
        with pytest.raises(vim.fault.InvalidState):
            await lab.run(host, "EnterMaintenanceMode_Task", timeout=0)
        await lab.run(host, "ExitMaintenanceMode_Task", timeout=0)
        assert not host.in_maintenance
        assert agent.is_on
        with pytest.raises(vim.fault.InvalidState):
            await lab.run(host, "ExitMaintenanceMode_Task", timeout=0)

    simulate(MODEL, scenario)


def test_it_waits_until_the_running_machines_are_gone() -> None:
    async def scenario(lab: Inventory) -> None:
        host = lab["h2"]
        task = await lab.start(host, "EnterMaintenanceMode_Task", timeout=0)
        await asyncio.sleep(0.05)
        assert (task.state, host.in_maintenance) == ("running", False)
        with pytest.raises(vim.fault.InvalidHostState):
            await lab.run(lab["stopped"], "PowerOnVM_Task")
        await lab.run(lab["running"], "PowerOffVM_Task")
        await task.job
        assert (task.state, host.in_maintenance) == ("success", True)
        with pytest.raises(vim.fault.InvalidHostState):
            await lab.run(lab["stopped"], "PowerOnVM_Task")

    simulate(MODEL, scenario)


def test_a_timeout_ends_it_in_real_seconds_and_leaves_the_host_as_it_was() -> None:
    async def scenario(lab: Inventory) -> None:
        host, loop = lab["h2"], asyncio.get_running_loop()
        began = loop.time()
        with pytest.raises(vim.fault.Timedout):
            await lab.run(host, "EnterMaintenanceMode_Task", timeout=1)
        assert loop.time() - began >= 0.95
        assert not host.in_maintenance
        await lab.run(lab["stopped"], "PowerOnVM_Task")

    simulate(MODEL, scenario)


def test_a_cancelled_task_lets_machines_start_again() -> None:
    async def scenario(lab: Inventory) -> None:
        task = await lab.start(lab["h2"], "EnterMaintenanceMode_Task", timeout=0)
        lab.call(task, "CancelTask")
        await task.job
        assert isinstance(task.error, vmodl.fault.RequestCanceled)
        await lab.run(lab["stopped"], "PowerOnVM_Task")

    simulate(MODEL, scenario)


def test_machines_that_are_off_are_registered_elsewhere_when_asked() -> None:
    async def scenario(lab: Inventory) -> None:
        await lab.run(lab["running"], "PowerOffVM_Task")
        await lab.run(lab["h2"], "EnterMaintenanceMode_Task", timeout=0, evacuate_powered_off_vms=True)
        assert lab["stopped"].host is lab["h1"]
        with pytest.raises(vim.fault.Timedout):
            await lab.run(lab["p1"], "EnterMaintenanceMode_Task", timeout=1, evacuate_powered_off_vms=True)
        assert lab["other"].host is lab["p1"]

    simulate(MODEL, scenario)


def test_a_reboot_needs_maintenance_mode_or_force() -> None:
    async def scenario(lab: Inventory) -> None:
        host = lab["h2"]
        with pytest.raises(vim.fault.InvalidState):
            await lab.run(host, "RebootHost_Task", force=False)
        assert host.answers
        before = host.boot_time
        await lab.run(host, "RebootHost_Task", force=True)
        assert host.connection == "notResponding"
        assert lab["running"].power == "poweredOff"
        with pytest.raises(vmodl.fault.HostCommunication):
            await lab.run(lab["stopped"], "PowerOnVM_Task")
        await until(lambda: host.answers)
        assert host.boot_time > before

    simulate(MODEL, scenario)


def test_maintenance_mode_outlives_a_reboot() -> None:
    async def scenario(lab: Inventory) -> None:
        host = lab["h1"]
        await lab.run(host, "EnterMaintenanceMode_Task", timeout=0)
        times = [host.boot_time]
        for _ in range(2):
            await lab.run(host, "RebootHost_Task", force=False)
            await until(lambda: host.answers)
            times.append(host.boot_time)
        assert host.in_maintenance
        assert times == sorted(set(times))

    simulate(MODEL, scenario)


def test_a_host_can_stay_away_for_good() -> None:
    class Rule:
        fail_task_at = None
        never_returns = True

    async def scenario(lab: Inventory) -> None:
        host = lab["h1"]
        mark = next_task_rule.set(Rule())  # type: ignore[arg-type]
        try:
            await lab.run(host, "RebootHost_Task", force=True)
        finally:
            next_task_rule.reset(mark)
        assert host.boot_job is None
        with pytest.raises(vim.fault.NoHost):
            await lab.run(host, "ReconnectHost_Task")
        assert host.connection == "notResponding"

    simulate(MODEL, scenario)


def test_a_disconnected_host_can_be_reconnected() -> None:
    async def scenario(lab: Inventory) -> None:
        host, vm = lab["h2"], lab["running"]
        await lab.run(host, "DisconnectHost_Task")
        assert host.connection == "disconnected"
        assert vm.builders["runtime.connectionState"](vm) == "disconnected"
        with pytest.raises(vmodl.fault.HostNotConnected):
            await lab.run(host, "EnterMaintenanceMode_Task", timeout=0)
        await lab.run(host, "ReconnectHost_Task")
        assert host.answers
        with pytest.raises(vim.fault.InvalidState):
            await lab.run(host, "ReconnectHost_Task")

    simulate(MODEL, scenario)
