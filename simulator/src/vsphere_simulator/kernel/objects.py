"""Managed objects of the simulated vCenter: how a class says what it answers.

A class names its API type (`wsdl`) and decorates functions: `@prop(path)` builds the value of one
property path, `@method(name)` answers one WSDL method. Everything else (lookup of paths between
builders, privileges, conversion of arguments) is the kernel's work.
"""

from __future__ import annotations

import contextvars
import dataclasses
import inspect
import typing as t

if t.TYPE_CHECKING:
    from collections.abc import Callable

    from vsphere_simulator.kernel.registry import World
    from vsphere_simulator.kernel.sessions import Session

    Builder = Callable[[t.Any], t.Any]

_F = t.TypeVar("_F", bound="Callable[..., t.Any]")


@dataclasses.dataclass(slots=True)
class Context:
    """Who calls a method, and where."""

    world: World
    session: Session | None
    """The caller's session; None only in methods that need no login."""
    version: str = "vim.version.v8_0_3_0"
    """API version the client speaks, in pyVmomi's spelling."""

    @property
    def user(self) -> str:
        """Name of the caller, empty when nobody is logged in."""
        return self.session.user if self.session is not None else ""


current_context: contextvars.ContextVar[Context | None] = contextvars.ContextVar("current_context", default=None)
"""The call being answered, for the few properties whose value depends on who asks."""


@dataclasses.dataclass(frozen=True, slots=True)
class MethodEntry:
    """What a class declares about one WSDL method it answers."""

    wsdl_name: str
    function: Callable[..., t.Any]
    privilege: str | None
    """Needed on the object; None means what pyVmomi's registry says, "" means none."""
    is_async: bool
    accepts: frozenset[str]
    """Parameter names of the function."""
    resolve: bool
    """False when the function takes references as they came, even those to nothing."""


def prop(*paths: str) -> Callable[[_F], _F]:
    """Register a function as builder of the property at each of these full paths.

    The function takes the object and returns a value of the declared pyVmomi type, plain Python for
    primitives and lists, managed objects for references; None means unset.
    """

    def register(function: _F) -> _F:
        function.__dict__.setdefault("_simulated_paths", []).extend(paths)
        return function

    return register


def method(name: str, *, privilege: str | None = None, resolve: bool = True) -> Callable[[_F], _F]:
    """Register a function (plain or async) as the answer to a WSDL method.

    It is called with those of these that its signature names: `ctx` (the Context) and the WSDL
    parameters, spelt as in the API or in snake_case (`percentDone` or `percent_done`). References come
    as managed objects, absent optional ones as None or an empty list. A parameter that a client sets
    and the function does not take answers NotSupported, so that nothing is silently ignored. A fault is
    answered by raising it. `privilege` is checked on the object first: by default the one of the API's
    registry, with "" none. `resolve=False` leaves references as pyVmomi's, for methods that report
    what does not exist instead of failing.
    """

    def register(function: _F) -> _F:
        function.__dict__.setdefault("_simulated_methods", []).append((name, privilege, resolve))
        return function

    return register


class ManagedObject:
    """Base of everything a client can hold a reference to."""

    wsdl: t.ClassVar[t.Any]
    """The pyVmomi type, for example `vim.HostSystem`."""
    volatile: t.ClassVar[bool] = False
    """True for what belongs to clients (tasks, views, collectors) and not to the world's state."""
    builders: t.ClassVar[dict[str, Builder]] = {}
    methods: t.ClassVar[dict[str, MethodEntry]] = {}

    name: str = ""
    """Entity name, for fault rules, logs and task descriptions."""
    parent: ManagedObject | None = None
    """Whose permissions it inherits: an entity's parent, a host manager's host; None at the root."""

    def __init_subclass__(cls, **kwargs: t.Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.builders = dict(cls.builders)
        cls.methods = dict(cls.methods)
        for function in vars(cls).values():
            for path in getattr(function, "_simulated_paths", ()):
                cls.builders[path] = function
            for name, privilege, resolve in getattr(function, "_simulated_methods", ()):
                accepts = frozenset(inspect.signature(function).parameters)
                cls.methods[name] = MethodEntry(
                    name, function, privilege, inspect.iscoroutinefunction(function), accepts, resolve
                )

    def __init__(self, world: World, moid: str) -> None:
        self.world = world
        self.moid = moid
        self.ref: t.Any = self.wsdl(moid)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.moid}{' ' + self.name if self.name else ''}>"

    def on_removed(self) -> None:
        """Let go of what belongs to this object; called by `World.remove`."""


class ManagedEntity(ManagedObject):
    """What every inventory object answers: name, parent, recent tasks and quiet alarms.

    Subclasses override what they know better.
    """

    def containers(self) -> tuple[ManagedObject, ...]:
        """Return the objects directly under which a container view finds this one.

        A virtual machine, for example, lies in its folder, its resource pool and its host.
        """
        return (self.parent,) if self.parent is not None else ()

    @prop("name")
    def _entity_name(self) -> str:
        return self.name

    @prop("parent")
    def _entity_parent(self) -> ManagedObject | None:
        return self.parent

    @prop("recentTask")
    def _recent_task(self) -> list[ManagedObject]:
        return self.world.tasks.recent_of(self)

    @prop("effectiveRole")
    def _effective_role(self) -> list[int]:
        context = current_context.get()
        role = self.world.authorization.role_on(context.user, self) if context is not None else None
        return [role.role_id] if role is not None else []

    @prop("permission")
    def _permission(self) -> list[t.Any]:
        return self.world.authorization.permissions_on(self)

    @prop("alarmActionsEnabled")
    def _alarm_actions_enabled(self) -> bool:
        return True

    @prop("overallStatus", "configStatus")
    def _status(self) -> str:
        return "green"

    @prop("configIssue", "declaredAlarmState", "triggeredAlarmState", "disabledMethod", "tag")
    def _nothing(self) -> list[t.Any]:
        return []
