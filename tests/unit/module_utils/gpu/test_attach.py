# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

import typing as t

import pytest
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.attach import (
    ACTION,
    GpuPlan,
    Inventory,
    PowerPolicy,
    VmEdit,
    plan_gpus,
    waves,
)
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.catalog import Catalog
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.facts import HostFacts, Intent, VmFacts
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.plan import Problem
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.vm_settings import Settings
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.wants import GpuWant, VmWant, parse
from gpu_builders import A100, P100, SLOTS, T4, V100, dynamic, fixed, gpu, host, vm

TWO_V100 = host("esx", gpu(SLOTS[0]), gpu(SLOTS[1]))


def want(name: str, *gpus: dict[str, t.Any], **more: t.Any) -> dict[str, t.Any]:
    return {"name": name, "gpus": list(gpus), **more}


def by_id(device_id: str = V100, count: int | str = 1) -> dict[str, t.Any]:
    return {"mode": "fixed", "id": device_id, "count": count}


def at(address: str) -> dict[str, t.Any]:
    return {"mode": "fixed", "address": address}


def any_of(device_id: str = V100, count: int | str = 1) -> dict[str, t.Any]:
    return {"mode": "dynamic", "id": device_id, "count": count}


def plan(wanted: list[dict[str, t.Any]], vms: list[VmFacts], *hosts: HostFacts, **options: t.Any) -> dict[str, GpuPlan]:
    wants, mistakes = parse(wanted)
    known = {item.name: item for item in vms}
    inventory = Inventory(known, {item.name: item for item in hosts or (TWO_V100,)}, known_vms=list(known))
    return plan_gpus(wants, mistakes, inventory, catalog=options.pop("catalog", Catalog()), **options)


def problems(planned: GpuPlan) -> dict[str, Problem]:
    return {problem.code: problem for problem in planned.plan.problems}


def addresses(planned: GpuPlan) -> list[str | None]:
    assert planned.predicted is not None
    return sorted((item.address for item in planned.predicted.gpus), key=str)


def edit(planned: GpuPlan) -> VmEdit:
    assert planned.edit is not None, planned.plan.problems
    return planned.edit


def test_one_reconfigure_for_a_fresh_clone() -> None:
    fresh = vm(
        "a",
        memory_reservation_mb=0,
        memory_reservation_locked=False,
        cpu_hot_add=True,
        memory_hot_add=True,
        extra_config={},
    )
    planned = plan([want("a", by_id(count=2), memory_mb=65536)], [fresh])["a"]
    made = edit(planned)
    assert [(item.mode, item.key, item.address) for item in made.add] == [
        ("fixed", -1, SLOTS[0]),
        ("fixed", -2, SLOTS[1]),
    ]
    assert made.remove == ()
    assert made.settings == Settings(
        memory_mb=65536,
        lock_memory=True,
        cpu_hot_add_off=True,
        memory_hot_add_off=True,
        extra_config={"pciPassthru.use64bitMMIO": "TRUE", "pciPassthru.64bitMMIOSizeGB": "128"},
    )
    assert str(planned.plan.changes[0]) == f"attach GPU {SLOTS[0]} (V100-32, fixed)"
    assert planned.predicted is not None
    assert planned.predicted.memory_reservation_mb == 65536
    again = plan([want("a", by_id(count=2), memory_mb=65536)], [planned.predicted])["a"]
    assert (again.plan.changes, again.plan.problems) == ((), ())


def test_what_fits_is_left_alone_even_while_powered_on() -> None:
    running = vm("a", fixed(SLOTS[1]), dynamic(assigned=SLOTS[0], key=13001), power="poweredOn")
    planned = plan([want("a", by_id(), any_of())], [running])["a"]
    assert (planned.plan.changes, planned.plan.problems, planned.edit) == ((), (), None)


def test_running_machine_with_overlapping_wants_fits() -> None:
    mixed = host("esx", gpu(SLOTS[0], V100), gpu(SLOTS[1], P100))
    running = vm("a", fixed(SLOTS[0]), fixed(SLOTS[1], P100, key=13001), power="poweredOn")
    planned = plan([want("a", {"mode": "fixed"}, by_id(V100))], [running], mixed)["a"]
    assert (planned.plan.changes, planned.plan.problems) == ((), ())


