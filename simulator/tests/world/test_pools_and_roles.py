"""Resource pools, roles and permissions, and instant clones, at the wire."""

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
  - {name: c, hosts: [{name: h, memory_gb: 64}]}
  - {name: other, hosts: [{name: g, gpus: [{gpu: T4, passthrough: true}]}]}
vms:
  - {name: v, host: h}
  - {name: with-gpu, host: g, power: "on", memory_locked: true, gpus: [{mode: fixed, address: "0000:3b:00.0"}]}
users: [{name: u@lab, password: p, role: ReadOnly}]
"""


def spec(*, cpu: t.Any = None, memory: t.Any = None) -> t.Any:
    def allocation(values: dict[str, t.Any] | None) -> t.Any:
        given = {"reservation": 0, "limit": -1, "expandableReservation": True} | (values or {})
        level = given.pop("level", "normal")
        number = level if isinstance(level, int) else 0
        return vim.ResourceAllocationInfo(
            shares=vim.SharesInfo(level="custom" if number else level, shares=number), **given
        )

    return vim.ResourceConfigSpec(cpuAllocation=allocation(cpu), memoryAllocation=allocation(memory))


def test_share_levels_become_numbers(serve: Callable[..., t.Any]) -> None:
    root = serve(MODEL).find("dc/host/c").resourcePool
    pool = root.CreateResourcePool(name="p", spec=spec(cpu={"level": "high"}, memory={"level": 77}))
    shares = pool.config.cpuAllocation.shares, pool.config.memoryAllocation.shares
    assert [(one.level, one.shares) for one in shares] == [("high", 8000), ("custom", 77)]
    pool.UpdateConfig(name="q", config=spec(cpu={"level": "low"}))
    assert (pool.name, pool.config.cpuAllocation.shares.shares) == ("q", 2000)
    assert pool.config.memoryAllocation.shares.shares == 163840
    stale = spec()
    stale.changeVersion = "1"
    with pytest.raises(vim.fault.ConcurrentAccess):
        pool.UpdateConfig(config=stale)
    with pytest.raises(vim.fault.DuplicateName):
        root.CreateResourcePool(name="q", spec=spec())
    with pytest.raises(vmodl.fault.InvalidArgument):
        root.CreateResourcePool(name="r", spec=spec(memory={"reservation": 10, "limit": 5}))


def test_reservations_come_out_of_the_pool_above(serve: Callable[..., t.Any]) -> None:
    root = serve(MODEL).find("dc/host/c").resourcePool
    above = root.CreateResourcePool(
        name="above", spec=spec(memory={"reservation": 1024, "expandableReservation": False})
    )
    below = above.CreateResourcePool(name="below", spec=spec(memory={"reservation": 1000}))
    with pytest.raises(vim.fault.InsufficientMemoryResourcesFault) as refused:
        above.CreateResourcePool(name="more", spec=spec(memory={"reservation": 25}))
    assert refused.value.unreserved == 24 * 1024**2
    below.UpdateConfig(config=spec(memory={"reservation": 1024}))
    assert root.runtime.memory.reservationUsed == 1024**3
    assert root.runtime.memory.unreservedForPool == 63 * 1024**3
    with pytest.raises(vim.fault.InsufficientCpuResourcesFault):
        root.CreateResourcePool(name="cpu", spec=spec(cpu={"reservation": 10**9}))


def test_what_is_in_a_pool_stays_when_it_goes(serve: Callable[..., t.Any], tmp_path: pathlib.Path) -> None:
    options = ("--state", str(tmp_path / "state.json"))
    served = serve(MODEL, *options)
    root, vm = served.find("dc/host/c").resourcePool, served.find("dc/vm/v")
    pool = root.CreateResourcePool(name="p", spec=spec(cpu={"level": "high"}))
    pool.CreateResourcePool(name="in", spec=spec())
    pool.MoveIntoResourcePool(list=[vm])
    with pytest.raises(vmodl.fault.InvalidArgument):
        served.find("dc/host/c/Resources/p/in").MoveIntoResourcePool(list=[pool])
    served.stop()

    again = serve(MODEL, *options)
    pool, vm = again.find("dc/host/c/Resources/p"), again.find("dc/vm/v")
    assert (vm.resourcePool, pool.config.cpuAllocation.shares.shares) == (pool, 8000)
    root = pool.parent
    WaitForTask(pool.Destroy_Task())
    assert vm.resourcePool == root
    assert [one.name for one in root.resourcePool] == ["in"]
    with pytest.raises(vmodl.fault.NotSupported):
        root.Destroy_Task()
    off = vim.cluster.ConfigSpecEx(drsConfig=vim.cluster.DrsConfigInfo(enabled=False))
    WaitForTask(root.owner.ReconfigureEx(spec=off, modify=True))
    assert list(root.resourcePool) == []
    with pytest.raises(vmodl.fault.NotSupported):
        root.CreateResourcePool(name="x", spec=spec())


def permission(role_id: int, user: str = "u@lab") -> t.Any:
    return vim.AuthorizationManager.Permission(principal=user, group=False, roleId=role_id, propagate=True)


def test_an_edited_role_decides_at_once(serve: Callable[..., t.Any], tmp_path: pathlib.Path) -> None:
    options = ("--state", str(tmp_path / "state.json"))
    served = serve(MODEL, *options)
    manager, folder = served.client.content.authorizationManager, served.find("dc/vm")
    role = manager.AddAuthorizationRole(name="maker", privIds=["Folder.Create"])
    manager.SetEntityPermissions(entity=folder, permission=[permission(role)])
    theirs = served.find("dc/vm", served.connect("u@lab", "p"))
    theirs.CreateFolder(name="one")
    manager.UpdateAuthorizationRole(roleId=role, newName="deleter", privIds=["Folder.Delete"])
    with pytest.raises(vim.fault.NoPermission) as refused:
        theirs.CreateFolder(name="two")
    assert refused.value.privilegeId == "Folder.Create"
    served.stop()

    again = serve(MODEL, *options)
    manager, folder = again.client.content.authorizationManager, again.find("dc/vm")
    assert [(one.principal, one.roleId) for one in folder.permission] == [("u@lab", role)]
    WaitForTask(again.find("dc/vm/one", again.connect("u@lab", "p")).Destroy_Task())
    with pytest.raises(vim.fault.RemoveFailed):
        manager.RemoveAuthorizationRole(roleId=role, failIfUsed=True)
    manager.RemoveEntityPermission(entity=folder, user="u@lab", isGroup=False)
    manager.RemoveAuthorizationRole(roleId=role, failIfUsed=True)
    assert "deleter" not in [one.name for one in manager.roleList]


def test_wrong_roles_and_permissions_are_refused(serve: Callable[..., t.Any]) -> None:
    served = serve(MODEL)
    manager, root = served.client.content.authorizationManager, served.client.content.rootFolder
    with pytest.raises(vim.fault.AlreadyExists):
        manager.AddAuthorizationRole(name="Admin", privIds=[])
    with pytest.raises(vmodl.fault.InvalidArgument):
        manager.AddAuthorizationRole(name="x", privIds=["No.Such"])
    with pytest.raises(vmodl.fault.InvalidArgument):
        manager.RemoveAuthorizationRole(roleId=-1, failIfUsed=False)
    with pytest.raises(vim.fault.UserNotFound):
        manager.SetEntityPermissions(entity=root, permission=[permission(-1, "nobody@lab")])
    with pytest.raises(vim.fault.NotFound):
        manager.SetEntityPermissions(entity=root, permission=[permission(4711)])
    with pytest.raises(vmodl.fault.InvalidArgument):
        manager.ResetEntityPermissions(entity=root, permission=[permission(-2)])
    assert len(root.permission) == 2


def test_an_instant_clone_runs_beside_its_source(serve: Callable[..., t.Any]) -> None:
    served = serve(MODEL)
    vm = served.find("dc/vm/v")
    clone = vim.vm.InstantCloneSpec(
        name="twin", location=vim.vm.RelocateSpec(), config=[vim.option.OptionValue(key="guestinfo.x", value="1")]
    )
    with pytest.raises(vim.fault.InvalidPowerState):
        WaitForTask(vm.InstantClone_Task(spec=clone))
    WaitForTask(vm.PowerOn())
    task = vm.InstantClone_Task(spec=clone)
    WaitForTask(task)
    twin = task.info.result
    assert (twin.runtime.powerState, twin.runtime.host) == ("poweredOn", vm.runtime.host)
    assert {one.key: one.value for one in twin.config.extraConfig}["guestinfo.x"] == "1"
    assert twin.config.uuid != vm.config.uuid
    with pytest.raises(vim.fault.DuplicateName):
        WaitForTask(vm.InstantClone_Task(spec=clone))
    clone.name = "third"
    with pytest.raises(vmodl.fault.NotSupported, match="the machine has "):
        WaitForTask(served.find("dc/vm/with-gpu").InstantClone_Task(spec=clone))
