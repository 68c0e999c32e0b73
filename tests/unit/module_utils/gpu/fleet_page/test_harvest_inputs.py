# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The report of harvesting by hand-over on the fleet page."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.fleet_page import inputs

USES = ("compute", "desktops_in_use", "desktops_idle", "other", "empty")
TOTAL = {
    "nights": 1,
    "gpu_hours_total": 96.0,
    "gpu_hours_harvested": 50.5,
    "utilisation_with": 0.8,
    "utilisation_without": 0.3,
    "desktops_lent": 9,
    "desktops_late": 0,
    "jobs_requeued": 2,
}
NIGHT = {
    "night": "2026-01-13",
    "since": "2026-01-13T18:00:00Z",
    "deadline": "2026-01-14T06:30:00Z",
    **{key: TOTAL[key] for key in TOTAL if key != "nights"},
    "late": [],
    "series": [
        {"time": f"2026-01-13T{hour}:00:00Z", **{use: number + hour for number, use in enumerate(USES)}}
        for hour in (18, 19, 20)
    ],
}


def report(**more: Any) -> dict[str, Any]:
    return {"version": 1, "generated": "2026-01-14T07:00:00Z", "total": TOTAL, "nights": [copy.deepcopy(NIGHT)], **more}


def test_a_night_becomes_a_chart_of_gpus_by_use() -> None:
    (chart,) = inputs.harvest(report())
    assert (chart.title, chart.kind, chart.time) == ("GPUs by use, night of 2026-01-13", "stacked", True)
    assert {series.name: series.values for series in chart.series}["compute"] == (18, 19, 20)
    assert [mark.label for mark in chart.marks] == ["desktops ready"]
    assert chart.note == "50.5 GPU hours harvested, 9 desktops lent, 0 late, 2 jobs requeued."


def test_only_the_last_nights_with_samples_are_drawn() -> None:
    made = [{**NIGHT, "night": f"2026-01-{day:02d}"} for day in range(1, 7)]
    made[4] = {**made[4], "series": []}
    assert [chart.title[-2:] for chart in inputs.harvest(report(nights=made))] == ["03", "04", "06"]
    assert inputs.harvest(report(nights=[])) == ()


def test_charts_are_taken_as_they_are() -> None:
    assert inputs.harvest({"charts": []}) == ()
    assert inputs.nights({"charts": []}) is None


@pytest.mark.parametrize(
    ("broken", "place"),
    [
        (report(version=2), "version: 2"),
        (report(total={}), "total.nights"),
        (report(generated="today"), "generated"),
        (report(nights=[{**NIGHT, "series": [{"time": "18:00"}, {"time": "x"}]}]), "nights[0].x[0]"),
        (report(nights=[{**NIGHT, "gpu_hours_harvested": None}]), "nights[0].gpu_hours_harvested"),
        (report(nights=3), "nights: a list"),
        ([], "the file"),
    ],
)
def test_another_shape_is_said_with_its_place(broken: Any, place: str) -> None:
    with pytest.raises(inputs.ShapeError) as refused:
        inputs.harvest(broken)
    assert str(refused.value).startswith(place)
