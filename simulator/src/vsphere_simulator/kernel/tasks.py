"""Tasks: operations that run on the simulated clock while clients watch them."""

from __future__ import annotations

import asyncio
import contextvars
import itertools
import logging
import typing as t

from vsphere_simulator.kernel.objects import ManagedEntity, ManagedObject, method, prop
from vsphere_simulator.vmomi import conform, make, vim, vmodl, wsdl_name

if t.TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Awaitable, Callable

    from vsphere_simulator.kernel.objects import Context
    from vsphere_simulator.kernel.registry import World
    from vsphere_simulator.kernel.sessions import Session

log = logging.getLogger(__name__)

RECENT = 10
"""How many finished tasks an entity and the task manager go on listing."""
KEPT = 2000
"""How many finished tasks stay readable after they have left every list."""


class TaskRule(t.Protocol):
    """What a fault rule may ask of the next task that starts."""

    fail_task_at: float | None
    never_returns: bool

    def task_fault(self) -> Exception:
        """Return the fault the task ends with."""


next_task_rule: contextvars.ContextVar[TaskRule | None] = contextvars.ContextVar("next_task_rule", default=None)
"""Set by the dispatcher while a method that a fault rule concerns is running."""


class TaskControl:
    """What the body of a task sees of it."""

    def __init__(self, task: Task, rule: TaskRule | None) -> None:
        self._task = task
        self._rule = rule
        self.never_returns = rule is not None and rule.never_returns
        """A fault rule asks that what is restarted here does not come back."""

    async def sleep(self, simulated_seconds: float) -> None:
        """Wait in simulated seconds; a cancelled task stops waiting at once."""
        await self._task.world.clock.sleep(simulated_seconds)

    def progress(self, percent: int) -> None:
        """Report progress, 0 to 100."""
        rule = self._rule
        if rule is not None and rule.fail_task_at is not None and percent >= rule.fail_task_at:
            raise rule.task_fault()
        self._task.set_progress(percent)

    def say(self, text: str) -> None:
        """Tell what the task is at; only the REST API shows it."""
        self._task.message = text

    def check_cancelled(self) -> None:
        """Raise RequestCanceled when somebody has cancelled the task."""
        if self._task.cancelled:
            raise vmodl.fault.RequestCanceled(msg="The task was canceled by a user.")

    async def work(self, simulated_seconds: float, steps: int = 4) -> None:
        """Spend the time of an ordinary operation, reporting progress after each of its steps."""
        for step in range(1, steps + 1):
            await self.sleep(simulated_seconds / steps)
            self.check_cancelled()
            self.progress(min(95, 100 * step // steps))

    def finish_rule(self) -> None:
        """Apply a rule that fails the task late although its body reported no progress."""
        if self._rule is not None and self._rule.fail_task_at is not None:
            raise self._rule.task_fault()


class Task(ManagedObject):
    """One task: queued, running, then success or error."""

    wsdl = vim.Task
    volatile = True

    def __init__(
        self, world: World, moid: str, number: int, entity: ManagedObject, description_id: str, user: str
    ) -> None:
        super().__init__(world, moid)
        self.entity = entity
        self.parent = entity
        self.name = description_id
        self.number = number
        self.user = user
        self.state = "queued"
        self.percent: int | None = None
        self.message = ""
        self.result: t.Any = None
        self.error: Exception | None = None
        self.cancelled = False
        self.queue_time: dt.datetime = world.clock.now()
        self.start_time: dt.datetime | None = None
        self.complete_time: dt.datetime | None = None
        self.job: asyncio.Task[None] | None = None
        self.extra: t.Any = None
        """What the REST API keeps of a task that it started."""

    @prop("info")
    def _info(self) -> t.Any:
        owner = self.entity
        return make(
            vim.TaskInfo,
            key=self.moid,
            task=self.ref,
            name=_method_of(self.name),
            descriptionId=self.name,
            entity=owner.ref if isinstance(owner, ManagedEntity) else None,
            entityName=owner.name if isinstance(owner, ManagedEntity) else None,
            locked=[],
            state=vim.TaskInfo.State(self.state),
            cancelled=self.cancelled,
            cancelable=self.state in ("queued", "running"),
            error=self.error,
            result=self.result,
            progress=self.percent if self.state == "running" else None,
            reason=make(vim.TaskReasonUser, userName=self.user),
            queueTime=self.queue_time,
            startTime=self.start_time,
            completeTime=self.complete_time,
            eventChainId=self.number,
        )

    @method("CancelTask", privilege="")
    def cancel(self, ctx: Context) -> None:
        """Cancel the task unless it has ended; the same user or a holder of Global.CancelTask may."""
        if ctx.user != self.user:
            ctx.world.authorization.require(ctx.session, self, "Global.CancelTask")
        if self.state not in ("queued", "running"):
            raise vim.fault.InvalidState(msg="The task has completed and cannot be canceled.")
        self.cancelled = True
        self.world.changed(self, "info.cancelled")
        if self.job is not None:
            self.job.cancel()

    @method("UpdateProgress", privilege="Task.Update")
    def update_progress(self, percent_done: int) -> None:
        """Let an extension report progress."""
        if not 0 <= percent_done <= 100:
            raise vmodl.fault.InvalidArgument(invalidProperty="percentDone")
        if self.state != "running":
            raise vim.fault.InvalidState(msg="The task is not running.")
        self.set_progress(percent_done)

    def set_progress(self, percent: int) -> None:
        """Note progress and tell who watches."""
        if self.state == "running" and percent != self.percent:
            self.percent = percent
            self.world.changed(self, "info.progress")

    async def run(self, body: Callable[[TaskControl], Awaitable[t.Any]], rule: TaskRule | None) -> None:
        """Run the body and record how it ended; never raises but for the loop's own end."""
        next_task_rule.set(None)  # a task started by this one is not what the rule is about
        control = TaskControl(self, rule)
        self.state, self.start_time = "running", self.world.clock.now()
        self.world.changed(self, "info.state", "info.startTime")
        try:
            control.check_cancelled()
            result = await body(control)
            control.finish_rule()
        except asyncio.CancelledError:
            if not self.cancelled:
                raise
            self._end("error", error=vmodl.fault.RequestCanceled(msg="The task was canceled by a user."))
        except vmodl.MethodFault as fault:
            self._end("error", error=fault)
        except Exception as problem:  # a bug in one operation must not end the server
            log.exception("task %s (%s on %s) failed inside the simulator", self.moid, self.name, self.entity)
            self._end("error", error=vmodl.fault.SystemError(reason=repr(problem), msg="A general system error"))
        else:
            self._end("success", result=conform(result, object))

    def _end(self, state: str, *, result: t.Any = None, error: Exception | None = None) -> None:
        self.result, self.error, self.state = result, error, state
        self.complete_time = self.world.clock.now()
        paths = ["info.state", "info.completeTime"]
        paths += ["info.result"] if result is not None else []
        paths += ["info.error"] if error is not None else []
        self.world.changed(self, *paths)
        self.world.tasks.ended(self)


class TaskTable:
    """All tasks of a world, and which of them count as recent."""

    def __init__(self, world: World) -> None:
        self.world = world
        self._numbers = itertools.count(1)
        self._recent: dict[str, Task] = {}
        self._finished: dict[str, Task] = {}
        self._of_entity: dict[str, dict[str, Task]] = {}

    def start(
        self,
        entity: ManagedObject,
        name: str,
        body: Callable[[TaskControl], Awaitable[t.Any]],
        session: Session | None,
    ) -> Task:
        """Queue a task on the running event loop."""
        number = next(self._numbers)
        user = session.user if session is not None else ""
        task = self.world.add(Task(self.world, f"task-{number}", number, entity, name, user))
        self._recent[task.moid] = task
        self._of_entity.setdefault(entity.moid, {})[task.moid] = task
        self._announce(entity)
        self.world.events.task_started(task)
        rule = next_task_rule.get()
        task.job = asyncio.get_running_loop().create_task(task.run(body, rule), name=task.moid)
        return task

    def ended(self, task: Task) -> None:
        """Age the lists: what is no longer recent leaves them, and what is old is purged."""
        self._finished[task.moid] = task
        self.world.events.task_ended(task)
        mine = self._of_entity.get(task.entity.moid, {})
        done = [old for old in mine.values() if old.moid in self._finished]
        for old in done[:-RECENT]:
            del mine[old.moid]
        if len(self._finished) >= RECENT and len(self._recent) > RECENT:
            done = [old for old in self._recent.values() if old.moid in self._finished]
            for old in done[:-RECENT]:
                del self._recent[old.moid]
        while len(self._finished) > KEPT:
            old = self._finished.pop(next(iter(self._finished)))
            self._recent.pop(old.moid, None)
            entity_tasks = self._of_entity.get(old.entity.moid, {})
            entity_tasks.pop(old.moid, None)
            if not entity_tasks:
                self._of_entity.pop(old.entity.moid, None)
            self.world.remove(old)
        self._announce(task.entity)

    def all(self) -> list[Task]:
        """Return the tasks that are still readable, oldest first."""
        known = {**self._finished, **self._recent}
        return sorted(known.values(), key=lambda task: task.number)

    def recent(self) -> list[ManagedObject]:
        """Return the tasks the task manager lists, oldest first."""
        return list(self._recent.values())

    def recent_of(self, entity: ManagedObject) -> list[ManagedObject]:
        """Return the recent tasks of one entity, oldest first."""
        return list(self._of_entity.get(entity.moid, {}).values())

    def _announce(self, entity: ManagedObject) -> None:
        if entity.moid in self.world.objects:
            self.world.changed(entity, "recentTask")
        manager = self.world.content.get("taskManager")
        if manager is not None:
            self.world.changed(manager, "recentTask")

    async def shutdown(self) -> None:
        """Abandon what still runs; the world ends with the process."""
        jobs = [task.job for task in self._recent.values() if task.job is not None and not task.job.done()]
        for job in jobs:
            job.cancel()
        await asyncio.gather(*jobs, return_exceptions=True)


def _method_of(description_id: str) -> t.Any:
    """Return the API method of a description id such as `VirtualMachine.clone`, or None."""
    type_name, _, operation = description_id.partition(".")
    try:
        owner = vim.__getattr__(type_name)
        info = owner._GetMethodInfo(operation[:1].upper() + operation[1:])
    except AttributeError:
        return None
    found = getattr(owner, info.wsdlName, None)
    return found if wsdl_name(owner) == type_name else None
