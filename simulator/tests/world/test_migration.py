"""Moving machines: cold, suspended, by vMotion, and by DRS for maintenance."""

from __future__ import annotations

import pytest
from inventory import TWO_V100, V100_IDS, Inventory, change, dynamic, fixed, simulate, until

from vsphere_simulator.vmomi import vim, vmodl

HOT = 'options: {vgpu.hotmigrate.enabled: "true"}\n'
VGPU = """
clusters:
  - name: c
    drs: {automation: AUTOMATION, options: {OPTIONS}}
    host_defaults: {gpus: [{gpu: A100-40}], vgpu_manager: "16.4", graphics_type: sharedDirect}
    hosts: [{name: h1}, {name: h2}, {name: old, vgpu_manager: "15.3"}, {name: bare, vgpu_manager: null}]
  - name: other
    hosts: [{name: h9}]
vms:
  - &gpu {name: a, host: h1, power: on, firmware: efi, memory_locked: true,
          gpus: [{mode: vgpu, profile: nvidia_a100-20c}]}
  - {<<: *gpu, name: b}
  - {<<: *gpu, name: full, host: h2, gpus: [{mode: vgpu, profile: nvidia_a100-40c}], power: off}
  - {name: plain, host: h1, power: on}
  - {name: idle, host: h1}
datastores: [{name: ds}, {name: ds2}]
"""


def model(*, automation: str = "manual", options: str = "", hot: bool = True) -> str:
    text = VGPU.replace("AUTOMATION", automation).replace("OPTIONS", options)
    return "datacenter: dc\nnetworks: [{name: net}]\n" + (HOT if hot else "") + text


def place(lab: Inventory, **where: str) -> object:
    return vim.vm.RelocateSpec(**{key: lab[name].ref for key, name in where.items()})


async def relocate(lab: Inventory, vm: str, **where: str) -> None:
    await lab.run(lab[vm], "RelocateVM_Task", spec=place(lab, **where))


def test_a_running_machine_moves_and_its_vgpu_with_it() -> None:
    async def scenario(lab: Inventory) -> None:
        await relocate(lab, "plain", host="h2")
        assert lab["plain"].host is lab["h2"]
        assert lab["plain"].is_on
        before = lab["a"].vgpus
        await lab.run(lab["a"], "MigrateVM_Task", priority="defaultPriority", host=lab["h2"], state="poweredOn")
        vm = lab["a"]
        assert (vm.host, vm.is_on, vm.moid in lab["h1"].machines) == (lab["h2"], True, False)
        assert vm.vgpus.keys() == before.keys()
        assert [info.vm[0]._GetMoId() for info in lab["h2"].graphics.info()] == [vm.moid]
        with pytest.raises(vim.fault.InvalidPowerState):
            await lab.run(vm, "MigrateVM_Task", priority="defaultPriority", host=lab["h1"], state="poweredOff")

    simulate(model(), scenario)


def test_without_the_setting_no_vgpu_moves_while_it_runs() -> None:
    async def scenario(lab: Inventory) -> None:
        with pytest.raises(vim.fault.MigrationFeatureNotSupported) as caught:
            await relocate(lab, "a", host="h2")
        assert (caught.value.atSourceHost, caught.value.failedHostName) == (True, "h1")
        settings = lab.world.content["setting"]
        option = vim.option.OptionValue(key="vgpu.hotmigrate.enabled", value=True)
        lab.call(settings, "UpdateOptions", changed_value=[option])
        await relocate(lab, "a", host="h2")

    simulate(model(hot=False), scenario)


@pytest.mark.parametrize("target", ["old", "bare"])
def test_the_target_must_have_the_same_manager_and_type(target: str) -> None:
    async def scenario(lab: Inventory) -> None:
        with pytest.raises(vim.fault.MigrationFeatureNotSupported) as caught:
            await relocate(lab, "a", host=target)
        assert (caught.value.atSourceHost, caught.value.failedHostName) == (False, target)

    simulate(model(), scenario)


