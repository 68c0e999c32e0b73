"""Power-on: what a machine with GPUs must have, and which GPUs it gets."""

from __future__ import annotations

import asyncio

import pytest
from inventory import TWO_V100, V100_IDS, Inventory, change, dynamic, fixed, mmio, options, simulate, virtual

from vsphere_simulator.vmomi import vim, vmodl
from vsphere_simulator.world.virtual_machine import VirtualMachine

GIB = 1024**3
LABELS = """
clusters:
  - name: c
    hosts:
      - name: h
        gpus:
          - {gpu: T4, passthrough: true, label: blue}
          - {gpu: T4, passthrough: true, label: red}
          - {gpu: T4, label: blue}
vms: [{name: v, host: h, memory_locked: true}, {name: w, host: h, memory_locked: true}]
"""


async def refused(
    lab: Inventory, vm: VirtualMachine, message: str, fault: type[Exception] = vim.fault.GenericVmConfigFault
) -> None:
    with pytest.raises(fault, match=message):
        await lab.run(vm, "PowerOnVM_Task")
    assert vm.power == "poweredOff"
    assert not vm.assigned


def test_what_is_missing_is_told_one_after_the_other() -> None:
    async def scenario(lab: Inventory) -> None:
        vm = lab["vm-1"]
        devices = [change(fixed(lab["esx-1"], address)) for address in V100_IDS]
        await lab.reconfigure(
            vm,
            deviceChange=devices,
            memoryReservationLockedToMax=False,
            memoryAllocation=vim.ResourceAllocationInfo(reservation=8000),
            firmware="bios",
            extraConfig=options(pciPassthru__use64bitMMIO="", pciPassthru__64bitMMIOSizeGB=""),
        )
        await refused(lab, vm, r"memory reservation \(sched.mem.min\) should be equal to memsize\(8192\)")
        await lab.reconfigure(vm, memoryAllocation=vim.ResourceAllocationInfo(reservation=8192))
        await refused(lab, vm, "EFI")
        await lab.reconfigure(vm, firmware="efi")
        await refused(lab, vm, r"exceeds limit \(917504\)")
        await lab.reconfigure(vm, extraConfig=mmio(64))
        await refused(lab, vm, r"total number of pages needed \(16801792\) exceeds limit \(16777216\)")
        await lab.reconfigure(vm, extraConfig=[*mmio(128), *options(pciPassthru__use64bitMMIO="true")])
        await lab.run(vm, "PowerOnVM_Task")
        assert sorted(vm.assigned.values()) == list(V100_IDS)

    simulate(TWO_V100, scenario)


def test_the_fault_carries_the_whole_chain_of_messages() -> None:
    async def scenario(lab: Inventory) -> None:
        vm = lab["vm-1"]
        await lab.reconfigure(vm, deviceChange=[change(fixed(lab["esx-1"], V100_IDS[0]))], firmware="bios")
        with pytest.raises(vim.fault.GenericVmConfigFault) as caught:
            await lab.run(vm, "PowerOnVM_Task")
        texts = [line.message for line in caught.value.faultMessage]
        assert texts[1:] == ["Module 'DevicePowerOn' power on failed.", "Failed to start the virtual machine."]
        assert caught.value.reason == texts[0]

    simulate(TWO_V100, scenario)


@pytest.mark.parametrize(("size", "starts"), [("32", False), ("64", True), ("128", True), ("many", False), ("", False)])
def test_the_bars_must_fit_the_mmio_space(size: str, starts: bool) -> None:
    async def scenario(lab: Inventory) -> None:
        vm = lab["vm-1"]
        await lab.reconfigure(vm, deviceChange=[change(dynamic("10de:1db6"))], extraConfig=mmio(size))
        if starts:
            await lab.run(vm, "PowerOnVM_Task")
        else:
            await refused(lab, vm, "exceeds limit")

    simulate(TWO_V100, scenario)


def test_small_bars_need_neither_efi_nor_mmio() -> None:
    async def scenario(lab: Inventory) -> None:
        await lab.reconfigure(lab["v"], deviceChange=[change(dynamic("10de:1eb8"))])
        await lab.run(lab["v"], "PowerOnVM_Task")
        assert lab["v"].assigned

    simulate(LABELS, scenario)


def test_a_second_machine_cannot_have_the_same_device() -> None:
    async def scenario(lab: Inventory) -> None:
        for name in ("vm-1", "vm-2"):
            await lab.reconfigure(lab[name], deviceChange=[change(fixed(lab["esx-1"], V100_IDS[0]))])
        first = await lab.start(lab["vm-1"], "PowerOnVM_Task")
        await refused(lab, lab["vm-2"], "0000:3b:00.0 is already in use by virtual machine vm-1")
        await first.job
        await lab.run(lab["vm-1"], "PowerOffVM_Task")
        await lab.run(lab["vm-2"], "PowerOnVM_Task")

    simulate(TWO_V100, scenario)


