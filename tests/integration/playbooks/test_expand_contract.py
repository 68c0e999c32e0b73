# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A host joins, the pool grows; it retires, the pool shrinks, also when the run is killed on the way."""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest
import yaml
from lab import Lab, Run, kill_hard
from pyVim.task import WaitForTask
from pyVmomi import vim
from simulated import TOP, wait_for

ONE, TWO, THREE = "esx-gpu-01.lab", "esx-gpu-02.lab", "esx-gpu-03.lab"
ELSEWHERE = "esx-gen-01.lab"
POOL = TOP / "inventories" / "pool"


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


def run(
    lab: Lab, playbook: str, *arguments: str, size: int, retiring: tuple[str, ...] = (), at_a_time: int = 1
) -> tuple[str, ...]:
    """The arguments of a run of the pool in `inventories/pool`, with these hosts on their way out."""
    more = lab.directory / "retiring.yml"
    hosts = {name: {"esxi_rolling_max_unavailable": at_a_time} for name in retiring}
    more.write_text(yaml.safe_dump({"all": {"children": {"esxi_retiring": {"hosts": hosts}}}}))
    own = {"gpu_fleet_pool_size": size, "gpu_fleet_plan_file": str(lab.directory / "plan.json")}
    return (
        playbook, "-i", str(POOL), "-i", str(more), "--limit", f"{TWO}:{THREE}", "-e", json.dumps(own), *arguments
    )  # fmt: skip


SSH = """
for command; do :; done
test -e {down} && {{ echo lost >&2; exit 255; }}
exec sh -c "$command"
"""
"""A program in the place of ssh: runs here what is to run there, until a file says that the machine is lost."""


def with_a_controller(
    lab: Lab,
    squeue: str,
    scontrol: str = "echo gpu-pool-01; echo gpu-pool-02",
    servers: tuple[str, ...] = ("gpu-pool-01", "gpu-pool-02"),
) -> tuple[str, ...]:
    """A GPU pool whose controller is this machine, with a squeue and an scontrol that do this.

    It is reached by something like ssh, and is lost once there is the file that they know as `{down}`.
    """
    lab.programs = lab.directory / "programs"
    lab.programs.mkdir(exist_ok=True)
    for name, does in (("squeue", squeue), ("scontrol", scontrol), ("ssh", SSH)):
        (lab.programs / name).write_text(f"#!/bin/sh\n{does.format(down=lab.directory / 'down')}\n")
        (lab.programs / name).chmod(0o755)
    here = {"ansible_connection": "local", "ansible_become": False}
    controller = {
        "ansible_ssh_executable": str(lab.programs / "ssh"),
        "ansible_ssh_pipelining": True,
        "ansible_ssh_retries": 0,
        "ansible_become": False,
        "ansible_python_interpreter": sys.executable,
    }
    groups = {
        "gpu_pool_controllers": {"hosts": {"ctl-01": controller}},
        "gpu_pool_servers": {
            "hosts": dict.fromkeys(servers, here | {"gpu_pool_server_cpus": 4, "gpu_pool_server_memory_mb": 8192})
        },
    }
    more = lab.directory / "pool.yml"
    more.write_text(yaml.safe_dump({"all": {"children": groups}}))
    return ("-i", str(more))


def written(lab: Lab) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((lab.directory / "plan.json").read_text())
    return found


def pool(lab: Lab) -> dict[str, str]:
    return {name: vm["power"] for name, vm in lab.vms().items() if name.startswith("gpu-pool")}


def ok(found: Run) -> Run:
    assert found.returncode == 0, found.output
    return found


def killed(lab: Lab, arguments: tuple[str, ...], method: str) -> None:
    """Start a run, and `kill -9` it once the vCenter has got a request of this kind more."""

    def asked() -> int:
        return int(lab.vcenter.counts()["requests"].get(method, 0))

    before = asked()
    process = lab.start_playbook(*arguments)
    try:
        wait_for(lambda: process.poll() is not None or asked() > before, f"{method} is called", timeout=240)
        ended = process.poll() is not None
    finally:
        output = kill_hard(process)
    assert not ended, output


def test_the_pool_grows_with_a_host_and_shrinks_with_it(lab: Lab) -> None:
    lab.start(time_scale=1000)
    standing_alone(lab, TWO)
    before = lab.state()
    planned = ok(lab.playbook(*run(lab, "expand", "--check", size=2)))
    assert "join cluster gpu" in planned.output
    assert "clone to esx-gpu-02.lab" in planned.output
    assert "install vGPU manager (535.154.02" in planned.output
    assert "add     gpu-server-03a  clone to esx-gpu-03.lab" in planned.output
    assert lab.state() == before

    ok(lab.playbook(*run(lab, "expand", size=2)))
    assert pool(lab) == {"gpu-pool-01": "poweredOn", "gpu-pool-02": "poweredOn"}
    assert cluster_of(lab, TWO) == "gpu"
    assert lab.locks() == []
    # The other host divides its GPUs: its manager is installed, and its machines have their parts.
    assert lab.vgpus() == {"gpu-server-03a": ["grid_t4-8c"], "gpu-server-03b": ["grid_t4-4c"]}
    assert {lab.vms()[name]["power"] for name in lab.vgpus()} == {"poweredOn"}
    assert not any(host["in_maintenance"] or host["intent"] for host in lab.hosts().values())
    again = ok(lab.playbook(*run(lab, "expand", size=2)))
    assert again.count("changed") == {TWO: 1}, "only the file with the plan, which says now that there is nothing to do"
    assert written(lab)["steps"] == []

    contract = run(lab, "contract", size=0, retiring=(TWO,))
    killed(lab, contract, "Destroy_Task")
    assert len(lab.locks()) == 1
    ok(lab.playbook(*contract))
    assert pool(lab) == {}
    assert cluster_of(lab, TWO) == TWO
    assert lab.hosts()[TWO]["in_maintenance"]
    assert lab.locks() == []


