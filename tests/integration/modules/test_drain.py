# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Hosts drained of what runs on them, and everything back where it was afterwards; nothing of anybody else's."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.facts import Intent
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.convert import format_intent
from ansible_collections.gpuops.vsphere.plugins.modules import esxi_maintenance
from gpu_vms import machine, vcenter_connection
from in_process import CrashError, Fuse, run, step
from pyVim.task import WaitForTask
from pyVmomi import vim
from simulated import StartVcenter, Vcenter, fleet, wait_for

ONE, TWO = "esx-001.lab", "esx-002.lab"
PROFILE = "grid_v100d-16c"
QUICK = {"maintenance": 1, "boot": 2, "migrate": 2, "suspend": 2, "power_on": 2, "power_off": 1, "guest_shutdown": 2}
SCALE = 60
ALLOWED = {"suspend": True, "shut_down": "guest"}


def vgpu(name: str, host: str = ONE, **more: Any) -> dict[str, Any]:
    gpus = [{"mode": "vgpu", "profile": PROFILE}]
    mmio = {"pciPassthru.use64bitMMIO": "TRUE", "pciPassthru.64bitMMIOSizeGB": "64"}
    return machine(name, host, gpus=gpus, memory_locked=True, extra_config=mmio, power="on", **more)


def passthrough(name: str, host: str = ONE, **more: Any) -> dict[str, Any]:
    mmio = {"pciPassthru.use64bitMMIO": "TRUE", "pciPassthru.64bitMMIOSizeGB": "128"}
    gpus = [{"mode": "dynamic", "ids": ["10de:1eb8"]}]
    return machine(name, host, gpus=gpus, memory_locked=True, extra_config=mmio, power="on", **more)


def model(*vms: dict[str, Any], hosts: int = 2, hot_migrate: bool = True, **more: Any) -> dict[str, Any]:
    """Hosts with two V100 that are shared and two T4 in passthrough."""
    made = fleet(hosts, timings=QUICK, vms=list(vms), options={"vgpu.hotmigrate.enabled": str(hot_migrate).lower()})
    made["clusters"][0]["hosts"][0] |= {
        "vgpu_manager": "17.3",
        "gpus": [
            {"gpu": "V100-32", "count": 2, "graphics_type": "sharedDirect"},
            {"gpu": "T4", "count": 2, "passthrough": True},
        ],
    }
    return made | more


def machines(vcenter: Vcenter) -> dict[str, tuple[str, str, list[str]]]:
    """Power, host and marks of every machine, as pyVmomi alone sees them."""
    with vcenter_connection(vcenter) as content:
        view = content.viewManager.CreateContainerView(content.rootFolder, [vim.VirtualMachine], True)
        return {
            vm.name: (
                vm.runtime.powerState.removeprefix("powered").lower(),
                vm.runtime.host.name,
                [value.value for value in vm.customValue if value.value],
            )
            for vm in view.view
            if not vm.name.startswith("vCLS")
        }


def maintenance(vcenter: Vcenter, state: str = "entered", **own: Any) -> Any:
    return step(vcenter, esxi_maintenance, hosts=own.pop("hosts", [ONE]), state=state, **own)


def actions(planned: Any, host: str = ONE) -> list[str]:
    return [str(change) for change in planned.plans[host].changes]


CASES = [
    pytest.param([vgpu("gpu-a")], {}, {}, ["migrate gpu-a"], ("on", TWO), id="a vGPU migrates"),
    pytest.param([machine("web", power="on")], {}, {}, ["migrate web"], ("on", TWO), id="without DRS we migrate"),
    pytest.param(
        [vgpu("gpu-a")],
        {"hot_migrate": False},
        {"suspend": True},
        ["suspend gpu-a (the vCenter's setting vgpu.hotmigrate.enabled is off)"],
        ("suspended", ONE),
        id="else it is suspended",
    ),
    pytest.param(
        [vgpu("gpu-a"), vgpu("gpu-b", TWO), vgpu("gpu-c", TWO), vgpu("gpu-d", TWO), vgpu("gpu-e", TWO)],
        {},
        {"suspend": True},
        [f"suspend gpu-a (no other host in service has room for the vGPU {PROFILE})"],
        ("suspended", ONE),
        id="no room elsewhere",
    ),
    pytest.param(
        [passthrough("gpu-a")],
        {},
        {"shut_down": "guest", "suspend": True},
        ["shut down gpu-a (it has a passed-through device)"],
        ("off", ONE),
        id="passthrough is shut down",
    ),
]


