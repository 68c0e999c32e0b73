"""The property collector: bulk reads, paging, and filters that report changes."""

from __future__ import annotations

import asyncio
import functools
import itertools
import typing as t

from vsphere_simulator.encode import Encoded, Encoder, encoder_for
from vsphere_simulator.kernel.objects import Context, ManagedObject, method, prop
from vsphere_simulator.kernel.selection import ReadProperty, Selection
from vsphere_simulator.kernel.updates import Filter, UpdateLog
from vsphere_simulator.kernel.views import session_moid
from vsphere_simulator.vmomi import make, vim, vmodl

if t.TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from vsphere_simulator.kernel.registry import World
    from vsphere_simulator.kernel.sessions import Session

_YIELD_EVERY = 100
"""Objects read before other clients get their turn."""
_LONGEST_WAIT = 1800.0
"""Real seconds after which a wait without a limit of its own returns empty-handed."""

_query = vmodl.query.PropertyCollector


class Page(t.NamedTuple):
    """One object still to be reported by a paged retrieval."""

    obj: ManagedObject
    reads: list[ReadProperty]


class ObjectWriter:
    """Writes the properties of objects as XML, for one caller."""

    def __init__(self, ctx: Context) -> None:
        self.world = ctx.world
        self.session = ctx.session
        self.encoder: Encoder = encoder_for(ctx.version)
        self._write_any = self.encoder.writer(object)
        user = ctx.user
        self._unrestricted = ctx.session is not None and self.world.authorization.unrestricted(user)
        self._user = user

    def fault_for(self, obj: ManagedObject, privilege: str) -> t.Any:
        """Return the fault that keeps the caller from a property, or None."""
        if self._unrestricted or privilege == "System.Anonymous":
            return None
        if self.session is None:
            return not_authenticated(obj, privilege)
        if self.world.authorization.holds(self._user, obj, privilege):
            return None
        return vim.fault.NoPermission(object=obj.ref, privilegeId=privilege)

    def content(self, tag: str, obj: ManagedObject, reads: Iterable[ReadProperty]) -> str:
        """Return an `ObjectContent` element: what is set, and what the caller may not see."""
        parts: list[str] = [f'<{tag}><obj type="{obj.ref._wsdlName}">{obj.moid}</obj>']
        append = parts.append
        missing: list[str] = []
        for path, get, privilege in ((read.path, read.get, read.privilege) for read in reads):
            fault = self.fault_for(obj, privilege)
            if fault is not None:
                missing.append(self._missing(path, fault))
                continue
            value = get(obj)
            if value is None:
                continue
            append(f"<propSet><name>{path}</name>")
            self._write_any(append, "val", value)
            append("</propSet>")
        parts.extend(missing)
        append(f"</{tag}>")
        return "".join(parts)

    def _missing(self, path: str, fault: t.Any) -> str:
        entry = make(vmodl.query.PropertyCollector.MissingProperty, path=path, fault=fault)
        return self.encoder.element("missingSet", entry, _query.MissingProperty)


def not_authenticated(obj: ManagedObject, privilege: str) -> Exception:
    """Return the fault for a caller without a session."""
    fault: Exception = vim.fault.NotAuthenticated(
        object=obj.ref, privilegeId=privilege, msg="The session is not authenticated."
    )
    return fault


