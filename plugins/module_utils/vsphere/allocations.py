# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Shares, reservations and limits of virtual machines and resource pools: bulk reads, one write each."""

from __future__ import annotations

import collections
import collections.abc
import functools
import typing as t

from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.shares import (
    ATTRIBUTE,
    Allocation,
    Kind,
    ShareFacts,
    SharePlan,
)
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
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.intents import attribute_key, write_attribute
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.pyvmomi import vim
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.reads import find_names
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.tasks import (
    Bounds,
    TaskOutcome,
    run_calls,
    run_tasks,
)

_VM_PATHS = (
    "name",
    "config.template",
    "config.changeVersion",
    "config.cpuAllocation",
    "config.memoryAllocation",
    "config.memoryReservationLockedToMax",
    "config.hardware.memoryMB",
    "customValue",
)

ByName = dict[tuple[Kind, str], list[ShareFacts]]


def read_vm_shares(client: Client, names: collections.abc.Collection[str]) -> tuple[ByName, tuple[str, ...]]:
    """All virtual machines of these names, and the names of all there are. Raises GpuOpsError."""
    key = attribute_key(client, ATTRIBUTE)
    everything = [
        (plain_name(row.props.get("name", row.moid)), row.ref) for row in find_names(client, vim.VirtualMachine)
    ]
    refs = [ref for name, ref in everything if name in names]
    rows = (
        retrieve(client, lambda: [start(ref) for ref in refs], [paths(vim.VirtualMachine, *_VM_PATHS)]) if refs else []
    )
    found: ByName = collections.defaultdict(list)
    for row in rows:
        props = row.props
        if "config.cpuAllocation" not in props or "config.memoryAllocation" not in props:
            continue  # being created, or not to be read
        name = plain_name(props.get("name", row.moid))
        found["vm", name].append(
            ShareFacts(
                name,
                row.moid,
                "vm",
                _allocation(props["config.cpuAllocation"]),
                _allocation(props["config.memoryAllocation"]),
                props.get("config.changeVersion") or "",
                props.get("config.hardware.memoryMB") or 0,
                bool(props.get("config.memoryReservationLockedToMax")),
                bool(props.get("config.template")),
                former=_former(props, key),
            )
        )
    return found, tuple(sorted(name for name, _ref in everything))


def read_pool_shares(client: Client) -> dict[str, list[tuple[str, ShareFacts]]]:
    """All resource pools by path below their root pool (`prod/gpu`; the root's is its own name), with the name of
    their cluster or host. Raises GpuOpsError.
    """
    key = attribute_key(client, ATTRIBUTE)
    rows = retrieve(
        client,
        lambda: [all_of(client, vim.ResourcePool), all_of(client, vim.ComputeResource)],
        [
            paths(vim.ResourcePool, "name", "parent", "owner", "config", "customValue"),
            paths(vim.ComputeResource, "name"),
        ],
    )
    by_moid = {row.moid: row for row in rows}
    found: dict[str, list[tuple[str, ShareFacts]]] = collections.defaultdict(list)
    for row in rows:
        if not isinstance(row.ref, vim.ResourcePool) or row.props.get("config") is None:
            continue
        config = row.props["config"]
        owner = by_moid.get(moid(row.props.get("owner")) or "")
        path = _path(row, by_moid)
        facts = ShareFacts(
            path or _name(row),
            row.moid,
            "pool",
            _allocation(config.cpuAllocation),
            _allocation(config.memoryAllocation),
            config.changeVersion or "",
            root=not path,
            former=_former(row.props, key),
        )
        found[facts.name].append((_name(owner) if owner else "", facts))
    return found


def _former(props: t.Mapping[str, t.Any], key: int | None) -> str:
    return next((str(value.value) for value in props.get("customValue") or () if value.key == key), "")


def _path(row: Row, by_moid: t.Mapping[str, Row]) -> str:
    """Names from below the root pool on; empty for the root pool."""
    parent = by_moid.get(moid(row.props.get("parent")) or "")
    if parent is None or not isinstance(parent.ref, vim.ResourcePool):
        return ""
    return f"{_path(parent, by_moid)}/{_name(row)}".lstrip("/")


