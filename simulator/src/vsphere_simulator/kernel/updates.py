"""Property filters: what has changed since a version that a client has seen.

Each change of a watched object takes the next number of its collector's log, and a version is such a
number. The log answers for any version, so that a reply lost on the way, a repeated request or two
waiting threads of one client lose nothing.
"""

from __future__ import annotations

import asyncio
import dataclasses
import typing as t

from vsphere_simulator.encode import Encoded
from vsphere_simulator.kernel.objects import ManagedObject, method, prop
from vsphere_simulator.kernel.paths import overlaps, resolve
from vsphere_simulator.kernel.selection import Plan, ReadProperty, Selection
from vsphere_simulator.vmomi import make, vmodl

if t.TYPE_CHECKING:
    from vsphere_simulator.kernel.property_collector import ObjectWriter
    from vsphere_simulator.kernel.registry import World

_query = vmodl.query.PropertyCollector
_KEPT_LEAVES = 10_000
"""Objects that left a filter which are remembered for clients that lag behind."""


@dataclasses.dataclass(slots=True)
class Member:
    """An object that a filter selects."""

    obj: ManagedObject
    plan: Plan
    entered: int
    changed: dict[str, int] = dataclasses.field(default_factory=dict)
    """Number of the last change, by the path to report."""


@dataclasses.dataclass(slots=True)
class Left:
    """An object that a filter no longer selects."""

    ref: t.Any
    entered: int
    number: int


class _Update(t.NamedTuple):
    number: int
    filter: Filter
    moid: str


