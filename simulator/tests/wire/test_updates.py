"""Property filters: initial state, changes, partial updates, truncation, lost replies, cancelling, load."""

from __future__ import annotations

import concurrent.futures
import threading
import time
import typing as t

import pytest
from pyVim.task import WaitForTask
from pyVmomi import vim, vmodl
from served import Served
from wire_helpers import CLONE, PC, finished, machines, machines_view, object_spec, until, view_spec


def wait(collector: t.Any, version: str, seconds: float = 10, limit: int | None = None) -> t.Any:
    return collector.WaitForUpdatesEx(version, PC.WaitOptions(maxWaitSeconds=seconds, maxObjectUpdates=limit))


def objects_of(update: t.Any) -> t.Any:
    return [one for part in update.filterSet for one in part.objectSet]


def changes_of(update: t.Any) -> t.Any:
    return {
        (one.obj._moId, change.name): change.val
        for one in objects_of(update)
        for change in one.changeSet
        if one.changeSet
    }


@pytest.fixture
def collector(client: t.Any) -> t.Any:
    made = client.content.propertyCollector.CreatePropertyCollector()
    yield made
    made.DestroyPropertyCollector()


def test_the_first_call_reports_the_present_state(client: t.Any, collector: t.Any) -> None:
    collector.CreateFilter(view_spec(machines_view(client), ["name", "config.annotation"]), False)
    update = wait(collector, "")
    assert [one.kind for one in objects_of(update)] == ["enter"] * len(machines(client))
    names = {name for _, name in changes_of(update)}
    assert names == {"name"}  # what is unset is left out
    assert update.truncated is None


def test_without_changes_a_wait_returns_nothing_after_its_time(client: t.Any, collector: t.Any) -> None:
    collector.CreateFilter(object_spec(client.content.rootFolder, ["name"]), False)
    version = wait(collector, "").version
    started = time.monotonic()
    assert wait(collector, version, seconds=1) is None
    assert 0.9 < time.monotonic() - started < 5
    assert wait(collector, version, seconds=0) is None
    assert collector.CheckForUpdates(version) is None


def test_a_change_wakes_a_waiting_client(server: Served, client: t.Any, collector: t.Any) -> None:
    machine = machines(client)[0]
    collector.CreateFilter(object_spec(machine, ["config.hardware.memoryMB", "name"]), False)
    version = wait(collector, "").version
    other = machines(server.connect())[0]
    with concurrent.futures.ThreadPoolExecutor() as pool:
        waiting = pool.submit(wait, collector, version)
        other.ReconfigVM_Task(vim.vm.ConfigSpec(memoryMB=4096))
        update = waiting.result()
    assert [one.kind for one in objects_of(update)] == ["modify"]
    assert changes_of(update) == {(machine._moId, "config.hardware.memoryMB"): 4096}
    finished(other.ReconfigVM_Task(vim.vm.ConfigSpec(memoryMB=1024)))


@pytest.mark.parametrize(("partial", "name"), [(True, "config.hardware.memoryMB"), (False, "config.hardware")])
def test_partial_updates_name_what_changed(client: t.Any, collector: t.Any, partial: bool, name: str) -> None:
    machine = machines(client)[1]
    collector.CreateFilter(object_spec(machine, ["config.hardware"]), partial)
    version = wait(collector, "").version
    machine.ReconfigVM_Task(vim.vm.ConfigSpec(memoryMB=2048 + int(partial)))
    (changed,) = changes_of(wait(collector, version))
    assert changed == (machine._moId, name)


def test_a_property_that_becomes_unset_is_reported_without_value(client: t.Any, collector: t.Any) -> None:
    machine = machines(client)[0]
    finished(machine.ReconfigVM_Task(vim.vm.ConfigSpec(annotation="note")))
    collector.CreateFilter(object_spec(machine, ["config.annotation"]), False)
    first = wait(collector, "")
    assert changes_of(first) == {(machine._moId, "config.annotation"): "note"}
    machine.ReconfigVM_Task(vim.vm.ConfigSpec(annotation=""))
    assert changes_of(wait(collector, first.version)) == {(machine._moId, "config.annotation"): None}


