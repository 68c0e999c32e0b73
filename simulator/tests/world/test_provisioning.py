"""Clone, create, delete, templates; folders, names and search."""

from __future__ import annotations

import asyncio

import pytest
from inventory import TWO_V100, V100_IDS, Inventory, change, dynamic, fixed, simulate

from vsphere_simulator.vmomi import vim, vmodl
from vsphere_simulator.world.virtual_machine import VirtualMachine

MODEL = (
    TWO_V100
    + """
templates:
  - {name: tpl, folder: templates, host: esx-2, firmware: efi, hardware_version: 21, cpus: 8,
     memory_mb: 32768, disks_gb: [100]}
"""
)


def spec(lab: Inventory, *, host: str | None = "esx-1", **fields: object) -> object:
    location = vim.vm.RelocateSpec(pool=lab["gpu"].pool.ref, host=lab[host].ref if host else None)
    return vim.vm.CloneSpec(**({"location": location, "powerOn": False, "template": False} | fields))


async def clone(lab: Inventory, source: str, name: str, folder: object = None, **fields: object) -> VirtualMachine:
    target = folder or lab["dc"].folders["vm"]
    return await lab.run(lab[source], "CloneVM_Task", folder=target, name=name, spec=spec(lab, **fields))


def test_a_clone_is_like_its_template_and_yet_itself() -> None:
    async def scenario(lab: Inventory) -> None:
        template = lab["tpl"]
        vm = await clone(lab, "tpl", "new")
        assert (vm.config.firmware, vm.config.hardware_version, vm.config.cpus, vm.memory_mb) == ("efi", 21, 8, 32768)
        assert (vm.template, vm.power, vm.host, vm.pool) == (False, "poweredOff", lab["esx-1"], lab["gpu"].pool)
        assert vm.config.uuid != template.config.uuid
        assert vm.config.instance_uuid != template.config.instance_uuid
        mine, its = ({d.key: d for d in one.devices} for one in (vm, template))
        assert mine.keys() == its.keys()
        assert mine[4000].macAddress != its[4000].macAddress
        assert mine[2000].backing.fileName == "[ds] new/new.vmdk"
        assert vm.moid in lab["ds"].users
        assert vm.moid in lab["net"].users

    simulate(MODEL, scenario)


def test_a_machine_clones_with_its_pci_devices() -> None:
    async def scenario(lab: Inventory) -> None:
        devices = [change(fixed(lab["esx-1"], V100_IDS[0])), change(dynamic("10de:1db6"))]
        await lab.reconfigure(lab["vm-1"], deviceChange=devices)
        vm = await clone(lab, "vm-1", "copy")
        assert [type(d.backing) for d in vm.devices[-2:]] == [type(d.backing) for d in lab["vm-1"].devices[-2:]]
        assert vm.devices[-2].backing.id == V100_IDS[0]
        assert next(d for d in vm.devices if d.key == 2000).backing.fileName == "[ds] copy/copy.vmdk"

    simulate(MODEL, scenario)


def test_the_specification_configures_the_clone_and_can_start_it() -> None:
    async def scenario(lab: Inventory) -> None:
        config = vim.vm.ConfigSpec(memoryMB=8192, memoryReservationLockedToMax=True, annotation="mine")
        vm = await clone(lab, "tpl", "new", config=config, powerOn=True)
        assert (vm.memory_mb, vm.reserved_memory_mb, vm.config.annotation) == (8192, 8192, "mine")
        task = next(task for task in lab.world.tasks.recent_of(vm) if task.name == "VirtualMachine.powerOn")
        await task.job
        assert vm.is_on

    simulate(MODEL, scenario)


def test_a_specification_that_is_wrong_leaves_nothing_behind() -> None:
    async def scenario(lab: Inventory) -> None:
        wrong = vim.vm.ConfigSpec(deviceChange=[change(fixed(lab["esx-1"], "0000:ff:00.0"))])
        with pytest.raises(vim.fault.InvalidDeviceBacking):
            await clone(lab, "tpl", "new", config=wrong)
        assert "new" not in lab["dc"].folders["vm"].children
        assert set(lab["ds"].users) == {lab[name].moid for name in ("vm-1", "vm-2", "tpl")}

    simulate(MODEL, scenario)


