# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Runs that are killed, and the runs that finish their work."""

from __future__ import annotations

from lab import Lab, kill_hard
from simulated import wait_for

ONE, TWO, THREE = "esx-gpu-01.lab", "esx-gpu-02.lab", "esx-gpu-03.lab"


def test_one_host_then_an_interrupted_run_then_the_rest(lab: Lab) -> None:
    lab.start(time_scale=60)
    booted = {name: host["booted"] for name, host in lab.hosts().items()}

    limited = lab.playbook("site", "--limit", ONE)
    assert limited.returncode == 0, limited.output
    assert set(limited.recap) == {ONE}
    hosts = lab.hosts()
    assert {name for name in hosts if hosts[name]["booted"] != booted[name]} == {ONE}
    assert set(lab.vms()) == {"gpu-server-01"}

    run = lab.start_playbook("site")
    try:
        wait_for(
            lambda: run.poll() is not None or lab.vcenter.counts()["requests"].get("RebootHost_Task") == 2,
            "the reboot of the second host is asked for",
        )
        wait_for(lambda: lab.hosts()[TWO]["connection"] == "notResponding", "the second host goes down")
        assert run.poll() is None, "the run ended before the second host rebooted"
    finally:
        kill_hard(run)
    interrupted = lab.hosts()
    assert interrupted[TWO]["intent"], "nothing on the host says whose work it is"
    assert interrupted[THREE]["booted"] == booted[THREE]
    assert lab.locks() == ["gpuops-lock-gpu-1"]

    again = lab.playbook("site")
    assert again.returncode == 0, again.output
    assert set(again.count("changed")) == {TWO, THREE}
    finished = lab.hosts()
    assert not any(host["in_maintenance"] or host["intent"] for host in finished.values())
    assert {vm["power"] for vm in lab.vms().values()} == {"poweredOn"}
    assert len(lab.vms()) == 4
    assert lab.vcenter.counts()["requests"]["RebootHost_Task"] == 3, "a host was rebooted twice"
    assert lab.locks() == []


def test_a_run_killed_as_a_host_is_back_in_service_leaves_no_mark_after_the_next(lab: Lab) -> None:
    # The mark is written before and after entering, with the boot time, and before leaving; the fifth write hangs.
    # Before all of them the lock's record is written.
    lab.start(time_scale=1000, faults=[{"method": "SetField", "object": ONE, "nth": 5, "delay_s": 60}])
    run = lab.start_playbook("esxi_passthrough", "--limit", ONE)
    try:
        wait_for(
            lambda: run.poll() is not None or lab.vcenter.counts()["requests"].get("SetField") == 6,
            "the host has left maintenance mode",
        )
        assert run.poll() is None, "the run ended before it could be killed"
    finally:
        kill_hard(run)
    marked = lab.hosts()[ONE]
    assert (marked["in_maintenance"], bool(marked["intent"]), len(marked["active"])) == (False, True, 2)

    again = lab.playbook("esxi_passthrough", "--limit", ONE)
    assert again.returncode == 0, again.output
    assert again.count("changed") == {ONE: 1}
    assert lab.hosts()[ONE]["intent"] == []
    assert lab.locks() == []
    assert lab.vcenter.counts()["requests"]["EnterMaintenanceMode_Task"] == 1, "it was taken out of service for nothing"
    assert not lab.playbook("esxi_passthrough", "--limit", ONE).count("changed")
