"""The one door to pyVmomi, whose types are untyped and made at run time.

Everything else imports `vim`, `vmodl`, `make` and `conform` from here, so that the type checker
sees one deliberate `Any` instead of many.
"""

from __future__ import annotations

import typing as t

import pyVmomi.VmomiSupport
from pyVmomi import vim as _vim
from pyVmomi import vmodl as _vmodl

support: t.Any = pyVmomi.VmomiSupport
vim: t.Any = _vim
vmodl: t.Any = _vmodl

DataObject: t.Any = support.DataObject
Reference: t.Any = support.ManagedObject
TypedArray: t.Any = support.Array
Enum: t.Any = support.Enum

_WRAPPED = (support.long, support.short, support.byte, support.double, support.URI, support.PropertyPath)
_defaults: dict[t.Any, tuple[dict[str, t.Any], tuple[tuple[str, t.Any], ...]]] = {}


def _defaults_of(data_type: t.Any) -> tuple[dict[str, t.Any], tuple[tuple[str, t.Any], ...]]:
    """Split a fresh object's attributes into shared scalars and (name, array type) pairs."""
    found = _defaults.get(data_type)
    if found is None:
        fresh = dict(vars(data_type()))
        arrays = tuple((name, type(value)) for name, value in fresh.items() if isinstance(value, list))
        found = _defaults[data_type] = (fresh, arrays)
    return found


def make(data_type: t.Any, /, **values: t.Any) -> t.Any:
    """Build a data object about ten times faster than its own constructor, without type checks.

    Only for values the simulator itself made; a wrong field name raises TypeError.
    """
    scalars, arrays = _defaults_of(data_type)
    built = data_type.__new__(data_type)
    attributes = built.__dict__
    attributes.update(scalars)
    for name, array_type in arrays:
        attributes[name] = array_type(values.pop(name, ()) or ())
    if not values.keys() <= scalars.keys():
        unknown = ", ".join(sorted(values.keys() - scalars.keys()))
        raise TypeError(f"{data_type.__name__} has no field {unknown}")
    attributes.update(values)
    return built


def conform(value: t.Any, declared: t.Any) -> t.Any:
    """Give a plain Python value the exact pyVmomi type that its declaration asks for.

    Inside an `Any` (a property's value in a reply) the type goes over the wire with the value, so a
    list must be a typed array and an `int` declared long must be a `long`. Objects that carry a
    `ref` (the simulator's own managed objects) become references.
    """
    if value is None:
        return None
    if isinstance(value, TypedArray) and not (declared is not object and _holds_objects(value)):
        return value
    reference = getattr(value, "ref", None)
    if reference is not None and isinstance(reference, Reference):
        return reference
    if declared is object:
        return value
    if issubclass(declared, list):
        return declared(conform(item, declared.Item) for item in value)
    if declared in _WRAPPED or (issubclass(declared, Enum) and not isinstance(value, Enum)):
        return declared(value)
    if declared is bytes or declared is support.binary:
        return support.binary(value)
    return value


def _holds_objects(array: t.Any) -> bool:
    return bool(array) and isinstance(getattr(array[0], "ref", None), Reference)


def wsdl_name(wsdl_type: t.Any) -> str:
    """Return the name a type has on the wire, for example `HostSystem`."""
    return str(support.GetWsdlName(wsdl_type))


def type_named(name: str) -> t.Any:
    """Return the pyVmomi type of a VMODL name such as `vim.fault.InvalidState`; KeyError if unknown."""
    return support.GetVmodlType(name)
