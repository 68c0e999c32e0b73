# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

import json
import re
import stat
import types
from pathlib import Path
from typing import Any

import in_process
import pytest
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu import harvest_day
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.errors import InputError
from ansible_collections.gpuops.vsphere.plugins.modules import fleet_report
from fleets import ASSETS
from simulated import StartVcenter, Vcenter

SHAPE = {"memory_locked": True, "firmware": "efi", "memory_mb": 8192}


def model() -> dict[str, Any]:
    """A host that divides its GPUs with three machines, and a host that passes them through."""
    divided = {"vgpu_manager": "550.90.05", "graphics_type": "sharedDirect", "assignment_policy": "consolidation"}

    def machine(name: str, power: str) -> dict[str, Any]:
        gpus = [{"mode": "vgpu", "profile": "nvidia_a100-20c"}]
        return {"name": name, "host": "esx-001.lab", "power": power, "gpus": gpus, **SHAPE}

    return {
        "datacenter": "lab",
        "datastores": [{"name": "shared-01"}],
        "networks": [{"name": "VM Network"}],
        "clusters": [
            {
                "name": "gpu",
                "hosts": [
                    {"name": "esx-001.lab", "gpus": [{"gpu": "A100-40", "count": 3}], **divided},
                    {"name": "esx-002.lab", "gpus": [{"gpu": "V100-32", "count": 2, "passthrough": True}]},
                    {"name": "esx-003.lab"},
                ],
            }
        ],
        "vms": [machine("one", "on"), machine("two", "on"), machine("three", "on"), machine("off", "off")],
    }


def data_of(page: Path) -> dict[str, Any]:
    found = re.search(r'<script id="fleet-data" type="application/json">(.*?)</script>', page.read_text(), re.DOTALL)
    assert found is not None
    data: dict[str, Any] = json.loads(found[1])
    return data


def made(page: Path) -> str:
    found = re.search(r'name="gpuops-generated" content="([^"]+)"', page.read_text())
    assert found is not None
    return found[1]


@pytest.fixture
def site(start_vcenter: StartVcenter) -> Vcenter:
    return start_vcenter(model())


def test_missing_check_create_repeat_change(site: Vcenter, tmp_path: Path) -> None:
    page = tmp_path / "fleet.html"
    options: dict[str, Any] = {"path": str(page), "assets": str(ASSETS)}
    checked = site.ok("fleet_report", check=True, diff=True, **options)
    assert checked["changed"]
    assert not page.exists()
    assert checked["diff"][0]["after"] == f"{page}: 2 hosts, 5 GPUs, 4 VMs\n"

    created = site.ok("fleet_report", **options)
    assert created["changed"]
    assert {"Login": 1, **created["requests"]} == checked["requests"]
    assert stat.S_IMODE(page.stat().st_mode) == 0o644
    data = data_of(page)
    assert created["totals"] == data["totals"]
    # A host without GPUs is not shown, unless it is asked for.
    assert [host["name"] for host in data["clusters"][0]["hosts"]] == ["esx-001.lab", "esx-002.lab"]
    assert (data["totals"]["gpus"], data["totals"]["vgpus"], data["totals"]["vms"]) == (5, 3, 4)
    assert data["totals"]["gpus_by_state"] == {"free": 3, "full": 1, "part": 1}
    names = [vm["name"] for vm in data["vms"]]
    slots = [slot for gpu in data["clusters"][0]["hosts"][0]["gpus"] for slot in gpu.get("slots", ())]
    assert sorted(names[slot["vm"]] for slot in slots) == ["one", "three", "two"]
    free = {row["profile"]: (row["used"], row["free"]) for row in data["capacity"]}
    assert free["nvidia_a100-20c"] == (3, 3)
    assert free["V100-32 whole"] == (0, 2)

    first = made(page)
    repeated = site.ok("fleet_report", **options)
    assert not repeated["changed"]
    # Its time is that of the last look all the same, and nothing else has changed.
    assert data_of(page) == data
    assert made(page) >= first

    site.ok("vm_power", vms=["two"], state="suspended")
    before = page.read_bytes()
    checked = site.ok("fleet_report", check=True, diff=True, **options)
    assert page.read_bytes() == before
    changed = site.ok("fleet_report", diff=True, **options)
    assert changed["changed"]
    assert changed["objects"][str(page)]["actions"] == checked["objects"][str(page)]["actions"]
    assert "profile nvidia_a100-20c: 3 used, 3 free" in changed["diff"][0]["before"]
    assert "profile nvidia_a100-20c: 2 used, 4 free" in changed["diff"][0]["after"]
    assert data_of(page)["totals"]["vms_suspended"] == 1

    assert site.ok("fleet_report", **options, mode="0600")["objects"][str(page)]["actions"] == [f"set mode {page}"]
    assert stat.S_IMODE(page.stat().st_mode) == 0o600
    # As an edition of the collection before this one could have drawn it.
    page.write_text(page.read_text().replace("<h2", "<h3"))
    assert site.ok("fleet_report", **options, mode="0600")["objects"][str(page)]["actions"] == [f"draw anew {page}"]


