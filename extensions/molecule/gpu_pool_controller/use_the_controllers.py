# Copyright: (c) 2026, The gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Quotas, privacy, and the standby that takes over from a primary that was killed; fails at a surprise.

alice has a job of half a GPU since before, and a quota of one GPU; bob has a quota of half a GPU.
"""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path


def run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, check=False, text=True, timeout=120)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout.strip()


def submit(user: str, options: str, wrap: str = "sleep 1000") -> int:
    return int(run("su", "-", user, "-c", f"sbatch --parsable --output=/home/{user}/out {options} --wrap '{wrap}'"))


def jobs(user: str = "root") -> dict[int, dict[str, object]]:
    reply = json.loads(run("su", user, "-c", "squeue --json"))
    return {job["job_id"]: job for job in reply["jobs"]}


def state(number: int) -> str:
    job = jobs()[number]
    return f"{' '.join(job['job_state'])} {job['state_reason']}"


def wait_for(what: str, ready: object) -> None:
    end = time.monotonic() + 90
    while not ready():
        assert time.monotonic() < end, f"timed out: {what}: {run('squeue')}"
        time.sleep(0.2)
    print(what, flush=True)


def answers() -> bool:
    return subprocess.run(["squeue"], capture_output=True, check=False, timeout=60).returncode == 0


def primary_answers() -> bool:
    # Neither is up while the standby hands over, and scontrol fails then.
    told = subprocess.run(["scontrol", "ping"], capture_output=True, check=False, text=True, timeout=60).stdout
    return "UP" in told.splitlines()[0]


# One number counts whole GPUs and fractions: of two more halves, alice gets one.
long = next(iter(jobs()))
second, third = submit("alice", "--gres=shard:5"), submit("alice", "--gres=shard:5")
wait_for("alice's second half runs", lambda: state(second).startswith("RUNNING"))
wait_for("her third waits for her quota", lambda: "Assoc" in state(third) and "PENDING" in state(third))
run("scancel", str(third))
too_much = submit("bob", "--gres=gpu:1")
wait_for("a whole GPU is more than bob's quota", lambda: "Assoc" in state(too_much))
run("scancel", str(too_much))

# Who is in no tenant cannot use the pool, and nobody sees the others' jobs.
refused = subprocess.run(
    ["su", "-", "daemon", "-s", "/bin/sh", "-c", "sbatch --wrap true"], capture_output=True, check=False
)
assert b"Invalid account" in refused.stderr, refused
mine = submit("bob", "--gres=shard:2")
assert set(jobs("bob")) == {mine}, jobs("bob")
assert set(jobs("alice")) == {long, second}, jobs("alice")
run("scancel", str(mine))

# The primary is killed: the standby takes over, and jobs go on. It comes back, and takes over again.
# By its number: guests may share a tree of cgroups, by which systemctl would kill the standby too.
run("kill", "-KILL", run("systemctl", "show", "--property=MainPID", "--value", "slurmctld"))
wait_for("the standby answers", answers)
assert state(long).startswith("RUNNING"), state(long)
run("scancel", str(second))
meanwhile = submit("alice", "--gres=shard:1", "echo while the primary was away")
done = Path("/home/alice/out")
wait_for("a job of the standby's", lambda: done.exists() and done.read_text() == "while the primary was away\n")
run("systemctl", "start", "slurmctld")
wait_for("the primary answers", primary_answers)
wait_for("and knows the jobs", lambda: answers() and state(long).startswith("RUNNING"))

# Nobody reaches into a job of another: its output, script, processes, limits, or its GPU; nor the pool's key.
mine = submit("bob", "--gres=shard:2")
wait_for("bob's job runs", lambda: state(mine).startswith("RUNNING"))
before = {key: jobs()[long][key] for key in ("time_limit", "start_time", "restart_cnt")}
for command in [
    "cat /home/alice/long",
    "cat /etc/munge/munge.key",
    "ls /srv/gpu-pool/state",
    f"scontrol show job {long}",
    f"scontrol write batch_script {long} -",
    f"scontrol update jobid={long} timelimit=1",
    f"scontrol requeue {long}",
    f"scancel {long}",
    f"srun --jobid={long} --overlap echo inside",
    "sacct --allusers --allocations --user=alice --noheader",
]:
    tried = subprocess.run(["su", "-", "bob", "-c", command], capture_output=True, check=False, text=True, timeout=60)
    assert tried.stdout.strip() == "", f"bob: {command}: {tried.stdout}"
assert state(long).startswith("RUNNING"), state(long)
assert before == {key: jobs()[long][key] for key in before}, jobs()[long]
look = "cat /var/lib/slurm/slurmd/*/slurm_script /proc/[0-9]*/environ 2>/dev/null | tr '\\\\0' '\\\\n' | grep -c alice"
seen = run("su", "-", "bob", "-c", f'srun --quiet --gres=shard:1 sh -c "{look}; ls /proc/*/environ | wc -l"').split()
assert (seen[0], int(seen[1]) > 1) == ("0", True), seen

run("scancel", str(long), str(mine))
wait_for("an empty pool", lambda: not jobs())

# What was used is accounted for, by tenant.
used = json.loads(run("sacct", "--json", "--allusers", f"--jobs={long},{meanwhile}"))["jobs"]
assert {(job["account"], job["user"]) for job in used} == {("vision", "alice")}, used
shards = {job["job_id"]: {each["name"]: each["count"] for each in job["tres"]["allocated"]} for job in used}
assert (shards[long]["shard"], shards[meanwhile]["shard"]) == (5, 1), shards
