# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

import dataclasses
import datetime
from collections import Counter
from typing import Any

import gpu_builders as build
import pytest
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.facts import GraphicsDevice, HostFacts, VmFacts
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.harvest.morning import (
    Compute,
    Timing,
    make_room,
    phase_at,
    plan_morning,
    waves,
)
from hypothesis import given, settings
from hypothesis import strategies as st

DESKTOP, COMPUTE = "nvidia_a100-10c", "nvidia_a100-20c"


def host(name: str, *gpus: tuple[str, ...], **more: Any) -> HostFacts:
    """A host with an A100 for each tuple of machines that run on it."""
    addresses = build.SLOTS[: len(gpus)]
    return build.host(
        name,
        *(build.gpu(address, build.A100, active=False) for address in addresses),
        **{
            "graphics": tuple(
                GraphicsDevice(address, "sharedDirect", "sameSize", 40960, tuple(f"vm-{vm}" for vm in vms))
                for address, vms in zip(addresses, gpus, strict=True)
            ),
            "vgpu_types": (DESKTOP, COMPUTE),
            **more,
        },
    )


def hosts_of(*hosts: HostFacts) -> dict[str, HostFacts]:
    return {host.name: host for host in hosts}


def lent(*names: str, on: str) -> dict[str, VmFacts]:
    return {name: build.vm(name, build.vgpu(DESKTOP), host=on, power="suspended") for name in names}


def running(name: str, on: str, profile: str = COMPUTE) -> VmFacts:
    return build.vm(name, build.vgpu(profile), host=on, power="poweredOn")


def at(text: str) -> datetime.datetime:
    return datetime.datetime.fromisoformat(text).replace(tzinfo=datetime.UTC)


def test_the_start_is_counted_back_from_the_deadline() -> None:
    desktops = lent("a", "b", on="esx1") | lent("c", on="esx2")
    timing = Timing(drain=300, release=60, resume=100, measured={"a": 200}, margin=0.5, least_margin=10)
    plan = plan_morning(desktops, (), hosts_of(host("esx1", ()), host("esx2", ())), timing)
    # esx1 resumes one after the other: 200 + 100 s, esx2 beside it.
    assert [(item.desktop, item.begins, item.ends) for item in plan.returns] == [
        ("a", 0, 200),
        ("c", 0, 100),
        ("b", 200, 300),
    ]
    assert plan.seconds == (300 + 60 + 300) * 1.5
    assert plan.start_by(at("2026-01-14T06:30")) == at("2026-01-14T06:13:30")


def test_nothing_lent_needs_no_time() -> None:
    plan = plan_morning({}, (), {}, Timing())
    assert plan.seconds == 0
    assert plan.returns == ()


def test_a_desktop_whose_host_takes_no_work_returns_elsewhere_but_takes_nobody_s_place() -> None:
    hosts = hosts_of(host("esx1", (), in_maintenance=True), host("esx2", ()), host("esx3", ()))
    desktops = lent("a", on="esx1") | lent("b", "c", "d", "e", on="esx2")
    plan = plan_morning(desktops, (), hosts, Timing())
    assert {item.desktop: item.host for item in plan.returns if item.moved} == {"a": "esx3"}


@pytest.mark.parametrize(
    ("hosts", "reason"),
    [
        ([], "esx1 is gone, and no other host of its cluster offers a100-10c"),
        ([host("esx1", (), in_maintenance=True)], "esx1 is in maintenance mode, and no other host"),
        ([host("esx1", (), connection="notResponding"), host("esx2", ())], "esx1 does not answer, and a suspended"),
        ([host("esx1", (), in_maintenance=True), host("far", (), cluster="other")], "esx1 is in maintenance mode"),
        ([host("esx1", (), vgpu_types=())], "esx1 does not offer it any more"),
        ([host("esx1", ("stays",))], "no room for a100-10c on esx1, even once all compute machines have left"),
    ],
)
def test_a_desktop_that_can_return_nowhere_is_named(hosts: list[HostFacts], reason: str) -> None:
    plan = plan_morning(lent("a", on="esx1"), [running("stays", "esx1")], hosts_of(*hosts), Timing())
    assert plan.returns == ()
    assert reason in plan.nowhere["a"]


