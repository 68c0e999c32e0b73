"""What no ordinary client sends: each gets its fault or status, and the server goes on serving."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import re
import socket
import ssl
import typing as t

import pytest
from pyVmomi import vim, vmodl
from served import Served
from wire_helpers import machines

from vsphere_simulator.http import Accepted

ENVELOPE = (
    '<?xml version="1.0" encoding="UTF-8"?><soapenv:Envelope xmlns:soapenv="http://schemas.xmlsoap.org/soap/envelope/"'
    ' xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"><soapenv:Body>{}</soapenv:Body></soapenv:Envelope>'
)
SESSIONS = '<_this type="SessionManager">SessionManager</_this>'
THIS = '<_this type="ServiceInstance">ServiceInstance</_this>'
CURRENT_TIME = ENVELOPE.format(f'<CurrentTime xmlns="urn:vim25">{THIS}</CurrentTime>')


def post(
    server: Served, body: t.Any, *, action: str = "", headers: dict[str, str] | None = None, chunked: bool = False
) -> tuple[int, str, str]:
    """Return status, text and fault type of a raw request."""
    connection = http.client.HTTPSConnection(server.host, server.port, context=server.tls, timeout=20)
    try:
        sent = {"SOAPAction": action, "Content-Type": "text/xml", **(headers or {})}
        connection.request("POST", "/sdk", body, sent, encode_chunked=chunked)
        reply = connection.getresponse()
        text = reply.read().decode()
    finally:
        connection.close()
    fault = re.search(r'Fault xmlns="urn:vim25" xsi:type="(\w+)"', text)
    return reply.status, text, fault[1] if fault else ""


@contextlib.contextmanager
def secure_socket(server: Served) -> t.Iterator[ssl.SSLSocket]:
    with (
        socket.create_connection((server.host, server.port), timeout=20) as plain,
        server.tls.wrap_socket(plain, server_hostname=server.host) as secure,
    ):
        yield secure


@pytest.fixture(autouse=True)
def _still_serving(server: Served) -> t.Iterator[None]:
    yield
    assert (
        post(server, ENVELOPE.format(f'<RetrieveServiceContent xmlns="urn:vim25">{THIS}</RetrieveServiceContent>'))[0]
        == 200
    )
    assert server.process.poll() is None


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ("", "Client"),
        ("not XML at all", "Client"),
        ("<a><b></a>", "Client"),
        ("<a/>", "Client"),
        (CURRENT_TIME[:-20], "Client"),
        (b"\x00\xff\xfe" * 50, "Client"),
        (CURRENT_TIME.replace("UTF-8", "XTF-8"), "Server"),
        (ENVELOPE.format(""), "Client"),
        ('<!DOCTYPE a [<!ENTITY b "c">]>' + CURRENT_TIME.partition("?>")[2], "Client"),
        (ENVELOPE.format("<x>" * 5000 + "</x>" * 5000), "Server"),
        (ENVELOPE.format(f'<NoSuchMethod xmlns="urn:vim25">{THIS}</NoSuchMethod>'), "Server"),
        (ENVELOPE.format(f'<CurrentTime xmlns="urn:other">{THIS}</CurrentTime>'), "Server"),
        (ENVELOPE.format('<CurrentTime xmlns="urn:vim25"></CurrentTime>'), "Server"),
        (ENVELOPE.format('<CurrentTime xmlns="urn:vim25"><_this>x</_this></CurrentTime>'), "Server"),
        (ENVELOPE.format('<CurrentTime xmlns="urn:vim25"><_this type="Nothing">x</_this></CurrentTime>'), "Server"),
        (ENVELOPE.format(f'<CurrentTime xmlns="urn:vim25">{THIS}<more/></CurrentTime>'), "Server"),
        (
            ENVELOPE.format('<Login xmlns="urn:vim25">' + SESSIONS + "</Login>"),
            "Server",
        ),
    ],
)
def test_a_request_that_cannot_be_read(server: Served, body: t.Any, code: str) -> None:
    status, text, fault = post(server, body)
    assert (status, fault) == (500, "InvalidRequest")
    assert f"<faultcode>{code}FaultCode</faultcode>" in text
    assert "bad request: " in server.logged()


def test_nesting_is_bounded(server: Served) -> None:
    deep = '<spec><deviceChange><device xsi:type="VirtualDevice">' * 400
    body = ENVELOPE.format(f'<ReconfigVM_Task xmlns="urn:vim25"><_this type="VirtualMachine">vm-1</_this>{deep}')
    assert post(server, body)[::2] == (500, "InvalidRequest")


@pytest.mark.parametrize(
    ("action", "fault"),
    [
        ('"urn:vim25/8.0.3.0"', "NotAuthenticated"),
        ("urn:vim25/6.7", "NotAuthenticated"),
        ("", "NotAuthenticated"),
        ("urn:vim25", "NotAuthenticated"),
        ("urn:vim25/9.1.0.0", "InvalidRequest"),
        ("urn:vim25/99.0", "InvalidRequest"),
        ("urn:pbm/8.0.3.0", "InvalidRequest"),
        ("nonsense", "InvalidRequest"),
    ],
)
def test_versions(server: Served, action: str, fault: str) -> None:
    status, text, found = post(server, CURRENT_TIME, action=action)
    assert (status, found) == (500, fault)
    assert ("Unsupported version URI" in text) == (fault == "InvalidRequest")


def test_a_chunked_body_is_read(server: Served) -> None:
    half = len(CURRENT_TIME) // 2
    parts = iter([CURRENT_TIME[:half].encode(), CURRENT_TIME[half:].encode()])
    assert post(server, parts, headers={"Transfer-Encoding": "chunked"}, chunked=True)[2] == "NotAuthenticated"


def test_a_huge_body_is_refused_before_it_is_read(server: Served) -> None:
    with secure_socket(server) as secure:
        secure.sendall(b"POST /sdk HTTP/1.1\r\nHost: x\r\nContent-Length: 104857600\r\n\r\n")
        assert secure.recv(1000).startswith(b"HTTP/1.1 413 ")
    assert "a body of more than 67108864 bytes from 127.0.0.1" in server.logged()


def test_a_huge_chunked_body_is_refused_on_its_way(server: Served) -> None:
    piece = b"x" * (1 << 20)
    sent = 0
    with secure_socket(server) as secure:
        secure.sendall(b"POST /sdk HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
        try:
            while sent < 100:
                secure.sendall(b"100000\r\n" + piece + b"\r\n")
                sent += 1
            answer = secure.recv(1000)
        except (ConnectionError, ssl.SSLError):
            answer = b"HTTP/1.1 413 (the connection was closed instead)"
    assert answer.startswith(b"HTTP/1.1 413 ")


def test_half_open_connections_keep_nobody_waiting(server: Served) -> None:
    idle = [socket.create_connection((server.host, server.port)) for _ in range(20)]
    try:
        idle[0].sendall(b"\x16\x03\x01\x02\x00")  # the start of a TLS hello that never ends
        idle[1].sendall(b"GET / HTTP/1.0\r\n\r\n")  # no TLS at all
        assert post(server, CURRENT_TIME)[2] == "NotAuthenticated"
    finally:
        for connection in idle:
            connection.close()


def test_old_tls_is_refused(server: Served) -> None:
    context = server.tls
    context.maximum_version = ssl.TLSVersion.TLSv1_1
    with socket.create_connection((server.host, server.port)) as plain, pytest.raises(ssl.SSLError):
        context.wrap_socket(plain, server_hostname=server.host)


def test_a_forged_session_is_no_session(server: Served) -> None:
    headers = {"Cookie": 'vmware_soap_session="0123456789abcdef"'}
    assert post(server, CURRENT_TIME, headers=headers)[2] == "NotAuthenticated"
    assert "CurrentTime on ServiceInstance: vim.fault.NotAuthenticated" in server.logged()


def test_an_object_that_is_not_there(server: Served, client: t.Any) -> None:
    with pytest.raises(vmodl.fault.ManagedObjectNotFound):
        vim.VirtualMachine("vm-404", client._stub).PowerOffVM_Task()
    assert "PowerOffVM_Task on vm-404: vmodl.fault.ManagedObjectNotFound" in server.logged()


class Answering(asyncio.Protocol):
    transport: asyncio.BaseTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport


class Secured(asyncio.Transport):
    protocol: asyncio.BaseProtocol | None = None

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self.protocol = protocol


def test_a_handshake_that_does_not_end_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        answering, secured = Answering(), Secured()
        Accepted(lambda: answering, 0.01).connection_made(secured)
        assert (secured.protocol, answering.transport) == (answering, secured)
        Accepted(Answering, 0.02)
        async with asyncio.timeout(10):
            while not caplog.messages:
                await asyncio.sleep(0.005)

    asyncio.run(scenario())
    assert caplog.messages == ["bad request: a connection without a TLS handshake after 0.02 s"]


def test_a_method_nobody_implements_is_not_supported_and_logged(server: Served, client: t.Any) -> None:
    with pytest.raises(vmodl.fault.NotSupported, match=r"VirtualMachine\.ResetVM_Task"):
        machines(client)[0].ResetVM_Task()
    assert "vim.VirtualMachine.ResetVM_Task is not supported" in server.logged()


def test_a_parameter_nobody_reads_is_not_ignored(client: t.Any) -> None:
    host = vim.HostSystem("host-1", client._stub)
    with pytest.raises(vmodl.fault.NotSupported, match="host of PowerOnVM_Task"):
        machines(client)[0].PowerOnVM_Task(host)


def test_a_method_of_another_type(server: Served, client: t.Any) -> None:
    cookie = {"Cookie": client._stub.cookie}
    body = ENVELOPE.format(
        '<CreateFolder xmlns="urn:vim25"><_this type="VirtualMachine">vm-1</_this><name>x</name></CreateFolder>'
    )
    assert post(server, body, headers=cookie)[2] == "MethodNotFound"


def test_a_bug_inside_the_simulator_is_a_system_error_and_logged(server: Served, client: t.Any) -> None:
    with pytest.raises(vmodl.fault.SystemError, match="ZeroDivisionError"):
        client.content.rootFolder.UnregisterAndDestroy_Task()
    assert "a bug in an operation" in server.logged()


@pytest.mark.parametrize("path", ["/sdk/vimService.wsdl", "/other", "/counts"])
def test_other_paths_do_not_exist(server: Served, path: str) -> None:
    connection = http.client.HTTPSConnection(server.host, server.port, context=server.tls, timeout=20)
    connection.request("GET", path)
    assert connection.getresponse().status == 404
    connection.close()


def test_text_survives_the_way_there_and_back(client: t.Any) -> None:
    name = "Ünïcode <&>\"' ]]> \u2028 😀"
    folder = client.content.rootFolder.CreateFolder(name)
    assert folder.name == name
    with pytest.raises(vim.fault.DuplicateName) as caught:
        client.content.rootFolder.CreateFolder(name)
    assert caught.value.name == name
