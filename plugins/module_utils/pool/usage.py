# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Who used how much of the pool, from Slurm's accounting. Pure.

Accounting has `billing` of each job, hundredths of a GPU (nodes.py), so that whole GPUs, shards, MIG slices and vGPUs
add up. `sacct --parsable2` is read, not its JSON: that is fifty times as much for a month of a busy pool.
"""

from __future__ import annotations

import dataclasses
import typing as t

# Of sacct --format, as playbooks/pool_usage.yml asks for them, with times in seconds (SLURM_TIME_FORMAT=%s).
FIELDS = ("JobIDRaw", "Account", "User", "State", "Submit", "Start", "End", "AllocTRES")


@dataclasses.dataclass(frozen=True, slots=True)
class Run:
    """One run of a job; one that was requeued has several. Seconds since 1970; `end` None: it still runs."""

    job: int
    account: str
    user: str
    state: str
    submit: int
    start: int
    end: int | None
    resources: t.Mapping[str, str]

    @property
    def hundredths(self) -> float:
        """What it had, in hundredths of a GPU."""
        return float(self.resources.get("billing", 0))


def read_runs(text: str) -> list[Run]:
    """The runs that sacct tells; jobs that never started are none. Raises ValueError for a line of another form."""
    runs = []
    for line in text.splitlines():
        words = line.split("|")
        if len(words) != len(FIELDS):
            raise ValueError(f"sacct told {line!r}, which has not the fields {', '.join(FIELDS)}")
        job, account, user, state, submit, start, end, resources = words
        if not start.isdigit() or (end.isdigit() and int(end) < int(start)):
            continue
        runs.append(
            Run(
                int(job),
                account,
                user,
                state.split(" ", maxsplit=1)[0],
                int(submit) if submit.isdigit() else int(start),
                int(start),
                int(end) if end.isdigit() else None,
                dict(part.split("=", 1) for part in resources.split(",") if "=" in part),
            )
        )
    return runs


def summarise(runs: t.Sequence[Run], start: int, end: int) -> list[dict[str, t.Any]]:
    """Tenants with the most first, and in each its people: GPU hours within [start, end), jobs, and how they ended.

    `waited_s` is the mean time that jobs waited before they started.
    """
    tenants = []
    for account in sorted({run.account for run in runs}):
        own = [run for run in runs if run.account == account]
        people = [
            {"user": user, **_sums([run for run in own if run.user == user], start, end)}
            for user in sorted({run.user for run in own})
        ]
        people.sort(key=lambda person: (-person["gpu_hours"], person["user"]))
        tenants.append({"tenant": account, **_sums(own, start, end), "users": people})
    tenants.sort(key=lambda tenant: (-tenant["gpu_hours"], tenant["tenant"]))
    return tenants


def _sums(runs: t.Sequence[Run], start: int, end: int) -> dict[str, t.Any]:
    spent = sum(run.hundredths * _within(run, start, end) for run in runs)
    waits = [max(0, run.start - run.submit) for run in runs]
    return {
        "gpu_hours": round(spent / 100 / 3600, 2),
        "jobs": len({run.job for run in runs}),
        "failed": sum(run.state in ("FAILED", "TIMEOUT", "OUT_OF_MEMORY") for run in runs),
        "cancelled": sum(run.state == "CANCELLED" for run in runs),
        "requeued": sum(run.state in ("REQUEUED", "NODE_FAIL", "PREEMPTED") for run in runs),
        "waited_s": round(sum(waits) / len(waits)) if waits else 0,
    }


def _within(run: Run, start: int, end: int) -> int:
    until = end if run.end is None else min(run.end, end)
    return max(0, until - max(run.start, start))


def table(tenants: t.Sequence[t.Mapping[str, t.Any]], title: str) -> str:
    """The summary for people."""
    titles = ["tenant", "user", "GPU hours", "part", "jobs", "failed", "cancelled", "requeued", "waited"]
    total = sum(tenant["gpu_hours"] for tenant in tenants)
    rows = [titles]
    for tenant in tenants:
        rows.append([tenant["tenant"], "", *_row(tenant, total)])
        rows += [["", person["user"], *_row(person, total)] for person in tenant["users"]]
    widths = [max(len(row[column]) for row in rows) for column in range(len(titles))]
    lines = [
        "  ".join(
            word.ljust(width) if column < 2 else word.rjust(width)
            for column, (word, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    return "\n".join([title, *(lines if tenants else ["nobody used the pool"])])


def _row(entry: t.Mapping[str, t.Any], total: float) -> list[str]:
    part = f"{entry['gpu_hours'] / total:.0%}" if total else "-"
    counts = [str(entry[key]) for key in ("jobs", "failed", "cancelled", "requeued")]
    minutes, seconds = divmod(entry["waited_s"], 60)
    return [f"{entry['gpu_hours']:.2f}", part, *counts, f"{minutes}:{seconds:02}"]
