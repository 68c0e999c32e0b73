"""Events and the history of tasks, as pyVmomi clients page through them."""

from __future__ import annotations

import typing as t

import pytest
from pyVim.task import WaitForTask
from pyVmomi import vim, vmodl

MODEL = """
datacenter: dc
datastores: [{name: ds}]
networks: [{name: net}]
clusters: [{name: c, hosts: [{name: h1}, {name: h2}]}]
vms: [{name: one, host: h1, folder: a}, {name: two, host: h2}]
users: [{name: reader@lab, password: reading, role: ReadOnly}]
"""
Spec: t.Any = vim.event.EventFilterSpec
ON: t.Any = vim.event.VmPoweredOnEvent


@pytest.fixture
def server(serve: t.Callable[..., t.Any]) -> t.Any:
    return serve(MODEL)


def on_and_off(vm: t.Any) -> None:
    WaitForTask(vm.PowerOn())
    WaitForTask(vm.PowerOff())


def names(events: t.Any) -> list[str]:
    return [type(event).__name__.rpartition(".")[2] for event in events]


def test_what_happens_to_a_machine_is_told_of_all_it_lies_in(server: t.Any) -> None:
    vm = server.find("dc/vm/a/one")
    on_and_off(vm)
    manager = server.client.content.eventManager
    for entity, recursion in (
        (vm, "self"),
        (server.find("dc/vm/a"), "children"),
        (server.find("dc/host/c"), "all"),
        (server.find("dc"), "all"),
    ):
        by_entity = Spec.ByEntity(entity=entity, recursion=recursion)
        found = manager.QueryEvents(Spec(entity=by_entity))
        assert names(found) == ["TaskEvent", "VmPoweredOnEvent", "TaskEvent", "VmPoweredOffEvent"], entity
    assert found[1].vm.vm == vm
    assert found[1].host.name == "h1"
    assert found[1].fullFormattedMessage == "one on h1 in dc is powered on"
    assert found[0].info.entity == vm
    assert found[0].chainId == found[1].chainId != found[2].chainId
    elsewhere = Spec.ByEntity(entity=server.find("dc/vm/two"), recursion="all")
    assert manager.QueryEvents(Spec(entity=elsewhere)) == []


def test_filters_by_type_user_time_and_count(server: t.Any) -> None:
    vm = server.find("dc/vm/two")
    on_and_off(vm)
    middle = server.client.CurrentTime()
    on_and_off(vm)
    query = server.client.content.eventManager.QueryEvents
    assert names(query(Spec(type=[ON]))) == ["VmPoweredOnEvent"] * 2
    assert names(query(Spec(eventTypeId=["vim.event.VmPoweredOnEvent"]))) == ["VmPoweredOnEvent"] * 2
    assert len(query(Spec(type=[vim.event.VmEvent]))) == 4
    assert len(query(Spec(type=[ON], time=Spec.ByTime(beginTime=middle)))) == 1
    assert len(query(Spec(type=[ON], time=Spec.ByTime(endTime=middle)))) == 1
    assert query(Spec(userName=Spec.ByUsername(systemUser=False, userList=["nobody"]))) == []
    assert len(query(Spec(maxCount=3))) == 3
    assert names(query(Spec(category=["user"]))) == ["TaskEvent"] * 4


def test_a_collector_reads_both_ways_and_follows(server: t.Any) -> None:
    vm = server.find("dc/vm/two")
    for _ in range(3):
        on_and_off(vm)
    manager = server.client.content.eventManager
    collector = manager.CreateCollectorForEvents(Spec(type=[vim.event.VmEvent]))
    collector.SetCollectorPageSize(2)
    assert names(collector.latestPage) == ["VmPoweredOffEvent", "VmPoweredOnEvent"]
    assert len(collector.ReadNextEvents(10)) == 2
    collector.RewindCollector()
    first = collector.ReadNextEvents(4)
    keys = [event.key for event in first]
    assert keys == sorted(keys)
    assert len(collector.ReadNextEvents(10)) == 2
    assert collector.ReadNextEvents(10) == []
    WaitForTask(vm.PowerOn())
    assert names(collector.ReadNextEvents(10)) == ["VmPoweredOnEvent"]
    assert len(collector.ReadPreviousEvents(10)) == 7
    with pytest.raises(vmodl.fault.InvalidArgument):
        collector.ReadNextEvents(0)
    collector.DestroyCollector()
    with pytest.raises(vmodl.fault.ManagedObjectNotFound):
        collector.ReadNextEvents(1)


