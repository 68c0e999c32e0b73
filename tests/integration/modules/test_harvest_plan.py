# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A night: desktops are lent as planned, somebody comes, and all return."""

from __future__ import annotations

import datetime
import json
import re
from pathlib import Path
from typing import Any

import pytest
from gpu_vms import machine, vcenter_connection, vgpu_fleet
from pyVmomi import vim
from simulated import StartVcenter, Vcenter

OFFICE = {"timezone": "Europe/Berlin", "ready_by": "07:30", "lend_from": "19:00"}
V100_A = "0000:3b:00.0"
EVENING, NIGHT, MORNING = "2026-01-13T20:00:00+01:00", "2026-01-14T01:00:00+01:00", "2026-01-14T07:05:00+01:00"
IDLE: list[float] = [40.0] * 6
NO_CONNECTION = dict.fromkeys(("hostname", "port", "username", "password", "ca_file", "session_dir"))


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
    assert plan(vcenter, NIGHT)["returned"] == ["desk-1"]
    cleared = vcenter.ok("vm_power", vms=["desk-1"], state="resumed", lend=True)
    assert cleared["objects"]["desk-1"]["actions"] == ["clear intent (it has returned already)"]
    assert not vcenter.ok("vm_power", vms=["desk-1"], state="resumed", lend=True)["changed"]


def test_a_desktop_returns_on_another_host_when_its_own_takes_no_work(start_vcenter: StartVcenter) -> None:
    vcenter = start_vcenter(vgpu_fleet(hosts=2, vms=[desk("desk-1"), desk("desk-2", host="esx-002.lab")]))
    vcenter.ok("vm_power", vms=["desk-1", "desk-2"], state="suspended", lend=True)
    vcenter.ok("esxi_maintenance", hosts=["esx-001.lab"])
    morning = plan(vcenter, MORNING, desktops=[{"name": "desk-1"}, {"name": "desk-2"}])
    assert morning["places"] == {"desk-1": "esx-002.lab", "desk-2": "esx-002.lab"}
    options: dict[str, Any] = {"vms": morning["resume"], "state": "resumed", "lend": True, "hosts": morning["places"]}
    shown = vcenter.ok("vm_power", check=True, **options)
    assert shown["objects"]["desk-1"]["actions"] == ["move host (to esx-002.lab)", "power on (resume it)"]
    done = vcenter.ok("vm_power", **options)
    assert {name: entry["host"] for name, entry in done["objects"].items()} == morning["places"]
    assert all(entry["seconds"] >= 0 for entry in done["objects"].values())
    assert not vcenter.ok("vm_power", **options)["changed"]


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
        ({"timing": {"at_once": 0}}, "timing.at_once: must be at least 1"),
        ({"checks": {"desk-1": "asleep"}}, "checks.desk-1: 'asleep' is none of idle, busy, failed"),
        ({"reserve": -1}, "reserve: must not be negative"),
        ({"idle_window": -1}, "idle_window: must not be negative"),
        ({"lend_tag": "lend"}, "lend_tag: 'lend' is no tag. Write category:name"),
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


def test_the_vcenter_s_own_samples_are_remembered_until_a_window_is_full(
    start_vcenter: StartVcenter, tmp_path: Path
) -> None:
    # The simulator's machines use 50 MHz a CPU.
    vcenter = start_vcenter(vgpu_fleet(vms=[desk("desk-1"), desk("desk-2", cpus=8), desk("desk-3")]))
    files = {"history_file": str(tmp_path / "kept" / "history.json")}
    report = tmp_path / "kept" / "harvest.json"
    desktops = [{"name": f"desk-{number}", "lend": True} for number in (1, 2, 3)]
    for minute in range(0, 60, 10):
        evening = plan(vcenter, f"2026-01-13T20:{minute:02}:00+01:00", desktops=desktops, **files)
        assert evening["suspend"] == (["desk-1", "desk-3"] if minute == 50 else []), minute
        vcenter.ok(
            "harvest_record", seen=evening["record"], report_file=str(report),
            ended=f"2026-01-13T20:{minute:02}:30+01:00", **files, **NO_CONNECTION,
        )  # fmt: skip
    assert "in use: 400 MHz" in evening["objects"]["desk-2"]["reason"]
    night = json.loads(report.read_text())["nights"][0]
    assert [sample["desktops_in_use"] for sample in night["series"]] == [1] * 6
    assert night["gpu_hours_total"] == pytest.approx(2 * 50 / 60 + 2 * 0.5, abs=0.001)
    Path(files["history_file"]).write_text("{")
    broken = vcenter.fails(
        "harvest_plan", schedules={"o": OFFICE}, compute_profile="nvidia_a100-40c", desktops=[], **files
    )
    assert "history.json: it is not what a run has written" in broken["msg"]


