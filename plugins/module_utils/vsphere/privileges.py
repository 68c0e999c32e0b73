# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the session's account may do: the objects in one request, its privileges on them in another."""

from __future__ import annotations

import collections
import dataclasses
import typing as t

from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.privilege_check import Inventory, Question
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.privileges import On
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.client import Client
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.collector import (
    Row,
    all_of,
    moid,
    paths,
    retrieve,
    start,
)
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.convert import plain_name
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.pyvmomi import vim


@dataclasses.dataclass(frozen=True, slots=True)
class Found:
    """The objects that privileges are needed on, and who asks."""

    inventory: Inventory
    refs: t.Mapping[str, t.Any]
    """By id."""
    session: t.Any
    privileges: frozenset[str]
    """Those that this vCenter knows."""


def read_inventory(client: Client, *, vms: bool) -> Found:
    """Everything in one request. Raises GpuOpsError.

    `vms` reads the names of virtual machines and templates, too.
    """
    content: t.Any = client.content
    wanted = [
        paths(vim.HostSystem, "name", "parent", "vm"),
        paths(vim.ClusterComputeResource, "name"),
        paths(vim.Folder, "name", "childType"),
        paths(vim.Datastore, "name"),
        paths(vim.ResourcePool, "name"),
        paths(vim.Network, "name"),
        paths(vim.CustomFieldsManager, "field"),
        paths(vim.SessionManager, "currentSession"),
        paths(vim.AuthorizationManager, "privilegeList"),
        *([paths(vim.VirtualMachine, "name")] if vms else []),
    ]
    rows = retrieve(
        client,
        lambda: [
            all_of(client, vim.ManagedEntity),
            start(content.customFieldsManager),
            start(content.sessionManager),
            start(content.authorizationManager),
        ],
        wanted,
    )
    session = next(row.props["currentSession"] for row in rows if "currentSession" in row.props)
    known = next(row.props["privilegeList"] for row in rows if "privilegeList" in row.props)
    root = content.rootFolder
    return Found(
        _inventory(rows, root._moId),
        {root._moId: root, **{row.moid: row.ref for row in rows}},
        session,
        frozenset(one.privId for one in known),
    )


def _inventory(rows: t.Sequence[Row], root: str) -> Inventory:
    named: dict[tuple[On, str], list[str]] = collections.defaultdict(list)
    for row in rows:
        for kind in _kinds(row):
            named[kind, plain_name(row.props["name"])].append(row.moid)
    clusters = {row.moid: name for row, name in _of(rows, vim.ClusterComputeResource)}
    hosts = list(_of(rows, vim.HostSystem))
    parents = {name: clusters.get(moid(row.props.get("parent")) or "") for row, name in hosts}
    return Inventory(
        root,
        {key: tuple(ids) for key, ids in named.items()},
        {name: cluster for name, cluster in parents.items() if cluster is not None},
        frozenset(name for row, name in hosts if row.props.get("vm")),
        frozenset(field.name for row in rows for field in row.props.get("field") or ()),
    )


def _of(rows: t.Iterable[Row], kind: type) -> t.Iterator[tuple[Row, str]]:
    return ((row, plain_name(row.props["name"])) for row in rows if isinstance(row.ref, kind) and "name" in row.props)


def _kinds(row: Row) -> tuple[On, ...]:
    if "name" not in row.props:
        return ()
    if isinstance(row.ref, vim.Folder):
        # A data center's folders hold one kind of objects each; privileges for new machines come from theirs.
        return ("folder",) if "VirtualMachine" in {_type_name(one) for one in row.props.get("childType") or ()} else ()
    kinds: tuple[tuple[type, tuple[On, ...]], ...] = (
        (vim.HostSystem, ("host",)),
        (vim.ClusterComputeResource, ("cluster",)),
        (vim.VirtualMachine, ("vm", "template")),
        (vim.Datastore, ("datastore",)),
        (vim.ResourcePool, ("pool",)),
        (vim.Network, ("network",)),
    )
    return next((on for kind, on in kinds if isinstance(row.ref, kind)), ())


def _type_name(value: t.Any) -> str:
    return str(getattr(value, "_wsdlName", value))


def read_held(client: Client, asked: t.Sequence[Question], found: Found) -> dict[str, frozenset[str]]:
    """Which of the privileges in question the session holds, by the object's id; one request. Raises GpuOpsError."""
    refs = [found.refs[one] for one in dict.fromkeys(one for question in asked for one in question.ids)]
    if not refs:
        return {}
    privileges = sorted({question.privilege for question in asked})
    manager: t.Any = client.content.authorizationManager
    answers = client.read(lambda: manager.HasPrivilegeOnEntities(refs, found.session.key, privileges))
    return {
        str(moid(answer.entity)): frozenset(one.privId for one in answer.privAvailability if one.isGranted)
        for answer in answers or ()
    }
