# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Metrics in Prometheus' text format, and the dashboard that shows them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu import harvest_day
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.fleet_page import metrics
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.fleet_page.metrics import Metric
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.fleet_page.model import (
    Capacity,
    Cluster,
    Host,
    Job,
    Page,
    Point,
    Totals,
)
from hypothesis import given
from hypothesis import strategies as st

TOP = Path(__file__).resolve().parents[5]
DASHBOARD = TOP / "roles" / "report" / "files" / "grafana" / "gpuops-fleet.json"
NOW = "2026-03-04T12:00:00Z"
NAME = re.compile(r"[a-z][a-z0-9_]*")
LINE = re.compile(r'(?P<name>[a-z_]+)(?:\{(?P<labels>(?:[a-z_]+="(?:[^"\\\n]|\\["\\n])*",?)*)\})? (?P<value>\S+)')
UNITS = ("_bytes", "_seconds", "_ratio", "_hertz", "_hours", "_hours_available")


def page() -> Page:
    hosts = (Host("a", "in service"), Host("b", "maintenance", True))
    return Page(
        title="x",
        source="",
        totals=Totals(2, 1, 3, {"free": 1, "full": 2}, 4, 96, 64, 5, 3, 1, 2, 1, 1),
        clusters=(Cluster("c", hosts),),
        vms=(),
        rooms=({},),
        capacity=(Capacity("nvidia_a100-10c", "A100-40", 10, 3, 5),),
        points=(Point("licence", "guest", "expired"),),
        jobs=(Job("1"),),
    )


def nights() -> dict[str, Any]:
    total = {
        "nights": 2,
        "gpu_hours_total": 40.5,
        "gpu_hours_harvested": 20.25,
        "utilisation_with": 0.9,
        "utilisation_without": 0.4,
        "desktops_lent": 7,
        "desktops_late": 0,
        "jobs_requeued": 1,
    }
    return {"version": 1, "generated": NOW, "total": total, "nights": []}


def day() -> dict[str, Any]:
    machines = [
        harvest_day.Machine(kind, kind, 2000, {300: harvest_day.Sample(1500, 10_000)}) for kind in harvest_day.KINDS
    ]
    one = harvest_day.day(machines, (300,), 16_000)
    return harvest_day.report(one, generated=NOW, source="", timezone="UTC")


def exported() -> list[Metric]:
    """Every metric there is, from reports that have everything."""
    return [*metrics.of_page(page(), NOW), *metrics.of_day(day()), *metrics.of_nights(nights())]


def test_values_are_those_of_the_page_and_the_reports() -> None:
    lines = metrics.text(exported()).splitlines()
    assert {
        'gpuops_fleet_hosts{state="maintenance"} 1',
        'gpuops_fleet_gpus{state="full"} 2',
        'gpuops_fleet_vms{power="off"} 1',
        "gpuops_fleet_gpu_memory_used_bytes 68719476736",
        'gpuops_fleet_profile_free{profile="nvidia_a100-10c",model="A100-40"} 5',
        'gpuops_fleet_points{kind="licence"} 1',
        'gpuops_fleet_points{kind="driver"} 0',
        'gpuops_fleet_jobs{state="waiting"} 1',
        "gpuops_fleet_report_timestamp_seconds 1772625600",
        'gpuops_harvest_cpu_used_hertz{kind="compute"} 1500000000',
        'gpuops_harvest_gpu_utilisation_ratio{compute="without"} 0.4',
        "gpuops_harvest_desktops_late 0",
    } <= set(lines)


def test_the_format_is_prometheus_and_names_follow_its_conventions() -> None:
    found = exported()
    assert len({metric.name for metric in found}) == len(found)
    for metric in found:
        assert NAME.fullmatch(metric.name)
        assert metric.help.endswith(".")
        assert not metric.name.endswith("_total"), "a gauge is no counter"
        if any(unit in metric.name for unit in ("bytes", "seconds", "ratio", "hertz", "hours")):
            assert metric.name.endswith(UNITS)
        assert metric.values, f"{metric.name} has no value"
    for line in metrics.text(found).splitlines():
        assert line.startswith("# ") or LINE.fullmatch(line), line


@given(st.text(max_size=20), st.floats(allow_nan=False, allow_infinity=False))
def test_any_label_and_any_number_can_be_read(label: str, value: float) -> None:
    text = metrics.text([Metric("gpuops_x", "Help.", (((("profile", label),), value),))])
    line = text.split("\n", 2)[2].removesuffix("\n")
    match = re.fullmatch(LINE.pattern, line, re.DOTALL)
    assert match is not None
    assert float(match["value"]) == value
    inner = match["labels"][len('profile="') : -1]
    assert re.sub(r"\\(.)", lambda one: "\n" if one[1] == "n" else one[1], inner) == label


def test_what_is_not_known_is_not_exported() -> None:
    empty = harvest_day.report(harvest_day.day([], (), 0), generated=NOW, source="", timezone="UTC")
    text = metrics.text(metrics.of_day(empty))
    assert "satisfied" not in text
    assert "worst" not in text


def expressions() -> list[str]:
    dashboard = json.loads(DASHBOARD.read_text())
    return [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", ())]


def test_the_dashboard_uses_what_is_exported_and_leaves_nothing_out() -> None:
    names = {metric.name for metric in exported()}
    used = {name for expression in expressions() for name in re.findall(r"\bgpuops_[a-z0-9_]+", expression)}
    assert used == names


@pytest.mark.parametrize("expression", expressions())
def test_the_labels_that_the_dashboard_asks_for_exist(expression: str) -> None:
    known = {metric.name: metric for metric in exported()}
    for name, matchers in re.findall(r"(gpuops_[a-z0-9_]+)(?:\{([^}]*)\})?", expression):
        for label, value in re.findall(r'([a-z_]+)="([^"]*)"', matchers):
            pairs = {pair for labels, _value in known[name].values for pair in labels}
            assert (label, value) in pairs, (name, label, value)


def test_the_dashboard_can_be_imported() -> None:
    dashboard = json.loads(DASHBOARD.read_text())
    assert dashboard["uid"] == "gpuops-fleet"
    assert [one["type"] for one in dashboard["templating"]["list"]] == ["datasource"]
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(set(ids)) == len(ids)
    for panel in dashboard["panels"]:
        place = panel["gridPos"]
        assert 0 <= place["x"] < place["x"] + place["w"] <= 24
        if panel["type"] != "row":
            assert panel["title"]
            assert panel["datasource"]["uid"] == "${datasource}"
            assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])