def test_a_name_is_taken_from_the_first_moment() -> None:
    async def scenario(lab: Inventory) -> None:
        folder = lab["dc"].folders["vm"]
        first = await lab.start(lab["tpl"], "CloneVM_Task", folder=folder, name="new", spec=spec(lab))
        with pytest.raises(vim.fault.DuplicateName) as caught:
            await clone(lab, "tpl", "new")
        assert caught.value.name == "new"
        await clone(lab, "tpl", "new", folder=lab["templates"])
        await first.job
        with pytest.raises(vim.fault.DuplicateName):
            await clone(lab, "tpl", "new")

    simulate(MODEL, scenario)


def test_a_cancelled_clone_frees_its_name() -> None:
    async def scenario(lab: Inventory) -> None:
        folder = lab["dc"].folders["vm"]
        task = await lab.start(lab["tpl"], "CloneVM_Task", folder=folder, name="new", spec=spec(lab))
        lab.call(task, "CancelTask")
        await task.job
        assert "new" not in folder.children
        await clone(lab, "tpl", "new")

    simulate(MODEL, scenario)


def test_many_clones_run_at_once() -> None:
    async def scenario(lab: Inventory) -> None:
        began = asyncio.get_running_loop().time()
        machines = await asyncio.gather(*(clone(lab, "tpl", f"c{number}", host=None) for number in range(40)))
        assert asyncio.get_running_loop().time() - began < 20 * 60 / 2000 + 1
        assert len({vm.moid for vm in machines}) == 40
        assert len({d.macAddress for vm in machines for d in vm.devices if d.key == 4000}) == 40

    simulate(MODEL, scenario)


@pytest.mark.parametrize(
    ("fields", "fault"),
    [
        ({"location": vim.vm.RelocateSpec()}, vmodl.fault.InvalidArgument),
        ({"customization": vim.vm.customization.Specification()}, vmodl.fault.NotSupported),
    ],
)
def test_a_clone_that_cannot_be_is_refused(fields: dict[str, object], fault: type[Exception]) -> None:
    async def scenario(lab: Inventory) -> None:
        with pytest.raises(fault):
            await clone(lab, "tpl", "new", **fields)

    simulate(MODEL, scenario)


def test_a_machine_becomes_a_template_and_back() -> None:
    async def scenario(lab: Inventory) -> None:
        vm = lab["vm-1"]
        lab.call(vm, "MarkAsTemplate")
        assert (vm.template, vm.pool, vm.moid in lab["gpu"].pool.machines) == (True, None, False)
        with pytest.raises(vmodl.fault.NotSupported):
            lab.call(vm, "PowerOnVM_Task")
        lab.call(vm, "MarkAsVirtualMachine", pool=lab["gpu"].pool)
        assert (vm.template, vm.pool) == (False, lab["gpu"].pool)
        await lab.run(vm, "PowerOnVM_Task")
        with pytest.raises(vim.fault.InvalidPowerState):
            lab.call(vm, "MarkAsTemplate")

    simulate(MODEL, scenario)


def test_a_machine_that_runs_cannot_be_deleted() -> None:
    async def scenario(lab: Inventory) -> None:
        vm = lab["vm-1"]
        await lab.run(vm, "PowerOnVM_Task")
        with pytest.raises(vim.fault.InvalidPowerState):
            await lab.run(vm, "Destroy_Task")
        await lab.run(vm, "PowerOffVM_Task")
        await lab.run(vm, "Destroy_Task")
        with pytest.raises(vmodl.fault.ManagedObjectNotFound):
            lab.world.get(vm.moid)
        for holder in (lab["esx-1"].machines, lab["gpu"].pool.machines, lab["ds"].users, lab["net"].users):
            assert vm.moid not in holder
        lab.call(lab["vm-2"], "UnregisterVM")
        assert "vm-2" not in lab["dc"].folders["vm"].children

    simulate(MODEL, scenario)


