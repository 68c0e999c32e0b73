# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

import datetime
import json

from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.harvest.report import (
    GpuUse,
    Late,
    NightFigures,
    report,
    time_from,
    time_text,
    to_dict,
)

NOW = datetime.datetime(2026, 1, 14, 7, tzinfo=datetime.UTC)


def figures(*series: GpuUse, deadline: str = "2026-01-14T06:00:00Z", **more: object) -> NightFigures:
    given = {"lent": ("a", "b", "a"), "late": (), "jobs_requeued": 2} | more
    return NightFigures("2026-01-13", "2026-01-13T18:00:00Z", deadline, series=series, **given)  # type: ignore[arg-type]


def test_a_sample_holds_until_the_next_one_the_deadline_or_as_long_as_it_may() -> None:
    night = figures(
        GpuUse("2026-01-14T05:50:00Z", empty=4),
        # Out of order, and with a gap of hours after it of which nothing is known.
        GpuUse("2026-01-13T18:30:00Z", compute=3, desktops_in_use=1),
        GpuUse("2026-01-13T18:00:00Z", desktops_in_use=1, desktops_idle=3),
    )
    entry = report([night], NOW, longest_s=1800).nights[0]
    assert entry.gpu_hours_total == round(4 * 0.5 + 4 * 0.5 + 4 / 6, 3)
    assert entry.gpu_hours_harvested == 1.5
    assert entry.utilisation_with == round((0.5 + 2.0) / (4 + 4 / 6), 4)
    assert entry.utilisation_without == round(1.0 / (4 + 4 / 6), 4)
    assert entry.desktops_lent == 2
    assert [sample.time[11:16] for sample in entry.series] == ["18:00", "18:30", "05:50"]


def test_the_total_adds_nights_up_and_weighs_their_utilisation() -> None:
    long = figures(GpuUse("2026-01-13T18:00:00Z", compute=4))
    short = figures(
        GpuUse("2026-01-14T18:00:00Z", empty=2),
        deadline="2026-01-15T06:00:00Z",
        late=(Late("a", None, None, "its host failed"),),
    )
    whole = report([short, long], NOW, longest_s=3600)
    assert [night.deadline[:10] for night in whole.nights] == ["2026-01-14", "2026-01-15"]
    assert whole.total.nights == 2
    assert whole.total.utilisation_with == round(4 / 6, 4)
    assert whole.total.utilisation_without == 0
    assert (whole.total.desktops_lent, whole.total.desktops_late, whole.total.jobs_requeued) == (4, 1, 4)


def test_no_nights_are_a_report_too() -> None:
    data = json.loads(json.dumps(to_dict(report([], NOW, 600))))
    assert data["version"] == 1
    assert data["nights"] == []
    assert data["total"]["utilisation_with"] == 0


def test_times_come_back_as_they_went() -> None:
    assert time_from(time_text(NOW)) == NOW
