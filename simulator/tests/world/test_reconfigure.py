"""ReconfigVM_Task: devices, sizes, and what must not change."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from inventory import (
    TWO_V100,
    V100_IDS,
    Inventory,
    change,
    dynamic,
    fixed,
    mmio,
    options,
    simulate,
    virtual,
)

from vsphere_simulator.kernel.objects import Context
from vsphere_simulator.vmomi import vim, vmodl
from vsphere_simulator.world.device_changes import passthrough_limit
from vsphere_simulator.world.reconfigure import needed_privileges
from vsphere_simulator.world.virtual_machine import VirtualMachine

_device = vim.vm.device
MANY = """
clusters: [{name: c, hosts: [{name: h, gpus: [{gpu: T4, count: 20, passthrough: true}]}]}]
vms: [{name: v, host: h, hardware_version: 14}]
"""


def gpus(vm: VirtualMachine) -> list[Any]:
    return [device for device in vm.devices if isinstance(device, _device.VirtualPCIPassthrough)]


def test_all_that_a_gpu_machine_needs_goes_in_one_change() -> None:
    async def scenario(lab: Inventory) -> None:
        vm, host = lab["vm-1"], lab["esx-1"]
        version = vm.config.change_version
        await lab.reconfigure(
            vm,
            changeVersion=version,
            memoryMB=16384,
            memoryReservationLockedToMax=True,
            cpuHotAddEnabled=False,
            numCPUs=4,
            numCoresPerSocket=2,
            extraConfig=mmio(128),
            annotation="two GPUs",
            deviceChange=[change(fixed(host, address)) for address in V100_IDS],
        )
        assert vm.config.change_version != version
        assert (vm.config.memory_mb, vm.reserved_memory_mb, vm.config.cpus) == (16384, 16384, 4)
        assert [device.backing.id for device in gpus(vm)] == list(V100_IDS)
        assert [device.key for device in gpus(vm)] == [13000, 13001]
        assert len({(d.controllerKey, d.unitNumber) for d in vm.devices if d.controllerKey}) == sum(
            d.controllerKey is not None for d in vm.devices
        )
        controller = next(d for d in vm.devices if d.key == 100)
        assert {13000, 13001} <= set(controller.device)
        untouched = next(d for d in lab["vm-2"].devices if d.key == 100)
        assert 13000 not in untouched.device

    simulate(TWO_V100, scenario)


def test_the_exact_set_can_be_changed_in_one_go() -> None:
    async def scenario(lab: Inventory) -> None:
        vm, host = lab["vm-1"], lab["esx-1"]
        await lab.reconfigure(vm, deviceChange=[change(fixed(host, V100_IDS[0]))])
        await lab.reconfigure(
            vm, deviceChange=[change(gpus(vm)[0], "remove"), change(dynamic("10de:1db6", label="blue"))]
        )
        assert [device.backing.customLabel for device in gpus(vm)] == ["blue"]

    simulate(TWO_V100, scenario)


@pytest.mark.parametrize(
    "changes",
    [
        {"id": "0000:ff:00.0"},
        {"systemId": "elsewhere"},
        {"deviceId": "1db4"},
        {"vendorId": 0x1002},
        {"deviceId": "no id"},
    ],
)
def test_a_fixed_device_must_be_a_device_of_the_host(changes: dict[str, object]) -> None:
    async def scenario(lab: Inventory) -> None:
        vm = lab["vm-1"]
        before = vm.config
        good = change(fixed(lab["esx-1"], V100_IDS[1]))
        with pytest.raises(vim.fault.InvalidDeviceBacking) as caught:
            await lab.reconfigure(
                vm, memoryMB=4096, deviceChange=[good, change(fixed(lab["esx-1"], V100_IDS[0], **changes))]
            )
        assert caught.value.deviceIndex == 1
        assert vm.config is before

    simulate(TWO_V100, scenario)


@pytest.mark.parametrize(
    ("device", "fault"),
    [
        (lambda: virtual("nvidia_a100-7c"), vim.fault.InvalidDeviceBacking),
        (lambda: dynamic(), vim.fault.InvalidDeviceBacking),
        (lambda: _device.VirtualPCIPassthrough(key=-1), vim.fault.InvalidDeviceBacking),
        (lambda: _device.VirtualDisk(key=-1, controllerKey=77, capacityInKB=1024), vim.fault.InvalidDeviceSpec),
    ],
)
def test_a_device_that_cannot_be_is_refused(device: Callable[[], object], fault: type[Exception]) -> None:
    async def scenario(lab: Inventory) -> None:
        with pytest.raises(fault):
            await lab.reconfigure(lab["vm-1"], deviceChange=[change(device())])

    simulate(TWO_V100, scenario)


def test_one_pci_device_cannot_be_named_twice() -> None:
    async def scenario(lab: Inventory) -> None:
        twice = [change(fixed(lab["esx-1"], V100_IDS[0])) for _ in range(2)]
        with pytest.raises(vim.fault.InvalidDeviceBacking):
            await lab.reconfigure(lab["vm-1"], deviceChange=twice)

    simulate(TWO_V100, scenario)


def test_dynamic_directpath_needs_a_recent_hardware_version() -> None:
    async def scenario(lab: Inventory) -> None:
        with pytest.raises(vim.fault.DeviceUnsupportedForVmVersion) as caught:
            await lab.reconfigure(lab["v"], deviceChange=[change(dynamic("10de:1eb8"))])
        assert (caught.value.currentVersion, caught.value.expectedVersion) == ("vmx-14", "vmx-17")
        await lab.reconfigure(lab["v"], version="vmx-19", deviceChange=[change(dynamic("10de:1eb8"))])
        with pytest.raises(vmodl.fault.InvalidArgument):
            await lab.reconfigure(lab["v"], version="vmx-18")

    simulate(MANY, scenario)


@pytest.mark.parametrize(
    ("api", "hardware", "limit"),
    [
        ((7, 0, 3, 0), 19, 16),
        ((8, 0, 0, 0), 20, 32),
        ((8, 0, 1, 0), 20, 64),
        ((8, 0, 2, 0), 20, 64),
        ((8, 0, 2, 0), 21, 128),
        ((8, 0, 3, 0), 21, 128),
        ((9, 0, 0, 0), 22, 128),
    ],
)
def test_the_limit_of_devices_follows_the_release(api: tuple[int, ...], hardware: int, limit: int) -> None:
    assert passthrough_limit(api, hardware) == limit


def test_more_devices_than_allowed_are_refused() -> None:
    async def scenario(lab: Inventory) -> None:
        devices = [change(dynamic("10de:1eb8")) for _ in range(17)]
        await lab.reconfigure(lab["v"], version="vmx-19", deviceChange=devices[:16])
        with pytest.raises(vim.fault.TooManyDevices):
            await lab.reconfigure(lab["v"], deviceChange=devices[:1])

    simulate("api_version: 7.0.3.0\n" + MANY, scenario)


@pytest.mark.parametrize(
    "fields",
    [
        {"deviceChange": [change(dynamic("10de:1db6"))]},
        {"firmware": "bios"},
        {"memoryMB": 4096},
        {"numCPUs": 8},
        {"version": "vmx-21"},
        {"memoryHotAddEnabled": True},
    ],
)
def test_what_needs_the_machine_off_is_refused_while_it_is_on(fields: dict[str, object]) -> None:
    async def scenario(lab: Inventory) -> None:
        vm = lab["vm-1"]
        await lab.run(vm, "PowerOnVM_Task")
        with pytest.raises(vim.fault.InvalidPowerState) as caught:
            await lab.reconfigure(vm, **fields)
        assert caught.value.existingState == "poweredOn"
        await lab.reconfigure(vm, annotation="fine", extraConfig=options(guestinfo__a="b"), firmware="efi")
        assert vm.config.annotation == "fine"

    simulate(TWO_V100, scenario)


def test_somebody_elses_change_is_noticed() -> None:
    async def scenario(lab: Inventory) -> None:
        vm = lab["vm-1"]
        seen = vm.config.change_version
        await lab.reconfigure(vm, changeVersion=seen, annotation="first")
        with pytest.raises(vim.fault.ConcurrentAccess):
            await lab.reconfigure(vm, changeVersion=seen, annotation="second")
        assert vm.config.annotation == "first"

    simulate(TWO_V100, scenario)


def test_changes_of_one_machine_wait_for_each_other_and_none_is_lost() -> None:
    async def scenario(lab: Inventory) -> None:
        vm = lab["vm-1"]
        await asyncio.gather(
            *(lab.reconfigure(vm, extraConfig=options(**{f"key__{number}": str(number)})) for number in range(50))
        )
        assert [vm.config.extra_config[f"key.{number}"] for number in range(50)] == [str(n) for n in range(50)]

    simulate(TWO_V100, scenario)


def test_memory_reservation_follows_the_lock() -> None:
    async def scenario(lab: Inventory) -> None:
        vm = lab["vm-1"]
        await lab.reconfigure(vm, memoryMB=12288)
        assert vm.builders["config.memoryAllocation"](vm).reservation == 12288
        await lab.reconfigure(vm, memoryReservationLockedToMax=False, memoryMB=16384)
        assert vm.reserved_memory_mb == 12288
        await lab.reconfigure(vm, memoryAllocation=vim.ResourceAllocationInfo(reservation=1024, shares=vim.SharesInfo(
            level="high", shares=0)))  # fmt: skip
        allocation = vm.builders["config.memoryAllocation"](vm)
        assert (allocation.reservation, allocation.limit, allocation.shares.shares) == (1024, -1, 16384 * 20)
        with pytest.raises(vmodl.fault.InvalidArgument):
            await lab.reconfigure(vm, memoryAllocation=vim.ResourceAllocationInfo(reservation=99999))

    simulate(TWO_V100, scenario)


def test_extra_config_is_text_and_an_empty_value_removes_it() -> None:
    async def scenario(lab: Inventory) -> None:
        vm = lab["vm-1"]
        number = vim.option.OptionValue(key="b", value=7)
        await lab.reconfigure(vm, extraConfig=[*options(a="1"), number])
        await lab.reconfigure(vm, extraConfig=options(a=""))
        assert "a" not in vm.config.extra_config
        assert vm.config.extra_config["b"] == "7"

    simulate(TWO_V100, scenario)


def test_disks_and_adapters_come_grow_and_go() -> None:
    async def scenario(lab: Inventory) -> None:
        vm = lab["vm-1"]
        disk = _device.VirtualDisk(key=-1, controllerKey=1000, unitNumber=1, capacityInKB=1048576,
            backing=_device.VirtualDisk.FlatVer2BackingInfo(diskMode="persistent", fileName=""))  # fmt: skip
        card = _device.VirtualVmxnet3(key=-2, backing=_device.VirtualEthernetCard.NetworkBackingInfo(deviceName="net"))
        new_disk = vim.vm.device.VirtualDeviceSpec(operation="add", fileOperation="create", device=disk)
        await lab.reconfigure(vm, deviceChange=[new_disk, change(card)])
        disk, card = next(d for d in vm.devices if d.key == 2001), next(d for d in vm.devices if d.key == 4001)
        assert disk.backing.fileName == "[ds] vm-1/vm-1_1.vmdk"
        assert disk.deviceInfo.label == "Hard disk 2"
        assert card.macAddress.startswith("00:50:56:")
        assert card.backing.network._GetMoId() == lab["net"].moid

        larger = _device.VirtualDisk(
            key=2001, controllerKey=1000, unitNumber=1, capacityInKB=2097152, backing=disk.backing
        )
        await lab.reconfigure(vm, deviceChange=[change(larger, "edit")])
        assert next(d for d in vm.devices if d.key == 2001).capacityInBytes == 2097152 * 1024
        with pytest.raises(vim.fault.InvalidDeviceSpec):
            await lab.reconfigure(vm, deviceChange=[change(disk, "edit")])
        await lab.reconfigure(vm, deviceChange=[change(disk, "remove"), change(card, "remove")])
        assert {2001, 4001}.isdisjoint({d.key for d in vm.devices})

    simulate(TWO_V100, scenario)


def test_a_controller_and_its_disk_come_together_and_not_apart() -> None:
    async def scenario(lab: Inventory) -> None:
        vm = lab["vm-1"]
        controller = _device.VirtualNVMEController(key=-10, busNumber=0)
        disk = _device.VirtualDisk(key=-11, controllerKey=-10, capacityInKB=1024,
            backing=_device.VirtualDisk.FlatVer2BackingInfo(diskMode="persistent", fileName=""))  # fmt: skip
        new_disk = vim.vm.device.VirtualDeviceSpec(operation="add", fileOperation="create", device=disk)
        await lab.reconfigure(vm, deviceChange=[change(controller), new_disk])
        made = next(d for d in vm.devices if isinstance(d, _device.VirtualNVMEController))
        assert list(made.device) == [32000]
        with pytest.raises(vim.fault.InvalidDeviceSpec):
            await lab.reconfigure(vm, deviceChange=[change(made, "remove")])

    simulate(TWO_V100, scenario)


def test_a_field_that_the_simulator_does_not_know_is_never_swallowed() -> None:
    async def scenario(lab: Inventory) -> None:
        with pytest.raises(vmodl.fault.NotSupported, match="tdxEnabled"):
            await lab.reconfigure(lab["vm-1"], tdxEnabled=True)

    simulate(TWO_V100, scenario)


def test_a_rename_must_be_to_a_free_name() -> None:
    async def scenario(lab: Inventory) -> None:
        with pytest.raises(vim.fault.DuplicateName):
            await lab.reconfigure(lab["vm-1"], name="vm-2")
        await lab.reconfigure(lab["vm-1"], name="vm-3")
        assert "vm-3" in lab["vm-3"].parent.children
        assert "vm-1" not in lab["vm-3"].parent.children

    simulate(TWO_V100, scenario)


@pytest.mark.parametrize(
    ("fields", "privileges"),
    [
        ({"memoryMB": 1024}, ["Memory"]),
        ({"numCPUs": 2}, ["CPUCount"]),
        ({"memoryReservationLockedToMax": True}, ["Resource"]),
        ({"extraConfig": options(a="b")}, ["AdvancedConfig"]),
        ({"firmware": "efi"}, ["Settings"]),
        ({"deviceChange": [change(dynamic("10de:1db6"))]}, ["AddRemoveDevice"]),
        ({"deviceChange": [change(_device.VirtualDisk(key=1), "remove")]}, ["RemoveDisk"]),
        ({"changeVersion": "x", "memoryMB": 4, "extraConfig": options(a="b")}, ["AdvancedConfig", "Memory"]),
    ],
)
def test_the_privileges_follow_from_what_changes(fields: dict[str, object], privileges: list[str]) -> None:
    needed = needed_privileges(vim.vm.ConfigSpec(**fields))
    assert needed == [f"VirtualMachine.Config.{name}" for name in privileges]


def test_a_user_without_the_privilege_is_told_which_one() -> None:
    lab = Inventory(
        "roles: {limited: [VirtualMachine.Config.Memory]}\nusers: [{name: u, password: p, role: limited}]" + TWO_V100
    )
    session = lab.world.sessions.open("u", locale="en", ip_address="", user_agent="")
    spec = vim.vm.ConfigSpec(memoryMB=4096, extraConfig=options(a="b"))
    with pytest.raises(vim.fault.NoPermission) as caught:
        lab["vm-1"].reconfigure(Context(lab.world, session), spec)
    assert caught.value.privilegeId == "VirtualMachine.Config.AdvancedConfig"
    assert caught.value.object._GetMoId() == lab["vm-1"].moid
