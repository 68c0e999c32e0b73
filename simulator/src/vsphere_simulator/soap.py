"""SOAP: from the bytes of a request to a method with typed arguments, and back.

Requests are read by pyVmomi's own deserialiser, so every argument has the type the API declares.
What it cannot read is a `BadRequest`, which the server answers as a vCenter does.
"""

from __future__ import annotations

import dataclasses
import functools
import re
import typing as t
import xml.parsers.expat

import pyVmomi.SoapAdapter

from vsphere_simulator.vmomi import Reference, support, vmodl

if t.TYPE_CHECKING:
    from vsphere_simulator.encode import Encoder

ENVELOPE = "http://schemas.xmlsoap.org/soap/envelope/"
NAMESPACE = "urn:vim25"
_SEP = pyVmomi.SoapAdapter.NS_SEP
_MAX_DEPTH = 200
"""Deeper nesting than any API type needs."""

HEAD = (
    b'<?xml version="1.0" encoding="UTF-8"?>\n'
    b'<soapenv:Envelope xmlns:soapenc="http://schemas.xmlsoap.org/soap/encoding/"'
    b' xmlns:soapenv="http://schemas.xmlsoap.org/soap/envelope/"'
    b' xmlns:xsd="http://www.w3.org/2001/XMLSchema"'
    b' xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance">\n<soapenv:Body>\n'
)
TAIL = b"\n</soapenv:Body>\n</soapenv:Envelope>"


class BadRequestError(Exception):
    """A request that cannot be understood; the text is for the client."""

    def __init__(self, message: str, *, client: bool = False) -> None:
        super().__init__(message)
        self.client = client
        """True when it is not even a SOAP envelope (fault code Client instead of Server)."""


@dataclasses.dataclass(slots=True)
class Request:
    """One call, read from the wire."""

    method: str
    target: t.Any
    """pyVmomi reference of the object called."""
    arguments: dict[str, t.Any]
    """By WSDL name; every declared parameter is there, None or empty where the client set none."""
    info: t.Any
    """pyVmomi's description of the method; None for the property getter `Fetch`."""
    session_token: str | None
    """What a client that has no cookies sent in the SOAP header."""


class _Param(t.NamedTuple):
    name: str
    type: t.Any
    version: str
    flags: int


_FETCH = "Fetch"
_THIS = _Param("_this", Reference, support.BASE_VERSION, 0)


@functools.cache
def _request_type(name: str) -> tuple[t.Any, t.Any]:
    """Return a data object type with a method's parameters as fields, and the method's description.

    Raises KeyError for a method the API does not have.
    """
    if name == _FETCH:
        info, params = None, [_Param("prop", str, support.BASE_VERSION, 0)]
    else:
        info = support.GetWsdlMethod(NAMESPACE, name).info
        params = [_Param(p.name, p.type, p.version, p.flags) for p in info.params]
    fields = [_THIS, *params]

    def start_unset(self: t.Any) -> None:
        for field in fields:
            self.__dict__[field.name] = field.type() if issubclass(field.type, list) else None

    body = {
        "__init__": start_unset,
        "_wsdlName": name,
        "_version": support.BASE_VERSION,
        "_propList": fields,
        "_propInfo": {field.name: field for field in fields},
    }
    return type(name, (support.DataObject,), body), info


