# Copyright: (c) 2026, The gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The programs that are asked: Slurm's, nvidia-smi, the MPS control daemon."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

# Slurm gives prologs no search path.
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

# A standby takes over, or a controller comes back from its update, within minutes.
ANSWERS_WITHIN_S = 600.0
ASK_AGAIN_S = 2.0


class FenceError(Exception):
    """Why a fence, or what it stands on, is not as it must be; one sentence for the operator."""


class UnknownJobError(FenceError):
    """The controllers answer, and do not know the job: one that took over can miss the last seconds of the other."""


def run(
    command: Sequence[str], *, text: str = "", timeout_s: float = 30, environment: Mapping[str, str] | None = None
) -> str:
    """What a command prints. Raises FenceError, with the command's last words."""
    try:
        done = subprocess.run(  # noqa: S603 - fixed programs, no shell
            list(command),
            input=text,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
            env={**os.environ, "PATH": PATH, **(environment or {})},
        )
    except FileNotFoundError:
        raise FenceError(f"{command[0]} is not installed") from None
    except subprocess.TimeoutExpired:
        raise FenceError(f"{command[0]} does not answer within {timeout_s:g} s") from None
    if done.returncode != 0:
        last = (done.stderr or done.stdout).strip().splitlines()[-1:] or ["no reason given"]
        raise FenceError(f"{command[0]} says: {last[0]}")
    return done.stdout


class Slurm:
    """What this server asks of, and tells the controller."""

    def __init__(self, node: str) -> None:
        self._node = node

    def job(self, number: int, patience_s: float) -> Mapping[str, Any]:
        """A job as Slurm describes it. While no controller answers, asks again for so long. Raises FenceError."""
        end = time.monotonic() + patience_s
        while True:
            try:
                return self._job(str(number))
            except UnknownJobError:
                raise
            except FenceError as error:
                if time.monotonic() > end:
                    raise
                print(f"gpu-pool: {error}; asking again", file=sys.stderr, flush=True)
                time.sleep(ASK_AGAIN_S)

    def _job(self, number: str) -> Mapping[str, Any]:
        jobs = json.loads(run(["scontrol", "--json", "show", "job", number]))["jobs"]
        if jobs:
            return dict(jobs[0])
        # That was nothing, and success, for no such job and for nobody who answers. In words it fails, and says why.
        try:
            run(["scontrol", "show", "job", number])
        except FenceError as error:
            if "invalid job id" in str(error).lower():
                raise UnknownJobError(f"the controllers do not know job {number}") from None
            raise
        raise FenceError(f"scontrol tells nothing of job {number}")

    def place(self, nodes: str) -> int:
        """Which of a job's nodes this one is."""
        return run(["scontrol", "show", "hostnames", nodes]).split().index(self._node)

    def state(self) -> tuple[set[str], str]:
        """The node's states, and the reason why it is not in service."""
        node = json.loads(run(["scontrol", "--json", "show", "node", self._node]))["nodes"][0]
        return set(node.get("state") or ()), str(node.get("reason") or "")

    def drain(self, reason: str) -> None:
        """Let no new job start here."""
        run(["scontrol", "update", f"NodeName={self._node}", "State=DRAIN", f"Reason={reason}"])

    def resume(self) -> None:
        """Let jobs start here again."""
        run(["scontrol", "update", f"NodeName={self._node}", "State=RESUME"])

    def tell(self, job: int, text: str) -> None:
        """Show the job's user a line."""
        run(["scontrol", "notify", str(job), text])

    def end(self, job: int, reason: str) -> None:
        """End a job, and leave the reason with it."""
        run(["scontrol", "update", f"JobId={job}", f"AdminComment={reason}"])
        run(["scancel", str(job)])


class Smi:
    """What the driver says of GPUs and who uses them."""

    def __init__(self, program: str) -> None:
        self._program = program

    def gpus(self, *fields: str) -> list[list[str]]:
        """The fields of every board."""
        return self._rows(f"--query-gpu={','.join(fields)}")

    def processes(self) -> list[tuple[str, int]]:
        """(uuid of the GPU, number of the process) of everything that computes."""
        return [(row[0], int(row[1])) for row in self._rows("--query-compute-apps=gpu_uuid,pid") if len(row) == 2]

    def _rows(self, query: str) -> list[list[str]]:
        output = run([self._program, query, "--format=csv,noheader,nounits"])
        return [[word.strip() for word in line.split(",")] for line in output.splitlines() if line.strip()]


class Mps:
    """The MPS control daemon of one GPU. Its limits hold for all of its clients, whatever their environment says."""

    def __init__(self, program: str, directory: Path, gpu: int) -> None:
        self._program = program
        self._gpu = gpu
        self.pipe = directory / str(gpu) / "pipe"
        self._log = directory / str(gpu) / "log"

    def alive(self) -> bool:
        """Whether the daemon answers."""
        if not self.pipe.is_dir():
            return False
        try:
            self._say("get_server_list")
        except FenceError:
            return False
        return True

    def start(self) -> None:
        """Have the daemon run."""
        if self.alive():
            return
        for directory in (self.pipe, self._log):
            directory.mkdir(parents=True, exist_ok=True)
        run([self._program, "-d"], environment={"CUDA_VISIBLE_DEVICES": str(self._gpu), **self._places()})
        if not self.alive():
            raise FenceError(f"the MPS daemon of GPU {self._gpu} does not answer after its start")

    def limit(self, memory_mb: int, percent: int) -> None:
        """Limit every client, those that are there and those that come. The daemon sees one GPU, number 0."""
        words = [f"set_default_active_thread_percentage {percent}"]
        if memory_mb:
            words.append(f"set_default_device_pinned_mem_limit 0 {memory_mb}M")
        for server in self._say("get_server_list").split():
            words.append(f"set_active_thread_percentage {server} {percent}")
            if memory_mb:
                words.append(f"set_device_pinned_mem_limit {server} 0 {memory_mb}M")
        for word in words:
            self._say(word)

    def stop(self, wait_s: float = 20) -> None:
        """End the daemon and its server; raises FenceError if it does not go."""
        if not self.alive():
            return
        self._say("quit")
        end = time.monotonic() + wait_s
        while self.alive():
            if time.monotonic() > end:
                raise FenceError(f"the MPS daemon of GPU {self._gpu} does not end")
            time.sleep(0.1)

    def _say(self, word: str) -> str:
        return run([self._program], text=f"{word}\n", timeout_s=10, environment=self._places())

    def _places(self) -> dict[str, str]:
        return {"CUDA_MPS_PIPE_DIRECTORY": str(self.pipe), "CUDA_MPS_LOG_DIRECTORY": str(self._log)}
