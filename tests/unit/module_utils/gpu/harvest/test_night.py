# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

import dataclasses
import datetime
from typing import Any

import gpu_builders as build
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.facts import GraphicsDevice, HostFacts, Intent, VmFacts
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.harvest.evening import Activity, IdlePolicy
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.harvest.morning import Timing
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.harvest.night import (
    NightFacts,
    NightPlan,
    NightPolicy,
    plan_night,
)
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.harvest.schedule import hours_at, schedule_from
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.harvest.show import table
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.vgpu import parse_profile

DESKTOP, COMPUTE = "nvidia_a100-20c", "nvidia_a100-40c"
IDLE = Activity((10.0,) * 6, "green")
LENT = Intent("r", "lent", "t")
OFFICE = schedule_from("office", {"timezone": "UTC", "ready_by": "07:00", "lend_from": "19:00"})
EVENING, MORNING, DAY = "2026-01-13T20:00", "2026-01-14T06:45", "2026-01-14T12:00"


def esx(name: str, *gpus: tuple[str, ...], **more: Any) -> HostFacts:
    types = (DESKTOP, COMPUTE)
    return build.host(
        name,
        *(build.gpu(address, build.A100, active=False) for address in build.SLOTS[: len(gpus)]),
        **{
            "graphics": tuple(
                GraphicsDevice(address, "sharedDirect", "sameSize", 40960, tuple(f"vm-{vm}" for vm in vms))
                for address, vms in zip(build.SLOTS, gpus, strict=False)
            ),
            "vgpu_types": types,
            "vgpu_suspend": types,
            **more,
        },
    )


def desk(name: str, host: str = "esx1", power: str = "poweredOn", **more: Any) -> VmFacts:
    return build.vm(name, build.vgpu(DESKTOP), host=host, power=power, **more)


def lent(name: str, host: str = "esx1") -> VmFacts:
    return desk(name, host, "suspended", intent=LENT)


def compute(name: str, host: str = "esx1", power: str = "poweredOff") -> VmFacts:
    return build.vm(name, build.vgpu(COMPUTE), host=host, power=power)


def plan(now: str, hosts: list[HostFacts], vms: list[VmFacts], *jobs: str, **policy: Any) -> NightPlan:
    time = datetime.datetime.fromisoformat(now).replace(tzinfo=datetime.UTC)
    names = [vm.name for vm in vms if vm.name.startswith("d")]
    facts = NightFacts(
        {vm.name: vm for vm in vms},
        {host.name: host for host in hosts},
        dict.fromkeys(names, IDLE),
        frozenset(names),
        dict.fromkeys(jobs, 1),
    )
    profile = parse_profile(COMPUTE)
    assert profile is not None
    wanted = NightPolicy(IdlePolicy(), Timing(), profile, **policy)
    return plan_night(names, facts, wanted, hours_at([OFFICE], time), time)


def test_a_desktop_that_is_wanted_in_the_evening_is_said_to_stay() -> None:
    hosts = [esx("esx1", ("d1", "d2"), ("d3",))]
    night = plan(EVENING, hosts, [desk("d1"), desk("d2"), desk("d3")], wanted=frozenset({"d1", "d3"}))
    assert night.suspend == ("d2",)
    assert night.plans["d1"].notes == {"verdict": "keep", "reason": "its user waits for it"}
    assert not night.plans["d1"].changed


def test_a_compute_machine_that_the_vcenter_does_not_know_is_a_mistake_or_a_clone() -> None:
    hosts, vms = [esx("esx1", ("d1",))], [desk("d1")]
    wrong = plan(EVENING, hosts, vms, "c1")
    assert wrong.plans["c1"].problems[0].code == "vm_not_found"
    assert wrong.plans["c1"].problems[0].option == "compute_vms"
    cloned = plan(EVENING, hosts, vms, "c1", "c2", clone=True)
    assert "c1" not in cloned.plans
    assert (cloned.compute.clone, cloned.compute.places) == (("c1",), {"c1": "esx1"})


def test_by_day_every_compute_machine_leaves_also_where_nobody_returns() -> None:
    hosts = [esx("esx1", ("c1",)), esx("esx2", ("c2",))]
    vms = [lent("d1"), compute("c1", power="poweredOn"), compute("c2", "esx2", "poweredOn")]
    for now in (MORNING, DAY):
        assert plan(now, hosts, vms, "c1", "c2").release == ("c1", "c2")
    assert plan(DAY, hosts, vms[1:], "c1", "c2").release == ("c1", "c2")


