"""The event log: what has happened, as a vCenter tells it."""

from __future__ import annotations

import collections
import dataclasses
import itertools
import typing as t

from vsphere_simulator.kernel.objects import ManagedEntity
from vsphere_simulator.vmomi import make, vim

if t.TYPE_CHECKING:
    import datetime as dt

    from vsphere_simulator.kernel.objects import ManagedObject
    from vsphere_simulator.kernel.registry import World
    from vsphere_simulator.kernel.sessions import Session
    from vsphere_simulator.kernel.tasks import Task

KEPT = 10_000
"""How many events stay readable."""

_ev = vim.event
ENDED: t.Final[dict[str, tuple[t.Any, str]]] = {
    "VirtualMachine.powerOn": (_ev.VmPoweredOnEvent, "{name} on {host} in {datacenter} is powered on"),
    "VirtualMachine.powerOff": (_ev.VmPoweredOffEvent, "{name} on {host} in {datacenter} is powered off"),
    "VirtualMachine.suspend": (_ev.VmSuspendedEvent, "{name} on {host} in {datacenter} is suspended"),
    "VirtualMachine.reset": (_ev.VmResettingEvent, "{name} on {host} in {datacenter} is reset"),
    "VirtualMachine.reconfigure": (_ev.VmReconfiguredEvent, "Reconfigured {name} on {host} in {datacenter}."),
    "VirtualMachine.destroy": (_ev.VmRemovedEvent, "Removed {name} on {host} from {datacenter}"),
    "VirtualMachine.clone": (_ev.VmClonedEvent, "{name} on {host} in {datacenter} is a new clone"),
    "Folder.createVm": (_ev.VmCreatedEvent, "Created virtual machine {name} on {host} in {datacenter}"),
    "VirtualMachine.migrate": (_ev.VmMigratedEvent, "Migration of {name} to {host} in {datacenter} completed"),
    "VirtualMachine.relocate": (_ev.VmMigratedEvent, "Migration of {name} to {host} in {datacenter} completed"),
    "HostSystem.enterMaintenanceMode": (
        _ev.EnteredMaintenanceModeEvent,
        "Host {name} in {datacenter} has entered maintenance mode",
    ),
    "HostSystem.exitMaintenanceMode": (
        _ev.ExitMaintenanceModeEvent,
        "Host {name} in {datacenter} has exited maintenance mode",
    ),
    "HostSystem.reboot": (_ev.HostShutdownEvent, "Shut down of {name} in {datacenter}: reboot"),
}
"""What the success of a task means: by its description id, the event and its text."""
FAILED: t.Final[dict[str, tuple[t.Any, str]]] = {
    "VirtualMachine.powerOn": (_ev.VmFailedToPowerOnEvent, "Failed to power on {name} on {host} in {datacenter}"),
    "VirtualMachine.powerOff": (_ev.VmFailedToPowerOffEvent, "Failed to power off {name} on {host} in {datacenter}"),
}
_OTHERS: t.Final[tuple[tuple[t.Any, str], ...]] = (
    (_ev.TaskEvent, "Task: {info.name}"),
    (_ev.UserLoginSessionEvent, "User {userName}@{ipAddress} logged in as {userAgent}"),
    (_ev.UserLogoutSessionEvent, "User {userName} logged out"),
    (_ev.GeneralUserEvent, "User logged event: {message}"),
    (_ev.EventEx, "{message}"),
)


@dataclasses.dataclass(frozen=True, slots=True)
class Recorded:
    """One event and where it belongs."""

    number: int
    event: t.Any
    about: str
    """Id of the entity, empty for none."""
    scope: tuple[str, ...]
    """Ids of the entity and of all above it, when it happened; the nearest first."""


