"""The world: every managed object by its id, and the news about them."""

from __future__ import annotations

import collections
import typing as t

from vsphere_simulator.kernel.authorization import Authorization
from vsphere_simulator.kernel.events import EventLog
from vsphere_simulator.kernel.sessions import SessionTable
from vsphere_simulator.kernel.tasks import TaskControl, TaskTable
from vsphere_simulator.vmomi import Reference, vmodl

if t.TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from vsphere_simulator.kernel.clock import Clock
    from vsphere_simulator.kernel.objects import ManagedObject
    from vsphere_simulator.kernel.sessions import Session

__all__ = ["TaskControl", "World", "WorldListener"]

_O = t.TypeVar("_O", bound="ManagedObject")


class WorldListener(t.Protocol):
    """Who wants to hear of changes (property filters, the state file)."""

    def object_added(self, obj: ManagedObject) -> None:
        """Hear of an object that has just been registered."""

    def object_removed(self, obj: ManagedObject) -> None:
        """Hear of an object that has just been unregistered."""

    def object_changed(self, obj: ManagedObject, paths: tuple[str, ...]) -> None:
        """Hear of new values at property paths; no path means that all may have changed."""


class World:
    """All state of one simulated vCenter. Lives on one event loop, hence has no locks."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.objects: dict[str, ManagedObject] = {}
        self.content: dict[str, ManagedObject] = {}
        """Singletons by their name in ServiceContent, for example `rootFolder`."""
        self.ids: collections.Counter[str] = collections.Counter()
        """Last number given out for each prefix of ids; part of the state."""
        self.listeners: list[WorldListener] = []
        self.authorization = Authorization(self)
        self.sessions = SessionTable(self)
        self.tasks = TaskTable(self)
        self.events = EventLog(self)

    @property
    def root(self) -> ManagedObject:
        """The root folder."""
        return self.content["rootFolder"]

    def next_id(self, prefix: str) -> str:
        """Return an unused id such as `vm-17`."""
        while True:
            self.ids[prefix] += 1
            moid = f"{prefix}-{self.ids[prefix]}"
            if moid not in self.objects:
                return moid

    def add(self, obj: _O) -> _O:
        """Register an object under its id and return it; its id must be free."""
        if obj.moid in self.objects:
            raise ValueError(f"{obj.moid} exists already")
        self.objects[obj.moid] = obj
        for listener in tuple(self.listeners):
            listener.object_added(obj)
        return obj

    def remove(self, obj: ManagedObject) -> None:
        """Unregister an object; references to it answer ManagedObjectNotFound from now on."""
        if self.objects.pop(obj.moid, None) is None:
            return
        obj.on_removed()
        for listener in tuple(self.listeners):
            listener.object_removed(obj)

    def get(self, target: t.Any) -> t.Any:
        """Return the object of an id or a pyVmomi reference; ManagedObjectNotFound if there is none."""
        moid = target if isinstance(target, str) else target._GetMoId()
        found = self.objects.get(moid)
        if found is not None and (isinstance(target, str) or isinstance(found.ref, type(target))):
            return found
        reference = Reference(moid) if isinstance(target, str) else type(target)(moid)
        raise vmodl.fault.ManagedObjectNotFound(
            obj=reference, msg="The object has already been deleted or has not been completely created"
        )

    def changed(self, obj: ManagedObject, *paths: str) -> None:
        """Tell everyone that property paths of an object have new values (none given: perhaps all).

        Domain code calls it after each mutation; it wakes WaitForUpdatesEx and marks the state dirty.
        """
        for listener in tuple(self.listeners):
            listener.object_changed(obj, paths)

    def news_of_history(self) -> None:
        """Tell who watches the event log or a history collector that something has happened."""
        for obj in [
            *self.content.values(),
            *(one for session in self.sessions.all() for one in session.owned.values()),
        ]:
            if "latestPage" in obj.builders:
                self.changed(obj, "latestPage")
            elif "latestEvent" in obj.builders:
                self.changed(obj, "latestEvent")

    def start_task(
        self,
        entity: ManagedObject,
        name: str,
        body: Callable[[TaskControl], Awaitable[t.Any]],
        session: Session | None,
    ) -> t.Any:
        """Start an asynchronous operation and return the reference of its task.

        `name` is the description id, for example `VirtualMachine.clone`. The body's result becomes the
        task's (managed objects as references); a fault it raises becomes the task's error.
        """
        return self.tasks.start(entity, name, body, session).ref
