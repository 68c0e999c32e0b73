# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

import collections
import dataclasses
import itertools
import typing as t

import pytest
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu import vgpu as rules
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.catalog import Catalog
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.facts import GraphicsDevice, Intent
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.fleet_page.build import GivenPlan
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.fleet_page.model import (
    Gpu,
    Host,
    Job,
    Move,
    Page,
    Point,
)
from fleets import PROFILES, Fleet, divided, on_gpu, small
from gpu_builders import A100, SLOTS, V100, dynamic, fixed, gpu, host, vgpu, vm
from hypothesis import given, settings
from hypothesis import strategies as st


def hosts_of(page: Page) -> dict[str, Host]:
    return {host.name: host for cluster in page.clusters for host in cluster.hosts}


def gpus_of(page: Page, name: str) -> tuple[Gpu, ...]:
    return hosts_of(page)[name].gpus


def row(page: Page, profile: str) -> tuple[int, int]:
    """In use and free of one profile."""
    return next((one.used, one.free) for one in page.capacity if one.profile == profile)


def test_who_has_which_part_of_which_gpu() -> None:
    page = small().page()
    names = [machine.name for machine in page.vms]
    assert names == ["train-a", "train-b", "train-c", "train-d"]
    full, part, free = gpus_of(page, "esx-1")
    assert [(one.state, one.use) for one in (full, part, free)] == [
        ("full", "vgpu"),
        ("part", "vgpu"),
        ("free", "vgpu"),
    ]
    assert [(slot.profile, slot.at, slot.gb, names[slot.vm or 0]) for slot in full.slots] == [
        ("grid_a100-40c", 0, 40, "train-a")
    ]
    assert [names[slot.vm or 0] for slot in part.slots] == ["train-b"]
    assert part.open == ((10, 10), (20, 10), (30, 10))
    assert (full.open, free.open) == ((), ((0, 40),))
    assert page.rooms[part.room] == {"grid_a100-10c": 3}
    sizes = {40: 1, 20: 2, 10: 4, 8: 5, 5: 8, 4: 10}
    assert page.rooms[free.room] == {f"grid_a100-{size}c": count for size, count in sizes.items()}
    # A suspended machine holds no framebuffer.
    assert [names[number] for number in hosts_of(page)["esx-1"].idle] == ["train-c"]


def test_whole_gpus_and_what_waits_for_a_reboot() -> None:
    page = small().page()
    held, free, waiting = gpus_of(page, "esx-2")
    assert [one.state for one in (held, free, waiting)] == ["full", "free", "reboot"]
    assert [page.vms[number].name for number in held.vms] == ["train-d"]
    assert hosts_of(page)["esx-2"].reboot
    assert [(point.kind, point.object) for point in page.points] == [("reboot", "esx-2")]
    assert row(page, "V100-32 whole") == (1, 1)


def test_the_figures() -> None:
    page = small().page(jobs=(Job("1", vms=("train-a",)), Job("2", state="pending"), Job("3", state="completing")))
    totals = page.totals
    assert (totals.hosts, totals.hosts_in_service, totals.gpus, totals.vgpus) == (2, 2, 6, 2)
    assert totals.gpus_by_state == {"free": 2, "full": 2, "part": 1, "reboot": 1}
    assert (totals.vms, totals.vms_running, totals.vms_suspended, totals.reboots) == (4, 3, 1, 1)
    assert (totals.jobs_running, totals.jobs_waiting) == (1, 1)
    assert (totals.gb, totals.gb_used) == (3 * 40 + 3 * 32, 40 + 10 + 32)
    assert row(page, "grid_a100-10c") == (1, 3 + 4)
    assert row(page, "grid_a100-40c") == (1, 1)


