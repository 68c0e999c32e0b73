# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Large answers of the property collector to pyVmomi's objects, while they arrive and several times faster.

pyVmomi asks its registry about every field of every object again; here the answer is compiled once for a
type, and lxml does the parsing. What comes out equals what pyVmomi makes of the same bytes: rare kinds of
values are left to it. Without lxml `AVAILABLE` is false, and the client parses with pyVmomi.
"""

from __future__ import annotations

import copy
import dataclasses
import datetime
import functools
import http.client
import typing as t
import xml.parsers.expat

from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.garbage import collection_paused
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.pyvmomi import (
    SoapResponseDeserializer,
    parse_iso8601,
    support,
    vmodl,
)

try:
    from lxml import etree

    AVAILABLE = True
except ImportError:
    AVAILABLE = False
    if not t.TYPE_CHECKING:
        etree = None

_XSI_TYPE = "{http://www.w3.org/2001/XMLSchema-instance}type"
_CHUNK = 256 * 1024
# Envelope, Body, RetrievePropertiesExResponse, returnval.
_DEPTH = 4


@dataclasses.dataclass(frozen=True, slots=True)
class Only:
    """Which items of a list are wanted."""

    types: frozenset[str] | None = None
    """Names of their types; subtypes are not implied."""
    field: str | None = None
    """A field, and the values of it as they are written on the wire."""
    values: frozenset[str] = frozenset()

    def wants(self, kind: str, value: str | None) -> bool:
        """Whether an item of a type, with this value of the field, is wanted."""
        return (self.types is None or kind in self.types) and (self.field is None or value in self.values)


Keep = t.Mapping[str, Only]
"""Property path -> which items of that list are wanted."""
Convert = t.Callable[[t.Any], t.Any]


_Field = tuple[str, bool, Convert]


class _Shape(t.NamedTuple):
    """How elements of a data object type become objects."""

    plain: dict[str, t.Any]
    """Values of fields that are not sent."""
    lists: tuple[tuple[str, t.Any], ...]
    declared: dict[str, t.Any]
    """Types of the fields by name."""
    fields: dict[str, _Field]
    """By tag, filled as they are met."""


def _shape(kind: t.Any) -> _Shape:
    infos = kind._GetPropertyList()
    blank = kind()
    lists = tuple((info.name, info.type) for info in infos if issubclass(info.type, list))
    plain = {info.name: getattr(blank, info.name) for info in infos if not issubclass(info.type, list)}
    return _Shape(plain, lists, {info.name: info.type for info in infos}, {})


def read_page(answer: http.client.HTTPResponse, stub: t.Any, keep: Keep) -> t.Any:
    """The `RetrieveResult` in an answer, None for an empty one.

    Raises OSError and HTTPException for a connection that drops, ExpatError for what is not such a result.
    """
    reader = PageReader(stub, keep)
    try:
        with collection_paused():
            while data := answer.read(_CHUNK):
                reader.feed(data)
            if answer.length:
                raise http.client.IncompleteRead(b"", answer.length)
            return reader.close()
    except etree.XMLSyntaxError as error:
        raise xml.parsers.expat.ExpatError(str(error)) from error


class PageReader:
    """Makes a `RetrieveResult` of the bytes of one answer. Raises `lxml.etree.XMLSyntaxError`."""

    def __init__(self, stub: t.Any, keep: Keep) -> None:
        self._stub = stub
        self._keep = keep
        self._types: dict[tuple[str, bool], t.Any] = {}
        self._shapes: dict[t.Any, _Shape] = {}
        self._converters: dict[t.Any, Convert] = {}
        self._tags: dict[str, str] = {}
        self._objects: list[t.Any] = []
        self._token: str | None = None
        self._answered = False
        self._parser: t.Any = etree.XMLPullParser(
            events=("end",),
            tag=(
                "{*}objects",
                "{*}token",
                "{*}RetrievePropertiesExResponse",
                "{*}ContinueRetrievePropertiesExResponse",
            ),
            huge_tree=True,
            resolve_entities=False,
            no_network=True,
        )

    def feed(self, data: bytes) -> None:
        """Take the next bytes; whole objects are converted at once and their elements let go."""
        self._parser.feed(data)
        element: t.Any
        for _event, element in self._parser.read_events():
            name = self._local(element.tag)
            # A property may have a field of the same name.
            depth = len(list(element.iterancestors()))
            if name == "objects" and depth == _DEPTH:
                self._objects.append(self._content(element))
                element.clear()
                parent = element.getparent()
                while element.getprevious() is not None:
                    del parent[0]
            elif name == "token" and depth == _DEPTH:
                self._token = element.text
            elif depth == _DEPTH - 2:
                self._answered = True

    def close(self) -> t.Any:
        """The result, None for an empty one. Raises `lxml.etree.XMLSyntaxError` or ExpatError for anything else."""
        self._parser.close()
        if not self._answered:
            raise xml.parsers.expat.ExpatError("no answer of a property collector")
        if not self._objects and self._token is None:
            return None
        result = vmodl.query.PropertyCollector.RetrieveResult()
        result.token = self._token
        result.objects = self._objects
        return result

    def _content(self, element: t.Any) -> t.Any:
        """An `ObjectContent`, its lists reduced to the items that are kept."""
        kind = vmodl.query.PropertyCollector
        content = kind.ObjectContent()
        values = content.__dict__
        for child in element:
            name = self._local(child.tag)
            if name == "propSet":
                values["propSet"].append(self._property(child))
            elif name == "obj":
                values["obj"] = self._reference(child)
            elif name == "missingSet":
                values["missingSet"].append(self._delegate(kind.MissingProperty, child))
        return content

    def _property(self, element: t.Any) -> t.Any:
        """A `DynamicProperty`: a path and a value of any type."""
        path, value = element[0].text, element[1]
        made = object.__new__(vmodl.DynamicProperty)
        values = made.__dict__
        values["name"] = path
        only = self._keep.get(path)
        if only is None:
            values["val"] = self._dynamic(object, value)
        else:
            kind = self._type(value, value.get(_XSI_TYPE))
            convert = self._converter(kind.Item)
            values["val"] = kind([convert(item) for item in value if self._wants(only, item)])
        return made

    def _wants(self, only: Only, element: t.Any) -> bool:
        value = None if only.field is None else element.findtext(f"{{*}}{only.field}")
        return only.wants((element.get(_XSI_TYPE) or "").rpartition(":")[2], value)

    def _local(self, tag: str) -> str:
        name = self._tags.get(tag)
        if name is None:
            name = self._tags[tag] = tag.rpartition("}")[2]
        return name

    def _type(self, element: t.Any, text: str, *, reference: bool = False) -> t.Any:
        """The type that an attribute names."""
        found = self._types.get((text, reference))
        if found is None:
            prefix, _sep, name = text.rpartition(":")
            namespace = element.nsmap.get(prefix or None, "")
            try:
                found = support.GetWsdlType(namespace, name)
            except KeyError:
                plain = name.removesuffix("Reference") if name.endswith("ManagedObjectReference") else name
                found = support.GuessWsdlType(plain)
            if not reference:
                found = support.GetCompatibleType(found, self._stub.version)
            self._types[text, reference] = found
        return found

    def _converter(self, declared: t.Any) -> Convert:
        """What makes a value of an element declared of a type, whatever type it has itself."""
        found = self._converters.get(declared)
        if found is None:
            found = self._converters[declared] = self._make_converter(declared)
        return found

    def _make_converter(self, declared: t.Any) -> Convert:
        if _is_data(declared) or declared is object or issubclass(declared, list):
            return functools.partial(self._dynamic, declared)
        return self._exact(declared)

    def _dynamic(self, declared: t.Any, element: t.Any) -> t.Any:
        named = element.get(_XSI_TYPE)
        kind = declared if named is None else self._type(element, named)
        if _is_data(kind):
            return self._data(kind, element)
        if kind is object:
            return self._delegate(declared, element)
        if issubclass(kind, list):
            convert = self._converter(kind.Item)
            return kind([convert(item) for item in element])
        found = self._converters.get(kind)
        if found is None:
            found = self._converters[kind] = self._exact(kind)
        return found(element)

    def _exact(self, kind: t.Any) -> Convert:
        """The converter of a type that has no subtypes on the wire."""
        if issubclass(kind, support.ManagedObject):
            return self._reference
        if kind is bool:
            return _bool
        if kind is datetime.datetime:
            return _moment
        if issubclass(kind, support.Enum):
            return functools.partial(_enum, kind)
        if kind is str:
            return _text
        if issubclass(kind, (str, int, float)):
            return functools.partial(_number_or_name, kind)
        return functools.partial(self._delegate, kind)

    def _reference(self, element: t.Any) -> t.Any:
        kind = self._type(element, element.get("type"), reference=True)
        guid = element.get("serverGuid")
        return kind(element.text or "", self._stub, None if guid and self._stub.SupportServerGUIDs() else guid)

    def _data(self, kind: t.Any, element: t.Any) -> t.Any:
        shape = self._shapes.get(kind)
        if shape is None:
            shape = self._shapes[kind] = _shape(kind)
        made = object.__new__(kind)
        values = made.__dict__
        values.update(shape.plain)
        for name, many in shape.lists:
            values[name] = many()
        fields = shape.fields
        for child in element:
            tag = child.tag
            field = fields.get(tag)
            if field is None:
                named = tag.rpartition("}")[2]
                if named not in shape.declared:
                    continue  # of a later API version than was asked for
                field = fields[tag] = self._field(shape, named)
            name, many, convert = field
            if many:
                value = convert(child)
                if isinstance(value, list):
                    values[name] = value
                else:
                    values[name].append(value)
            else:
                values[name] = convert(child)
        return made

    def _field(self, shape: _Shape, name: str) -> _Field:
        """Found when it is met: types refer to each other in circles."""
        declared = shape.declared[name]
        many = issubclass(declared, list)
        return name, many, self._converter(declared.Item if many else declared)

    def _delegate(self, declared: t.Any, element: t.Any) -> t.Any:
        """Let pyVmomi make the value, of an answer that has it alone."""
        # Namespaces are declared outside, as a vCenter does: pyVmomi cannot take them on the value itself.
        answer = etree.Element("Response", nsmap=element.nsmap)
        answer.append(copy.deepcopy(element))
        return SoapResponseDeserializer(self._stub).Deserialize(etree.tostring(answer), declared)


def _is_data(kind: t.Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, support.DataObject) and not issubclass(kind, Exception)


def _text(element: t.Any) -> str:
    return element.text or ""


def _bool(element: t.Any) -> bool:
    return element.text in ("true", "1") or (element.text or "").lower() == "true"


def _moment(element: t.Any) -> t.Any:
    return parse_iso8601(element.text)


def _enum(kind: t.Any, element: t.Any) -> t.Any:
    return getattr(kind, element.text, None) or kind(element.text)


def _number_or_name(kind: t.Any, element: t.Any) -> t.Any:
    return kind(element.text or "")