@given(
    seconds=st.lists(st.tuples(st.integers(0, 3), st.integers(1, 300)), min_size=1, max_size=16),
    at_once=st.integers(1, 8),
)
@settings(deadline=None)
def test_a_host_resumes_one_desktop_at_a_time_and_there_are_no_more_waves_than_must_be(
    seconds: list[tuple[int, int]], at_once: int
) -> None:
    hosts = hosts_of(*(host(f"esx{number}", *[()] * 8) for number in range(4)))
    desktops: dict[str, VmFacts] = {}
    measured: dict[str, float] = {}
    for number, (on, time) in enumerate(seconds):
        desktops |= lent(f"d{number}", on=f"esx{on}")
        measured[f"d{number}"] = time
    timing = Timing(measured=measured, at_once=at_once)
    plan = plan_morning(desktops, (), hosts, timing)
    assert sorted(item.desktop for item in plan.returns) == sorted(desktops)
    places = {item.desktop: item.host for item in plan.returns}
    found = waves(places, timing)
    assert [item.desktop for item in plan.returns] == [name for wave in found for name in wave]
    for wave in found:
        assert len(wave) <= at_once
        assert len({places[name] for name in wave}) == len(wave)
    most = max(Counter(places.values()).values())
    assert len(found) == max(most, -(-len(desktops) // at_once))
    # Nobody begins before the wave before is over, and each takes its time.
    begin = 0.0
    for wave in found:
        mine = [item for item in plan.returns if item.desktop in wave]
        assert {item.begins for item in mine} == {begin}
        assert all(item.ends == begin + measured[item.desktop] for item in mine)
        begin = max(item.ends for item in mine)


@pytest.mark.parametrize(
    ("now", "phase"),
    [
        ("2026-01-13T20:00", "evening"),
        ("2026-01-14T04:20", "evening"),
        # The way there and back takes longer than what is left.
        ("2026-01-14T05:10", "night"),
        ("2026-01-14T05:20", "night"),
        ("2026-01-14T05:21", "morning"),
        ("2026-01-14T06:00", "morning"),
        ("2026-01-14T07:00", "morning"),
    ],
)
def test_the_night_has_its_phases(now: str, phase: str) -> None:
    assert phase_at(at(now), at("2026-01-14T06:30"), at("2026-01-14T05:30"), 600) == phase


def test_without_a_deadline_lending_goes_on() -> None:
    assert phase_at(at("2026-01-13T20:00"), None, None, 600) == "evening"


def test_for_one_desktop_the_fewest_jobs_are_disturbed() -> None:
    hosts = hosts_of(host("esx1", ("x", "y"), ("z",)))
    desktop = lent("a", on="esx1")["a"]
    compute = [Compute(running("x", "esx1"), 1), Compute(running("y", "esx1"), 0), Compute(running("z", "esx1"), 3)]
    # Another size does not go beside y or x: both leave, which is one job; z would be three.
    assert make_room(desktop, compute, (), hosts) == ("esx1", ("x", "y"))
    busy = [dataclasses.replace(item, jobs=item.jobs + 5) if item.vm.name == "x" else item for item in compute]
    assert make_room(desktop, busy, (), hosts) == ("esx1", ("z",))


def test_for_one_desktop_nothing_leaves_where_there_is_room() -> None:
    hosts = hosts_of(host("esx1", ("x",)), host("esx2", ()))
    desktop = lent("a", on="esx1")["a"]
    assert make_room(desktop, [Compute(running("x", "esx1"), 1)], (), hosts) == ("esx2", ())
    assert make_room(desktop, [Compute(running("x", "esx1"))], (), hosts_of(hosts["esx1"])) == ("esx1", ("x",))


def test_other_machines_never_leave_for_a_desktop() -> None:
    hosts = hosts_of(host("esx1", ("x",)))
    assert make_room(lent("a", on="esx1")["a"], (), [running("x", "esx1")], hosts) is None
