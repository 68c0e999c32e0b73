# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the runs of the sharing benchmark say: throughput and run time alone and shared, their ratios, what limits them.

The throughput of a run is all of its images by the time from the first job's first to the last job's last moment: what
somebody who waits for all of them gets. The ratios are taken within a repetition, so that a machine that grows warm or
busy meanwhile does not count; of several repetitions the median counts, and the range is told.
"""

from __future__ import annotations

import dataclasses
import statistics
import typing as t

from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.benchmark.model import Machine, Run

TALK_THROUGHPUT: t.Final = (2.5, 3.0)
"""So many times the images per second of one job, the talk of 2019 shows for jobs that share a GPU."""
TALK_RUN_TIME: t.Final = 1.17
"""So many times as long as alone each of them took there."""

_TOGETHER: t.Final = 0.8


@dataclasses.dataclass(frozen=True, slots=True)
class Spread:
    """The median of some figures, the lowest and the highest."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, figures: t.Iterable[float]) -> Spread:
        """Of at least one figure."""
        known = tuple(figures)
        return cls(statistics.median(known), min(known), max(known))


@dataclasses.dataclass(frozen=True, slots=True)
class Summary:
    """The benchmark's figures. `together`: the part of the shared runs in which all of their jobs ran."""

    jobs: int
    repeats: int
    alone_images_per_s: Spread
    shared_images_per_s: Spread
    job_images_per_s: Spread
    alone_run_s: Spread
    shared_run_s: Spread
    throughput_ratio: Spread
    run_time_ratio: Spread
    together: float
    devices: int
    machine: Machine
    notes: tuple[str, ...]


def throughput(run: Run) -> float:
    """Images per second of all jobs of a run."""
    return sum(job.images for job in run.jobs) / (
        max(job.ended for job in run.jobs) - min(job.began for job in run.jobs)
    )


def run_time(run: Run) -> float:
    """Seconds that a job of the run took, on average."""
    return statistics.fmean(job.run_s for job in run.jobs)


def together(run: Run) -> float:
    """The part of a run's time in which all of its jobs ran, 0 to 1."""
    common = min(job.ended for job in run.jobs) - max(job.began for job in run.jobs)
    return max(0.0, common) / (max(job.ended for job in run.jobs) - min(job.began for job in run.jobs))


def summarise(runs: t.Sequence[Run]) -> Summary:
    """The figures of runs of which each repetition has one of each phase."""
    in_order = sorted(runs, key=lambda run: run.repeat)
    alone = [run for run in in_order if run.phase == "alone"]
    shared = [run for run in in_order if run.phase == "shared"]
    pairs = list(zip(alone, shared, strict=True))
    machines = [job.machine for pair in pairs for run in pair for job in run.jobs]
    # More devices than one in one shared run are no sharing; another GPU in another run is only a note.
    devices = max(len({job.machine.place for job in run.jobs}) for run in shared)
    overlap = min(together(run) for run in shared)
    return Summary(
        jobs=len(shared[0].jobs),
        repeats=len(shared),
        alone_images_per_s=Spread.of(throughput(run) for run in alone),
        shared_images_per_s=Spread.of(throughput(run) for run in shared),
        job_images_per_s=Spread.of(job.images / job.run_s for run in shared for job in run.jobs),
        alone_run_s=Spread.of(run_time(run) for run in alone),
        shared_run_s=Spread.of(run_time(run) for run in shared),
        throughput_ratio=Spread.of(throughput(after) / throughput(before) for before, after in pairs),
        run_time_ratio=Spread.of(run_time(after) / run_time(before) for before, after in pairs),
        together=overlap,
        devices=devices,
        machine=machines[0],
        notes=tuple(_notes(machines, devices, overlap)),
    )


def _notes(machines: t.Sequence[Machine], devices: int, overlap: float) -> t.Iterator[str]:
    if machines[0].device == "cpu":
        yield (
            f"Measured on CPU ({machines[0].cpu}), not on a GPU: it shows that the benchmark works, "
            "and says nothing about sharing a GPU."
        )
    if devices > 1:
        yield f"The jobs of one shared run were on {devices} devices: measure on a free pool, with fractions that fit."
    elif len({machine.place for machine in machines}) > 1:
        yield "Not all runs were on the same device: compare their figures with care."
    if overlap < _TOGETHER:
        yield f"All jobs ran at the same time for only {overlap:.0%} of the shared runs: take more steps."
    kinds = {(machine.gpu or machine.cpu, tuple(sorted(machine.versions.items()))) for machine in machines}
    if len(kinds) > 1:
        yield "The jobs ran on machines of different kinds, or with different versions of PyTorch."
