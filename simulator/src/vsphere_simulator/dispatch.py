"""From a request to its reply: who asks, may they, who answers, what went wrong."""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import logging
import re
import typing as t

from vsphere_simulator.counters import Counters
from vsphere_simulator.encode import Encoded, Encoder, encoder_for
from vsphere_simulator.injection import FaultRule, FaultRules
from vsphere_simulator.kernel.objects import Context, ManagedEntity, ManagedObject, MethodEntry, current_context
from vsphere_simulator.kernel.paths import resolve
from vsphere_simulator.kernel.property_collector import not_authenticated
from vsphere_simulator.kernel.selection import privilege_of
from vsphere_simulator.kernel.sessions import Caller, current_caller
from vsphere_simulator.kernel.tasks import next_task_rule
from vsphere_simulator.soap import (
    HEAD,
    NAMESPACE,
    TAIL,
    BadRequestError,
    Request,
    fault_response,
    negotiate,
    read_request,
    response,
)
from vsphere_simulator.vmomi import Reference, conform, support, vmodl

if t.TYPE_CHECKING:
    from vsphere_simulator.kernel.registry import World

log = logging.getLogger(__name__)
_CALLERS_MISTAKES: t.Final = (
    support.GetVmodlType("vim.fault.NotAuthenticated"),
    vmodl.fault.ManagedObjectNotFound,
)
"""Faults of calls without a session that is valid, and on objects that are not there; both are logged."""

_ANONYMOUS = "System.Anonymous"
_REFUSED = "The simulator does not support {what}. A vCenter might; see the simulator's list of supported methods."


class DropConnectionError(Exception):
    """A fault rule asks that the client gets no answer."""


@dataclasses.dataclass(slots=True)
class Reply:
    """What goes back over HTTP."""

    status: int
    chunks: list[bytes]
    cookie: str | None = None
    """New session token, after a login."""


