# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What harvesting reads of desktops beside their GPUs."""

from __future__ import annotations

import collections.abc
import dataclasses
import datetime
import typing as t

from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.harvest.evening import Heartbeat
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.client import Client
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.collector import all_of, paths, retrieve, start
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.convert import plain_name
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.performance import (
    read_measured,
    read_samples,
    vcenter_now,
)
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.pyvmomi import vim

_CPU = "summary.quickStats.overallCpuUsage"
_YES = ("true", "yes", "on", "1")


@dataclasses.dataclass(frozen=True, slots=True)
class Desk:
    """What the vCenter tells of one machine's use."""

    moid: str
    heartbeat: Heartbeat
    cpu_mhz: float | None
    """Now; None where the vCenter does not tell, such as of a machine that does not run."""
    marked: bool
    """The custom attribute says that it may be lent."""


def read_desks(client: Client, attribute: str) -> dict[str, Desk]:
    """Every machine by name, in one request, and one more for the attribute. Raises GpuOpsError."""
    key = _key_of(client, attribute) if attribute else None
    rows = retrieve(
        client,
        lambda: [all_of(client, vim.VirtualMachine)],
        [paths(vim.VirtualMachine, "name", "guestHeartbeatStatus", "runtime.powerState", "customValue", _CPU)],
    )
    return {plain_name(row.props.get("name", row.moid)): _desk(row.moid, row.props, key) for row in rows}


def read_cpu_samples(
    client: Client, names: collections.abc.Collection[str], length: datetime.timedelta
) -> dict[str, tuple[tuple[datetime.datetime, float], ...]]:
    """MHz that machines used in the last `length`, by name: five-minute averages and when each ended, oldest first.

    A machine has none of the time in which it did not run. One request for what there is, one for the vCenter's time,
    and one for as many machines as it answers for at once. Raises GpuOpsError.
    """
    measured = read_measured(client)
    listed = [vm for vm in measured.vms if vm.name in names]
    now = vcenter_now(client)
    found = read_samples(client, measured, listed, now - length, now)
    return {
        vm.name: tuple(
            (datetime.datetime.fromtimestamp(time, datetime.UTC), sample.used_mhz)
            for time, sample in sorted(found.get(vm.moid, {}).items())
        )
        for vm in listed
    }


def _desk(moid: str, props: t.Mapping[str, t.Any], key: int | None) -> Desk:
    values = [value.value for value in props.get("customValue") or () if key is not None and value.key == key]
    runs = str(props.get("runtime.powerState")) == "poweredOn"
    return Desk(
        moid,
        t.cast(Heartbeat, str(props.get("guestHeartbeatStatus", "gray"))),
        float(props[_CPU]) if runs and props.get(_CPU) is not None else None,
        any(str(value).strip().lower() in _YES for value in values),
    )


def _key_of(client: Client, attribute: str) -> int | None:
    """The key of a custom attribute; None if there is none of that name."""
    manager = client.content.customFieldsManager
    rows = retrieve(client, lambda: [start(manager)], [paths(vim.CustomFieldsManager, "field")])
    keys = [int(field.key) for row in rows for field in row.props.get("field") or () if field.name == attribute]
    return keys[0] if keys else None
