"""Property paths: from `config.hardware.device` to the function that yields its value.

Builders are registered for full paths. Another path is answered by the longest registered path above
it and attribute access below; a path that has only registered descendants is composed of them. What
has been worked out is kept for each (class, path).
"""

from __future__ import annotations

import re
import typing as t

from vsphere_simulator.vmomi import DataObject, conform, support, vmodl

if t.TYPE_CHECKING:
    from collections.abc import Callable

    from vsphere_simulator.kernel.objects import ManagedObject

    Getter = Callable[[ManagedObject], t.Any]

_STEP = re.compile(r'([A-Za-z_]\w*)(?:\["?([^"\]]+)"?\])?')
_resolved: dict[tuple[type, str], Getter] = {}
_names: dict[t.Any, tuple[str, ...]] = {}


class _Step(t.NamedTuple):
    name: str
    key: str | None
    """Key of one element of an array, as in `device[4000]`."""


def resolve(cls: type[ManagedObject], path: str) -> Getter:
    """Return the function that gets the value of a path from an object of a class.

    Raises InvalidProperty, naming the path, for what the API does not know.
    """
    found = _resolved.get((cls, path))
    if found is None:
        found = _Resolver(cls, path).getter()
        _resolved[cls, path] = found
    return found


def property_names(wsdl_type: t.Any) -> tuple[str, ...]:
    """Return the names of all properties a managed object type has."""
    found = _names.get(wsdl_type)
    if found is None:
        found = _names[wsdl_type] = tuple(info.name for info in wsdl_type._GetPropertyList())
    return found


def overlaps(one: str, other: str) -> bool:
    """Say whether a change at one path may show at the other."""
    return (
        one == other
        or (one.startswith(other) and one[len(other)] in ".[")
        or (other.startswith(one) and other[len(one)] in ".[")
    )


def invalid_property(path: str) -> Exception:
    """Return the fault for a path that does not exist."""
    fault: Exception = vmodl.query.InvalidProperty(name=path, msg=f"The property path is invalid: {path}")
    return fault


def _parse(path: str) -> list[_Step]:
    steps = []
    position = 0
    while position < len(path):
        match = _STEP.match(path, position)
        if match is None or (match.end() < len(path) and path[match.end()] != "."):
            raise invalid_property(path)
        steps.append(_Step(match[1], match[2]))
        position = match.end() + 1
    if not steps or path.endswith("."):
        raise invalid_property(path)
    return steps


def _declared(owner: t.Any, name: str) -> t.Any:
    """Return the declared type of a field, or None if the owner has none of that name."""
    try:
        return owner._GetPropertyInfo(name).type
    except AttributeError:
        return None


class _Resolver:
    """Works out one path of one class."""

    def __init__(self, cls: type[ManagedObject], path: str) -> None:
        self.cls = cls
        self.path = path
        self.steps = _parse(path)
        self.types: list[t.Any] = []
        """Declared type after each step; None where only the value's own type can tell."""
        owner: t.Any = cls.wsdl
        for number, step in enumerate(self.steps):
            declared = None if owner is None else _declared(owner, step.name)
            told_by_value = number > 0 and (owner is None or issubclass(owner, DataObject))
            if declared is None and not told_by_value:
                raise invalid_property(path)
            if declared is not None and step.key is not None:
                if not issubclass(declared, list):
                    raise invalid_property(path)
                declared = declared.Item
            self.types.append(declared)
            owner = declared

    def getter(self) -> Getter:
        """Return the getter for the path."""
        names = [step.name for step in self.steps]
        whole = ".".join(names)
        if whole not in self.cls.builders and any(known.startswith(f"{whole}.") for known in self.cls.builders):
            return self._below(self._composer(whole, self._type_of(names)), len(names))
        for length in range(len(names), 0, -1):
            if any(step.key is not None for step in self.steps[: length - 1]):
                continue
            prefix = ".".join(names[:length])
            builder = self.cls.builders.get(prefix)
            if builder is not None:
                return self._below(builder, length)
        if self.types[-1] is None:
            raise invalid_property(self.path)
        return _unset

    def _type_of(self, names: list[str]) -> t.Any:
        owner: t.Any = self.cls.wsdl
        for name in names:
            owner = _declared(owner, name)
        return owner

    def _composer(self, prefix: str, data_type: t.Any) -> Getter:
        cut = len(prefix) + 1
        below = {known[cut:].split(".")[0] for known in self.cls.builders if known.startswith(prefix + ".")}
        parts = [(name, resolve(self.cls, f"{prefix}.{name}")) for name in sorted(below)]

        def compose(obj: ManagedObject) -> t.Any:
            values = [(name, get(obj)) for name, get in parts]
            if all(value is None for _, value in values):
                return None
            composed = data_type()
            for name, value in values:
                if value is not None:
                    setattr(composed, name, value)
            return composed

        return compose

    def _below(self, builder: Getter, length: int) -> Getter:
        """Return a getter that starts from a builder and follows the steps it does not cover."""
        rest = self.steps[length:]
        key = self.steps[length - 1].key
        built_type = self._type_of([step.name for step in self.steps[:length]])
        final_type = self.types[-1]

        if not rest and key is None:
            return lambda obj: conform(builder(obj), built_type)

        def follow(obj: ManagedObject) -> t.Any:
            value = conform(builder(obj), built_type)
            if key is not None:
                value = _element(value, key)
            for step in rest:
                if value is None:
                    break
                value = self._attribute(value, step)
            if value is None and final_type is None:
                raise invalid_property(self.path)
            return value if final_type is None else conform(value, final_type)

        return follow

    def _attribute(self, value: t.Any, step: _Step) -> t.Any:
        declared = _declared(type(value), step.name) if isinstance(value, DataObject) else None
        if declared is None:
            raise invalid_property(self.path)
        value = conform(getattr(value, step.name), declared)
        return _element(value, step.key) if step.key is not None else value


def _element(array: t.Any, key: str) -> t.Any:
    """Return the element of an array whose `key` (or own value) is the one asked for; None if none is."""
    for item in array or ():
        if isinstance(item, DataObject):
            own = getattr(item, "key", None)
        elif isinstance(item, support.ManagedObject):
            own = item._GetMoId()
        else:
            own = item
        if str(own) == key:
            return item
    return None


def _unset(_obj: ManagedObject) -> t.Any:
    return None
