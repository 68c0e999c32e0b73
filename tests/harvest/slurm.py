# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A small model of Slurm: nodes that drain and resume, and jobs that run, heed a signal or not, and are put back.

It is not Slurm. It has one job a node, no priorities and no users; it answers what the role's hooks ask.
"""

from __future__ import annotations

import dataclasses
import typing as t


@dataclasses.dataclass
class Job:
    """One job; `left` is its work in seconds."""

    number: int
    left: float
    checkpoints: bool = False
    """It heeds the signal: what it has done so far is kept."""
    deaf: bool = False
    """It goes on whatever it is told."""
    node: str | None = None
    done: float = 0.0
    """Since it was last started or wrote a checkpoint."""
    finished: int = 0
    requeued: int = 0

    @property
    def comment(self) -> str:
        """As squeue shows it."""
        return "checkpoint" if self.checkpoints else ""


@dataclasses.dataclass
class Node:
    """One node."""

    up: bool = False
    drained: bool = False
    reason: str = ""


@dataclasses.dataclass
class Slurm:
    """Controller, nodes and jobs."""

    nodes: dict[str, Node] = dataclasses.field(default_factory=dict)
    jobs: dict[int, Job] = dataclasses.field(default_factory=dict)

    def submit(self, job: Job) -> None:
        """Put a job into the queue."""
        self.jobs[job.number] = job

    def on(self, names: t.Collection[str]) -> list[Job]:
        """The jobs that run on some nodes."""
        return [job for job in self.jobs.values() if job.node in names]

    def advance(self, seconds: float, up: t.Collection[str]) -> None:
        """Time passes; `up` are the machines that run. Those on others are put back, as Slurm does with a dead node."""
        for name in up:
            self.nodes.setdefault(name, Node())
        for name, node in self.nodes.items():
            node.up = name in up
            if not node.up:
                for job in self.on({name}):
                    self.requeue(job.number)
        for job in self.jobs.values():
            if job.node is not None:
                job.done += seconds
                if job.done >= job.left:
                    job.node, job.finished, job.left = None, job.finished + 1, 0.0
        self.schedule()

    def schedule(self) -> None:
        """Start what waits, the oldest first."""
        free = [name for name, node in self.nodes.items() if node.up and not node.drained and not self.on({name})]
        waiting = [job for job in self.jobs.values() if job.node is None and not job.finished]
        for name, job in zip(sorted(free), waiting, strict=False):
            job.node, job.done = name, 0.0

    def drain(self, names: t.Collection[str], reason: str) -> None:
        """Let no new job start."""
        for name in names:
            node = self.nodes.setdefault(name, Node())
            node.drained, node.reason = True, reason

    def resume(self, name: str) -> None:
        """Let jobs start."""
        node = self.nodes.setdefault(name, Node())
        node.drained, node.reason = False, ""

    def signal(self, number: int) -> None:
        """A job that can keeps what it has done, and ends; one that does not know the signal dies of it."""
        job = self.jobs[number]
        if job.node is None or job.deaf:
            return
        if not job.checkpoints:
            raise AssertionError(f"job {number} was sent a signal that it dies of")
        job.left -= job.done
        job.done = 0.0

    def requeue(self, number: int) -> None:
        """Take a job off its node; what it has done since its last checkpoint is lost."""
        job = self.jobs[number]
        if job.node is not None:
            job.node, job.done, job.requeued = None, 0.0, job.requeued + 1
