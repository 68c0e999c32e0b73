# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The property collector: bulk retrieval with paging, and waiting for changes of many objects at once."""

from __future__ import annotations

import contextlib
import dataclasses
import time
import typing as t

from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere import fastxml
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.client import READ_ATTEMPTS, Client, SessionRenewed
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.errors import (
    ConnectionFailedError,
    ConnectionLostError,
    from_fault,
    is_fault,
)
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.pyvmomi import vim, vmodl

# How long one WaitForUpdatesEx may hang, in seconds: well below the read timeout of the connection.
_MAX_WAIT_S = 60


@dataclasses.dataclass(frozen=True, slots=True)
class Row:
    """One object of a bulk read."""

    moid: str
    ref: t.Any
    props: dict[str, t.Any]
    """Values by path; what is unset is absent."""
    unreadable: bool = False
    """The account may not read some of it, or anything."""


def moid(ref: t.Any) -> str | None:
    """The id of a managed object reference, None for None."""
    return None if ref is None else str(ref._moId)


def traversal(kind: type, path: str, *then: t.Any) -> t.Any:
    """From objects of `kind` along a property to others, and on from there."""
    return vmodl.query.PropertyCollector.TraversalSpec(type=kind, path=path, skip=False, selectSet=list(then))


def start(ref: t.Any, *then: t.Any, skip: bool = False) -> t.Any:
    """An object to begin with."""
    return vmodl.query.PropertyCollector.ObjectSpec(obj=ref, skip=skip, selectSet=list(then))


def paths(kind: type, *names: str) -> t.Any:
    """Which properties of objects of `kind` are wanted."""
    return vmodl.query.PropertyCollector.PropertySpec(type=kind, pathSet=list(names), all=False)


def all_of(client: Client, kind: type, *then: t.Any) -> t.Any:
    """All objects of `kind` in the inventory, to begin with."""
    along = traversal(vim.view.ContainerView, "view", *then)
    return start(client.view(kind), along, skip=True)


def retrieve(
    client: Client,
    objects: t.Callable[[], list[t.Any]],
    properties: list[t.Any],
    *,
    keep: fastxml.Keep | None = None,
    page_size: int | None = None,
) -> list[Row]:
    """Properties of many objects in one request (and its pages).

    What the account may not read is absent, and its row says so: one such object must not fail the others.
    `objects` builds the object specs; it is called again when the session was renewed. `keep` says of list
    properties which items are wanted; others are left out. No objects cost no request. Raises GpuOpsError.
    """
    kept = keep or {}

    def body() -> list[Row]:
        begin = objects()
        if not begin:
            return []
        spec = vmodl.query.PropertyCollector.FilterSpec(objectSet=begin, propSet=properties)
        options = vmodl.query.PropertyCollector.RetrieveOptions(maxObjects=page_size)
        page = _call(client, "RetrievePropertiesEx", [[spec], options], kept)
        rows: list[Row] = []
        while page is not None:
            rows += [_row(content) for content in page.objects]
            page = _call(client, "ContinueRetrievePropertiesEx", [page.token], kept) if page.token else None
        return rows

    rows = client.read(body)
    client.names.update({row.moid: row.props["name"] for row in rows if "name" in row.props})
    return rows


def _call(client: Client, method: str, arguments: list[t.Any], keep: fastxml.Keep) -> t.Any:
    """One page of a bulk read, by lxml where that is installed."""
    if fastxml.AVAILABLE:
        return client.stub.bulk(client.collector, method, arguments, keep)
    page = getattr(client.collector, method)(*arguments)
    for item in [item for content in page.objects for item in content.propSet] if page is not None and keep else ():
        if item.name in keep:
            only = keep[item.name]
            item.val = type(item.val)(value for value in item.val if only.wants(wsdl_name(value), _field(value, only)))
    return page


def _field(value: t.Any, only: fastxml.Only) -> str | None:
    return None if only.field is None else str(getattr(value, only.field))


