# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Writes to many objects at once: calls started concurrently, their tasks awaited with one filter."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import time
import typing as t

from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.client import Client
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.collector import moid, watch
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.errors import (
    ConnectionLostError,
    GpuOpsError,
    InterruptedRunError,
    OperationTimeoutError,
    from_fault,
)
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.pyvmomi import vim, vmodl

_TASK_PATHS = ("info.state", "info.progress", "info.error", "info.result")

Progress = t.Callable[[str, int], None]
"""Called with an object's name and the percentage its task has reached."""


@dataclasses.dataclass(frozen=True, slots=True)
class Bounds:
    """How long and how broad."""

    deadline: float
    """In terms of `time.monotonic()`."""
    max_parallel: int

    @classmethod
    def of(cls, params: t.Mapping[str, t.Any]) -> Bounds:
        """From the options `timeout` and `max_parallel`, counted from now."""
        return cls(time.monotonic() + params["timeout"], params["max_parallel"])

    @property
    def left(self) -> float:
        """Seconds until the deadline, never negative."""
        return max(0.0, self.deadline - time.monotonic())

    def whole_seconds(self, *, margin: int = 0) -> int:
        """The time left less a margin, for vSphere's own timeouts: at least 1, as 0 means no limit to them."""
        return max(1, int(self.left) - margin)


@dataclasses.dataclass(frozen=True, slots=True)
class TaskOutcome:
    """How the operation on one object ended."""

    result: t.Any = None
    """What the call or task returned, for example the reference of a cloned machine."""
    error: GpuOpsError | None = None
    begun: bool = False
    """Failed after the vCenter may have begun it: how it ends, or has ended, is unknown."""
    seconds: float | None = None
    """From the request until its task was seen to have succeeded."""

    @property
    def ok(self) -> bool:
        """Whether it succeeded."""
        return self.error is None


# Codes of failures after which the vCenter may still carry on with what was begun.
_UNFINISHED = ("timeout", "interrupted", "connection_lost", "connection_failed")


def may_go_on(outcome: TaskOutcome) -> bool:
    """Whether an operation that has failed here may yet succeed there; with a fault the vCenter itself has ended it."""
    return outcome.error is not None and outcome.error.code in _UNFINISHED and outcome.error.fault is None


def run_calls(
    client: Client, calls: t.Mapping[str, t.Callable[[], t.Any]], *, max_parallel: int, doing: str = ""
) -> dict[str, TaskOutcome]:
    """Make one vSphere call for each named object, `max_parallel` at a time; never raises for one object.

    `doing` says in messages what was asked of the object, for example `write the intent`.
    """
    if client.interrupted or not calls:
        return {name: TaskOutcome(error=_interrupted(name, doing)) for name in calls}
    outcomes: dict[str, TaskOutcome] = {}
    futures: dict[concurrent.futures.Future[TaskOutcome], str] = {}
    with concurrent.futures.ThreadPoolExecutor(max_workers=max(1, min(max_parallel, len(calls)))) as pool:
        try:
            for name, call in calls.items():
                futures[pool.submit(_call, client, name, call, doing)] = name
            for future, name in futures.items():
                outcomes[name] = future.result()
        except KeyboardInterrupt:
            client.interrupted = True
            pool.shutdown(wait=True, cancel_futures=True)
    for future, name in futures.items():
        if name not in outcomes:
            outcomes[name] = TaskOutcome(error=_interrupted(name, doing)) if future.cancelled() else future.result()
    return {name: outcomes.get(name) or TaskOutcome(error=_interrupted(name, doing)) for name in calls}


