# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

import dataclasses
import itertools

import pytest
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu import mmio, vgpu_wants
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.catalog import Catalog
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.facts import GraphicsDevice, HostFacts
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.host_gpus import HostGpus
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.profiles import Choice, Needs, choose
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.vgpu import (
    Gpu,
    Profile,
    parse_profile,
    place,
    plain,
    predict,
    running,
)
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.wants import GpuWant
from gpu_builders import A100, SLOTS, T4, gpu, host, vgpu, vm
from hypothesis import given, settings
from hypothesis import strategies as st

CATALOG = Catalog()


def named(name: str) -> Profile:
    profile = parse_profile(name)
    assert profile is not None
    return profile


def offering(*boards: str, **more: object) -> HostFacts:
    """A host that offers every profile of these boards."""
    names = tuple(
        f"nvidia_{board}-{size}{series}"
        for board in boards
        for series in "cq"
        for size, _most in CATALOG.of_board(board).vgpu.equal  # type: ignore[union-attr]
    )
    return host("esx", vgpu_types=names, vgpu_migrate=names, vgpu_suspend=names, **more)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("nvidia_a100-10c", ("a100", 10, "c", None)),
        ("grid_T4-16q", ("t4", 16, "q", None)),
        ("A100D-80C", ("a100d", 80, "c", None)),
        ("nvidia_a100-1-5c", ("a100", 5, "c", 1)),
        ("nvidia_a100-1-5cme", ("a100", 5, "c", 1)),
    ],
)
def test_names_are_understood(name: str, expected: tuple[object, ...]) -> None:
    profile = named(name)
    assert (profile.board, profile.size_gb, profile.series, profile.slices) == expected


@pytest.mark.parametrize("name", ["", "a100", "half a GPU", "nvidia_a100-c"])
def test_what_is_no_profile(name: str) -> None:
    assert parse_profile(name) is None


def test_one_profile_has_several_names() -> None:
    assert plain("grid_A100-10C") == plain("nvidia_a100-10c") == plain("a100-10c")


@pytest.mark.parametrize(
    ("needs", "expected"),
    [
        (Needs(at_least_gb=10, at_most_gpu=0.5, migrate=True), "nvidia_a100-10c"),
        (Needs(at_least_gb=11), "nvidia_a40-12c"),
        (Needs(at_most_gpu=0.25), "nvidia_a40-4c"),
        (Needs(at_least_gb=5, profile_class="workstation"), "nvidia_a100-5q"),
        (Needs(at_least_gb=41), "nvidia_a40-48c"),
        (Needs(at_least_gb=30, at_most_gpu=0.5), None),
    ],
)
def test_the_smallest_profile_that_will_do(needs: Needs, expected: str | None) -> None:
    assert choose(needs, offering("a100", "a40"), CATALOG).profile == expected


def test_a_profile_that_is_there_and_will_do_is_kept() -> None:
    needs = Needs(at_least_gb=8)
    assert choose(needs, offering("a100"), CATALOG, has=["grid_a100-20c"]).profile == "nvidia_a100-20c"
    assert choose(needs, offering("a100"), CATALOG, has=["grid_a100-4c"]).profile == "nvidia_a100-8c"


def in_modes(*modes: str | None, only: str = "") -> HostFacts:
    """A host with A100s in these modes, whose list has time-sliced and MIG-backed profiles."""
    names = tuple(f"nvidia_a100-{one}c" for one in ("4", "10", "20", "1-5", "2-10", "3-20", "4-20") if only in one)
    devices = [gpu(SLOTS[index], A100, active=False) for index in range(len(modes))]
    graphics = tuple(
        GraphicsDevice(SLOTS[index], "sharedDirect", mode, memory_mb=40960) for index, mode in enumerate(modes)
    )
    return host("esx", *devices, graphics=graphics, vgpu_types=names, vgpu_migrate=names, vgpu_suspend=names)


@pytest.mark.parametrize(
    ("modes", "needs", "expected"),
    [
        (["sameSize"], Needs(at_least_gb=5), "nvidia_a100-10c"),
        (["mixedSize", "none"], Needs(at_least_gb=5), "nvidia_a100-10c"),
        ([None], Needs(at_least_gb=5), "nvidia_a100-10c"),
        (["multiInstanceGpu"], Needs(at_most_gpu=0.5), "nvidia_a100-1-5c"),
        (["multiInstanceGpu"], Needs(at_least_gb=6), "nvidia_a100-2-10c"),
        # Four of seven slices are more than half a GPU, though they have half of its memory.
        (["multiInstanceGpu"], Needs(at_least_gb=20, at_most_gpu=0.5), "nvidia_a100-3-20c"),
        (["multiInstanceGpu", "sameSize"], Needs(), "nvidia_a100-4c"),
        (["multiInstanceGpu", "sameSize"], Needs(at_least_gb=5), "nvidia_a100-1-5c"),
    ],
)
def test_a_profile_is_chosen_that_the_modes_of_the_gpus_take(
    modes: list[str | None], needs: Needs, expected: str
) -> None:
    assert choose(needs, in_modes(*modes), CATALOG).profile == expected


