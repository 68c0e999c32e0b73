# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The fleet page as a person meets it: opened in a browser, read, searched, walked with the keyboard."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import fleets
import pytest
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.fleet_page import inputs
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.fleet_page.model import Job, Page, Point
from playwright.sync_api import Page as Tab
from playwright.sync_api import expect

Open = Callable[..., Tab]
EVIL = "<script>window.hit=1</script><img src=x onerror=window.hit=1>"
OPENS_WITHIN_S = 3.0


def full() -> Page:
    """A page with everything on it."""
    charts = {
        "charts": [
            {
                "title": "GPUs over a day", "kind": "stacked", "time": True, "timezone": "Europe/Berlin",
                "x": ["2026-03-04T00:00Z", "2026-03-04T12:00Z", "2026-03-05T00:00Z"],
                "series": [{"name": "desktops", "values": [1, 9, 2]}, {"name": "compute", "values": [8, 0, None]}],
                "marks": [{"at": "2026-03-04T07:00Z", "label": "morning"}],
            }
        ]
    }  # fmt: skip
    bars = {
        "title": "Images per second",
        "kind": "bars",
        "x": [1, 2],
        "series": [{"name": "all", "values": [110, 206.5]}],
    }
    step = {
        "action": "drain",
        "object": "esx-1",
        "what": "drain (train-a to esx-2)",
        "reason": "it is in esxi_retiring",
    }
    return fleets.small().page(
        jobs=(
            Job("4711", "resnet", "ada", "physics", "running", ("train-b",), 0.5),
            Job("4712", "wait", "kim", "biology", "pending", gpus=1),
        ),
        findings=(
            Point("licence", "train-a", "licence: not had", "see the server"),
            Point("driver", "far", "driver: old"),
        ),
        tenants={"chemistry": ["train-a"]},
        plan=inputs.plan({"steps": [step], "moves": {"train-a": "esx-2"}, "warnings_of_plan": ["be careful"]}),
        harvest=inputs.charts(charts),
        benchmark=inputs.charts({"charts": [bars, {**bars, "title": "Lines", "kind": "lines"}]}),
    )


def rows(tab: Tab) -> list[str]:
    """The accessible names of the rows in sight, from the top."""
    return tab.evaluate(
        "[...document.querySelectorAll('.row')].sort((a, b) => a.dataset.index - b.dataset.index)"
        ".map((row) => row.getAttribute('aria-label'))"
    )  # type: ignore[no-any-return]


def active(tab: Tab) -> str:
    """The accessible name of the row that the keyboard is on."""
    return tab.evaluate(
        "document.getElementById(document.getElementById('tree').getAttribute('aria-activedescendant'))"
        ".getAttribute('aria-label')"
    )  # type: ignore[no-any-return]


def test_the_figures_are_those_of_the_facts(open_page: Open) -> None:
    tab = open_page(full())
    figures = {one.get_attribute("id"): one.locator("b").inner_text() for one in tab.locator("#tiles li").all()}
    assert figures == {
        "t-gpus": "3 / 6",
        "t-memory": "38 %",
        "t-vgpus": "2",
        "t-vms": "3 / 4",
        "t-hosts": "2 / 2",
        "t-jobs": "1",
        "t-points": "3",
    }
    capacity = {
        row.get_attribute("data-profile"): row.locator("td").all_inner_texts()[:2]
        for row in tab.locator("#p-capacity tr[data-profile]").all()
    }
    assert capacity["grid_a100-10c"] == ["1", "7"]
    assert capacity["grid_a100-40c"] == ["1", "1"]
    assert capacity["V100-32 whole"] == ["1", "1"]
    assert rows(tab) == [
        "gpu, 1 host, 2 of 3 GPUs with room",
        "esx-1, in service, 3 GPUs, 2 with room, 1 machine on no GPU",
        "0000:3b:00.0, A100-40, full, sameSize",
        "0000:5e:00.0, A100-40, room for more, sameSize, room for 3 x 10 GB",
        "0000:86:00.0, A100-40, free, sameSize, room for 1 x 40 or 2 x 20 or 4 x 10 or 5 x 8 or 8 x 5 or 10 x 4 GB",
        "a100-10c, on no GPU, train-c, suspended",
        "other, 1 host, 1 of 3 GPUs with room",
        "esx-2, in service, needs a reboot, 3 GPUs, 1 with room",
        "0000:3b:00.0, V100-32, full",
        "0000:5e:00.0, V100-32, free",
        "0000:86:00.0, V100-32, waits for a reboot",
    ]
    tab.get_by_role("button", name="all", exact=True).click()
    assert "a100-10c, 0-10 GB, train-b, on, physics, 1 job" in rows(tab)
    assert "job 4711 resnet ada physics, running" in rows(tab)
    assert "V100-32 whole, train-d, on" in rows(tab)
    assert rows(tab).count("free, 10 to 20 GB") == 1
    tab.get_by_role("button", name="clusters").click()
    assert len(rows(tab)) == 2