class UpdateLog:
    """The numbered changes of one collector's filters."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.number = 0
        self.news = asyncio.Event()
        self.filters: dict[str, Filter] = {}

    def next(self) -> int:
        """Number a change and wake who waits."""
        self.number += 1
        self.news.set()
        return self.number

    def parse(self, version: str | None) -> int:
        """Return the number of a version; InvalidCollectorVersion for one this log never gave."""
        if not version:
            return 0
        if version.isascii() and version.isdigit() and int(version) <= self.number:
            return int(version)
        raise vmodl.query.InvalidCollectorVersion(msg=f"{version!r} is not a version of this collector.")

    async def collect(self, since: int, limit: int | None, writer: ObjectWriter) -> Encoded | None:
        """Write an `UpdateSet` of the first `limit` changes after a number; None if there are none.

        Others have their turn between the parts of a large one. What changes meanwhile has a later number than the
        version of the answer, hence is in the next one too.
        """
        for known in self.filters.values():
            known.refresh()
        found = sorted(
            (update for known in self.filters.values() for update in known.updates_since(since)),
            key=lambda update: update.number,
        )
        if not found:
            return None
        truncated = limit is not None and len(found) > limit
        now = found[:limit] if truncated else found
        version = now[-1].number if truncated else self.number
        by_filter: dict[str, list[_Update]] = {}
        for update in now:
            by_filter.setdefault(update.filter.moid, []).append(update)
        result = Encoded([f"<returnval><version>{version}</version>".encode()])
        for updates in by_filter.values():
            known = updates[0].filter
            result.append(f'<filterSet><filter type="PropertyFilter">{known.moid}</filter>'.encode())
            for start in range(0, len(updates), 200):
                if start:
                    await asyncio.sleep(0)
                chunk = updates[start : start + 200]
                result.append("".join(known.write(update.moid, since, writer) for update in chunk).encode())
            result.append(known.missing(since, writer).encode() + b"</filterSet>")
        result.append(b"<truncated>true</truncated></returnval>" if truncated else b"</returnval>")
        return result


class Filter(ManagedObject):
    """One filter: the objects it selects, and when they changed."""

    wsdl = _query.Filter
    volatile = True

    def __init__(self, world: World, moid: str, updates: UpdateLog, spec: t.Any, partial: bool) -> None:
        super().__init__(world, moid)
        self.spec = spec
        self.partial = partial
        self._log = updates
        self._selection = Selection(world, spec)
        self._members: dict[str, Member] = {}
        self._order: dict[str, int] = {}
        """Number of each object's last change, oldest first."""
        self._left: dict[str, Left] = {}
        self._stale = True
        self._report_names: dict[tuple[type[ManagedObject], tuple[str, ...]], tuple[str, ...]] = {}
        self._watched = {obj.obj._GetMoId() for obj in spec.objectSet}
        self._created = updates.next()
        self._select()
        updates.filters[moid] = self
        world.listeners.append(self)

    @prop("spec")
    def _spec(self) -> t.Any:
        return self.spec

    @prop("partialUpdates")
    def _partial_updates(self) -> bool:
        return self.partial

    @method("DestroyPropertyFilter", privilege="")
    def destroy(self) -> None:
        """Stop watching."""
        self.world.remove(self)

    def on_removed(self) -> None:
        """Stop listening."""
        self._log.filters.pop(self.moid, None)
        self.world.listeners.remove(self)

    def object_added(self, obj: ManagedObject) -> None:
        """Follow an object that was missing when the filter was made."""
        if obj.moid in self._watched:
            self._mark_stale()

    def object_removed(self, obj: ManagedObject) -> None:
        """Report that an object has gone."""
        if obj.moid in self._members:
            self._leave(obj.moid)
        if obj.moid in self._watched:
            self._mark_stale()

    def object_changed(self, obj: ManagedObject, paths: tuple[str, ...]) -> None:
        """Number the change of a watched object; a followed property may change the selection."""
        member = self._members.get(obj.moid)
        if member is not None:
            names = self._names(member, paths)
            if names:
                number = self._log.next()
                member.changed.update(dict.fromkeys(names, number))
                self._order.pop(obj.moid, None)
                self._order[obj.moid] = number
        followed = self._selection.followed
        if followed and (not paths or any(path.partition(".")[0] in followed for path in paths)):
            self._mark_stale()

    def _mark_stale(self) -> None:
        self._stale = True
        self._log.news.set()

    def _names(self, member: Member, paths: tuple[str, ...]) -> tuple[str, ...]:
        """Return the paths to report for a change: the changed ones where partial updates are wanted."""
        key = (type(member.obj), paths)
        found = self._report_names.get(key)
        if found is None:
            names: dict[str, None] = {}
            for read in member.plan.reads:
                if not paths:
                    names[read.path] = None
                for path in paths:
                    if overlaps(path, read.path):
                        names[path if self.partial and len(path) > len(read.path) else read.path] = None
            found = self._report_names[key] = tuple(names)
        return found

    def refresh(self) -> None:
        """Select afresh if the selection may have changed."""
        if self._stale:
            self._select()

    def _select(self) -> None:
        self._stale = False
        try:
            selected = {obj.moid: obj for obj in self._selection.objects()}
        except vmodl.fault.ManagedObjectNotFound:
            if self.moid not in self._log.filters:
                raise
            selected = {}
        for moid in [moid for moid in self._members if moid not in selected]:
            self._leave(moid)
        for moid, obj in selected.items():
            plan = self._selection.plan(type(obj))
            if moid not in self._members and plan is not None:
                number = self._log.next()
                self._members[moid] = Member(obj, plan, number)
                self._left.pop(moid, None)
                self._order[moid] = number

    def _leave(self, moid: str) -> None:
        member = self._members.pop(moid)
        self._order.pop(moid, None)
        self._left[moid] = Left(member.obj.ref, member.entered, self._log.next())
        if len(self._left) > _KEPT_LEAVES:
            del self._left[next(iter(self._left))]

    def updates_since(self, since: int) -> list[_Update]:
        """Return the objects to report to a client that has seen everything up to a number."""
        found = []
        for moid in reversed(self._order):
            number = self._order[moid]
            if number <= since:
                break
            found.append(_Update(number, self, moid))
        found.extend(
            _Update(left.number, self, moid)
            for moid, left in self._left.items()
            if left.number > since and left.entered <= since
        )
        return found

    def write(self, moid: str, since: int, writer: ObjectWriter) -> str:
        """Return the `ObjectUpdate` element of one object."""
        left = self._left.get(moid)
        if left is not None:
            if left.entered > since:  # came and went while this answer was being written
                return ""
            return f'<objectSet><kind>leave</kind><obj type="{left.ref._wsdlName}">{moid}</obj></objectSet>'
        member = self._members.get(moid)
        if member is None:
            return ""
        obj = member.obj
        if member.entered > since:
            kind, changes = "enter", [self._change(obj, read, writer, entering=True) for read in member.plan.reads]
        else:
            kind = "modify"
            names = [name for name, number in member.changed.items() if number > since]
            covered = [name for name in names if any(name != other and name.startswith(f"{other}.") for other in names)]
            reads = {read.path: read for read in member.plan.reads}
            changes = [
                self._change(obj, reads.get(name) or self._nested(member, name), writer, entering=False)
                for name in names
                if name not in covered
            ]
        body = "".join(sorted(changes, key=lambda element: element.startswith("<missingSet")))
        return f'<objectSet><kind>{kind}</kind><obj type="{obj.ref._wsdlName}">{moid}</obj>{body}</objectSet>'

    def _nested(self, member: Member, path: str) -> ReadProperty:
        """Return how to read a path below one that the filter asks for."""
        above = next(read for read in member.plan.reads if overlaps(path, read.path))
        return ReadProperty(path, resolve(type(member.obj), path), above.privilege)

    def _change(self, obj: ManagedObject, read: ReadProperty, writer: ObjectWriter, *, entering: bool) -> str:
        """Return a `changeSet` element; a property that is unset is reported only when it has become so."""
        fault = writer.fault_for(obj, read.privilege)
        if fault is not None:
            entry = make(_query.MissingProperty, path=read.path, fault=fault)
            return writer.encoder.element("missingSet", entry, _query.MissingProperty)
        value = read.get(obj)
        if value is None and entering:
            return ""
        element = writer.encoder.element("val", value, object)
        return f"<changeSet><name>{read.path}</name><op>assign</op>{element}</changeSet>"

    def missing(self, since: int, writer: ObjectWriter) -> str:
        """Return `missingSet` elements for starts that do not exist, once."""
        if since >= self._created or not self._selection.report_missing:
            return ""
        faults = [
            make(_query.MissingObject, obj=ref, fault=vmodl.fault.ManagedObjectNotFound(obj=ref))
            for ref in self._selection.missing()
        ]
        return "".join(writer.encoder.element("missingSet", fault, _query.MissingObject) for fault in faults)
