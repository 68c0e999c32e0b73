# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""site.yml on the lab: the plan from nothing, the work, and nothing more to do."""

from __future__ import annotations

import dataclasses
import json
import re
import resource
import stat
import typing as t

import pytest
from lab import Lab, Run

HOSTS = ["esx-gpu-01.lab", "esx-gpu-02.lab", "esx-gpu-03.lab"]
TIME_SCALE = 60  # the demo's own pace
ONE, TWO, THREE = HOSTS
GPUS = {"gpu-server-01": 2, "gpu-server-02": 2}
"""Virtual machines with whole GPUs, and how many."""
VGPUS = {"gpu-server-03a": "grid_t4-8c", "gpu-server-03b": "grid_t4-4c"}
"""Virtual machines with vGPUs, and their profiles: one by name, one chosen by what it needs."""


@dataclasses.dataclass(frozen=True)
class Story:
    """Three runs of site.yml in the same lab, and what the simulator had after each."""

    lab: Lab
    before: bytes
    plan: Run
    after_plan: bytes
    first: Run
    first_cpu_s: float
    after_first: bytes
    second: Run
    after_second: bytes
    logins: list[int]
    reboots: int


@pytest.fixture(scope="module")
def story(module_lab: Lab) -> Story:
    lab = module_lab
    lab.start(time_scale=TIME_SCALE)
    logins = []
    before = lab.state()
    # looking at the simulator's world logs in too, so logins are counted around the runs only
    lab.vcenter.reset_counts()
    plan = lab.playbook("site", "--check", "--diff")
    logins.append(lab.vcenter.counts()["logins"])
    after_plan = lab.state()
    before_first_s = cpu_s()
    first = lab.playbook("site")
    first_cpu_s = cpu_s() - before_first_s
    logins.append(lab.vcenter.counts()["logins"])
    after_first = lab.state()
    second = lab.playbook("site", "-vvvv")
    logins.append(lab.vcenter.counts()["logins"])
    reboots = lab.vcenter.counts()["requests"]["RebootHost_Task"]
    return Story(lab, before, plan, after_plan, first, first_cpu_s, after_first, second, lab.state(), logins, reboots)