def test_failures_logins_and_notes_are_events_too(server: t.Any) -> None:
    vm = server.find("dc/vm/two")
    with pytest.raises(vim.fault.InvalidPowerState):
        WaitForTask(vm.PowerOff())
    manager = server.client.content.eventManager
    manager.LogUserEvent(server.find("dc/host/c/h1"), "looked at the fans")
    note = manager.latestEvent
    assert note.message == "looked at the fans"
    assert note.host.name == "h1"
    (failed,) = manager.QueryEvents(Spec(type=[vim.event.VmFailedToPowerOffEvent]))
    assert isinstance(failed.reason, vim.fault.InvalidPowerState)
    reader = server.connect("reader@lab", "reading")
    assert isinstance(manager.latestEvent, vim.event.UserLoginSessionEvent)
    assert manager.latestEvent.userName == "reader@lab"
    with pytest.raises(vim.fault.NoPermission) as refused:
        reader.content.eventManager.LogUserEvent(server.find("dc/host/c/h1", reader), "x")
    assert refused.value.privilegeId == "Global.LogEvent"
    described = {detail.key for detail in manager.description.eventInfo}
    assert {type(note), type(failed)} <= described


def test_maintenance_and_clones_have_events(server: t.Any) -> None:
    host, vm = server.find("dc/host/c/h2"), server.find("dc/vm/two")
    WaitForTask(host.EnterMaintenanceMode(0))
    WaitForTask(host.ExitMaintenanceMode(0))
    location = vim.vm.RelocateSpec(pool=server.find("dc/host/c").resourcePool)
    clone = vm.Clone(vm.parent, "three", vim.vm.CloneSpec(location=location, powerOn=False, template=False))
    WaitForTask(clone)
    WaitForTask(clone.info.result.Destroy())
    query = server.client.content.eventManager.QueryEvents
    told = names(
        event for event in query(Spec()) if not isinstance(event, vim.event.TaskEvent | vim.event.SessionEvent)
    )
    assert told == ["EnteredMaintenanceModeEvent", "ExitMaintenanceModeEvent", "VmClonedEvent", "VmRemovedEvent"]
    (cloned,) = query(Spec(type=[vim.event.VmClonedEvent]))
    assert (cloned.vm.name, cloned.sourceVm.name) == ("three", "two")


def test_the_history_of_tasks(server: t.Any) -> None:
    one, two = server.find("dc/vm/a/one"), server.find("dc/vm/two")
    on_and_off(one)
    with pytest.raises(vim.fault.InvalidPowerState):
        WaitForTask(two.PowerOff())
    create = server.client.content.taskManager.CreateCollectorForTasks
    task_spec: t.Any = vim.TaskFilterSpec
    everything = create(task_spec())
    assert [info.descriptionId for info in everything.latestPage] == [
        "VirtualMachine.powerOff",
        "VirtualMachine.powerOff",
        "VirtualMachine.powerOn",
    ]
    failed = create(task_spec(state=["error"]))
    assert [info.entity for info in failed.ReadNextTasks(10)] == [two]
    within = task_spec.ByEntity(entity=server.find("dc/vm/a"), recursion="all")
    mine = create(task_spec(entity=within))
    mine.RewindCollector()
    assert [info.entity for info in mine.ReadNextTasks(10)] == [one, one]
    assert len(mine.ReadPreviousTasks(1)) == 1


def test_collectors_end_with_their_session(server: t.Any) -> None:
    client = server.connect("admin@lab", "secret")
    made = client.content.eventManager.CreateCollectorForEvents(Spec())
    moid = made._GetMoId()
    client.content.sessionManager.Logout()
    ghost = vim.event.EventHistoryCollector(moid, server.client._stub)
    with pytest.raises(vmodl.fault.ManagedObjectNotFound):
        ghost.ReadNextEvents(1)


def test_a_machines_own_environment_browser_tells_of_its_host(server: t.Any) -> None:
    vm = server.find("dc/vm/two")
    target = vm.environmentBrowser.QueryConfigTarget(None)
    assert target.numCpus == server.find("dc/host/c/h2").hardware.cpuInfo.numCpuThreads
    browser = vm.environmentBrowser
    WaitForTask(vm.Destroy())
    with pytest.raises(vmodl.fault.ManagedObjectNotFound):
        browser.QueryConfigTarget(None)


def test_settings_that_are_true_or_false_say_so_on_the_wire(server: t.Any) -> None:
    """PyVmomi reads an untyped value as text."""
    (option,) = server.client.content.setting.QueryOptions("vgpu.hotmigrate.enabled")
    assert option.value is False