def test_other_files_are_shown_too(site: Vcenter, tmp_path: Path) -> None:
    plan = site.ok("gpu_plan", action="contract", retiring=["esx-001.lab"], object_errors="report")
    chart = {"title": "day", "x": [1, 2], "series": [{"name": "desktops", "values": [1, 2]}]}
    given = {
        "jobs_file": {"jobs": [{"id": "1", "vms": ["one"], "tenant": "physics"}]},
        "doctor_file": {"one": {"findings": [{"check": "licence", "status": "FAIL", "message": "none", "mend": "x"}]}},
        "plan_file": plan,
        "harvest_file": {"charts": [chart]},
        "benchmark_file": {"charts": [{**chart, "kind": "bars"}]},
    }
    options = {"path": str(tmp_path / "fleet.html"), "assets": str(ASSETS), "tenants": {"chemistry": ["t*"]}}
    for name, content in given.items():
        file = tmp_path / f"{name}.json"
        file.write_text(json.dumps(content))
        options[name] = str(file)
    site.ok("fleet_report", **options)
    data = data_of(tmp_path / "fleet.html")
    assert {vm["name"]: vm.get("tenant") for vm in data["vms"]} == {
        "one": "physics", "two": "chemistry", "three": "chemistry", "off": None
    }  # fmt: skip
    assert {point["kind"] for point in data["points"]} == {"licence"}
    assert [step["action"] for step in data["plan"]["steps"]] == [step["action"] for step in plan["steps"]]
    assert (data["harvest"][0]["kind"], data["benchmark"][0]["kind"]) == ("lines", "bars")