def test_a_machine_is_made_from_a_specification() -> None:
    async def scenario(lab: Inventory) -> None:
        device = vim.vm.device
        controller = device.ParaVirtualSCSIController(key=-1, busNumber=0, sharedBus="noSharing")
        disk = device.VirtualDisk(key=-2, controllerKey=-1, unitNumber=0, capacityInKB=1048576,
            backing=device.VirtualDisk.FlatVer2BackingInfo(diskMode="persistent", fileName=""))  # fmt: skip
        new_disk = device.VirtualDeviceSpec(operation="add", fileOperation="create", device=disk)
        config = vim.vm.ConfigSpec(
            name="made",
            numCPUs=2,
            memoryMB=2048,
            guestId="debian12_64Guest",
            version="vmx-19",
            firmware="efi",
            files=vim.vm.FileInfo(vmPathName="[ds]"),
            deviceChange=[change(controller), new_disk],
        )
        folder = lab["dc"].folders["vm"]
        vm = await lab.run(folder, "CreateVM_Task", config=config, pool=lab["gpu"].pool)
        assert (vm.config.cpus, vm.memory_mb, vm.config.hardware_version, vm.config.firmware) == (2, 2048, 19, "efi")
        assert next(d for d in vm.devices if d.key == 2000).backing.fileName == "[ds] made/made.vmdk"
        with pytest.raises(vim.fault.DuplicateName):
            await lab.run(folder, "CreateVM_Task", config=config, pool=lab["gpu"].pool)
        config.name, config.files.vmPathName = "other", "[nowhere]"
        with pytest.raises(vim.fault.InvalidDatastorePath):
            await lab.run(folder, "CreateVM_Task", config=config, pool=lab["gpu"].pool)

    simulate(MODEL, scenario)


def test_a_folder_is_an_atomic_lock() -> None:
    async def scenario(lab: Inventory) -> None:
        parent = lab["dc"].folders["vm"]
        made = lab.call(parent, "CreateFolder", name="gpuops-lock-gpu-1")
        with pytest.raises(vim.fault.DuplicateName) as caught:
            lab.call(parent, "CreateFolder", name="gpuops-lock-gpu-1")
        assert caught.value.object._GetMoId() == made.moid
        await lab.run(made, "Rename_Task", new_name="gpuops-lock-gpu-2")
        lab.call(parent, "CreateFolder", name="gpuops-lock-gpu-1")
        with pytest.raises(vim.fault.DuplicateName):
            await lab.run(made, "Rename_Task", new_name="gpuops-lock-gpu-1")
        await lab.run(made, "Destroy_Task")
        assert made.moid not in lab.world.objects
        for name in ("", " x", "y" * 81):
            with pytest.raises(vim.fault.InvalidName):
                lab.call(parent, "CreateFolder", name=name)

    simulate(MODEL, scenario)


def test_folders_hold_what_belongs_in_them() -> None:
    async def scenario(lab: Inventory) -> None:
        templates, vm = lab["templates"], lab["vm-1"]
        await lab.run(templates, "MoveIntoFolder_Task", list=[vm])
        assert vm.parent is templates
        assert (
            lab.call(lab.world.content["searchIndex"], "FindByInventoryPath", inventory_path="dc/vm/templates/vm-1")
            is vm
        )
        for target, moved in ((lab["dc"].folders["host"], vm), (templates, templates), (templates, lab["gpu"])):
            with pytest.raises(vim.fault.InvalidFolder):
                await lab.run(target, "MoveIntoFolder_Task", list=[moved])
        await lab.run(vm, "PowerOnVM_Task")
        with pytest.raises(vim.fault.InvalidPowerState):
            await lab.run(templates, "Destroy_Task")
        await lab.run(vm, "PowerOffVM_Task")
        await lab.run(templates, "Destroy_Task")
        assert vm.moid not in lab.world.objects
        with pytest.raises(vmodl.fault.NotSupported):
            lab.call(lab["dc"].folders["vm"], "Destroy_Task")

    simulate(MODEL, scenario)