@pytest.mark.parametrize(
    ("more", "state", "text"),
    [
        ({"connection": "notResponding"}, "not responding", "not responding"),
        ({"connection": "disconnected"}, "disconnected", "disconnected"),
        ({"in_maintenance": True}, "maintenance", "not by gpuops"),
        (
            {"in_maintenance": True, "intent": Intent("r", "maintenance", "2026-01-01T00:00:00Z")},
            "maintenance",
            "by a run",
        ),
    ],
)
def test_what_is_out_of_service_has_no_free_capacity(more: dict[str, t.Any], state: str, text: str) -> None:
    page = Fleet({"esx": divided("esx", 2, **more), "two": host("two", gpu(SLOTS[0], V100), **more)}, []).page()
    assert {one.state for one in hosts_of(page).values()} == {state}
    assert {point.kind for point in page.points} == {"host"}
    assert all(text in point.text for point in page.points)
    assert [(one.used, one.free) for one in page.capacity] == [(0, 0)]


def test_a_host_may_ask_for_a_reboot_for_another_reason() -> None:
    page = Fleet({"esx": divided("esx", 1, reboot_pending=True)}, []).page()
    assert [(point.kind, point.object) for point in page.points] == [("reboot", "esx")]


def test_gpus_that_are_set_up_for_nothing_yet() -> None:
    shared = host("esx", gpu(SLOTS[0], A100, active=False), graphics=(GraphicsDevice(SLOTS[0], "shared", None, 40960),))
    page = Fleet({"esx": shared}, []).page()
    assert [(one.use, one.state) for one in gpus_of(page, "esx")] == [("none", "unset")]
    assert (page.totals.gb, page.capacity) == (0, ())


def test_devices_beside_gpus_and_machines_without_are_left_out() -> None:
    card = gpu(SLOTS[1], "15b3:1017", class_id=0x0200, name="ConnectX-5")
    page = Fleet(
        {"esx": host("esx", gpu(SLOTS[0]), card, cluster=None)}, [vm("plain"), vm("away", vgpu("x"), host="z")]
    ).page()
    assert [cluster.name for cluster in page.clusters] == [""]
    assert len(gpus_of(page, "esx")) == 1
    assert page.vms == ()


def test_a_machine_that_may_not_be_read_takes_nobody_knows_how_much() -> None:
    one = divided("esx", 1)
    one = dataclasses.replace(one, graphics=(dataclasses.replace(one.graphics[0], vm_moids=("vm-hidden",)),))
    page = Fleet({"esx": one}, []).page()
    (only,) = gpus_of(page, "esx")
    assert (only.state, only.open, page.rooms[only.room]) == ("full", (), {})
    assert [(slot.profile, slot.vm) for slot in only.slots] == [("", None)]


def test_a_dynamic_device_is_on_no_gpu_until_it_runs() -> None:
    where = host("esx", gpu(SLOTS[0]), gpu(SLOTS[1]))
    machines = [vm("off", dynamic()), vm("on", dynamic(assigned=SLOTS[1]), power="poweredOn")]
    page = Fleet({"esx": where}, machines).page()
    assert [[page.vms[number].name for number in one.vms] for one in gpus_of(page, "esx")] == [[], ["on"]]
    assert [page.vms[number].name for number in hosts_of(page)["esx"].idle] == ["off"]


def test_two_machines_of_one_name_stay_two() -> None:
    twins = [vm("twin", vgpu("grid_a100-20c"), moid=moid, power="poweredOn") for moid in ("vm-1", "vm-2")]
    page = Fleet({"esx": on_gpu(divided("esx", 1), 0, twins)}, twins).page()
    assert {slot.vm for slot in gpus_of(page, "esx")[0].slots} == {0, 1}


def test_tenants_by_name_and_else_by_their_jobs() -> None:
    jobs = (Job("1", tenant="physics", vms=("train-b",)), Job("2", tenant="biology", vms=("train-d", "train-c")))
    more = (Job("3", tenant="physics", vms=("train-d",)),)
    page = small().page(jobs=jobs + more, tenants={"chemistry": ["*-a"], "late": ["train-*a"]})
    assert {machine.name: machine.tenant for machine in page.vms} == {
        "train-a": "chemistry", "train-b": "physics", "train-c": "biology", "train-d": ""
    }  # fmt: skip
    assert {machine.name: machine.jobs for machine in page.vms}["train-d"] == (1, 2)


