# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Slurm's own queue as jobs of the fleet page."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.fleet_page import inputs, slurm_jobs
from hypothesis import given
from hypothesis import strategies as st

QUEUE = Path(__file__).resolve().parents[3] / "gpurun" / "data" / "queue.json"
"""Recorded from Slurm 24.11."""


def test_a_recorded_queue() -> None:
    found = inputs.jobs(json.loads(QUEUE.read_text()), 10)
    assert [(job.id, job.user, job.state, job.vms, job.gpus) for job in found[:3]] == [
        ("22", "alice", "running", ("pool-1",), 1),
        ("23", "alice", "running", ("pool-1",), 0.5),
        ("24", "alice", "pending", (), 0.6),
    ]


def test_when_a_job_began_and_whose_it_is() -> None:
    job = {
        "job_id": 7,
        "job_state": "RUNNING",
        "account": "physics",
        "nodes": "gpu-[01-02]",
        "start_time": {"set": True, "infinite": False, "number": 1772625600},
        "tres_alloc_str": "cpu=4,node=2,gres/gpu=2,gres/gpu:a100=2",
    }
    (one,) = inputs.jobs({"jobs": [job]}, 10)
    assert (one.tenant, one.vms, one.gpus, one.since) == ("physics", ("gpu-01", "gpu-02"), 2, "2026-03-04 12:00 UTC")
    (unset,) = inputs.jobs({"jobs": [{**job, "start_time": {"set": False, "number": 9}}]}, 10)
    assert unset.since == ""


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("", []),
        ("a", ["a"]),
        ("a,b-1", ["a", "b-1"]),
        ("gpu-[01-03,7]", ["gpu-01", "gpu-02", "gpu-03", "gpu-7"]),
        ("r[1-2]n[1-2],x", ["r1n1", "r1n2", "r2n1", "r2n2", "x"]),
        ("gpu-[09-10].lab", ["gpu-09.lab", "gpu-10.lab"]),
    ],
)
def test_lists_of_hosts(text: str, names: list[str]) -> None:
    assert slurm_jobs.nodes(text) == names


@given(st.text("abc-[]0123456789,.", max_size=30))
def test_any_text_ends(text: str) -> None:
    assert len(slurm_jobs.nodes(text)) < 400_000


def test_an_empty_queue_and_the_pages_own_shape_stay_what_they_are() -> None:
    assert inputs.jobs({"jobs": [], "meta": {}}) == ()
    assert inputs.jobs({"jobs": [{"id": "1"}]})[0].id == "1"
    with pytest.raises(inputs.ShapeError, match=r"jobs\[0\].id"):
        inputs.jobs({"jobs": [{"job_id": None}]})