def test_the_same_numbers_as_metrics(site: Vcenter, tmp_path: Path) -> None:
    """With the queue of Slurm, the nights of harvesting by hand-over, and a day of harvesting by shares."""
    samples = {300: harvest_day.Sample(1500, 0)}
    machines = [harvest_day.Machine(kind, kind, 2000, samples) for kind in harvest_day.KINDS]
    day = harvest_day.report(
        harvest_day.day(machines, (300,), 8000), generated="2026-01-14T07:00:00Z", source="", timezone="UTC"
    )
    total = {"gpu_hours_total": 9, "gpu_hours_harvested": 4.5, "utilisation_with": 0.9, "utilisation_without": 0.4}
    counts = dict.fromkeys(("nights", "desktops_lent", "desktops_late", "jobs_requeued"), 1)
    files = {
        "jobs_file": {
            "jobs": [{"job_id": 7, "job_state": ["RUNNING"], "nodes": "one", "tres_alloc_str": "gres/shard=5"}]
        },
        "harvest_file": {"version": 1, "generated": "2026-01-14T07:00:00Z", "total": total | counts, "nights": []},
        "day_file": day,
    }
    options = {
        "path": str(tmp_path / "fleet.html"),
        "assets": str(ASSETS),
        "metrics_path": str(tmp_path / "fleet.prom"),
    }
    for name, content in files.items():
        (tmp_path / name).write_text(json.dumps(content))
        options[name] = str(tmp_path / name)
    site.ok("fleet_report", check=True, **options)
    assert not (tmp_path / "fleet.prom").exists()
    site.ok("fleet_report", **options)
    lines = set((tmp_path / "fleet.prom").read_text().splitlines())
    assert {
        'gpuops_fleet_hosts{state="in service"} 2',
        "gpuops_fleet_vgpus 3",
        'gpuops_fleet_jobs{state="running"} 1',
        "gpuops_harvest_gpu_hours 4.5",
        'gpuops_harvest_cpu_used_hertz{kind="compute"} 1500000000',
    } <= lines
    data = data_of(tmp_path / "fleet.html")
    assert data["harvest"][0]["title"] == "CPU time by use"
    assert data["jobs"][0]["gpus"] == 0.5
    assert not site.ok("fleet_report", **options)["changed"]


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        ({"metrics_path": "fleet.txt"}, "does not end with .prom"),
        ({"metrics_path": "notes.prom"}, "notes.prom is there and is no such file"),
        ({"shards_per_gpu": 0}, "shards_per_gpu: 0"),
        ({"day_file": "broken.json"}, "figures: an object is needed"),
        ({"path": "notes.html"}, "notes.html is there and is no fleet page"),
        ({"path": "no/fleet.html"}, "does not exist"),
        ({"mode": "rw"}, "mode: 'rw'"),
        ({"jobs_file": "none.json"}, "jobs_file: none.json cannot be read"),
        ({"jobs_file": "broken.json"}, "jobs[0].id: a text is needed"),
        ({"doctor_file": "notes.html"}, "is no JSON"),
        ({"tenants": {"physics": "phys-*"}}, "tenants: physics needs a list"),
        ({"assets": "."}, "assets: "),
        ({"assets": None}, "assets: nothing was given"),
        ({"bar_overrides": {"10de": {"bar1_gb": 1}}}, "bar_overrides"),
    ],
)
def test_mistakes_are_said_before_anything_is_read(
    wrong: dict[str, Any], text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("notes.html").write_text("mine")
    Path("notes.prom").write_text("mine 1\n")
    Path("broken.json").write_text('{"jobs": [{}]}')
    defaults = {name: option.get("default") for name, option in fleet_report.argument_spec().items()}
    params = {**defaults, "path": "fleet.html", "assets": str(ASSETS), **wrong}
    with pytest.raises(InputError) as raised:
        fleet_report.prepare(types.SimpleNamespace(params=params))
    assert text in raised.value.msg
    assert Path("notes.html").read_text() == "mine"


def test_a_host_that_nobody_knows_fails_and_the_others_are_shown(site: Vcenter, tmp_path: Path) -> None:
    page = tmp_path / "fleet.html"
    result = site.fails("fleet_report", path=str(page), assets=str(ASSETS), hosts=["esx-003.lab", "esx-9.lab"])
    assert result["failure"]["code"] == "host_not_found"
    assert [host["name"] for host in data_of(page)["clusters"][0]["hosts"]] == ["esx-003.lab"]


def test_requests_do_not_depend_on_how_many_hosts_there_are(start_vcenter: StartVcenter, tmp_path: Path) -> None:
    counts = []
    for hosts in (1, 10, 100):
        described = model() | {"vms": []}
        described["clusters"][0]["hosts"] = [
            {"name": f"esx-[001:{hosts:03}].lab", "gpus": [{"gpu": "V100-32", "count": 2}]}
        ]
        vcenter = start_vcenter(described)
        own = {"path": str(tmp_path / f"{hosts}.html"), "assets": str(ASSETS), "hostname": "vcenter"}
        planned, _done = in_process.run(vcenter, fleet_report, **own)
        assert planned.returns["totals"]["hosts"] == hosts
        counts.append(vcenter.counts()["requests"])
    assert counts[0] == counts[1] == counts[2]
