# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""gpu_vm_change.yml: vGPUs and shares from nothing, then other ones for a machine that runs."""

from __future__ import annotations

import json
from typing import Any

from lab import Lab, Model


def vgpus(model: Model) -> None:
    """Give the first host GPUs that take vGPUs."""
    host = model["clusters"][0]["hosts"][0]
    host |= {"gpus": [{"gpu": "A100-40", "count": 2}], "vgpu_manager": "16.4", "graphics_type": "sharedDirect"}


def wanted(*gpus: dict[str, Any]) -> tuple[str, ...]:
    vm = {"name": "train", "gpus": list(gpus), "cpu": {"shares": "high"}}
    variables = {"gpu_vm_vms": [vm], "esxi_passthrough_missing": "skip", "gpu_vm_guest_timeout": 60}
    return ("--limit", "esx-gpu-01.lab", "--diff", "-e", json.dumps(variables))


def test_from_nothing_and_while_it_runs(lab: Lab) -> None:
    lab.start(change=vgpus)
    chosen = wanted({"mode": "vgpu", "at_least_gb": 10, "at_most_gpu": 0.5, "migrate": True})
    before = lab.state()
    plan = lab.playbook("gpu_vm_change", "--check", *chosen)
    assert plan.returncode == 0, plan.output
    assert "nvidia_a100-10c: absent" in plan.output
    assert "cpu.shares: high" in plan.output
    assert lab.state() == before

    made = lab.playbook("gpu_vm_change", *chosen)
    assert made.returncode == 0, made.output
    assert made.count("changed") == plan.count("changed")
    assert lab.vms()["train"] == {"power": "poweredOn", "host": "esx-gpu-01.lab", "gpus": 1}

    lab.vcenter.reset_counts()
    changed = lab.playbook("gpu_vm_change", *wanted({"mode": "vgpu", "profile": "a100-20c", "count": 2}))
    assert changed.returncode == 0, changed.output
    assert changed.count("changed") == {"esx-gpu-01.lab": 1}
    requests = lab.vcenter.counts()["requests"]
    assert [requests.get(name, 0) for name in ("ShutdownGuest", "ReconfigVM_Task", "PowerOnVM_Task")] == [1, 1, 1]
    assert lab.vms()["train"] == {"power": "poweredOn", "host": "esx-gpu-01.lab", "gpus": 2}
