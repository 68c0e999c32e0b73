# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the vCenter does, or has done, to hosts and virtual machines: their tasks."""

from __future__ import annotations

import dataclasses
import datetime
import functools
import typing as t

from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.facts import Intent
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.ownership import TaskSeen
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
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.tasks import run_calls

# Kinds of tasks, as TaskInfo.descriptionId has them.
ENTER, LEAVE, REBOOT = "HostSystem.enterMaintenanceMode", "HostSystem.exitMaintenanceMode", "HostSystem.reboot"
SUSPEND, RESUME = "VirtualMachine.suspend", "VirtualMachine.powerOn"

_PAGE = 100
_MAX_PARALLEL = 8


@dataclasses.dataclass(frozen=True, slots=True)
class HostTasks:
    """The state of some hosts, by name, and their recent tasks."""

    in_maintenance: set[str]
    running: dict[str, t.Any]
    """Unfinished tasks of the kind asked for."""


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
            paths(vim.Task, "info.state", "info.descriptionId", "info.entity"),
        ],
    )
    found = HostTasks(set(), {})
    for row in rows:
        if isinstance(row.ref, vim.HostSystem):
            if row.props.get("runtime.inMaintenanceMode"):
                found.in_maintenance.add(names[row.moid])
            continue
        name = names.get(str(moid(row.props.get("info.entity"))))
        state, what = str(row.props.get("info.state")), row.props.get("info.descriptionId")
        if name is not None and state in ("queued", "running") and what == kind:
            found.running[name] = row.ref
    return found


def already_started(task: t.Any) -> t.Any:
    """For `run_tasks`, in the place of a call: the task that an earlier run has started."""
    return task


def read_history(client: Client, marks: t.Mapping[str, tuple[t.Any, Intent]]) -> dict[str, list[TaskSeen]]:
    """By name, the tasks on an object that have changed its mode and succeeded since its mark, the oldest first.

    `marks` has the managed object and its intent. A collector for each object, side by side: this is for the few that
    a killed run has left in doubt. Raises GpuOpsError.
    """
    outcomes = run_calls(
        client,
        {name: functools.partial(_since, client, ref, mark) for name, (ref, mark) in marks.items()},
        max_parallel=_MAX_PARALLEL,
        doing="read its tasks",
    )
    found = {}
    for name, outcome in outcomes.items():
        if outcome.error is not None:
            raise outcome.error
        found[name] = outcome.result
    return found


def _since(client: Client, ref: t.Any, mark: Intent) -> list[TaskSeen]:
    try:
        begin = datetime.datetime.fromisoformat(mark.started)
    except ValueError:
        return []
    spec = vim.TaskFilterSpec(
        entity=vim.TaskFilterSpec.ByEntity(entity=ref, recursion="self"),
        time=vim.TaskFilterSpec.ByTime(timeType="completedTime", beginTime=begin),
        state=["success"],
    )
    collector = t.cast("vim.TaskManager", client.content.taskManager).CreateCollectorForTasks(spec)
    try:
        collector.RewindCollector()
        infos: list[t.Any] = []
        while page := collector.ReadNextTasks(_PAGE):
            infos += page
    finally:
        collector.DestroyCollector()
    tasks = [
        TaskSeen(str(info.descriptionId), str(iso(info.queueTime)), str(iso(info.completeTime)))
        for info in infos
        if info.descriptionId in (ENTER, LEAVE, SUSPEND, RESUME) and str(info.state) == "success"
    ]
    return sorted((task for task in tasks if task.ended >= mark.started), key=lambda task: task.ended)
