# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Whatever drains hosts holds the operators' lock of their cluster while it does, and no longer."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from lab import Lab, Run
from pyVmomi import vim
from simulated import PASSWORD, USERNAME

ONE, TWO, THREE = "esx-gpu-01.lab", "esx-gpu-02.lab", "esx-gpu-03.lab"
THEIRS = {"clusters": ["gpu"], "run_id": "theirs", "owner": "ann@ops"}


def locks(lab: Lab) -> dict[str, str]:
    """The runs that have the locks."""
    with lab._all(vim.Folder) as folders:
        found = [item for item in folders if item.name.startswith("gpuops-lock")]
        return {item.name: json.loads(item.customValue[0].value)["run"] for item in found}


def asked(lab: Lab, *methods: str) -> list[int]:
    requests = lab.vcenter.counts()["requests"]
    return [requests.get(method, 0) for method in methods]


def words(run: Run) -> str:
    return " ".join(run.output.split())


@pytest.mark.parametrize("check", [[], ["--check"]], ids=["real", "check"])
def test_hosts_of_a_cluster_that_somebody_changes_are_left_to_them(lab: Lab, check: list[str]) -> None:
    """What another operator's contraction has in maintenance mode looks like an interrupted run's, but for the lock."""
    lab.start()
    lab.vcenter.ok("gpu_lock", **THEIRS, holder_pid=os.getpid())
    lab.vcenter.ok("esxi_maintenance", hosts=[ONE], state="entered")
    before = lab.hosts()[ONE]["intent"]
    run = lab.playbook("site", "--limit", f"{ONE}:{TWO}", "-e", "esxi_rolling_max_unavailable=2", *check)
    assert set(run.count("failed")) == {ONE, TWO}, run.output
    assert "Another operator is changing this cluster: ann@ops has held it since 20" in words(run)
    assert asked(lab, "EnterMaintenanceMode_Task", "ExitMaintenanceMode_Task", "RebootHost_Task") == [1, 0, 0]
    assert (lab.hosts()[ONE]["in_maintenance"], lab.hosts()[ONE]["intent"]) == (True, before)
    assert locks(lab) == {"gpuops-lock-gpu-1": "theirs"}


def test_a_mark_is_not_taken_off_a_host_that_somebody_drains(lab: Lab) -> None:
    lab.start()
    arguments = ("esxi_passthrough", "--limit", ONE, "-e", "esxi_passthrough_enabled=false")
    lab.vcenter.ok("gpu_lock", **THEIRS, holder_pid=os.getpid())
    lab.vcenter.ok("esxi_maintenance", hosts=[ONE], state="entered")
    with lab._all(vim.HostSystem) as hosts:
        host = next(item for item in hosts if item.name == ONE)
        mark = next((value.key, value.value) for value in host.customValue if value.value)
    lab.vcenter.ok("esxi_maintenance", hosts=[ONE], state="left")
    with lab._all(vim.HostSystem) as hosts:
        host = next(item for item in hosts if item.name == ONE)
        host.setCustomValue("gpuops.intent", mark[1].replace('"maintenance"', '"draining"'))
    drained = lab.hosts()[ONE]["intent"]
    assert drained
    refused = lab.playbook(*arguments)
    assert refused.count("failed") == {ONE: 1}, refused.output
    assert lab.hosts()[ONE]["intent"] == drained
    lab.vcenter.ok("gpu_lock", **THEIRS, state="released")

    again = lab.playbook(*arguments)
    assert again.returncode == 0, again.output
    assert lab.hosts()[ONE]["intent"] == []
    assert locks(lab) == {}


@pytest.mark.parametrize("fault", [None, "EnterMaintenanceMode_Task"])
def test_the_lock_is_given_back_at_the_end(lab: Lab, fault: str | None) -> None:
    lab.start(faults=[{"method": fault, "object": ONE, "fail_task_at": 60}] if fault else [])
    run = lab.playbook("esxi_passthrough", "--limit", f"{ONE}:{TWO}")
    assert run.count("failed") == ({ONE: 1} if fault else {}), run.output
    assert asked(lab, "CreateFolder") == [1]
    assert locks(lab) == {}
    if not fault:
        lab.vcenter.reset_counts()
        again = lab.playbook("esxi_passthrough", "--limit", f"{ONE}:{TWO}")
        assert not again.count("changed")
        assert asked(lab, "CreateFolder", "Destroy_Task") == [0, 0]


def hook(lab: Lab, place: Path, *states: dict[str, Any]) -> str:
    """A hook that does this to the lock, once."""
    vcenter = {
        "hostname": "127.0.0.1", "port": lab.vcenter.port, "username": USERNAME, "password": PASSWORD,
        "ca_file": lab.vcenter.certificate,
    }  # fmt: skip
    tasks = [
        {
            "name": "Meddle with the lock",
            "gpuops.vsphere.gpu_lock": {**vcenter, "clusters": ["gpu"], **state},
            "when": f"inventory_hostname == '{ONE}'",
        }
        for state in states
    ]
    file = place / "hook.yml"
    file.write_text(json.dumps(tasks))
    return json.dumps([str(file)])