class EventLog:
    """The events of a world, oldest first; they do not outlive the process."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.recorded: collections.deque[Recorded] = collections.deque(maxlen=KEPT)
        self._numbers = itertools.count(1)

    def post(
        self, kind: t.Any, text: str, /, *, user: str = "", entity: ManagedObject | None = None, **fields: t.Any
    ) -> t.Any:
        """Record an event of a pyVmomi type, with the text that clients show, and return it."""
        number = next(self._numbers)
        subject = entity if isinstance(entity, ManagedEntity) else None
        places = _places(subject)
        event = make(
            kind,
            key=number,
            chainId=fields.pop("chain", number),
            createdTime=self.world.clock.now(),
            userName=user,
            fullFormattedMessage=text,
            **places.arguments,
            **fields,
        )
        self.recorded.append(Recorded(number, event, subject.moid if subject is not None else "", places.scope))
        self.world.news_of_history()
        return event

    def task_started(self, task: Task) -> None:
        """Record that somebody has asked for something."""
        info = task._info()
        self.post(_ev.TaskEvent, f"Task: {task.name}", user=task.user, entity=task.entity, chain=task.number, info=info)

    def task_ended(self, task: Task) -> None:
        """Record what a task has done, where a vCenter has an event for it."""
        known = (FAILED if task.error is not None else ENDED).get(task.name)
        if known is None:
            return
        kind, text = known
        entity: t.Any = task.entity
        if task.error is None and kind in (_ev.VmClonedEvent, _ev.VmCreatedEvent) and task.result is not None:
            entity = self.world.objects.get(task.result._GetMoId(), entity)
        names = _places(entity).names
        message = text.format(name=entity.name, host=names.get("host", ""), datacenter=names.get("datacenter", ""))
        fields = _required(kind, task, entity)
        self.post(kind, message, user=task.user, entity=entity, chain=task.number, **fields)

    def logged_in(self, session: Session) -> None:
        """Record a login."""
        self.post(
            _ev.UserLoginSessionEvent,
            f"User {session.user}@{session.ip_address} logged in as {session.user_agent}",
            user=session.user,
            ipAddress=session.ip_address,
            userAgent=session.user_agent,
            locale=session.locale,
            sessionId=session.key,
        )

    def logged_out(self, session: Session) -> None:
        """Record a logout or the end of an idle session."""
        self.post(
            _ev.UserLogoutSessionEvent,
            f"User {session.user}@{session.ip_address} logged out",
            user=session.user,
            ipAddress=session.ip_address,
            userAgent=session.user_agent,
            callCount=session.calls,
            sessionId=session.key,
            loginTime=session.login_time,
        )


class _Places(t.NamedTuple):
    arguments: dict[str, t.Any]
    """Fields of an event that say where it happened."""
    names: dict[str, str]
    scope: tuple[str, ...]


_ARGUMENTS: t.Final[tuple[tuple[t.Any, str, t.Any, str], ...]] = (
    (vim.VirtualMachine, "vm", _ev.VmEventArgument, "vm"),
    (vim.HostSystem, "host", _ev.HostEventArgument, "host"),
    (vim.ComputeResource, "computeResource", _ev.ComputeResourceEventArgument, "computeResource"),
    (vim.Datacenter, "datacenter", _ev.DatacenterEventArgument, "datacenter"),
    (vim.Datastore, "ds", _ev.DatastoreEventArgument, "datastore"),
    (vim.Network, "net", _ev.NetworkEventArgument, "network"),
)


def _places(entity: ManagedObject | None) -> _Places:
    """Everything that an entity lies in: its host, cluster, folders, data center."""
    arguments: dict[str, t.Any] = {}
    names: dict[str, str] = {}
    scope: dict[str, None] = {}
    pending: list[t.Any] = [entity] if entity is not None else []
    while pending:
        one = pending.pop(0)
        if one.moid in scope:
            continue
        scope[one.moid] = None
        for kind, field, argument, reference in _ARGUMENTS:
            if issubclass(one.wsdl, kind) and field not in arguments:
                arguments[field] = make(argument, name=one.name, **{reference: one.ref})
                names[field] = one.name
        if isinstance(one, ManagedEntity):
            pending.extend(parent for parent in (*one.containers(), one.parent) if parent is not None)
    return _Places(arguments, names, tuple(scope))


def _required(kind: t.Any, task: Task, entity: t.Any) -> dict[str, t.Any]:
    """The fields that events of some types cannot do without."""
    fields: dict[str, t.Any] = {}
    if issubclass(kind, _ev.VmEvent):
        fields["template"] = bool(getattr(entity, "template", False))
    if issubclass(kind, _ev.VmReconfiguredEvent):
        fields["configSpec"] = make(vim.vm.ConfigSpec)
    if issubclass(kind, _ev.VmClonedEvent):
        fields["sourceVm"] = make(_ev.VmEventArgument, name=task.entity.name, vm=task.entity.ref)
    if issubclass(kind, _ev.VmMigratedEvent):
        host = entity.host
        fields["sourceHost"] = make(_ev.HostEventArgument, name=host.name, host=host.ref)
    if issubclass(kind, _ev.HostShutdownEvent):
        fields["reason"] = "reboot"
    if task.error is not None:
        fields["reason"] = task.error
    return fields


def described() -> list[t.Any]:
    """What the event manager says of each type of event there can be."""
    kinds = dict((*_OTHERS, *ENDED.values(), *FAILED.values()))
    return [
        make(
            _ev.EventDescription.EventDetail,
            key=kind,
            description=kind.__name__.rpartition(".")[2],
            category="user" if kind in (_ev.TaskEvent, _ev.GeneralUserEvent) else _category(kind),
            formatOnDatacenter=text,
            formatOnComputeResource=text,
            formatOnHost=text,
            formatOnVm=text,
            fullFormat=text,
        )
        for kind, text in kinds.items()
    ]


def _category(kind: t.Any) -> str:
    return "error" if any(kind is failed for failed, _ in FAILED.values()) else "info"


def category_of(event: t.Any) -> str:
    """Whether an event is one of info, error or user."""
    if isinstance(event, _ev.EventEx) and event.severity:
        return str(event.severity)
    return "user" if isinstance(event, _ev.TaskEvent | _ev.GeneralUserEvent) else _category(type(event))


def within(moment: dt.datetime | None, begin: dt.datetime | None, end: dt.datetime | None) -> bool:
    """Whether a moment lies in a range whose ends are included and may be open."""
    if moment is None:
        return begin is None and end is None
    return (begin is None or moment >= begin) and (end is None or moment <= end)
