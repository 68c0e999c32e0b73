# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What holds for every plan, whatever is there and whatever is asked for."""

from __future__ import annotations

import collections
import dataclasses
import typing as t

from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.attach import (
    GpuPlan,
    Inventory,
    PowerPolicy,
    VmEdit,
    plan_gpus,
    waves,
)
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.catalog import Catalog
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.facts import GpuAttachment, HostFacts, VmFacts
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.wants import GpuWant, VmWant
from gpu_builders import P100, SLOTS, V100, dynamic, fixed, gpu, host, vm
from hypothesis import given, settings
from hypothesis import strategies as st

NAMES = ["a", "b", "c", "d", "e"]


@dataclasses.dataclass(frozen=True)
class Case:
    host: HostFacts
    vms: dict[str, VmFacts]
    wants: dict[str, VmWant]


@st.composite
def cases(draw: st.DrawFn) -> Case:
    count = draw(st.integers(1, 5))
    devices = [
        gpu(slot, draw(st.sampled_from([V100, P100])), active=draw(st.integers(0, 9)) > 0) for slot in SLOTS[:count]
    ]
    ids = {device.address: device.id for device in devices}
    free = list(ids)
    vms = {}
    for name in NAMES[: draw(st.integers(1, 5))]:
        power = draw(st.sampled_from(["poweredOff", "poweredOff", "poweredOn"]))
        attachments: list[GpuAttachment] = []
        for _ in range(draw(st.integers(0, 2))):
            if free and draw(st.booleans()):
                address = free.pop(draw(st.integers(0, len(free) - 1)))
                attachments.append(fixed(address, ids[address], key=13000 + len(attachments)))
            elif draw(st.booleans()):
                device_id = draw(st.sampled_from([V100, P100]))
                fitting = [item for item in free if ids[item] == device_id]
                assigned = fitting[0] if power == "poweredOn" and fitting else None
                if assigned:
                    free.remove(assigned)
                attachments.append(dynamic(device_id, key=13000 + len(attachments), assigned=assigned))
        vms[name] = vm(name, *attachments, power=power, firmware=draw(st.sampled_from(["efi", "efi", "efi", "bios"])))
    wants = {}
    for name in vms:
        if draw(st.integers(0, 3)):
            wants[name] = VmWant(name, tuple(draw(st.lists(gpu_wants(), max_size=2, unique_by=_address_or_self))))
    return Case(host("esx", *devices), vms, wants)


def _address_or_self(want: GpuWant) -> object:
    return want.address or want


@st.composite
def gpu_wants(draw: st.DrawFn) -> GpuWant:
    kind = draw(st.sampled_from(["id", "address", "any", "dynamic"]))
    count = draw(st.sampled_from([1, 1, 2, None]))
    if kind == "address":
        return GpuWant("fixed", 1, address=draw(st.sampled_from(SLOTS[:5])))
    if kind == "any":
        return GpuWant("fixed", count)
    device_id = draw(st.sampled_from([V100, P100]))
    return GpuWant("dynamic" if kind == "dynamic" else "fixed", count, id=device_id)


def plan(case: Case, vms: dict[str, VmFacts], power: PowerPolicy = "never") -> dict[str, GpuPlan]:
    inventory = Inventory(vms, {case.host.name: case.host})
    return plan_gpus(case.wants, {}, inventory, catalog=Catalog(), power=power)


def held(vms: t.Iterable[VmFacts]) -> dict[str, set[str]]:
    found = collections.defaultdict(set)
    for machine in vms:
        for item in machine.gpus:
            if item.address:
                found[item.address].add(machine.name)
    return found


def after(case: Case, plans: dict[str, GpuPlan], failing: t.Container[str] = ()) -> dict[str, VmFacts]:
    """The virtual machines after the reconfigures, in their waves, where those of `failing` fail."""
    edits: dict[str, VmEdit] = {name: item.edit for name, item in plans.items() if item.edit is not None}
    vms = dict(case.vms)
    failed: set[str] = set()
    for wave in waves(edits):
        for name in wave:
            if name in failing or edits[name].after & failed:
                failed.add(name)
            else:
                predicted = plans[name].predicted
                assert predicted is not None
                vms[name] = predicted
    return vms


@settings(max_examples=200, deadline=None)
@given(cases())
def test_no_device_is_ever_attached_twice(case: Case) -> None:
    plans = plan(case, case.vms)
    assert all(len(names) == 1 for names in held(after(case, plans).values()).values())


@settings(max_examples=200, deadline=None)
@given(cases())
def test_applied_and_planned_again_is_empty(case: Case) -> None:
    plans = plan(case, case.vms)
    again = plan(case, after(case, plans))
    for name, item in plans.items():
        if not item.plan.failed:
            assert (name, again[name].plan.changes, again[name].plan.problems) == (name, (), ())


@settings(max_examples=200, deadline=None)
@given(cases())
def test_each_machine_gets_exactly_what_it_asks_for(case: Case) -> None:
    ids = {device.address: device.id for device in case.host.devices}
    for name, item in plan(case, case.vms).items():
        if item.plan.failed or item.predicted is None:
            continue
        wants = case.wants[name].gpus
        got = [entry for entry in item.predicted.gpus if entry.mode == "fixed"]
        asked = sum(
            entry.count if entry.count is not None else sum(entry.id in (None, found) for found in ids.values())
            for entry in wants
            if entry.mode == "fixed"
        )
        assert len(got) == len({entry.address for entry in got}) == asked
        assert {entry.address for entry in wants if entry.address} <= {entry.address for entry in got}
        assert all(ids[entry.address or ""] == entry.ids[0] for entry in got)


@settings(max_examples=200, deadline=None)
@given(cases())
def test_machines_that_are_not_powered_off_are_not_changed(case: Case) -> None:
    for name, item in plan(case, case.vms).items():
        assert case.vms[name].power == "poweredOff" or item.edit is None


@settings(max_examples=200, deadline=None)
@given(cases(), st.sets(st.sampled_from(NAMES)))
def test_failures_while_applying_attach_nothing_twice(case: Case, failing: set[str]) -> None:
    plans = plan(case, case.vms)
    edits = {name: item.edit for name, item in plans.items() if item.edit is not None}
    if any(edits[name].after & set(wave) for wave in waves(edits) for name in wave):
        return  # a swap goes in one wave, and a second run mends what failed of it
    assert all(len(names) == 1 for names in held(after(case, plans, failing).values()).values())


@settings(max_examples=200, deadline=None)
@given(cases())
def test_where_it_is_allowed_only_machines_that_must_change_are_powered_off(case: Case) -> None:
    never, allowed = plan(case, case.vms), plan(case, case.vms, "allow")
    for name, item in allowed.items():
        running = case.vms[name].power == "poweredOn"
        assert item.power_off == item.power_on == (running and item.edit is not None)
        assert item.predicted is None or item.predicted.power == case.vms[name].power
        if running and not never[name].plan.failed:
            assert item.plan.changes == never[name].plan.changes == ()
    later = after(case, allowed)
    assert all(len(names) == 1 for names in held(later.values()).values())
    again = plan(case, later, "allow")
    for name, item in allowed.items():
        if not item.plan.failed:
            assert (name, again[name].plan.changes, again[name].plan.problems) == (name, (), ())
