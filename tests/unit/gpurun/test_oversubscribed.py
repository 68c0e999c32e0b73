"""The check of the scenario gpu_pool_client itself: it must catch a GPU that had more than it has."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

PATH = Path(__file__).resolve().parents[3] / "extensions" / "molecule" / "gpu_pool_client" / "oversubscribed.py"


@pytest.fixture(scope="module")
def check() -> Any:
    spec = importlib.util.spec_from_file_location("oversubscribed", PATH)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("jobs", "found"),
    [
        ([(50, 0, 10), (50, 0, 10)], 0),
        ([(50, 0, 10), (50, 2, 10), (50, 9, 12)], 1),
        ([(100, 0, 10), (10, 5, 6)], 1),
        ([(10, 5, 20), (100, 6, 7)], 1),
        ([(100, 0, 10), (100, 10, 20)], 0),
        ([(60, 0, 10), (60, 10, 10), (40, 9, 11)], 0),
        ([(100, 0, 5), (100, 4, 6), (100, 5, 7)], 2),
    ],
)
def test_more_than_the_whole_of_a_gpu_is_found(check: Any, jobs: list[tuple[int, int, int]], found: int) -> None:
    uses = [check.Use(number, "s/0", part, start, end) for number, (part, start, end) in enumerate(jobs)]
    assert len(check.oversubscribed(uses)) == found


def test_other_gpus_do_not_count(check: Any) -> None:
    assert check.oversubscribed([check.Use(1, "s/0", 100, 0, 9), check.Use(2, "s/1", 100, 0, 9)]) == []


SACCT = """\
4|pool-01|1000|1003|billing=50,cpu=1,gres/shard=5
5|pool-01|1001|1002|billing=100,cpu=1,gres/gpu=1
"""


def test_accounting_and_what_the_jobs_told_are_joined(check: Any) -> None:
    told = {4: {"gpus": [0], "start": 1000.5, "end": 1001.1}, 5: {"gpus": [0], "start": 1001.2, "end": 1001.9}}
    uses, problems = check.uses(SACCT, told)
    assert problems == []
    # By whole seconds they overlap; the jobs' own times tell that they did not.
    assert len(check.oversubscribed(uses)) == 1
    assert check.oversubscribed(check.exact(uses, told)) == []
    told[5]["start"] = 1001.0
    assert check.oversubscribed(check.exact(uses, told)) == ["pool-01/0 at 1001.000: job 4 50 %, job 5 100 %"]


def test_a_job_that_told_nothing_and_one_that_accounting_does_not_know_are_found(check: Any) -> None:
    _uses, problems = check.uses(SACCT, {4: {"gpus": [0]}, 9: {"gpus": [0]}})
    assert len(problems) == 2
    assert "job 5" in problems[0]
    assert "job 9" in problems[1]


@given(st.lists(st.tuples(st.integers(1, 100), st.integers(0, 30), st.integers(1, 10)), max_size=12))
def test_the_sweep_agrees_with_a_look_at_every_moment(check: Any, jobs: list[tuple[int, int, int]]) -> None:
    uses = [check.Use(number, "s/0", part, start, start + long) for number, (part, start, long) in enumerate(jobs)]
    full = any(sum(use.hundredths for use in uses if use.start <= at < use.end) > 100 for at in range(50))
    assert bool(check.oversubscribed(uses)) is full
