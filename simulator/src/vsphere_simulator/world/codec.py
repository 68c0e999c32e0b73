"""pyVmomi values as JSON and back, for the state file."""

from __future__ import annotations

import base64
import datetime as dt
import typing as t

from vsphere_simulator.vmomi import DataObject, Reference, make, support, wsdl_name

_NAMESPACE = "urn:vim25"


def encode(value: t.Any) -> t.Any:
    """A pyVmomi value as plain JSON types: data objects carry `_type`, references `_ref`, times `_time`."""
    if isinstance(value, DataObject):
        fields = {
            key: encode(item)
            for key, item in sorted(vars(value).items())
            if item is not None and not (isinstance(item, list) and not item)
        }
        return {"_type": wsdl_name(type(value)), **fields}
    if isinstance(value, Reference):
        return {"_ref": [wsdl_name(type(value)), value._GetMoId()]}
    if isinstance(value, dt.datetime):
        return {"_time": value.isoformat()}
    if isinstance(value, bytes):
        return {"_bytes": base64.b64encode(value).decode()}
    if isinstance(value, list | tuple):
        return [encode(item) for item in value]
    if isinstance(value, dict):
        return {str(key): encode(item) for key, item in value.items()}
    if isinstance(value, bool) or value is None:
        return value
    if isinstance(value, int):
        return int(value)
    return float(value) if isinstance(value, float) else str(value)


def decode(data: t.Any) -> t.Any:
    """The reverse of `encode`. Lists of plain values become typed arrays where they stand in a data object."""
    if isinstance(data, list):
        return [decode(item) for item in data]
    if not isinstance(data, dict):
        return data
    if "_ref" in data:
        name, moid = data["_ref"]
        return support.GetWsdlType(_NAMESPACE, name)(moid)
    if "_time" in data:
        return dt.datetime.fromisoformat(data["_time"])
    if "_bytes" in data:
        return support.binary(base64.b64decode(data["_bytes"]))
    kind = support.GetWsdlType(_NAMESPACE, data["_type"])
    return make(kind, **{key: decode(item) for key, item in data.items() if key != "_type"})