def test_an_expansion_in_which_a_stage_fails_gives_the_lock_back_and_the_next_run_goes_on(lab: Lab) -> None:
    lab.start(time_scale=1000, faults=[{"method": "CloneVM_Task", "nth": 1, "fail_task_at": 60}])
    expand = run(lab, "expand", "--limit", TWO, size=1)
    failed = lab.playbook(*expand)
    assert failed.returncode == 2, failed.output
    assert failed.count("failed") == {TWO: 1}
    assert pool(lab) == {}
    assert lab.locks() == []
    ok(lab.playbook(*expand))
    assert pool(lab) == {"gpu-pool-01": "poweredOn"}
    assert lab.locks() == []


def test_a_contraction_that_removes_hosts_shows_it_first_and_goes_on_where_a_stage_failed(lab: Lab) -> None:
    def change(model: dict[str, Any]) -> None:
        model["vms"] = [
            {"name": "gpu-pool-01", "host": TWO, "power": "on"},
            {"name": "gpu-pool-01-debug", "host": ONE, "power": "on"},
            {"name": "gpu-pool-07", "host": ELSEWHERE, "power": "on"},
        ]

    lab.start(
        time_scale=1000,
        change=change,
        faults=[{"method": "EnterMaintenanceMode_Task", "object": TWO, "nth": 1, "fail_task_at": 60}],
    )
    remove = ("-e", "gpu_fleet_leave_as=removed", "--limit", f"{ONE}:{TWO}:{THREE}")
    contract = run(lab, "contract", *remove, size=0, retiring=(TWO, THREE), at_a_time=2)
    before = lab.state()
    shown = ok(lab.playbook(*contract, "--check"))
    assert lab.state() == before
    assert shown.output.count("PLAY [Drain the retiring hosts") == 1
    assert written(lab)["steps"][0]["object"] == "gpu-pool-01"
    assert f"gpu-pool-07 (on {ELSEWHERE}): left alone" in shown.output

    failed = lab.playbook(*contract)
    assert failed.returncode == 2, failed.output
    assert failed.count("failed") == {TWO: 1}
    assert lab.locks() == []
    assert TWO in lab.hosts()
    assert THREE not in lab.hosts()
    again = ok(lab.playbook(*contract))
    assert f"The vCenter has no host {THREE} of esxi_retiring" in again.output
    assert TWO not in lab.hosts()
    assert set(lab.vms()) == {"gpu-pool-01-debug", "gpu-pool-07"}
    assert lab.locks() == []


def test_the_plan_has_all_that_the_inventory_gives_a_host(lab: Lab) -> None:
    def change(model: dict[str, Any]) -> None:
        model["vms"] = [{"name": "gpu-esx-gen-01", "host": ELSEWHERE, "power": "on"}]
        hosts = {host["name"]: host for host in model["clusters"][0]["hosts"]}
        hosts[TWO]["vgpu_manager"] = "16.4"

    lab.start(change=change)
    retiring = run(lab, "contract", "--check", "-e", "gpu_fleet_own_vms=delete", size=0, retiring=(ELSEWHERE,))
    # What esxi_gpu does not say of it: the machine of a host that has only gpu_vm_gpus.
    equipped = '{"gpu_vm_gpus": [{"mode": "fixed"}], "cluster_member_keep_vms": true}'
    ok(lab.playbook(*retiring, "-e", equipped, "--limit", ELSEWHERE))
    assert written(lab)["removed"] == ["gpu-esx-gen-01"]
    ok(lab.playbook(*run(lab, "expand", "--check", "--limit", TWO, "-e", "grid_host_driver_state=absent", size=0)))
    assert "remove vGPU manager" in " ".join(step["what"] for step in written(lab)["steps"])


def one_of_the_pool(model: dict[str, Any]) -> None:
    model["vms"] = [{"name": "gpu-pool-01", "host": TWO, "power": "on"}]