def test_what_is_to_be_looked_at_leads_to_its_place(open_page: Open) -> None:
    tab = open_page(full())
    assert tab.locator("#p-points li .badge").all_inner_texts() == ["reboot", "licence", "driver"]
    # A guest that is no machine here is named, and leads nowhere.
    assert tab.locator("#p-points button").all_inner_texts() == ["esx-2", "train-a"]
    tab.fill("#q", "esx-2")
    tab.locator("#p-points").get_by_role("button", name="train-a").click()
    assert active(tab).startswith("0000:3b:00.0, A100-40, full")
    assert tab.input_value("#q") == ""
    assert "Jobs that run on no machine shown (1)" in tab.locator("#p-jobs").inner_text()
    assert "train-a" in tab.locator("#p-plan tr", has_text="esx-2").locator("td").nth(1).inner_text()


@pytest.mark.parametrize(
    ("control", "value", "status"),
    [
        ("#f-model", "V100-32", "1 host, 3 GPUs of 2 and 6"),
        ("#f-profile", "grid_a100-10c", "1 host, 2 GPUs, 1 machine on no GPU of 2 and 6"),
        ("#f-profile", "V100-32 whole", "1 host, 3 GPUs of 2 and 6"),
        ("#f-state", "room", "2 hosts, 3 GPUs of 2 and 6"),
        ("#f-state", "full", "2 hosts, 2 GPUs of 2 and 6"),
        ("#f-state", "reboot", "1 host, 1 GPU of 2 and 6"),
        ("#f-state", "asleep", "1 host, 0 GPUs, 1 machine on no GPU of 2 and 6"),
        ("#f-state", "away", "Nothing fits. Clear the filter to see everything."),
        ("#f-state", "findings", "2 hosts, 4 GPUs of 2 and 6"),
        ("#f-cluster", "cluster other", "1 host, 3 GPUs of 2 and 6"),
        ("#f-tenant", "chemistry", "1 host, 1 GPU of 2 and 6"),
    ],
)
def test_filters(open_page: Open, control: str, value: str, status: str) -> None:
    tab = open_page(full())
    everything = rows(tab)
    tab.select_option(control, value)
    expect(tab.locator("#status")).to_have_text(status)
    tab.get_by_role("button", name="Clear").click()
    expect(tab.locator("#status")).to_have_text("2 hosts, 6 GPUs, 1 machine on no GPU")
    assert rows(tab) == everything


def test_search_finds_hosts_machines_and_jobs_and_is_kept_in_the_address(open_page: Open) -> None:
    tab = open_page(full())
    for text, status in (
        ("ESX-2", "1 host, 3 GPUs of 2 and 6"),
        ("train-b", "1 host, 1 GPU of 2 and 6"),
        ("resnet ada", "1 host, 1 GPU of 2 and 6"),
        ("esx-1 5e:00", "1 host, 1 GPU of 2 and 6"),
        ("resnet esx-2", "Nothing fits. Clear the filter to see everything."),
    ):
        tab.fill("#q", text)
        expect(tab.locator("#status")).to_have_text(status)
    tab.fill("#q", "train-b")
    expect(tab.locator("#status")).to_have_text("1 host, 1 GPU of 2 and 6")
    again = open_page(full(), tab.evaluate("location.hash"))
    assert again.input_value("#q") == "train-b"
    expect(again.locator("#status")).to_have_text("1 host, 1 GPU of 2 and 6")