def test_the_share_of_a_mig_profile_counts_its_slices() -> None:
    four = choose(Needs(at_least_gb=20, at_most_gpu=0.5), in_modes("multiInstanceGpu", only="4-20"), CATALOG)
    assert four.profile is None
    assert "nvidia_a100-4-20c (20 GB, 0.571 of a GPU) without at_most_gpu" in four.reason


@pytest.mark.parametrize(
    ("modes", "mig", "said", "to_do"),
    [
        (["sameSize", "none"], True, "is MIG-backed, and no a100 of esx is in MIG mode", "Turn MIG on"),
        (["multiInstanceGpu"] * 2, False, "is time-sliced, and every a100 of esx is in MIG mode", "Turn MIG off"),
    ],
)
def test_where_the_mode_rules_all_out_that_is_said(modes: list[str], mig: bool, said: str, to_do: str) -> None:
    facts = in_modes(*modes)
    names = tuple(name for name in facts.vgpu_types if (named(name).slices is not None) == mig)
    facts = dataclasses.replace(facts, vgpu_types=names)
    choice = choose(Needs(at_least_gb=10), facts, CATALOG)
    assert (choice.profile, choice.wrong_mode) == (None, True)
    assert said in choice.reason
    assert to_do in choice.reason
    assert "esxi_graphics_mig" in choice.reason
    # A need that nothing meets in any mode is not for the mode to blame.
    assert not choose(Needs(at_least_gb=90), facts, CATALOG).wrong_mode
    here = HostGpus(facts, CATALOG)
    off = vm("vm-1")
    (problem,) = vgpu_wants.resolve(off, [GpuWant("vgpu", 1, needs=Needs(at_least_gb=10))], here).problems
    assert (problem.code, problem.kind) == ("wrong_gpu_mode", "state")
    asked = vm("vm-1", vgpu(names[0]))
    (short,) = vgpu_wants.shortages(here, {"vm-1": asked}, [asked], {"vm-1"}).values()
    assert (short.code, short.kind) == ("wrong_gpu_mode", "state")
    assert said in short.msg


def test_a_refusal_says_what_could_be_had() -> None:
    still = dataclasses.replace(offering("a100"), vgpu_migrate=())
    choice = choose(Needs(at_least_gb=20, at_most_gpu=0.5, migrate=True), still, CATALOG)
    assert choice.profile is None
    assert "No vGPU profile of esx has compute class, at least 20 GB, at most 0.5 of a GPU, vMotion." in choice.reason
    assert "To be had: nvidia_a100-20c (20 GB, 0.5 of a GPU) without migrate." in choice.reason
    assert choose(Needs(), host("esx"), CATALOG) == Choice(None, "esx offers no vGPU profile now.")


@settings(max_examples=150, deadline=None)
@given(
    st.floats(0.5, 150) | st.none(),
    st.floats(0.01, 1) | st.none(),
    st.sets(st.sampled_from(["a100", "a40", "t4", "h200"]), min_size=1),
)
def test_a_choice_meets_the_needs_and_nothing_smaller_does(
    least: float | None, most: float | None, boards: set[str]
) -> None:
    offers = offering(*sorted(boards))

    def meets(name: str) -> bool:
        profile = named(name)
        whole = CATALOG.of_board(profile.board).framebuffer_gb or 0  # type: ignore[union-attr]
        small = most is None or profile.size_gb / whole <= most
        return profile.series == "c" and profile.size_gb >= (least or 0) and small

    chosen = choose(Needs(least, most), offers, CATALOG).profile
    fitting = [named(name).size_gb for name in offers.vgpu_types if meets(name)]
    assert (chosen is None) == (not fitting)
    assert chosen is None or (meets(chosen) and named(chosen).size_gb == min(fitting))