def _name(row: Row) -> str:
    return plain_name(row.props.get("name", row.moid))


def _allocation(info: t.Any) -> Allocation:
    return Allocation(
        level=str(info.shares.level) if info.shares is not None else "normal",
        shares=info.shares.shares if info.shares is not None else 0,
        reservation=int(info.reservation or 0),
        limit=int(info.limit if info.limit is not None else -1),
        expandable=bool(info.expandableReservation),
    )


def carry_out(
    client: Client, before: t.Mapping[str, ShareFacts], plans: t.Mapping[str, SharePlan], bounds: Bounds
) -> dict[str, TaskOutcome]:
    """Write down what objects were entitled to, change them, and forget what is restored, in this order.

    An object whose step fails goes no further. Raises GpuOpsError when nothing could begin.
    """

    def attribute(texts: t.Mapping[str, str]) -> dict[str, TaskOutcome]:
        refs = {
            label: client.ref(
                vim.VirtualMachine if before[label].kind == "vm" else vim.ResourcePool, before[label].moid
            )
            for label in texts
        }
        given = {label: (refs[label], text) for label, text in texts.items()}
        return write_attribute(client, ATTRIBUTE, given, max_parallel=bounds.max_parallel)

    outcomes = attribute({label: plan.remember for label, plan in plans.items() if plan.remember})
    after = {
        label: plan.after
        for label, plan in plans.items()
        if plan.after is not None and plan.after != before[label] and not _failed(outcomes, label)
    }
    outcomes |= apply_shares(client, before, after, bounds)
    return outcomes | attribute(
        {label: "" for label, plan in plans.items() if plan.forget and not _failed(outcomes, label)}
    )


def _failed(outcomes: t.Mapping[str, TaskOutcome], label: str) -> bool:
    return label in outcomes and outcomes[label].error is not None


def apply_shares(
    client: Client, before: t.Mapping[str, ShareFacts], after: t.Mapping[str, ShareFacts], bounds: Bounds
) -> dict[str, TaskOutcome]:
    """One reconfigure for each virtual machine and one update for each pool that differs."""
    starters, calls = {}, {}
    for label, item in after.items():
        old = before[label]
        if item.kind == "vm":
            spec = vim.vm.ConfigSpec(changeVersion=item.change_version or None)
            if item.cpu != old.cpu:
                spec.cpuAllocation = _info(item.cpu, old.cpu)
            if item.memory != old.memory:
                spec.memoryAllocation = _info(item.memory, old.memory)
            starters[label] = functools.partial(client.ref(vim.VirtualMachine, item.moid).ReconfigVM_Task, spec)
        else:
            config = vim.ResourceConfigSpec(
                changeVersion=item.change_version or None,
                cpuAllocation=_info(item.cpu, None, pool=True),
                memoryAllocation=_info(item.memory, None, pool=True),
            )
            pool = client.ref(vim.ResourcePool, item.moid)
            calls[label] = functools.partial(pool.UpdateConfig, None, config)
    doing = "set its shares"
    outcomes = run_tasks(client, starters, timeout=bounds.left, max_parallel=bounds.max_parallel, doing=doing)
    return outcomes | run_calls(client, calls, max_parallel=bounds.max_parallel, doing=doing)


def _info(new: Allocation, old: Allocation | None, *, pool: bool = False) -> t.Any:
    """What changes of an allocation; all of it for a pool, which wants it whole."""
    info: t.Any = vim.ResourceAllocationInfo()
    if old is None or (new.level, new.shares) != (old.level, old.shares):
        info.shares = vim.SharesInfo(level=new.level, shares=new.shares)
    if old is None or new.reservation != old.reservation:
        info.reservation = new.reservation
    if old is None or new.limit != old.limit:
        info.limit = new.limit
    if pool:
        info.expandableReservation = new.expandable
    return info