def test_colours_by_profile_and_by_tenant(open_page: Open) -> None:
    tab = open_page(full())
    keys = tab.locator("#legend li")
    assert "a100-10c" in keys.all_inner_texts()
    tab.get_by_label("tenant", exact=True).check()
    assert keys.all_inner_texts()[:3] == ["chemistry", "physics", "no tenant"]
    assert tab.evaluate("location.hash") == "#colour=tenant"


def test_the_keyboard_reaches_everything(open_page: Open) -> None:
    tab = open_page(full())
    tab.keyboard.press("/")
    tab.keyboard.type("train-b")
    tab.keyboard.press("Enter")
    assert tab.evaluate("document.activeElement.id") == "tree"
    assert active(tab).startswith("gpu, ")
    for keys, name in (
        (["ArrowDown"], "esx-1"),
        (["ArrowDown"], "0000:5e:00.0"),
        (["ArrowRight"], "0000:5e:00.0"),
        (["ArrowRight"], "a100-10c, 0-10 GB, train-b"),
        (["Enter", "ArrowDown"], "job 4711"),
        (["ArrowLeft", "ArrowLeft", "ArrowLeft"], "0000:5e:00.0"),
        (["End"], "free, 30 to 40 GB"),
        (["Home"], "gpu, "),
    ):
        for key in keys:
            tab.keyboard.press(key)
        assert active(tab).startswith(name), keys
    assert tab.locator(".row[aria-selected=true]").evaluate("(row) => getComputedStyle(row).outlineStyle") == "solid"


def test_the_tree_says_what_it_is(open_page: Open) -> None:
    tab = open_page(full())
    row = tab.locator(".row", has_text="esx-1").first
    names = ("role", "aria-level", "aria-setsize", "aria-posinset", "aria-expanded")
    assert [row.get_attribute(name) for name in names] == ["treeitem", "2", "1", "1", "true"]
    assert tab.evaluate(
        "[...document.querySelectorAll('button, input, select, [role=tree], [role=img], [role=region]')]"
        ".filter((one) => !one.textContent.trim() && !one.getAttribute('aria-label') && !one.labels?.length).length"
    ) == 0  # fmt: skip
    assert tab.evaluate("document.documentElement.lang") == "en"


def test_names_stay_text(open_page: Open) -> None:
    fleet = fleets.small((f"esx-1 {EVIL}", f"esx-2 {EVIL}"), f"vm {EVIL}")
    found = (Point("driver", f"vm {EVIL}-a", EVIL, EVIL),)
    jobs = (Job(EVIL, EVIL, EVIL, EVIL, "running", (f"vm {EVIL}-b",)), Job("2", EVIL, state=EVIL))
    chart = {"title": EVIL, "x": [1, 2], "series": [{"name": EVIL, "values": [1, 2]}], "note": EVIL, "x_label": EVIL}
    step = {"action": EVIL, "object": EVIL, "what": EVIL}
    page = fleet.page(
        findings=found,
        jobs=jobs,
        benchmark=inputs.charts({"charts": [chart]}),
        plan=inputs.plan({"steps": [step], "moves": {f"vm {EVIL}-a": EVIL}, "warnings_of_plan": [EVIL]}),
    )
    tab = open_page(dataclasses.replace(page, title=EVIL))
    plain = open_page(fleets.small().page())
    tab.get_by_role("button", name="all", exact=True).click()
    for summary in tab.locator("figure summary").all():
        summary.click()
    expect(tab.locator("figure tbody").first).to_be_attached()
    tab.fill("#q", "vm <script>")
    tab.get_by_label("tenant", exact=True).check()
    assert tab.evaluate("window.hit") is None
    assert tab.locator("img").count() == 0
    assert tab.locator("script").count() == plain.locator("script").count()
    assert tab.locator("h1").inner_text() == EVIL
    assert any(EVIL in name for name in rows(tab))