@pytest.mark.parametrize("server", ["gpu-pool-01", "gpu-pool-01.example.org"])
def test_a_plan_names_the_jobs_and_a_server_that_nobody_could_ask_to_end_them_is_not_deleted(
    lab: Lab, server: str
) -> None:
    lab.start(time_scale=1000, change=one_of_the_pool)
    controller = with_a_controller(lab, "echo 4711 ann 'gpu-pool-[01-02]'", servers=(server, "gpu-pool-02"))
    refused = lab.playbook(*run(lab, "contract", *controller, size=0))
    assert refused.returncode == 2, refused.output
    [step] = written(lab)["steps"]
    assert (step["object"], step["jobs"]) == ("gpu-pool-01", ["4711 (ann)"])
    assert f"{server} could not be asked to let its jobs end" in " ".join(refused.output.split())
    assert pool(lab) == {"gpu-pool-01": "poweredOn"}
    assert lab.locks() == []


@pytest.mark.parametrize(
    ("squeue", "because"),
    [
        ("echo 4711 ann gpu-pool-01", "is to be deleted, and runs 4711 (ann)"),
        ("exit 1", "gpu-pool-01 is no server of the group gpu_pool_servers"),
    ],
)
def test_jobs_on_a_machine_that_the_inventory_does_not_have_as_a_server_stop_the_plan(
    lab: Lab, squeue: str, because: str
) -> None:
    lab.start(time_scale=1000, change=one_of_the_pool)
    controller = with_a_controller(lab, squeue, scontrol="echo gpu-pool-01", servers=("gpu-pool-02",))
    refused = lab.playbook(*run(lab, "contract", *controller, size=0))
    assert refused.returncode == 2, refused.output
    assert because in " ".join(refused.output.split())
    assert pool(lab) == {"gpu-pool-01": "poweredOn"}
    assert lab.locks() == []


@pytest.mark.parametrize(
    ("squeue", "scontrol", "because"),
    [
        (
            'case "$*" in *nodelist*) touch {down};; esac',
            "exit 1",
            "ctl-01 cannot be reached over SSH, so that nothing is known of gpu-pool-01 and its jobs.",
        ),
        (
            "true",
            "touch {down}; echo not found >&2; exit 1",
            "ctl-01 could not be told that gpu-pool-01 is going. It was lost.",
        ),
    ],
    ids=["before the drain is over", "after it"],
)  # fmt: skip
def test_nothing_is_deleted_where_the_controller_is_lost_on_the_way(
    lab: Lab, squeue: str, scontrol: str, because: str
) -> None:
    lab.start(time_scale=1000, change=one_of_the_pool)
    controller = with_a_controller(lab, squeue, scontrol)
    arguments = run(
        lab, "contract", *controller, "--limit", f"{TWO}:{THREE}:gpu_pool_controllers:gpu_pool_servers", size=0
    )
    refused = lab.playbook(*arguments)
    assert refused.returncode != 0, refused.output
    assert because in " ".join(refused.output.split())
    assert pool(lab) == {"gpu-pool-01": "poweredOn"}
    assert lab.locks() == []


def test_what_retiring_hosts_are_told_in_a_group_of_theirs_counts(lab: Lab) -> None:
    def change(model: dict[str, Any]) -> None:
        model["vms"] = [{"name": "own", "host": TWO, "power": "on"}]

    lab.start(change=change)
    contract = run(lab, "contract", "--check", size=0, retiring=(TWO,))
    file = lab.directory / "retiring.yml"
    told = yaml.safe_load(file.read_text())
    group = told["all"]["children"]["esxi_retiring"]
    group["vars"] = {
        "gpu_fleet_leave_as": "removed",
        "gpu_fleet_own_vms": "delete",
        "gpu_vm_vms": [{"name": "own", "gpus": []}],
    }
    # What the host itself is told would win.
    file.write_text(yaml.safe_dump(told))
    ok(lab.playbook(*contract))
    plan = written(lab)
    assert plan["removed"] == []
    assert [(step["action"], step["object"]) for step in plan["steps"]] == [("drain", TWO), ("remove", TWO)]

    group["hosts"][THREE] = {"gpu_fleet_leave_as": "standalone"}
    file.write_text(yaml.safe_dump(told))
    refused = lab.playbook(*contract)
    assert "gpu_fleet_leave_as is not the same for all retiring hosts (removed, standalone)" in " ".join(
        refused.output.split()
    )


@pytest.mark.parametrize(
    ("variables", "text"),
    [
        ({"gpu_fleet_own_vms": "burn"}, "value of gpu_fleet_own_vms must be one of: keep, delete, got: burn"),
        ({"gpu_fleet_pool_size": "six"}, "gpu_fleet_pool_size"),
        ({"gpu_fleet_pool_size": -1}, "gpu_fleet_pool_size is -1: it must be a whole number from 0."),
    ],
    ids=["fate", "word", "below nothing"],
)
def test_a_variable_that_is_nonsense_is_refused_before_anything_is_planned(
    lab: Lab, variables: dict[str, Any], text: str
) -> None:
    lab.start()
    refused = lab.playbook(*run(lab, "contract", "-e", json.dumps(variables), size=0, retiring=(TWO,)))
    assert refused.returncode == 2
    assert text in " ".join(refused.output.split())
    assert "Show the plan" not in refused.output
