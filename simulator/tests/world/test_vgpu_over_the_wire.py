"""vGPU from the manager to maintenance mode, as a pyVmomi client lives it over TLS."""

from __future__ import annotations

import time
import typing as t

import pytest
from pyVim.task import WaitForTask
from pyVmomi import vim, vmodl

PCI: t.Any = vim.vm.device.VirtualPCIPassthrough
URL = "https://depot.example/manager/metadata.zip"
MODEL = f"""
datacenter: dc
datastores: [{{name: ds}}]
networks: [{{name: net}}]
options: {{vgpu.hotmigrate.enabled: "true"}}
depots: {{{URL}: [{{version: 535.161.05-1OEM, vgpu_manager: "16.4"}}]}}
clusters:
  - name: c
    drs: {{automation: fullyAutomated}}
    host_defaults: {{gpus: [{{gpu: A100-40}}], graphics_type: sharedDirect}}
    hosts: [{{name: h1}}, {{name: h2, vgpu_manager: "16.4"}}]
vms:
  - &vm {{name: a, host: h1, firmware: efi, memory_mb: 2048, memory_locked: true}}
  - {{<<: *vm, name: b}}
  - {{name: plain, host: h2}}
"""


def wait_for(condition: t.Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


def with_vgpu(profile: str) -> t.Any:
    device = PCI(key=-1, backing=PCI.VmiopBackingInfo(vgpu=profile))
    return vim.vm.ConfigSpec(deviceChange=[vim.vm.device.VirtualDeviceSpec(operation="add", device=device)])


def without_vgpus(vm: t.Any) -> t.Any:
    devices = [one for one in vm.config.hardware.device if isinstance(one, PCI)]
    return vim.vm.ConfigSpec(
        deviceChange=[vim.vm.device.VirtualDeviceSpec(operation="remove", device=one) for one in devices]
    )


def test_vgpus_from_the_manager_to_maintenance_mode(serve: t.Callable[..., t.Any]) -> None:
    lab = serve(MODEL)
    host, other = lab.find("dc/host/c/h1"), lab.find("dc/host/c/h2")
    a, b, plain = (lab.find(f"dc/vm/{name}") for name in ("a", "b", "plain"))

    def run(task: t.Any) -> t.Any:
        WaitForTask(task, lab.client)
        return task.info.result

    # the manager: maintenance mode, installation, reboot; then the host has types
    WaitForTask(a.ReconfigVM_Task(with_vgpu("nvidia_a100-20c")), lab.client)
    patches = host.configManager.patchManager
    with pytest.raises(vim.fault.InvalidState):
        run(patches.InstallHostPatchV2_Task(metaUrls=[URL]))
    run(host.EnterMaintenanceMode_Task(0))
    status = run(patches.InstallHostPatchV2_Task(metaUrls=[URL])).status
    assert [(one.installed, one.restartRequired) for one in status] == [(True, True)]
    assert (list(host.config.sharedPassthruGpuTypes), host.summary.rebootRequired) == ([], True)
    booted = host.runtime.bootTime
    run(host.RebootHost_Task(False))
    wait_for(lambda: host.runtime.connectionState == "connected" and host.runtime.bootTime > booted, "rebooted")
    run(host.ExitMaintenanceMode_Task(0))
    assert "nvidia_a100-20c" in host.config.sharedPassthruGpuTypes
    assert any(one.name.startswith("NVD-") for one in host.configManager.imageConfigManager.FetchSoftwarePackages())

    # admission: profiles of one size share a GPU; another size needs its mixed mode
    run(a.PowerOnVM_Task(host))
    assert host.config.graphicsInfo[0].vm == [a]
    with pytest.raises(vim.fault.InvalidPowerState):
        run(a.ReconfigVM_Task(vim.vm.ConfigSpec(deviceChange=with_vgpu("nvidia_a100-20c").deviceChange)))
    run(b.ReconfigVM_Task(with_vgpu("nvidia_a100-10c")))
    with pytest.raises(vim.fault.VimFault):
        run(b.PowerOnVM_Task(host))
    assert b.runtime.powerState == "poweredOff"
    run(a.PowerOffVM_Task())
    config = host.config.graphicsConfig
    for device in config.deviceType:
        device.vgpuMode = "mixedSize"
    host.configManager.graphicsManager.UpdateGraphicsConfig(config)
    run(a.PowerOnVM_Task())
    run(b.PowerOnVM_Task())
    assert {vm.name for vm in host.config.graphicsInfo[0].vm} == {"a", "b"}
    run(b.PowerOffVM_Task())
    run(b.ReconfigVM_Task(without_vgpus(b)))

    # suspend, resume, vMotion
    run(a.SuspendVM_Task())
    assert (a.runtime.powerState, list(host.config.graphicsInfo[0].vm)) == ("suspended", [])
    run(a.PowerOnVM_Task())
    run(a.MigrateVM_Task(priority="defaultPriority", host=other))
    assert (a.runtime.host, a.runtime.powerState, list(other.config.graphicsInfo[0].vm)) == (other, "poweredOn", [a])

    # maintenance: DRS moves what runs; a machine with a vGPU keeps the host out of it
    run(plain.PowerOnVM_Task())
    task = other.EnterMaintenanceMode_Task(0)
    wait_for(lambda: plain.runtime.host == host, "DRS has moved what it may")
    assert task.info.state == "running"
    assert other.runtime.inMaintenanceMode is False
    run(a.PowerOffVM_Task())
    WaitForTask(task, lab.client)
    assert other.runtime.inMaintenanceMode is True
    with pytest.raises((vim.fault.InvalidHostState, vim.fault.InvalidState)):
        run(a.PowerOnVM_Task(other))


def test_what_does_not_fit_a_specification_is_a_fault_on_the_wire(serve: t.Callable[..., t.Any]) -> None:
    lab = serve(MODEL)
    vm = lab.find("dc/vm/a")
    seen = vm.config.changeVersion
    WaitForTask(vm.ReconfigVM_Task(vim.vm.ConfigSpec(changeVersion=seen, annotation="first")), lab.client)
    backing = PCI.DeviceBackingInfo(id="0000:99:00.0", deviceId="1db6", systemId="x", vendorId=0x10DE, deviceName="gpu")
    fixed = PCI(key=-1, backing=backing)
    add = vim.vm.ConfigSpec(deviceChange=[vim.vm.device.VirtualDeviceSpec(operation="add", device=fixed)])
    for spec, fault in (
        (vim.vm.ConfigSpec(changeVersion=seen, annotation="second"), vim.fault.ConcurrentAccess),
        (add, vim.fault.InvalidDeviceBacking),
        (vim.vm.ConfigSpec(version="vmx-18"), vmodl.fault.InvalidArgument),
    ):
        with pytest.raises(fault):
            WaitForTask(vm.ReconfigVM_Task(spec), lab.client)
    assert vm.config.annotation == "first"
