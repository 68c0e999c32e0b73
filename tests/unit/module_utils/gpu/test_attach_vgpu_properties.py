# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What holds for every plan of vGPUs, whatever runs on the host and whatever is asked for."""

from __future__ import annotations

import collections
import dataclasses
import math

from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.attach import (
    GpuPlan,
    Inventory,
    PowerPolicy,
    plan_gpus,
)
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.catalog import Catalog
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.facts import GraphicsDevice, HostFacts, VmFacts
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.profiles import Needs
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.wants import GpuWant, VmWant
from gpu_builders import A100, SLOTS, gpu, host, vgpu, vm
from hypothesis import given, settings
from hypothesis import strategies as st

SIZES = (4, 5, 8, 10, 20, 40)
WHOLE_GB = 40
NAMES = ["a", "b", "c", "d", "e"]
CATALOG = Catalog()


def profile(size: int) -> str:
    return f"nvidia_a100-{size}c"


def size_of(name: str | None) -> int:
    return int(str(name).rpartition("-")[2].removesuffix("c"))


@dataclasses.dataclass(frozen=True)
class Case:
    host: HostFacts
    vms: dict[str, VmFacts]
    wants: dict[str, VmWant]


@st.composite
def gpu_wants(draw: st.DrawFn) -> GpuWant:
    count = draw(st.sampled_from([1, 1, 1, 2]))
    if draw(st.booleans()):
        return GpuWant("vgpu", count, profile=profile(draw(st.sampled_from(SIZES))))
    return GpuWant("vgpu", count, needs=Needs(at_least_gb=draw(st.sampled_from([3, 7, 10, 21]))))


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Up to three A100 that take vGPUs of one size each; machines that run on them, and machines that are off."""
    addresses = SLOTS[: draw(st.integers(1, 3))]
    free = dict.fromkeys(addresses, WHOLE_GB)
    sizes: dict[str, int] = {}
    on: dict[str, list[str]] = {address: [] for address in addresses}
    vms = {}
    for name in NAMES[: draw(st.integers(1, 5))]:
        size = draw(st.sampled_from(SIZES) | st.none())
        room = [one for one in addresses if size and free[one] >= size and sizes.get(one, size) == size]
        runs = bool(room) and draw(st.booleans())
        if runs and size:
            address = draw(st.sampled_from(room))
            free[address] -= size
            sizes[address] = size
            on[address].append(f"vm-{name}")
        held = (vgpu(profile(size)),) if size else ()
        vms[name] = vm(name, *held, power="poweredOn" if runs else "poweredOff")
    graphics = tuple(
        GraphicsDevice(address, "sharedDirect", "sameSize", WHOLE_GB * 1024, tuple(on[address]))
        for address in addresses
    )
    types = tuple(profile(size) for size in SIZES)
    facts = host(
        "esx",
        *(gpu(address, A100, active=False) for address in addresses),
        graphics=graphics,
        vgpu_types=types,
        vgpu_migrate=types,
        vgpu_suspend=types,
    )
    asking = draw(st.sets(st.sampled_from(sorted(vms)), min_size=1))
    return Case(facts, vms, {name: VmWant(name, (draw(gpu_wants()),)) for name in sorted(asking)})


def plan(case: Case, vms: dict[str, VmFacts], power: PowerPolicy = "never") -> dict[str, GpuPlan]:
    return plan_gpus(case.wants, {}, Inventory(vms, {case.host.name: case.host}), catalog=CATALOG, power=power)


def after(case: Case, plans: dict[str, GpuPlan]) -> dict[str, VmFacts]:
    changed = {name: item.predicted for name, item in plans.items() if item.predicted is not None}
    return {**case.vms, **changed}


def sizes_in(machine: VmFacts) -> list[int]:
    return [size_of(item.profile) for item in machine.gpus]


@settings(max_examples=200, deadline=None)
@given(cases())
def test_each_machine_gets_exactly_the_vgpus_it_asks_for(case: Case) -> None:
    for name, item in plan(case, case.vms).items():
        if item.plan.failed or item.predicted is None:
            continue
        (want,) = case.wants[name].gpus
        got = sizes_in(item.predicted)
        assert len(got) == want.count
        assert len(set(got)) == 1
        if want.needs is None:
            assert got[0] == size_of(want.profile)
        else:
            assert got[0] >= (want.needs.at_least_gb or 0)


@settings(max_examples=200, deadline=None)
@given(cases())
def test_what_runs_and_what_is_given_has_room_on_the_gpus_of_the_host(case: Case) -> None:
    """A GPU of same size holds one size only, so sizes do not share a GPU."""
    plans = plan(case, case.vms)
    # Others that are off keep what they have, whether or not there is room for it now.
    given_now = {name for name, item in plans.items() if item.edit is not None and item.edit.add}
    later = after(case, plans)
    asked = collections.Counter(
        size
        for name, machine in later.items()
        if machine.power == "poweredOn" or name in given_now
        for size in sizes_in(machine)
    )
    needed = sum(math.ceil(count / (WHOLE_GB // size)) for size, count in asked.items())
    assert needed <= len(case.host.graphics)


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
def test_machines_that_run_are_changed_only_where_that_is_allowed(case: Case) -> None:
    for name, item in plan(case, case.vms).items():
        assert case.vms[name].power == "poweredOff" or item.edit is None
    for name, item in plan(case, case.vms, "allow").items():
        running = case.vms[name].power == "poweredOn"
        assert item.power_off == item.power_on == (running and item.edit is not None)
        assert item.predicted is None or item.predicted.power == case.vms[name].power
