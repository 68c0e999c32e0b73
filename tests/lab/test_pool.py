# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A GPU pool from nothing, grown, shrunk and hurt under load: every job ends with exactly one correct result.

Slurm, Apptainer, the guests and the playbooks are real; GPUs are device files that stand in for them, so that Slurm's
counting of fractions is tested here, not what a GPU does with them.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from pool_lab import TIME_SCALE, Ledger, PoolLab, until

NEW_HOST = "esx-gpu-03.lab"
NEW_SERVERS = ("gpu-03", "gpu-pool-01")
HOOKS = Path(__file__).with_name("hooks.yml")
MISSING = [name for name in ("podman", "mmdebstrap", "ssh") if shutil.which(name) is None]
pytestmark = [
    pytest.mark.guests,
    pytest.mark.skipif(os.geteuid() != 0, reason="guests need root"),
    pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)} (tools/guest setup)"),
]


@pytest.fixture
def pool(tmp_path: Path) -> Iterator[PoolLab]:
    """A lab brought up as a newcomer does it."""
    # Homes of the pool's users are in it.
    for directory in (tmp_path, *tmp_path.parents[:2]):
        directory.chmod(0o711)
    found = PoolLab(tmp_path / "lab")
    with contextlib.ExitStack() as stack:
        stack.callback(found.demo, "demo.py", "down")
        begun = found.demo("pool_demo.py", "--time-scale", str(TIME_SCALE))
        assert begun.returncode == 0, begun.stdout[-6000:] + begun.stderr
        assert "hello from a container of hello\n" in begun.stdout
        yield found


def test_no_job_is_lost(pool: PoolLab) -> None:
    ledger = Ledger(pool)

    # from both clients, fractions and whole GPUs, in containers
    ledger.run("alice", "ws-01", "0.5", 5)
    ledger.run("bob", "ws-02", "0.3", 5)
    ledger.run("bob", "ws-02", "1", 5)
    ledger.submit("alice", "ws-01", [5, 5, 3, 10], 15)
    ledger.submit("bob", "ws-02", [2, 7, 10, 5], 15)
    ledger.settle()

    grow(pool, ledger)
    service_a_host(pool, ledger)
    lend_a_server(pool, ledger)
    lose_a_server_daemon(pool, ledger)
    lose_the_primary(pool, ledger)
    lose_the_vcenter(pool, ledger)
    shrink(pool, ledger)

    ledger.settle()
    ledger.check()
    until(lambda: set(pool.nodes().values()) == {"IDLE"}, "every server that stays is in service")


def grow(pool: PoolLab, ledger: Ledger) -> None:
    """A host more and a larger pool, under load, by a playbook that is killed half-way and run again."""
    ledger.submit("alice", "ws-01", [5] * 12, 30)
    pool.add_host(NEW_HOST, "esxi_gpu")
    killed = pool.begin("expand.yml", gpu_fleet_pool_size=1)
    until(lambda: "gpu-pool-01" in pool.guests() or "gpu-03" in pool.guests(), "a new machine is there", 300)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.communicate()
    output = pool.play("expand.yml", gpu_fleet_pool_size=1)
    assert "PLAN" in output
    assert set(pool.nodes()) == {"gpu-01", "gpu-02", *NEW_SERVERS}
    for server in NEW_SERVERS:
        assert pool.on("ws-02", f"srun --nodelist={server} --gres=shard:1 hostname", user="bob").split() == [server]


def service_a_host(pool: PoolLab, ledger: Ledger) -> None:
    """An ESXi host is rebooted under load: its server ends its jobs first, and takes others afterwards."""
    ledger.submit("alice", "ws-01", [10] * 12, 10)
    until(lambda: pool.running("gpu-02"), "gpu-02 has work")
    booted = pool.on("gpu-02", "stat --format=%Y /proc/1")
    pool.play("esxi_rolling.yml", "--limit=esx-gpu-02.lab", esxi_rolling_reboot="always")
    assert pool.on("gpu-02", "stat --format=%Y /proc/1") != booted
    until(lambda: pool.nodes()["gpu-02"] in ("IDLE", "MIXED", "ALLOCATED"), "gpu-02 takes jobs again")
    drained = pool.on("pool-01", "sacct --allusers --duplicates --noheader --format=State --nodelist=gpu-02")
    assert set(drained.split()) <= {"COMPLETED", "RUNNING"}, drained


