"""HTTP: the SOAP endpoint over TLS, and the counts over plain HTTP on loopback."""

from __future__ import annotations

import asyncio
import errno
import functools
import logging
import os
import re
import socket
import typing as t

from aiohttp import web

from vsphere_simulator.dispatch import Dispatcher, DropConnectionError, Reply
from vsphere_simulator.kernel.sessions import Caller
from vsphere_simulator.rest.endpoint import RestEndpoint
from vsphere_simulator.soap import service_versions

if t.TYPE_CHECKING:
    import ssl

log = logging.getLogger(__name__)

MAX_BODY = 64 * 1024 * 1024
"""Bytes a request may have; a larger one is answered 413."""
_KEEP_ALIVE = 900.0
"""Seconds an idle connection stays open: as long as pyVmomi keeps it in its pool."""
_HANDSHAKE = 15.0
"""Seconds a client has for its TLS handshake."""
_COOKIE = re.compile(r'vmware_soap_session="?([0-9A-Za-z-]+)"?')
_XML = "text/xml; charset=utf-8"


class AddressInUseError(OSError):
    """The port asked for cannot be listened on; the text says why."""


class SoapEndpoint:
    """The handlers of `/sdk`."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self.dispatcher = dispatcher

    def application(self) -> web.Application:
        """Return the aiohttp application."""
        app = web.Application(client_max_size=MAX_BODY)
        app.router.add_post("/sdk", self.call)
        app.router.add_post("/sdk/", self.call)
        app.router.add_get("/sdk/vimServiceVersions.xml", self.versions)
        app.router.add_get("/", self.about)
        RestEndpoint(self.dispatcher).add_to(app)
        return app

    async def call(self, request: web.Request) -> web.StreamResponse:
        """Answer a SOAP request."""
        try:
            body = await _read(request)
        except web.HTTPRequestEntityTooLarge:
            log.warning("bad request: a body of more than %d bytes from %s", MAX_BODY, request.remote)
            raise
        found = _COOKIE.search(request.headers.get("Cookie", ""))
        caller = Caller(request.remote or "", request.headers.get("User-Agent", ""))
        action = request.headers.get("SOAPAction", "")
        try:
            reply = await self.dispatcher.handle(body, action, found[1] if found else None, caller)
        except DropConnectionError:
            if request.transport is not None:
                request.transport.abort()
            return web.Response(status=503)
        return await _send(request, reply)

    async def versions(self, _request: web.Request) -> web.Response:
        """Tell which API versions the server speaks."""
        return web.Response(text=service_versions(self.dispatcher.newest), content_type="text/xml")

    async def about(self, _request: web.Request) -> web.Response:
        """Say what this is to somebody who opens it in a browser."""
        return web.Response(text="A simulated vCenter. Its API is at /sdk.\n")


async def _read(request: web.Request) -> bytes:
    """The body of a request; HTTPRequestEntityTooLarge before it is read where its length is told."""
    if request.content_length is not None and request.content_length > MAX_BODY:
        raise web.HTTPRequestEntityTooLarge(MAX_BODY, request.content_length)
    return await request.read()


async def _send(request: web.Request, reply: Reply) -> web.StreamResponse:
    """Send a reply chunk by chunk, so that a large one is never copied into one piece."""
    sent = web.StreamResponse(status=reply.status, headers={"Content-Type": _XML, "Cache-Control": "no-cache"})
    sent.content_length = sum(map(len, reply.chunks))
    if reply.cookie is not None:
        sent.headers["Set-Cookie"] = f'vmware_soap_session="{reply.cookie}"; Path=/; HttpOnly; Secure'
    await sent.prepare(request)
    for chunk in reply.chunks:
        await sent.write(chunk)
    await sent.write_eof()
    return sent


class CountsEndpoint:
    """The handlers of the counts: `GET /counts`, `GET /counts/privileges`, `POST /counts/reset`."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self.counters = dispatcher.counters
        self.asked = dispatcher.world.authorization.asked

    def application(self) -> web.Application:
        """Return the aiohttp application."""
        app = web.Application()
        app.router.add_get("/counts", self.counts)
        app.router.add_get("/counts/privileges", self.privileges)
        app.router.add_post("/counts/reset", self.reset)
        return app

    async def counts(self, _request: web.Request) -> web.Response:
        """Tell the counts since the start or the last reset."""
        return web.json_response(self.counters.as_dict())

    async def privileges(self, _request: web.Request) -> web.Response:
        """Tell how often calls asked for each privilege, held or not."""
        return web.json_response(dict(sorted(self.asked.items())))

    async def reset(self, _request: web.Request) -> web.Response:
        """Start again from zero."""
        self.counters.reset()
        self.asked.clear()
        return web.json_response(self.counters.as_dict())


