"""Snapshots at the wire: taken, reverted, removed; with memory only where devices allow it; there after a crash."""

from __future__ import annotations

import typing as t

import pytest
from pyVim.task import WaitForTask
from pyVmomi import vim, vmodl

if t.TYPE_CHECKING:
    import pathlib
    from collections.abc import Callable

MODEL = """
datacenter: dc
datastores: [{name: ds}]
networks: [{name: net}]
clusters:
  - name: c
    hosts: [{name: h, gpus: [{gpu: V100-32, count: 1, passthrough: true}]}]
templates: [{name: t}]
vms:
  - {name: plain, host: h}
  - {name: gpu, host: h, firmware: efi, memory_mb: 8192, memory_locked: true, power: "on",
     gpus: [{mode: fixed, address: "0000:3b:00.0"}],
     extra_config: {pciPassthru.use64bitMMIO: "TRUE", pciPassthru.64bitMMIOSizeGB: "128"}}
"""


def take(vm: t.Any, name: str, *, memory: bool = False) -> t.Any:
    task = vm.CreateSnapshot(name=name, description="why", memory=memory, quiesce=False)
    WaitForTask(task)
    return task.info.result


def names(tree: t.Any) -> list[t.Any]:
    return [(one.name, names(one.childSnapshotList)) for one in tree]


def disk_file(vm: t.Any) -> str:
    return next(d.backing.fileName for d in vm.config.hardware.device if isinstance(d, vim.vm.device.VirtualDisk))


def test_a_tree_is_made_reverted_and_removed(serve: Callable[..., t.Any]) -> None:
    vm = serve(MODEL).find("dc/vm/plain")
    assert vm.snapshot is None
    first = take(vm, "one")
    WaitForTask(vm.Reconfigure(vim.vm.ConfigSpec(numCPUs=4)))
    take(vm, "two")
    assert disk_file(vm) == "[ds] plain/plain-000002.vmdk"
    WaitForTask(first.RevertToSnapshot_Task())
    assert vm.config.hardware.numCPU == 2
    third = take(vm, "three")
    assert names(vm.snapshot.rootSnapshotList) == [("one", [("two", []), ("three", [])])]
    assert vm.snapshot.currentSnapshot == third
    assert [one.config.hardware.numCPU for one in (first, *first.childSnapshot)] == [2, 4, 2]
    third.RenameSnapshot(name="3", description="d")
    assert vm.snapshot.rootSnapshotList[0].childSnapshotList[1].description == "d"
    WaitForTask(first.RemoveSnapshot_Task(removeChildren=False))
    assert names(vm.snapshot.rootSnapshotList) == [("two", []), ("3", [])]
    with pytest.raises(vmodl.fault.ManagedObjectNotFound):
        WaitForTask(first.RemoveSnapshot_Task(removeChildren=True))
    WaitForTask(vm.RemoveAllSnapshots_Task())
    assert vm.snapshot is None
    assert disk_file(vm) == "[ds] plain/plain.vmdk"
    with pytest.raises(vim.fault.NotFound):
        vm.RevertToCurrentSnapshot_Task()


def test_memory_brings_the_power_state_back(serve: Callable[..., t.Any]) -> None:
    vm = serve(MODEL).find("dc/vm/plain")
    take(vm, "off", memory=True)
    WaitForTask(vm.PowerOn())
    running = take(vm, "running", memory=True)
    tree = vm.snapshot.rootSnapshotList[0]
    assert (tree.state, tree.childSnapshotList[0].state) == ("poweredOff", "poweredOn")
    WaitForTask(tree.snapshot.RevertToSnapshot_Task())
    assert vm.runtime.powerState == "poweredOff"
    WaitForTask(running.RevertToSnapshot_Task())
    assert vm.runtime.powerState == "poweredOn"
    WaitForTask(running.RevertToSnapshot_Task(suppressPowerOn=True))
    assert vm.runtime.powerState == "poweredOff"


def test_a_passthrough_device_forbids_memory(serve: Callable[..., t.Any]) -> None:
    served = serve(MODEL)
    vm = served.find("dc/vm/gpu")
    with pytest.raises(vim.fault.SnapshotIncompatibleDeviceInVm) as refused:
        take(vm, "x", memory=True)
    assert "passthrough" in refused.value.msg
    take(vm, "without memory")
    with pytest.raises(vmodl.fault.NotSupported):
        served.find("dc/vm/t").CreateSnapshot(name="x", memory=False, quiesce=False)
    with pytest.raises(vim.fault.InvalidName):
        vm.CreateSnapshot(name="", memory=False, quiesce=False)


def test_there_are_at_most_32_levels(serve: Callable[..., t.Any]) -> None:
    vm = serve(MODEL).find("dc/vm/plain")
    for number in range(32):
        take(vm, str(number))
    with pytest.raises(vim.fault.TooManySnapshotLevels):
        take(vm, "33")


def test_they_are_there_after_a_crash_and_can_be_cloned_from(
    serve: Callable[..., t.Any], tmp_path: pathlib.Path
) -> None:
    options = ("--state", str(tmp_path / "state.json"))
    served = serve(MODEL, *options)
    vm = served.find("dc/vm/plain")
    take(vm, "one")
    WaitForTask(vm.Reconfigure(vim.vm.ConfigSpec(numCPUs=4)))
    take(vm, "two")
    served.stop()

    again = serve(MODEL, *options)
    vm = again.find("dc/vm/plain")
    assert names(vm.snapshot.rootSnapshotList) == [("one", [("two", [])])]
    first = vm.snapshot.rootSnapshotList[0].snapshot
    spec = vim.vm.CloneSpec(location=vim.vm.RelocateSpec(), snapshot=first, powerOn=False, template=False)
    WaitForTask(vm.Clone(folder=vm.parent, name="copy", spec=spec))
    assert again.find("dc/vm/copy").config.hardware.numCPU == 2
    assert again.find("dc/vm/copy").snapshot is None
    WaitForTask(vm.Destroy_Task())
    with pytest.raises(vmodl.fault.ManagedObjectNotFound):
        _ = first.vm