def wsdl_name(value: t.Any) -> str:
    """The name of a value's type on the wire, for example `VirtualPCIPassthrough`."""
    return str(type(value)._wsdlName)


def _row(content: t.Any) -> Row:
    denied = [missing.fault for missing in content.missingSet or () if is_fault(missing.fault, "NoPermission")]
    # NotAuthenticated is a NoPermission too, and means the session.
    for fault in denied:
        if is_fault(fault, "NotAuthenticated"):
            raise fault
    return Row(
        content.obj._moId, content.obj, {item.name: item.val for item in content.propSet or ()}, unreadable=bool(denied)
    )


Observer = t.Callable[[str, dict[str, t.Any]], bool]
"""Called with an object's id and all its values known so far; answers whether the object is done."""


def watch(
    client: Client, refs: t.Sequence[t.Any], kind: type, names: t.Sequence[str], observe: Observer, *, timeout: float
) -> set[str]:
    """Wait until every object is done, with one filter for all of them. Returns the ids of those that are not.

    A dropped connection or a renewed session starts the filter anew; `observe` then sees current values again.
    An object that disappears is observed with the single value `{"gone": True}` and counts as done.
    `timeout` is in seconds, counted from the call. Raises GpuOpsError.
    """
    pending = {str(moid(ref)): ref for ref in refs}
    deadline = time.monotonic() + timeout
    failures = 0
    while pending and time.monotonic() < deadline:
        try:
            _watch_once(client, pending, kind, names, observe, deadline)
        except SessionRenewed:
            client.forget_session_objects()
        except (ConnectionLostError, ConnectionFailedError):
            failures += 1
            if failures >= READ_ATTEMPTS:
                raise
            client.forget_session_objects()
        except vmodl.fault.ManagedObjectNotFound as fault:
            if moid(fault.obj) not in pending:
                raise from_fault(fault, doing="wait for changes", names=client.names) from fault
            gone = str(moid(fault.obj))
            observe(gone, {"gone": True})
            del pending[gone]
        except vmodl.MethodFault as fault:
            raise from_fault(fault, doing="wait for changes", names=client.names) from fault
        else:
            failures = 0
    return set(pending)


def _watch_once(
    client: Client,
    pending: dict[str, t.Any],
    kind: type,
    names: t.Sequence[str],
    observe: Observer,
    deadline: float,
) -> None:
    collector = client.collector
    spec = vmodl.query.PropertyCollector.FilterSpec(
        objectSet=[start(ref) for ref in pending.values()], propSet=[paths(kind, *names)]
    )
    values: dict[str, dict[str, t.Any]] = {name: {} for name in pending}
    version = ""
    created = collector.CreateFilter(spec, True)
    try:
        while pending:
            left = deadline - time.monotonic()
            if left <= 0:
                return
            options = vmodl.query.PropertyCollector.WaitOptions(maxWaitSeconds=max(1, min(_MAX_WAIT_S, int(left))))
            update = collector.WaitForUpdatesEx(version, options)
            if update is None:
                continue
            version = update.version
            for changed in _object_updates(update, created):
                _take(changed, values, pending, observe)
    finally:
        _destroy(created)


def _object_updates(update: t.Any, created: t.Any) -> t.Iterator[t.Any]:
    for part in update.filterSet or ():
        if moid(part.filter) == moid(created):
            yield from part.objectSet or ()


def _take(changed: t.Any, values: dict[str, dict[str, t.Any]], pending: dict[str, t.Any], observe: Observer) -> None:
    name = str(moid(changed.obj))
    if name not in pending:
        return
    known = values[name]
    if changed.kind == "leave":
        observe(name, {"gone": True})
        del pending[name]
        return
    for item in changed.changeSet or ():
        known[item.name] = item.val
    if observe(name, known):
        del pending[name]


def _destroy(created: t.Any) -> None:
    # It ends with this process's collector at the latest.
    with contextlib.suppress(vmodl.MethodFault, SessionRenewed, ConnectionLostError, ConnectionFailedError):
        created.DestroyPropertyFilter()