def test_a_custom_attribute_marks_what_may_be_lent(start_vcenter: StartVcenter) -> None:
    vcenter = start_vcenter(office())
    with vcenter_connection(vcenter) as content:
        key = content.customFieldsManager.AddCustomFieldDef("lend.me", None, None, None).key
        machines = content.viewManager.CreateContainerView(content.rootFolder, [vim.VirtualMachine], True).view
        for machine_ in machines:
            content.customFieldsManager.SetField(machine_, key, "no" if machine_.name == "desk-4" else "Yes")
    desktops = [{"name": f"desk-{number}", "cpu_mhz": IDLE} for number in range(1, 5)]
    assert plan(vcenter, EVENING, desktops=desktops)["suspend"] == []
    marked = plan(vcenter, EVENING, desktops=desktops, lend_attribute="lend.me")
    assert len(marked["suspend"]) == 2
    assert marked["objects"]["desk-4"]["reason"] == "not marked to be lent"
    assert plan(vcenter, EVENING, desktops=desktops, lend_attribute="nobody.made.it")["suspend"] == []


TAGS = [{"name": "site", "tags": [{"name": "berlin"}]}, {"name": "gpu", "tags": [{"name": "keep"}, {"name": "lend"}]}]


def test_a_tag_marks_what_may_be_lent(start_vcenter: StartVcenter) -> None:
    # Two desktops share each GPU, and compute wants a whole one.
    marks = [{"gpu": ["lend"]}, {"gpu": ["keep"]}, {"gpu": ["lend"], "site": ["berlin"]}, {}]
    vms = [desk(f"desk-{number}", tags=tags) for number, tags in enumerate(marks, start=1)]
    vcenter = start_vcenter(vgpu_fleet(vms=vms, categories=TAGS))
    desktops = [{"name": f"desk-{number}", "cpu_mhz": IDLE} for number in range(1, 5)]
    tagged = plan(vcenter, EVENING, desktops=desktops, lend_tag="gpu:lend")
    assert tagged["suspend"] == ["desk-1", "desk-3"]
    assert tagged["objects"]["desk-2"]["reason"] == "not marked to be lent"
    fewer = plan(vcenter, EVENING, desktops=desktops[:1], lend_tag="gpu:lend")
    assert fewer["requests"] == {
        method: count for method, count in tagged["requests"].items() if method not in ("Login", "POST /api/session")
    }
    # What is lent returns, whatever has become of the tag.
    vcenter.ok("vm_power", vms=tagged["suspend"], state="suspended", lend=True)
    for tag, says in (("gpu:lent", "The category gpu has no tag lent."), ("gpus:lend", "no category gpus of tags")):
        lost = vcenter.run("harvest_plan", schedules={"office": OFFICE}, compute_profile="nvidia_a100-40c", now=MORNING,
                           desktops=desktops, lend_tag=tag).result  # fmt: skip
        assert lost["resume"] == ["desk-1", "desk-3"]
        assert [text for text in lost["warnings"] if says in str(text) and f"marked by {tag}" in str(text)]
        assert says in lost["table"]


def test_a_tag_on_a_machine_with_a_gpu_by_passthrough_is_said(start_vcenter: StartVcenter) -> None:
    model = vgpu_fleet(hosts=2, vms=[desk("desk-1", tags={"gpu": ["lend"]})], categories=TAGS)
    v100 = {"gpu": "V100-16", "passthrough": True}
    model["clusters"][0]["hosts"].append({"name": "esx-100.lab", "gpus": [v100]})
    fixed_gpu = {"mode": "fixed", "address": V100_A}
    mmio = {"pciPassthru.use64bitMMIO": "TRUE", "pciPassthru.64bitMMIOSizeGB": "64"}
    model["vms"].append(machine("desk-2", "esx-100.lab", memory_locked=True, gpus=[fixed_gpu], extra_config=mmio,
                                power="on", tags={"gpu": ["lend"]}))  # fmt: skip
    vcenter = start_vcenter(model)
    desktops = [{"name": f"desk-{number}", "cpu_mhz": IDLE} for number in (1, 2)]
    planned = plan(vcenter, EVENING, desktops=desktops, lend_tag="gpu:lend")
    assert "desk-2" not in planned["suspend"]
    assert "by passthrough and cannot be suspended; take the mark to be lent off it" in planned["table"]


