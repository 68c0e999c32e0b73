"""Where vGPUs fit: NVIDIA's tables, and what must hold for any order of arrival."""

from __future__ import annotations

import dataclasses
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vsphere_simulator.world.catalog import CATALOG
from vsphere_simulator.world.vgpu import Occupancy, all_profiles, place, profiles_of, start_for

BOARDS = sorted(CATALOG.by_board)
MIXED = sorted(board for board, gpu in CATALOG.by_board.items() if gpu.mixed)


def fill(board: str, size: int, *, mixed: bool) -> int:
    """How many vGPUs of one size a GPU takes."""
    gpu = Occupancy("0000:3b:00.0", CATALOG.by_board[board], mixed)
    profile = next(p for p in profiles_of(board) if p.size_gb == size and p.series == "c")
    while (placed := place([gpu], profile, "performance")) is not None:
        gpu = dataclasses.replace(gpu, slots=(*gpu.slots, placed[1]))
    return len(gpu.slots)


@pytest.mark.parametrize("board", BOARDS)
def test_a_gpu_takes_as_many_of_one_size_as_the_table_says(board: str) -> None:
    gpu = CATALOG.by_board[board]
    assert {size: fill(board, size, mixed=False) for size in gpu.equal} == gpu.equal


@pytest.mark.parametrize("board", MIXED)
def test_mixed_size_mode_has_its_own_counts(board: str) -> None:
    gpu = CATALOG.by_board[board]
    assert {size: fill(board, size, mixed=True) for size in gpu.mixed} == gpu.mixed


def test_sizes_mix_at_their_placement_ids() -> None:
    gpu = Occupancy("0000:3b:00.0", CATALOG.by_board["a100"], mixed_size=True)
    starts = []
    for size in (20, 10, 5, 4, 4):
        profile = all_profiles()[f"nvidia_a100-{size}c"]
        start = start_for(gpu, profile)
        starts.append(start)
        if start is not None:
            placed = place([gpu], profile, "performance")
            assert placed is not None
            gpu = dataclasses.replace(gpu, slots=(*gpu.slots, placed[1]))
    assert starts == [0, 20, 30, 36, None]


@given(
    st.sampled_from(BOARDS),
    st.booleans(),
    st.lists(st.tuples(st.integers(0, 30), st.sampled_from(["performance", "consolidation"])), max_size=40),
)
def test_vgpus_never_overlap_and_series_never_mix(board: str, mixed: bool, arrivals: list[tuple[int, str]]) -> None:
    kind = CATALOG.by_board[board]
    gpus = {f"0000:{bus:02x}:00.0": Occupancy(f"0000:{bus:02x}:00.0", kind, mixed) for bus in (1, 2)}
    profiles = profiles_of(board)
    for number, policy in arrivals:
        profile = profiles[number % len(profiles)]
        placed = place(gpus.values(), profile, policy)
        if placed is None:
            assert all(start_for(gpu, profile) is None for gpu in gpus.values())
            continue
        address, slot = placed
        gpus[address] = dataclasses.replace(gpus[address], slots=(*gpus[address].slots, slot))
    for gpu in gpus.values():
        spans = sorted((slot.start_gb, slot.start_gb + slot.profile.size_gb) for slot in gpu.slots)
        assert all(one[1] <= other[0] for one, other in itertools.pairwise(spans))
        assert all(end <= kind.framebuffer_gb for _, end in spans)
        assert len({slot.profile.series for slot in gpu.slots}) <= 1
        if not mixed:
            assert len({slot.profile.size_gb for slot in gpu.slots}) <= 1


def test_older_boards_are_called_grid() -> None:
    names = all_profiles()
    assert "grid_v100d-8c" in names
    assert "nvidia_a100-10c" in names
    assert len(names) == sum(2 * len(gpu.equal) for gpu in CATALOG.by_key.values())
