# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""An evening, a night and a morning by the playbook itself: a user who comes, a controller that is killed, a pool."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import slurm_commands
from lab import Lab, Model, Run, kill_hard
from simulated import wait_for
from slurm import Job, Slurm

ONE, TWO = "esx-gpu-01.lab", "esx-gpu-02.lab"
EVENING, NIGHT, MORNING = "2026-01-13T20:00:00+01:00", "2026-01-14T01:00:00+01:00", "2026-01-14T06:58:00+01:00"
BIG_BARS = {"pciPassthru.use64bitMMIO": "TRUE", "pciPassthru.64bitMMIOSizeGB": "128"}
SHAPE = {"firmware": "efi", "hardware_version": 21, "memory_mb": 8192, "memory_locked": True, "extra_config": BIG_BARS}
DESKTOPS = [f"desk-{number}" for number in range(1, 5)]
CHECK = """#!/bin/sh
case "$1" in
  desk-2) exit 1 ;;
  desk-4) sleep 600 ;;
esac
"""


def model(lab: Model) -> None:
    """Two hosts with two A100 each: a desktop on each GPU, and a machine that is to compute."""
    hosts = {host["name"]: host for host in lab["clusters"][0]["hosts"]}
    for name in (ONE, TWO):
        gpus = [{"gpu": "A100-40", "count": 2}]
        hosts[name] |= {"gpus": gpus, "vgpu_manager": "16.4", "graphics_type": "sharedDirect"}
    half, full = ([{"mode": "vgpu", "profile": f"nvidia_a100-{size}c"}] for size in (20, 40))
    lab["vms"] = [
        {"name": name, "host": ONE if number < 2 else TWO, "power": "on", "gpus": half, **SHAPE}
        for number, name in enumerate(DESKTOPS)
    ] + [{"name": "train-1", "host": ONE, "gpus": full, **SHAPE}]


