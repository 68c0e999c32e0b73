"""Who used how much of the pool, from what sacct tells."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.gpuops.vsphere.plugins.filter.pool_usage import pool_usage
from ansible_collections.gpuops.vsphere.plugins.module_utils.pool.usage import FIELDS, Run, read_runs, summarise
from hypothesis import given
from hypothesis import strategies as st

TOLD = """\
7|vision|alice|COMPLETED|1000|1010|4610|billing=50,cpu=1,gres/gpu=0,gres/shard=5,mem=100M,node=1
8|vision|bob|CANCELLED by 2001|1000|1000|8200|billing=100,cpu=1,gres/gpu=1,node=1
9|students|carol|NODE_FAIL|1000|1000|2800|billing=100,cpu=1,gres/gpu=1,node=1
9|students|carol|RUNNING|2800|3000|Unknown|billing=100,cpu=1,gres/gpu=1,node=1
10|students|carol|PENDING|3000|Unknown|Unknown|
11|students|carol|CANCELLED|3000|None|3100|
"""


def test_tenants_and_their_people_are_added_up_with_the_most_first() -> None:
    students, vision = summarise(read_runs(TOLD), 0, 10200)
    assert (vision["tenant"], vision["gpu_hours"], vision["jobs"], vision["cancelled"]) == ("vision", 2.5, 2, 1)
    assert [(person["user"], person["gpu_hours"]) for person in vision["users"]] == [("bob", 2.0), ("alice", 0.5)]
    assert vision["waited_s"] == 5
    # Half an hour before its server failed, two hours until now; the ones that never started used nothing.
    assert (students["gpu_hours"], students["jobs"], students["requeued"]) == (2.5, 1, 1)


def test_only_the_time_asked_for_counts() -> None:
    assert {tenant["tenant"]: tenant["gpu_hours"] for tenant in summarise(read_runs(TOLD), 1010, 2810)} == {
        "vision": 0.75,
        "students": 0.5,
    }


def test_the_table_has_a_line_for_each_and_says_what_part_of_all_it_was() -> None:
    lines = pool_usage(TOLD, 0, 10200, "GPU pool, November")["table"].splitlines()
    assert lines[0] == "GPU pool, November"
    assert lines[1].split() == [
        "tenant",
        "user",
        "GPU",
        "hours",
        "part",
        "jobs",
        "failed",
        "cancelled",
        "requeued",
        "waited",
    ]
    # Both used as much, so their names decide.
    assert [line.split()[0] for line in lines[2:]] == ["students", "carol", "vision", "bob", "alice"]
    assert lines[4].split() == ["vision", "2.50", "50%", "2", "0", "1", "0", "0:05"]


def test_a_pool_that_nobody_used_says_so() -> None:
    assert pool_usage("", 0, 1)["table"].endswith("nobody used the pool")


def test_a_line_of_another_form_is_named() -> None:
    with pytest.raises(AnsibleFilterError, match=r"'sacct: error'.*JobIDRaw"):
        pool_usage("sacct: error", 0, 1)


def test_the_playbook_asks_for_these_fields() -> None:
    playbook = Path(__file__).resolve().parents[4] / "playbooks" / "pool_usage.yml"
    assert f"--format={','.join(FIELDS)}\n" in playbook.read_text(encoding="utf-8")


@given(
    st.lists(st.tuples(st.integers(0, 1000), st.integers(0, 1000), st.integers(0, 400)), max_size=20),
    st.integers(0, 2000),
)
def test_two_parts_of_a_time_add_up_to_all_of_it(jobs: list[tuple[int, int, int]], cut: int) -> None:
    runs = [
        Run(number, "a", "u", "COMPLETED", start, start, start + length, {"billing": str(100 * part)})
        for number, (start, length, part) in enumerate(jobs)
    ]

    def hours(start: int, end: int) -> float:
        return sum(float(tenant["gpu_hours"]) for tenant in summarise(runs, start, end))

    assert hours(0, cut) + hours(cut, 2000) == pytest.approx(hours(0, 2000), abs=0.02)
