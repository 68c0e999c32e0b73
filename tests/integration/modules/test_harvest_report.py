# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from simulated import TOP, StartVcenter, Vcenter

ASSETS = TOP / "roles" / "report" / "files" / "fleet_page"
HOST = {"cpu_sockets": 1, "cpu_cores": 8, "cpu_mhz": 2000}
FREE = 8 * 2000 - 100
OFFICE = [{"at": "06:00", "mhz": 300}, {"at": "09:00", "mhz": 7000}, {"at": "18:00", "mhz": 300}]


def model(desktops: int = 2, **options: Any) -> dict[str, Any]:
    """One host on which desktops work by day and two compute machines always."""
    desktop = {"pool": "vdi/desktops", "cpus": 4, "power": "on", "cpu_demand": OFFICE}
    compute = {"pool": "compute", "cpus": 8, "power": "on", "cpu_demand": 16000}
    return {
        "datacenter": "lab",
        "datastores": [{"name": "shared-01"}],
        "networks": [{"name": "VM Network"}],
        "clusters": [
            {
                "name": "vdi",
                "hosts": [{"name": "esx-001.lab", **HOST}],
                "pools": [
                    {"name": "vdi", "cpu": {"shares": 100}, "pools": [{"name": "desktops"}]},
                    {"name": "compute", "cpu": {"shares": 1}},
                ],
            }
        ],
        "vms": [{"name": f"desk-{number}", "host": "esx-001.lab", **desktop} for number in range(desktops)]
        + [{"name": f"hpc-{number}", "host": "esx-001.lab", **compute} for number in range(2)],
        "options": options,
    }


def asked(vcenter: Vcenter, **more: Any) -> dict[str, Any]:
    return {
        "desktop_pools": ["vdi"],
        "compute_pools": ["compute"],
        "path": str(vcenter.directory / "day.json"),
        "assets": str(ASSETS),
    } | more


def test_a_day_as_json_page_and_metrics(start_vcenter: StartVcenter, tmp_path: Path) -> None:
    vcenter = start_vcenter(model())
    files = {"page_path": str(tmp_path / "day.html"), "metrics_path": str(tmp_path / "day.prom")}
    planned = vcenter.ok("harvest_report", check=True, **asked(vcenter, **files))
    assert planned["changed"]
    assert list(tmp_path.glob("day.*")) == []
    done = vcenter.ok("harvest_report", **asked(vcenter, **files))
    report = json.loads((vcenter.directory / "day.json").read_text())
    assert {"figures": report["figures"], "charts": report["charts"]} == {
        key: done[key] for key in ("figures", "charts")
    }
    figures = report["figures"]
    assert (figures["desktops"], figures["compute_machines"], figures["capacity_ghz"]) == (2, 2, 16.0)
    # A hundred parts of 101 are enough for 14 GHz of 15.9: desktops wait for nothing, compute has what is left.
    assert figures["desktops_got"] == pytest.approx(1, abs=0.001)
    assert figures["desktops_worst"]["share"] == pytest.approx(1, abs=0.01)
    assert figures["utilisation_with"] == pytest.approx(FREE / 16000, abs=0.002)
    by_use, desktops, _compute = report["charts"]
    assert [series["name"] for series in by_use["series"]] == ["desktops", "compute"]
    assert len(by_use["x"]) > 280
    for office, harvested in zip(*(series["values"] for series in by_use["series"]), strict=True):
        assert office + harvested == pytest.approx(FREE / 1000, abs=0.01)
    assert max(desktops["series"][1]["values"]) == pytest.approx(14, abs=0.5)
    assert min(desktops["series"][1]["values"]) == pytest.approx(0.6, abs=0.01)
    assert '<script id="day-data"' in (tmp_path / "day.html").read_text()
    metrics = (tmp_path / "day.prom").read_text()
    assert 'gpuops_harvest_machines{kind="desktop"} 2\n' in metrics
    assert 'gpuops_harvest_cpu_satisfied_ratio{kind="desktop"} ' in metrics
    assert vcenter.ok("harvest_report", **asked(vcenter, **files))["changed"]


def test_desktops_that_wait_are_seen(start_vcenter: StartVcenter) -> None:
    world = model()
    world["clusters"][0]["pools"] = [
        {"name": "vdi", "cpu": {"shares": 1}, "pools": [{"name": "desktops"}]},
        {"name": "compute"},
    ]
    vcenter = start_vcenter(world)
    figures = vcenter.ok("harvest_report", **asked(vcenter))["figures"]
    assert figures["desktops_got"] < 0.1
    assert figures["desktops_worst"]["share"] < 0.01
    named = vcenter.ok("harvest_report", **asked(vcenter, desktop_pools=[], desktop_vms=["desk-1"]))["figures"]
    assert named["desktops"] == 1


def test_requests_do_not_grow_but_with_the_vcenters_limit(start_vcenter: StartVcenter) -> None:
    """Two counters of a machine: with a limit of 256, 128 machines go into one query; without one, all do."""

    def requests(desktops: int, **options: Any) -> dict[str, int]:
        vcenter = start_vcenter(model(desktops, **options))
        vcenter.ok("vm_power", check=True, vms=["desk-0"], state="on")  # logs in
        done = vcenter.ok("harvest_report", hours=1, **asked(vcenter))
        assert done["figures"]["desktops"] == desktops
        found: dict[str, int] = done["requests"]
        return found

    one = requests(1)
    assert one == requests(100)
    assert one["QueryPerf"] == 1
    assert sum(one.values()) <= 14
    assert requests(200)["QueryPerf"] == 2
    assert requests(200, **{"config.vpxd.stats.maxQueryMetrics": "-1"}) == one


def test_what_stands_in_the_way(start_vcenter: StartVcenter, tmp_path: Path) -> None:
    vcenter = start_vcenter(model())
    mine = tmp_path / "mine.prom"
    mine.write_text("my_metric 1\n")
    for wrong, said in (
        ({"hours": 25}, "samples of five minutes for a day"),
        ({"timezone": "Berlin"}, "no time zone"),
        ({"metrics_path": str(tmp_path / "day.txt")}, "does not end with .prom"),
        ({"metrics_path": str(mine)}, "no such file"),
        ({"page_path": str(tmp_path / "nowhere" / "day.html")}, "Make it first"),
        ({"page_path": str(tmp_path / "day.html"), "assets": str(tmp_path)}, "day.html cannot be read"),
    ):
        assert said in vcenter.fails("harvest_report", **asked(vcenter, **wrong))["msg"]
    assert mine.read_text() == "my_metric 1\n"
    failed = vcenter.fails("harvest_report", **asked(vcenter, desktop_pools=["vdy"], compute_vms=["hpc-0", "desk-9"]))
    codes = {name: entry["failure"]["code"] for name, entry in failed["objects"].items() if entry["failed"]}
    assert codes == {"vdy": "pool_not_found", "desk-9": "vm_not_found"}
    assert "Did you mean vdi?" in failed["objects"]["vdy"]["msg"]