class Site:
    """The lab, and how the site has set up harvesting."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.directory = lab.directory / "kept"
        self.slurm_file = lab.directory / "slurm.json"
        lab.programs = lab.directory / "programs"
        slurm_commands.install(lab.programs, self.slurm_file)
        slurm_commands.save(self.slurm_file, Slurm())

    def options(self, now: str, **more: Any) -> tuple[str, ...]:
        """Arguments of the playbook at a time."""
        hook = {"role": "gpuops.vsphere.gpu_harvest"}
        variables: dict[str, Any] = {
            "gpu_harvest_now": now,
            "gpu_harvest_directory": str(self.directory),
            "gpu_harvest_clusters": ["gpu"],
            "gpu_harvest_schedules": {
                "office": {"timezone": "Europe/Berlin", "ready_by": "07:30", "lend_from": "19:00"}
            },
            "gpu_harvest_desktops": [{"name": name, "lend": True, "cpu_mhz": [40] * 6} for name in DESKTOPS],
            "gpu_harvest_compute": ["train-1", "train-2"],
            "gpu_harvest_compute_profile": "nvidia_a100-40c",
            "gpu_harvest_compute_template": "gpu-server-template",
            "gpu_harvest_slurm_controllers": ["localhost"],
            "gpu_harvest_slurm_become": False,
            "gpu_harvest_leave_pool": [hook | {"tasks_from": "slurm_leave"}],
            "gpu_harvest_join_pool": [hook | {"tasks_from": "slurm_join"}],
            "gpu_harvest_grace": 10,
            "gpu_harvest_guest_timeout": 2,
            "gpu_harvest_lock_tries": 1,
        }
        return ("-e", json.dumps(variables | more))

    def run(self, now: str, *arguments: str, **more: Any) -> Run:
        """Run the playbook to its end."""
        return self.lab.playbook("harvest", *self.options(now, **more), *arguments)

    def ok(self, now: str, *arguments: str, **more: Any) -> Run:
        """The same where nothing may go wrong."""
        run = self.run(now, *arguments, **more)
        assert run.returncode == 0, run.output
        return run

    def power(self) -> dict[str, str]:
        """Which machines have which power state."""
        return {name: vm["power"] for name, vm in self.lab.vms().items()}

    def slurm(self) -> Slurm:
        """The pool as it is now."""
        return slurm_commands.load(self.slurm_file)

    def time_passes(self, seconds: float) -> None:
        """Jobs get on with it on the machines that run."""
        pool = self.slurm()
        pool.advance(
            seconds, {name for name, state in self.power().items() if name[:5] == "train" and state == "poweredOn"}
        )
        slurm_commands.save(self.slurm_file, pool)

    def report(self) -> dict[str, Any]:
        """The report of all runs so far."""
        data: dict[str, Any] = json.loads((self.directory / "harvest.json").read_text())
        return data


def of(power: dict[str, str], state: str) -> list[str]:
    return sorted(name for name, found in power.items() if found == state)


@pytest.fixture
def site(lab: Lab) -> Site:
    lab.start(change=model)
    return Site(lab)


def test_a_night_of_the_playbook(site: Site) -> None:
    before = site.lab.state()
    shown = site.ok(EVENING, "--check")
    assert site.lab.state() == before
    assert "suspend  desk-1   idle" in shown.output
    assert "clone    train-2  on esx-gpu-0" in shown.output

    evening = site.ok(EVENING)
    assert evening.count("changed") == shown.count("changed")
    assert of(site.power(), "suspended") == DESKTOPS
    assert of(site.power(), "poweredOn") == ["train-1", "train-2"]
    assert not site.ok(EVENING.replace("20:00", "20:10")).count("changed"), "ten minutes later there is nothing to do"

    pool = site.slurm()
    pool.submit(Job(1, 36000, checkpoints=True))
    pool.submit(Job(2, 36000, deaf=True))
    slurm_commands.save(site.slurm_file, pool)
    site.time_passes(0)
    site.time_passes(3600)
    assert {job.node for job in site.slurm().jobs.values()} == {"train-1", "train-2"}

    # Somebody comes at one o'clock, and it fits where nobody computes.
    assert "resume  desk-3" in site.ok(NIGHT, gpu_harvest_wanted="desk-3").output
    assert of(site.power(), "suspended") == ["desk-1", "desk-2", "desk-4"]

    morning = site.lab.start_playbook("harvest", *site.options(MORNING))
    wait_for(lambda: site.power()["desk-1"] == "poweredOn" or morning.poll() is not None, "the return begins", 240)
    output = kill_hard(morning)
    assert "release  train-1" in output
    site.ok(MORNING)
    assert of(site.power(), "poweredOn") == DESKTOPS
    assert of(site.power(), "poweredOff") == ["train-1", "train-2"]
    jobs = site.slurm().jobs
    assert [job.node for job in jobs.values()] == [None, None]
    assert [job.requeued for job in jobs.values()] == [1, 1]
    assert jobs[1].left == 32400, "its checkpoint was not lost"
    assert not site.ok("2026-01-14T12:00:00+01:00").count("changed")

    night = site.report()["nights"][0]
    assert (night["desktops_lent"], night["desktops_late"]) == (4, 0)
    assert [sample["compute"] for sample in night["series"]][:3] == [0, 2, 2]

    # What the runs have written is what the fleet page takes.
    page, metrics = site.directory / "fleet.html", site.directory / "fleet.prom"
    files = {"report_page_file": str(page), "report_metrics_file": str(metrics)}
    harvested = {"report_harvest_file": str(site.directory / "harvest.json")}
    run = site.lab.playbook("report", "-e", json.dumps(files | harvested))
    assert page.exists(), run.output
    assert f"{night['gpu_hours_harvested']:.1f} GPU hours harvested" in page.read_text()
    figures = dict(line.rsplit(" ", 1) for line in metrics.read_text().splitlines() if not line.startswith("#"))
    assert float(figures["gpuops_harvest_gpu_hours"]) == pytest.approx(night["gpu_hours_harvested"])
    assert float(figures["gpuops_harvest_desktops_lent"]) == 4

    # The next evening its nodes take jobs again.
    site.ok("2026-01-14T20:00:00+01:00")
    assert not any(node.drained for node in site.slurm().nodes.values())


def test_a_check_that_says_no_or_nothing_leaves_the_desktop_alone(site: Site, tmp_path: Path) -> None:
    check = tmp_path / "check"
    check.write_text(CHECK)
    check.chmod(0o755)
    run = site.ok(EVENING, gpu_harvest_check=[str(check)], gpu_harvest_check_timeout=3)
    assert of(site.power(), "suspended") == ["desk-1", "desk-3"]
    assert "desk-4: the site's check hung: killed after 3 s" in run.output
    assert "desk-4: the site's check failed or hung." in run.output


def test_desktops_return_also_where_the_controller_of_the_pool_is_lost(site: Site, tmp_path: Path) -> None:
    site.ok(EVENING)
    lost = tmp_path / "lost.yml"
    lost.write_text("all: {hosts: {ctl-01: {ansible_host: 127.0.0.1, ansible_port: 9, ansible_connection: ssh}}}")
    run = site.run(MORNING, "-i", str(lost), gpu_harvest_slurm_controllers=["ctl-01"])
    assert of(site.power(), "poweredOn") == DESKTOPS, run.output
    assert site.lab.locks() == []
    assert "could not leave the pool in order: ctl-01 cannot be reached over SSH" in run.output


def test_what_the_site_has_wrong_is_said_and_nothing_is_touched(site: Site) -> None:
    before = site.lab.vms()
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"gpu_harvest_grace": 900}, "must be longer than gpu_harvest_grace"),
        ({"gpu_harvest_schedules": {"office": {"timezone": "Mars"}}}, "timezone 'Mars' is unknown"),
        ({"gpu_harvest_wanted": "desk-9"}, "wanted: desk-9 is not in desktops"),
    ]
    for changes, says in wrong:
        run = site.run(EVENING, **changes)
        assert run.returncode == 2, run.output
        assert says in run.output.replace("\n", " ")
    assert site.lab.vms() == before