@pytest.mark.parametrize(("power", "code"), [("poweredOn", "vm_powered_on"), ("suspended", "vm_not_powered_off")])
def test_powered_on_machine_that_must_change_says_what(power: str, code: str) -> None:
    planned = plan([want("a", by_id(count=2))], [vm("a", fixed(SLOTS[0]), power=power)])["a"]
    problem = problems(planned)[code]
    assert f"attach GPU {SLOTS[1]}" in problem.msg
    assert "vm_power" in problem.msg
    assert problem.kind == "state"
    assert planned.edit is None


def test_fixed_by_id_keeps_what_it_has_then_takes_the_lowest() -> None:
    four = host("esx", *(gpu(slot) for slot in reversed(SLOTS[:4])))
    planned = plan([want("a", by_id(count=3)), want("b", by_id())], [vm("a", fixed(SLOTS[2])), vm("b")], four)
    assert addresses(planned["a"]) == [SLOTS[0], SLOTS[1], SLOTS[2]]
    assert [item.address for item in edit(planned["a"]).add] == [SLOTS[0], SLOTS[1]]
    assert addresses(planned["b"]) == [SLOTS[3]]


def test_active_devices_are_preferred() -> None:
    planned = plan([want("a", by_id())], [vm("a")], host("esx", gpu(SLOTS[0], active=False), gpu(SLOTS[1])))["a"]
    assert addresses(planned) == [SLOTS[1]]


def test_exact_set_removes_and_swaps() -> None:
    planned = plan([want("a", at(SLOTS[1]))], [vm("a", fixed(SLOTS[0]), dynamic(key=13001))])["a"]
    made = edit(planned)
    assert [item.key for item in made.remove] == [13000, 13001]
    assert [item.address for item in made.add] == [SLOTS[1]]
    assert addresses(planned) == [SLOTS[1]]


def test_empty_set_takes_gpus_away_and_leaves_settings() -> None:
    planned = plan([want("a")], [vm("a", fixed(SLOTS[0]), extra_config={}, memory_reservation_locked=False)])["a"]
    assert edit(planned).settings == Settings()
    assert addresses(planned) == []


def test_other_passthrough_devices_are_not_touched() -> None:
    nic = gpu("0000:18:00.0", "15b3:1017", class_id=0x0200)
    switch = gpu("0000:c5:00.0", "10de:22a3", class_id=0x0680)
    server = host("esx", nic, switch, gpu(SLOTS[0]))
    machine = vm("a", fixed("0000:18:00.0", "15b3:1017", key=13000), fixed("0000:c5:00.0", "10de:22a3", key=13001))
    planned = plan([want("a", by_id())], [machine], server)["a"]
    assert edit(planned).remove == ()
    assert addresses(planned) == ["0000:18:00.0", SLOTS[0], "0000:c5:00.0"]
    assert len(planned.plan.notes["gpus"]) == 1


def test_two_machines_of_the_call_want_one_device() -> None:
    planned = plan([want("a", at(SLOTS[0])), want("b", at(SLOTS[0]))], [vm("a"), vm("b")])
    for name, other in (("a", "b"), ("b", "a")):
        text = problems(planned[name])["gpu_conflict"].msg
        assert SLOTS[0] in text
        assert other in text
        assert planned[name].edit is None


def test_device_of_a_machine_outside_the_call() -> None:
    planned = plan([want("a", at(SLOTS[0]))], [vm("a"), vm("train-07", fixed(SLOTS[0]))])["a"]
    text = problems(planned)["gpu_conflict"].msg
    assert SLOTS[0] in text
    assert "train-07" in text


def test_device_that_a_template_has_is_free() -> None:
    planned = plan([want("a", at(SLOTS[0]))], [vm("a"), vm("golden", fixed(SLOTS[0]), template=True)])["a"]
    assert addresses(planned) == [SLOTS[0]]


def test_device_assigned_to_a_running_machine_is_not_free() -> None:
    running = vm("train-07", dynamic(assigned=SLOTS[0]), power="poweredOn")
    assert addresses(plan([want("a", by_id())], [vm("a"), running])["a"]) == [SLOTS[1]]
    assert "gpu_conflict" in problems(plan([want("a", at(SLOTS[0]))], [vm("a"), running])["a"])


