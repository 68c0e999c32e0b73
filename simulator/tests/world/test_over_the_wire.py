"""The whole inventory as pyVmomi clients see it, over TLS."""

from __future__ import annotations

import pathlib
import time
import typing as t

import pytest
from pyVim.task import WaitForTask
from pyVmomi import vim, vmodl

LAB = pathlib.Path(__file__).parents[3] / "inventories" / "lab" / "model.yml"
PC: t.Any = vmodl.query.PropertyCollector
PCI: t.Any = vim.vm.device.VirtualPCIPassthrough
FULL = """
datacenter: dc
datastores: [{name: ds}]
networks: [{name: net}]
custom_attributes: [owner]
clusters:
  - name: c
    vcls_agents: 1
    hosts:
      - name: h1
        vgpu_manager: "16.4"
        graphics_type: sharedDirect
        gpus: [{gpu: A100-40, count: 2}, {gpu: T4, passthrough: true, label: blue}]
      - {name: h2, connection_state: notResponding}
      - {name: h3, in_maintenance: true}
vms:
  - {name: plain, host: h1, power: "on"}
  - {name: vgpu, host: h1, power: "on", firmware: efi, memory_locked: true,
     gpus: [{mode: vgpu, profile: nvidia_a100-10c}]}
  - {name: dynamic, host: h1, power: "on", memory_locked: true,
     gpus: [{mode: dynamic, ids: ["10de:1eb8"], label: blue}]}
templates: [{name: tpl, folder: templates}]
"""
LEAST = [
    "Host.Config.Maintenance",
    "VirtualMachine.Config.Memory",
    "VirtualMachine.Interact.PowerOn",
    "VirtualMachine.Inventory.CreateFromExisting",
]


def gpus(vm: t.Any) -> list[t.Any]:
    return [device for device in vm.config.hardware.device if isinstance(device, PCI)]


