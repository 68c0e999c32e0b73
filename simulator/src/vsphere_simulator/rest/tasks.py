"""Long-running calls of the REST API: tasks like any other, with a JSON result beside them."""

from __future__ import annotations

import typing as t

from vsphere_simulator.kernel.tasks import Task
from vsphere_simulator.rest.errors import STATUS, ApiError, not_found, of_fault
from vsphere_simulator.rest.operations import Call, operation
from vsphere_simulator.vmomi import vim, vmodl

if t.TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from vsphere_simulator.kernel.objects import ManagedObject
    from vsphere_simulator.kernel.registry import TaskControl

_STATES: t.Final = {"queued": "PENDING", "running": "RUNNING", "success": "SUCCEEDED", "error": "FAILED"}


class RestTask(t.NamedTuple):
    """What the REST API knows of a task besides what every task has."""

    service: str
    operation: str
    result: list[t.Any]
    """Holds the result once there is one."""


def start(call: Call, entity: ManagedObject, name: str, body: Callable[[TaskControl], Awaitable[t.Any]]) -> str:
    """Start a task named `service.operation`; returns its id. What the body returns is the result."""
    service, _, what = name.rpartition(".")
    result: list[t.Any] = []

    async def run(control: TaskControl) -> None:
        try:
            result.append(await body(control))
        except ApiError as problem:
            fault = vim.fault.InvalidState if STATUS[problem.kind] < 500 else vmodl.fault.SystemError
            reason = {"reason": problem.message} if fault is vmodl.fault.SystemError else {}
            raise fault(msg=problem.message, **reason) from problem

    task: Task = call.ctx.world.get(call.ctx.world.start_task(entity, name, run, call.ctx.session))
    task.extra = RestTask(service, what, result)
    return f"{task.moid}:{service}"


def time_of(moment: t.Any) -> str:
    """A moment as the API writes it."""
    return str(moment.isoformat(timespec="milliseconds")).replace("+00:00", "Z")


def _info(task: Task) -> dict[str, t.Any]:
    known: RestTask = task.extra or RestTask("com.vmware.vcenter", task.name, [])
    shown: dict[str, t.Any] = {
        "status": _STATES[task.state],
        "service": known.service,
        "operation": known.operation,
        "description": {"id": task.name, "default_message": task.name, "args": []},
        "cancelable": task.state in ("queued", "running"),
        "user": task.user,
        "target": {"type": type(task.entity.ref)._wsdlName, "id": task.entity.moid},
        "progress": {
            "total": 100,
            "completed": 100 if task.state == "success" else task.percent or 0,
            "message": {"id": "progress", "default_message": task.message, "args": []},
        },
    }
    if task.start_time is not None:
        shown["start_time"] = time_of(task.start_time)
    if task.complete_time is not None:
        shown["end_time"] = time_of(task.complete_time)
    if known.result:
        shown["result"] = known.result[0]
    if task.error is not None:
        shown["error"] = of_fault(task.error).body(old=False)
    return shown


@operation("GET", "/api/cis/tasks/{task}")
def get(call: Call) -> dict[str, t.Any]:
    """One task."""
    task = _task(call)
    _check_privilege(call, task)
    return _info(task)


@operation("GET", "/api/cis/tasks")
def list_tasks(call: Call) -> dict[str, t.Any]:
    """The recent tasks that this API started, or those asked for by `tasks`."""
    wanted = call.query.get("tasks")
    recent = [task for task in call.ctx.world.tasks.recent() if isinstance(task, Task) and task.extra is not None]
    found = {f"{task.moid}:{task.extra.service}": task for task in recent}
    shown = {key: task for key, task in found.items() if wanted is None or key in wanted}
    for task in shown.values():
        _check_privilege(call, task)
    return {key: _info(task) for key, task in shown.items()}


def _check_privilege(call: Call, task: Task) -> None:
    """Raise NoPermission for a task of vLCM that the user may not read.

    vSphere Security, Lifecycle Manager General privileges: Read is required to get task information.
    """
    if task.extra is not None and task.extra.service.startswith("com.vmware.esx.settings"):
        world = call.ctx.world
        world.authorization.require(call.ctx.session, world.root, "VcIntegrity.lifecycleGeneral.Read")


@operation("POST", "/api/cis/tasks/{task}?action=cancel", status=204)
def cancel(call: Call) -> None:
    """Cancel a task."""
    _task(call).cancel(call.ctx)


def _task(call: Call) -> Task:
    found = call.ctx.world.objects.get(call.path["task"].partition(":")[0])
    if not isinstance(found, Task):
        raise not_found("task", call.path["task"])
    return found
