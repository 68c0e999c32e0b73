# Copyright: (c) 2026, The gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The pool as its controller tells it: servers, GPUs and how much of each is given out, jobs, tenants."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from gpurun.pool import Node, read_nodes

from .text import Family, counter, gauge

Reply = Mapping[str, Any]
CALLS = {"nodes": ("scontrol", "show", "nodes"), "queue": ("squeue",), "statistics": ("sdiag",)}
SERVER_STATES = ("in_service", "draining", "drained", "down")
JOB_STATES = ("running", "pending", "other")
DOWN = {"DOWN", "NOT_RESPONDING", "FAIL", "POWERED_DOWN", "INVALID_REG", "UNKNOWN"}
BUSY = {"ALLOCATED", "MIXED", "COMPLETING"}
# The pool bills a GPU as 100, and its parts accordingly: docs/pool.md.
BILLED_AS = 100


def up(answers: bool) -> Family:
    """Whether the controller answers; the only metric where it does not."""
    return gauge("gpu_pool_up", "Whether a controller of the pool answers (1) or not (0).", [({}, float(answers))])


def families(replies: Mapping[str, Reply], now: float) -> list[Family]:
    """Everything, from the replies to CALLS."""
    jobs = replies["queue"].get("jobs", ())
    return [
        up(True),
        *_servers(read_nodes(replies["nodes"])),
        *_jobs(jobs, now),
        *_tenants(jobs),
        *_controller(replies["statistics"].get("statistics", {})),
    ]


def _servers(nodes: Sequence[Node]) -> list[Family]:
    kinds = [({"server": node.name, "gpu_type": node.gpu_type}, node) for node in nodes]
    states = {node.name: server_state(node.states) for node in nodes}
    return [
        gauge(
            "gpu_pool_server_info",
            "A kind of GPU of a server, and how tenants are kept apart on it.",
            (({**labels, "fence": node.fence}, 1) for labels, node in kinds),
        ),
        gauge(
            "gpu_pool_server_state",
            "1 for the state that the server is in, 0 for the others.",
            (
                ({"server": name, "state": state}, float(state == is_in))
                for name, is_in in states.items()
                for state in SERVER_STATES
            ),
        ),
        gauge("gpu_pool_gpus", "GPUs, MIG slices or vGPUs of a server.", ((at, len(node.gpus)) for at, node in kinds)),
        gauge(
            "gpu_pool_gpus_used",
            "GPUs of a server given to jobs; parts count as parts.",
            ((at, sum(gpu.used for gpu in node.gpus)) for at, node in kinds),
        ),
        gauge(
            "gpu_pool_gpu_used_ratio",
            "The part of a GPU that is given to jobs, 0 to 1.",
            (({**at, "gpu": str(index)}, gpu.used) for at, node in kinds for index, gpu in enumerate(node.gpus)),
        ),
    ]


def server_state(states: Iterable[str]) -> str:
    """One of SERVER_STATES. A server that is to leave drains while jobs run there, then it is drained."""
    found = set(states)
    if found & DOWN:
        return "down"
    if found & {"DRAIN", "DRAINED", "DRAINING", "MAINTENANCE"}:
        return "draining" if found & BUSY else "drained"
    return "in_service"


def _jobs(jobs: Sequence[Reply], now: float) -> list[Family]:
    states = Counter(map(_state, jobs))
    waiting = [job for job in jobs if _state(job) == "pending"]
    reasons = Counter(str(job.get("state_reason") or "None") for job in waiting)
    waits = [now - since for job in waiting if (since := _number(job.get("submit_time"))) > 0]
    return [
        gauge(
            "gpu_pool_jobs", "Jobs in the queue, by state.", (({"state": state}, states[state]) for state in JOB_STATES)
        ),
        gauge(
            "gpu_pool_pending_jobs",
            "Jobs that wait, by Slurm's reason.",
            (({"reason": reason}, number) for reason, number in sorted(reasons.items())),
        ),
        gauge(
            "gpu_pool_pending_oldest_seconds",
            "How long the job that waits longest has waited; 0 where none waits.",
            [({}, max(waits, default=0.0))],
        ),
    ]


def _tenants(jobs: Sequence[Reply]) -> list[Family]:
    used: Counter[str] = Counter()
    counts: Counter[tuple[str, str]] = Counter()
    for job in jobs:
        account, state = str(job.get("account") or "none"), _state(job)
        counts[account, state] += 1
        if state == "running":
            used[account] += billed(str(job.get("tres_alloc_str") or ""))
    return [
        gauge(
            "gpu_pool_tenant_gpus_used",
            "GPUs given to the jobs of a tenant, as its quota counts them.",
            (({"tenant": account}, number / BILLED_AS) for account, number in sorted(used.items())),
        ),
        gauge(
            "gpu_pool_tenant_jobs",
            "Jobs of a tenant, by state.",
            (
                ({"tenant": account, "state": state}, counts[account, state])
                for account in sorted({pair[0] for pair in counts})
                for state in JOB_STATES
            ),
        ),
    ]


def billed(tres: str) -> int:
    """What `cpu=1,node=1,billing=20,gres/shard=2` costs."""
    for word in tres.split(","):
        name, _sign, value = word.partition("=")
        if name == "billing" and value.isdigit():
            return int(value)
    return 0


def _controller(statistics: Reply) -> list[Family]:
    finished = {"completed": "jobs_completed", "canceled": "jobs_canceled", "failed": "jobs_failed"}
    return [
        counter(
            "gpu_pool_jobs_submitted_total",
            "Jobs submitted since the controller's statistics began (its start, or midnight UTC).",
            [({}, _number(statistics.get("jobs_submitted")))],
        ),
        counter(
            "gpu_pool_jobs_started_total",
            "Jobs started since then.",
            [({}, _number(statistics.get("jobs_started")))],
        ),
        counter(
            "gpu_pool_jobs_finished_total",
            "Jobs ended since then, by how.",
            (({"result": result}, _number(statistics.get(key))) for result, key in finished.items()),
        ),
        gauge(
            "gpu_pool_accounting_backlog_records",
            "Records that wait for the accounting daemon: it is away while this grows.",
            [({}, _number(statistics.get("dbd_agent_queue_size")))],
        ),
    ]


def _state(job: Reply) -> str:
    found = job.get("job_state") or ()
    names = {found} if isinstance(found, str) else set(found)
    return "running" if "RUNNING" in names else "pending" if "PENDING" in names else "other"


def _number(value: Any) -> float:
    """A number, plain or as Slurm wraps one that may be unset."""
    if isinstance(value, Mapping):
        value = value.get("number") if value.get("set") else 0
    return float(value or 0)