def test_objects_enter_and_leave_a_view_s_filter(client: t.Any, collector: t.Any) -> None:
    folder = machines(client)[0].parent
    collector.CreateFilter(view_spec(machines_view(client), ["name"]), True)
    version = wait(collector, "").version
    clone = finished(machines(client)[0].CloneVM_Task(folder, "guest-new", CLONE)).result
    update = until(lambda: wait(collector, version))
    assert [(one.kind, one.obj) for one in objects_of(update)] == [("enter", clone)]
    assert changes_of(update) == {(clone._moId, "name"): "guest-new"}
    clone.Destroy_Task()
    gone = wait(collector, update.version)
    assert [(one.kind, one.obj._moId) for one in objects_of(gone)] == [("leave", clone._moId)]
    assert wait(collector, gone.version, seconds=0) is None


def test_what_entered_and_left_between_two_calls_is_never_mentioned(client: t.Any, collector: t.Any) -> None:
    folder = machines(client)[0].parent
    collector.CreateFilter(view_spec(machines_view(client), ["name"]), True)
    version = wait(collector, "").version
    clone = finished(machines(client)[0].CloneVM_Task(folder, "short-lived", CLONE)).result
    finished(clone.Destroy_Task())
    update = wait(collector, version, seconds=0)
    assert update is None or clone._moId not in {one.obj._moId for one in objects_of(update)}


@pytest.mark.parametrize("limit", [1, 2])
def test_truncated_updates_add_up(client: t.Any, collector: t.Any, limit: int) -> None:
    everything = {machine._moId for machine in machines(client)}
    collector.CreateFilter(view_spec(machines_view(client), ["name"]), False)
    seen: list[str] = []
    version, truncated = "", True
    while truncated:
        update = wait(collector, version, seconds=0, limit=limit)
        assert len(objects_of(update)) <= limit
        seen += [one.obj._moId for one in objects_of(update)]
        version, truncated = update.version, update.truncated
    assert len(seen) == len(set(seen))
    assert set(seen) == everything
    assert wait(collector, version, seconds=0) is None


def test_asking_again_from_an_older_version_loses_nothing(client: t.Any, collector: t.Any) -> None:
    machine = machines(client)[0]
    collector.CreateFilter(object_spec(machine, ["config.annotation"]), False)
    first = wait(collector, "").version
    finished(machine.ReconfigVM_Task(vim.vm.ConfigSpec(annotation="one")))
    lost = wait(collector, first)
    again = wait(collector, first)
    assert changes_of(again) == changes_of(lost) == {(machine._moId, "config.annotation"): "one"}


@pytest.mark.parametrize("version", ["99999999", "-1", "abc", "1 ", "٣"])
def test_a_version_that_was_never_given_is_a_fault(client: t.Any, collector: t.Any, version: str) -> None:
    collector.CreateFilter(object_spec(client.content.rootFolder, ["name"]), False)
    with pytest.raises(vmodl.query.InvalidCollectorVersion):
        wait(collector, version, seconds=0)


def test_a_filter_can_be_destroyed(client: t.Any, collector: t.Any) -> None:
    made = collector.CreateFilter(object_spec(client.content.rootFolder, ["name"]), False)
    assert list(collector.filter) == [made]
    assert made.partialUpdates is False
    made.DestroyPropertyFilter()
    assert list(collector.filter) == []
    assert wait(collector, "", seconds=0) is None


def test_a_filter_checks_its_paths_and_objects(client: t.Any, collector: t.Any) -> None:
    with pytest.raises(vmodl.query.InvalidProperty):
        collector.CreateFilter(object_spec(client.content.rootFolder, ["nothing"]), False)
    with pytest.raises(vmodl.fault.ManagedObjectNotFound):
        collector.CreateFilter(object_spec(vim.VirtualMachine("vm-999", client._stub), ["name"]), False)
    assert list(collector.filter) == []