class _RequestReader:
    """Walks envelope, header and body, and hands the method's element to pyVmomi's deserialiser."""

    def __init__(self) -> None:
        self.parser = xml.parsers.expat.ParserCreate(namespace_separator=_SEP)
        self.parser.buffer_text = True
        self.parser.buffer_size = 1 << 16
        self.parser.StartDoctypeDeclHandler = self._doctype
        self.namespaces: dict[str | None, list[str]] = {}
        self.reader: t.Any = None
        self.path: list[str] = []
        self.text = ""
        self.session_token: str | None = None
        self.method = ""
        self.info: t.Any = None
        self._set_handlers()

    def _set_handlers(self) -> None:
        self.parser.StartElementHandler = self._start
        self.parser.EndElementHandler = self._end
        self.parser.CharacterDataHandler = self._characters
        self.parser.StartNamespaceDeclHandler = self._namespace_start
        self.parser.EndNamespaceDeclHandler = self._namespace_end

    def _doctype(self, *_: t.Any) -> None:
        raise BadRequestError("Document type declarations are not allowed in SOAP", client=True)

    def _namespace_start(self, prefix: str | None, uri: str) -> None:
        self.namespaces.setdefault(prefix, []).append(uri)

    def _namespace_end(self, prefix: str | None) -> None:
        self.namespaces[prefix].pop()

    def _start(self, tag: str, _attributes: dict[str, str]) -> None:
        self.text = ""
        depth = len(self.path)
        expected = {0: f"{ENVELOPE}{_SEP}Envelope", 1: f"{ENVELOPE}{_SEP}"}
        if depth in expected and not tag.startswith(expected[depth]):
            raise BadRequestError(f"Expected a SOAP 1.1 envelope, found the element {tag}", client=True)
        if depth > _MAX_DEPTH:
            raise BadRequestError("Elements are nested too deeply", client=True)
        self.path.append(tag)
        if depth == 2 and self.path[1] == f"{ENVELOPE}{_SEP}Body":
            self._start_method(tag)

    def _start_method(self, tag: str) -> None:
        namespace, _, name = tag.rpartition(_SEP)
        if self.method:
            raise BadRequestError("More than one element in the SOAP body", client=True)
        if namespace != NAMESPACE:
            raise BadRequestError(f'Unsupported namespace "{namespace}" in content of SOAP body')
        try:
            request_type, self.info = _request_type(name)
        except KeyError:
            raise BadRequestError(f'Unable to resolve WSDL method name "{name}"') from None
        self.method = name
        self.path.pop()  # the deserialiser sees the end of this element, not this reader
        self.reader = pyVmomi.SoapAdapter.SoapDeserializer()
        self.reader.Deserialize(self.parser, request_type, nsMap=self.namespaces)
        self.reader.StartElementHandler(tag, {})
        self._guard_depth()

    def _guard_depth(self) -> None:
        reader, start = self.reader, self.reader.StartElementHandler

        def guarded(tag: str, attributes: dict[str, str]) -> None:
            if len(reader.stack) > _MAX_DEPTH:
                raise BadRequestError("Elements are nested too deeply", client=True)
            start(tag, attributes)

        self.parser.StartElementHandler = guarded

    def _end(self, tag: str) -> None:
        if tag.endswith("vcSessionCookie"):
            self.session_token = self.text.strip().strip('"')
        self.path.pop()
        self.text = ""

    def _characters(self, text: str) -> None:
        if self.path and self.path[-1].endswith("vcSessionCookie"):
            self.text += text

    def read(self, body: bytes) -> Request:
        """Read a whole request, then let go of the parser: it and its handlers hold each other."""
        try:
            return self._read(body)
        finally:
            self._drop_handlers()
            if self.reader is not None:
                self.reader.__dict__.clear()

    def _drop_handlers(self) -> None:
        self.parser.StartDoctypeDeclHandler = None
        self.parser.StartElementHandler = None
        self.parser.EndElementHandler = None
        self.parser.CharacterDataHandler = None
        self.parser.StartNamespaceDeclHandler = None
        self.parser.EndNamespaceDeclHandler = None

    def _read(self, body: bytes) -> Request:
        try:
            self.parser.Parse(body, True)
        except xml.parsers.expat.ExpatError as problem:
            raise BadRequestError(f"XML document is not well-formed: {problem}", client=True) from None
        except (TypeError, AttributeError, ValueError, LookupError, OverflowError) as problem:
            line = self.parser.CurrentLineNumber
            raise BadRequestError(
                f"{type(problem).__name__}: {problem} while parsing call information for method"
                f" {self.method} at line {line}, while parsing SOAP body"
            ) from None
        value = self.reader.GetResult() if self.reader is not None else None
        if value is None:
            raise BadRequestError("The SOAP body holds no request", client=True)
        if not isinstance(value._this, Reference):
            raise BadRequestError(f"Missing _this in the call of {self.method}")
        arguments = {field.name: getattr(value, field.name) for field in type(value)._propList[1:]}
        self._check_required(type(value)._propList[1:], arguments)
        return Request(self.method, value._this, arguments, self.info, self.session_token)

    def _check_required(self, fields: list[_Param], arguments: dict[str, t.Any]) -> None:
        for field in fields:
            if arguments[field.name] is None and not field.flags & support.F_OPTIONAL:
                raise BadRequestError(
                    f"Missing argument {field.name} while parsing call information for method {self.method}"
                )


