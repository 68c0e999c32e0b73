# Copyright: (c) 2026, The gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Jobs that leave their GPU idle: warned first, then ended."""

from __future__ import annotations

import json
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from .holdings import Holding
from .settings import Settings
from .tools import FenceError, Slurm, Smi


@dataclass(frozen=True)
class Board:
    """A GPU now. `percent`: its use, None where the driver does not tell; `jobs`: those that have a process on it."""

    percent: int | None
    jobs: Collection[int]


@dataclass
class Verdict:
    """`since`: when each job became idle, in seconds of the clock that was given; `warned`: who has been told."""

    since: dict[int, float] = field(default_factory=dict)
    warned: set[int] = field(default_factory=set)
    warn: list[int] = field(default_factory=list)
    end: list[int] = field(default_factory=list)


def is_busy(holding: Holding, holdings: Sequence[Holding], boards: Mapping[int, Board], below: int) -> bool:
    """Whether one of the job's GPUs works for it. A GPU that nobody knows about counts as working."""
    for gpu in holding.parts:
        board = boards.get(gpu)
        if board is None:
            return True
        alone = sum(gpu in other.parts for other in holdings) == 1
        own = holding.job in board.jobs
        if board.percent is None:
            if own:
                return True
        elif board.percent >= below and (own or alone):
            return True
    return False


def judge(before: Verdict, idle: Collection[int], now: float, *, warn_s: float, limit_s: float) -> Verdict:
    """What to do, from who is idle now and who was. Who was busy in between starts anew."""
    after = Verdict()
    for job in sorted(idle):
        since = after.since[job] = before.since.get(job, now)
        if job in before.warned:
            after.warned.add(job)
        # Nobody is ended without a warning before, also where the watcher itself did not run for long.
        if now - since >= limit_s and job in before.warned:
            after.end.append(job)
        elif now - since >= warn_s and job not in before.warned:
            after.warn.append(job)
    return after


def watch(settings: Settings, holdings: Sequence[Holding]) -> list[str]:
    """Look once; returns what was done, a line each. Raises FenceError where the driver does not answer."""
    if not settings.idle_limit_s:
        return []
    slurm = Slurm(settings.node)
    boards = _boards(Smi(settings.smi))
    idle = [each.job for each in holdings if not is_busy(each, holdings, boards, settings.idle_below_percent)]
    path = Path(settings.run) / "idle.json"
    verdict = judge(_load(path), idle, time.time(), warn_s=settings.idle_warn_s, limit_s=settings.idle_limit_s)
    done = []
    left = _span(settings.idle_limit_s - settings.idle_warn_s)
    for job in verdict.warn:
        try:
            slurm.tell(job, f"job {job} leaves its GPU idle and will be ended in {left} if that does not change")
            done.append(f"job {job} was warned: its GPU is idle")
        except FenceError as error:
            # A lease has nobody listening.
            done.append(f"job {job} is idle and could not be warned: {error}")
        verdict.warned.add(job)
    for job in verdict.end:
        slurm.end(job, f"ended: its GPU was idle for {_span(settings.idle_limit_s)}")
        done.append(f"job {job} was ended: its GPU was idle for {_span(settings.idle_limit_s)}")
    _save(path, verdict)
    return done


def _boards(smi: Smi) -> dict[int, Board]:
    jobs: dict[str, set[int]] = {}
    for uuid, process in smi.processes():
        job = _job_of(process)
        if job is not None:
            jobs.setdefault(uuid, set()).add(job)
    return {
        int(index): Board(int(percent) if percent.isdecimal() else None, jobs.get(uuid, set()))
        for index, uuid, percent in smi.gpus("index", "uuid", "utilization.gpu")
    }


def _job_of(process: int) -> int | None:
    """Slurm's number of the job to which a process belongs."""
    try:
        words = Path(f"/proc/{process}/environ").read_bytes().split(b"\0")
    except OSError:
        return None
    found = [word.partition(b"=")[2] for word in words if word.startswith(b"SLURM_JOB_ID=")]
    return int(found[0]) if found and found[0].isdigit() else None


def _span(seconds: int) -> str:
    return f"{seconds // 60} minutes" if seconds >= 120 else f"{seconds} seconds"


def _load(path: Path) -> Verdict:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return Verdict({int(job): float(at) for job, at in found["since"].items()}, set(found["warned"]))
    except (OSError, ValueError, KeyError):
        return Verdict()


def _save(path: Path, verdict: Verdict) -> None:
    temporary = path.with_suffix(".new")
    temporary.write_text(json.dumps({"since": verdict.since, "warned": sorted(verdict.warned)}), encoding="utf-8")
    temporary.replace(path)
