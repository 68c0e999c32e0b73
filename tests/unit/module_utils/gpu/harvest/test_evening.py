# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import gpu_builders as build
import pytest
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.facts import (
    GraphicsDevice,
    HostFacts,
    Intent,
    VmFacts,
)
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.harvest.evening import (
    Activity,
    EveningPlan,
    IdlePolicy,
    plan_evening,
)
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.vgpu import Profile, parse_profile
from hypothesis import given, settings
from hypothesis import strategies as st

IDLE = Activity((50.0,) * 6, "green")
BUSY = Activity((50.0, 2100.0, 40.0, 50.0, 50.0, 50.0), "green")
DESKTOP, COMPUTE = "nvidia_a100-10c", "nvidia_a100-40c"


def profile(name: str) -> Profile:
    parsed = parse_profile(name)
    assert parsed is not None
    return parsed


def fleet(*gpus: Sequence[str], **more: Any) -> tuple[dict[str, VmFacts], dict[str, HostFacts]]:
    """A host with an A100 for each list of desktops that run on it."""
    desktops = {
        name: build.vm(name, build.vgpu(DESKTOP), host="esx", power="poweredOn") for names in gpus for name in names
    }
    graphics = tuple(
        GraphicsDevice(address, "sharedDirect", "sameSize", 40960, tuple(f"vm-{name}" for name in names))
        for address, names in zip(build.SLOTS, gpus, strict=False)
    )
    devices = [build.gpu(address, build.A100, active=False) for address in build.SLOTS[: len(gpus)]]
    types = (DESKTOP, COMPUTE)
    host = build.host("esx", *devices, graphics=graphics, vgpu_types=types, vgpu_suspend=types, **more)
    return desktops, {"esx": host}


def evening(
    desktops: dict[str, VmFacts],
    hosts: dict[str, HostFacts],
    activity: dict[str, Activity] | None = None,
    **policy: Any,
) -> EveningPlan:
    known = dict.fromkeys(desktops, IDLE) | (activity or {})
    return plan_evening(desktops, (), hosts, known, set(desktops), IdlePolicy(**policy), profile(COMPUTE))


def test_idle_desktops_make_room_and_those_in_use_stay() -> None:
    desktops, hosts = fleet(["a", "b"], ["c"])
    plan = evening(desktops, hosts, {"c": BUSY})
    assert plan.suspend == ("a", "b")
    assert plan.decisions["c"].verdict == "keep"
    assert plan.decisions["c"].reason == "in use: 2100 MHz, idle is up to 300"
    assert plan.room == {"esx": 1}


def test_a_desktop_is_not_suspended_for_nothing() -> None:
    # Another size does not go beside `b` on a GPU in same-size mode.
    desktops, hosts = fleet(["a", "b"], ["c"])
    plan = evening(desktops, hosts, {"b": BUSY})
    assert plan.suspend == ("c",)
    assert plan.decisions["a"].verdict == "keep"
    assert plan.decisions["a"].reason == f"idle, but suspending it makes no room for {COMPUTE}"


@pytest.mark.parametrize(
    ("gpus", "reserve", "suspended", "room"),
    [
        # First on the GPU that `busy` keeps anyway, ...
        ((["busy", "a"], ["b", "c"], ["d"]), 1, ("b", "c", "d"), 2),
        # ... then on one GPU whole, not on two in part, ...
        ((["busy"], ["a", "b"], ["c", "d"]), 2, ("c", "d"), 1),
        # ... and on the smallest that will do.
        ((["a", "b", "c"], ["d"]), 1, ("a", "b", "c"), 1),
        ((["a", "b", "c"], ["d"]), 4, (), 0),
    ],
)
def test_the_reserve_stays_where_it_costs_the_least(
    gpus: Sequence[Sequence[str]], reserve: int, suspended: tuple[str, ...], room: int
) -> None:
    desktops, hosts = fleet(*gpus)
    plan = evening(desktops, hosts, {"busy": BUSY}, reserve=reserve)
    assert plan.suspend == suspended
    assert plan.room.get("esx", 0) == room


