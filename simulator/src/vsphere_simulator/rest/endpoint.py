"""HTTP of the REST API: reads a request of either form, finds who answers, writes the answer in that form."""

from __future__ import annotations

import asyncio
import base64
import binascii
import inspect
import json
import logging
import typing as t

from aiohttp import web

from vsphere_simulator.kernel.objects import Context, current_context
from vsphere_simulator.kernel.sessions import Caller, current_caller
from vsphere_simulator.kernel.tasks import next_task_rule
from vsphere_simulator.rest.errors import ApiError, invalid, of_fault
from vsphere_simulator.rest.operations import Call, find
from vsphere_simulator.rest.session import HEADER
from vsphere_simulator.vmomi import vmodl

if t.TYPE_CHECKING:
    from vsphere_simulator.dispatch import Dispatcher
    from vsphere_simulator.injection import FaultRule
    from vsphere_simulator.kernel.sessions import Session
    from vsphere_simulator.rest.operations import Operation

log = logging.getLogger(__name__)

_WRAPPERS: t.Final = ("create_spec", "update_spec", "spec", "create", "update")
"""Names under which the older form sends what the newer one sends bare."""


class RestEndpoint:
    """The handlers of `/api` and `/rest`."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self.dispatcher = dispatcher
        self.world = dispatcher.world

    def add_to(self, app: web.Application) -> None:
        """Add the routes."""
        for root in ("/api", "/rest"):
            app.router.add_route("*", root + "/{tail:.*}", self.handle)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answer a request."""
        old = request.path.startswith("/rest/")
        try:
            status, result = await self._answer(request, old=old)
        except ApiError as problem:
            return _reply(problem.status, problem.body(old=old), problem)
        except vmodl.MethodFault as fault:
            seen = of_fault(fault)
            return _reply(seen.status, seen.body(old=old), seen)
        except asyncio.CancelledError:
            raise
        except ConnectionAbortedError:
            if request.transport is not None:
                request.transport.abort()
            return web.Response(status=503)
        except Exception as bug:
            log.exception("%s %s failed inside the simulator", request.method, request.path)
            broken = ApiError("INTERNAL_SERVER_ERROR", f"{type(bug).__name__}: {bug}")
            return _reply(broken.status, broken.body(old=old), broken)
        if old:
            return _reply(200, {"value": result} if result is not None else None)
        return _reply(status if result is not None else 204, result)

    async def _answer(self, request: web.Request, *, old: bool) -> tuple[int, t.Any]:
        path, query = _modern(request) if old else (request.path, _query(request))
        try:
            operation, values = find(request.method, path, query)
        except ApiError:
            if self._session(request) is None:
                raise _unauthenticated() from None
            log.warning("%s %s is not supported", request.method, path)
            raise
        self.dispatcher.counters.requests[operation.label] += 1
        if self.dispatcher.latency:
            await asyncio.sleep(self.dispatcher.latency)
        session = self._session(request)
        if session is None and not operation.anonymous:
            raise _unauthenticated()
        ctx = Context(self.world, session, self.dispatcher.newest)
        if session is not None:
            session.calls += 1
            self.world.sessions.touch(session)
            self._check_privileges(session, operation, values)
        body = await _body(request, old=old)
        call = Call(ctx, values, query, body, _basic(request))
        rule = self.dispatcher.rules.matching(operation.label, self._names(values))
        marks = (
            current_context.set(ctx),
            current_caller.set(Caller(request.remote or "", request.headers.get("User-Agent", ""))),
            next_task_rule.set(rule),
        )
        try:
            await _apply(rule)
            result = operation.function(call)
            if inspect.isawaitable(result):
                result = await result
            await _hold(rule)
        finally:
            current_context.reset(marks[0])
            current_caller.reset(marks[1])
            next_task_rule.reset(marks[2])
        if ctx.session is not None and ctx.session is not session:
            self.dispatcher.counters.logins += 1
        return operation.status, result

    def _check_privileges(self, session: Session, operation: Operation, values: dict[str, str]) -> None:
        """Raise NoPermission for a privilege missing to execute the operation, or on the cluster it names."""
        cluster = self.world.objects.get(values.get("cluster", ""))
        for obj in (self.world.root, *([cluster] if cluster is not None else [])):
            for privilege in operation.privileges:
                self.world.authorization.require(session, obj, privilege)

    def _session(self, request: web.Request) -> t.Any:
        token = request.headers.get(HEADER) or request.cookies.get(HEADER)
        return self.world.sessions.find(token)

    def _names(self, values: dict[str, str]) -> list[str]:
        found = [self.world.objects[value].name for value in values.values() if value in self.world.objects]
        return [*found, *values.values(), ""]


async def _apply(rule: FaultRule | None) -> None:
    """Do what a fault rule asks, as for a SOAP method."""
    if rule is None:
        return
    if rule.delay_s is not None:
        await asyncio.sleep(rule.delay_s)
    elif rule.drop_connection:
        raise ConnectionAbortedError
    elif rule.fault is not None and rule.fail_task_at is None:
        raise rule.fault.build()


async def _hold(rule: FaultRule | None) -> None:
    """What a rule does between carrying a call out and answering it."""
    if rule is not None and rule.answer_after_s is not None:
        await asyncio.sleep(rule.answer_after_s)
    if rule is not None and rule.lose_answer:
        raise ConnectionAbortedError


def _unauthenticated() -> ApiError:
    return ApiError("UNAUTHENTICATED", "Authentication required.")


def _query(request: web.Request) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for key, value in request.query.items():
        found.setdefault(key, []).extend(value.split(",") if key.endswith("s") else [value])
    return found


def _modern(request: web.Request) -> tuple[str, dict[str, list[str]]]:
    """Path and query of the older form, as the newer one has them."""
    path = "/api/" + request.path.removeprefix("/rest/").removeprefix("com/vmware/")
    path = "/".join(part.removeprefix("id:") for part in path.split("/"))
    query: dict[str, list[str]] = {}
    for key, value in request.query.items():
        parts = key.removeprefix("~").removeprefix("filter.").split(".")
        query.setdefault(parts[0], []).append(value)
    return path, query


async def _body(request: web.Request, *, old: bool) -> t.Any:
    text = await request.text()
    if not text.strip():
        return None
    try:
        body = json.loads(text)
    except ValueError as problem:
        raise invalid(f"The body is not JSON: {problem}") from None
    except RecursionError:
        raise invalid("The body is nested too deeply.") from None
    if old and isinstance(body, dict) and len(body) == 1:
        name = next(iter(body))
        return body[name] if name in _WRAPPERS else body
    return body


def _basic(request: web.Request) -> tuple[str, str] | None:
    scheme, _, encoded = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        user, colon, password = base64.b64decode(encoded, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return None
    return (user, password) if colon else None


def _reply(status: int, body: t.Any, problem: ApiError | None = None) -> web.Response:
    headers = {"Cache-Control": "no-store"}
    if problem is not None and problem.kind == "UNAUTHENTICATED":
        headers["WWW-Authenticate"] = 'Basic realm="VAPI endpoint"'
    if body is None:
        return web.Response(status=status, headers=headers)
    return web.json_response(body, status=status, headers=headers)
