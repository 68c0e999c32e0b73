# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Slurm's queue, as `squeue --json` prints it, as jobs of the fleet page. Pure."""

from __future__ import annotations

import datetime
import itertools
import re
import typing as t

_GROUP = re.compile(r"\[([\d,-]+)\]")
_MOST_NODES: t.Final = 10_000


def is_queue(data: t.Any) -> bool:
    """Whether this is what `squeue --json` prints, and not jobs of the page's own shape."""
    jobs = data.get("jobs") if isinstance(data, t.Mapping) else None
    return isinstance(jobs, list) and any(isinstance(job, t.Mapping) and "job_id" in job for job in jobs)


def jobs(queue: t.Mapping[str, t.Any], shards_per_gpu: int) -> dict[str, t.Any]:
    """The queue in the page's own shape. A part of a GPU is so many shards of `shards_per_gpu`."""
    return {"jobs": [_job(job, shards_per_gpu) if isinstance(job, t.Mapping) else job for job in queue["jobs"]]}


def _job(job: t.Mapping[str, t.Any], shards_per_gpu: int) -> dict[str, t.Any]:
    state = job.get("job_state") or ""
    word = str(state[0] if isinstance(state, list) and state else state).lower()
    started = _seconds(job.get("start_time"))
    return {
        "id": job.get("job_id"),
        "name": job.get("name") or "",
        "user": job.get("user_name") or "",
        "tenant": job.get("account") or "",
        "state": word,
        "vms": nodes(str(job.get("nodes") or "")) if word != "pending" else [],
        "gpus": _gpus(str(job.get("tres_alloc_str") or job.get("tres_req_str") or ""), shards_per_gpu),
        "since": datetime.datetime.fromtimestamp(started, datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")
        if started and word == "running"
        else "",
    }


def _gpus(tres: str, shards_per_gpu: int) -> float:
    """Whole GPUs and parts, from `cpu=1,gres/gpu=1,gres/gpu:t4=1,gres/shard=3`; typed entries repeat the others."""
    counts: dict[str, float] = {}
    for part in tres.split(","):
        name, _equals, number = part.partition("=")
        if name in ("gres/gpu", "gres/shard") and re.fullmatch(r"[\d.]+", number):
            counts[name] = float(number)
    return round(counts.get("gres/gpu", 0) + counts.get("gres/shard", 0) / shards_per_gpu, 3)


def _seconds(value: t.Any) -> int:
    """A time: a number, or since 23.11 `{"set": true, "infinite": false, "number": 1700000000}`."""
    if isinstance(value, t.Mapping):
        value = value.get("number") if value.get("set") else 0
    return int(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else 0


def nodes(text: str) -> list[str]:
    """Names from a list of hosts as Slurm writes it: `gpu-[01-03,07],login`."""
    found: list[str] = []
    for word in re.findall(r"(?:[^,\[\]]+|\[[^\]]*\])+", text):
        parts = _GROUP.split(word)
        choices = [_numbers(part) if at % 2 else [part] for at, part in enumerate(parts)]
        found += ["".join(chosen) for chosen in itertools.islice(itertools.product(*choices), _MOST_NODES)]
    return found


def _numbers(group: str) -> list[str]:
    found = []
    for span in group.split(","):
        first, _dash, last = span.partition("-")
        if first.isdigit() and (last or first).isdigit():
            end = min(int(last or first), int(first) + _MOST_NODES)
            found += [f"{number:0{len(first)}d}" for number in range(int(first), end + 1)]
    return found