def test_a_device_that_is_not_active_cannot_be_had() -> None:
    async def scenario(lab: Inventory) -> None:
        await lab.reconfigure(lab["v"], deviceChange=[change(fixed(lab["h"], "0000:86:00.0"))])
        await refused(lab, lab["v"], "Failed to register the device pciPassthru0 for 0000:86:00.0")

    simulate(LABELS, scenario)


def test_a_fixed_device_binds_the_machine_to_its_host() -> None:
    async def scenario(lab: Inventory) -> None:
        vm = lab["vm-1"]
        await lab.reconfigure(vm, deviceChange=[change(fixed(lab["esx-1"], V100_IDS[0]))])
        with pytest.raises(vim.fault.GenericVmConfigFault, match="is not on host esx-2"):
            await lab.run(vm, "PowerOnVM_Task", host=lab["esx-2"])

    simulate(TWO_V100, scenario)


def test_dynamic_devices_are_taken_by_id_and_label_and_given_back() -> None:
    async def scenario(lab: Inventory) -> None:
        v, w = lab["v"], lab["w"]
        await lab.reconfigure(v, deviceChange=[change(dynamic("10de:1eb8", label="red"))])
        await lab.reconfigure(w, deviceChange=[change(dynamic("10de:1eb8")), change(dynamic("10de:1eb8"))])
        await lab.run(v, "PowerOnVM_Task")
        assert v.device_list()[-1].backing.assignedId == "0000:5e:00.0"
        assert v.devices[-1].backing.assignedId is None
        await refused(lab, w, "no free PCI device", vim.fault.NoCompatibleHostWithAccessToDevice)
        await lab.run(v, "PowerOffVM_Task")
        assert v.device_list()[-1].backing.assignedId is None
        await lab.run(w, "PowerOnVM_Task")
        assert sorted(w.assigned.values()) == ["0000:3b:00.0", "0000:5e:00.0"]

    simulate(LABELS, scenario)


@pytest.mark.parametrize("device", [dynamic("10de:1eb8", label="green"), dynamic("10de:1db6"), dynamic("1eb8:10de")])
def test_no_device_that_matches_is_no_device(device: object) -> None:
    async def scenario(lab: Inventory) -> None:
        await lab.reconfigure(lab["v"], deviceChange=[change(device)])
        await refused(lab, lab["v"], "no free PCI device", vim.fault.NoCompatibleHostWithAccessToDevice)

    simulate(LABELS, scenario)


def test_two_machines_at_once_never_get_one_device() -> None:
    async def scenario(lab: Inventory) -> None:
        machines = [lab["vm-1"], lab["vm-2"]]
        for vm in machines:
            await lab.reconfigure(vm, deviceChange=[change(dynamic("10de:1db6"))])
        await asyncio.gather(*(lab.run(vm, "PowerOnVM_Task") for vm in machines))
        assert sorted(a for vm in machines for a in vm.assigned.values()) == list(V100_IDS)

    simulate(TWO_V100, scenario)


def test_a_cancelled_power_on_gives_everything_back() -> None:
    async def scenario(lab: Inventory) -> None:
        await lab.reconfigure(lab["vm-1"], deviceChange=[change(fixed(lab["esx-1"], V100_IDS[0]))])
        task = await lab.start(lab["vm-1"], "PowerOnVM_Task")
        assert lab["vm-1"].assigned
        lab.call(task, "CancelTask")
        await task.job
        assert isinstance(task.error, vmodl.fault.RequestCanceled)
        assert (lab["vm-1"].power, lab["vm-1"].assigned) == ("poweredOff", {})

    simulate(TWO_V100, scenario)


def test_reserved_memory_must_be_there() -> None:
    model = """
clusters: [{name: c, hosts: [{name: h, memory_gb: 64}]}]
vms: [{name: a, host: h, memory_mb: 40960, memory_locked: true},
      {name: b, host: h, memory_mb: 40960, memory_locked: true}, {name: d, host: h, memory_mb: 40960}]
"""

    async def scenario(lab: Inventory) -> None:
        await lab.run(lab["a"], "PowerOnVM_Task")
        with pytest.raises(vim.fault.InsufficientMemoryResourcesFault) as caught:
            await lab.run(lab["b"], "PowerOnVM_Task")
        assert caught.value.requested == 40 * GIB
        assert caught.value.unreserved == 16 * GIB
        await lab.run(lab["d"], "PowerOnVM_Task")

    simulate(model, scenario)


@pytest.mark.parametrize("method", ["PowerOffVM_Task", "ResetVM_Task", "SuspendVM_Task"])
def test_an_operation_in_the_wrong_state_says_so(method: str) -> None:
    async def scenario(lab: Inventory) -> None:
        with pytest.raises(vim.fault.InvalidPowerState) as caught:
            await lab.run(lab["vm-1"], method)
        assert caught.value.existingState == "poweredOff"

    simulate(TWO_V100, scenario)


