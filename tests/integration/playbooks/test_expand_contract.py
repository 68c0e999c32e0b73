# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A host joins, the pool grows; it retires, the pool shrinks. Killed on the way, the next run finishes."""

from __future__ import annotations

import json

import yaml
from lab import Lab, Run, kill_hard
from pyVim.task import WaitForTask
from pyVmomi import vim
from simulated import wait_for

TWO, THREE = "esx-gpu-02.lab", "esx-gpu-03.lab"
T4 = [{"mode": "dynamic", "id": "10de:1eb8"}]


def standing_alone(lab: Lab, name: str) -> None:
    """What a host looks like that somebody has added to the vCenter."""
    with lab._all(vim.HostSystem) as hosts:
        host = next(item for item in hosts if item.name == name)
        WaitForTask(host.EnterMaintenanceMode_Task(0, False))
        WaitForTask(host.parent.parent.MoveIntoFolder_Task([host]))
        WaitForTask(host.ExitMaintenanceMode_Task(0))


def cluster_of(lab: Lab, name: str) -> str:
    with lab._all(vim.HostSystem) as hosts:
        return str(next(item for item in hosts if item.name == name).parent.name)


def locks(lab: Lab) -> list[str]:
    with lab._all(vim.Folder) as folders:
        return [item.name for item in folders if item.name.startswith("gpuops-lock")]


def run(lab: Lab, playbook: str, *arguments: str, size: int, retiring: tuple[str, ...] = ()) -> tuple[str, ...]:
    """The arguments of a run with a pool of so many machines, and these hosts on their way out."""
    more = lab.directory / "more"
    (more / "host_vars").mkdir(parents=True, exist_ok=True)
    (more / "hosts.yml").write_text(yaml.safe_dump({
        "all": {
            "vars": {
                "gpu_fleet_pool_size": size,
                "gpu_fleet_pool_vm": {"gpus": T4, "template": "gpu-server-template", "memory_mb": 32768},
                "gpu_fleet_plan_file": str(lab.directory / "plan.json"),
                "gpu_fleet_shut_down": "force",
                "gpu_fleet_guest_timeout": 5,
            },
            "children": {"esxi_retiring": {"hosts": {name: {} for name in retiring}}},
        }
    }))  # fmt: skip
    (more / "host_vars" / f"{THREE}.yml").write_text(
        yaml.safe_dump(
            {"gpu_vm_vms": [], "cluster_member_cluster": "gpu", "esxi_passthrough_devices": [{"id": "10de:1eb8"}]}
        )
    )
    return (playbook, "-i", str(more), "--limit", ":".join([TWO, THREE]), *arguments)


def pool(lab: Lab) -> dict[str, str]:
    return {name: vm["power"] for name, vm in lab.vms().items() if name.startswith("gpu-pool")}


def ok(found: Run) -> Run:
    assert found.returncode == 0, found.output
    return found


def test_a_host_joins_and_the_pool_grows_also_when_the_run_is_killed(lab: Lab) -> None:
    lab.start(time_scale=1000)
    standing_alone(lab, THREE)
    before = lab.state()
    planned = ok(lab.playbook(*run(lab, "expand", "--check", size=2)))
    assert "join cluster gpu" in planned.output
    assert "clone to esx-gpu-03.lab" in planned.output
    assert lab.state() == before

    process = lab.start_playbook(*run(lab, "expand", size=2))
    try:
        wait_for(
            lambda: process.poll() is not None or "CloneVM_Task" in lab.vcenter.counts()["requests"],
            "the first machine is cloned",
            timeout=240,
        )
        assert process.poll() is None, process.communicate()[0]
    finally:
        kill_hard(process)
    assert len(locks(lab)) == 1
    ok(lab.playbook(*run(lab, "expand", size=2)))
    assert pool(lab) == {"gpu-pool-01": "poweredOn", "gpu-pool-02": "poweredOn"}
    assert cluster_of(lab, THREE) == "gpu"
    assert locks(lab) == []
    again = ok(lab.playbook(*run(lab, "expand", size=2)))
    assert not again.count("changed")
    assert json.loads((lab.directory / "plan.json").read_text())["steps"] == []


def test_the_pool_shrinks_and_a_host_leaves(lab: Lab) -> None:
    lab.start(time_scale=1000)
    ok(lab.playbook(*run(lab, "expand", size=2)))
    refused = lab.playbook(*run(lab, "contract", size=2, retiring=(THREE,)))
    assert refused.returncode != 0
    assert "Nothing has been touched" in refused.output
    assert len(pool(lab)) == 2

    ok(lab.playbook(*run(lab, "contract", size=1)))
    assert set(pool(lab)) == {"gpu-pool-01"}
    assert locks(lab) == []

    left = lab.playbook(*run(lab, "contract", size=0, retiring=(THREE,)))
    ok(left)
    assert pool(lab) == {}
    assert cluster_of(lab, THREE) == THREE
    again = ok(lab.playbook(*run(lab, "contract", size=0, retiring=(THREE,))))
    assert not again.count("changed")
