# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Taking and giving back the operators' lock in the vCenter."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import typing as t
import uuid

from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.lock import (
    ATTRIBUTE,
    PREFIX,
    Alive,
    Claim,
    Holder,
    LockFolder,
    abandoned,
    claim,
    format_holder,
    held_text,
    key_of,
    lost_text,
    name_of,
    parse_folder,
    prepared_name,
    to_give_back,
)
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.client import Client
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.collector import (
    all_of,
    moid,
    paths,
    retrieve,
    start,
    traversal,
)
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.convert import plain_name
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.errors import (
    GpuOpsError,
    ObjectGoneError,
    from_fault,
)
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.pyvmomi import vim, vmodl
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.tasks import Bounds, TaskOutcome, run_tasks


class LockHeldError(GpuOpsError):
    """Somebody else has the lock."""

    code = "locked"


class LockLostError(GpuOpsError):
    """A lock that this run has taken is not its own any more."""

    code = "lock_lost"


def read_clusters(client: Client, hosts: t.Collection[str]) -> list[str]:
    """Names of the clusters of hosts, a host outside of clusters counting as one; those not there are left out.

    One request, and one for the view. Raises GpuOpsError.
    """
    if not hosts:
        return []
    rows = retrieve(
        client,
        lambda: [all_of(client, vim.HostSystem, traversal(vim.HostSystem, "parent"))],
        [paths(vim.HostSystem, "name", "parent"), paths(vim.ComputeResource, "name")],
    )
    names = {row.moid: plain_name(row.props.get("name", "")) for row in rows}
    parents = {
        moid(row.props.get("parent"))
        for row in rows
        if isinstance(row.ref, vim.HostSystem) and names[row.moid] in hosts
    }
    return sorted({names[parent] for parent in parents if parent is not None and names.get(parent)})


def read_locks(client: Client) -> tuple[list[LockFolder], dict[str, str]]:
    """All locks, and folders that runs have prepared and not (yet) used (id -> name); one request.

    Raises GpuOpsError.
    """
    root, manager = client.content.rootFolder, client.content.customFieldsManager
    rows = retrieve(
        client,
        lambda: [start(root, traversal(vim.Folder, "childEntity")), start(manager)],
        [paths(vim.Folder, "name", "customValue"), paths(vim.CustomFieldsManager, "field")],
    )
    fields = [field for row in rows for field in row.props.get("field") or ()]
    keys = {field.key for field in fields if field.name == ATTRIBUTE}
    locks: list[LockFolder] = []
    prepared: dict[str, str] = {}
    for row in rows:
        name = plain_name(row.props.get("name", ""))
        if not isinstance(row.ref, vim.Folder) or not name.startswith(PREFIX):
            continue
        record = next((v.value for v in row.props.get("customValue") or () if v.key in keys), "")
        lock = parse_folder(row.moid, name, record)
        if lock is not None:
            locks.append(lock)
        else:
            prepared[row.moid] = name
    return locks, prepared


def acquire(client: Client, cluster: str, holder: Holder, alive: Alive, bounds: Bounds, *, new: bool) -> None:
    """Take the lock of a cluster, or prolong it where it is ours; it must be ours where it is not `new`.

    Raises LockHeldError where somebody else has it, LockLostError where it was ours and is no more, GpuOpsError.
    """
    locks, prepared = read_locks(client)
    _destroy(client, _abandoned(prepared, holder, alive), bounds)
    found = claim(locks, cluster, holder.run, holder.since, alive)
    if found.ours is None and not new:
        raise _lost(cluster, found, holder)
    if found.held_by is not None:
        raise _held(cluster, found, holder)
    if found.ours is not None and found.ours.holder is not None:
        _prolong(client, cluster, found.ours, holder, alive)
        _remove(client, found.stale, bounds)
        return
    folder = _prepare(client, holder)
    taken = _rename(client, cluster, folder, name_of(cluster, found.next_generation), bounds)
    if not taken:
        _destroy(client, [str(folder._moId)], bounds)
        locks, _prepared = read_locks(client)
        raise _held(cluster, claim(locks, cluster, holder.run, holder.since, alive), holder)
    locks, _prepared = read_locks(client)
    now = claim(locks, cluster, holder.run, holder.since, alive)
    others = [lock for lock in now.stale if lock not in found.stale]
    rival = next((lock for lock in others if lock.holder is not None and lock.holder.expires > holder.since), None)
    if now.ours is None or rival is not None:
        # What was stale has been given back and taken again, or prolonged, between our two looks.
        _destroy(client, [str(folder._moId)], bounds)
        raise _held(cluster, Claim(rival or now.held_by, None, 0, ()), holder)
    _remove(client, now.stale, bounds)


