"""pyVmomi's own helpers, and its getters over every property of every object."""

from __future__ import annotations

import typing as t

import pytest
from pyVim.task import WaitForTask
from pyVmomi import VmomiSupport, vim

if t.TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.clients


def everything(served: t.Any) -> Iterator[t.Any]:
    """Every entity, the managers of hosts, the snapshots, the singletons."""
    content = served.client.content
    view = content.viewManager.CreateContainerView(content.rootFolder, [vim.ManagedEntity], True)
    yield content.rootFolder
    for entity in view.view:
        yield entity
        if isinstance(entity, vim.HostSystem):
            managers = vars(entity.configManager).values()
            yield from (one for one in managers if isinstance(one, VmomiSupport.ManagedObject))
        if isinstance(entity, vim.VirtualMachine):
            yield from entity.rootSnapshot
        if isinstance(entity, vim.ComputeResource | vim.VirtualMachine):
            yield entity.environmentBrowser
    yield from (one for one in vars(content).values() if isinstance(one, VmomiSupport.ManagedObject))
    view.Destroy()


def test_wait_for_task_returns_results_and_raises_faults(served: t.Any) -> None:
    vm = served.find("dc/vm/prod/web-2")
    seen: list[object] = []
    task = vm.PowerOn()
    assert WaitForTask(task, onProgressUpdate=lambda _, percent: seen.append(percent)) == "success"
    assert task.info.result is None
    assert seen
    with pytest.raises(vim.fault.InvalidPowerState) as refused:
        WaitForTask(vm.PowerOn())
    assert refused.value.existingState == "poweredOn"
    snapshot = vm.CreateSnapshot("one", None, True, False)
    WaitForTask(snapshot)
    assert isinstance(snapshot.info.result, vim.vm.Snapshot)


def test_every_property_of_every_object_can_be_got(served: t.Any) -> None:
    WaitForTask(served.find("dc/vm/prod/web-1").CreateSnapshot("one", "", True, False))
    kinds = set()
    for obj in everything(served):
        kinds.add(type(obj).__name__)
        for info in type(obj)._GetPropertyList():
            if not VmomiSupport.IsChildVersion(served.client._stub.version, info.version):
                continue  # of a later API than the one that the vCenter speaks
            value = getattr(obj, info.name)
            assert value is None or isinstance(value, info.type), (obj, info.name)
    assert {"vim.HostSystem", "vim.VirtualMachine", "vim.vm.Snapshot", "vim.ClusterComputeResource"} <= kinds
