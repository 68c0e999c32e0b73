# Copyright: (c) 2026, The gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""gpurun as users alice and bob of a pool with two GPUs of 10 shards, quota 1.5 GPUs each; fails at a surprise."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import pwd
import select
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path


def start(user: str, command: str, environment: str = "") -> subprocess.Popen[str]:
    # Not by su, which keeps signals to itself.
    account = pwd.getpwnam(user)
    return subprocess.Popen(
        ["/bin/sh", "-c", f"exec env {environment} gpurun {command}"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        user=account.pw_uid,
        group=account.pw_gid,
        extra_groups=[],
        cwd=account.pw_dir,
    )


def let_in_late(door: socket.socket) -> None:
    """Hand every request on to the controller after three seconds, and its answers at once."""
    while True:
        try:
            here, _peer = door.accept()
        except OSError:
            return
        there = socket.create_connection(("pool-01", 6817))
        for one, other, wait_s in [(here, there, 3.0), (there, here, 0.0)]:
            threading.Thread(target=hand_on, args=(one, other, wait_s), daemon=True).start()


def hand_on(source: socket.socket, target: socket.socket, wait_s: float) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            time.sleep(wait_s)
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)


def on_a_terminal(user: str, command: str) -> str:
    """What a command shows on a terminal of 33 lines and 101 columns."""
    child, terminal = pty.fork()
    if not child:
        os.execvp("su", ["su", "-", user, "-c", f"stty rows 33 cols 101; {command}"])  # noqa: S606 - not root's
    shown = b""
    with contextlib.suppress(OSError):  # the terminal's end
        while select.select([terminal], [], [], 60)[0] and (data := os.read(terminal, 4096)):
            shown += data
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0, shown
    return shown.decode()


def gpurun(user: str, command: str, code: int = 0, environment: str = "") -> str:
    process = start(user, command, environment)
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
gpurun("alice", "run -p 0.5 -- sh -c 'exit 1'", 1)
for user, command, code, words in [
    ("bob", "run -p 0 -- true", 2, "more than 0"),
    ("bob", "run -p -0.5 -- true", 2, "more than 0"),
    ("bob", "run -p 1.5 -- true", 2, "at most 1"),
    ("bob", "run -p half -- true", 2, "invalid float value: 'half'"),
    ("bob", "run --time soon -- true", 2, "--time soon"),
    ("bob", "run --lease 999 -- true", 2, "you hold no lease 999"),
    ("bob", "run -n 3 -- true", 120, "use -n 2 or less"),
    ("bob", "run -n 2 -p 0.5 -- true", 120, "use -n 1 or less"),
    ("bob", "run --cpus 99 -- true", 120, "use --cpus 8"),
    ("bob", "run -n 2 -- true", 121, "1.5 GPU"),
    ("bob", "run --memory 99999 -- true", 120, "16384 MB"),
    ("bob", "run --image nothing -- true", 122, "no image nothing"),
    ("bob", "--config /home/signed.json run --image unsigned -- true", 122, "is not signed"),
    ("bob", "run --chdir /tmp -- true", 120, "not on shared storage"),
    ("bob", "run --account other -- true", 124, "not in the account other"),
    ("daemon", "run --chdir /home -- true", 124, "daemon is in no tenant"),
]:
    said = gpurun(user, command, code)
    assert words in said, said
    assert said.count("\n") == 1, said
said = gpurun("bob", "run --json -n 3 -- true", 120)
assert json.loads(said.splitlines()[0])["exit_code"] == 120, said

# No controller answers, and a credential that has expired before it is read, as what is sent waits for too long.
conf = Path("/etc/slurm/slurm.conf").read_text()
Path("/home/nowhere.conf").write_text(conf.replace("SlurmctldHost=pool-01", "SlurmctldHost=localhost(127.0.0.2)"))
assert "no controller of the pool answers" in gpurun("bob", "run -- true", 123, "SLURM_CONF=/home/nowhere.conf")
late = conf.replace("SlurmctldHost=pool-01", "SlurmctldHost=localhost(127.0.0.1)\nSlurmctldPort=7817\nAuthInfo=ttl=1")
Path("/home/late.conf").write_text(late)
with socket.create_server(("127.0.0.1", 7817)) as door:
    threading.Thread(target=let_in_late, args=(door,), daemon=True).start()
    assert "does not accept" in gpurun("bob", "run -- true", 124, "SLURM_CONF=/home/late.conf")
assert not jobs()

# A terminal: the job has one, and its size; a signal reaches the job, and what it makes of it comes back.
shown = on_a_terminal("alice", "gpurun run -p 0.1 -- sh -c 'test -t 0 && test -t 1 && stty size'")
assert "33 101" in shown, shown
ready = Path("/home/alice/ready")
told = start(
    "alice", f"run -p 0.1 -- sh -c 'trap \"echo told; exit 7\" USR1; touch {ready}; while :; do sleep 0.2; done'"
)
wait_for("a job that listens", ready.exists)
told.send_signal(signal.SIGUSR1)
out, error = told.communicate(timeout=60)
assert (told.returncode, out) == (7, "told\n"), (told.returncode, out, error)

# Two halves share one GPU, a whole GPU goes to the other, and what has no room waits and says so.
halves = [start("alice", "run -p 0.5 -- sleep 300") for _ in range(2)]
wait_for("two halves", lambda: len(running()) == 2)
whole = start("bob", "run -- sleep 300")
wait_for("a whole GPU", lambda: len(running()) == 3)
assert sorted(held().values()) == [1.0, 1.0], held()
assert "used up by your job" in gpurun("alice", "run -p 0.6 -- true", 121)
assert "used up by your job" in gpurun("alice", "request_gpus -p 0.6", 121)
third = start("bob", "run -p 0.5 -- echo had my turn")
wait_for("a queue", lambda: any("PENDING" in job["job_state"] for job in jobs()))
assert select.select([third.stderr], [], [], 60)[0], "said nothing of the queue"
said = third.stderr.readline()
assert "waits, number 1 of 1" in said, said
assert 'in_use": 1.0' in gpurun("alice", "quota --json")

# Ctrl-C frees the GPU, and the one that waits gets it.
halves[0].send_signal(signal.SIGINT)
assert halves[0].wait(timeout=60) > 128
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
assert f"job {lease} on pool-01" in gpurun("alice", "smi", 125), "there is no nvidia-smi here"
gpurun("alice", "release_gpus -f lease")
assert not jobs()
gpurun("alice", "health")
for command in ["list_gpus", "health", "smi", "quota", "release_gpus --all"]:
    json.loads(gpurun("alice", f"{command} --json"))