def test_shortage_names_asked_existing_and_holders_and_stops_all_who_compete() -> None:
    planned = plan(
        [want("a", by_id()), want("b", by_id())], [vm("a"), vm("b"), vm("train-07", fixed(SLOTS[1]), power="poweredOn")]
    )
    for name in ("a", "b"):
        text = problems(planned[name])["gpu_shortage"].msg
        assert f"2 x {V100} asked for on esx (a 1, b 1), and it has 2" in text
        assert f"{SLOTS[0]} free" in text
        assert f"{SLOTS[1]} held by train-07" in text


def test_shortage_leaves_those_who_have_theirs_alone() -> None:
    planned = plan(
        [want("new", by_id()), want("a", by_id()), want("b", by_id())],
        [vm("new"), vm("a", fixed(SLOTS[0])), vm("b", fixed(SLOTS[1]), power="poweredOn")],
    )
    assert list(problems(planned["new"])) == ["gpu_shortage"]
    assert "new 1" in problems(planned["new"])["gpu_shortage"].msg
    assert "held by a" in problems(planned["new"])["gpu_shortage"].msg
    assert planned["a"].plan.problems == ()
    assert planned["b"].plan.problems == ()


def test_one_machine_asks_for_more_than_there_are() -> None:
    planned = plan([want("a", by_id(count=3))], [vm("a")])["a"]
    assert "3 x 10de:1db6 asked for on esx (a 3), and it has 2" in problems(planned)["gpu_shortage"].msg


def test_dynamic_demand_counts_within_the_host() -> None:
    planned = plan([want("a", any_of(count=2)), want("b", by_id())], [vm("a"), vm("b")])
    assert "gpu_shortage" in problems(planned["a"])
    assert "gpu_shortage" in problems(planned["b"])
    planned = plan([want("a", any_of()), want("b", by_id())], [vm("a"), vm("b")])
    assert planned["a"].plan.problems == planned["b"].plan.problems == ()


def test_dynamic_gpus_that_a_machine_has_come_before_new_ones() -> None:
    one = host("esx", gpu(SLOTS[0]))
    planned = plan([want("new", any_of()), want("a", any_of())], [vm("new"), vm("a", dynamic())], one)
    assert list(problems(planned["new"])) == ["gpu_shortage"]
    assert planned["a"].plan.problems == ()
    planned = plan([want("a", any_of()), want("b", any_of())], [vm("a", dynamic()), vm("b", dynamic())], one)
    assert list(problems(planned["b"])) == ["gpu_shortage"]


def test_wants_that_overlap_are_shared_out_so_that_all_are_served() -> None:
    mixed = host("esx", gpu(SLOTS[0], V100), gpu(SLOTS[1], P100))
    planned = plan([want("a", {"mode": "fixed"}), want("b", by_id(V100))], [vm("a"), vm("b")], mixed)
    assert addresses(planned["a"]) == [SLOTS[1]]
    assert addresses(planned["b"]) == [SLOTS[0]]


def test_dynamic_by_label_and_changed_count() -> None:
    labelled = host("esx", *(gpu(slot, hardware_label="big") for slot in SLOTS[:3]))
    machine = vm("a", dynamic(None, label="big"), dynamic(V100, key=13001))
    planned = plan([want("a", {"mode": "dynamic", "label": "big", "count": 2})], [machine], labelled)["a"]
    made = edit(planned)
    assert [(item.ids, item.label) for item in made.add] == [((V100,), "big")]
    assert [item.key for item in made.remove] == [13001]
    assert planned.plan.problems == ()


def test_dynamic_wants_of_the_same_kind_add_up() -> None:
    planned = plan([want("a", any_of(), any_of())], [vm("a", dynamic())])["a"]
    assert len(edit(planned).add) == 1
    assert edit(planned).remove == ()


