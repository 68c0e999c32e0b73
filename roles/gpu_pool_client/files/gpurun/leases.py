# Copyright: (c) 2026, The gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""GPUs held over several commands: an allocation of Slurm without a command of its own."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from . import job, queue, slurm
from .errors import GpurunError, SlurmError, UsageError

LEASE_NAME = "gpurun-lease"
SMI_FIELDS = "index,name,memory.used,memory.total,utilization.gpu"


def take(options: Sequence[str], voice: job.Voice, *, patient: bool) -> dict[str, Any]:
    """Hold GPUs; returns {lease, servers, gres} when they are granted. Ctrl-C while waiting leaves nothing held."""
    comment = job.mark()
    command = ["salloc", "--no-shell", "--quiet", f"--job-name={LEASE_NAME}", f"--comment={comment}", *options]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:  # noqa: S603 - Slurm's own program
        watcher = job.Watcher(process, comment, voice, patient=patient)
        watcher.start()
        try:
            _out, error = process.communicate()
            watcher.finish()
        except KeyboardInterrupt:
            process.wait()
            _cancel([entry["job_id"] for entry in _own(comment=comment)])
            raise
    if process.returncode != 0:
        raise slurm.explain(error)
    held = _own(comment=comment)
    if not held:
        raise SlurmError("the lease was granted and is gone already: see `sacct` for the reason")
    return {"lease": held[0]["job_id"], "servers": held[0].get("nodes", ""), "gres": held[0].get("tres_alloc_str", "")}


def write(path: Path, text: str) -> None:
    """Keep a lease in a file that only its owner reads."""
    path.touch(mode=0o600)
    path.write_text(text + "\n", encoding="utf-8")


def check(number: int, user: str) -> None:
    """Raise UsageError for a lease that the user does not hold."""
    held = [entry["job_id"] for entry in _own(user=user)]
    if number not in held:
        have = ", ".join(map(str, held)) or "none"
        raise UsageError(f"you hold no lease {number}; yours: {have} (`gpurun request_gpus` makes one)")


def release(numbers: Sequence[int], file: Path | None, user: str, *, everything: bool) -> list[int]:
    """Give leases back; returns those that were held. Raises UsageError, SlurmError."""
    wanted = list(numbers)
    if file is not None:
        try:
            wanted.append(int(json.loads(file.read_text(encoding="utf-8"))["lease"]))
        except (OSError, ValueError, KeyError, TypeError):
            raise UsageError(f"{file} holds no lease: it must be a file that request_gpus -f wrote") from None
    if not wanted and not everything:
        raise UsageError("say which lease: its number, -f FILE, or --all")
    held = [entry["job_id"] for entry in _own(user=user)]
    chosen = held if everything else [number for number in wanted if number in held]
    _cancel(chosen)
    if file is not None:
        file.unlink()
    return chosen


def _own(*, user: str | None = None, comment: str | None = None) -> list[dict[str, Any]]:
    jobs = slurm.call(["squeue"]).get("jobs", ())
    return [
        entry
        for entry in jobs
        if entry.get("name") == LEASE_NAME
        and user in (None, entry.get("user_name"))
        and comment in (None, entry.get("comment"))
    ]


def _cancel(numbers: Sequence[int]) -> None:
    """End allocations and wait until their GPUs are free (bounded)."""
    if not numbers:
        return
    done = subprocess.run(["scancel", *map(str, numbers)], capture_output=True, text=True, check=False)  # noqa: S603, S607 - Slurm's own program
    if done.returncode != 0:
        raise slurm.explain(done.stderr)
    end = time.monotonic() + 30
    while time.monotonic() < end and set(numbers) & {entry["job_id"] for entry in _own()}:
        time.sleep(0.1)


def _reason(error: str) -> str:
    """What a step says of its end; srun's own word that it ended is the least of it."""
    lines = [line.strip() for line in error.splitlines() if line.strip()]
    return next((line for line in lines if "Exited with exit code" not in line), (lines or ["no reason given"])[0])


def smi(user: str, *, as_json: bool) -> int:
    """nvidia-smi on the GPUs of a user's running jobs, inside their allocations."""
    jobs = [entry for entry in slurm.call(["squeue"]).get("jobs", ()) if entry.get("user_name") == user]
    running = [entry for entry in jobs if "RUNNING" in queue.states(entry) and queue.asks_for_gpu(entry)]
    found = []
    for entry in running:
        command = [
            "srun",
            "--quiet",
            "--overlap",
            f"--jobid={entry['job_id']}",
            "nvidia-smi",
            f"--query-gpu={SMI_FIELDS}",
            "--format=csv,noheader",
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - Slurm's own program
        lines = done.stdout.splitlines() if done.returncode == 0 else []
        problem = "" if done.returncode == 0 else _reason(done.stderr)
        found.append({"job": entry["job_id"], "servers": entry.get("nodes", ""), "gpus": lines, "error": problem})
    if as_json:
        print(json.dumps(found, indent=2))
    elif not found:
        print("you hold no GPU")
    else:
        for each in found:
            print(f"job {each['job']} on {each['servers']}: {each['error'] or ''}".rstrip(": "))
            print("\n".join(f"  {line}" for line in each["gpus"]))
    if found and all(each["error"] for each in found):
        raise GpurunError(f"nvidia-smi answers on none of your GPUs: {found[0]['error']}")
    return 0