def test_a_machine_with_a_passed_through_gpu_cannot_be_suspended() -> None:
    async def scenario(lab: Inventory) -> None:
        await lab.reconfigure(lab["vm-1"], deviceChange=[change(fixed(lab["esx-1"], V100_IDS[0]))])
        await lab.run(lab["vm-1"], "PowerOnVM_Task")
        with pytest.raises(vim.fault.GenericVmConfigFault, match="cannot be suspended"):
            await lab.run(lab["vm-1"], "SuspendVM_Task")
        await lab.run(lab["vm-2"], "PowerOnVM_Task")
        await lab.run(lab["vm-2"], "SuspendVM_Task")
        assert lab["vm-2"].power == "suspended"
        await lab.run(lab["vm-2"], "PowerOnVM_Task")
        assert lab["vm-2"].is_on

    simulate(TWO_V100, scenario)


def test_a_guest_that_is_asked_to_shut_down_takes_its_time() -> None:
    async def scenario(lab: Inventory) -> None:
        vm = lab["vm-1"]
        await lab.run(vm, "PowerOnVM_Task")
        lab.call(vm, "ShutdownGuest")
        assert vm.is_on
        async with asyncio.timeout(5):
            while vm.is_on:
                await vm.host.machines_changed.wait(5)
        with pytest.raises(vim.fault.InvalidPowerState):
            lab.call(vm, "ShutdownGuest")

    simulate(TWO_V100, scenario)


VGPU = """
clusters:
  - name: c
    hosts: [{name: h, gpus: [{gpu: A100-40, count: 2}], vgpu_manager: "16.4", graphics_type: sharedDirect}]
vms:
  - {name: a, host: h, firmware: efi, memory_locked: true}
  - {name: b, host: h, firmware: efi, memory_locked: true}
  - {name: d, host: h, firmware: efi, memory_locked: true}
"""


def test_same_size_gpus_hold_one_size() -> None:
    async def scenario(lab: Inventory) -> None:
        for name, profile in {"a": "nvidia_a100-20c", "b": "nvidia_a100-10c", "d": "nvidia_a100-5c"}.items():
            await lab.reconfigure(lab[name], deviceChange=[change(virtual(profile))])
        await lab.run(lab["a"], "PowerOnVM_Task")
        await lab.run(lab["b"], "PowerOnVM_Task")
        with pytest.raises(vim.fault.InsufficientGraphicsResourcesFault):
            await lab.run(lab["d"], "PowerOnVM_Task")
        await lab.run(lab["b"], "PowerOffVM_Task")
        await lab.run(lab["d"], "PowerOnVM_Task")
        gpus = {info.pciId: [vm._GetMoId() for vm in info.vm] for info in lab["h"].graphics.info()}
        assert gpus == {"0000:3b:00.0": [lab["a"].moid], "0000:5e:00.0": [lab["d"].moid]}

    simulate(VGPU, scenario)


@pytest.mark.parametrize(("policy", "used"), [("performance", 2), ("consolidation", 1)])
def test_assignment_follows_the_hosts_policy(policy: str, used: int) -> None:
    async def scenario(lab: Inventory) -> None:
        for name in ("a", "b"):
            await lab.reconfigure(lab[name], deviceChange=[change(virtual("nvidia_a100-10c"))])
            await lab.run(lab[name], "PowerOnVM_Task")
        assert len({address for name in ("a", "b") for address, _ in lab[name].vgpus.values()}) == used

    simulate(VGPU.replace("sharedDirect}", f"sharedDirect, assignment_policy: {policy}}}"), scenario)


@pytest.mark.parametrize(
    "change_model",
    [("sharedDirect", "shared"), ('vgpu_manager: "16.4", ', ""), ("count: 2", "count: 2, passthrough: true")],
)
def test_a_gpu_that_no_manager_divides_takes_no_vgpu(change_model: tuple[str, str]) -> None:
    async def scenario(lab: Inventory) -> None:
        await lab.reconfigure(lab["a"], deviceChange=[change(virtual("nvidia_a100-10c"))])
        with pytest.raises(vim.fault.InsufficientGraphicsResourcesFault, match="amount of graphics resource"):
            await lab.run(lab["a"], "PowerOnVM_Task")

    simulate(VGPU.replace(*change_model), scenario)


def test_several_vgpus_must_belong_together() -> None:
    async def scenario(lab: Inventory) -> None:
        compute = [change(virtual("nvidia_a100-20c")) for _ in range(2)]
        await lab.reconfigure(lab["a"], deviceChange=compute)
        await lab.run(lab["a"], "PowerOnVM_Task")
        assert len(lab["a"].vgpus) == 2
        for others in (
            ["nvidia_a100-20c", "nvidia_a100-20q"],
            ["nvidia_a100-20c", "nvidia_a30-6c"],
            ["nvidia_a100-4q"] * 2,
        ):
            with pytest.raises(vim.fault.InvalidDeviceSpec):
                await lab.reconfigure(lab["b"], deviceChange=[change(virtual(name)) for name in others])

    simulate(VGPU, scenario)