@pytest.mark.parametrize(
    ("changes", "verdict", "reason"),
    [
        ({"power": "poweredOff"}, "leave alone", "it is off"),
        ({"power": "suspended"}, "leave alone", "somebody else has suspended it"),
        ({"power": "suspended", "intent": Intent("r", "lent", "t")}, "lent", "suspended by an earlier run"),
        ({"power": "suspended", "intent": Intent("r", "moved", "t")}, "leave alone", "somebody else has suspended it"),
        ({"intent": Intent("r7", "moved", "t")}, "leave alone", "run r7 is at work on it (moved)"),
        ({"gpus": (build.fixed(build.SLOTS[0]),)}, "keep", "passthrough and cannot be suspended"),
        ({"gpus": ()}, "keep", "no vGPU"),
        ({"gpus": (build.vgpu("nvidia_a100-20c"),)}, "keep", "cannot suspend a machine with nvidia_a100-20c"),
        ({"moid": "vm-elsewhere"}, "keep", "does not tell on which GPU it is"),
        ({"host": "gone"}, "leave alone", "gone does not answer"),
    ],
)
def test_what_cannot_be_suspended_is_left_alone(changes: dict[str, Any], verdict: str, reason: str) -> None:
    desktops, hosts = fleet(["a"], ["b"])
    desktops["a"] = dataclasses.replace(desktops["a"], **changes)
    plan = evening(desktops, hosts)
    assert plan.decisions["a"].verdict == verdict
    assert reason in plan.decisions["a"].reason
    assert plan.suspend == ("b",)


@pytest.mark.parametrize(
    ("activity", "reason"),
    [
        (Activity((10.0,) * 5, "green"), "only 5 of 6 CPU samples are known"),
        (Activity((10.0,) * 6, "gray"), "heartbeat is gray"),
        (Activity((10.0,) * 6, "green", "failed"), "the site's check failed or hung"),
        (Activity((10.0,) * 6, "green", "busy"), "the site's check says that it is in use"),
        (Activity((10.0,) * 6, "green"), "the site's check was not made"),
    ],
)
def test_what_is_not_known_to_be_idle_stays(activity: Activity, reason: str) -> None:
    desktops, hosts = fleet(["a"])
    plan = evening(desktops, hosts, {"a": activity}, check=True)
    assert plan.suspend == ()
    assert reason in plan.decisions["a"].reason


@pytest.mark.parametrize("more", [{"connection": "notResponding"}, {"in_maintenance": True}])
def test_a_host_that_does_not_answer_keeps_its_desktops(more: dict[str, Any]) -> None:
    desktops, hosts = fleet(["a"], **more)
    assert evening(desktops, hosts).decisions["a"].verdict == "leave alone"


def test_only_marked_desktops_are_lent() -> None:
    desktops, hosts = fleet(["a"], ["b"])
    known = dict.fromkeys(desktops, IDLE)
    plan = plan_evening(desktops, (), hosts, known, {"b"}, IdlePolicy(), profile(COMPUTE))
    assert plan.suspend == ("b",)
    assert plan.decisions["a"].reason == "not marked to be lent"


@settings(deadline=None)
@given(gpus=st.lists(st.lists(st.booleans(), max_size=4), min_size=1, max_size=6), reserve=st.integers(0, 8))
def test_the_reserve_is_kept_and_every_suspension_makes_room(gpus: list[list[bool]], reserve: int) -> None:
    named = [[f"d{gpu}{number}" for number in range(len(states))] for gpu, states in enumerate(gpus)]
    desktops, hosts = fleet(*named)
    idle = {f"d{gpu}{number}" for gpu, states in enumerate(gpus) for number, state in enumerate(states) if state}
    plan = evening(desktops, hosts, {name: BUSY for name in desktops if name not in idle}, reserve=reserve)
    assert set(plan.suspend) <= idle
    assert len(idle - set(plan.suspend)) >= min(reserve, len(idle))
    for names in named:
        # A whole GPU or none of it: nobody is suspended beside one that stays.
        assert set(names) <= set(plan.suspend) or not set(names) & set(plan.suspend)
    emptied = sum(set(names) <= set(plan.suspend) for names in named)
    assert plan.room.get("esx", 0) == emptied