def run_tasks(
    client: Client,
    starters: t.Mapping[str, t.Callable[[], t.Any]],
    *,
    timeout: float,
    max_parallel: int,
    doing: str = "",
    on_progress: Progress | None = None,
) -> dict[str, TaskOutcome]:
    """Start one vSphere task for each named object and wait for all of them; never raises for one object.

    `timeout` is in seconds, counted from the call. A task that is not over by then, or when the run is
    interrupted, goes on in the vCenter and its outcome says so.
    """
    asked = time.monotonic()
    deadline = asked + timeout
    for name in starters:
        client.progress.tell(name, doing)
    outcomes = run_calls(client, starters, max_parallel=max_parallel, doing=doing)
    tasks = {str(moid(outcome.result)): name for name, outcome in outcomes.items() if outcome.ok}
    refs = [outcome.result for outcome in outcomes.values() if outcome.ok]

    ended: set[str] = set()

    def observe(task: str, values: dict[str, t.Any]) -> bool:
        name = tasks[task]
        outcome = _outcome(client, name, values, doing)
        if outcome is not None:
            ended.add(task)
            outcomes[name] = dataclasses.replace(outcome, seconds=time.monotonic() - asked) if outcome.ok else outcome
            client.progress.tell(name, doing, ended=True)
            return True
        if values.get("info.progress") is not None:
            client.progress.tell(name, doing, values["info.progress"])
        if on_progress is not None and values.get("info.progress") is not None:
            on_progress(name, values["info.progress"])
        return outcome is not None

    left: t.Collection[str] = tasks
    error: t.Callable[[str, str], GpuOpsError] = _interrupted
    try:
        if not client.interrupted:
            left = watch(client, refs, vim.Task, _TASK_PATHS, observe, timeout=deadline - time.monotonic())
            error = _timed_out(timeout)
    except KeyboardInterrupt:
        client.interrupted = True
    except GpuOpsError as lost:
        error = _lost(lost)
    for name, outcome in outcomes.items():
        if not outcome.ok:
            client.progress.tell(name, doing, ended=True)
    for task in left:
        if task not in ended:
            outcomes[tasks[task]] = TaskOutcome(error=error(tasks[task], doing), begun=True)
    return outcomes


def _call(client: Client, name: str, call: t.Callable[[], t.Any], doing: str) -> TaskOutcome:
    if client.interrupted:
        return TaskOutcome(error=_interrupted(name, doing))
    try:
        return TaskOutcome(result=call())
    except vmodl.MethodFault as fault:
        return TaskOutcome(error=from_fault(fault, object=name, doing=doing, names=client.names))
    except GpuOpsError as error:
        return TaskOutcome(error=error, begun=isinstance(error, ConnectionLostError))


def _outcome(client: Client, name: str, values: t.Mapping[str, t.Any], doing: str) -> TaskOutcome | None:
    """The end of a task from what is known of it, None while it goes on."""
    state = str(values.get("info.state", ""))
    if state == "success":
        return TaskOutcome(result=values.get("info.result"))
    if state == "error":
        return TaskOutcome(error=from_fault(values["info.error"], object=name, doing=doing, names=client.names))
    if values.get("gone"):
        return TaskOutcome(
            error=GpuOpsError(
                f"{name}: the vCenter no longer knows how its task ended. Run again.", code="task_gone", object=name
            ),
            begun=True,
        )
    return None


def _timed_out(timeout: float) -> t.Callable[[str, str], GpuOpsError]:
    def error(name: str, doing: str) -> GpuOpsError:
        return OperationTimeoutError(
            f"{name}: the task to {doing or 'change it'} is not over after {timeout:.0f} s and goes on in the vCenter. "
            "See its recent tasks for the cause; then run again, with a larger timeout if it was only slow.",
            object=name,
        )

    return error


def _interrupted(name: str, doing: str) -> GpuOpsError:
    return InterruptedRunError(
        f"{name}: interrupted while asking to {doing or 'change it'}. What was begun goes on there; run again.",
        object=name,
    )


def _lost(error: GpuOpsError) -> t.Callable[[str, str], GpuOpsError]:
    def build(name: str, doing: str) -> GpuOpsError:
        return GpuOpsError(
            f"{name}: lost sight of the task to {doing or 'change it'}, which goes on in the vCenter. {error.msg}",
            code=error.code,
            object=name,
            fault=error.fault,
        )

    return build