def test_search_finds_by_path_uuid_name_and_address() -> None:
    async def scenario(lab: Inventory) -> None:
        index, vm, host = lab.world.content["searchIndex"], lab["vm-1"], lab["esx-1"]
        paths = {
            "": lab.world.root, "dc": lab["dc"], "/dc/vm/vm-1/": vm, "dc/vm/templates/tpl": lab["tpl"],
            "DC/host/GPU/esx-1": host, "dc/host/gpu/Resources": lab["gpu"].pool, "dc/datastore/ds": lab["ds"],
            "dc/vm/nothing": None, "dc/vm/vm-1/below": None,
        }  # fmt: skip
        for path, found in paths.items():
            assert lab.call(index, "FindByInventoryPath", inventory_path=path) is found, path
        assert lab.call(index, "FindByUuid", uuid=vm.config.uuid.upper(), vm_search=True) is vm
        assert lab.call(index, "FindByUuid", uuid=vm.config.instance_uuid, vm_search=True, instance_uuid=True) is vm
        assert lab.call(index, "FindByUuid", uuid=vm.config.instance_uuid, vm_search=True) is None
        assert lab.call(index, "FindByUuid", uuid=host.uuid, vm_search=False, datacenter=lab["dc"]) is host
        assert lab.call(index, "FindByDnsName", dns_name="ESX-1", vm_search=False) is host
        assert lab.call(index, "FindByDnsName", dns_name="vm-1", vm_search=True) is None
        assert lab.call(index, "FindChild", entity=lab["gpu"], name="esx-2") is lab["esx-2"]
        assert lab.call(index, "FindByDatastorePath", datacenter=lab["dc"], path="[ds] vm-1/vm-1.vmx") is vm
        await lab.run(vm, "PowerOnVM_Task")
        address = vm.builders["guest"](vm).ipAddress
        assert lab.call(index, "FindByIp", ip=address, vm_search=True) is vm
        assert lab.call(index, "FindAllByDnsName", dns_name="vm-1", vm_search=True) == [vm]

    simulate(MODEL, scenario)


def test_a_name_with_a_slash_is_found_with_its_escape() -> None:
    lab = Inventory(MODEL)
    made = lab.call(lab["dc"].folders["vm"], "CreateFolder", name="a/b")
    assert lab.call(lab.world.content["searchIndex"], "FindByInventoryPath", inventory_path="dc/vm/a%2fb") is made


def test_custom_attributes_have_values_where_they_apply() -> None:
    lab = Inventory(MODEL)
    manager, vm, host = lab.world.content["customFieldsManager"], lab["vm-1"], lab["esx-1"]
    everywhere = lab.call(manager, "AddCustomFieldDef", name="gpuops.intent")
    machines = lab.call(manager, "AddCustomFieldDef", name="owner", mo_type=vim.VirtualMachine)
    for name, kind in (("gpuops.intent", None), ("gpuops.intent", vim.HostSystem), ("owner", vim.VirtualMachine)):
        with pytest.raises(vim.fault.DuplicateName):
            lab.call(manager, "AddCustomFieldDef", name=name, mo_type=kind)
    lab.call(manager, "SetField", entity=host, key=everywhere.key, value="x")
    lab.call(manager, "SetField", entity=vm, key=machines.key, value="me")
    with pytest.raises(vmodl.fault.InvalidArgument):
        lab.call(manager, "SetField", entity=host, key=machines.key, value="me")
    lab.call(vm, "setCustomValue", key="gpuops.intent", value="y")
    values = {one.key: one.value for one in vm.builders["customValue"](vm)}
    assert values == {everywhere.key: "y", machines.key: "me"}
    assert [one.name for one in host.builders["availableField"](host)] == ["gpuops.intent"]
    lab.call(manager, "SetField", entity=host, key=everywhere.key, value="")
    assert host.custom_values == {}
    lab.call(manager, "RenameCustomFieldDef", key=everywhere.key, name="intent")
    lab.call(manager, "RemoveCustomFieldDef", key=everywhere.key)
    assert vm.custom_values == {machines.key: "me"}
    with pytest.raises(vmodl.fault.InvalidArgument):
        lab.call(manager, "RemoveCustomFieldDef", key=everywhere.key)
