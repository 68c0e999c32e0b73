# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The guarantee: over a week in which much goes wrong no desktop is late, lost or off, and every job is done once."""

from __future__ import annotations

import json
import os
from pathlib import Path

from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.harvest.report import time_from, to_dict
from simulated import TOP
from week import text, week

KEPT = TOP / ".cache"
SEED = int(os.environ.get("HARVEST_SEED", "1"))


def test_a_week_of_harvesting(tmp_path: Path) -> None:
    outcome = week(SEED, tmp_path)
    KEPT.mkdir(exist_ok=True)
    (KEPT / "harvest-week.txt").write_text(text(outcome) + "\n")
    (KEPT / "harvest-week.json").write_text(json.dumps(to_dict(outcome.report), indent=1) + "\n")

    assert outcome.faults == []
    nights = outcome.report.nights
    for night in nights:
        for late in night.late:
            # Only where there was no capacity, and then it was said hours before.
            assert late.said is not None, f"{late.desktop} was late, and nothing was said"
            assert (time_from(night.deadline) - time_from(late.said)).total_seconds() > 3600
            assert "does not answer" in late.reason
    assert [job.number for job in outcome.jobs if job.finished != 1] == []

    # The week was worth it, and much did go wrong.
    total = outcome.report.total
    assert len(nights) >= 5
    assert total.utilisation_with > total.utilisation_without + 0.2
    assert total.jobs_requeued > 5
    assert outcome.crashes >= 3
    assert any(night.late for night in nights), "a host stayed away until the day had begun"
    assert max(outcome.waits) < 600
