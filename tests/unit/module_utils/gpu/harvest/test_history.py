# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

import datetime
import json
from typing import Any

import gpu_builders as build
import pytest
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.facts import GraphicsDevice
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.harvest.history import (
    RESUMES,
    History,
    HistoryError,
    Observed,
    figures,
    from_text,
    gpu_use,
    measured,
    noted,
    observed,
    returned_since,
    to_text,
    window,
)
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.harvest.report import GpuUse, time_text

DEADLINE = "2026-01-14T06:30:00Z"
HOUR, MINUTE = datetime.timedelta(hours=1), datetime.timedelta(minutes=1)


def at(text: str) -> datetime.datetime:
    return datetime.datetime.fromisoformat(text).replace(tzinfo=datetime.UTC)


def run(time: str, **more: Any) -> Observed:
    given: dict[str, Any] = {
        "time": at(time), "ended": at(time), "deadline": DEADLINE, "working": False, "night": "2026-01-13",
        "since": "2026-01-13T18:00:00Z", "cpu": {}, "desktops": ("a", "b"), "lent": (), "resumed": {}, "stranded": {},
        "requeued": 0, "use": GpuUse(time_text(at(time)), empty=1),
    }  # fmt: skip
    return Observed(**given | more)


def after(*runs: Observed) -> History:
    history = History()
    for one in runs:
        history = noted(history, one)
    return history


def test_runs_at_once_after_each_other_have_not_seen_more_of_the_time() -> None:
    used = {"00": 1.0, "10": 1.0, "11": 800.0, "12": 2.0, "20": 3.0, "29": 4.0}
    history = after(*(run(f"2026-01-13T17:{minute}", cpu={"a": mhz}) for minute, mhz in used.items()))
    now = (at("2026-01-13T17:30"), 5.0)
    assert window(history, "a", now, HOUR, 5 * MINUTE) == (1.0, 800.0, 3.0, 5.0)
    alone = after(*[run("2026-01-13T17:29", cpu={"a": 1.0})] * 6)
    assert window(alone, "a", now, HOUR, 5 * MINUTE) == (5.0,)


def test_a_clock_that_was_set_back_leaves_the_series_in_order() -> None:
    history = after(run("2026-01-13T19:00"), run("2026-01-13T18:50"), run("2026-01-13T19:00"))
    (night,) = figures(history)
    assert [use.time for use in night.series] == ["2026-01-13T18:50:00Z", "2026-01-13T19:00:00Z"]


def test_samples_count_while_they_are_young() -> None:
    runs = [run(f"2026-01-13T1{hour}:00", cpu={"a": float(hour), "gone": 1.0}) for hour in range(4, 8)]
    history = after(*runs)
    now = (at("2026-01-13T17:10"), 9.0)
    assert window(history, "a", now, 2 * HOUR, MINUTE) == (6.0, 7.0, 9.0)
    assert window(history, "b", now, 2 * HOUR, MINUTE) == (9.0,)
    assert "gone" not in history.cpu


@pytest.mark.parametrize("more", [{"resumed": {"a": 40.0}}, {"cpu": {}}, {"lent": ("a",)}])
def test_a_desktop_that_returns_or_does_not_run_is_to_be_seen_idle_anew(more: dict[str, Any]) -> None:
    idle = [run(f"2026-01-13T19:{minute}0", cpu={"a": 5.0}) for minute in range(6)]
    assert "a" not in after(*idle, run("2026-01-13T20:00", **({"cpu": {"a": 5.0}} | more))).cpu


def test_the_longest_of_the_last_resume_times_counts() -> None:
    history = after(*(run("2026-01-14T06:00", resumed={"a": seconds}) for seconds in (900.0, 30, 31, 35, 32, 33)))
    assert len(history.resumes["a"]) == RESUMES
    assert measured(history) == {"a": 35.0}
    assert not measured(after(run("2026-01-14T06:00", resumed={"a": 0.0})))


