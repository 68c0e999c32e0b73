# Copyright: (c) 2026, The gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The whole benchmark, on a client of the pool: one job with a GPU of its own, then jobs that share one, and again.

    python3 -m gpubench.run PLAN.json RESULT.json

The plan's directory must be on storage that the servers see too. Only the standard library is needed here.
"""

from __future__ import annotations

import dataclasses
import json
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

PHASES = ("alone", "shared")
POLL_S = 0.1
# gpurun ends its job and gives the GPU back before it ends itself.
END_S = 60


class RunError(Exception):
    """Why the benchmark could not be done; one line."""


@dataclasses.dataclass(frozen=True)
class Plan:
    """What to run. `launcher` is the command before the options of gpurun; `python` the one in the image or server."""

    jobs: int
    fraction: float
    model: str
    batch_size: int
    image_size: int
    steps: int
    warmup: int
    repeats: int
    device: str
    threads: int
    timeout_s: int
    patience_s: int
    image: str = ""
    python: str = "python3"
    gpu_type: str = ""
    cpus: int = 0
    launcher: tuple[str, ...] = ("gpurun", "run")

    @classmethod
    def read(cls, data: Mapping[str, Any]) -> Plan:
        """The plan in a file."""
        return cls(**{**data, "launcher": tuple(data.get("launcher", cls.launcher))})

    def command(self, phase: str, number: int, directory: Path, script: Path) -> list[str]:
        """One job of a phase as gpurun is to start it."""
        jobs = self.jobs if phase == "shared" else 1
        options = ["-n", "1", *(["-p", f"{self.fraction:g}"] if phase == "shared" else []), "--quiet", "--no-pty"]
        options += [f"--chdir={directory}"]
        for name, value in (("--image", self.image), ("--gpu-type", self.gpu_type), ("--cpus", self.cpus)):
            options += [f"{name}={value}"] if value else []
        job = [self.python, str(script), f"--model={self.model}", f"--batch-size={self.batch_size}"]
        job += [f"--image-size={self.image_size}", f"--steps={self.steps}", f"--warmup={self.warmup}"]
        job += [f"--device={self.device}", f"--threads={self.threads}", f"--number={number}", f"--jobs={jobs}"]
        job += [f"--meet={directory}", f"--patience={self.patience_s}", f"--out={directory / f'job-{number}.json'}"]
        return [*self.launcher, *options, "--", *job]


def run(plan: Plan, directory: Path, script: Path) -> dict[str, Any]:
    """Every phase of every repetition, one after the other. Raises RunError."""
    runs = []
    for repeat in range(plan.repeats):
        for phase in PHASES:
            print(f"{phase}, {repeat + 1} of {plan.repeats}", flush=True)
            runs.append({"phase": phase, "repeat": repeat, "jobs": run_phase(plan, phase, directory, script)})
    return {"runs": runs}


def run_phase(plan: Plan, phase: str, directory: Path, script: Path) -> list[Any]:
    """What the jobs of one phase wrote. All of them are ended before this returns or raises."""
    count = plan.jobs if phase == "shared" else 1
    with tempfile.TemporaryDirectory(prefix=f"{phase}-", dir=directory) as name:
        here = Path(name)
        started: list[subprocess.Popen[bytes]] = []
        try:
            for number in range(count):
                with (here / f"job-{number}.log").open("wb") as log:
                    command = plan.command(phase, number, here, script)
                    started.append(
                        subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT)  # noqa: S603 - gpurun, no shell
                    )
            wait(started, here, phase, plan.timeout_s)
        except FileNotFoundError as error:
            raise RunError(f"{error.filename} is not installed here: run this on a client of the pool") from error
        finally:
            end(started)
        return [json.loads((here / f"job-{number}.json").read_text(encoding="utf-8")) for number in range(count)]


def wait(started: Sequence[subprocess.Popen[bytes]], here: Path, phase: str, timeout_s: float) -> None:
    """Until every job has ended well. Raises RunError at the first that has not."""
    end_at = time.monotonic() + timeout_s
    while True:
        codes = [process.poll() for process in started]
        for number, code in enumerate(codes):
            if code:
                lines = (here / f"job-{number}.log").read_text(encoding="utf-8", errors="replace").strip().splitlines()
                # Slurm's own words about the failed step come after those of the job.
                told = [line for line in lines if not line.startswith(("srun: ", "slurmstepd: "))] or lines
                why = told[-1] if told else "it said nothing"
                raise RunError(f"{phase}: job {number + 1} of {len(codes)} ended with {code}: {why}")
        if None not in codes:
            return
        if time.monotonic() > end_at:
            raise RunError(f"{phase}: {codes.count(None)} of {len(codes)} jobs are not done after {timeout_s:g} s")
        time.sleep(POLL_S)


def end(started: Sequence[subprocess.Popen[bytes]]) -> None:
    """End the jobs that still run."""
    for process in started:
        if process.poll() is None:
            process.terminate()
    for process in started:
        try:
            process.wait(timeout=END_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def stop(_number: int, _frame: FrameType | None) -> None:
    """Whoever ends this wants the GPUs back as well."""
    raise RunError("it was ended from outside")


def main(argv: Sequence[str]) -> int:
    """Run the plan; 1 and one line on standard error where it cannot be done."""
    plan_file, result_file = map(Path, argv)
    signal.signal(signal.SIGTERM, stop)
    try:
        plan = Plan.read(json.loads(plan_file.read_text(encoding="utf-8")))
        found = run(plan, plan_file.resolve().parent, Path(__file__).resolve().with_name("train.py"))
    except (RunError, OSError, ValueError, TypeError) as error:
        print(f"benchmark: {error}", file=sys.stderr)
        return 1
    result_file.write_text(json.dumps(found), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