def test_the_target_must_have_room_and_holds_it_from_the_start() -> None:
    async def scenario(lab: Inventory) -> None:
        first = await lab.start(lab["a"], "RelocateVM_Task", spec=place(lab, host="h2"))
        with pytest.raises(vim.fault.InsufficientGraphicsResourcesFault):
            await lab.run(lab["full"], "PowerOnVM_Task")
        await first.job
        assert first.error is None
        await relocate(lab, "b", host="h2")
        assert lab["h2"].graphics.occupancies()[0].used_gb == 40
        assert lab["h2"].arriving == {}
        await lab.run(lab["a"], "PowerOffVM_Task")
        await lab.run(lab["b"], "PowerOffVM_Task")
        await lab.run(lab["full"], "PowerOnVM_Task")
        await lab.run(lab["plain"], "PowerOffVM_Task")
        await lab.run(lab["a"], "PowerOnVM_Task", host=lab["h1"])
        with pytest.raises(vim.fault.InsufficientGraphicsResourcesFault):
            await relocate(lab, "a", host="h2")
        assert lab["a"].host is lab["h1"]
        assert lab["a"].is_on

    simulate(model(), scenario)


@pytest.mark.parametrize("mode", ["fixed", "dynamic"])
def test_a_passed_through_device_binds_a_running_machine(mode: str) -> None:
    async def scenario(lab: Inventory) -> None:
        vm = lab["vm-1"]
        device = fixed(lab["esx-1"], V100_IDS[0]) if mode == "fixed" else dynamic("10de:1db6")
        await lab.reconfigure(vm, deviceChange=[change(device)])
        await lab.run(vm, "PowerOnVM_Task")
        with pytest.raises(vim.fault.DisallowedMigrationDeviceAttached, match="PCI device 0"):
            await relocate(lab, "vm-1", host="esx-2")
        await lab.run(vm, "PowerOffVM_Task")
        await relocate(lab, "vm-1", host="esx-2")
        assert vm.host is lab["esx-2"]
        if mode == "dynamic":
            await lab.run(vm, "PowerOnVM_Task")
        else:
            with pytest.raises(vim.fault.GenericVmConfigFault, match="not on host esx-2"):
                await lab.run(vm, "PowerOnVM_Task")

    simulate(TWO_V100, scenario)


def test_a_suspended_vgpu_resumes_only_where_the_manager_is_the_same_and_there_is_room() -> None:
    async def scenario(lab: Inventory) -> None:
        vm = lab["a"]
        await lab.run(vm, "SuspendVM_Task")
        assert (vm.power, vm.vgpus) == ("suspended", {})
        with pytest.raises(vim.fault.InvalidState, match="vGPU manager"):
            await relocate(lab, "a", host="old")
        await relocate(lab, "a", host="h2")
        await lab.run(lab["full"], "PowerOnVM_Task")
        with pytest.raises(vim.fault.InsufficientGraphicsResourcesFault):
            await lab.run(vm, "PowerOnVM_Task")
        assert vm.power == "suspended"
        await lab.run(lab["full"], "PowerOffVM_Task")
        lab["h2"].graphics.running_manager = "17.0"
        with pytest.raises(vim.fault.InvalidState, match="vGPU manager"):
            await lab.run(vm, "PowerOnVM_Task")
        lab["h2"].graphics.running_manager = "16.4"
        await lab.run(vm, "PowerOnVM_Task")
        assert vm.is_on
        assert vm.vgpus

    simulate(model(), scenario)


def test_a_machine_moves_to_another_cluster_pool_datastore_and_folder() -> None:
    async def scenario(lab: Inventory) -> None:
        vm = lab["idle"]
        with pytest.raises(vmodl.fault.InvalidArgument):
            await relocate(lab, "idle", host="h9")
        folder = lab.call(lab["dc"].folders["vm"], "CreateFolder", name="archive")
        spec = place(lab, host="h9", datastore="ds2")
        spec.pool, spec.folder = lab["other"].pool.ref, folder.ref
        await lab.run(vm, "RelocateVM_Task", spec=spec)
        assert (vm.host, vm.pool, vm.parent) == (lab["h9"], lab["other"].pool, folder)
        assert {d.backing.datastore._GetMoId() for d in vm.devices if d.key == 2000} == {lab["ds2"].moid}
        assert vm.moid in lab["ds2"].users
        assert vm.moid not in lab["ds"].users
        assert vm.moid not in lab["c"].pool.machines
        disk = vim.vm.RelocateSpec.DiskLocator(diskId=2000, datastore=lab["ds"].ref)
        with pytest.raises(vmodl.fault.NotSupported, match=r"relocateSpec\.disk"):
            lab.call(vm, "RelocateVM_Task", spec=vim.vm.RelocateSpec(disk=[disk]))

    simulate(model(), scenario)