@pytest.mark.parametrize(
    ("gpus", "expected"),
    [
        (by_id(A100), "10de:20f1, which esx does not have. Its GPUs: 2 x V100-32 (10de:1db6)"),
        (
            at("0000:99:00.0"),
            "0000:99:00.0, which esx does not have. Its GPUs: 2 x V100-32 (10de:1db6)."
            f" Their addresses: {SLOTS[0]}; {SLOTS[1]}",
        ),
        (at("0000:18:00.0"), "0000:18:00.0 on esx, which is no GPU but ConnectX-5"),
        ({"mode": "dynamic", "label": "huge"}, "the hardware label huge, which esx does not have"),
    ],
)
def test_device_not_there(gpus: dict[str, t.Any], expected: str) -> None:
    server = host(
        "esx", gpu(SLOTS[0]), gpu(SLOTS[1]), gpu("0000:18:00.0", "15b3:1017", class_id=0x0200, name="ConnectX-5")
    )
    problem = problems(plan([want("a", gpus)], [vm("a")], server)["a"])["device_not_found"]
    assert expected in problem.msg
    assert problem.kind == "input"


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        ({"passthrough_enabled": True, "passthrough_active": False}, "active after the next reboot"),
        ({"passthrough_enabled": False, "passthrough_active": False}, "not enabled for passthrough"),
        ({"passthrough_enabled": False, "passthrough_active": False, "passthrough_capable": False}, "not capable"),
    ],
)
def test_passthrough_must_be_active(state: dict[str, bool], expected: str) -> None:
    planned = plan([want("a", by_id())], [vm("a")], host("esx", gpu(SLOTS[0], **state)))["a"]
    problem = problems(planned)["passthrough_not_active"]
    assert expected in problem.msg
    assert "esxi_passthrough" in problem.msg
    assert problem.kind == "state"


def test_bios_is_a_problem_or_is_changed_over() -> None:
    bios = vm("a", firmware="bios")
    problem = problems(plan([want("a", by_id())], [bios])["a"])["firmware_bios"]
    assert "firmware: efi" in problem.msg
    planned = plan([want("a", by_id())], [bios], firmware="efi")["a"]
    assert edit(planned).settings.firmware_efi
    for_this_one = {**want("a", by_id()), "firmware": "efi"}
    assert edit(plan([for_this_one], [bios])["a"]).settings.firmware_efi
    small = host("esx", gpu(SLOTS[0], T4))
    planned = plan([want("a", by_id(T4))], [vm("a", firmware="bios", extra_config={})], small)["a"]
    assert planned.plan.problems == ()
    assert edit(planned).settings == Settings()


@pytest.mark.parametrize(
    ("version", "gpus", "code"),
    [
        (16, [any_of()], "hardware_version"),
        (17, [any_of()], None),
        (13, [by_id()], None),
        (19, [by_id(count=17)], "too_many_devices"),
        (20, [by_id(count=17)], None),
    ],
)
def test_hardware_version(version: int, gpus: list[dict[str, t.Any]], code: str | None) -> None:
    big = host("esx", *(gpu(f"0000:{bus:02x}:00.0") for bus in range(0x10, 0x10 + 17)))
    planned = plan([want("a", *gpus)], [vm("a", hardware_version=version)], big)["a"]
    assert list(problems(planned)) == ([code] if code else [])


def test_unknown_board_needs_its_bars() -> None:
    server = host("esx", gpu(SLOTS[0], "10de:ffff"))
    problem = problems(plan([want("a", by_id("10de:ffff"))], [vm("a")], server)["a"])["unknown_gpu"]
    assert problem.option == "bar_overrides"
    told = Catalog({"10de:ffff": {"bar1_gb": 1024}})
    planned = plan([want("a", by_id("10de:ffff"))], [vm("a")], server, catalog=told)["a"]
    assert edit(planned).settings.extra_config == {"pciPassthru.64bitMMIOSizeGB": "2048"}


@pytest.mark.parametrize(
    ("machines", "hosts", "wanted", "code", "expected"),
    [
        ([vm("gpu-vm-01")], (), want("gpu-vm-1"), "vm_not_found", "Did you mean gpu-vm-01?"),
        ([vm("a", template=True)], (), want("a"), "is_template", ""),
        ([vm("a", host=None)], (), want("a"), "no_host", ""),
        ([vm("a")], (), want("a", host="esx-2"), "vm_on_other_host", "is on esx, not on esx-2"),
        (
            [vm("a")],
            (host("esx", connection="notResponding"),),
            want("a", by_id()),
            "host_not_connected",
            "not responding",
        ),
    ],
)
def test_machine_or_host_stands_in_the_way(
    machines: list[VmFacts], hosts: tuple[HostFacts, ...], wanted: dict[str, t.Any], code: str, expected: str
) -> None:
    planned = plan([wanted], machines, *hosts)[wanted["name"]]
    assert list(problems(planned)) == [code]
    assert expected in problems(planned)[code].msg


