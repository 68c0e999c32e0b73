# Copyright: (c) 2026, The gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""alice and bob on a server of two GPUs, fenced by MPS: one of them at a time; fails at a surprise."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path


def as_user(user: str, command: str) -> str:
    done = subprocess.run(["su", "-", user, "-c", command], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, f"{user}: {command}: {done.stdout}{done.stderr}"
    print(f"{user}: {command} -> {done.stdout.strip()}")
    return done.stdout.strip()


def jobs() -> dict[int, dict[str, object]]:
    reply = subprocess.run(["squeue", "--json"], capture_output=True, check=True, text=True).stdout
    return {job["job_id"]: job for job in json.loads(reply)["jobs"]}


def running() -> set[int]:
    return {number for number, job in jobs().items() if "RUNNING" in job["job_state"]}


def wait_for(what: str, ready: object) -> None:
    end = time.monotonic() + 90
    while not ready():
        assert time.monotonic() < end, f"timed out: {what}: {jobs()}"
        time.sleep(0.2)


# The job that had to leave with the server runs to its end now that the server is back.
Path("/home/alice/go").touch()
wait_for("the requeued job", lambda: not jobs())
assert Path("/home/alice/requeued").read_text() == "done\n"

# Its part of the GPU is in a job's environment, and in the daemon, which the job cannot change.
seen = as_user("alice", "srun --gres=shard:3 env")
assert "CUDA_MPS_PINNED_DEVICE_MEM_LIMIT=0=4915M" in seen, seen
assert "CUDA_MPS_ACTIVE_THREAD_PERCENTAGE=30" in seen, seen
assert "CUDA_MPS" not in as_user("alice", "srun --gres=gpu:1 env"), "a whole GPU needs no MPS"

# MPS serves one user at a time: bob waits although there is room, and comes when alice has gone.
first = int(as_user("alice", "sbatch --parsable --output=/dev/null --gres=shard:5 --wrap 'sleep 600'"))
second = int(as_user("alice", "sbatch --parsable --output=/dev/null --gres=shard:5 --wrap 'sleep 600'"))
wait_for("two halves", lambda: running() == {first, second})
held = subprocess.run(["scontrol", "--json", "show", "node"], capture_output=True, check=True, text=True).stdout
assert json.loads(held)["nodes"][0]["gres_used"].startswith("gpu:t4:0"), held
third = int(as_user("bob", "sbatch --parsable --output=/home/bob/out --gres=shard:1 --wrap 'echo my turn'"))
time_to_look = time.monotonic() + 3
wait_for("three seconds", lambda: time.monotonic() > time_to_look)
assert running() == {first, second}, jobs()
as_user("alice", f"scancel {first} {second}")
wait_for("an empty pool", lambda: not jobs())
assert Path("/home/bob/out").read_text() == "my turn\n"

# Nobody sees the other's output or environment of a job on the shared storage.
assert Path("/home/bob").stat().st_mode & 0o077 == 0
denied = subprocess.run(["su", "-", "alice", "-c", "cat /home/bob/out"], capture_output=True, check=False)
assert denied.returncode != 0
