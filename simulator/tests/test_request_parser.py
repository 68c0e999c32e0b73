"""The request parser under anything at all: a request, or a `BadRequestError`, and nothing else."""

from __future__ import annotations

import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vsphere_simulator.soap import BadRequestError, Request, negotiate, read_request, service_versions
from vsphere_simulator.vmomi import vim

NEWEST = "vim.version.v8_0_3_0"
VALID = b"""<?xml version="1.0" encoding="UTF-8"?>
<soapenv:Envelope xmlns:soapenv="http://schemas.xmlsoap.org/soap/envelope/" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"
 xmlns:xsd="http://www.w3.org/2001/XMLSchema"><soapenv:Header><vcSessionCookie>"abc"</vcSessionCookie></soapenv:Header>
<soapenv:Body><ReconfigVM_Task xmlns="urn:vim25"><_this type="VirtualMachine">vm-1</_this><spec>
<memoryMB>1024</memoryMB><memoryReservationLockedToMax>true</memoryReservationLockedToMax>
<deviceChange><operation>add</operation><device xsi:type="VirtualPCIPassthrough"><key>-1</key>
<backing xsi:type="VirtualPCIPassthroughDynamicBackingInfo"><deviceName></deviceName>
<allowedDevice><vendorId>4318</vendorId><deviceId>7606</deviceId></allowedDevice></backing></device></deviceChange>
<extraConfig><key>pciPassthru.use64bitMMIO</key><value xsi:type="xsd:string">TRUE</value></extraConfig>
</spec></ReconfigVM_Task></soapenv:Body></soapenv:Envelope>"""


def attempt(body: bytes) -> Request | None:
    try:
        return read_request(body)
    except BadRequestError:
        return None


def test_a_request_is_read_with_its_types() -> None:
    request = read_request(VALID)
    spec = request.arguments["spec"]
    device = spec.deviceChange[0].device
    assert (request.method, request.target._GetMoId(), request.session_token) == ("ReconfigVM_Task", "vm-1", "abc")
    assert isinstance(device.backing, vim.vm.device.VirtualPCIPassthrough.DynamicBackingInfo)
    assert device.backing.allowedDevice[0].vendorId == 4318
    assert (spec.memoryMB, spec.memoryReservationLockedToMax, spec.extraConfig[0].value) == (1024, True, "TRUE")


@given(st.binary(max_size=400))
def test_any_bytes(body: bytes) -> None:
    assert attempt(body) is None


@settings(max_examples=300)
@given(st.data())
def test_a_valid_request_with_bytes_changed(data: st.DataObject) -> None:
    body = bytearray(VALID)
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(body) - 1))
        end = data.draw(st.integers(start, min(len(body), start + 40)))
        body[start:end] = data.draw(st.binary(max_size=20))
    attempt(bytes(body))


WORDS = [
    *("_this", "spec", "memoryMB", "deviceChange", "device", "backing", "extraConfig", "key", "value", "prop", "fault"),
    *("operation", "name", "__class__", "Fetch", "ReconfigVM_Task", "Login", "userName", "nothing", "version"),
]
TYPES = ["VirtualDisk", "xsd:string", "xsd:int", "ArrayOfString", "ManagedObjectReference", "TypeName", "x:y", "", ":"]


def elements() -> st.SearchStrategy[str]:
    attribute = st.one_of(
        st.just(""),
        st.sampled_from(TYPES).map(lambda name: f' xsi:type="{name}"'),
        st.sampled_from(["VirtualMachine", "", "string", "Nothing"]).map(lambda name: f' type="{name}"'),
    )
    text = st.sampled_from(
        ["", "1", "-1", "true", "add", "vm-1", "99999999999999999999", "mro", "values", "2026-13-99"]
    )

    def wrap(children: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
        return st.builds(
            lambda name, attributes, inner: f"<{name}{attributes}>{''.join(inner)}</{name}>",
            st.sampled_from(WORDS),
            attribute,
            st.lists(children, max_size=4),
        )

    return st.recursive(text, wrap, max_leaves=12)


@settings(max_examples=400)
@given(
    st.sampled_from(["ReconfigVM_Task", "Fetch", "Login", "RetrievePropertiesEx", "CreateFilter"]), st.lists(elements())
)
def test_well_formed_nonsense(method: str, parts: list[str]) -> None:
    head, tail = VALID.partition(b"<ReconfigVM_Task")[0], b"</soapenv:Body></soapenv:Envelope>"
    attempt(head + f'<{method} xmlns="urn:vim25">{"".join(parts)}</{method}>'.encode() + tail)


@given(st.text(max_size=60))
def test_any_soap_action(action: str) -> None:
    if action.strip().strip('"') in ("", "urn:vim25"):
        assert negotiate(action, NEWEST) == NEWEST
    else:
        with pytest.raises(BadRequestError, match="Unsupported version URI"):
            negotiate(action, NEWEST)


@pytest.mark.parametrize(("asked", "spoken"), [("7.0", "v7_0"), ("6.7", "version12"), ("8.0.3", "v8_0_3_0")])
def test_versions_may_lack_trailing_zeros(asked: str, spoken: str) -> None:
    """govmomi names 7.0.0.0 so."""
    assert negotiate(f"urn:vim25/{asked}", NEWEST).endswith(spoken)


def test_memory_does_not_grow_with_refused_requests() -> None:
    bodies = [VALID[:cut] for cut in range(0, len(VALID), 7)]
    for body in bodies:
        attempt(body)
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(10):
            for body in bodies:
                attempt(body)
        grown = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert grown < 200_000, f"{grown} bytes after {10 * len(bodies)} requests"


def test_memory_does_not_grow_with_nonsense() -> None:
    """Names that no API has, each only once: nothing may be remembered of them."""

    def nonsense(number: int) -> bytes:
        head, tail = VALID.partition(b"<ReconfigVM_Task")[0], b"</soapenv:Body></soapenv:Envelope>"
        name, kind = f"No{number}", f"Kind{number}"
        spec = f'<spec xsi:type="{kind}"><{name} xsi:type="xsd:{kind}">{number}</{name}></spec>'
        this = f'<_this type="{kind}">{name}</_this>'
        method = name if number % 2 else "ReconfigVM_Task"
        return head + f'<{method} xmlns="urn:vim25">{this}{spec}</{method}>'.encode() + tail

    def names_and_versions(first: int) -> None:
        for number in range(first, first + 500):
            assert attempt(nonsense(number)) is None
            with pytest.raises(BadRequestError):
                negotiate(f"urn:vim25/{number}.1.2.3.4", NEWEST)

    names_and_versions(0)
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        names_and_versions(1000)
        grown = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert grown < 100_000, f"{grown} bytes after 500 requests"


@pytest.mark.parametrize("newest", [NEWEST, "vim.version.v7_0_3_0"])
def test_the_versions_document_names_no_later_version(newest: str) -> None:
    text = service_versions(newest)
    assert "9.0.0.0" not in text
    assert ("8.0.3.0" in text) == (newest == NEWEST)
    assert "6.7" in text
