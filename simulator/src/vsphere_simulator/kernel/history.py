"""Event manager, and the collectors through which clients page in events and tasks."""

from __future__ import annotations

import abc
import typing as t

from vsphere_simulator.kernel.events import category_of, described, within
from vsphere_simulator.kernel.objects import ManagedEntity, ManagedObject, method, prop
from vsphere_simulator.kernel.views import session_moid
from vsphere_simulator.vmomi import make, vim, vmodl, wsdl_name

if t.TYPE_CHECKING:
    from vsphere_simulator.kernel.events import Recorded
    from vsphere_simulator.kernel.objects import Context
    from vsphere_simulator.kernel.registry import World
    from vsphere_simulator.kernel.sessions import Session
    from vsphere_simulator.kernel.tasks import Task

MAX_PAGE: t.Final = 1000
"""Most items that a vCenter returns at once."""
_DEFAULT_PAGE: t.Final = 10


class HistoryCollector(ManagedObject, abc.ABC):
    """What is common to the collectors of events and of tasks: a filter and a position in time.

    Items are numbered as they happen; the position is the number of the item that would be read next.
    """

    wsdl = vim.HistoryCollector
    volatile = True

    def __init__(self, world: World, session: Session | None, kind: str, spec: t.Any) -> None:
        super().__init__(world, session_moid(session, kind))
        self.session = session
        self.spec = spec
        self.page = _DEFAULT_PAGE
        self.position = 0
        if session is not None:
            session.owned[self.moid] = self
        self.reset()

    @abc.abstractmethod
    def items(self) -> list[tuple[int, t.Any]]:
        """All matching items with their numbers, oldest first."""

    def latest(self) -> list[t.Any]:
        """The newest page, newest first."""
        return [value for _, value in reversed(self.items()[-self.page :])]

    def forward(self, count: int) -> list[t.Any]:
        """Read towards the present."""
        found = [item for item in self.items() if item[0] >= self.position][: _checked(count)]
        if found:
            self.position = found[-1][0] + 1
        return [value for _, value in found]

    def backward(self, count: int) -> list[t.Any]:
        """Read towards the past, newest first."""
        found = [item for item in self.items() if item[0] < self.position][-_checked(count) :]
        if found:
            self.position = found[0][0]
        return [value for _, value in reversed(found)]

    @prop("filter")
    def _filter(self) -> t.Any:
        return self.spec

    @method("SetCollectorPageSize", privilege="")
    def set_page_size(self, max_count: int) -> None:
        """Say how much the latest page holds."""
        self.page = _checked(max_count)
        self.reset()
        self.world.changed(self, "latestPage")

    @method("RewindCollector", privilege="")
    def rewind(self) -> None:
        """Go to the oldest item."""
        self.position = 0

    @method("ResetCollector", privilege="")
    def reset(self) -> None:
        """Go to just before the latest page."""
        page = self.items()[-self.page :]
        self.position = page[0][0] if page else 0

    @method("DestroyCollector", privilege="")
    def destroy(self) -> None:
        """Forget the collector."""
        self.world.remove(self)

    def on_removed(self) -> None:
        """Take the collector off its session."""
        if self.session is not None:
            self.session.owned.pop(self.moid, None)


def _checked(count: int) -> int:
    if not 1 <= count <= MAX_PAGE:
        raise vmodl.fault.InvalidArgument(invalidProperty="maxCount", msg=f"maxCount is 1 to {MAX_PAGE}, not {count}.")
    return count


def _in_scope(wanted: t.Any, about: str, scope: tuple[str, ...], parent: str) -> bool:
    """Whether something about an object is what a filter by entity asks for."""
    if wanted is None:
        return True
    moid = wanted.entity._GetMoId()
    places = {"self": (about,), "children": (about, parent)}.get(str(wanted.recursion), scope)
    return moid in places


class EventHistoryCollector(HistoryCollector):
    """A client's view of the event log."""

    wsdl = vim.event.EventHistoryCollector

    def items(self) -> list[tuple[int, t.Any]]:
        """The events that match."""
        return [(one.number, one.event) for one in matching(self.world, self.spec)]

    @prop("latestPage")
    def _latest_page(self) -> list[t.Any]:
        return self.latest()

    @prop("initialized")
    def _initialized(self) -> bool:
        return True

    @method("ReadNextEvents", privilege="")
    def next_events(self, max_count: int) -> list[t.Any]:
        """Read newer events."""
        return self.forward(max_count)

    @method("ReadPreviousEvents", privilege="")
    def previous_events(self, max_count: int) -> list[t.Any]:
        """Read older events."""
        return self.backward(max_count)