class PropertyCollector(ManagedObject):
    """One collector: the session's default one, or one that a client made for itself.

    The default collector is one object to which each session has its own state.
    """

    wsdl = _query
    volatile = True

    def __init__(self, world: World, moid: str, session: Session | None = None) -> None:
        super().__init__(world, moid)
        self.session = session
        self._states: dict[str, CollectorState] = {}

    def state(self, session: Session | None) -> CollectorState:
        """Return the state that a session has at this collector."""
        key = session.key if session is not None else ""
        found = self._states.get(key)
        if found is None:
            found = self._states[key] = CollectorState(self.world)
            if session is not None and self.session is None:
                session.cleanups.append(functools.partial(self.drop_state, key))
        return found

    def drop_state(self, key: str) -> None:
        """Forget a session that has ended."""
        state = self._states.pop(key, None)
        if state is not None:
            state.close()

    def on_removed(self) -> None:
        """Forget all filters, and wake whoever waits for them."""
        for key in list(self._states):
            self.drop_state(key)
        if self.session is not None:
            self.session.owned.pop(self.moid, None)

    @prop("filter")
    def _filters(self) -> list[ManagedObject]:
        return [known for state in self._states.values() for known in state.updates.filters.values()]

    @method("CreatePropertyCollector")
    def create(self, ctx: Context) -> ManagedObject:
        """Make a collector that shares nothing with others."""
        made = PropertyCollector(self.world, session_moid(ctx.session, "collector"), ctx.session)
        if ctx.session is not None:
            ctx.session.owned[made.moid] = made
        return self.world.add(made)

    @method("DestroyPropertyCollector", privilege="")
    def destroy(self) -> None:
        """Forget the collector; the default one stays."""
        if self.session is None:
            raise vmodl.fault.NotSupported(msg="The default property collector cannot be destroyed.")
        self.world.remove(self)

    @method("RetrievePropertiesEx")
    async def retrieve_ex(self, ctx: Context, spec_set: list[t.Any], options: t.Any) -> Encoded | None:
        """Read properties of selected objects, at most `maxObjects` of them at once."""
        limit = options.maxObjects if options is not None else None
        if limit is not None and limit <= 0:
            raise vmodl.fault.InvalidArgument(invalidProperty="options.maxObjects")
        pages = _select(self.world, spec_set)
        return await self._page(ctx, self.state(ctx.session), pages, limit)

    @method("ContinueRetrievePropertiesEx")
    async def continue_retrieve(self, ctx: Context, token: str) -> Encoded | None:
        """Read the next page."""
        state = self.state(ctx.session)
        pages, limit = state.take(token)
        return await self._page(ctx, state, pages, limit)

    @method("CancelRetrievePropertiesEx")
    def cancel_retrieve(self, ctx: Context, token: str) -> None:
        """Forget the pages not yet read."""
        self.state(ctx.session).take(token)

    @method("RetrieveProperties")
    async def retrieve(self, ctx: Context, spec_set: list[t.Any]) -> Encoded:
        """Read properties of selected objects, all at once."""
        return await _write(ctx, "returnval", iter(_select(self.world, spec_set)))

    async def _page(self, ctx: Context, state: CollectorState, pages: list[Page], limit: int | None) -> Encoded | None:
        if not pages:
            return None
        now, later = (pages, []) if limit is None else (pages[:limit], pages[limit:])
        result = await _write(ctx, "objects", iter(now))
        token = f"<token>{state.keep(later, limit)}</token>" if later else ""
        result.insert(0, f"<returnval>{token}".encode())
        result.append(b"</returnval>")
        return result

    @method("CreateFilter")
    def create_filter(self, ctx: Context, spec: t.Any, partial_updates: bool) -> ManagedObject:
        """Watch the objects of a filter spec."""
        state = self.state(ctx.session)
        made = Filter(self.world, session_moid(ctx.session, "filter"), state.updates, spec, partial_updates)
        return self.world.add(made)

    @method("WaitForUpdatesEx")
    async def wait_for_updates_ex(self, ctx: Context, version: str | None, options: t.Any) -> Encoded | None:
        """Report changes since a version, waiting for some if there are none."""
        limit = options.maxObjectUpdates if options is not None else None
        if limit is not None and limit <= 0:
            raise vmodl.fault.InvalidArgument(invalidProperty="options.maxObjectUpdates")
        seconds = options.maxWaitSeconds if options is not None else None
        if seconds is not None and seconds < 0:
            raise vmodl.fault.InvalidArgument(invalidProperty="options.maxWaitSeconds")
        wait = _LONGEST_WAIT if seconds is None else min(float(seconds), _LONGEST_WAIT)
        return await self.state(ctx.session).wait(ctx, version, wait, limit)

    @method("WaitForUpdates")
    async def wait_for_updates(self, ctx: Context, version: str | None) -> Encoded | None:
        """Report changes since a version, waiting for as long as it takes."""
        state = self.state(ctx.session)
        while True:
            found = await state.wait(ctx, version, _LONGEST_WAIT, None)
            if found is not None:
                return found

    @method("CheckForUpdates")
    async def check_for_updates(self, ctx: Context, version: str | None) -> Encoded | None:
        """Report changes since a version, if there are any."""
        return await self.state(ctx.session).wait(ctx, version, 0.0, None)

    @method("CancelWaitForUpdates")
    def cancel_wait(self, ctx: Context) -> None:
        """End waits that are under way."""
        self.state(ctx.session).cancel()


