# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

import dataclasses
import datetime
import json

import pytest
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.fleet_page import inputs
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.harvest_day import (
    INTERVAL_S,
    Kind,
    Machine,
    Sample,
    day,
    figures,
    grid,
    report,
)
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.harvest_members import Listed, members
from hypothesis import given
from hypothesis import strategies as st

TIMES = tuple(range(INTERVAL_S, 6 * INTERVAL_S, INTERVAL_S))
MADE = {"generated": "2026-03-04T12:00:00Z", "source": "vcenter.lab", "timezone": "Europe/Berlin"}


def machine(kind: Kind, *samples: tuple[float, float], name: str = "a") -> Machine:
    """Used MHz and ready milliseconds from the first time on."""
    return Machine(name, kind, 2000, {time: Sample(*sample) for time, sample in zip(TIMES, samples, strict=False)})


def test_what_was_asked_for_is_what_was_used_and_what_was_waited_for() -> None:
    # Ready for 150 of 300 seconds on cores of 2 GHz: 1 GHz was not had.
    one = day([machine("desktop", (1000, 150_000)), machine("compute", (600, 0))], TIMES[:1], 10_000)
    assert one.use["desktop"].asked == (2000,)
    assert figures(one) == {
        "desktops": 1,
        "compute_machines": 1,
        "desktops_got": 0.5,
        "desktops_worst": {"desktop": "a", "time": "1970-01-01T00:05:00Z", "share": 0.5},
        "compute_got": 1.0,
        "harvested_ghz_hours": 0.05,
        "capacity_ghz": 10.0,
        "utilisation_with": 0.16,
        "utilisation_without": 0.1,
    }


def test_a_desktop_that_does_nothing_waits_for_nothing() -> None:
    assert day([machine("desktop", (1, 14_000))], TIMES, 1000).worst is None


def test_machines_that_were_off_asked_for_nothing() -> None:
    compute = Machine("b", "compute", 2000, {TIMES[0]: Sample(100, 0), TIMES[2]: Sample(100, 0)})
    one = day([machine("desktop", (500, 0)), compute], TIMES, 1000)
    assert (one.use["desktop"].got, one.use["compute"].got) == ((500, 0, 0), (100, 0, 100))


def test_a_day_of_nothing_has_no_numbers_and_no_charts() -> None:
    empty = report(day([], (), 0), **MADE)
    assert empty["charts"] == []
    assert empty["figures"]["desktops_got"] is None
    assert inputs.charts(empty) == ()


SAMPLES = st.lists(st.tuples(st.floats(0, 16_000), st.floats(0, 1e6)), max_size=5)


@given(st.lists(st.tuples(st.sampled_from(["desktop", "compute"]), SAMPLES), max_size=6))
def test_sums_are_those_of_the_machines_and_the_fleet_page_takes_the_report(
    made: list[tuple[Kind, list[tuple[float, float]]]],
) -> None:
    machines = [machine(kind, *samples) for kind, samples in made]
    one = day(machines, TIMES, 16_000)
    for kind in ("desktop", "compute"):
        use = one.use[kind]
        whole = sum(sample.used_mhz for one in machines if one.kind == kind for sample in one.samples.values())
        assert sum(use.got) == pytest.approx(whole)
        assert all(asked >= got for asked, got in zip(use.asked, use.got, strict=True))
        assert one.times == () or len(use.got) == len(one.times) <= len(TIMES)
        assert use.share is None or 0 <= use.share <= 1 + 1e-9
    written = json.loads(json.dumps(report(one, **MADE), allow_nan=False))
    assert [chart.kind for chart in inputs.charts(written)] == (["stacked", "lines", "lines"] if one.times else [])
    assert inputs.day(written)["figures"] == written["figures"]


def test_the_grid_holds_what_ends_within_the_span() -> None:
    begin = datetime.datetime(2026, 3, 4, 10, 5, tzinfo=datetime.UTC)
    found = grid(begin, begin + datetime.timedelta(minutes=14))
    assert [time - begin.timestamp() for time in found] == [300, 600]


@dataclasses.dataclass(frozen=True)
class Vm:
    name: str
    pools: tuple[tuple[str, str], ...] = ()


IN_DESKTOPS = (("c", "vdi/desktops"), ("c", "vdi"))
VMS = [
    Vm("d1", IN_DESKTOPS),
    Vm("d2", IN_DESKTOPS),
    Vm("hpc", (("c", "compute"),)),
    Vm("other"),
    Vm("twice"),
    Vm("twice"),
]
POOLS = {"vdi": ["c"], "vdi/desktops": ["c"], "compute": ["c"], "both": ["c", "d"]}


def sorted_out(
    desktop: Listed | None = None, compute: Listed | None = None
) -> tuple[dict[str, list[str]], dict[str, str]]:
    none = Listed([], [])
    found, problems = members({"desktop": desktop or none, "compute": compute or none}, VMS, POOLS)
    return {kind: [vm.name for vm in vms] for kind, vms in found.items()}, {one.object: one.code for one in problems}


def test_pools_hold_what_is_in_them_and_below() -> None:
    found, problems = sorted_out(Listed(["vdi"], []), Listed(["compute"], ["other"]))
    assert (found, problems) == ({"desktop": ["d1", "d2"], "compute": ["hpc", "other"]}, {})


def test_a_name_counts_before_a_pool_and_the_nearer_pool_before_the_other() -> None:
    found, _problems = sorted_out(Listed(["vdi"], []), Listed(["vdi/desktops"], []))
    assert found == {"desktop": [], "compute": ["d1", "d2"]}
    found, _problems = sorted_out(Listed(["vdi"], []), Listed([], ["d2"]))
    assert found == {"desktop": ["d1"], "compute": ["d2"]}


def test_lists_that_make_no_sense_are_said() -> None:
    listed = Listed(["vdj", "both", "vdi"], ["twice", "d1", "d9"])
    _found, problems = sorted_out(listed, Listed(["vdi"], ["d1"]))
    assert problems == {
        "vdj": "pool_not_found",
        "both": "ambiguous_name",
        "vdi": "ambiguous_name",
        "twice": "ambiguous_name",
        "d1": "ambiguous_name",
        "d9": "vm_not_found",
    }