@pytest.mark.parametrize("options", [{"maxWaitSeconds": -1}, {"maxObjectUpdates": 0}])
def test_wait_options_are_checked(collector: t.Any, options: dict[str, int]) -> None:
    with pytest.raises(vmodl.fault.InvalidArgument):
        collector.WaitForUpdatesEx("", PC.WaitOptions(**options))


@pytest.mark.parametrize("end", ["CancelWaitForUpdates", "DestroyPropertyCollector"])
def test_a_wait_can_be_cancelled(server: Served, client: t.Any, end: str) -> None:
    collector = client.content.propertyCollector.CreatePropertyCollector()
    collector.CreateFilter(object_spec(client.content.rootFolder, ["name"]), False)
    version = wait(collector, "").version
    before = server.counts()["requests"]["WaitForUpdatesEx"]
    with concurrent.futures.ThreadPoolExecutor() as pool:
        waiting = pool.submit(wait, collector, version, 60)
        until(lambda: server.counts()["requests"]["WaitForUpdatesEx"] > before)
        getattr(collector, end)()
        with pytest.raises(vmodl.fault.RequestCanceled):
            waiting.result()


def test_a_session_that_waits_is_not_idle(start: t.Callable[..., Served]) -> None:
    server = start("--session-timeout", "0.3")
    client = server.connect()
    collector = client.content.propertyCollector
    collector.CreateFilter(object_spec(client.content.rootFolder, ["name"]), False)
    assert wait(collector, wait(collector, "").version, seconds=1) is None
    assert client.CurrentTime() is not None


def test_the_session_s_filters_are_its_own(server: Served, client: t.Any) -> None:
    client.content.propertyCollector.CreateFilter(object_spec(client.content.rootFolder, ["name"]), False)
    other = server.connect()
    assert wait(other.content.propertyCollector, "", seconds=0) is None


def test_waiting_for_tasks_as_pyvmomi_does_from_many_threads(server: Served) -> None:
    client = server.connect()
    found = machines(client)

    def reconfigure(number: int) -> t.Any:
        task = found[number % len(found)].ReconfigVM_Task(vim.vm.ConfigSpec(annotation=str(number)))
        return WaitForTask(task, si=client)

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        assert list(pool.map(reconfigure, range(40))) == ["success"] * 40


def test_no_update_is_lost_under_parallel_writers(start: t.Callable[..., Served]) -> None:
    """Watchers that see the end state of every machine have lost nothing: each value is written once."""
    server = start("--machines", "40", "--time-scale", "200")
    rounds, watchers, writers = 5, 6, 4
    final = {machine._moId: 2000 + rounds for machine in machines(server.connect())}
    failures: list[BaseException] = []

    def watch(partial: bool) -> None:
        try:
            client = server.connect()
            collector = client.content.propertyCollector.CreatePropertyCollector()
            collector.CreateFilter(view_spec(machines_view(client), ["config.hardware.memoryMB"]), partial)
            ready.wait()
            seen: dict[str, int] = {}
            version = ""
            while seen != final:
                update = wait(collector, version, seconds=20, limit=7 if partial else None)
                assert update is not None, f"nothing more came, {len(seen)} of {len(final)} machines seen"
                version = update.version
                for (moid, _), value in changes_of(update).items():
                    assert value >= seen.get(moid, 0), "an older value came later"
                    seen[moid] = value
        except BaseException as problem:
            failures.append(problem)
            raise

    def write(number: int) -> None:
        client = server.connect()
        for memory in range(2001, 2001 + rounds):
            tasks = [vm.ReconfigVM_Task(vim.vm.ConfigSpec(memoryMB=memory)) for vm in machines(client)[number::writers]]
            assert all(finished(task).state == "success" for task in tasks)

    ready = threading.Barrier(watchers + 1)
    threads = [threading.Thread(target=watch, args=(bool(number % 2),)) for number in range(watchers)]
    for thread in threads:
        thread.start()
    ready.wait()
    with concurrent.futures.ThreadPoolExecutor(writers) as pool:
        list(pool.map(write, range(writers)))
    for thread in threads:
        thread.join(30)
    assert not failures
    assert not any(thread.is_alive() for thread in threads)
