"""Tasks: their life, their errors, cancelling, what is recent and what is purged; faults on demand."""

from __future__ import annotations

import contextlib
import pathlib
import time
import typing as t

import pytest
from pyVim.task import WaitForTask
from pyVmomi import vim, vmodl
from served import Served
from wire_helpers import CLONE, as_dict, finished, machines, object_spec, read, until

RULES = """
- {method: PowerOnVM_Task, object: vm-00001, nth: 2, fault: {type: vim.fault.InvalidState, message: not today}}
- {method: PowerOnVM_Task, object: "*-00002", fail_task_at: 60}
- {method: ReconfigVM_Task, object: "vm-0000[12]", nth: 1, delay_s: 0.4}
- {method: ReconfigVM_Task, object: vm-00003, nth: 1, drop_connection: true}
- {method: ReconfigVM_Task, object: vm-00003, nth: 3, lose_answer: true}
- {method: ReconfigVM_Task, object: vm-00003, nth: 4, answer_after_s: 0.4}
- method: CloneVM_Task
  object: "gpu-*"
  fail_task_at: 50
  fault: {type: vim.fault.NoDiskSpace, fields: {datastore: shared}}
"""


def test_a_task_runs_from_queued_to_success(start: t.Callable[..., Served]) -> None:
    client = start("--time-scale", "5").connect()
    machine = machines(client)[0]
    task = machine.PowerOnVM_Task()
    seen = set()
    while (info := task.info).state != "success":
        seen.add((info.state, info.progress))
    assert {state for state, _ in seen} <= {"queued", "running"}
    assert {25, 50} & {progress for _, progress in seen}
    assert (info.descriptionId, info.entityName, info.entity) == ("VirtualMachine.powerOn", machine.name, machine)
    assert info.queueTime <= info.startTime < info.completeTime
    assert 4.9 < (info.completeTime - info.startTime).total_seconds() < 8
    assert info.reason.userName == "admin@lab"
    assert info.progress is None
    assert list(machine.recentTask) == [task]


def test_the_result_of_a_task_is_a_reference(client: t.Any) -> None:
    first = machines(client)[0]
    info = finished(first.CloneVM_Task(first.parent, "clone", CLONE))
    assert isinstance(info.result, vim.VirtualMachine)
    assert info.result.name == "clone"


def test_a_fault_becomes_the_task_s_error(client: t.Any) -> None:
    machine = machines(client)[2]
    assert finished(machine.PowerOnVM_Task()).state == "success"
    info = finished(machine.PowerOnVM_Task())
    assert info.state == "error"
    assert isinstance(info.error, vim.fault.InvalidPowerState)
    assert (info.error.existingState, info.error.msg) == ("poweredOn", "It is on already.")
    with pytest.raises(vim.fault.InvalidPowerState):
        WaitForTask(machine.PowerOnVM_Task())


def test_cancelling(start: t.Callable[..., Served]) -> None:
    server = start("--time-scale", "1")
    client = server.connect()
    task = machines(client)[0].PowerOnVM_Task()
    until(lambda: task.info.state == "running")
    switcher = server.connect("switcher@lab", "switching")
    with pytest.raises(vim.fault.NoPermission) as caught:
        vim.Task(task._moId, switcher._stub).CancelTask()
    assert caught.value.privilegeId == "Global.CancelTask"
    task.CancelTask()
    info = finished(task)
    assert (info.state, info.cancelled, type(info.error)) == ("error", True, vmodl.fault.RequestCanceled)
    assert machines(client)[0].runtime.powerState == "poweredOff"
    with pytest.raises(vim.fault.InvalidState):
        task.CancelTask()


