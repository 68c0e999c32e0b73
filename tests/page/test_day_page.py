# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The page of a day of harvesting by shares, in Chromium."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import fleets
import pytest
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu import harvest_day
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.fleet_page import day_page, files
from playwright.sync_api import Page as Tab
from playwright.sync_api import expect

Open = Callable[..., Tab]

EVIL = "<script>window.hit = 1</script>"
HOUR = 3600


def written(tmp_path: Path, *, empty: bool = False) -> str:
    """The address of the page of a day on which one desktop once had to wait."""
    times = tuple(range(1772582400 + 300, 1772582400 + 24 * HOUR + 1, 300))
    office = {time: harvest_day.Sample(3000 if 96 <= at < 216 else 100, 0) for at, time in enumerate(times)}
    office[times[100]] = harvest_day.Sample(1500, 225_000)
    compute = {time: harvest_day.Sample(15_000 - office[time].used_mhz, 400_000) for time in times}
    machines = [
        harvest_day.Machine(EVIL, "desktop", 2000, office),
        harvest_day.Machine("hpc", "compute", 2000, compute),
    ]
    day = harvest_day.day([] if empty else machines, times, 16_000)
    report = harvest_day.report(day, generated="2026-03-05T00:00:00Z", source=EVIL, timezone="Europe/Berlin")
    path = tmp_path / "day.html"
    path.write_text(day_page.render(report, files.assets(str(fleets.ASSETS), day_page.ASSETS), f"Harvest {EVIL}"))
    return path.as_uri()


def test_the_figures_and_charts_of_a_day(open_page: Open, tmp_path: Path) -> None:
    tab = open_page(written(tmp_path))
    expect(tab.locator("#t-desktops b")).to_have_text("99.6 %")
    expect(tab.locator("#t-worst b")).to_have_text("50 %")
    expect(tab.locator("#t-worst small")).to_contain_text("4 Mar 2026, 09:25 Europe/Berlin")
    expect(tab.locator("#t-with small")).to_contain_text("without compute")
    expect(tab.locator("#asof")).to_contain_text("5 Mar 2026, 01:00 Europe/Berlin")
    assert tab.locator("figcaption").all_inner_texts() == [
        "CPU time by use",
        "Desktops: asked for and got",
        "Compute: asked for and got",
    ]
    expect(tab.locator(".plot canvas")).to_have_count(3)
    figure = tab.locator("figure").nth(1)
    figure.locator("summary").click()
    expect(figure.locator("tbody tr").nth(100).locator("td")).to_have_text(["3", "1.5"])


def test_names_stay_text_and_a_day_without_samples_says_so(open_page: Open, tmp_path: Path) -> None:
    tab = open_page(written(tmp_path))
    assert tab.evaluate("window.hit") is None
    assert tab.locator("h1").inner_text() == f"Harvest {EVIL}"
    expect(tab.locator("#t-worst small")).to_contain_text(EVIL)
    empty = open_page(written(tmp_path, empty=True))
    expect(empty.locator("#status")).to_have_text("The vCenter has no samples of this time.")
    expect(empty.locator("#t-desktops b")).to_have_text("-")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1400])
def test_it_fits_the_screen(open_page: Open, tmp_path: Path, scheme: str, width: int) -> None:
    tab = open_page(written(tmp_path), color_scheme=scheme, viewport={"width": width, "height": 800})
    expect(tab.locator(".plot canvas")).to_have_count(3)
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    wide = "() => [...document.querySelectorAll('#tiles li')].filter((one) => one.scrollWidth > one.clientWidth).length"
    assert tab.evaluate(wide) == 0