def test_compute_machines_start_where_they_are_then_elsewhere_then_are_cloned() -> None:
    hosts = [esx("esx1", ("d1",), ("d2",)), esx("esx2", ("d3",)), esx("esx3", ())]
    vms = [desk("d1"), desk("d2"), desk("d3", "esx2"), compute("c1", "esx3"), compute("c2")]
    night = plan(EVENING, hosts, vms, "c1", "c2", "c3", "c4", clone=True)
    assert night.compute.start == ("c1", "c2", "c3")
    assert night.compute.places["c2"] == "esx1"
    assert sorted(night.compute.places.values()) == ["esx1", "esx1", "esx2"], "esx3 has lent nothing"
    assert night.compute.clone == ("c3",)


def test_nothing_starts_where_others_are_and_nothing_twice() -> None:
    hosts = [esx("esx1", ("c1",), ())]
    vms = [lent("d1"), lent("d2"), compute("c1", power="poweredOn"), compute("c2")]
    assert plan(EVENING, hosts, vms, "c1", "c2").compute.start == ("c2",)
    full = [esx("esx1", ("c1",), ("c2",))]
    vms[3] = dataclasses.replace(vms[3], power="poweredOn")
    assert plan(EVENING, full, vms, "c1", "c2", "c3", clone=True).compute.start == ()


def test_what_makes_room_for_a_user_does_not_take_it_again() -> None:
    hosts = [esx("esx1", ("c1",))]
    night = plan(EVENING, hosts, [lent("d1"), compute("c1", power="poweredOn")], "c1", wanted=frozenset({"d1"}))
    assert (night.release, night.resume, night.compute.start) == (("c1",), ("d1",), ())
    assert night.places == {"d1": "esx1"}


def test_a_desktop_on_a_dead_host_is_stranded_and_said_at_once() -> None:
    hosts = [esx("esx1", (), connection="notResponding"), esx("esx2", ())]
    for now in (EVENING, MORNING):
        night = plan(now, hosts, [lent("d1")])
        assert night.plans["d1"].problems[0].code == "no_return"
        assert "leaves only a host that does" in night.stranded["d1"]


def test_a_mark_that_a_dead_run_has_left_is_found() -> None:
    hosts = [esx("esx1", ("d1", "d2"), ("d3",))]
    night = plan(DAY, hosts, [desk("d1", intent=LENT), desk("d2"), desk("d3")])
    assert (night.returned, night.lent, night.resume) == (("d1",), (), ())
    # It can be lent again at once: the mark is the same.
    assert plan(EVENING, hosts, [desk("d1", intent=LENT), desk("d2"), desk("d3")]).suspend == ("d1", "d2", "d3")


def test_a_return_that_will_be_late_is_said() -> None:
    night = plan("2026-01-14T06:59", [esx("esx1", ())], [lent("d1")])
    assert "after its deadline" in night.stranded["d1"]
    assert night.resume == ("d1",), "and it returns all the same"


def test_the_table_shows_steps_in_their_order_and_counts_what_stays() -> None:
    hosts = [esx("esx1", ("d1", "d2"), ("c1",))]
    vms = [desk("d1"), desk("d2"), compute("c1", power="poweredOn"), compute("c2")]
    now = datetime.datetime.fromisoformat(EVENING).replace(tzinfo=datetime.UTC)
    text = table(plan(EVENING, hosts, vms, "c1", "c2"), now)
    assert text.splitlines()[0] == "HARVEST, 2026-01-13 20:00 UTC: evening"
    assert "desktops ready by 2026-01-14 07:00 UTC, return begins by 2026-01-14 06:" in text
    assert [line.split()[:2] for line in text.splitlines()[3:6]] == [
        ["suspend", "d1"],
        ["suspend", "d2"],
        ["start", "c2"],
    ]
    kept = table(plan(EVENING, hosts, vms[:3], "c1", wanted=frozenset({"d1", "d2"})), now)
    assert "nothing to do" in kept
    assert "   2  keep: its user waits for it" in kept