def test_findings_are_counted_at_their_machine_and_listed_after_reboots() -> None:
    found = (Point("driver", "train-a", "driver: old"), Point("licence", "train-a", "licence: gone"))
    page = small().page(findings=found)
    assert page.doctor
    assert [point.kind for point in page.points] == ["reboot", "licence", "driver"]
    assert {machine.name: machine.findings for machine in page.vms}["train-a"] == 2


def test_a_plan_shows_each_host_before_and_after() -> None:
    plan = GivenPlan(
        steps=(), where={"train-d": "esx-2", "new": "esx-2"}, moves={"train-a": "esx-3"}, removed=("train-b",)
    )
    page = small().page(plan=plan)
    assert page.plan is not None
    assert page.plan.moves == (
        Move("esx-1", ("train-a", "train-b", "train-c"), ("train-c",)),
        Move("esx-2", ("train-d",), ("new", "train-d")),
        Move("esx-3", (), ("train-a",)),
    )


machines_on = st.lists(
    st.tuples(st.sampled_from(PROFILES), st.integers(1, 2), st.sampled_from(["poweredOn", "poweredOff", "suspended"])),
    max_size=12,
)


@settings(max_examples=80, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 4), st.sampled_from(["sameSize", "mixedSize"]), machines_on), min_size=1, max_size=3
    )
)
def test_the_figures_agree_with_the_facts(described: list[tuple[int, str, list[tuple[str, int, t.Any]]]]) -> None:
    hosts, vms = {}, []
    for number, (gpus, mode, machines) in enumerate(described):
        name = f"esx-{number}"
        one = divided(name, gpus)
        hosts[name] = dataclasses.replace(
            one, graphics=tuple(dataclasses.replace(device, vgpu_mode=mode) for device in one.graphics)
        )
        for at, (profile, count, power) in enumerate(machines):
            devices = [vgpu(profile, 13000 + key) for key in range(count)]
            vms.append(vm(f"vm-{number}-{at}", *devices, host=name, power=power))
    page = Fleet(hosts, vms).page()
    shown = [one for host_ in hosts_of(page).values() for one in host_.gpus]
    assert page.totals.gpus == len(shown) == sum(gpus for gpus, _mode, _machines in described)
    assert sum(page.totals.gpus_by_state.values()) == len(shown)
    assert page.totals.vms == len(page.vms) == len(vms)
    placed = collections.Counter(slot.vm for one in shown for slot in one.slots)
    idle = [number for host_ in hosts_of(page).values() for number in host_.idle]
    # Every machine is shown: on a GPU, or else once as one that is on none.
    assert sorted([*placed, *idle]) == list(range(len(vms)))
    for number, count in placed.items():
        assert number is not None
        assert page.vms[number].power == "poweredOn"
        assert count <= len(page.vms[number].gpus)
    assert page.totals.vgpus == sum(placed.values()) == sum(one.used for one in page.capacity)
    for one in shown:
        pieces = sorted([(slot.at, slot.gb) for slot in one.slots] + list(one.open))
        assert all(at + size <= after for (at, size), (after, _size) in itertools.pairwise(pieces))
        assert sum(size for _at, size in pieces) <= one.gb
        assert (one.state == "free") == (not one.slots)
    for profile in PROFILES:
        assert sum(row_.free for row_ in page.capacity if row_.profile == profile) == room_by_rule(hosts, vms, profile)


def room_by_rule(hosts: t.Mapping[str, t.Any], vms: t.Sequence[t.Any], name: str) -> int:
    """How many more of a profile the hosts would really take, one power-on after the other."""
    profile, count = rules.parse_profile(name), 0
    assert profile is not None
    for one in hosts.values():
        gpus = rules.running(one, vms, Catalog())
        while (found := rules.place(gpus, profile, "performance")) is not None:
            gpus[found[0]] = gpus[found[0]].with_vgpu(profile, found[1])
            count += 1
    return count


def test_fixed_devices_of_machines_that_are_off_hold_their_gpu() -> None:
    page = Fleet({"esx": host("esx", gpu(SLOTS[0]))}, [vm("off", fixed(SLOTS[0]))]).page()
    assert gpus_of(page, "esx")[0].state == "full"
    assert row(page, "V100-32 whole") == (1, 0)
