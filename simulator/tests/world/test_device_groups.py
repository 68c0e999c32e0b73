"""Device groups: GPUs that a machine gets together or not at all."""

from __future__ import annotations

import pytest
from inventory import Inventory, simulate

from vsphere_simulator.vmomi import make, vim, vmodl
from vsphere_simulator.world import device_groups
from vsphere_simulator.world import devices as dev

MODEL = """
clusters:
  - name: c
    hosts:
      - {name: h, gpus: [{gpu: A100-40, count: 3, nvlink: true}, {gpu: A100-40}], vgpu_manager: "16.4",
         graphics_type: sharedDirect}
vms: [{name: v, host: h, firmware: efi, memory_locked: true}]
"""
PAIR = "Nvidia:2@nvidia_a100-40c%NVLink"
Groups = vim.vm.VirtualDeviceGroups


def member(number: int, key: int = -1) -> object:
    info = make(vim.vm.device.VirtualDevice.DeviceGroupInfo, groupInstanceKey=key, sequenceId=number)
    backing = make(dev.VgpuBacking, vgpu="nvidia_a100-40c")
    device = make(dev.PciPassthrough, key=-number, backing=backing, deviceGroupInfo=info)
    return vim.vm.device.VirtualDeviceSpec(operation="add", device=device)


def groups(*names: str) -> object:
    return Groups(
        deviceGroup=[
            Groups.VendorDeviceGroup(groupInstanceKey=-number, deviceGroupName=name)
            for number, name in enumerate(names, start=1)
        ]
    )


def test_what_is_joined_is_offered() -> None:
    lab = Inventory(MODEL)
    target = lab.call(lab["c"].environment, "QueryConfigTarget", host=lab["h"])
    offered = {info.deviceGroupName: info for info in target.vendorDeviceGroupInfo}
    assert list(offered) == [PAIR, "Nvidia:3@nvidia_a100-40c%NVLink"]
    devices = [component.device for component in offered[PAIR].componentDeviceInfo]
    assert [(one.backing.vgpu, one.deviceGroupInfo.sequenceId) for one in devices] == [
        ("nvidia_a100-40c", 1),
        ("nvidia_a100-40c", 2),
    ]
    assert device_groups.offers(Inventory("api_version: 7.0.3.0\n" + MODEL)["h"]) == []


def test_a_group_comes_and_goes_whole() -> None:
    async def scenario(lab: Inventory) -> None:
        machine = lab["v"]
        await lab.reconfigure(machine, deviceGroups=groups(PAIR), deviceChange=[member(1), member(2)])
        mine = [device for device in machine.devices if device.deviceGroupInfo is not None]
        assert len(mine) == 2
        (group,) = machine.config.settings["deviceGroups"].deviceGroup
        assert group.groupInstanceKey > 0
        assert {device.deviceGroupInfo.groupInstanceKey for device in mine} == {group.groupInstanceKey}
        await lab.run(machine, "PowerOnVM_Task")
        assert sorted(address for address, _slot in machine.vgpus.values()) == ["0000:3b:00.0", "0000:5e:00.0"]
        await lab.run(machine, "PowerOffVM_Task")
        removed = [vim.vm.device.VirtualDeviceSpec(operation="remove", device=device) for device in mine]
        with pytest.raises(vmodl.fault.InvalidArgument):
            await lab.reconfigure(machine, deviceChange=removed[:1])
        await lab.reconfigure(machine, deviceGroups=Groups(deviceGroup=[]), deviceChange=removed)
        assert not any(device.deviceGroupInfo for device in machine.devices)

    simulate(MODEL, scenario)


@pytest.mark.parametrize(
    ("name", "members"),
    [(PAIR, (1,)), (PAIR, (1, 1)), ("Nvidia:4@nvidia_a100-40c%NVLink", (1, 2, 3, 4)), (PAIR, ())],
)
def test_a_group_that_is_not_whole_is_refused(name: str, members: tuple[int, ...]) -> None:
    async def scenario(lab: Inventory) -> None:
        added = [member(number) for number in members]
        with pytest.raises(vmodl.fault.InvalidArgument):
            await lab.reconfigure(lab["v"], deviceGroups=groups(name), deviceChange=added)
        assert not any(device.deviceGroupInfo for device in lab["v"].devices)

    simulate(MODEL, scenario)
