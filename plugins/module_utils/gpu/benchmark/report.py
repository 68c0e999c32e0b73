# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The result of the sharing benchmark as JSON: parameters, machine, figures, two charts, and each job's own times.

The charts have the shape that the fleet page takes, so that the file can be given to it as it is.
"""

from __future__ import annotations

import dataclasses
import typing as t

from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.benchmark.model import Machine, read_runs
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.benchmark.summary import (
    TALK_RUN_TIME,
    TALK_THROUGHPUT,
    Spread,
    Summary,
    summarise,
)

FORMAT: t.Final = "gpuops-benchmark-1"


def build_report(data: t.Any, parameters: t.Mapping[str, t.Any], generated: str) -> dict[str, t.Any]:
    """The whole result. Raises ShapeError for runs that are none."""
    found = summarise(read_runs(data))
    return {
        "format": FORMAT,
        "generated": generated,
        "parameters": dict(parameters),
        "machine": {**dataclasses.asdict(found.machine), "name": machine_name(found.machine)},
        "summary": _summary(found),
        "notes": list(found.notes),
        "lines": lines(found, parameters),
        "charts": _charts(found, parameters),
        "runs": data["runs"],
    }


def machine_name(machine: Machine) -> str:
    """What it ran on, in a line."""
    versions = machine.versions
    parts = [f"GPU {machine.gpu}" if machine.device == "cuda" else f"CPU {machine.cpu}"]
    if machine.device == "cpu":
        parts.append(f"{_many(machine.threads, 'thread')} a job, {_many(machine.cpus, 'CPU')}")
    if machine.driver:
        parts.append(f"driver {machine.driver}")
    names = {"cuda": "CUDA", "torch": "PyTorch", "torchvision": "torchvision", "python": "Python"}
    parts += [f"{name} {versions[key]}" for key, name in names.items() if versions.get(key)]
    return ", ".join([*parts, f"on {machine.host}"])


def lines(found: Summary, parameters: t.Mapping[str, t.Any]) -> list[str]:
    """The result as somebody would tell it."""
    low, high = TALK_THROUGHPUT
    ratio, slower = found.throughput_ratio, found.run_time_ratio
    return [
        f"{found.jobs} jobs of {parameters['model']} share one {_device(found)}: {ratio.median:.2f} times the "
        f"images per second of one job alone{_range(ratio)}; the talk shows {low:g} to {high:g}.",
        f"Each takes {_percent(slower.median)} than alone{_range(slower)}; in the talk {_percent(TALK_RUN_TIME)}.",
        f"Alone {found.alone_images_per_s.median:.3g} images/s in {found.alone_run_s.median:.3g} s, shared "
        f"{found.shared_images_per_s.median:.3g} images/s in {found.shared_run_s.median:.3g} s.",
    ]


def _summary(found: Summary) -> dict[str, t.Any]:
    figures = {
        name: {key: round(figure, 4) for key, figure in dataclasses.asdict(value).items()}
        for name in (field.name for field in dataclasses.fields(found))
        if isinstance(value := getattr(found, name), Spread)
    }
    return {
        "jobs": found.jobs,
        "repeats": found.repeats,
        "devices": found.devices,
        "together": round(found.together, 4),
        **figures,
        "talk": {"throughput_ratio": list(TALK_THROUGHPUT), "run_time_ratio": TALK_RUN_TIME},
    }


def _charts(found: Summary, parameters: t.Mapping[str, t.Any]) -> list[dict[str, t.Any]]:
    alone_rate, alone_s = found.alone_images_per_s.median, found.alone_run_s.median
    what = f"{parameters['model']}, batch {parameters['batch_size']}, one {_device(found)}"
    note = f"{machine_name(found.machine)}. Median of {_many(found.repeats, 'repetition')}."
    common = {"kind": "bars", "x": [1, found.jobs], "x_label": "jobs at the same time", "note": note}
    low, high = TALK_THROUGHPUT
    return [
        {
            **common,
            "title": f"Throughput: {what}",
            "y_label": "images/s",
            "series": [
                {"name": "all jobs", "values": [alone_rate, found.shared_images_per_s.median]},
                {"name": "each job", "values": [alone_rate, found.job_images_per_s.median]},
            ],
            "levels": [
                {"at": alone_rate * low, "label": f"talk: {low:g} times alone"},
                {"at": alone_rate * high, "label": f"talk: {high:g} times alone"},
            ],
        },
        {
            **common,
            "title": f"Run time: {what}",
            "y_label": "seconds",
            "series": [{"name": "each job", "values": [alone_s, found.shared_run_s.median]}],
            "levels": [{"at": alone_s * TALK_RUN_TIME, "label": f"talk: {_percent(TALK_RUN_TIME)}"}],
        },
    ]


def _device(found: Summary) -> str:
    return "GPU" if found.machine.device == "cuda" else "CPU"


def _percent(ratio: float) -> str:
    return f"{abs(ratio - 1):.0%} {'longer' if ratio >= 1 else 'shorter'}"


def _range(spread: Spread) -> str:
    return f" ({spread.low:.2f} to {spread.high:.2f} times)" if spread.low < spread.high else ""


def _many(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