def cpu_s() -> float:
    """Processor time of all processes that have ended so far, in seconds."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def section(run: Run, title: str) -> list[str]:
    """The lines of one part of the summary."""
    match = re.search(rf"^{title}[^\n]*\n((?:  .*\n)*)", run.output, flags=re.MULTILINE)
    assert match, f"no part {title!r} in the summary:\n{run.output[-4000:]}"
    lines: list[str] = []
    heading = ""
    for line in match.group(1).splitlines():
        if not line.startswith("    "):
            heading = line.strip()
            lines.append(heading)
        else:
            lines.append(f"{heading}: {line.strip()}")
    return lines


def test_the_plan_from_an_empty_cluster_is_whole(story: Story) -> None:
    assert story.plan.returncode == 0, story.plan.output
    planned = section(story.plan, "Would be changed")
    for host in HOSTS:
        assert any(line.startswith(f"{host}: enable 0000:3b:00.0 passthrough") for line in planned) is (host != THREE)
        assert sum(line.startswith(f"{host}: reboot host") for line in planned) == 1
    assert f"{THREE}: install vGPU manager (535.154.02, host patch)" in planned
    assert f"{THREE}: set 0000:3b:00.0 graphics_type (sharedDirect, was shared)" in planned
    for vm, profile in VGPUS.items():
        assert any(line.startswith(f"{vm}: attach GPU {profile} (vGPU") for line in planned)
    for vm, count in (GPUS | dict.fromkeys(VGPUS, 1)).items():
        assert any(
            line.startswith(f"{vm}: create virtual machine (clone of gpu-server-template on ") for line in planned
        )
        assert sum(line.startswith(f"{vm}: attach GPU ") for line in planned) == count
        assert any(line.startswith(f"{vm}: power on") for line in planned)
    assert "+0000:3b:00.0 passthrough: true" in story.plan.output


def test_the_plan_changes_nothing(story: Story) -> None:
    assert story.after_plan == story.before


def test_the_plan_is_what_is_done(story: Story) -> None:
    assert section(story.plan, "Would be changed") == section(story.first, "Changed in this run")


def test_one_run_converges_hosts_and_machines(story: Story) -> None:
    assert story.first.returncode == 0, story.first.output
    assert set(story.first.count("changed")) == set(HOSTS)
    hosts = story.lab.hosts()
    assert {name: len(hosts[name]["active"]) for name in HOSTS} == {ONE: 2, TWO: 2, THREE: 0}
    assert not any(host["in_maintenance"] or host["intent"] for host in hosts.values())
    assert story.lab.vms() == {
        "gpu-server-01": {"power": "poweredOn", "host": ONE, "gpus": 2},
        "gpu-server-02": {"power": "poweredOn", "host": TWO, "gpus": 2},
        "gpu-server-03a": {"power": "poweredOn", "host": THREE, "gpus": 1},
        "gpu-server-03b": {"power": "poweredOn", "host": THREE, "gpus": 1},
    }
    assert story.lab.vgpus() == {vm: [profile] for vm, profile in VGPUS.items()}


def test_the_vgpu_host_has_its_manager_and_rebooted_once(story: Story) -> None:
    assert set(VGPUS.values()) <= set(story.lab.vcenter.host(THREE)["vgpu_types"])
    wanted = {"name": THREE, "version": "535.154.02"}
    assert not story.lab.vcenter.ok("esxi_driver", hosts=[wanted])["changed"]
    assert story.reboots == len(HOSTS)


def test_hosts_without_gpus_are_not_touched(story: Story) -> None:
    booted = {name: host["booted"] for name, host in story.lab.hosts().items()}
    assert booted["esx-gen-01.lab"] == booted["esx-gen-02.lab"]
    assert all(booted[name] > booted["esx-gen-01.lab"] for name in HOSTS)


def test_the_second_run_has_nothing_to_do_and_says_so(story: Story) -> None:
    assert story.second.returncode == 0, story.second.output
    assert story.second.count("changed") == {}
    assert story.after_second == story.after_first
    assert section(story.second, "Changed in this run") == ["nothing, everything is as wanted"]


def test_the_summary_says_who_holds_which_gpu(story: Story) -> None:
    gpus = section(story.second, "GPUs")
    assert re.search(r"0000:3b:00.0\s+V100-32\s+passthrough active\s+gpu-server-01", "\n".join(gpus))
    assert re.search(r"0000:3b:00.0\s+T4\s+shared direct \(vGPU\)\s+gpu-server-03a", "\n".join(gpus))
    assert section(story.second, "GPU servers")[1:] == [
        f"gpu-server-02 on {TWO}, powered on: 2 x P100-16 (0000:3b:00.0, 0000:5e:00.0)",
        f"gpu-server-03a on {THREE}, powered on: 1 x grid_t4-8c (0000:3b:00.0)",
        f"gpu-server-03b on {THREE}, powered on: 1 x grid_t4-4c (0000:5e:00.0)",
    ]


def test_the_report_is_private_json(story: Story) -> None:
    file = story.lab.directory / "report.json"
    report: dict[str, t.Any] = json.loads(file.read_text(encoding="utf-8"))
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    machines = report["virtual_machines"]
    assert {vm: sum(machines[vm]["models"].values()) for vm in machines} == GPUS | dict.fromkeys(VGPUS, 0)
    assert {vm: machines[vm]["vgpus"] for vm in VGPUS} == {vm: {profile: 1} for vm, profile in VGPUS.items()}
    assert [entry["open_points"] for entry in report["hosts"].values()] == [[], [], []]


def test_the_report_draws_the_fleet_page(story: Story) -> None:
    page = story.lab.directory / "fleet.html"
    assert f"{page} shows the fleet in a browser" in story.second.output
    assert f"{page} shows" not in story.plan.output, "a plan writes nothing"
    text = page.read_text(encoding="utf-8")
    assert all(f'"name":"{name}"' in text for name in (*HOSTS, *GPUS, *VGPUS))
    assert '"vgpus":2' in text


def test_all_runs_share_one_login(story: Story) -> None:
    assert story.logins[0] == 1
    assert story.logins[1] == story.logins[0], "the second process logged in again"


def test_the_play_takes_less_than_a_minute(story: Story) -> None:
    # What it takes on a machine that does nothing else: its own work, and three boots with maintenance mode around.
    waiting_s = 3 * (180 + 2 * 20) / TIME_SCALE
    assert story.first_cpu_s + waiting_s < 60


def test_the_password_is_nowhere(story: Story) -> None:
    secret = story.lab.password
    for run in (story.plan, story.first, story.second):
        assert secret not in run.output
    files = [path for path in story.lab.directory.rglob("*") if path.is_file() and path.name != "password"]
    sessions = [path for path in files if path.parent.name == "sessions"]
    assert sessions
    for path in files:
        assert secret not in path.name
        assert secret.encode() not in path.read_bytes(), f"{path} holds the password"
    for path in sessions:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert "administrator" not in path.name