def _prolong(client: Client, cluster: str, ours: LockFolder, holder: Holder, alive: Alive) -> None:
    """Write a later end into our lock, and look whether somebody took it over just before, as its time was over."""
    since = ours.holder.since if ours.holder is not None else holder.since
    with contextlib.suppress(ObjectGoneError):  # taken over: said below
        _write(client, ours.moid, dataclasses.replace(holder, since=since))
    locks, _prepared = read_locks(client)
    found = claim(locks, cluster, holder.run, holder.since, alive)
    if found.ours is None:
        raise _lost(cluster, found, holder)


def _abandoned(prepared: t.Mapping[str, str], holder: Holder, alive: Alive) -> list[str]:
    """Ids of the prepared folders whose runs are gone."""
    return [moid for moid, name in prepared.items() if abandoned(name, holder, alive)]


def release(client: Client, cluster: str, holder: Holder, alive: Alive, *, force: bool, bounds: Bounds) -> bool:
    """Give back the lock of a cluster; only our own, unless `force`. Whether there was one.

    What runs of this machine that are gone have held, or prepared for locks, goes with it. Raises GpuOpsError.
    """
    locks, prepared = read_locks(client)
    ours = [
        lock for lock in locks if lock.cluster == key_of(cluster) and (force or to_give_back(lock, holder.run, alive))
    ]
    _destroy(client, [lock.moid for lock in ours] + _abandoned(prepared, holder, alive), bounds)
    return bool(ours)


def _held(cluster: str, found: Claim, holder: Holder) -> LockHeldError:
    if found.held_by is None:
        text = "Another operator has just taken the lock of this cluster. Run again when that run has ended."
        return LockHeldError(f"{cluster}: {text}", object=cluster)
    return LockHeldError(f"{cluster}: {held_text(cluster, found.held_by, holder.since)}", object=cluster)


def _lost(cluster: str, found: Claim, holder: Holder) -> LockLostError:
    return LockLostError(f"{cluster}: {lost_text(found.held_by, holder.since)}", object=cluster)


def _prepare(client: Client, holder: Holder) -> t.Any:
    """A folder of our own that says whose it is, by its name from the first moment, and by its record."""
    name = prepared_name(holder, uuid.uuid4().hex[:8])
    try:
        folder = client.content.rootFolder.CreateFolder(name)
    except vmodl.MethodFault as fault:
        raise from_fault(fault, doing="make the folder of the lock", names=client.names) from fault
    _write(client, str(folder._moId), holder)
    return folder


def _write(client: Client, folder: str, holder: Holder) -> None:
    manager = t.cast("vim.CustomFieldsManager", client.content.customFieldsManager)
    try:
        key = _attribute(client)
        if key is None:
            try:
                key = int(manager.AddCustomFieldDef(ATTRIBUTE, None, None, None).key)
            except vim.fault.DuplicateName:
                key = _attribute(client)  # another process was faster
        manager.SetField(client.ref(vim.Folder, folder), key, format_holder(holder))  # type: ignore[arg-type]
    except vmodl.MethodFault as fault:
        raise from_fault(fault, doing="write the record of the lock", names=client.names) from fault


def _attribute(client: Client) -> int | None:
    manager = client.content.customFieldsManager
    rows = retrieve(client, lambda: [start(manager)], [paths(vim.CustomFieldsManager, "field")])
    fields = [field for row in rows for field in row.props.get("field") or ()]
    return next((int(field.key) for field in fields if field.name == ATTRIBUTE), None)


def _rename(client: Client, cluster: str, folder: t.Any, name: str, bounds: Bounds) -> bool:
    """Give our folder the lock's name; whether it was free. Raises GpuOpsError."""
    outcome = run_tasks(
        client,
        {cluster: functools.partial(folder.Rename_Task, name)},
        timeout=bounds.left,
        max_parallel=1,
        doing="take the operators' lock",
    )[cluster]
    if outcome.error is None:
        return True
    if outcome.error.code == "duplicate_name":
        return False
    raise outcome.error


def _remove(client: Client, locks: t.Iterable[LockFolder], bounds: Bounds) -> None:
    _destroy(client, [lock.moid for lock in locks], bounds)


def _destroy(client: Client, folders: t.Sequence[str], bounds: Bounds) -> None:
    outcomes: dict[str, TaskOutcome] = run_tasks(
        client,
        {moid: client.ref(vim.Folder, moid).Destroy_Task for moid in folders},
        timeout=bounds.left,
        max_parallel=bounds.max_parallel,
        doing="remove the folder of the lock",
    )
    for outcome in outcomes.values():
        if outcome.error is not None and outcome.error.code != "object_gone":
            raise outcome.error
