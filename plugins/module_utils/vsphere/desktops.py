# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What harvesting reads of desktops beside their GPUs."""

from __future__ import annotations

import typing as t

from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.harvest.evening import Heartbeat
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.client import Client
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.collector import all_of, paths, retrieve
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.convert import plain_name
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.pyvmomi import vim


def read_heartbeats(client: Client) -> dict[str, Heartbeat]:
    """Heartbeat of every machine's guest, by name, in one request. Raises GpuOpsError."""
    rows = retrieve(
        client,
        lambda: [all_of(client, vim.VirtualMachine)],
        [paths(vim.VirtualMachine, "name", "guestHeartbeatStatus")],
    )
    return {
        plain_name(row.props.get("name", row.moid)): t.cast(
            Heartbeat, str(row.props.get("guestHeartbeatStatus", "gray"))
        )
        for row in rows
    }
