# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""cycle_harvesting.yml and harvest_report.yml: desktops keep what they ask for over a day, compute takes the rest."""

from __future__ import annotations

import datetime
import json
from typing import Any

from gpu_vms import vcenter_connection
from lab import Lab, Model
from pyVmomi import vim
from simulated import wait_for

ONE = "esx-gpu-01.lab"
FREE_GHZ = 8 * 2.0 - 0.1
OFFICE = [{"at": "06:00", "mhz": 400}, {"at": "09:00", "mhz": 4800}, {"at": "18:00", "mhz": 400}]
POOLS = {"cycle_harvesting_desktop_pools": ["desktops"], "cycle_harvesting_compute_pools": ["compute"]}
TIME_SCALE = 6000
"""A day passes in 15 seconds."""


def shared_host(model: Model) -> None:
    """Desktops that work by day and compute machines that always do, on a host that is too small for both."""
    cluster = model["clusters"][0]
    cluster["hosts"][0] |= {"cpu_sockets": 1, "cpu_cores": 8, "cpu_mhz": 2000}
    cluster["pools"] = [{"name": "desktops", "cpu": {"shares": 2000, "reservation": 10}}, {"name": "compute"}]
    shape = {"host": ONE, "memory_mb": 4096, "power": "on"}
    desktop = {"pool": "desktops", "cpus": 4, "cpu_demand": OFFICE, **shape}
    compute = {"pool": "compute", "cpus": 8, "cpu_demand": 16000, **shape}
    model["vms"] = [{"name": f"desk-{number}", **desktop} for number in range(3)]
    model["vms"] += [{"name": f"hpc-{number}", **compute} for number in range(2)]


def variables(**more: Any) -> tuple[str, str]:
    return ("-e", json.dumps(POOLS | more))


def let_a_day_pass(lab: Lab) -> None:
    with vcenter_connection(lab.vcenter) as content:
        service = vim.ServiceInstance("ServiceInstance", content.rootFolder._stub)
        end = service.CurrentTime() + datetime.timedelta(hours=24, minutes=10)
        wait_for(lambda: service.CurrentTime() > end, "a day has passed")


def shares(lab: Lab) -> dict[str, tuple[int, int, int]]:
    """CPU shares, memory shares and CPU reservation of each pool."""
    with vcenter_connection(lab.vcenter) as content:
        pools = content.viewManager.CreateContainerView(content.rootFolder, [vim.ResourcePool], True).view
        return {
            pool.name: (
                pool.config.cpuAllocation.shares.shares,
                pool.config.memoryAllocation.shares.shares,
                pool.config.cpuAllocation.reservation,
            )
            for pool in pools
            if pool.name in ("desktops", "compute")
        }


def report(lab: Lab) -> dict[str, Any]:
    """What harvest_report.yml writes of the day that has passed."""
    files = {kind: str(lab.directory / f"day.{kind}") for kind in ("json", "html", "prom")}
    ran = lab.playbook(
        "harvest_report",
        *variables(
            cycle_harvesting_report_file=files["json"],
            cycle_harvesting_report_page_file=files["html"],
            cycle_harvesting_report_metrics_file=files["prom"],
        ),
    )
    assert ran.returncode == 0, ran.output
    assert ran.count("changed") == {}
    assert "GHz hours harvested" in ran.output
    assert (lab.directory / "day.html").read_text().startswith("<!doctype html>")
    assert "gpuops_harvest_compute_ghz_hours" in (lab.directory / "day.prom").read_text()
    found: dict[str, Any] = json.loads((lab.directory / "day.json").read_text())
    return found


def test_desktops_keep_what_they_ask_for_and_compute_takes_the_rest(lab: Lab) -> None:
    lab.start(time_scale=TIME_SCALE, change=shared_host)
    before = shares(lab)
    assert report(lab)["figures"]["desktops_got"] < 0.9, "with their former shares desktops have to wait"

    shown = lab.playbook("cycle_harvesting", "--check", "--diff", *variables())
    assert shown.returncode == 0, shown.output
    assert "+cpu.shares: 100" in shown.output
    assert shares(lab) == before
    made = lab.playbook("cycle_harvesting", *variables())
    assert (made.returncode, made.count("changed")) == (0, {"vcenter.lab": 1}), made.output
    assert shares(lab) == {"desktops": (100, 100, 10), "compute": (1, 1, 0)}

    let_a_day_pass(lab)
    day = report(lab)
    asked, got = (series["values"] for series in day["charts"][1]["series"])
    harvested = day["charts"][2]["series"][1]["values"]
    assert len(asked) > 8 * 12
    assert max(asked) > 2 * min(asked)
    for wanted, office, compute in zip(asked, got, harvested, strict=True):
        assert office >= 0.98 * wanted, "a desktop had to wait"
        assert abs(office + compute - FREE_GHZ) < 0.02, "compute left something"
    assert day["figures"]["desktops_worst"]["share"] >= 0.98

    again = lab.playbook("cycle_harvesting", *variables())
    assert (again.returncode, again.count("changed")) == (0, {})
    back = lab.playbook("cycle_harvesting", *variables(cycle_harvesting_state="absent"))
    assert (back.returncode, back.count("changed")) == (0, {"vcenter.lab": 1}), back.output
    assert shares(lab) == before
    nothing = lab.playbook("cycle_harvesting", *variables(cycle_harvesting_state="absent"))
    assert nothing.count("changed") == {}


def test_mistakes_are_said_before_anything_is_changed(lab: Lab) -> None:
    lab.start(change=shared_host)
    before = shares(lab)
    empty = lab.playbook("cycle_harvesting")
    assert empty.returncode != 0
    assert "cycle_harvesting_desktop_pools" in empty.output
    misspelt = lab.playbook("cycle_harvesting", *variables(cycle_harvesting_state="off"))
    assert misspelt.returncode != 0
    assert "present, absent" in misspelt.output
    unknown = lab.playbook("cycle_harvesting", *variables(cycle_harvesting_desktop_vms=["desk-9"]), "--check")
    assert unknown.returncode != 0
    assert "desk-9" in unknown.output
    assert shares(lab) == before