@pytest.mark.parametrize(("vms", "settings", "policy", "planned", "inside"), CASES)
def test_out_of_the_way_and_back(
    start_vcenter: StartVcenter,
    vms: list[dict[str, Any]],
    settings: dict[str, Any],
    policy: dict[str, Any],
    planned: list[str],
    inside: tuple[str, str],
) -> None:
    vcenter = start_vcenter(model(*vms, **settings), time_scale=SCALE)
    before = machines(vcenter)
    name = vms[0]["name"]
    done = maintenance(vcenter, **policy)
    assert actions(done) == [*planned, "enter maintenance mode"]
    power, host, marks = machines(vcenter)[name]
    assert (power, host) == inside
    assert len(marks) == 1
    assert vcenter.host(ONE)["in_maintenance"] is True
    back = maintenance(vcenter, "left")
    assert len(actions(back)) == 2
    assert machines(vcenter) == before
    assert maintenance(vcenter, "left").todo == ()
    # Check mode says of the way back, before the way out, what was then done.
    params = {"hosts": [ONE], "state": "left", "assume": {"hosts": dict(done.hosts), "vms": {}}}
    predicted = run_plan(vcenter, **params)
    assert actions(predicted) == actions(back)


def run_plan(vcenter: Vcenter, **own: Any) -> Any:
    """The plan alone."""

    class Module:
        argument_spec = staticmethod(esxi_maintenance.argument_spec)
        read = staticmethod(esxi_maintenance.read)
        plan = staticmethod(esxi_maintenance.plan)
        apply = staticmethod(lambda *_args: {})

    return run(vcenter, Module, **own)[0]


def test_what_is_in_the_way_is_named_with_the_reason_and_nothing_is_begun(start_vcenter: StartVcenter) -> None:
    vcenter = start_vcenter(model(vgpu("gpu-a"), passthrough("gpu-b"), hosts=1), time_scale=SCALE)
    before = machines(vcenter)
    planned, _done = run(vcenter, esxi_maintenance, hosts=[ONE], suspend=False)
    message = planned.plans[ONE].problems[0].msg
    assert "gpu-a (no other host of its cluster is in service)" in message
    assert "gpu-b (it has a passed-through device)" in message
    assert machines(vcenter) == before
    assert vcenter.host(ONE)["intent"] is None


def test_agents_and_what_drs_moves_are_left_to_the_vcenter(start_vcenter: StartVcenter) -> None:
    made = model(machine("web", power="on"))
    made["clusters"][0] |= {"vcls_agents": 1, "drs": {"automation": "fullyAutomated"}}
    vcenter = start_vcenter(made, time_scale=SCALE)
    assert actions(maintenance(vcenter)) == ["enter maintenance mode (DRS moves web)"]
    assert machines(vcenter)["web"] == ("on", TWO, [])


def test_what_somebody_else_has_suspended_or_moved_stays(start_vcenter: StartVcenter) -> None:
    vms = [vgpu("theirs"), vgpu("ours"), machine("off")]
    vcenter = start_vcenter(model(*vms, hot_migrate=False), time_scale=SCALE)
    with vcenter_connection(vcenter) as content:
        view = content.viewManager.CreateContainerView(content.rootFolder, [vim.VirtualMachine], True)
        (theirs,) = [vm for vm in view.view if vm.name == "theirs"]
        theirs.SuspendVM_Task()
        wait_for(lambda: theirs.runtime.powerState == "suspended", "an administrator has suspended it")
    maintenance(vcenter, suspend=True)
    maintenance(vcenter, "left")
    assert {name: (power, marks) for name, (power, _host, marks) in machines(vcenter).items()} == {
        "theirs": ("suspended", []),
        "ours": ("on", []),
        "off": ("off", []),
    }


def test_a_host_that_cannot_be_emptied_gets_back_what_was_moved(start_vcenter: StartVcenter) -> None:
    rule = {"method": "SuspendVM_Task", "object": "stuck", "nth": 1, "fail_task_at": 60}
    vms = [vgpu("gpu-a"), vgpu("stuck")]
    vcenter = start_vcenter(model(*vms, hot_migrate=False), faults=[rule], time_scale=SCALE)
    before = machines(vcenter)
    _planned, done = run(vcenter, esxi_maintenance, hosts=[ONE], suspend=True)
    (problem,) = done[ONE].problems
    assert "could not drain it. stuck: " in problem.msg
    assert machines(vcenter) == before
    host = vcenter.host(ONE)
    assert (host["in_maintenance"], host["intent"]) == (False, None)
    assert maintenance(vcenter, suspend=True).todo == (ONE,)


def test_where_one_way_fails_the_next_one_is_tried(start_vcenter: StartVcenter) -> None:
    rule = {"method": "RelocateVM_Task", "nth": 1, "fail_task_at": 60}
    vcenter = start_vcenter(model(vgpu("gpu-a")), faults=[rule], time_scale=SCALE)
    maintenance(vcenter, suspend=True)
    assert machines(vcenter)["gpu-a"][:2] == ("suspended", ONE)
    maintenance(vcenter, "left")
    assert machines(vcenter)["gpu-a"] == ("on", ONE, [])