def a100(address: str, mode: str = "sameSize") -> Gpu:
    model = CATALOG.of_board("a100")
    return Gpu(address, "a100", 40, model, mode)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from([4, 5, 8, 10, 20, 40]), st.sampled_from("ccq")), max_size=12),
    st.sampled_from(["sameSize", "mixedSize"]),
    st.sampled_from(["performance", "consolidation"]),
)
def test_no_prediction_breaks_a_rule_of_placement(wants: list[tuple[int, str]], mode: str, policy: str) -> None:
    gpus = {address: a100(address, mode) for address in SLOTS[:2]}
    demands = {f"vm-{n}": (named(f"nvidia_a100-{size}{series}"),) for n, (size, series) in enumerate(wants)}
    result = predict(gpus, demands, policy)
    assert {*result.order, *result.missing} == set(demands)
    for name in result.order:
        (address,) = result.addresses[name]
        found = place(gpus, demands[name][0], policy)
        assert found is not None
        assert found[0] == address
        gpus[address] = gpus[address].with_vgpu(demands[name][0], found[1])
    for one in gpus.values():
        spans = sorted((slot.start_gb, slot.start_gb + slot.profile.size_gb) for slot in one.slots)
        assert all(end <= start for (_, end), (start, _) in itertools.pairwise(spans))
        assert len({slot.profile.series for slot in one.slots}) <= 1
        assert mode == "mixedSize" or len({slot.profile.size_gb for slot in one.slots}) <= 1
        assert one.used_gb <= 40


@settings(max_examples=100, deadline=None)
@given(st.lists(st.sampled_from(["1-5", "2-10", "3-20", "4-20", "7-40"]), max_size=10))
def test_a_gpu_in_mig_mode_takes_seven_slices_and_its_framebuffer(wants: list[str]) -> None:
    one = a100(SLOTS[0], "multiInstanceGpu")
    for want in wants:
        profile = named(f"nvidia_a100-{want}c")
        slices = sum(slot.profile.slices or 0 for slot in one.slots)
        room = slices + (profile.slices or 0) <= 7 and one.used_gb + profile.size_gb <= 40
        found = place({SLOTS[0]: one}, profile, "performance")
        assert (found is not None) is room
        if found is not None:
            one = one.with_vgpu(profile, found[1])


def test_mig_backed_and_time_sliced_vgpus_share_no_gpu() -> None:
    backed, sliced = named("nvidia_a100-1-5c"), named("nvidia_a100-5c")
    gpus = {SLOTS[0]: a100(SLOTS[0]), SLOTS[1]: a100(SLOTS[1], "multiInstanceGpu")}
    assert place(gpus, backed, "performance") == (SLOTS[1], 0)
    assert place(gpus, sliced, "performance") == (SLOTS[0], 0)
    assert place({SLOTS[0]: gpus[SLOTS[0]]}, backed, "performance") is None
    assert place({SLOTS[1]: gpus[SLOTS[1]]}, sliced, "performance") is None


def test_the_policy_of_the_host_decides() -> None:
    profile = named("nvidia_a100-10c")
    gpus = {address: a100(address) for address in SLOTS[:2]}
    gpus[SLOTS[1]] = gpus[SLOTS[1]].with_vgpu(profile, 0)
    assert place(gpus, profile, "performance") == (SLOTS[0], 0)
    assert place(gpus, profile, "consolidation") == (SLOTS[1], 10)
    # A whole GPU first leaves room for both; the small one first would spread over both GPUs.
    demands = {
        "a": (profile,),
        "b": (profile,),
        "c": (named("nvidia_a100-40c"),),
    }
    assert predict({address: a100(address) for address in SLOTS[:2]}, demands, "performance").missing == ()


def test_what_runs_takes_room() -> None:
    graphics = (GraphicsDevice(SLOTS[0], "sharedDirect", "sameSize", 40960, ("vm-a",)),)
    facts = host("esx", gpu(SLOTS[0], A100), gpu(SLOTS[1], T4), graphics=graphics)
    machines = [
        vm("a", vgpu("nvidia_a100-20c"), power="poweredOn"),
        vm("b", vgpu("nvidia_a100-20c")),
        vm("c", vgpu("nvidia_a100-20c"), power="poweredOn", host="other"),
    ]
    gpus = running(facts, machines, CATALOG)
    assert {address: one.used_gb for address, one in gpus.items()} == {SLOTS[0]: 20}
    assert predict(gpus, {"b": (named("nvidia_a100-40c"),)}, "performance").missing == ("b",)


@pytest.mark.parametrize(
    ("boards", "memory_mb", "expected"),
    [
        ([], 65536, 0),
        (["a100"], 16384, 64),
        (["a100"], 32768, 128),
        (["a100", "a100"], 65536, 256),
        (["a100d"], 65536, 256),
        (["t4"], 65536, 64),
        ([None], 65536, 64),
    ],
)
def test_mmio_of_vgpus(boards: list[str | None], memory_mb: int, expected: int) -> None:
    models = [CATALOG.of_board(board) if board else None for board in boards]
    assert mmio.mmio_size_gb([], mmio.vgpu_size_gb(models, memory_mb)) == expected
