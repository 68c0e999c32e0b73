"""Playbooks made only of `vmware.vmware` and `community.vmware` modules, each run twice against a simulator.

They come from PyPI's `ansible`, in an environment of their own: `make fidelity` makes it and runs these tests.
A task whose name ends with "(every time)" changes something in every run; all others must be unchanged in the second.
"""

from __future__ import annotations

import typing as t

import pytest
from pyVim.task import WaitForTask
from pyVmomi import vim

if t.TYPE_CHECKING:
    from controller import Controller

pytestmark = pytest.mark.clients
SEQUENCES = [
    ("host_facts",),
    ("cluster", "cluster_absent"),
    ("maintenance", "maintenance_left"),
    ("host_power",),
    ("passthrough", "passthrough_absent"),
    ("graphics",),
    ("vgpu", "vgpu_absent"),
    ("guest", "guest_absent"),
    ("snapshots", "snapshots_absent"),
    ("custom_attributes",),
    ("pools", "pools_absent"),
    ("rules",),
    ("hosts", "hosts_absent"),
    ("roles", "permission_absent", "roles_absent"),
]


def thumbprint_of(served: t.Any, host: str) -> str:
    """The thumbprint of a host that the vCenter does not know yet, as the vCenter shows it for confirmation."""
    spec = vim.host.ConnectSpec(hostName=host, userName="root", password="secret", force=False)
    with pytest.raises(vim.fault.SSLVerifyFault) as refused:
        WaitForTask(served.find("dc/host/generic").AddHost_Task(spec=spec, asConnected=True))
    return str(refused.value.thumbprint)


@pytest.mark.parametrize("sequence", SEQUENCES, ids=lambda sequence: sequence[0])
def test_a_playbook_of_their_modules_passes_twice(
    sequence: tuple[str, ...], served: t.Any, controller: Controller
) -> None:
    given = {"thumbprint": thumbprint_of(served, "esx-5.test")}
    for name in sequence:
        first = controller.play(name, 1, **given)
        second = controller.play(name, 2, **given)
        again = {task for task, changed in second.items() if changed}
        assert again == {task for task in second if task.endswith("(every time)")}, name
        assert name == "host_facts" or any(first.values()), name
