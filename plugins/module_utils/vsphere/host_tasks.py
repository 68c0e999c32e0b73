# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the vCenter does, or has done of late, to hosts: their recent tasks."""

from __future__ import annotations

import dataclasses
import typing as t

from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.client import Client
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.collector import (
    moid,
    paths,
    retrieve,
    start,
    traversal,
)
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.convert import iso
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.pyvmomi import vim

# Kinds of tasks, as TaskInfo.descriptionId has them.
ENTER, LEAVE, REBOOT = "HostSystem.enterMaintenanceMode", "HostSystem.exitMaintenanceMode", "HostSystem.reboot"


@dataclasses.dataclass(frozen=True, slots=True)
class HostTasks:
    """The state of some hosts, by name, and their recent tasks."""

    in_maintenance: set[str]
    running: dict[str, t.Any]
    """Unfinished tasks of the kind asked for."""
    changed: dict[str, str]
    """When a task last put the host into maintenance mode or took it out (ISO 8601, vCenter's time)."""


def read_tasks(client: Client, moids: t.Mapping[str, str], kind: str) -> HostTasks:
    """Which of the hosts are in maintenance mode, and which have an unfinished task of a kind (`REBOOT`)."""
    names = {host: name for name, host in moids.items()}
    refs = [client.ref(vim.HostSystem, host) for host in moids.values()]
    along = traversal(vim.HostSystem, "recentTask")
    rows = retrieve(
        client,
        lambda: [start(ref, along) for ref in refs],
        [
            paths(vim.HostSystem, "runtime.inMaintenanceMode"),
            paths(vim.Task, "info.state", "info.descriptionId", "info.entity", "info.completeTime"),
        ],
    )
    found = HostTasks(set(), {}, {})
    for row in rows:
        if isinstance(row.ref, vim.HostSystem):
            if row.props.get("runtime.inMaintenanceMode"):
                found.in_maintenance.add(names[row.moid])
            continue
        name = names.get(str(moid(row.props.get("info.entity"))))
        state, what = str(row.props.get("info.state")), row.props.get("info.descriptionId")
        ended = iso(row.props.get("info.completeTime"))
        if name is None:
            continue
        if state in ("queued", "running") and what == kind:
            found.running[name] = row.ref
        elif state == "success" and what in (ENTER, LEAVE) and ended is not None:
            found.changed[name] = max(ended, found.changed.get(name, ""))
    return found