def test_a_desktop_is_late_if_it_is_ready_after_its_deadline_however_that_comes() -> None:
    history = after(
        run("2026-01-13T20:00", lent=("a", "b", "c"), requeued=1),
        run("2026-01-14T02:00", lent=("a", "b", "c"), stranded={"c": "its host does not answer"}),
        # Begun in time, and over too late; and one that was ready in time.
        run("2026-01-14T06:20", ended=at("2026-01-14T06:25"), lent=("a", "b", "c"), resumed={"b": 10.0}, requeued=2),
        run("2026-01-14T06:26", ended=at("2026-01-14T06:40"), lent=("a", "c"), resumed={"a": 600.0}),
        run("2026-01-14T09:00", working=True, lent=("c",), resumed={"c": 30.0}),
    )
    (night,) = figures(history)
    assert night.lent == ("a", "b", "c")
    assert night.jobs_requeued == 3
    assert [(late.desktop, late.ready, late.said) for late in night.late] == [
        ("a", "2026-01-14T06:40:00Z", None),
        ("c", "2026-01-14T09:00:00Z", "2026-01-14T02:00:00Z"),
    ]
    assert len(night.series) == 4, "working hours are no part of the night"


def test_by_day_nothing_is_noted_of_nights_that_nobody_knows() -> None:
    assert not after(run("2026-01-14T09:00", working=True)).nights
    assert not after(run("2026-01-14T09:00", deadline=None)).nights


def test_a_desktop_that_has_just_returned_is_known() -> None:
    history = after(run("2026-01-14T02:00", resumed={"a": 30.0}))
    assert returned_since(history, "a", at("2026-01-14T01:30"))
    assert not returned_since(history, "a", at("2026-01-14T02:00"))
    assert not returned_since(history, "b", at("2026-01-14T01:30"))


def test_the_history_comes_back_as_it_went() -> None:
    history = after(
        run("2026-01-13T20:00", lent=("a",), cpu={"b": 3.0}, stranded={"a": "no room"}),
        run("2026-01-14T07:00", resumed={"a": 33.0}, lent=("a",)),
    )
    assert from_text(to_text(history)) == history
    assert from_text("") == History()


@pytest.mark.parametrize(
    ("text", "says"), [("{", "not what a run"), ("[]", "not what"), ('{"version": 2}', "not what")]
)
def test_what_is_no_history_is_said(text: str, says: str) -> None:
    with pytest.raises(HistoryError, match=says):
        from_text(text)
    newer = json.loads(to_text(History())) | {"version": 2}
    with pytest.raises(HistoryError, match="of version 2"):
        from_text(json.dumps(newer))


def test_a_run_is_read_from_the_options_of_the_module() -> None:
    seen = {
        "time": "2026-01-13T20:00:00Z", "working": False, "night": "2026-01-13", "since": "2026-01-13T18:00:00Z",
        "deadline": DEADLINE, "cpu": {"a": 4}, "desktops": ["a"], "use": {"time": "2026-01-13T20:00:00Z", "empty": 2},
    }  # fmt: skip
    options = {"seen": seen, "lent": [], "resumed": {"a": "3.5"}, "stranded": {}, "requeued": 1}
    read = observed(options | {"ended": "2026-01-13T21:02:00+01:00"}, at("2026-01-13T22:00"))
    assert read.ended == at("2026-01-13T20:02")
    assert read.resumed == {"a": 3.5}
    with pytest.raises(ValueError, match="no offset"):
        observed(options | {"ended": "2026-01-13T21:02:00"}, at("2026-01-13T22:00"))


def test_each_gpu_has_one_use() -> None:
    holders = [("c1",), ("busy", "idle"), ("idle",), ("stranger", "idle"), ()]
    graphics = [
        GraphicsDevice(address, "sharedDirect", "sameSize", 40960, tuple(f"vm-{name}" for name in names))
        for address, names in zip(build.SLOTS, holders, strict=False)
    ]
    graphics.append(GraphicsDevice(build.SLOTS[7], "shared"))
    vms = [build.vm(name) for name in ("c1", "busy", "idle", "stranger")]
    use = gpu_use(
        at("2026-01-13T20:00"),
        [build.host("esx", graphics=tuple(graphics))],
        vms,
        {"c1"},
        {"busy": True, "idle": False},
    )
    assert use == GpuUse("2026-01-13T20:00:00Z", compute=1, desktops_in_use=1, desktops_idle=1, other=1, empty=1)
    assert use.total == 5