def test_charts_are_drawn_and_can_be_read_as_tables(open_page: Open) -> None:
    tab = open_page(full())
    assert tab.locator("figcaption").all_inner_texts() == ["GPUs over a day", "Images per second", "Lines"]
    expect(tab.locator(".plot canvas")).to_have_count(3)
    for canvas in tab.locator(".plot canvas").all():
        assert canvas.evaluate(
            "(one) => new Set(one.getContext('2d').getImageData(0, 0, one.width, one.height).data).size"
        ) > 8  # fmt: skip
    figure = tab.locator("figure").first
    figure.locator("summary").click()
    # Noon in UTC is one in the afternoon in Berlin.
    expect(figure.locator("tbody tr").nth(1).locator("th, td")).to_have_text(["4 Mar 2026, 13:00", "9", "0"])
    expect(figure.locator("tbody tr").nth(2).locator("td")).to_have_text(["2", "-"])


def test_a_page_without_the_optional_parts(open_page: Open) -> None:
    tab = open_page(fleets.small().page())
    assert tab.locator("#panels > details").count() == 2
    assert tab.locator("#t-jobs").count() == 0
    assert tab.locator("#f-tenant").is_hidden()
    empty = open_page(fleets.Fleet({}, []).page())
    assert empty.locator("#status").inner_text() == "0 hosts, 0 GPUs"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1400])
def test_it_fits_the_screen_and_can_be_read(open_page: Open, scheme: str, width: int) -> None:
    tab = open_page(full(), color_scheme=scheme, viewport={"width": width, "height": 800})
    tab.get_by_role("button", name="all", exact=True).click()
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    worst = tab.evaluate(
        """() => {
          const light = (colour) => {
            const [r, g, b] = colour.match(/[\\d.]+/g).map(Number)
              .map((one) => (one / 255 <= 0.03928 ? one / 255 / 12.92 : ((one / 255 + 0.055) / 1.055) ** 2.4));
            return 0.2126 * r + 0.7152 * g + 0.0722 * b;
          };
          const under = (one) => {
            const { backgroundColor } = getComputedStyle(one);
            return backgroundColor === "rgba(0, 0, 0, 0)" ? under(one.parentElement) : backgroundColor;
          };
          const ratios = [...document.querySelectorAll("body *")]
            .filter((one) => [...one.childNodes].some((node) => node.nodeType === 3 && node.data.trim()))
            .filter((one) => one.checkVisibility() && !one.closest(".skip, script, option, .asleep, .uplot"))
            .map((one) => {
              const [a, b] = [light(getComputedStyle(one).color), light(under(one))].sort();
              return [(Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05), one.outerHTML.slice(0, 80)];
            });
          return ratios.sort((a, b) => a[0] - b[0])[0];
        }"""
    )
    # WCAG AA for text.
    assert worst[0] >= 4.5, worst


def spent_s(tab: Tab) -> float:
    """What the page has cost so far: CPU time of its process, whatever else the machine is doing."""
    session = tab.context.new_cdp_session(tab)
    session.send("Performance.enable")
    metrics = {metric["name"]: metric["value"] for metric in session.send("Performance.getMetrics")["metrics"]}
    session.detach()
    return float(metrics["ProcessTime"])


def test_a_thousand_hosts_open_within_three_seconds(open_page: Open, tmp_path: Path) -> None:
    tab = open_page(fleets.write(fleets.large(1000).page(), tmp_path / "large.html"))
    tab.wait_for_selector(".row.host")
    opened = spent_s(tab)
    assert 0 < opened < OPENS_WITHIN_S
    expect(tab.locator("#status")).to_have_text("1000 hosts, 8000 GPUs")
    # Only what is in sight is made.
    assert tab.locator(".row").count() < 80
    tab.focus("#tree")
    tab.keyboard.press("End")
    tab.wait_for_selector(".row[aria-label^='esx-0999']")
    tab.fill("#q", "vm-0500-32")
    expect(tab.locator("#status")).to_have_text("1 host, 1 GPU of 1000 and 8000")
    tab.get_by_role("button", name="Clear").click()
    tab.get_by_role("button", name="all", exact=True).click()
    expect(tab.locator(".row.gpu").first).to_be_visible()
    assert spent_s(tab) - opened < OPENS_WITHIN_S
    assert tab.locator(".row").count() < 80