class CollectorState:
    """What one session keeps at one collector: pages to come, filters, waits under way."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.updates = UpdateLog(world)
        self._pages: dict[str, tuple[list[Page], int | None]] = {}
        self._tokens = itertools.count(1)
        self._waits: set[asyncio.Task[t.Any]] = set()
        self._cancelled: set[asyncio.Task[t.Any]] = set()

    def keep(self, pages: list[Page], limit: int | None) -> str:
        """Keep pages for later and return their token."""
        token = str(next(self._tokens))
        self._pages[token] = (pages, limit)
        return token

    def take(self, token: str) -> tuple[list[Page], int | None]:
        """Return the pages of a token, once; InvalidArgument for one that is not (or no longer) known."""
        try:
            return self._pages.pop(token)
        except KeyError:
            raise vmodl.fault.InvalidArgument(invalidProperty="token", msg=f"No retrieval has token {token}.") from None

    async def wait(self, ctx: Context, version: str | None, seconds: float, limit: int | None) -> Encoded | None:
        """Return the updates since a version as soon as there are any, None after `seconds` (real)."""
        since = self.updates.parse(version)
        deadline = asyncio.get_running_loop().time() + seconds
        while True:
            self.updates.news.clear()
            found = await self.updates.collect(since, limit, ObjectWriter(ctx))
            if found is not None:
                return found
            remaining = deadline - asyncio.get_running_loop().time()
            if remaining <= 0 or not await self._news_within(remaining):
                return None

    async def _news_within(self, seconds: float) -> bool:
        """Wait for news; RequestCanceled when the wait is cancelled or the collector is gone."""
        waiting = asyncio.ensure_future(self.updates.news.wait())
        self._waits.add(waiting)
        try:
            await asyncio.wait({waiting}, timeout=seconds)
            if waiting in self._cancelled:
                raise vmodl.fault.RequestCanceled(msg="The wait for updates was canceled.")
            return waiting.done()
        finally:
            self._waits.discard(waiting)
            self._cancelled.discard(waiting)
            waiting.cancel()

    def cancel(self) -> None:
        """End the waits under way with RequestCanceled."""
        for waiting in self._waits:
            self._cancelled.add(waiting)
            waiting.cancel()

    def close(self) -> None:
        """Let go of everything."""
        self.cancel()
        for known in list(self.updates.filters.values()):
            self.world.remove(known)
        self._pages.clear()


def _select(world: World, spec_set: list[t.Any]) -> list[Page]:
    """Return what specs select, each object once for each spec."""
    pages = []
    for spec in spec_set:
        selection = Selection(world, spec)
        for obj in selection.objects():
            plan = selection.plan(type(obj))
            if plan is not None:
                pages.append(Page(obj, plan.reads))
    return pages


async def _write(ctx: Context, tag: str, pages: Iterator[Page]) -> Encoded:
    """Write objects in chunks, letting other clients have their turn; objects gone meanwhile are left out."""
    writer = ObjectWriter(ctx)
    result = Encoded()
    while batch := list(itertools.islice(pages, _YIELD_EVERY)):
        present = (page for page in batch if page.obj.moid in ctx.world.objects)
        result.append("".join(writer.content(tag, page.obj, page.reads) for page in present).encode())
        await asyncio.sleep(0)
    return result