def test_drs_empties_a_host_for_maintenance() -> None:
    async def scenario(lab: Inventory) -> None:
        await lab.run(lab["h1"], "EnterMaintenanceMode_Task", timeout=0)
        assert lab["h1"].in_maintenance
        assert {lab[name].host for name in ("a", "b")} == {lab["h2"]}
        assert all(lab[name].is_on for name in ("a", "b", "plain"))
        assert lab["plain"].host is not lab["h1"]
        assert lab["idle"].host is lab["h1"]

    simulate(model(automation="fullyAutomated", options="PassthroughDrsAutomation: '1'"), scenario)


@pytest.mark.parametrize(
    ("automation", "options", "moved"),
    [
        ("manual", "", set()),
        ("partiallyAutomated", "PassthroughDrsAutomation: '1'", set()),
        ("fullyAutomated", "", {"plain"}),
        ("fullyAutomated", "VgpuMMAutomationTimeoutSecs: '-1'", {"plain", "a", "b"}),
    ],
)
def test_drs_moves_only_what_it_may(automation: str, options: str, moved: set[str]) -> None:
    async def scenario(lab: Inventory) -> None:
        task = await lab.start(lab["h1"], "EnterMaintenanceMode_Task", timeout=0)
        await until(lambda: {vm.name for vm in lab["h1"].running} == {"a", "b", "plain"} - moved)
        if moved == {"plain", "a", "b"}:
            await task.job
            assert lab["h1"].in_maintenance
            return
        assert task.state == "running"
        for name in {"a", "b", "plain"} - moved:
            await lab.run(lab[name], "PowerOffVM_Task")
        await task.job
        assert lab["h1"].in_maintenance

    simulate(model(automation=automation, options=options), scenario)


def test_drs_waits_for_room_and_goes_on_when_there_is_some() -> None:
    async def scenario(lab: Inventory) -> None:
        await lab.run(lab["full"], "PowerOnVM_Task")
        task = await lab.start(lab["h1"], "EnterMaintenanceMode_Task", timeout=0)
        await until(lambda: {vm.name for vm in lab["h1"].running} == {"a", "b"})
        assert task.state == "running"
        await lab.run(lab["full"], "PowerOffVM_Task")
        await task.job
        assert {lab[name].host for name in ("a", "b")} == {lab["h2"]}

    simulate(model(automation="fullyAutomated", options="PassthroughDrsAutomation: '1'"), scenario)


def test_drs_set_to_automatic_helps_a_task_that_waits() -> None:
    async def scenario(lab: Inventory) -> None:
        for name in ("a", "b"):
            await lab.run(lab[name], "PowerOffVM_Task")
        task = await lab.start(lab["h1"], "EnterMaintenanceMode_Task", timeout=0)
        drs = vim.cluster.DrsConfigInfo(enabled=True, defaultVmBehavior="fullyAutomated")
        spec = vim.cluster.ConfigSpecEx(drsConfig=drs)
        await lab.run(lab["c"], "ReconfigureComputeResource_Task", spec=spec, modify=True)
        await task.job
        assert lab["plain"].host is not lab["h1"]

    simulate(model(), scenario)


@pytest.mark.parametrize(("automation", "started"), [("manual", False), ("partiallyAutomated", True)])
def test_drs_starts_a_machine_where_a_device_is_free(automation: str, started: bool) -> None:
    async def scenario(lab: Inventory) -> None:
        for name in ("vm-1", "vm-2"):
            devices = [change(dynamic("10de:1db6")) for _ in range(2)]
            await lab.reconfigure(lab[name], deviceChange=devices)
        await lab.run(lab["vm-1"], "PowerOnVM_Task")
        result = await lab.run(lab["dc"], "PowerOnMultiVM_Task", vm=[lab["vm-2"]])
        task = lab.world.get(result.attempted[0].task)
        await task.job
        assert (task.error is None) is started
        assert lab["vm-2"].host is (lab["esx-2"] if started else lab["esx-1"])

    simulate(TWO_V100.replace("name: gpu", f"name: gpu\n    drs: {{automation: {automation}}}"), scenario)
