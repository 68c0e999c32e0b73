"""From what the jobs wrote to figures, sentences, charts and a page."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.gpuops.vsphere.plugins.filter.benchmark_page import benchmark_page
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.benchmark import model, page, report, summary
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.fleet_page import inputs
from hypothesis import given
from hypothesis import strategies as st

PARAMETERS = {"model": "resnet50", "batch_size": 32}
VERSIONS = {"python": "3.13.5", "torch": "2.6.0", "torchvision": "0.21.0", "cuda": "12.4"}
GPU = {
    "device": "cuda", "host": "gpu-01", "cpu": "A Processor", "cpus": 8, "threads": 4, "gpu": "Tesla T4",
    "gpu_id": "GPU-1", "driver": "550.163.01", "versions": VERSIONS,
}  # fmt: skip
CPU = {
    **GPU,
    "device": "cpu",
    "gpu": "",
    "driver": "",
    "gpu_id": "0",
    "threads": 1,
    "versions": {**VERSIONS, "cuda": ""},
}


def job(number: int, began: float, ended: float, images: int = 100, machine: Any = GPU) -> dict[str, Any]:
    steps = [(ended - began) / 2] * 2
    return {
        "number": number, "job": str(40 + number), "began": began, "ended": ended, "images": images, "steps_s": steps,
        "machine": machine,
    }  # fmt: skip


def runs(machine: Any = GPU, repeats: int = 1, shared_s: float = 12.0) -> dict[str, Any]:
    """Alone 10 images/s; three jobs together, the last begins a second after the first."""
    made = []
    for repeat in range(repeats):
        made.append({"phase": "alone", "repeat": repeat, "jobs": [job(0, 0, 10, machine=machine)]})
        jobs = [job(at, at / 2, at / 2 + shared_s, machine=machine) for at in range(3)]
        made.append({"phase": "shared", "repeat": repeat, "jobs": jobs})
    return {"runs": made}


def summarised(data: Any) -> summary.Summary:
    return summary.summarise(model.read_runs(data))


def test_figures() -> None:
    found = summarised(runs())
    assert found.alone_images_per_s.median == 10
    # 300 images from the first job's first to the last job's last moment, 13 s.
    assert found.shared_images_per_s.median == pytest.approx(300 / 13)
    assert found.throughput_ratio.median == pytest.approx(30 / 13)
    assert found.run_time_ratio.median == pytest.approx(1.2)
    assert found.job_images_per_s.median == pytest.approx(100 / 12)
    assert found.together == pytest.approx(11 / 13)
    assert (found.jobs, found.repeats, found.devices, found.notes) == (3, 1, 1, ())


def test_ratios_are_taken_within_a_repetition() -> None:
    data = runs(repeats=3)
    for run in data["runs"]:
        # In the second repetition the machine was ten times as slow.
        if run["repeat"] == 1:
            run["jobs"] = [{**one, "began": one["began"] * 10, "ended": one["ended"] * 10} for one in run["jobs"]]
    found = summarised(data)
    assert found.throughput_ratio.low == pytest.approx(found.throughput_ratio.high)
    assert found.alone_images_per_s == summary.Spread(10, 1, 10)


@given(st.floats(0.1, 1000), st.integers(2, 8), st.floats(0.001, 1))
def test_jobs_that_take_turns_gain_nothing_and_jobs_that_do_not_gain_all(
    alone_s: float, jobs: int, late: float
) -> None:
    first = {"phase": "alone", "repeat": 0, "jobs": [job(0, 0, alone_s)]}
    turns = {"phase": "shared", "repeat": 0, "jobs": [job(at, at * alone_s, (at + 1) * alone_s) for at in range(jobs)]}
    assert summarised({"runs": [first, turns]}).throughput_ratio.median == pytest.approx(1)
    assert summarised({"runs": [first, turns]}).together == pytest.approx(0, abs=1e-6)
    at_once = {"phase": "shared", "repeat": 0, "jobs": [job(at, late, late + alone_s) for at in range(jobs)]}
    found = summarised({"runs": [first, at_once]})
    assert found.throughput_ratio.median == pytest.approx(jobs)
    assert found.run_time_ratio.median == pytest.approx(1)


def edited(data: dict[str, Any], edit: Any) -> dict[str, Any]:
    # As JSON, so that machines that are one object here are several.
    made = json.loads(json.dumps(data))
    edit(made["runs"])
    return made  # type: ignore[no-any-return]


def on_another_gpu(run: int, number: int) -> dict[str, Any]:
    return edited(runs(), lambda found: found[run]["jobs"][number]["machine"].update(gpu_id="GPU-2"))


def with_another_pytorch() -> dict[str, Any]:
    return edited(runs(), lambda found: found[0]["jobs"][0]["machine"]["versions"].update(torch="2.5"))


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (runs(CPU), "Measured on CPU (A Processor), not on a GPU"),
        (on_another_gpu(1, 2), "The jobs of one shared run were on 2 devices: measure on a free pool"),
        (on_another_gpu(0, 0), "Not all runs were on the same device"),
        (runs(shared_s=2.0), "at the same time for only 33% of the shared runs: take more steps"),
        (with_another_pytorch(), "different versions of PyTorch"),
    ],
)
def test_what_limits_the_result_is_said(data: dict[str, Any], words: str) -> None:
    assert any(words in note for note in summarised(data).notes)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ([], "the result.runs: is missing"),
        ({"runs": 1}, "runs: a list is needed"),
        ({"runs": runs()["runs"][:1]}, r"here are \[0\] and \[\]"),
        ({"runs": runs()["runs"] * 2}, r"here are \[0, 0\]"),
        (edited(runs(), lambda found: found[0].update(phase="together")), "runs.0..phase: 'together' is none of"),
        (edited(runs(), lambda found: found[0]["jobs"].clear()), "runs.0..jobs: there is none"),
        (
            edited(runs(), lambda found: found[1]["jobs"][2].update(ended="x")),
            "runs.1..jobs.2..ended: 'x' is no number",
        ),
        (edited(runs(), lambda found: found[0]["jobs"][0].update(ended=0)), "has measured nothing"),
        (edited(runs(), lambda found: found[0]["jobs"][0].pop("machine")), "jobs.0..machine: is missing"),
    ],
)
def test_what_is_no_result_is_refused(data: Any, words: str) -> None:
    with pytest.raises(model.ShapeError, match=words):
        report.build_report(data, PARAMETERS, "2026-03-04T00:00:00Z")


def test_the_result_says_it_in_words() -> None:
    found = report.build_report(runs(), PARAMETERS, "2026-03-04T00:00:00Z")
    assert found["lines"] == [
        "3 jobs of resnet50 share one GPU: 2.31 times the images per second of one job alone; the talk shows 2.5 to 3.",
        "Each takes 20% longer than alone; in the talk 17% longer.",
        "Alone 10 images/s in 10 s, shared 23.1 images/s in 12 s.",
    ]
    assert found["machine"]["name"] == (
        "GPU Tesla T4, driver 550.163.01, CUDA 12.4, PyTorch 2.6.0, torchvision 0.21.0, Python 3.13.5, on gpu-01"
    )
    slower = edited(runs(repeats=2), lambda made: made[3]["jobs"][0].update(ended=15))
    assert report.build_report(slower, PARAMETERS, "")["lines"][1].startswith(
        "Each takes 25% longer than alone (1.20 to 1.30 times)"
    )
    on_cpu = report.build_report(runs(CPU), PARAMETERS, "2026-03-04T00:00:00Z")
    assert on_cpu["lines"][0].startswith("3 jobs of resnet50 share one CPU")
    assert on_cpu["machine"]["name"].startswith("CPU A Processor, 1 thread a job, 8 CPUs, PyTorch")
    assert json.loads(json.dumps(found)) == found


def test_the_fleet_page_takes_the_result_as_it_is() -> None:
    throughput, run_time = inputs.charts(report.build_report(runs(), PARAMETERS, "2026-03-04T00:00:00Z"))
    assert throughput.title == "Throughput: resnet50, batch 32, one GPU"
    assert throughput.x == (1, 3)
    assert throughput.series[0].values == (10, pytest.approx(300 / 13))
    assert [(level.at, level.label) for level in throughput.levels] == [
        (25, "talk: 2.5 times alone"),
        (30, "talk: 3 times alone"),
    ]
    assert run_time.series[0].values == (10, 12)
    assert [(level.at, level.label) for level in run_time.levels] == [(pytest.approx(11.7), "talk: 17% longer")]


def test_the_page_holds_the_result_and_no_markup_of_it() -> None:
    evil = {**PARAMETERS, "model": "</script><script>alert(1)</script>"}
    found = report.build_report(runs(), evil, "2026-03-04T00:00:00Z")
    text = benchmark_page(found)
    held = re.search(r'<script id="benchmark-data" type="application/json">(.*?)</script>', text, re.DOTALL)
    assert held is not None
    assert json.loads(held[1]) == found
    assert "alert(1)</script>" not in text
    assert "Content-Security-Policy" in text
    assert text == benchmark_page(found)


def test_the_page_refuses_what_is_no_result(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="gpuops-benchmark-1, this says None"):
        page.render({}, {})
    with pytest.raises(ValueError, match=r"benchmark\.html, benchmark\.css"):
        page.render({"format": report.FORMAT}, {})