class Dispatcher:
    """Answers the SOAP requests of all clients of one world."""

    def __init__(
        self,
        world: World,
        *,
        newest: str,
        counters: Counters | None = None,
        rules: FaultRules | None = None,
        latency: float = 0.0,
    ) -> None:
        self.world = world
        self.newest = newest
        self.counters = counters or Counters()
        self.rules = rules or FaultRules()
        self.latency = latency
        """Real seconds added to every call, as a distant vCenter would."""

    async def handle(self, body: bytes, soap_action: str, token: str | None, caller: Caller) -> Reply:
        """Answer one request; DropConnectionError when a fault rule says so."""
        try:
            version = negotiate(soap_action, self.newest)
        except BadRequestError as problem:
            return self._refuse(problem, self.newest)
        try:
            request = read_request(body)
        except BadRequestError as problem:
            return self._refuse(problem, version)
        self.counters.requests[request.method] += 1
        if self.latency:
            await asyncio.sleep(self.latency)
        session = self.world.sessions.find(token or request.session_token)
        ctx = Context(self.world, session, version)
        encoder = encoder_for(version)
        if session is not None:
            session.waiting += 1
            session.calls += 1
            self.world.sessions.touch(session)
        marks = current_context.set(ctx), current_caller.set(caller)
        try:
            chunks = await self._answer(ctx, request, encoder)
        except vmodl.MethodFault as fault:
            shown = self._as_seen_by(ctx, request, fault)
            if isinstance(shown, _CALLERS_MISTAKES):
                log.warning("%s on %s: %s", request.method, request.target._GetMoId(), type(shown).__name__)
            return Reply(500, [fault_response(shown, encoder)])
        except (DropConnectionError, asyncio.CancelledError):
            raise
        except Exception as problem:
            log.exception("%s on %s failed inside the simulator", request.method, request.target._GetMoId())
            reason = f"{type(problem).__name__}: {problem}"
            broken = vmodl.fault.SystemError(reason=reason, msg=f"A general system error occurred: {reason}")
            return Reply(500, [fault_response(broken, encoder)])
        finally:
            current_context.reset(marks[0])
            current_caller.reset(marks[1])
            if session is not None:
                session.waiting -= 1
                self.world.sessions.touch(session)
        logged_in = ctx.session is not None and ctx.session is not session
        if logged_in:
            self.counters.logins += 1
        return Reply(200, chunks, ctx.session.token if ctx.session is not None and logged_in else None)

    def _refuse(self, problem: BadRequestError, version: str) -> Reply:
        log.warning("bad request: %s", problem)
        fault = vmodl.fault.InvalidRequest(msg=str(problem))
        return Reply(500, [fault_response(fault, encoder_for(version), client=problem.client)])

    def _as_seen_by(self, ctx: Context, request: Request, fault: t.Any) -> t.Any:
        """Tell a caller without a session only that: what its last session owned is gone with it."""
        if ctx.session is None and isinstance(fault, vmodl.fault.ManagedObjectNotFound):
            return not_authenticated_at(request.target, "System.View")
        return fault

    async def _answer(self, ctx: Context, request: Request, encoder: Encoder) -> list[bytes]:
        if request.info is None:
            return [response("Fetch", self._fetch(ctx, request, encoder))]
        info = request.info
        if ctx.session is None and info.privId != _ANONYMOUS:
            raise not_authenticated_at(request.target, info.privId or "System.View")
        obj = self.world.get(request.target)
        entry = obj.methods.get(request.method)
        if not issubclass(obj.wsdl, info.type) or not encoder.knows(info.version):
            raise vmodl.fault.MethodNotFound(
                receiver=obj.ref, method=info.name, msg=f"{info.type.__name__} has no method {info.name} here."
            )
        if entry is None:
            log.warning("%s.%s is not supported", obj.wsdl.__name__, request.method)
            raise vmodl.fault.NotSupported(msg=_REFUSED.format(what=f"{obj.wsdl.__name__}.{request.method}"))
        arguments = self._arguments(entry, request)
        self._check_privileges(ctx, obj, entry, request)
        rule = self.rules.matching(request.method, _names(obj, request, self.world))
        await self._apply(rule)
        mark = next_task_rule.set(rule)
        try:
            result = entry.function(obj, **({"ctx": ctx} if "ctx" in entry.accepts else {}), **arguments)
            if entry.is_async:
                result = await result
        finally:
            next_task_rule.reset(mark)
        await self._hold(rule)
        return self._encode(request, result, encoder)

    def _encode(self, request: Request, result: t.Any, encoder: Encoder) -> list[bytes]:
        if isinstance(result, Encoded):
            start = f'<{request.method}Response xmlns="{NAMESPACE}">'.encode()
            return [HEAD + start, *result, f"</{request.method}Response>".encode() + TAIL]
        declared = request.info.result
        element = "" if result is None else encoder.element("returnval", conform(result, declared), declared)
        return [response(request.method, element)]

    def _fetch(self, ctx: Context, request: Request, encoder: Encoder) -> str:
        """Answer a property getter of pyVmomi."""
        path = request.arguments["prop"]
        found = self.world.objects.get(request.target._GetMoId())
        privilege = privilege_of(type(found), path) if found is not None else "System.View"
        if ctx.session is None and privilege != _ANONYMOUS:
            raise not_authenticated_at(request.target, privilege)
        obj = self.world.get(request.target)
        get = resolve(type(obj), path)
        self._require(ctx, obj, privilege)
        declared = support.GetPropertyInfo(obj.wsdl, path).type if "." not in path else object
        return encoder.element("returnval", get(obj), declared)

    def _require(self, ctx: Context, obj: ManagedObject, privilege: str) -> None:
        if privilege in ("", _ANONYMOUS):
            return
        if ctx.session is None:
            raise not_authenticated(obj, privilege)
        self.world.authorization.require(ctx.session, obj, privilege)

    def _check_privileges(self, ctx: Context, obj: ManagedObject, entry: MethodEntry, request: Request) -> None:
        """Check the method's privilege on the object, and those of parameters on what they name."""
        privilege = entry.privilege if entry.privilege is not None else request.info.privId
        self._require(ctx, obj, privilege or "")
        for param in request.info.params:
            if param.privId:
                for target in _references(request.arguments[param.name]):
                    named = self.world.objects.get(target._GetMoId())
                    if named is not None:
                        self._require(ctx, named, param.privId)

    def _arguments(self, entry: MethodEntry, request: Request) -> dict[str, t.Any]:
        """Return what a function is called with; NotSupported for a set parameter that it does not take."""
        taken: dict[str, t.Any] = {}
        for name, value in request.arguments.items():
            own = name if name in entry.accepts else _snake(name)
            if own in entry.accepts:
                taken[own] = self._resolved(value) if entry.resolve else value
            elif value if isinstance(value, bool | list) else value is not None:
                raise vmodl.fault.NotSupported(msg=_REFUSED.format(what=f"{name} of {request.method}"))
        return taken

    def _resolved(self, value: t.Any) -> t.Any:
        if isinstance(value, Reference):
            return self.world.get(value)
        if isinstance(value, list) and value and isinstance(value[0], Reference):
            return [self.world.get(item) for item in value]
        return value

    async def _apply(self, rule: FaultRule | None) -> None:
        if rule is None:
            return
        if rule.delay_s is not None:
            await asyncio.sleep(rule.delay_s)
        elif rule.drop_connection:
            raise DropConnectionError
        elif rule.fault is not None and rule.fail_task_at is None:
            raise rule.fault.build()

    async def _hold(self, rule: FaultRule | None) -> None:
        """What a rule does between carrying a call out and answering it."""
        if rule is not None and rule.answer_after_s is not None:
            await asyncio.sleep(rule.answer_after_s)
        if rule is not None and rule.lose_answer:
            raise DropConnectionError


def not_authenticated_at(reference: t.Any, privilege: str) -> Exception:
    """Return the fault for a caller without a session, naming what it wanted."""
    fault: Exception = support.GetVmodlType("vim.fault.NotAuthenticated")(
        object=reference, privilegeId=privilege, msg="The session is not authenticated."
    )
    return fault


def _references(value: t.Any) -> list[t.Any]:
    if isinstance(value, Reference):
        return [value]
    return [item for item in value if isinstance(item, Reference)] if isinstance(value, list) else []


def _names(obj: ManagedObject, request: Request, world: World) -> list[str]:
    """Return the names by which fault rules may know a call: the object's, its owner's, its arguments'."""
    objects = [obj]
    if not isinstance(obj, ManagedEntity) and obj.parent is not None:
        objects.append(obj.parent)
    names = []
    for argument, value in request.arguments.items():
        objects += [world.objects[ref._moId] for ref in _references(value) if ref._moId in world.objects]
        if argument in ("name", "newName") and isinstance(value, str):
            names.append(value)
    return [name for one in objects for name in (one.name, one.moid) if name] + names


@functools.cache
def _snake(name: str) -> str:
    """Return `percentDone` as `percent_done`."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()
