# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A night: desktops are lent as planned, somebody comes, and all return."""

from __future__ import annotations

from typing import Any

import pytest
from gpu_vms import machine, vgpu_fleet
from simulated import StartVcenter, Vcenter

OFFICE = {"timezone": "Europe/Berlin", "ready_by": "07:30", "lend_from": "19:00"}
EVENING, NIGHT, MORNING = "2026-01-13T20:00:00+01:00", "2026-01-14T01:00:00+01:00", "2026-01-14T07:05:00+01:00"
IDLE: list[float] = [40.0] * 6


def desk(name: str, **more: Any) -> dict[str, Any]:
    gpu = {"mode": "vgpu", "profile": "nvidia_a100-20c"}
    return machine(name, memory_locked=True, gpus=[gpu], power="on", **more)


def office(**more: Any) -> dict[str, Any]:
    """Four desktops, two on each GPU of a host."""
    return vgpu_fleet(vms=[desk(f"desk-{number}") for number in range(1, 5)], **more)


def plan(vcenter: Vcenter, now: str, busy: tuple[str, ...] = (), **more: Any) -> dict[str, Any]:
    desktops = [
        {"name": name, "lend": True, "cpu_mhz": [*IDLE, 2000.0] if name in busy else IDLE}
        for name in ("desk-1", "desk-2", "desk-3", "desk-4")
    ]
    options = {"schedules": {"office": OFFICE}, "compute_profile": "nvidia_a100-40c", "desktops": desktops, "now": now}
    return vcenter.ok("harvest_plan", **(options | more))


def test_a_night_from_evening_to_morning(start_vcenter: StartVcenter) -> None:
    vcenter = start_vcenter(office())
    assert plan(vcenter, "2026-01-13T12:00:00+01:00")["phase"] == "day"
    evening = plan(vcenter, EVENING)
    assert evening["phase"] == "evening"
    assert evening["deadline"] == "2026-01-14T06:30:00Z"
    assert evening["suspend"] == ["desk-1", "desk-2", "desk-3", "desk-4"]
    assert evening["room"] == {"esx-001.lab": 2}
    assert not plan(vcenter, EVENING, busy=("desk-1", "desk-2", "desk-3", "desk-4"))["suspend"]
    vcenter.ok("vm_power", vms=evening["suspend"], state="suspended", lend=True)

    again = plan(vcenter, EVENING)
    assert not again["suspend"]
    assert {entry["verdict"] for entry in again["objects"].values()} == {"lent"}
    assert again["start_by"] == evening["start_by"]

    wanted = plan(vcenter, NIGHT, wanted=["desk-3"])
    assert wanted["resume"] == ["desk-3"]
    vcenter.ok("vm_power", vms=wanted["resume"], state="resumed", lend=True)

    morning = plan(vcenter, MORNING)
    assert morning["phase"] == "morning"
    assert morning["resume"] == ["desk-1", "desk-2", "desk-4"]
    assert "after its deadline" in " ".join(morning["objects"]["desk-4"]["warnings"])
    vcenter.ok("vm_power", vms=morning["resume"], state="resumed", lend=True)
    assert not plan(vcenter, MORNING)["resume"]


def test_only_what_was_lent_returns(start_vcenter: StartVcenter) -> None:
    vcenter = start_vcenter(office())
    vcenter.ok("vm_power", vms=["desk-1"], state="suspended")
    refused = vcenter.fails("vm_power", vms=["desk-1"], state="resumed", lend=True)
    assert refused["failure"]["code"] == "not_lent"
    assert plan(vcenter, MORNING)["resume"] == []
    assert plan(vcenter, EVENING)["objects"]["desk-1"]["verdict"] == "leave alone"


def test_what_is_lent_is_remembered_until_it_has_returned(start_vcenter: StartVcenter) -> None:
    vcenter = start_vcenter(office())
    lent = vcenter.ok("vm_power", vms=["desk-1"], state="suspended", lend=True, run_id="tonight")
    assert lent["predicted"]["vms"]["desk-1"]["intent"]["action"] == "lent"
    assert not vcenter.ok("vm_power", vms=["desk-1"], state="suspended", lend=True)["changed"]
    # Somebody resumed it by hand: what is left of the loan goes.
    vcenter.ok("vm_power", vms=["desk-1"], state="on")
    cleared = vcenter.ok("vm_power", vms=["desk-1"], state="resumed", lend=True)
    assert cleared["objects"]["desk-1"]["actions"] == ["clear intent (it has returned already)"]
    assert not vcenter.ok("vm_power", vms=["desk-1"], state="resumed", lend=True)["changed"]


def test_a_desktop_that_cannot_return_is_said_at_night(start_vcenter: StartVcenter) -> None:
    vcenter = start_vcenter(vgpu_fleet(vms=[desk("desk-1")]))
    vcenter.ok("vm_power", vms=["desk-1"], state="suspended", lend=True)
    vcenter.ok("esxi_maintenance", hosts=["esx-001.lab"])
    options: dict[str, Any] = {"schedules": {"office": OFFICE}, "compute_profile": "nvidia_a100-40c", "now": NIGHT}
    result = vcenter.fails("harvest_plan", desktops=[{"name": "desk-1"}, {"name": "desk-9"}], **options)
    assert "esx-001.lab is in maintenance mode, and no other host of its cluster offers a100-20c" in result["msg"]
    codes = {name: entry["failure"]["code"] for name, entry in result["objects"].items()}
    assert codes == {"desk-1": "no_return", "desk-9": "vm_not_found"}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"schedules": {"office": OFFICE | {"timezone": "Mars"}}}, "timezone 'Mars' is unknown"),
        ({"schedules": {"office": "07:30"}}, "a schedule has keys"),
        ({"schedules": {}}, "No schedule says"),
        ({"now": "tomorrow"}, "'tomorrow' is not a time"),
        ({"now": "2026-01-14T01:00:00"}, "has no offset"),
        ({"now": "2026-01-14T12:00:00+01:00", "phase": "evening"}, "working hours until 2026-01-14 18:00 UTC"),
        ({"compute_profile": "big"}, "'big' is no vGPU profile"),
        ({"desktops": [{"name": "a"}, {"name": "a"}]}, "a is there twice"),
        ({"compute_vms": [{"name": "desk-1"}]}, "desk-1 is also in compute_vms"),
        ({"wanted": ["desk-9"]}, "desk-9 is not in desktops"),
        ({"timing": {"per_host": 0}}, "timing.per_host: must be at least 1"),
        ({"reserve": -1}, "reserve: must not be negative"),
    ],
)
def test_bad_input_is_said_before_anything_is_asked(vcenter: Vcenter, changes: dict[str, Any], says: str) -> None:
    options = {
        "schedules": {"office": OFFICE},
        "compute_profile": "nvidia_a100-40c",
        "desktops": [{"name": "desk-1"}],
        "now": NIGHT,
    }
    assert says in vcenter.fails("harvest_plan", **(options | changes))["msg"]
    assert not vcenter.counts()["requests"]


def test_the_number_of_requests_does_not_depend_on_how_many_desktops_there_are(start_vcenter: StartVcenter) -> None:
    vcenter = start_vcenter(office())
    names = [f"desk-{number}" for number in range(1, 5)]
    plan(vcenter, EVENING)  # logs in
    seen = [plan(vcenter, EVENING, desktops=[{"name": name} for name in names[:count]])["requests"] for count in (1, 4)]
    assert seen[0] == seen[1]