def test_a_long_run_prolongs_its_lock_with_each_batch(lab: Lab) -> None:
    lab.start()  # two minutes of the vCenter's time in each second: half a minute is over with each host
    run = lab.playbook(
        "esxi_rolling",
        "--limit",
        f"{ONE}:{TWO}",
        "-e",
        "gpu_fleet_lock_lifetime=60",
        "-e",
        "esxi_rolling_reboot=always",
    )
    assert run.returncode == 0, run.output
    assert asked(lab, "CreateFolder", "Rename_Task", "EnterMaintenanceMode_Task") == [1, 1, 2]
    # Five marks on each host, and the lock's record, written by each batch.
    assert asked(lab, "SetField") == [2 * 5 + 2]
    assert locks(lab) == {}


RETIRING = "all: {children: {esxi_retiring: {hosts: {%s: {}, %s: {}}}}}"


@pytest.fixture
def retiring(tmp_path: Path) -> tuple[str, ...]:
    """Arguments for two hosts on their way out that are still in esxi_gpu, for its variables."""
    file = tmp_path / "retiring.yml"
    file.write_text(RETIRING % (ONE, TWO))
    return ("-i", "inventories/pool", "-i", str(file))


def test_a_contraction_that_has_lost_its_lock_drains_no_further_host(
    lab: Lab, tmp_path: Path, retiring: tuple[str, ...]
) -> None:
    """Not even where nobody has the lock any more: its plan may not hold."""
    lab.start()
    lost = hook(lab, tmp_path, {"state": "released", "force": True})
    run = lab.playbook(
        "contract",
        *retiring,
        "--limit",
        f"{ONE}:{TWO}",
        "-e",
        f'{{"esxi_rolling_verify": {lost}, "gpu_fleet_pool_size": 0}}',
    )
    assert run.count("failed") == {TWO: 1}, run.output
    assert "gpu: This run had the lock of this cluster, and it is gone" in words(run)
    assert asked(lab, "EnterMaintenanceMode_Task") == [1]
    assert locks(lab) == {}


def test_site_leaves_retiring_hosts_alone(lab: Lab, retiring: tuple[str, ...]) -> None:
    lab.start()
    before = lab.hosts()
    for name in ("esxi_passthrough", "vgpu_host", "gpu_vm"):
        run = lab.playbook(name, *retiring, "--limit", f"{ONE}:{TWO}")
        assert run.returncode == 0, run.output
        assert run.recap == {}
    assert lab.hosts() == before
    assert lab.vms() == {}


@pytest.mark.parametrize("end", ["standalone", "removed"])
def test_site_goes_on_without_hosts_that_have_retired(lab: Lab, retiring: tuple[str, ...], end: str) -> None:
    lab.start()
    left = {"gpu_fleet_pool_size": 0, "gpu_fleet_leave_as": end}
    handed_over = lab.playbook("contract", *retiring, "--limit", ONE, "-e", json.dumps(left))
    assert handed_over.returncode == 0, handed_over.output
    before = lab.hosts()
    assert (ONE in before) == (end == "standalone")
    run = lab.playbook("site", *retiring)
    assert run.returncode == 0, run.output
    after = lab.hosts()
    assert [after.get(name) for name in (ONE, TWO)] == [before.get(name) for name in (ONE, TWO)]
    assert not set(run.count("changed")) & {ONE, TWO}


def test_where_the_vcenter_is_lost_between_two_hosts_the_run_does_not_ask_it_for_each(lab: Lab, tmp_path: Path) -> None:
    lab.start()
    file = tmp_path / "end.yml"
    end = {"ansible.builtin.command": f"kill {lab.vcenter.process.pid}", "when": f"inventory_hostname == '{ONE}'"}
    file.write_text(json.dumps([{"name": "End the vCenter", **end}]))
    run = lab.playbook("esxi_rolling", "-e", json.dumps({"esxi_rolling_after_restore": [str(file)]}))
    assert run.returncode != 0
    assert f"{THREE} was not begun, because the vCenter itself had failed" in words(run)


def test_a_run_that_has_lost_its_lock_begins_no_further_host(lab: Lab, tmp_path: Path) -> None:
    lab.start()
    lost = hook(lab, tmp_path, {"state": "released", "force": True}, {**THEIRS, "holder_pid": os.getpid()})
    run = lab.playbook("esxi_rolling", "--limit", f"{ONE}:{TWO}", "-e", f'{{"esxi_rolling_after_restore": {lost}}}')
    assert run.count("failed") == {TWO: 1}, run.output
    assert "ann@ops has held it since" in words(run)
    assert asked(lab, "EnterMaintenanceMode_Task") == [1]
    assert list(locks(lab).values()) == ["theirs"]
