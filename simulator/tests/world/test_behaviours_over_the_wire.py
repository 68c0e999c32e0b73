"""What the simulator does with GPUs, hosts and searches, as a pyVmomi client sees it over TLS.

One server for all: each test has hosts and machines of its own.
"""

from __future__ import annotations

import time
import typing as t

import pytest
from pyVim.task import WaitForTask
from pyVmomi import vim, vmodl
from serving import PATIENCE, Served

PCI: t.Any = vim.vm.device.VirtualPCIPassthrough
V100 = "0000:3b:00.0"
MMIO = '{pciPassthru.use64bitMMIO: "TRUE", pciPassthru.64bitMMIOSizeGB: "64"}'
MODEL = f"""
datacenter: dc
datastores: [{{name: ds}}]
networks: [{{name: net}}]
options: {{vgpu.hotmigrate.enabled: "true"}}
clusters:
  - name: admission
    host_defaults: {{gpus: [{{gpu: V100-32, count: 2, passthrough: true}}]}}
    hosts: [{{name: adm-1}}, {{name: adm-2, gpus: []}}]
  - name: rebind
    hosts:
      - {{name: quick, rebind_without_reboot: true, gpus: [{{gpu: V100-32}}]}}
      - {{name: slow, gpus: [{{gpu: V100-32}}]}}
      - {{name: both, vgpu_manager: "16.4", graphics_type: sharedDirect, gpus: [{{gpu: A100-40}}]}}
  - name: policy
    host_defaults: {{vgpu_manager: "16.4", graphics_type: sharedDirect, gpus: [{{gpu: A100-40, count: 2}}]}}
    hosts:
      - {{name: spread}}
      - {{name: fill, assignment_policy: consolidation}}
      - {{name: from}}
      - {{name: to}}
      - {{name: older, vgpu_manager: "15.4"}}
  - name: life
    drs: {{automation: manual}}
    hosts: [{{name: life-1}}, {{name: life-2}}]
vms:
  - {{name: bare, host: adm-1, memory_mb: 8192, firmware: bios}}
  - {{name: holder, host: adm-1, memory_mb: 8192, firmware: efi, memory_locked: true, extra_config: {MMIO}}}
  - &vgpu {{name: s-1, host: spread, firmware: efi, memory_locked: true, memory_mb: 2048,
      gpus: [{{mode: vgpu, profile: nvidia_a100-10c}}]}}
  - {{<<: *vgpu, name: s-2}}
  - {{<<: *vgpu, name: f-1, host: fill}}
  - {{<<: *vgpu, name: f-2, host: fill}}
  - {{<<: *vgpu, name: mover, host: from, power: "on"}}
  - {{name: plain, host: life-1, folder: apps/web}}
  - {{name: stable, host: life-1}}
"""


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> t.Iterator[Served]:
    served = Served(tmp_path_factory.mktemp("lab") / "server", MODEL)
    yield served
    served.close()


