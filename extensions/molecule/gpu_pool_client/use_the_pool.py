# Copyright: (c) 2026, The gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""gpurun as users alice and bob of a pool with two GPUs of 10 shards, quota 1.5 GPUs each; fails at a surprise."""

from __future__ import annotations

import json
import select
import signal
import subprocess
import time


def start(user: str, command: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        ["su", "-", user, "-c", f"exec gpurun {command}"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def gpurun(user: str, command: str, code: int = 0) -> str:
    process = start(user, command)
    out, error = process.communicate(timeout=90)
    assert process.returncode == code, f"gpurun {command}: exit code {process.returncode}, wanted {code}: {out}{error}"
    assert "Traceback" not in error, error
    print(f"{user}: gpurun {command} -> {code} {(out or error).strip().splitlines()[-1:] or ''}")
    return out + error


def jobs() -> list[dict[str, object]]:
    return json.loads(subprocess.run(["squeue", "--json"], capture_output=True, check=True, text=True).stdout)["jobs"]


def wait_for(what: str, ready: object) -> None:
    end = time.monotonic() + 60
    while not ready():
        assert time.monotonic() < end, f"timed out: {what}"
        time.sleep(0.2)


def running() -> list[dict[str, object]]:
    return [job for job in jobs() if "RUNNING" in job["job_state"]]


def held() -> dict[int, float]:
    return {gpu["index"]: gpu["used"] for gpu in json.loads(gpurun("alice", "list_gpus --json"))}


assert "7" in gpurun("alice", "run -p 0.5 -- sh -c 'echo $((3 + 4)) in $PWD'")
gpurun("alice", "run -p 0.5 -- sh -c 'exit 9'", 9)
for command, code, words in [
    ("run -p 0 -- true", 2, "more than 0"),
    ("run -p 1.5 -- true", 2, "at most 1"),
    ("run -n 3 -- true", 120, "at most 2"),
    ("run -n 2 -- true", 121, "1.5 GPU"),
    ("run --memory 99999 -- true", 120, "16384 MB"),
    ("run --image nothing -- true", 122, "no image nothing"),
    ("run --chdir /tmp -- true", 120, "not on shared storage"),
]:
    assert words in gpurun("bob", command, code)

# Two halves share one GPU, a whole GPU goes to the other, and what has no room waits and says so.
halves = [start("alice", "run -p 0.5 -- sleep 300") for _ in range(2)]
wait_for("two halves", lambda: len(running()) == 2)
whole = start("bob", "run -- sleep 300")
wait_for("a whole GPU", lambda: len(running()) == 3)
assert sorted(held().values()) == [1.0, 1.0], held()
third = start("bob", "run -p 0.5 -- echo had my turn")
wait_for("a queue", lambda: any("PENDING" in job["job_state"] for job in jobs()))
assert select.select([third.stderr], [], [], 60)[0], "said nothing of the queue"
said = third.stderr.readline()
assert "waits, number 1 of 1" in said, said
assert 'in_use": 1.0' in gpurun("alice", "quota --json")

# Ctrl-C frees the GPU, and the one that waits gets it.
halves[0].send_signal(signal.SIGINT)
assert halves[0].wait(timeout=60) != 0
out, error = third.communicate(timeout=60)
assert (third.returncode, out.strip()) == (0, "had my turn"), (third.returncode, out, error)
for process in [halves[1], whole]:
    process.send_signal(signal.SIGTERM)
    process.wait(timeout=60)
wait_for("an empty pool", lambda: not jobs())

# A lease serves several commands, and is given back.
gpurun("alice", "request_gpus -p 0.3 -f lease")
lease = running()[0]["job_id"]
assert "same lease" in gpurun("alice", f"run --lease {lease} -- echo same lease")
assert held()[0] == 0.3
gpurun("alice", "release_gpus -f lease")
assert not jobs()
gpurun("alice", "health")
