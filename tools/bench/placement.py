#!/usr/bin/env python3
# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""How long placement takes for a large vCenter, and how near to the best its answers are."""

from __future__ import annotations

import argparse
import collections
import random
import resource
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "collections"))

from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.placement.model import (
    GOALS,
    Demand,
    Goal,
    Gpu,
    Host,
    Instance,
    Need,
    Resident,
    Result,
    Use,
)
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.placement.place import place

_SIZES = (4, 5, 8, 10, 20, 40)


def fleet(hosts: int, gpus: int, uses: tuple[Use, ...] = ("same_size", "mixed_size", "passthrough")) -> list[Host]:
    """Hosts with A100-40, a third each for vGPUs of one size, of mixed sizes, and for passthrough."""
    return [
        Host(
            f"esx-{number:04}",
            cluster="gpu",
            gpus=tuple(
                Gpu(f"0000:{index + 16:02x}:00.0", "10de:20f1", "a100", uses[number % len(uses)])
                for index in range(gpus)
            ),
            policy="consolidation" if number % 2 else "performance",
            free_memory_mb=2048 * 1024,
            free_cpus=512,
        )
        for number in range(hosts)
    ]


def demands(count: int, seed: int = 1, *, whole: bool = True) -> list[Demand]:
    """Machines of every profile, and (if asked) with one or two whole GPUs, of several sizes of memory."""
    dice = random.Random(seed)  # noqa: S311 - a benchmark's data
    made = []
    for number in range(count):
        kind = dice.random()
        need = (
            Need("dynamic", dice.choice((1, 2)), id="10de:20f1")
            if whole and kind < 0.15
            else Need("vgpu", 1, profile=f"nvidia_a100-{dice.choice(_SIZES)}c")
        )
        made.append(Demand(f"vm-{number:05}", (need,), memory_mb=dice.choice((16, 32, 64)) * 1024, cpus=8))
    return made


def contraction(hosts: int, gpus: int, leaving: int) -> Instance:
    """A fleet that is well filled, of which some hosts are to be emptied."""
    found = place(Instance(tuple(fleet(hosts, gpus)), tuple(demands(hosts * 5))), "heuristic")
    asked = {demand.name: demand for demand in demands(hosts * 5)}
    made, moving = [], []
    for index, host in enumerate(fleet(hosts, gpus)):
        here = [step for step in found.placements if step.host == host.name]
        grants = [grant for step in here for grant in step.grants]
        made.append(
            Host(
                host.name,
                host.cluster,
                tuple(
                    Gpu(
                        gpu.address,
                        gpu.id,
                        gpu.board,
                        gpu.use,
                        held=any(g.address == gpu.address and g.slot is None for g in grants),
                        slots=tuple(g.slot for g in grants if g.address == gpu.address and g.slot is not None),
                    )
                    for gpu in host.gpus
                ),
                host.policy,
                host.free_memory_mb - sum(asked[step.vm].memory_mb for step in here),
                host.free_cpus - sum(asked[step.vm].cpus for step in here),
                tuple(Resident(asked[step.vm], step.grants) for step in here),
                closed="is to leave" if index < leaving else None,
            )
        )
        if index < leaving:
            moving += [
                Demand(step.vm, asked[step.vm].needs, asked[step.vm].memory_mb, asked[step.vm].cpus, origin=host.name)
                for step in here
            ]
    return Instance(tuple(made), tuple(moving), "fill", max_moves=50)


def show(what: str, size: str, seconds: float, found: Result) -> None:
    """One line of the table."""
    cost, bound = found.cost, found.bound
    reasons = collections.Counter(refusal.code for refusal in found.refused)
    why = f" ({', '.join(f'{count} {code}' for code, count in reasons.most_common())})" if reasons else ""
    print(
        f"{what:<30} {size:>20} {seconds:8.2f} s  {found.engine:<9} refused {cost.refused}{why} (>= {bound.refused}), "
        f"moves {cost.moves}, goal {cost.goal} (>= {bound.goal}){', optimal' if found.optimal else ''}",
        flush=True,
    )


def measure(what: str, size: str, instance: Instance) -> None:
    """Time one question."""
    began = time.perf_counter()
    found = place(instance)
    show(what, size, time.perf_counter() - began, found)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hosts", type=int, default=1_000)
    parser.add_argument("--gpus", type=int, default=8)
    parser.add_argument("--vms", type=int, default=10_000)
    args = parser.parse_args()
    size = f"{args.hosts} x {args.gpus} x {args.vms}"
    hosts, wanted = tuple(fleet(args.hosts, args.gpus)), tuple(demands(args.vms))
    goals: tuple[Goal, ...] = GOALS
    for goal in goals:
        measure(f"place, {goal}", size, Instance(hosts, wanted, goal))
    measure("place, a host spare", size, Instance(hosts, wanted[: args.vms // 2], "spread", spare_host=True))
    one_size, most = tuple(fleet(args.hosts, args.gpus, ("same_size",))), args.hosts * args.gpus * 2
    for goal in goals:
        parts = Instance(one_size, tuple(demands(most, whole=False)), goal)
        measure(f"one size a GPU, {goal}", f"{args.hosts} x {args.gpus} x {most}", parts)
    measure("place, too many", size, Instance(hosts[: args.hosts // 3], wanted, "fill"))
    leaving = max(1, args.hosts // 20)
    measure("empty hosts", f"{leaving} of {args.hosts}", contraction(args.hosts, args.gpus, leaving))
    for count in (10, 40):
        few = tuple(fleet(count, 4))
        for goal in goals:
            measure(f"place, {goal}", f"{count} x 4 x {count * 5}", Instance(few, tuple(demands(count * 5)), goal))
    print(f"memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024} MB")


if __name__ == "__main__":
    main()
