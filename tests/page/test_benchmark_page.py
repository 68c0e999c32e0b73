# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The page of the sharing benchmark in a browser, and its result on the fleet page."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import fleets
import pytest
from ansible_collections.gpuops.vsphere.plugins.filter.benchmark_page import benchmark_page
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.benchmark.report import build_report
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.fleet_page import inputs
from playwright.sync_api import Page as Tab
from playwright.sync_api import expect

Open = Callable[..., Tab]
EVIL = "<img src=x onerror=window.hit=1>"


def result(device: str = "cuda", model: str = "resnet50") -> dict[str, Any]:
    """Four jobs that share a GPU, 2.76 times the images of one alone."""
    machine = {
        "device": device, "host": "gpu-01", "cpu": "A Processor", "cpus": 8, "threads": 8,
        "gpu": "Tesla V100" if device == "cuda" else "", "gpu_id": "GPU-1", "driver": "550.163.01",
        "versions": {"python": "3.13.5", "torch": "2.6.0", "torchvision": "0.21.0", "cuda": "12.4"},
    }  # fmt: skip

    def job(number: int, run_s: float) -> dict[str, Any]:
        return {
            "number": number, "job": str(70 + number), "began": 100.0, "ended": 100.0 + run_s, "images": 3200,
            "steps_s": [run_s / 100] * 100, "machine": machine,
        }  # fmt: skip

    runs = [
        {"phase": "alone", "repeat": 0, "jobs": [job(0, 20.0)]},
        {"phase": "shared", "repeat": 0, "jobs": [job(number, 29.0) for number in range(4)]},
    ]
    parameters = {
        "model": model,
        "batch_size": 32,
        "image_size": 224,
        "steps": 100,
        "jobs": 4,
        "fraction": 0.2,
        "image": "",
    }
    return build_report({"runs": runs}, parameters, "2026-03-04T08:15:00Z")


@pytest.fixture
def opened(open_page: Open, tmp_path: Path) -> Open:
    """Open the page of a result."""

    def start(found: dict[str, Any], **context: Any) -> Tab:
        file = tmp_path / "benchmark.html"
        file.write_text(benchmark_page(found))
        return open_page(file.as_uri(), **context)

    return start


def test_it_says_what_was_found_and_where(opened: Open) -> None:
    tab = opened(result())
    expect(tab.locator("#asof")).to_have_text("measured on a GPU 4 Mar 2026, 08:15 UTC")
    assert tab.locator("#lines li").first.inner_text().startswith("4 jobs of resnet50 share one GPU: 2.76 times")
    assert "GPU Tesla V100, driver 550.163.01, CUDA 12.4" in tab.locator("#machine").inner_text()
    assert tab.locator("#notes li").count() == 0
    assert tab.locator("#jobs tbody tr").count() == 5
    row = tab.locator("#jobs tbody tr").nth(1).locator("td").all_inner_texts()
    assert row == ["1", "shared", "70", "110.34", "29.00", "0.290", "gpu-01 Tesla V100 GPU-1"]
    expect(tab.locator("#status")).to_have_text("5 jobs")


def test_on_cpu_it_says_so_first(opened: Open) -> None:
    tab = opened(result("cpu"))
    expect(tab.locator("#asof .badge.warn")).to_have_text("measured on CPU")
    assert "Measured on CPU (A Processor), not on a GPU" in tab.locator("#notes li").first.inner_text()


def test_the_talk_is_a_line_in_each_chart_and_a_row_of_its_table(opened: Open) -> None:
    tab = opened(result())
    expect(tab.locator(".plot canvas")).to_have_count(2)
    for summary in tab.locator("figure summary").all():
        summary.click()
    # An opened summary makes its table in a task of its own.
    tables = tab.locator("figure table")
    expect(tables).to_have_count(2)
    throughput, run_time = tables.first, tables.last
    expect(throughput.locator("tbody th")).to_have_text(["1", "4", "talk: 2.5 times alone", "talk: 3 times alone"])
    expect(throughput.locator("tbody tr").nth(2).locator("td")).to_have_text("400")
    expect(run_time.locator("tbody tr").last.locator("th, td")).to_have_text(["talk: 17% longer", "23.4"])


def test_names_stay_text(opened: Open) -> None:
    tab = opened(result(model=EVIL))
    assert tab.locator("img").count() == 0
    assert tab.evaluate("window.hit") is None
    assert EVIL in tab.locator("#parameters").inner_text()


@pytest.mark.parametrize("width", [320, 390, 1400])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_sticks_out(opened: Open, width: int, scheme: str) -> None:
    tab = opened(result(), viewport={"width": width, "height": 800}, color_scheme=scheme)
    expect(tab.locator(".plot canvas").first).to_be_visible()
    assert tab.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0


def test_the_fleet_page_draws_the_result_as_it_is(open_page: Open) -> None:
    tab = open_page(fleets.small().page(benchmark=inputs.charts(result())))
    captions = tab.locator("#p-benchmark figcaption").all_inner_texts()
    assert captions == ["Throughput: resnet50, batch 32, one GPU", "Run time: resnet50, batch 32, one GPU"]
    expect(tab.locator("#p-benchmark .plot canvas")).to_have_count(2)
