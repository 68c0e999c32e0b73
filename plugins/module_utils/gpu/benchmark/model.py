# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the jobs of the sharing benchmark have written, as records. Whatever is not of that shape is a `ShapeError`."""

from __future__ import annotations

import dataclasses
import typing as t

Phase = t.Literal["alone", "shared"]
_PHASES: t.Final[dict[str, Phase]] = {"alone": "alone", "shared": "shared"}


class ShapeError(ValueError):
    """Data that the benchmark does not write; the message names the place."""


@dataclasses.dataclass(frozen=True, slots=True)
class Machine:
    """What a job ran on. `gpu_id` tells two GPUs of one server apart, and is empty where nothing does."""

    device: str
    host: str
    cpu: str
    cpus: int
    threads: int
    gpu: str
    gpu_id: str
    driver: str
    versions: t.Mapping[str, str]

    @property
    def place(self) -> tuple[str, str]:
        """Equal for two jobs that used one device."""
        return self.host, self.gpu_id


@dataclasses.dataclass(frozen=True, slots=True)
class Job:
    """One job: the moments between which it did its measured steps, in seconds since 1970, and its images."""

    number: int
    job: str
    began: float
    ended: float
    images: int
    steps_s: tuple[float, ...]
    machine: Machine

    @property
    def run_s(self) -> float:
        """How long it took."""
        return self.ended - self.began


@dataclasses.dataclass(frozen=True, slots=True)
class Run:
    """The jobs of one phase that ran at one time."""

    phase: Phase
    repeat: int
    jobs: tuple[Job, ...]


def read_runs(data: t.Any) -> tuple[Run, ...]:
    """The runs in what gpubench.run has written: one of each phase in each repetition. Raises ShapeError."""
    found = tuple(
        _run(item, f"runs[{number}]") for number, item in enumerate(_list(_field(data, "runs", "the result")))
    )
    alone, shared = (sorted(run.repeat for run in found if run.phase == phase) for phase in _PHASES)
    if alone != shared or not alone or len(set(alone)) != len(alone):
        raise ShapeError(f"runs: each repetition has one alone and one shared, here are {alone} and {shared}")
    return found


def _run(item: t.Any, where: str) -> Run:
    phase = _field(item, "phase", where)
    if phase not in _PHASES:
        raise ShapeError(f"{where}.phase: {phase!r} is none of {', '.join(_PHASES)}")
    jobs = tuple(
        _job(job, f"{where}.jobs[{number}]") for number, job in enumerate(_list(_field(item, "jobs", where), where))
    )
    if not jobs:
        raise ShapeError(f"{where}.jobs: there is none")
    return Run(_PHASES[phase], int(_number(item, "repeat", where)), jobs)


def _job(item: t.Any, where: str) -> Job:
    machine = _field(item, "machine", where)
    place = f"{where}.machine"
    versions = _field(machine, "versions", place)
    if not isinstance(versions, t.Mapping):
        raise ShapeError(f"{place}.versions: an object is needed")
    job = Job(
        number=int(_number(item, "number", where)),
        job=_text(item, "job", where),
        began=_number(item, "began", where),
        ended=_number(item, "ended", where),
        images=int(_number(item, "images", where)),
        steps_s=tuple(
            _value(step, f"{where}.steps_s[{number}]")
            for number, step in enumerate(_list(_field(item, "steps_s", where), where))
        ),
        machine=Machine(
            **{name: _text(machine, name, place) for name in ("device", "host", "cpu", "gpu", "gpu_id", "driver")},
            cpus=int(_number(machine, "cpus", place)),
            threads=int(_number(machine, "threads", place)),
            versions={str(name): str(version) for name, version in versions.items()},
        ),
    )
    if job.run_s <= 0 or job.images <= 0:
        raise ShapeError(f"{where}: a job of {job.images} images in {job.run_s:g} s has measured nothing")
    return job


def _field(item: t.Any, name: str, where: str) -> t.Any:
    if not isinstance(item, t.Mapping) or name not in item:
        raise ShapeError(f"{where}.{name}: is missing")
    return item[name]


def _list(value: t.Any, where: str = "runs") -> t.Sequence[t.Any]:
    if not isinstance(value, (list, tuple)):
        raise ShapeError(f"{where}: a list is needed")
    return value


def _text(item: t.Any, name: str, where: str) -> str:
    value = _field(item, name, where)
    if not isinstance(value, str):
        raise ShapeError(f"{where}.{name}: {value!r} is no text")
    return value


def _number(item: t.Any, name: str, where: str) -> float:
    return _value(_field(item, name, where), f"{where}.{name}")


def _value(value: t.Any, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) < float("inf"):
        raise ShapeError(f"{where}: {value!r} is no number")
    return value