def test_old_tasks_leave_the_lists_and_stay_readable(client: t.Any) -> None:
    machine = machines(client)[1]
    tasks = [machine.ReconfigVM_Task(vim.vm.ConfigSpec(annotation=str(number))) for number in range(15)]
    for task in tasks:
        assert finished(task).state == "success"
    recent = list(machine.recentTask)
    assert len(recent) <= 10
    assert set(map(str, recent)) <= set(map(str, machine.recentTask))
    assert len(client.content.taskManager.recentTask) <= 10
    assert tasks[0].info.state == "success"


def test_many_tasks_at_once(start: t.Callable[..., Served]) -> None:
    client = start("--machines", "50", "--time-scale", "10").connect()
    started = time.monotonic()
    tasks = [machine.PowerOnVM_Task() for machine in machines(client)]
    assert {finished(task).state for task in tasks} == {"success"}
    assert time.monotonic() - started < 15  # one after the other they would need 25 s


@pytest.fixture
def faulty(start: t.Callable[..., Served], tmp_path: pathlib.Path) -> t.Any:
    (tmp_path / "faults.yml").write_text(RULES)
    return start("--faults", str(tmp_path / "faults.yml"))


def test_a_rule_answers_a_fault_at_the_nth_call(faulty: Served) -> None:
    machine = machines(faulty.connect())[0]
    assert finished(machine.PowerOnVM_Task()).state == "success"
    with pytest.raises(vim.fault.InvalidState, match="not today"):
        machine.PowerOnVM_Task()
    assert isinstance(finished(machine.PowerOnVM_Task()).error, vim.fault.InvalidPowerState)


def test_a_rule_fails_a_task_on_its_way(faulty: Served) -> None:
    machine = machines(faulty.connect())[1]
    info = finished(machine.PowerOnVM_Task())
    assert isinstance(info.error, vmodl.fault.SystemError)
    assert machine.runtime.powerState == "poweredOff"


def test_a_rule_knows_a_clone_by_its_new_name(faulty: Served) -> None:
    first = machines(faulty.connect())[0]
    info = finished(first.CloneVM_Task(first.parent, "gpu-1", CLONE))
    assert (type(info.error), info.error.datastore) == (vim.fault.NoDiskSpace, "shared")
    assert finished(first.CloneVM_Task(first.parent, "other", CLONE)).state == "success"


def test_a_rule_delays_one_call(faulty: Served) -> None:
    machine = machines(faulty.connect())[0]
    times = []
    for _ in range(2):
        started = time.monotonic()
        machine.ReconfigVM_Task(vim.vm.ConfigSpec())
        times.append(time.monotonic() - started)
    assert times[0] >= 0.4 > times[1]


def annotation(client: t.Any, machine: t.Any) -> t.Any:
    return as_dict(read(client, object_spec(machine, ["config.annotation"]))[0]).get("config.annotation")


def test_a_rule_drops_a_connection_and_the_server_goes_on(faulty: Served) -> None:
    client = faulty.connect()
    machine = machines(client)[2]
    with pytest.raises(ConnectionError):
        machine.ReconfigVM_Task(vim.vm.ConfigSpec(annotation="lost"))
    assert annotation(client, machine) is None
    assert finished(machine.ReconfigVM_Task(vim.vm.ConfigSpec(annotation="kept"))).state == "success"


def test_rules_lose_and_delay_the_answer_to_what_was_done(faulty: Served) -> None:
    client = faulty.connect()
    machine = machines(client)[2]
    for number in range(2):  # the first is dropped, the second is ordinary
        with contextlib.suppress(ConnectionError):
            finished(machine.ReconfigVM_Task(vim.vm.ConfigSpec(annotation=f"ordinary {number}")))
    with pytest.raises(ConnectionError):
        machine.ReconfigVM_Task(vim.vm.ConfigSpec(annotation="done, and nobody was told"))
    until(lambda: annotation(client, machine) == "done, and nobody was told")
    started = time.monotonic()
    task = machine.ReconfigVM_Task(vim.vm.ConfigSpec(annotation="late"))
    assert time.monotonic() - started >= 0.4
    assert finished(task).state == "success"