def wait_for(condition: t.Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true"
        time.sleep(0.02)


def test_a_gpu_host_and_its_machine_from_nothing(serve: t.Callable[..., t.Any]) -> None:
    server = serve(LAB.read_text())
    host = server.find("lab/host/gpu/esx-gpu-01.lab")
    wanted = [device.id for device in host.hardware.pciDevice if (device.vendorId, device.deviceId) == (0x10DE, 0x1DB6)]
    assert len(wanted) == 2
    system = host.configManager.pciPassthruSystem
    system.UpdatePassthruConfig([vim.host.PciPassthruConfig(id=one, passthruEnabled=True) for one in wanted])
    states = {info.id: (info.passthruEnabled, info.passthruActive) for info in host.config.pciPassthruInfo}
    assert {states[one] for one in wanted} == {(True, False)}
    assert host.summary.rebootRequired

    WaitForTask(host.EnterMaintenanceMode_Task(timeout=0))
    before = host.runtime.bootTime
    WaitForTask(host.RebootHost_Task(force=False))
    assert host.runtime.connectionState == "notResponding"
    wait_for(lambda: host.runtime.connectionState == "connected")
    assert host.runtime.bootTime > before
    assert host.runtime.inMaintenanceMode
    WaitForTask(host.ExitMaintenanceMode_Task(timeout=0))

    template = server.find("lab/vm/templates/gpu-server-template")
    place = vim.vm.RelocateSpec(pool=host.parent.resourcePool, host=host)
    task = template.CloneVM_Task(
        folder=server.find("lab/vm"), name="gpu-1", spec=vim.vm.CloneSpec(location=place, powerOn=False, template=False)
    )
    WaitForTask(task)
    vm = task.info.result
    assert vm.runtime.host == host
    target = host.parent.environmentBrowser.QueryConfigTarget(host)
    changes = [
        vim.vm.device.VirtualDeviceSpec(
            operation="add",
            device=PCI(
                key=-index,
                backing=PCI.DeviceBackingInfo(
                    id=info.pciDevice.id,
                    deviceId=f"{info.pciDevice.deviceId & 0xFFFF:x}",
                    systemId=info.systemId,
                    vendorId=info.pciDevice.vendorId,
                    deviceName=info.pciDevice.deviceName,
                ),
            ),
        )
        for index, info in enumerate(target.pciPassthrough, start=1)
    ]
    mmio = {"pciPassthru.use64bitMMIO": "TRUE", "pciPassthru.64bitMMIOSizeGB": "128"}
    WaitForTask(
        vm.ReconfigVM_Task(
            vim.vm.ConfigSpec(
                changeVersion=vm.config.changeVersion,
                deviceChange=changes,
                memoryReservationLockedToMax=True,
                extraConfig=[vim.option.OptionValue(key=key, value=value) for key, value in mmio.items()],
            )
        )
    )
    WaitForTask(vm.PowerOnVM_Task())
    assert vm.runtime.powerState == "poweredOn"
    assert sorted(device.backing.id for device in gpus(vm)) == sorted(wanted)
    assert {user for info in host.config.graphicsInfo for user in info.vm} == {vm}
    with pytest.raises(vim.fault.ResourceInUse):
        system.UpdatePassthruConfig([vim.host.PciPassthruConfig(id=wanted[0], passthruEnabled=False)])
    with pytest.raises(vim.fault.InvalidPowerState):
        WaitForTask(vm.ReconfigVM_Task(vim.vm.ConfigSpec(firmware="bios")))
    with pytest.raises(vim.fault.HostConfigFault):
        system.UpdatePassthruConfig([vim.host.PciPassthruConfig(id="0000:00:00.0", passthruEnabled=True)])


def test_every_property_of_every_object_can_be_read(serve: t.Callable[..., t.Any]) -> None:
    server = serve(FULL)
    content = server.client.content
    kinds = [
        vim.Folder,
        vim.Datacenter,
        vim.ClusterComputeResource,
        vim.ResourcePool,
        vim.HostSystem,
        vim.VirtualMachine,
        vim.Datastore,
        vim.Network,
    ]
    view = content.viewManager.CreateContainerView(content.rootFolder, kinds, True)
    follow = PC.TraversalSpec(name="view", type=vim.view.ContainerView, path="view", skip=False)
    spec = PC.FilterSpec(
        propSet=[PC.PropertySpec(type=kind, all=True) for kind in kinds],
        objectSet=[PC.ObjectSpec(obj=view, skip=True, selectSet=[follow])],
    )
    found = content.propertyCollector.RetrieveContents([spec])
    assert {type(one.obj) for one in found} == set(kinds)
    assert [miss for one in found for miss in one.missingSet] == []
    values = {(one.obj, prop.name): prop.val for one in found for prop in one.propSet}
    host, vm, away = server.find("dc/host/c/h1"), server.find("dc/vm/vgpu"), server.find("dc/host/c/h2")
    assert values[host, "config"].sharedPassthruGpuTypes == list(values[host, "config"].sharedPassthruGpuTypes)
    assert "nvidia_a100-10c" in values[host, "config"].sharedPassthruGpuTypes
    assert {info.graphicsType for info in values[host, "config"].graphicsInfo} == {"sharedDirect", "direct"}
    assert values[vm, "summary"].config.numVmiopBackings == 1
    assert len(values[vm, "config"].hardware.device) >= 15
    assert values[away, "runtime"].connectionState == "notResponding"
    assert values[server.find("dc/host/c"), "configurationEx"].drsConfig.defaultVmBehavior == "manual"
    assert gpus(server.find("dc/vm/dynamic"))[0].backing.assignedId == "0000:86:00.0"
    target = host.parent.environmentBrowser.QueryConfigTarget(host)
    assert [info.customLabel for info in target.dynamicPassthrough] == ["blue"]
    assert host.configManager.graphicsManager.RetrieveVgpuProfileInfo()
    assert host.parent.environmentBrowser.QueryConfigOption().version == "vmx-20"


def test_a_user_may_do_what_the_role_says(serve: t.Callable[..., t.Any]) -> None:
    users = (
        f"roles: {{least: {LEAST}}}\nusers: [{{name: op@lab, password: pw, role: least}}, {{name: ro, password: pw}}]"
    )
    server = serve(FULL + users)
    operator = server.connect("op@lab", "pw")
    host, vm = server.find("dc/host/c/h1", operator), server.find("dc/vm/plain", operator)
    WaitForTask(vm.ReconfigVM_Task(vim.vm.ConfigSpec(memoryMB=vm.config.hardware.memoryMB)))
    for refused, privilege in (
        (lambda: vm.ReconfigVM_Task(vim.vm.ConfigSpec(firmware="efi")), "VirtualMachine.Config.Settings"),
        (lambda: vm.PowerOffVM_Task(), "VirtualMachine.Interact.PowerOff"),
        (lambda: vm.Destroy_Task(), "VirtualMachine.Inventory.Delete"),
        (
            lambda: host.configManager.pciPassthruSystem.UpdatePassthruConfig(
                [vim.host.PciPassthruConfig(id="0000:3b:00.0", passthruEnabled=True)]
            ),
            "Host.Config.PciPassthru",
        ),
        (lambda: host.parent.parent.CreateFolder("x"), "Folder.Create"),
    ):
        with pytest.raises(vim.fault.NoPermission) as caught:
            refused()
        assert caught.value.privilegeId == privilege
    reader = server.connect("ro", "pw")
    with pytest.raises(vim.fault.NoPermission) as caught:
        server.find("dc/host/c/h1", reader).EnterMaintenanceMode_Task(timeout=0)
    assert caught.value.privilegeId == "Host.Config.Maintenance"
    assert caught.value.object == host


def test_changes_reach_who_waits_for_them(serve: t.Callable[..., t.Any]) -> None:
    server = serve(FULL)
    collector = server.client.content.propertyCollector.CreatePropertyCollector()
    vm, host = server.find("dc/vm/dynamic"), server.find("dc/host/c/h1")
    paths = {vm: ["runtime.powerState", "config.hardware.device"], host: ["config.graphicsInfo"]}
    for obj, wanted in paths.items():
        spec = PC.FilterSpec(
            propSet=[PC.PropertySpec(type=type(obj), pathSet=wanted)], objectSet=[PC.ObjectSpec(obj=obj)]
        )
        collector.CreateFilter(spec, False)
    version = collector.WaitForUpdatesEx("").version
    task = vm.PowerOffVM_Task()
    seen: dict[str, t.Any] = {}
    deadline = time.monotonic() + 20
    while {"runtime.powerState", "config.hardware.device", "config.graphicsInfo"} - seen.keys():
        assert time.monotonic() < deadline
        update = collector.WaitForUpdatesEx(version, PC.WaitOptions(maxWaitSeconds=5))
        if update is not None:
            version = update.version
            changes = [c for f in update.filterSet for o in f.objectSet for c in o.changeSet]
            seen |= {change.name: change.val for change in changes}
    WaitForTask(task)
    assert seen["runtime.powerState"] == "poweredOff"
    assert [d.backing.assignedId for d in seen["config.hardware.device"] if isinstance(d, PCI)] == [None]
    collector.DestroyPropertyCollector()


def test_the_state_survives_a_crash(serve: t.Callable[..., t.Any], tmp_path: pathlib.Path) -> None:
    state = tmp_path / "state.json"
    first = serve(FULL, "--state", str(state))
    vm = first.find("dc/vm/plain")
    WaitForTask(vm.ReconfigVM_Task(vim.vm.ConfigSpec(annotation="kept")))
    WaitForTask(first.find("dc/host/c/h3").ExitMaintenanceMode_Task(timeout=0))
    wait_for(lambda: '"kept"' in state.read_text() and '"in_maintenance": true' not in state.read_text())
    first.kill()
    before = state.read_bytes()
    second = serve(FULL, "--state", str(state))
    assert second.find("dc/vm/plain").config.annotation == "kept"
    assert not second.find("dc/host/c/h3").runtime.inMaintenanceMode
    assert second.find("dc/vm/vgpu").runtime.powerState == "poweredOn"
    assert state.read_bytes() == before


def test_a_fault_rule_keeps_a_host_away(serve: t.Callable[..., t.Any], tmp_path: pathlib.Path) -> None:
    rules = tmp_path / "faults.yml"
    rules.write_text("- {method: RebootHost_Task, object: h1, never_returns: true}\n")
    state = ("--state", str(tmp_path / "state.json"))
    server = serve(FULL, "--faults", str(rules), *state)
    lost, other = server.find("dc/host/c/h1"), server.find("dc/host/c/h3")
    WaitForTask(lost.RebootHost_Task(force=True))
    WaitForTask(other.RebootHost_Task(force=True))
    wait_for(lambda: other.runtime.connectionState == "connected")
    assert lost.runtime.connectionState == "notResponding"
    with pytest.raises(vmodl.fault.HostCommunication):
        lost.configManager.pciPassthruSystem.Refresh()
    server.stop()
    back = serve(FULL, *state).find("dc/host/c/h1")  # without the rule, as after somebody has gone to its console
    assert back.runtime.connectionState == "connected"
    WaitForTask(back.DisconnectHost_Task())
    WaitForTask(back.ReconnectHost_Task())