def read_request(body: bytes) -> Request:
    """Read a request; BadRequestError for whatever cannot be one."""
    return _RequestReader().read(body)


def negotiate(soap_action: str, newest: str) -> str:
    """Return the API version a request asks for in its SOAPAction header, at most the server's newest.

    `newest` is a version such as `vim.version.v8_0_3_0`. A header that names no version means the
    server's own; one it does not speak is a BadRequestError.
    """
    wanted = soap_action.strip().strip('"')
    if wanted in ("", NAMESPACE):
        return newest
    match = re.fullmatch(r"urn:(vim25/[\w.]+)", wanted)
    version = _version_named(match[1]) if match else None
    if version is None or not support.IsChildVersion(newest, version):
        raise BadRequestError(f'Unsupported version URI "{wanted}" while parsing SOAP header')
    return str(version)


def _version_named(name: str) -> str | None:
    """Return the version of a name such as `vim25/7.0.0.0`; trailing zeros may be left out, as govmomi does."""
    while name.count(".") < 4:
        if name in support.versionMap:
            return str(support.versionMap[name])
        name += ".0"
    return None


def service_versions(newest: str) -> str:
    """Return the document by which clients negotiate (`vimServiceVersions.xml`)."""
    known = [version for version in support.GetServiceVersions("vim25") if version.startswith("vim.")]
    spoken = [support.versionIdMap[version] for version in known if support.IsChildVersion(newest, version)]
    own = support.versionIdMap[newest]
    prior = "".join(f"<version>{name}</version>" for name in spoken if name and name != own)
    return (
        '<?xml version="1.0" encoding="UTF-8" ?>\n<namespaces version="1.0"><namespace><name>urn:vim25</name>'
        f"<version>{own}</version><priorVersions>{prior}</priorVersions></namespace></namespaces>\n"
    )


def newest_version(api_version: str) -> str:
    """Return the pyVmomi version name of an API version such as `8.0.3.0`; ValueError if unknown."""
    version = support.versionMap.get(f"vim25/{api_version}")
    if version is None:
        raise ValueError(f"unknown API version {api_version}")
    return str(version)


def response(method: str, result: str) -> bytes:
    """Wrap an encoded result (empty for none) as the reply to a method."""
    return HEAD + f'<{method}Response xmlns="{NAMESPACE}">{result}</{method}Response>'.encode() + TAIL


def fault_response(fault: t.Any, encoder: Encoder, *, client: bool = False) -> bytes:
    """Wrap a pyVmomi fault as a SOAP fault; a fault the API cannot carry becomes a SystemError."""
    try:
        detail = encoder.fault_detail(fault)
    except TypeError as problem:
        fault = vmodl.fault.SystemError(reason=str(problem), msg=f"A general system error occurred: {problem}")
        detail = encoder.fault_detail(fault)
    text = encoder.element("faultstring", fault.msg or type(fault).__name__, str)
    code = "ClientFaultCode" if client else "ServerFaultCode"
    inner = f"<soapenv:Fault><faultcode>{code}</faultcode>{text}<detail>{detail}</detail></soapenv:Fault>"
    return HEAD + inner.encode() + TAIL