def wait_for(condition: t.Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true"
        time.sleep(0.05)


def run(task: t.Any) -> t.Any:
    WaitForTask(task)
    return task.info.result


def refusal(task: t.Any) -> t.Any:
    """The fault with which a task ends."""
    with pytest.raises(vmodl.MethodFault):
        WaitForTask(task)
    return task.info.error


def said(fault: t.Any) -> str:
    return " ".join([fault.msg, *(one.message or one.key for one in fault.faultMessage)])


def options(**values: str) -> list[t.Any]:
    return [vim.option.OptionValue(key=f"pciPassthru.{key}", value=value) for key, value in values.items()]


def adds(*backings: t.Any) -> list[t.Any]:
    return [
        vim.vm.device.VirtualDeviceSpec(operation="add", device=PCI(key=-number, backing=backing))
        for number, backing in enumerate(backings, start=1)
    ]


def fixed(host: t.Any, address: str) -> t.Any:
    """The backing that the vCenter offers for a device of a host."""
    offered = host.parent.environmentBrowser.QueryConfigTarget(host).pciPassthrough
    (info,) = [one for one in offered if one.pciDevice.id == address]
    device = info.pciDevice
    return PCI.DeviceBackingInfo(
        id=address, deviceId=f"{device.deviceId & 0xFFFF:x}", systemId=info.systemId, vendorId=device.vendorId,
        deviceName=device.deviceName,
    )  # fmt: skip


def test_power_on_names_what_is_missing_until_nothing_is(lab: Served) -> None:
    host, vm = lab.find("dc/host/admission/adm-1"), lab.find("dc/vm/bare")
    run(vm.ReconfigVM_Task(vim.vm.ConfigSpec(deviceChange=adds(fixed(host, V100)))))
    steps: list[tuple[str, t.Any]] = [
        ("memory reservation", vim.vm.ConfigSpec(memoryReservationLockedToMax=True)),
        ("EFI", vim.vm.ConfigSpec(firmware="efi")),
        ("exceeds limit", vim.vm.ConfigSpec(extraConfig=options(use64bitMMIO="TRUE", **{"64bitMMIOSizeGB": "16"}))),
        ("exceeds limit", vim.vm.ConfigSpec(extraConfig=options(**{"64bitMMIOSizeGB": "64"}))),
    ]
    for missing, cure in steps:
        fault = refusal(vm.PowerOnVM_Task())
        assert missing in said(fault)
        assert vm.runtime.powerState == "poweredOff"
        run(vm.ReconfigVM_Task(cure))
    run(vm.PowerOnVM_Task())

    holder = lab.find("dc/vm/holder")
    run(holder.ReconfigVM_Task(vim.vm.ConfigSpec(deviceChange=adds(fixed(host, V100)))))
    assert isinstance(refusal(holder.PowerOnVM_Task()), vim.fault.VimFault)
    assert holder.runtime.powerState == "poweredOff"

    assert isinstance(refusal(vm.SuspendVM_Task()), vim.fault.VimFault | vmodl.fault.NotSupported)
    other = lab.find("dc/host/admission/adm-2")
    assert refusal(vm.MigrateVM_Task(priority="defaultPriority", host=other)) is not None
    assert (vm.runtime.powerState, vm.runtime.host) == ("poweredOn", host)
    run(vm.PowerOffVM_Task())
    run(holder.PowerOnVM_Task())
    run(holder.PowerOffVM_Task())


def test_reconfigure_knows_profiles_and_devices(lab: Served) -> None:
    vm = lab.find("dc/vm/stable")
    for backing in (
        PCI.VmiopBackingInfo(vgpu="nvidia_a100-11c"),
        PCI.DeviceBackingInfo(id="0000:99:00.0", deviceId="1db6", systemId="x", vendorId=0x10DE, deviceName="gpu"),
    ):
        before = len(vm.config.hardware.device)
        assert isinstance(refusal(vm.ReconfigVM_Task(vim.vm.ConfigSpec(deviceChange=adds(backing)))),
                          vim.fault.InvalidDeviceSpec)  # fmt: skip
        assert len(vm.config.hardware.device) == before


@pytest.mark.parametrize(("name", "at_once"), [("quick", True), ("slow", False)])
def test_passthrough_is_active_at_once_only_where_the_host_can_rebind(lab: Served, name: str, at_once: bool) -> None:
    host = lab.find(f"dc/host/rebind/{name}")
    assert bool(host.capability.deviceRebindWithoutRebootSupported) is at_once
    wanted = vim.host.PciPassthruConfig(id=V100, passthruEnabled=True, applyNow=True)
    host.configManager.pciPassthruSystem.UpdatePassthruConfig([wanted])
    (info,) = [one for one in host.config.pciPassthruInfo if one.id == V100]
    assert (info.passthruEnabled, info.passthruActive) == (True, at_once)
    assert host.summary.rebootRequired is not at_once


def test_passthrough_takes_a_gpu_from_the_vgpu_manager_and_gives_it_back(lab: Served) -> None:
    host = lab.find("dc/host/rebind/both")
    system = host.configManager.pciPassthruSystem
    for enabled in (True, False):
        system.UpdatePassthruConfig([vim.host.PciPassthruConfig(id=V100, passthruEnabled=enabled)])
        run(host.RebootHost_Task(force=True))
        wait_for(lambda: host.runtime.connectionState == "connected")
        types = list(host.config.sharedPassthruGpuTypes)
        assert (host.config.graphicsInfo[0].graphicsType == "sharedDirect") is not enabled
        assert ("nvidia_a100-10c" in types) is not enabled


@pytest.mark.parametrize(
    ("host", "machines", "used"), [("spread", ("s-1", "s-2"), [1, 1]), ("fill", ("f-1", "f-2"), [0, 2])]
)
def test_vgpus_are_spread_or_filled(lab: Served, host: str, machines: tuple[str, ...], used: list[int]) -> None:
    for name in machines:
        run(lab.find(f"dc/vm/{name}").PowerOnVM_Task())
    shown = lab.find(f"dc/host/policy/{host}").config.graphicsInfo
    assert sorted(len(one.vm) for one in shown) == used


def test_a_vgpu_moves_only_where_the_manager_is_the_same_and_the_setting_is_on(lab: Served) -> None:
    vm = lab.find("dc/vm/mover")
    target, older = lab.find("dc/host/policy/to"), lab.find("dc/host/policy/older")
    assert refusal(vm.MigrateVM_Task(priority="defaultPriority", host=older)) is not None
    setting = lab.client.content.setting
    for value in (False, True):
        setting.UpdateOptions([vim.option.OptionValue(key="vgpu.hotmigrate.enabled", value=value)])
        task = vm.MigrateVM_Task(priority="defaultPriority", host=target)
        if value:
            run(task)
        else:
            assert refusal(task) is not None
        assert (vm.runtime.host == target) is value


def test_the_search_index(lab: Served) -> None:
    index, vm, host = lab.client.content.searchIndex, lab.find("dc/vm/apps/web/plain"), lab.find("dc/host/life/life-1")
    run(vm.PowerOnVM_Task())
    assert index.FindByInventoryPath("/dc/vm/apps/web/plain") == vm
    assert index.FindByInventoryPath("dc/vm/apps/plain") is None
    assert index.FindByUuid(None, vm.config.uuid, True, False) == vm
    assert index.FindByUuid(None, vm.config.instanceUuid, True, True) == vm
    assert index.FindByUuid(None, host.hardware.systemInfo.uuid, False) == host
    assert index.FindByDnsName(None, "LIFE-1", False) == host
    assert index.FindByDnsName(None, vm.guest.hostName, True) == vm
    assert index.FindByIp(None, vm.guest.ipAddress, True) == vm
    assert list(index.FindAllByIp(None, vm.guest.ipAddress, True)) == [vm]
    assert index.FindByIp(None, "203.0.113.9", True) is None
    assert index.FindByDatastorePath(lab.find("dc"), "[ds] plain/plain.vmx") == vm
    assert index.FindChild(lab.find("dc/host/life"), "life-2") == lab.find("dc/host/life/life-2")
    run(vm.PowerOffVM_Task())


def test_a_host_is_disconnected_and_connected_again(lab: Served) -> None:
    host = lab.find("dc/host/life/life-2")
    run(host.DisconnectHost_Task())
    assert host.runtime.connectionState == "disconnected"
    assert isinstance(refusal(host.EnterMaintenanceMode_Task(timeout=0)), vmodl.fault.HostNotConnected)
    run(host.ReconnectHost_Task())
    assert host.runtime.connectionState == "connected"
    run(host.EnterMaintenanceMode_Task(timeout=0))
    run(host.ExitMaintenanceMode_Task(timeout=0))


def test_what_a_host_tells_of_itself(lab: Served) -> None:
    host = lab.find("dc/host/policy/to")
    certificate = host.configManager.certificateManager.certificateInfo
    assert certificate.subject.endswith("CN=to")
    assert certificate.notBefore < certificate.notAfter
    image = host.configManager.imageConfigManager
    assert image.HostImageConfigGetAcceptance() == "partner"
    packages = {one.name: one for one in image.fetchSoftwarePackages()}
    assert any(name.startswith("NVD-") for name in packages)
    assert {one.name for one in packages.values()} >= {"esx-base"}
    browser = host.parent.environmentBrowser
    offered = browser.QueryConfigTarget(host)
    assert "nvidia_a100-10c" in {one.vgpu for one in offered.sharedGpuPassthroughTypes}
    profiles = {one.profileName: one for one in offered.vgpuProfileInfo}
    assert profiles["nvidia_a100-10c"].fbSizeInGib == 10
    assert {one.key for one in browser.QueryConfigOptionDescriptor()} >= {"vmx-20"}