def matching(world: World, spec: t.Any) -> list[Recorded]:
    """The events that a filter spec selects, oldest first. NotSupported for a part of it that is not there."""
    for name in ("alarm", "scheduledTask"):
        if getattr(spec, name) is not None:
            raise vmodl.fault.NotSupported(msg=f"The simulator does not filter events by {name}.")
    root = world.root.moid
    whole = spec.entity is not None and spec.entity.entity._GetMoId() == root and str(spec.entity.recursion) == "all"
    users = set(spec.userName.userList) if spec.userName is not None else None
    types = tuple(spec.type)
    ids = {name.rpartition(".")[2] for name in spec.eventTypeId}
    found = []
    for one in world.events.recorded:
        event = one.event
        parent = one.scope[1] if len(one.scope) > 1 else ""
        keep = (
            (whole or _in_scope(spec.entity, one.about, one.scope, parent))
            and (spec.time is None or within(event.createdTime, spec.time.beginTime, spec.time.endTime))
            and (users is None or event.userName in users or (spec.userName.systemUser and not event.userName))
            and (spec.eventChainId is None or event.chainId == spec.eventChainId)
            and (not types or isinstance(event, types))
            and (not ids or wsdl_name(type(event)) in ids)
            and (not spec.category or category_of(event) in spec.category)
        )
        if keep:
            found.append(one)
    return found if spec.maxCount is None else found[-max(0, spec.maxCount) :]


class EventManager(ManagedObject):
    """The event log's door."""

    wsdl = vim.event.EventManager
    volatile = True

    @prop("latestEvent")
    def _latest(self) -> t.Any:
        recorded = self.world.events.recorded
        return recorded[-1].event if recorded else None

    @prop("maxCollector")
    def _max_collector(self) -> int:
        return 1000

    @prop("description")
    def _description(self) -> t.Any:
        categories = [
            make(vim.ElementDescription, key=key, label=key.capitalize(), summary=key)
            for key in ("info", "warning", "error", "user")
        ]
        return make(vim.event.EventDescription, category=categories, eventInfo=described())

    @method("CreateCollectorForEvents")
    def create_collector(self, ctx: Context, filter: t.Any) -> ManagedObject:
        """Make a collector."""
        made = EventHistoryCollector(self.world, ctx.session, "event-collector", filter)
        return self.world.add(made)

    @method("QueryEvents")
    def query(self, filter: t.Any) -> list[t.Any]:
        """The newest events that match, oldest first."""
        return [one.event for one in matching(self.world, filter)[-MAX_PAGE:]]

    @method("LogUserEvent", privilege="Global.LogEvent")
    def log(self, ctx: Context, entity: ManagedEntity, msg: str) -> None:
        """Record a text about an entity."""
        text = f"User logged event: {msg}"
        self.world.events.post(vim.event.GeneralUserEvent, text, user=ctx.user, entity=entity, message=msg)


class TaskHistoryCollector(HistoryCollector):
    """A client's view of the tasks there have been."""

    wsdl = vim.TaskHistoryCollector

    def items(self) -> list[tuple[int, t.Any]]:
        """The tasks that match."""
        return [(task.number, task._info()) for task in self.world.tasks.all() if self._matches(task)]

    def _matches(self, task: Task) -> bool:
        spec = self.spec
        for name in ("alarm", "scheduledTask"):
            if getattr(spec, name) is not None:
                raise vmodl.fault.NotSupported(msg=f"The simulator does not filter tasks by {name}.")
        entity: t.Any = task.entity
        above: list[str] = [entity.moid]
        while entity.parent is not None:
            entity = entity.parent
            above.append(entity.moid)
        moments = {
            "queuedTime": task.queue_time,
            "startedTime": task.start_time,
            "completedTime": task.complete_time,
        }
        return (
            _in_scope(spec.entity, above[0], tuple(above), above[1] if len(above) > 1 else "")
            and (not spec.state or task.state in spec.state)
            and (spec.userName is None or task.user in spec.userName.userList)
            and (not spec.eventChainId or task.number in spec.eventChainId)
            and not (spec.activationId or spec.tag or spec.parentTaskKey or spec.rootTaskKey)
            and (spec.time is None or within(moments[str(spec.time.timeType)], spec.time.beginTime, spec.time.endTime))
        )

    @prop("latestPage")
    def _latest_page(self) -> list[t.Any]:
        return self.latest()

    @method("ReadNextTasks", privilege="")
    def next_tasks(self, max_count: int) -> list[t.Any]:
        """Read newer tasks."""
        return self.forward(max_count)

    @method("ReadPreviousTasks", privilege="")
    def previous_tasks(self, max_count: int) -> list[t.Any]:
        """Read older tasks."""
        return self.backward(max_count)