def test_a_machine_takes_over_after_the_one_that_gives_up() -> None:
    planned = plan([want("b", at(SLOTS[0])), want("a", at(SLOTS[1]))], [vm("a", fixed(SLOTS[0])), vm("b")])
    edits = {name: edit(item) for name, item in planned.items()}
    assert edits["b"].after == {"a"}
    assert waves(edits) == [["a"], ["b"]]


def test_a_swap_comes_in_one_wave() -> None:
    planned = plan(
        [want("a", at(SLOTS[1])), want("b", at(SLOTS[0]))], [vm("a", fixed(SLOTS[0])), vm("b", fixed(SLOTS[1]))]
    )
    assert waves({name: edit(item) for name, item in planned.items()}) == [["a", "b"]]


def test_nobody_takes_what_a_stuck_machine_still_has() -> None:
    planned = plan(
        [want("a", at(SLOTS[1])), want("b", at(SLOTS[0]))], [vm("a", fixed(SLOTS[0]), firmware="bios"), vm("b")]
    )
    assert list(problems(planned["a"])) == ["firmware_bios"]
    problem = problems(planned["b"])["gpu_conflict"]
    assert "waits for a GPU that a still has" in problem.msg
    assert planned["b"].edit is None


def test_mistakes_of_one_machine_do_not_stop_the_others() -> None:
    planned = plan([want("a", by_id("V100")), want("b", by_id())], [vm("a"), vm("b")])
    assert list(problems(planned["a"])) == ["invalid_gpu"]
    assert addresses(planned["b"]) == [SLOTS[0]]


def change(power: str, policy: PowerPolicy, intent: Intent | None = None) -> GpuPlan:
    facts = vm("a", power=power, intent=intent)
    inventory = Inventory({"a": facts}, {"esx": host("esx", gpu(SLOTS[0]))})
    want = {"a": VmWant("a", (GpuWant("fixed", 1, address=SLOTS[0]),))}
    return plan_gpus(want, {}, inventory, catalog=Catalog(), power=policy)["a"]


@pytest.mark.parametrize(
    ("power", "policy", "action", "code"),
    [
        ("poweredOn", "never", None, "vm_powered_on"),
        ("poweredOn", "allow", None, None),
        ("poweredOn", "force", "reconfigure", None),
        ("poweredOn", "allow", "maintenance", "vm_in_other_hands"),
        ("suspended", "force", None, "vm_not_powered_off"),
        ("poweredOff", "never", None, None),
        ("poweredOff", "never", "maintenance", None),
    ],
)
def test_what_may_be_powered_off(power: str, policy: PowerPolicy, action: str | None, code: str | None) -> None:
    planned = change(power, policy, Intent("run", action, "2026-01-01T00:00:00.000000Z") if action else None)
    assert [problem.code for problem in planned.plan.problems] == ([code] if code else [])
    assert planned.power_off == (power == "poweredOn" and code is None)


def test_what_an_interrupted_run_powered_off_is_powered_on_again() -> None:
    mine = Intent("run", ACTION, "2026-01-01T00:00:00.000000Z")
    planned = change("poweredOff", "never", mine)
    assert planned.edit is not None
    assert (planned.power_off, planned.power_on, planned.clear) == (False, True, True)
    assert str(planned.plan.changes[-1]) == "power on (an interrupted run had powered it off)"
    done = vm("a", fixed(SLOTS[0]), intent=mine)
    fits = plan_gpus(
        {"a": VmWant("a", (GpuWant("fixed", 1, address=SLOTS[0]),))},
        {},
        Inventory({"a": done}, {"esx": host("esx", gpu(SLOTS[0]))}),
        catalog=Catalog(),
    )["a"]
    assert (fits.edit, fits.power_on, fits.clear) == (None, True, True)
    assert fits.predicted is not None
    assert (fits.predicted.power, fits.predicted.intent) == ("poweredOn", None)
