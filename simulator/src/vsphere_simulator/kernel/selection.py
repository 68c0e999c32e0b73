"""Which objects a property filter is about: object specs, traversals, named selections."""

from __future__ import annotations

import dataclasses
import typing as t

from vsphere_simulator.kernel.paths import invalid_property, property_names, resolve
from vsphere_simulator.vmomi import Reference, vim, vmodl

if t.TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from vsphere_simulator.kernel.objects import ManagedObject
    from vsphere_simulator.kernel.registry import World

_TraversalSpec = vmodl.query.PropertyCollector.TraversalSpec


@dataclasses.dataclass(frozen=True, slots=True)
class ReadProperty:
    """One property to report of objects of one class."""

    path: str
    get: Callable[[ManagedObject], t.Any]
    privilege: str


class Plan:
    """What to read of the objects of one class, found once for each filter."""

    def __init__(self, cls: type[ManagedObject], paths: list[str]) -> None:
        self.reads = [ReadProperty(path, resolve(cls, path), privilege_of(cls, path)) for path in paths]


class Selection:
    """One filter spec, checked: iterates over its objects, says what to read of each."""

    def __init__(self, world: World, spec: t.Any) -> None:
        self.world = world
        self.spec = spec
        self.report_missing = bool(spec.reportMissingObjectsInResults)
        self._plans: dict[type[ManagedObject], Plan | None] = {}
        self._named: list[dict[str, t.Any]] = []
        self.followed: set[str] = set()
        """Property names that traversals follow: a change of one may change the selection."""
        for object_spec in spec.objectSet:
            named: dict[str, t.Any] = {}
            self._collect(object_spec.selectSet, named)
            self._named.append(named)
        for property_spec in spec.propSet:
            known = property_names(property_spec.type)
            for path in property_spec.pathSet:
                if path.partition(".")[0].partition("[")[0] not in known:
                    raise invalid_property(path)

    def _collect(self, specs: list[t.Any], named: dict[str, t.Any]) -> None:
        pending = list(specs)
        while pending:
            spec = pending.pop()
            if isinstance(spec, _TraversalSpec):
                self.followed.add(spec.path.partition(".")[0])
                if spec.path.partition(".")[0] not in property_names(spec.type):
                    raise invalid_property(spec.path)
                if spec.name:
                    named.setdefault(spec.name, spec)
                pending.extend(spec.selectSet)

    def plan(self, cls: type[ManagedObject]) -> Plan | None:
        """Return what to read of objects of a class; None when no property spec is about it."""
        if cls not in self._plans:
            matching = [spec for spec in self.spec.propSet if issubclass(cls.wsdl, spec.type)]
            paths: dict[str, None] = {}
            for spec in matching:
                paths.update(dict.fromkeys(property_names(cls.wsdl) if spec.all else spec.pathSet))
            self._plans[cls] = Plan(cls, list(paths)) if matching else None
        return self._plans[cls]

    def missing(self) -> list[t.Any]:
        """Return the references of object specs that do not exist."""
        return [spec.obj for spec in self.spec.objectSet if spec.obj._GetMoId() not in self.world.objects]

    def objects(self) -> Iterator[ManagedObject]:
        """Yield each selected object once; ManagedObjectNotFound for a start that does not exist."""
        seen: set[str] = set()
        for object_spec, named in zip(self.spec.objectSet, self._named, strict=True):
            if self.report_missing and object_spec.obj._GetMoId() not in self.world.objects:
                continue
            start = self.world.get(object_spec.obj)
            for obj in self._walk(start, bool(object_spec.skip), object_spec.selectSet, named):
                if obj.moid not in seen and self.plan(type(obj)) is not None:
                    seen.add(obj.moid)
                    yield obj

    def _walk(
        self, start: ManagedObject, skip: bool, specs: list[t.Any], named: dict[str, t.Any]
    ) -> Iterator[ManagedObject]:
        if not skip:
            yield start
        visited: set[tuple[str, int]] = set()
        pending: list[tuple[ManagedObject, t.Any]] = [(start, spec) for spec in reversed(specs)]
        while pending:
            obj, spec = pending.pop()
            traversal = spec if isinstance(spec, _TraversalSpec) else named.get(spec.name)
            if traversal is None:
                raise vmodl.fault.InvalidArgument(
                    invalidProperty="selectSet", msg=f"No traversal is named {spec.name!r}."
                )
            if (obj.moid, id(traversal)) in visited or not issubclass(obj.wsdl, traversal.type):
                continue
            visited.add((obj.moid, id(traversal)))
            found = self._follow(obj, traversal.path)
            if not traversal.skip:
                yield from found
            if traversal.selectSet:
                pending.extend((child, below) for child in reversed(found) for below in reversed(traversal.selectSet))

    def _follow(self, obj: ManagedObject, path: str) -> list[ManagedObject]:
        value = resolve(type(obj), path)(obj)
        references = value if isinstance(value, list) else [value]
        found = []
        for reference in references:
            if isinstance(reference, Reference):
                target = self.world.objects.get(reference._moId)
                if target is not None:
                    found.append(target)
        return found


def privilege_of(cls: type[ManagedObject], path: str) -> str:
    """Return the privilege that reading a property needs, as the registry has it."""
    info = cls.wsdl._GetPropertyInfo(path.partition(".")[0].partition("[")[0])
    return str(info.privId or ("System.Read" if issubclass(cls.wsdl, vim.ManagedEntity) else "System.View"))