def test_many_hosts_are_drained_with_a_constant_number_of_reads(start_vcenter: StartVcenter) -> None:
    reads = []
    for count in (1, 5):
        hosts = [f"esx-{number:03}.lab" for number in range(1, count + 1)]
        vcenter = start_vcenter(model(*(vgpu(f"gpu-{host}", host) for host in hosts), hosts=2 * count))
        requests = vcenter.ok("esxi_maintenance", hosts=hosts)["requests"]
        assert requests.pop("RelocateVM_Task") == requests.pop("EnterMaintenanceMode_Task") == count
        assert requests.pop("SetField") == 4 * count
        assert requests.pop("WaitForUpdatesEx") <= 8 * count + 8
        reads.append(requests)
        vcenter.stop()
    assert reads[0] == reads[1]


@pytest.mark.parametrize("under_way", ["power on", "migrate"])
def test_what_a_killed_run_still_brings_back_is_waited_for(start_vcenter: StartVcenter, under_way: str) -> None:
    """A machine that is being powered on counts as off until it is, one on its way back as elsewhere."""
    slow = {"power_on": 120, "migrate": 120}  # two seconds
    web = machine("web", ONE if under_way == "power on" else TWO, power="off" if under_way == "power on" else "on")
    vcenter = start_vcenter(model(web, timings=QUICK | slow), time_scale=SCALE)
    with vcenter_connection(vcenter) as content:
        view = content.viewManager.CreateContainerView(content.rootFolder, [vim.VirtualMachine, vim.HostSystem], True)
        found = {item.name: item for item in view.view}
        if under_way == "power on":
            found["web"].PowerOnVM_Task()
        else:
            fields = content.customFieldsManager
            key = fields.AddCustomFieldDef("gpuops.intent", None, None, None).key
            mark = Intent("killed", "moved", "2026-01-01T00:00:00Z", host=ONE)
            fields.SetField(found["web"], key, format_intent(mark))
            found["web"].RelocateVM_Task(vim.vm.RelocateSpec(host=found[ONE]), "defaultPriority")
    assert actions(maintenance(vcenter, timeout=30)) == ["migrate web", "enter maintenance mode"]
    assert machines(vcenter)["web"][:2] == ("on", TWO)


def test_what_starts_while_the_hosts_are_read_is_drained_too(
    start_vcenter: StartVcenter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A task that a killed run had asked for ends between two reads: nothing is under way, and the first is stale."""
    vcenter = start_vcenter(model(machine("web", power="off")), time_scale=SCALE)
    read_hosts, started = esxi_maintenance.read_hosts, []

    def read_and_start(client: Any, names: Any, **more: Any) -> Any:
        found = read_hosts(client, names, **more)
        if not started:
            started.append("web")
            with vcenter_connection(vcenter) as content:
                view = content.viewManager.CreateContainerView(content.rootFolder, [vim.VirtualMachine], True).view
                WaitForTask(next(item for item in view if item.name == "web").PowerOnVM_Task())
        return found

    monkeypatch.setattr(esxi_maintenance, "read_hosts", read_and_start)
    assert actions(maintenance(vcenter)) == ["migrate web", "enter maintenance mode"]


def test_every_crash_of_a_drain_is_finished_by_the_next_run(
    start_vcenter: StartVcenter, monkeypatch: pytest.MonkeyPatch
) -> None:
    vms = [vgpu("moves"), machine("web", power="on"), passthrough("stops")]
    vcenter = start_vcenter(model(*vms), time_scale=SCALE)
    before = machines(vcenter)
    fuse = Fuse(monkeypatch)
    limit, crashed = 0, True
    while crashed:  # until the fuse is longer than the whole work
        limit += 1
        fuse.calls, fuse.limit = 0, limit
        try:
            maintenance(vcenter, **ALLOWED)
            maintenance(vcenter, "left")
            crashed = False
        except CrashError:
            fuse.limit = None
            maintenance(vcenter, **ALLOWED)
            maintenance(vcenter, "left")
        fuse.limit = None
        assert machines(vcenter) == before, f"after call {limit}"
        host = vcenter_host(vcenter)
        assert host == (False, []), f"after call {limit}"
    assert limit > 40


def vcenter_host(vcenter: Vcenter) -> tuple[bool, list[str]]:
    with vcenter_connection(vcenter) as content:
        view = content.viewManager.CreateContainerView(content.rootFolder, [vim.HostSystem], True)
        (host,) = [host for host in view.view if host.name == ONE]
        return host.runtime.inMaintenanceMode, [value.value for value in host.customValue if value.value]