def lend_a_server(pool: PoolLab, ledger: Ledger) -> None:
    """Harvesting gives a server's GPU back: jobs save themselves or are put back; then the server joins again."""
    ledger.settle()
    pool.on("pool-01", "scontrol update NodeName=gpu-02,gpu-pool-01,gpu-03 State=DRAIN Reason=test")
    script = "trap 'touch ~/saved/$SLURM_JOB_ID; exit 0' USR1; while :; do sleep 0.2; done"
    saves = ["sbatch", "--parsable", "--output=/dev/null", "--comment=checkpoint", "--gres=shard:2", "--wrap", script]
    number = pool.on("ws-01", f"mkdir -p ~/saved; {shlex.join(saves)}", user="alice").strip()
    names = ledger.submit("bob", "ws-02", [5], 45)
    until(lambda: len(pool.running("gpu-01")) == 2, "gpu-01 has both")
    output = pool.play(HOOKS, hook="slurm_leave", machines=["gpu-01"], gpu_harvest_grace=10)
    assert "jobs put back: 1" in output
    assert not pool.running("gpu-01")
    assert "DRAIN" in pool.nodes()["gpu-01"]
    pool.on("ws-01", f"test -e ~/saved/{number}", user="alice")
    waiting = pool.on("pool-01", "squeue --noheader --format=%j --states=PENDING").split()
    assert waiting == names
    pool.play(HOOKS, hook="slurm_join", machines=["gpu-01"])
    assert "DRAIN" not in pool.nodes()["gpu-01"]
    # Drained by somebody else: not for harvesting to take back.
    pool.play(HOOKS, hook="slurm_join", machines=["gpu-02"])
    assert "DRAIN" in pool.nodes()["gpu-02"]
    pool.on("pool-01", "scontrol update NodeName=gpu-02,gpu-pool-01,gpu-03 State=RESUME")


def lose_a_server_daemon(pool: PoolLab, ledger: Ledger) -> None:
    """A server's daemons die: it is down, its jobs run again elsewhere, and it comes back by itself."""
    ledger.submit("bob", "ws-02", [10] * 8, 10)
    until(lambda: pool.running("gpu-02"), "gpu-02 has work")
    pool.on("gpu-02", "pkill -9 slurm")
    until(lambda: "DOWN" in pool.nodes()["gpu-02"], "gpu-02 is down")
    pool.on("gpu-02", "systemctl reset-failed slurmd; systemctl start slurmd")
    until(lambda: "DOWN" not in pool.nodes()["gpu-02"], "gpu-02 is back")


def lose_the_primary(pool: PoolLab, ledger: Ledger) -> None:
    """The primary controller dies: the standby takes over, jobs go on and are taken; then the primary is back."""
    ledger.until_saved(ledger.submit("alice", "ws-01", [5] * 4, 15))
    pool.on("pool-01", "pkill -9 slurmctld")
    until(lambda: "at pool-02 is UP" in pool.on("ws-01", "scontrol ping || true"), "the standby answers")
    until(lambda: pool.on("ws-01", "squeue --noheader --states=all || true"), "the standby has taken over")
    ledger.run("bob", "ws-02", "0.2", 2)
    pool.on("pool-01", "systemctl reset-failed slurmctld; systemctl start slurmctld")
    until(lambda: "at pool-01 is UP" in pool.on("ws-01", "scontrol ping || true"), "the primary is back")


def lose_the_vcenter(pool: PoolLab, ledger: Ledger) -> None:
    """The vCenter dies and comes back: machines and jobs do not notice."""
    ledger.submit("bob", "ws-02", [3] * 4, 10)
    before = {name: guest["container"] for name, guest in pool.guests().items()}
    pool.kill_simulator()
    ledger.run("alice", "ws-01", "0.5", 2)
    pool.lab.start(TIME_SCALE)
    assert {name: guest["container"] for name, guest in pool.guests().items()} == before


def shrink(pool: PoolLab, ledger: Ledger) -> None:
    """A host less and a smaller pool, under load: jobs end, servers leave Slurm, machines are deleted."""
    ledger.submit("alice", "ws-01", [10] * 16, 10)
    until(lambda: all(pool.running(server) for server in NEW_SERVERS), "the servers have work")
    pool.add_host(NEW_HOST, "esxi_gpu", "esxi_retiring")
    pool.play("contract.yml", gpu_fleet_pool_size=0)
    assert set(pool.nodes()) == {"gpu-01", "gpu-02"}
    until(lambda: not set(NEW_SERVERS) & set(pool.guests()), "their machines are gone")
