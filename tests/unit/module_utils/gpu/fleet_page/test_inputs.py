# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

import contextlib
import typing as t

import pytest
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.fleet_page import inputs
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.fleet_page.model import Job, Mark, Point, Series
from hypothesis import given
from hypothesis import strategies as st

CHART = {"title": "t", "x": [1, 2], "series": [{"name": "s", "values": [1, None]}]}


def test_jobs() -> None:
    given_ = {"id": 7, "name": "n", "user": "u", "tenant": "t", "vms": ["a", "b"], "gpus": 0.5, "since": "08:00"}
    assert inputs.jobs({"jobs": [given_, {"id": "8", "state": "pending"}]}) == (
        Job("7", "n", "u", "t", "running", ("a", "b"), 0.5, "08:00"),
        Job("8", state="pending"),
    )


def test_findings_are_those_that_failed() -> None:
    diagnosis = {
        "healthy": False,
        "findings": [
            {"check": "licence", "status": "FAIL", "message": "none", "mend": "get one"},
            {"check": "time", "status": "FAIL", "message": "late", "mend": ""},
            {"check": "gpu", "status": "ok", "message": "1"},
        ],
    }
    assert inputs.findings({"one": diagnosis, "two": None}) == (
        Point("licence", "one", "licence: none", "get one"),
        Point("health", "one", "time: late"),
        Point("health", "two", "The guest could not be read.", "see that it answers ssh"),
    )


def test_a_plan() -> None:
    step = {"action": "drain", "object": "esx", "what": "w", "reason": "r", "vms": ["a"], "jobs": [], "needs": ["x"]}
    objects = {"esx": {"failed": True, "msg": "esx: no room"}, "fine": {"failed": False}}
    plan = inputs.plan(
        {"steps": [step], "where": {"a": "h"}, "removed": ["b"], "objects": objects, "warnings_of_plan": ["w"]}
    )
    assert (plan.steps[0].action, plan.steps[0].needs, plan.where, plan.removed) == (
        "drain",
        ("x",),
        {"a": "h"},
        ("b",),
    )
    assert (plan.problems, plan.warnings) == (("esx: no room",), ("w",))


def test_a_chart_over_time() -> None:
    times = ["2026-03-29T00:30:00+01:00", "2026-03-29T03:00:00+02:00"]
    (chart,) = inputs.charts(
        {"charts": [{**CHART, "kind": "stacked", "time": True, "x": times, "marks": [{"at": times[1], "label": "m"}]}]}
    )
    # Half an hour after half past midnight in winter time it is three in summer time, less an hour.
    assert chart.x == (1774740600.0, 1774746000.0)
    assert (chart.kind, chart.time, chart.marks) == ("stacked", True, (Mark(1774746000.0, "m"),))
    assert chart.series == (Series("s", (1.0, None)),)


@pytest.mark.parametrize(
    ("parse", "data", "place"),
    [
        (inputs.jobs, [], "the file"),
        (inputs.jobs, {"jobs": {}}, "jobs: a list is needed, not an object"),
        (inputs.jobs, {"jobs": [{"name": "x"}]}, "jobs[0].id"),
        (inputs.jobs, {"jobs": [{"id": "1", "gpus": "half"}]}, "jobs[0].gpus"),
        (inputs.jobs, {"jobs": [{"id": "1", "gpus": True}]}, "jobs[0].gpus"),
        (inputs.jobs, {"jobs": [{"id": "1", "vms": "a"}]}, "jobs[0].vms"),
        (inputs.findings, {"g": {"findings": [{"status": "FAIL"}]}}, "g.findings[0].check"),
        (inputs.findings, {"g": []}, None),
        (inputs.findings, {"g": [1]}, "g: an object"),
        (inputs.plan, {}, "steps: a list is needed, not nothing"),
        (inputs.plan, {"steps": [{"action": "add"}]}, "steps[0].object"),
        (inputs.plan, {"steps": [], "where": []}, None),
        (inputs.plan, {"steps": [], "moves": {"a": 1}}, "moves"),
        (inputs.charts, {"charts": [{**CHART, "kind": "pie"}]}, "charts[0].kind"),
        (inputs.charts, {"charts": [{**CHART, "x": [2, 1]}]}, "charts[0].x: places must ascend"),
        (inputs.charts, {"charts": [{**CHART, "x": []}]}, "charts[0].x"),
        (inputs.charts, {"charts": [{**CHART, "x": [1]}]}, "charts[0].series[0].values"),
        (inputs.charts, {"charts": [{**CHART, "x": [1, float("nan")]}]}, "charts[0].x[1]"),
        (inputs.charts, {"charts": [{**CHART, "time": True, "x": ["noon", "later"]}]}, "charts[0].x[0]"),
        (inputs.charts, {"charts": [{**CHART, "time": True, "x": ["2026-01-01T00:00", 2]}]}, "offset from UTC"),
        (inputs.charts, {"charts": [{**CHART, "time": 1}]}, "charts[0].time"),
        (inputs.charts, {"charts": [{**CHART, "marks": [{"at": 1}]}]}, "charts[0].marks[0].label"),
        (inputs.charts, {"charts": [{**CHART, "levels": [{"at": "high", "label": "l"}]}]}, "charts[0].levels[0].at"),
    ],
)
def test_mistakes_name_their_place(parse: t.Callable[[t.Any], t.Any], data: t.Any, place: str | None) -> None:
    if place is None:
        parse(data)
        return
    with pytest.raises(inputs.ShapeError) as raised:
        parse(data)
    assert place in str(raised.value)


anything = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["jobs", "id", "steps", "action", "charts", "x", "series", "values", "findings", "objects", "time"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(anything)
def test_whatever_is_given_is_understood_or_refused(data: t.Any) -> None:
    for parse in (inputs.jobs, inputs.findings, inputs.plan, inputs.charts):
        with contextlib.suppress(inputs.ShapeError):
            parse(data)
