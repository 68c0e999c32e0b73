"""Ranges of subordinate ids."""

from __future__ import annotations

import pytest
from ansible_collections.gpuops.vsphere.plugins.module_utils.container import subids
from ansible_collections.gpuops.vsphere.plugins.module_utils.container.errors import ContainerError
from hypothesis import given
from hypothesis import strategies as st

RANGES = st.builds(
    subids.Range, st.sampled_from(["alice", "bob", "1000"]), st.integers(0, 900_000), st.integers(1, 200_000)
)


def with_users(text: str, *users: tuple[str, str], present: bool = True) -> str:
    return subids.with_ranges(text, "/etc/subuid", users, subids.MINIMUM, present=present)


def test_the_first_range_begins_where_useradd_begins() -> None:
    assert with_users("", ("gpuops", "995")) == "gpuops:100000:65536\n"


def test_a_range_is_put_into_the_first_gap() -> None:
    text = "alice:100000:65536\nbob:300000:65536\n"
    assert with_users(text, ("gpuops", "995")).endswith("gpuops:165536:65536\n")


def test_what_is_large_enough_stays_by_name_or_number() -> None:
    for text in ("gpuops:500000:65536\n", "995:500000:100000\n"):
        assert with_users(text, ("gpuops", "995")) == text


def test_a_small_range_is_left_and_a_large_one_added() -> None:
    assert with_users("gpuops:100000:10", ("gpuops", "")) == "gpuops:100000:10\ngpuops:100010:65536\n"


def test_taking_away_leaves_others_and_comments() -> None:
    text = "# ours\nalice:100000:65536\ngpuops:165536:65536\n995:300000:65536\n"
    assert with_users(text, ("gpuops", "995"), present=False) == "# ours\nalice:100000:65536\n"


@pytest.mark.parametrize("line", ["alice", "alice:1", "alice:one:2", ":1:2"])
def test_a_line_that_is_none_is_named(line: str) -> None:
    with pytest.raises(ContainerError, match="/etc/subuid, line 2"):
        with_users(f"bob:1:1\n{line}\n", ("gpuops", ""))


def test_no_room_is_an_error() -> None:
    with pytest.raises(ContainerError, match="remove old ranges"):
        with_users(f"all:0:{subids.LAST}\n", ("gpuops", ""))


@given(st.lists(RANGES, max_size=8))
def test_a_new_range_overlaps_none(ranges: list[subids.Range]) -> None:
    text = "".join(f"{entry.owner}:{entry.start}:{entry.count}\n" for entry in ranges)
    after = with_users(text, ("gpuops", "995"))
    added = subids.parse(after, "x")[-1]
    assert after.startswith(text)
    assert all(added.end <= entry.start or entry.end <= added.start for entry in ranges)
    assert with_users(after, ("gpuops", "995")) == after
