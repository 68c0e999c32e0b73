# Copyright: (c) 2026, The gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What list_gpus, health and quota print, as tables for people and as plain data for --json. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from . import queue
from .pool import Node
from .quota import Limit


def gpus(nodes: Sequence[Node]) -> list[dict[str, Any]]:
    """One record per GPU (or MIG slice, or vGPU)."""
    return [
        {
            "server": node.name,
            "index": index,
            "type": node.gpu_type,
            "memory_mb": node.memory_mb,
            "of_a_gpu": round(node.fraction, 3),
            "fence": node.fence,
            "shards": node.shards,
            "used": round(gpu.used, 3),
            "free": round(1 - gpu.used, 3) if node.usable else 0.0,
            "state": "available" if node.usable else "unavailable",
        }
        for node in nodes
        for index, gpu in enumerate(node.gpus)
    ]


def gpu_table(nodes: Sequence[Node]) -> str:
    """The records of `gpus` as a table, and what is free in all."""
    records = gpus(nodes)
    if not records:
        return "the pool has no GPUs"
    rows = [
        [
            record["server"],
            str(record["index"]),
            record["type"],
            f"{record['memory_mb']} MB" if record["memory_mb"] else "-",
            record["fence"],
            f"{record['used']:.0%}",
            f"{record['free']:.0%}" if record["state"] == "available" else "unavailable",
        ]
        for record in records
    ]
    free = sum(record["free"] * record["of_a_gpu"] for record in records)
    return (
        table(["server", "gpu", "type", "memory", "fence", "used", "free"], rows)
        + f"\n{free:.2f} of {len(records)} GPUs free"
    )


def health(nodes: Sequence[Node], pings: Mapping[str, Any]) -> dict[str, Any]:
    """Controllers and servers; `healthy` is false as soon as one of them is not as it should be."""
    controllers = [
        {"name": entry.get("hostname"), "mode": entry.get("mode"), "up": str(entry.get("pinged", "")).upper() == "UP"}
        for entry in pings.get("pings", ())
    ]
    servers = [
        {
            "name": node.name,
            "type": node.gpu_type,
            "gpus": len(node.gpus),
            "usable": node.usable,
            "state": "+".join(node.states),
            "reason": node.reason,
        }
        for node in nodes
    ]
    return {
        "healthy": bool(servers)
        and all(entry["up"] for entry in controllers)
        and all(entry["usable"] for entry in servers),
        "controllers": controllers,
        "servers": servers,
    }


def health_table(report: Mapping[str, Any]) -> str:
    """The report of `health` for people."""
    rows = [
        [f"controller {entry['name']}", entry["mode"] or "", "ok" if entry["up"] else "does not answer", ""]
        for entry in report["controllers"]
    ]
    rows += [
        [
            f"server {entry['name']}",
            f"{entry['gpus']} x {entry['type']}",
            "ok" if entry["usable"] else entry["state"],
            entry["reason"],
        ]
        for entry in report["servers"]
    ]
    return table(["what", "has", "state", "reason"], rows)


def usage(limits: Sequence[Limit], jobs: Mapping[str, Any], user: str, shards_per_gpu: int) -> dict[str, Any]:
    """A user's limits, running jobs and what they hold; in GPUs."""
    own = [job for job in jobs.get("jobs", ()) if job.get("user_name") == user and queue.asks_for_gpu(job)]
    running = [job for job in own if "RUNNING" in queue.states(job)]
    waiting = [job for job in own if "PENDING" in queue.states(job)]
    return {
        "user": user,
        "limits": [{"whose": limit.whose, "gpus": limit.hundredths / 100} for limit in limits],
        "in_use": sum(queue.hundredths(job, shards_per_gpu) for job in running) / 100,
        "running": [_job(job, shards_per_gpu) for job in running],
        "waiting": [{**_job(job, shards_per_gpu), "why": queue.why(job)} for job in waiting],
    }


def usage_table(report: Mapping[str, Any]) -> str:
    """The report of `usage` for people."""
    lines = [f"{report['user']} uses {report['in_use']:g} GPU"]
    lines += [f"limit of {limit['whose']}: {limit['gpus']:g} GPU at a time" for limit in report["limits"]] or [
        "no limit is set"
    ]
    rows = [[str(job["job"]), job["name"], f"{job['gpus']:g}", "running", ""] for job in report["running"]]
    rows += [[str(job["job"]), job["name"], f"{job['gpus']:g}", "waiting", job["why"]] for job in report["waiting"]]
    return "\n".join([*lines, *([table(["job", "name", "gpus", "state", "why"], rows)] if rows else [])])


def _job(job: Mapping[str, Any], shards_per_gpu: int) -> dict[str, Any]:
    return {
        "job": job.get("job_id"),
        "name": job.get("name"),
        "gpus": queue.hundredths(job, shards_per_gpu) / 100,
        "servers": job.get("nodes") or "",
    }


def table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns as wide as they need to be."""
    widths = [max(len(str(row[column])) for row in [titles, *rows]) for column in range(len(titles))]
    return "\n".join(
        "  ".join(str(row[column]).ljust(width) for column, width in enumerate(widths)).rstrip()
        for row in [titles, *rows]
    )