def test_the_vcenter_s_averages_tell_of_the_hour_before_the_first_run(
    start_vcenter: StartVcenter, tmp_path: Path
) -> None:
    begin = datetime.datetime.now(datetime.UTC) - datetime.timedelta(minutes=30)
    used = {begin: 900, begin + datetime.timedelta(minutes=20): 40}
    busy = sorted([{"at": f"{time:%H:%M}", "mhz": mhz} for time, mhz in used.items()], key=lambda step: step["at"])
    demands: list[Any] = [40, busy, 40]
    vms = [desk(f"desk-{number}", cpu_demand=demand) for number, demand in enumerate(demands, start=1)]
    vcenter = start_vcenter(vgpu_fleet(vms=vms))
    desktops = [{"name": f"desk-{number}", "lend": True} for number in (1, 2, 3)]
    averages = {"desktops": desktops, "cpu_samples": "vcenter", "idle_samples": 12}
    planned = plan(vcenter, EVENING, **averages)
    assert planned["suspend"] == ["desk-1", "desk-3"]
    in_use = re.match(r"in use: (\d+) MHz", planned["objects"]["desk-2"]["reason"])
    assert in_use is not None
    assert 800 < int(in_use[1]) <= 900
    assert plan(vcenter, EVENING, desktops=desktops)["suspend"] == []
    # What returned a moment ago has a user, whatever it used before.
    history = tmp_path / "history.json"
    vcenter.ok("harvest_record", seen=planned["record"], history_file=str(history), resumed={"desk-1": 50.0},
               **NO_CONNECTION)  # fmt: skip
    now = datetime.datetime.now(datetime.UTC).isoformat()
    night = {"always": {"timezone": "UTC", "ready_by": "00:00", "lend_from": "00:01"}}
    again = plan(vcenter, now, **averages, schedules=night, phase="auto", history_file=str(history))
    assert "desk-1" not in again["suspend"]


def test_compute_machines_start_on_what_is_lent_and_leave_in_the_morning(start_vcenter: StartVcenter) -> None:
    full = {"mode": "vgpu", "profile": "nvidia_a100-40c"}
    ready = machine("train-1", memory_locked=True, gpus=[full])
    vcenter = start_vcenter(vgpu_fleet(vms=[*(desk(f"desk-{number}") for number in range(1, 5)), ready]))
    work = {"compute_vms": [{"name": "train-1"}, {"name": "train-2"}], "compute_clone": True}
    evening = plan(vcenter, EVENING, **work)
    assert (evening["start"], evening["clone"]) == (
        ["train-1", "train-2"],
        [{"name": "train-2", "host": "esx-001.lab"}],
    )
    assert evening["attach"] == ["train-2"]
    assert evening["start_places"] == {"train-1": "esx-001.lab", "train-2": "esx-001.lab"}
    refused = vcenter.run("harvest_plan", schedules={"o": OFFICE}, compute_profile="nvidia_a100-40c", now=EVENING,
                          desktops=[], compute_vms=[{"name": "train-2"}]).result  # fmt: skip
    assert refused["failure"] == {"code": "vm_not_found", "object": "train-2", "fault": None}
    vcenter.ok("vm_power", vms=evening["suspend"], state="suspended", lend=True)
    vcenter.ok("vm_power", vms=["train-1"], state="on")
    again = plan(vcenter, EVENING, **work)
    assert (again["working"], again["start"]) == (["train-1"], ["train-2"])
    assert plan(vcenter, MORNING, **work)["release"] == ["train-1"]
    assert plan(vcenter, EVENING, **work)["record"]["use"]["compute"] == 1


def test_the_number_of_requests_does_not_depend_on_how_many_desktops_there_are(start_vcenter: StartVcenter) -> None:
    vcenter = start_vcenter(office())
    names = [f"desk-{number}" for number in range(1, 5)]
    plan(vcenter, EVENING)  # logs in
    seen = [plan(vcenter, EVENING, desktops=[{"name": name} for name in names[:count]])["requests"] for count in (1, 4)]
    assert seen[0] == seen[1]
