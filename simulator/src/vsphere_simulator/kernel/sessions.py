"""Sessions: who is logged in, and until when."""

from __future__ import annotations

import contextvars
import dataclasses
import datetime as dt
import secrets
import typing as t
import uuid

from vsphere_simulator.kernel.objects import Context, ManagedObject, current_context, method, prop
from vsphere_simulator.vmomi import make, vim, vmodl

if t.TYPE_CHECKING:
    from collections.abc import Callable

    from vsphere_simulator.kernel.registry import World

IDLE_TIMEOUT = 30 * 60.0
"""Real seconds without a request after which a session ends."""


@dataclasses.dataclass(slots=True, eq=False)
class Session:
    """One login."""

    key: str
    """Public id of the session (`UserSession.key`)."""
    token: str
    """Secret value of the cookie."""
    user: str
    login_time: dt.datetime
    locale: str = "en"
    ip_address: str = ""
    user_agent: str = ""
    last_active: float = 0.0
    """Real seconds on the world's clock."""
    last_active_time: dt.datetime | None = None
    calls: int = 0
    waiting: int = 0
    """Calls being answered now; a session that waits for updates is not idle."""
    owned: dict[str, ManagedObject] = dataclasses.field(default_factory=dict)
    """Views and collectors that end with the session."""
    cleanups: list[Callable[[], None]] = dataclasses.field(default_factory=list)
    """Called when the session ends."""

    def as_data(self) -> t.Any:
        """Return the API's `UserSession`."""
        return make(
            vim.UserSession,
            key=self.key,
            userName=self.user,
            fullName=self.user,
            loginTime=self.login_time,
            lastActiveTime=self.last_active_time or self.login_time,
            locale=self.locale,
            messageLocale=self.locale,
            extensionSession=False,
            ipAddress=self.ip_address,
            userAgent=self.user_agent,
            callCount=self.calls,
        )


class SessionTable:
    """All live sessions of a world."""

    def __init__(self, world: World, idle_timeout: float = IDLE_TIMEOUT) -> None:
        self.world = world
        self.idle_timeout = idle_timeout
        self._by_token: dict[str, Session] = {}

    def open(self, user: str, *, locale: str, ip_address: str, user_agent: str) -> Session:
        """Make a session for a user who has proved who they are."""
        session = Session(
            key=str(uuid.uuid4()),
            token=secrets.token_hex(20),
            user=user,
            login_time=self.world.clock.now(),
            locale=locale,
            ip_address=ip_address,
            user_agent=user_agent,
            last_active=self.world.clock.real_seconds(),
        )
        self._by_token[session.token] = session
        self.world.events.logged_in(session)
        return session

    def find(self, token: str | None) -> Session | None:
        """Return the live session of a cookie, or None; sessions idle for too long end here."""
        now = self.world.clock.real_seconds()
        for session in list(self._by_token.values()):
            if not session.waiting and now - session.last_active > self.idle_timeout:
                self.close(session)
        return self._by_token.get(token) if token else None

    def touch(self, session: Session) -> None:
        """Note that a session has been used."""
        session.last_active = self.world.clock.real_seconds()
        session.last_active_time = self.world.clock.now()

    def close(self, session: Session) -> None:
        """End a session with all that belongs to it."""
        if self._by_token.pop(session.token, None) is not None:
            self.world.events.logged_out(session)
        for obj in list(session.owned.values()):
            self.world.remove(obj)
        session.owned.clear()
        for cleanup in session.cleanups:
            cleanup()
        session.cleanups.clear()

    def by_key(self, key: str) -> Session | None:
        """Return the live session with a public id."""
        return next((session for session in self._by_token.values() if session.key == key), None)

    def all(self) -> list[Session]:
        """Return the live sessions, oldest first."""
        return list(self._by_token.values())


@dataclasses.dataclass(slots=True)
class Caller:
    """What is known of a client before it logs in."""

    ip_address: str = ""
    user_agent: str = ""


current_caller: contextvars.ContextVar[Caller | None] = contextvars.ContextVar("current_caller", default=None)


class SessionManager(ManagedObject):
    """Login and logout."""

    wsdl = vim.SessionManager
    volatile = True

    @prop("currentSession")
    def _current_session(self) -> t.Any:
        context = current_context.get()
        return context.session.as_data() if context is not None and context.session is not None else None

    @prop("sessionList")
    def _session_list(self) -> list[t.Any]:
        return [session.as_data() for session in self.world.sessions.all()]

    @prop("defaultLocale")
    def _default_locale(self) -> str:
        return "en"

    @prop("supportedLocaleList", "messageLocaleList")
    def _locales(self) -> list[str]:
        return ["en"]

    @method("Login")
    def login(self, ctx: Context, user_name: str, password: str, locale: str | None) -> t.Any:
        """Open a session and make it the caller's."""
        if not self.world.authorization.authenticate(user_name, password):
            raise vim.fault.InvalidLogin(msg="Cannot complete login due to an incorrect user name or password.")
        if ctx.session is not None:
            self.world.sessions.close(ctx.session)
        caller = current_caller.get() or Caller()
        ctx.session = self.world.sessions.open(
            user_name, locale=locale or "en", ip_address=caller.ip_address, user_agent=caller.user_agent
        )
        return ctx.session.as_data()

    @method("Logout")
    def logout(self, ctx: Context) -> None:
        """End the caller's session."""
        if ctx.session is not None:
            self.world.sessions.close(ctx.session)

    @method("SessionIsActive")
    def session_is_active(self, session_id: str, user_name: str) -> bool:
        """Say whether a session lives and belongs to a user."""
        found = self.world.sessions.by_key(session_id)
        return found is not None and found.user.casefold() == user_name.casefold()

    @method("TerminateSession")
    def terminate(self, ctx: Context, session_id: list[str]) -> None:
        """End other sessions by their keys."""
        for key in session_id:
            found = self.world.sessions.by_key(key)
            if found is None:
                raise vim.fault.NotFound(msg=f"There is no session {key}.")
            if found is ctx.session:
                raise vmodl.fault.InvalidArgument(invalidProperty="sessionId", msg="A session cannot end itself here.")
            self.world.sessions.close(found)
