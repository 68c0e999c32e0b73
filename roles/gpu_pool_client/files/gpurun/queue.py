# Copyright: (c) 2026, The gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Slurm's queue (`squeue --json`) in words: place, reason, whose leases. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .pool import split_gres

# Slurm's reason codes (squeue's manual, JOB REASON CODES) that a user of the pool meets.
REASONS = {
    "Resources": "all GPUs that fit are in use",
    "Priority": "jobs with a higher priority wait for the same GPUs",
    "ReqNodeNotAvail": "the servers that fit are down or being serviced",
    "BeginTime": "it was requeued and starts again in a moment",
    "JobHeldAdmin": "the operator holds it: ask them",
    "JobHeldUser": "you hold it: `scontrol release` lets it go",
    "Dependency": "it waits for another job",
    "PartitionDown": "the pool is closed for service",
    "PartitionInactive": "the pool is closed for service",
    "None": "the scheduler has not looked at it yet",
}


def value(field: Any) -> Any:
    """Slurm's {"set": …, "infinite": …, "number": …} as a number, None where unset or without limit."""
    if isinstance(field, Mapping):
        return field.get("number") if field.get("set") and not field.get("infinite") else None
    return field


def states(job: Mapping[str, Any]) -> tuple[str, ...]:
    """The job's state words, for example ("RUNNING",)."""
    found = job.get("job_state") or ()
    return (found,) if isinstance(found, str) else tuple(found)


def find(reply: Mapping[str, Any], comment: str | None) -> Mapping[str, Any] | None:
    """The job with this comment."""
    return next((job for job in reply.get("jobs", ()) if comment and job.get("comment") == comment), None)


@dataclass(frozen=True)
class Place:
    """Where a job waits, of how many; `in_pool`: of how many in all, where the site shows a user only their own."""

    job: int
    position: int
    waiting: int
    why: str
    in_pool: int | None = None

    def text(self) -> str:
        """For people."""
        if self.in_pool is None:
            return f"job {self.job} waits, number {self.position} of {self.waiting} in the queue: {self.why}"
        return (
            f"job {self.job} waits, number {self.position} of your {self.waiting}, {self.in_pool} in the whole pool: "
            f"{self.why}"
        )


def place(reply: Mapping[str, Any], comment: str | None, in_pool: int | None = None) -> Place | None:
    """Where a pending job waits; None for one that is not waiting, or not there.

    `in_pool`: how many jobs wait in all. Where that is more than can be seen, the site hides jobs of others, and the
    position is among the user's own.
    """
    job = find(reply, comment)
    if job is None or "PENDING" not in states(job):
        return None
    every = [each for each in reply.get("jobs", ()) if "PENDING" in states(each)]
    pending = [each for each in every if each.get("partition") == job.get("partition")]
    pending.sort(
        key=lambda each: (-(value(each.get("priority")) or 0), value(each.get("submit_time")) or 0, each.get("job_id"))
    )
    position = [each.get("job_id") for each in pending].index(job.get("job_id")) + 1
    hidden = in_pool is not None and in_pool > len(every)
    return Place(int(job.get("job_id") or 0), position, len(pending), why(job), in_pool if hidden else None)


def over_quota(job: Mapping[str, Any]) -> bool:
    """Whether a job waits only because its user or group has as much as it may have."""
    reason = str(job.get("state_reason") or "")
    return reason.startswith(("QOS", "Assoc")) and ("PerUser" in reason or "Grp" in reason or "PerAccount" in reason)


def used_up(reply: Mapping[str, Any], job: Mapping[str, Any]) -> str:
    """The line for a job that is not waited for, as the quota is in use."""
    user = job.get("user_name")
    own = [
        str(each.get("job_id"))
        for each in reply.get("jobs", ())
        if each.get("user_name") == user and "RUNNING" in states(each) and asks_for_gpu(each)
    ]
    by = f"your job{'s' if len(own) > 1 else ''} {', '.join(own)}" if own else "others of your group"
    return (
        f"the quota is used up by {by} ({job.get('state_reason')}; `gpurun quota` shows it): end one, or say --wait to "
        f"queue for it"
    )


def why(job: Mapping[str, Any]) -> str:
    """The reason why a job does not run yet."""
    reason = str(job.get("state_reason") or "None")
    if reason.startswith("Nodes required for job are DOWN"):
        return REASONS["ReqNodeNotAvail"]
    if reason in REASONS:
        return REASONS[reason]
    if over_quota(job):
        return f"your quota is in use ({reason}): it starts when one of your own jobs ends (`gpurun quota`)"
    if reason.startswith(("QOS", "Assoc")):
        return f"a limit of your account ({reason}): see `gpurun quota`"
    return str(job.get("state_description") or reason)


def hundredths(job: Mapping[str, Any], shards_per_gpu: int) -> int:
    """What a job holds or asks for, in hundredths of a GPU."""
    text = str(job.get("tres_alloc_str") or job.get("tres_req_str") or "")
    parts = dict(part.split("=", 1) for part in text.split(",") if "=" in part)
    whole = int(float(parts.get("gres/gpu", 0)))
    shards = int(float(parts.get("gres/shard", 0)))
    return 100 * whole + (round(100 * shards / shards_per_gpu) if shards_per_gpu else 0)


def asks_for_gpu(job: Mapping[str, Any]) -> bool:
    """Whether a job holds or wants GPUs or shards."""
    wanted = str(job.get("tres_per_node") or "").replace("gres/", "")
    return any(name in ("gpu", "shard") for name, *_rest in split_gres(wanted))
