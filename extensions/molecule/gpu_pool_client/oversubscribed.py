# Copyright: (c) 2026, The gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Whether a GPU ever had more than it has. Pure, but for the last lines.

Accounting knows of each job what it had, where and from when to when, in whole seconds; which GPU, and the fractions of
the seconds, the jobs have told themselves. Both are swept, so a job that told nothing or too little is found too.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Use:
    """A job had `hundredths` of one GPU from `start` until `end`."""

    job: int
    gpu: str
    hundredths: int
    start: float
    end: float


def uses(accounting: str, told: Mapping[int, Mapping[str, object]]) -> tuple[list[Use], list[str]]:
    """What `sacct --parsable2` says of jobs with the GPUs that they told, and what does not fit together."""
    found: list[Use] = []
    problems = []
    for line in accounting.splitlines():
        number, server, start, end, resources = line.split("|")
        parts = dict(part.split("=", 1) for part in resources.split(",") if "=" in part)
        job, billed = int(number), int(parts.get("billing", 0))
        gpus = list(told.get(job, {}).get("gpus", ()))  # type: ignore[call-overload]
        if len(gpus) != max(1, int(parts.get("gres/gpu", 0))):
            problems.append(f"job {job} has {resources} and told of GPUs {gpus}")
            continue
        for gpu in gpus:
            found.append(Use(job, f"{server}/{gpu}", billed // len(gpus), float(start), float(end)))
    missing = sorted(set(told) - {use.job for use in found})
    return found, problems + [f"accounting does not know job {job}" for job in missing]


def exact(found: Iterable[Use], told: Mapping[int, Mapping[str, float]]) -> list[Use]:
    """The same uses, with the times that the jobs told, which lie within those of accounting."""
    return [Use(use.job, use.gpu, use.hundredths, told[use.job]["start"], told[use.job]["end"]) for use in found]


def oversubscribed(found: Sequence[Use]) -> list[str]:
    """Every GPU and moment at which jobs had more than all of it. One that ends makes room for one that starts."""
    problems = []
    for gpu in sorted({use.gpu for use in found}):
        own = [use for use in found if use.gpu == gpu]
        moments = sorted(
            [(use.start, 1, use) for use in own] + [(use.end, 0, use) for use in own], key=lambda each: each[:2]
        )
        now: dict[int, int] = {}
        for at, starts, use in moments:
            if starts and use.end > use.start:
                now[use.job] = use.hundredths
            else:
                now.pop(use.job, None)
            if starts and sum(now.values()) > 100:
                problems.append(f"{gpu} at {at:.3f}: " + ", ".join(f"job {job} {part} %" for job, part in now.items()))
    return problems


if __name__ == "__main__":
    told = {entry["job"]: entry for entry in map(json.loads, sys.argv[2].splitlines())}
    found, problems = uses(sys.argv[1], told)
    problems += oversubscribed(found) + oversubscribed(exact(found, told))
    together = sum(
        one.job < other.job and one.gpu == other.gpu and one.start < other.end and other.start < one.end
        for one in exact(found, told)
        for other in exact(found, told)
    )
    print(*problems, sep="\n")
    print(f"{len(told)} jobs, {len({use.gpu for use in found})} GPUs, {together} pairs on one GPU at one time")
    sys.exit(bool(problems) or len(told) < 200 or together < 20)