class Accepted(asyncio.Protocol):
    """A connection whose TLS handshake is under way; then `factory` makes what answers it.

    asyncio says nothing of a handshake that fails, hence one that has not ended in time is logged here.
    """

    def __init__(self, factory: t.Callable[[], asyncio.Protocol], seconds: float = _HANDSHAKE) -> None:
        self._factory = factory
        late = log.warning
        self._timer = asyncio.get_running_loop().call_later(
            seconds, late, "bad request: a connection without a TLS handshake after %g s", seconds
        )

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Hand the connection over."""
        self._timer.cancel()
        protocol = self._factory()
        transport.set_protocol(protocol)
        protocol.connection_made(transport)


def _why(problem: OSError | OverflowError) -> str:
    """Why a port cannot be listened on, without asyncio's own words."""
    if not isinstance(problem, OSError):
        return str(problem)
    if isinstance(problem, socket.gaierror):
        return problem.strerror or "unknown host"
    number = problem.errno or errno.EADDRNOTAVAIL  # asyncio leaves it out where no address of the host can be had
    advice = "; choose another port (0: any free one)" if number == errno.EADDRINUSE else ""
    return os.strerror(number) + advice


class Server:
    """Both endpoints, listening."""

    def __init__(self, dispatcher: Dispatcher, tls: ssl.SSLContext) -> None:
        self.dispatcher = dispatcher
        self.tls = tls
        self.port = 0
        self.counts_port = 0
        self._runners: list[web.AppRunner] = []
        self._listeners: list[asyncio.Server] = []

    async def start(self, host: str, port: int) -> None:
        """Listen; port 0 takes a free one. AddressInUseError if that cannot be."""
        soap = SoapEndpoint(self.dispatcher).application()
        self.port = await self._listen(soap, host, port, self.tls)
        self.counts_port = await self._listen(CountsEndpoint(self.dispatcher).application(), "127.0.0.1", 0, None)

    async def _listen(self, app: web.Application, host: str, port: int, tls: ssl.SSLContext | None) -> int:
        runner = web.AppRunner(
            app, access_log=None, keepalive_timeout=_KEEP_ALIVE, handler_cancellation=True, shutdown_timeout=1.0
        )
        await runner.setup()
        self._runners.append(runner)
        loop = asyncio.get_running_loop()
        server = t.cast("t.Callable[[], asyncio.Protocol]", runner.server)
        factory = server if tls is None else functools.partial(Accepted, server)
        try:
            timeout = _HANDSHAKE if tls is not None else None
            listener = await loop.create_server(
                factory, host, port, ssl=tls, ssl_handshake_timeout=timeout, backlog=512
            )
        except (OSError, OverflowError) as problem:
            raise AddressInUseError(f"cannot listen on {host}:{port}: {_why(problem)}") from None
        self._listeners.append(listener)
        for bound in listener.sockets:
            if bound.family in (socket.AF_INET, socket.AF_INET6):
                return int(bound.getsockname()[1])
        raise AddressInUseError(f"cannot listen on {host}:{port}")

    async def stop(self) -> None:
        """Stop listening and let go of every connection."""
        for listener in self._listeners:
            listener.close()
        for runner in self._runners:
            await runner.cleanup()
        self._listeners.clear()
        self._runners.clear()
