# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Every playbook as a user whose role is exactly that of its jobs ends as an administrator's run does."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.privileges import ALWAYS, JOBS, needed, needs_of
from crash_test import difference, end_state
from lab import Lab, Model
from scenes import ONE, SCENES, THREE, TWO
from simulated import TOP

ROBOT, PASSWORD = "robot", "Robot-1-password"
AS_ROBOT = {"vcenter_username": ROBOT, "vcenter_password": PASSWORD}
SCENE = {scene.playbook: scene for scene in SCENES}
TIME_SCALE = 500
ALONE = ("cluster", "cluster_member")
"""A module of a job that no playbook of it runs: expand.yml and contract.yml do."""


@dataclasses.dataclass(frozen=True)
class Run:
    """A playbook, and how it is called if not as in its scene."""

    playbook: str
    arguments: tuple[str, ...] | None = None
    changes: bool = True

    def given(self) -> tuple[str, ...]:
        return SCENE[self.playbook].arguments if self.arguments is None else self.arguments


def limit(*hosts: str, **variables: Any) -> tuple[str, ...]:
    return ("--limit", ":".join(hosts), "-e", json.dumps(variables))


# An account that only looks is asked for nothing that it would need to do what is planned.
VALIDATE = Run("validate", limit(THREE, validate_privileges=False), changes=False)
REPORT = Run("report", limit(THREE), changes=False)
STEPS = (
    Run("esxi_passthrough", limit(ONE)),
    Run("vgpu_host"),
    Run("gpu_vm", limit(ONE, THREE)),
)
"""Together what site.yml does."""
SITE = Run("site")
GROWN = Run("expand", ("-i", "inventories/pool", *limit(TWO, THREE)))


def jobs_of(playbook: str) -> tuple[str, ...]:
    """The jobs that docs/least-privilege.md gives a playbook."""
    page = (TOP / "docs" / "least-privilege.md").read_text()
    found = re.search(rf"^\| `{playbook}\.yml` \| (.*) \|$", page, flags=re.MULTILINE)
    assert found, f"docs/least-privilege.md does not say which jobs {playbook}.yml is"
    return tuple(re.findall(r"`(\w+)`", found[1]))


@contextlib.contextmanager
def lab_of(place: Path, scene: str) -> Iterator[Lab]:
    def change(model: Model) -> None:
        model["roles"], model["users"] = {ROBOT: []}, [{"name": ROBOT, "password": PASSWORD, "role": ROBOT}]
        if scene in SCENE and (changed := SCENE[scene].change):
            changed(model)

    lab = Lab(place)
    lab.start(time_scale=TIME_SCALE, change=change)
    try:
        yield lab
    finally:
        lab.stop()


def work(lab: Lab, runs: tuple[Run, ...]) -> dict[str, Any]:
    """The world after an administrator's runs."""
    for run in runs:
        if run.changes:
            done = lab.playbook(run.playbook, *run.given())
            assert done.returncode == 0, done.output
    return end_state(lab)


def run_with_just_enough(lab: Lab, run: Run) -> set[str]:
    """What a playbook asks for, run by a user who has exactly the privileges of its jobs."""
    role = lab.vcenter.ok("vcenter_role", name=ROBOT, jobs=list(jobs_of(run.playbook)))
    lab.vcenter.reset_counts()
    done = lab.playbook(run.playbook, *run.given(), "-e", json.dumps(AS_ROBOT))
    assert done.returncode == 0, done.output
    asked = lab.vcenter.privileges() - set(ALWAYS)
    beyond = asked - set(role["privileges"])
    assert not beyond, f"{run.playbook} would have done more with {beyond}"
    return asked


def work_with_just_enough(lab: Lab, runs: tuple[Run, ...]) -> dict[str, Any]:
    """The world after such runs, none of which has a privilege too many."""
    for run in runs:
        asked = run_with_just_enough(lab, run)
        assert superfluous(jobs_of(run.playbook), asked) == [], run.playbook
    lab.vcenter.ok("vcenter_role", name=ROBOT, jobs=[])
    return end_state(lab)


def superfluous(jobs: tuple[str, ...], used: set[str]) -> list[str]:
    """Privileges of the jobs that were not asked for, though nothing in the table says that a run may do without."""
    return [
        need.privilege
        for job in jobs
        for module in JOBS[job]
        for need in needs_of(job, module)
        if (job, module) != ALONE and need.privilege not in used and not need.case and not need.reason
    ]


def expected(place: Path, scene: str, *runs: Run) -> dict[str, Any]:
    with lab_of(place / "administrator", scene) as lab:
        return work(lab, runs)


def same_end(place: Path, scene: str, expected: dict[str, Any], *runs: Run) -> None:
    with lab_of(place, scene) as lab:
        assert difference(expected, work_with_just_enough(lab, runs)) == ""


def test_the_site_and_the_playbooks_that_are_its_steps(tmp_path: Path) -> None:
    world = expected(tmp_path, "site", SITE)
    same_end(tmp_path / "site", "site", world, VALIDATE, SITE, REPORT)
    same_end(tmp_path / "steps", "site", world, *STEPS)


@pytest.mark.parametrize(
    "runs",
    [
        (Run("esxi_rolling", (*limit(ONE), *SCENE["esxi_rolling"].arguments[2:])),),
        (Run("harvest"),),
        (Run("cycle_harvesting"), Run("vgpu_cluster")),
        (GROWN,),
    ],
    ids=lambda runs: runs[0].playbook,
)
def test_a_role_of_its_job_is_enough_for_a_playbook(tmp_path: Path, runs: tuple[Run, ...]) -> None:
    scene = runs[0].playbook
    same_end(tmp_path / ROBOT, scene, expected(tmp_path, scene, *runs), *runs)


@pytest.mark.parametrize("playbook", ["upgrade", "gpu_vm_change"])
def test_work_that_is_due_beside_its_own_asks_for_no_privilege(tmp_path: Path, playbook: str) -> None:
    world = expected(tmp_path, playbook, Run(playbook))
    with lab_of(tmp_path / ROBOT, playbook) as lab:
        run_with_just_enough(lab, Run(playbook))
        lab.vcenter.ok("vcenter_role", name=ROBOT, jobs=[])
        assert difference(world, end_state(lab)) == ""


def test_the_role_of_expansion_is_enough_for_contraction(tmp_path: Path) -> None:
    with lab_of(tmp_path / "lab", "contract") as lab:
        asked = run_with_just_enough(lab, Run("contract"))
    assert {"VirtualMachine.Inventory.Delete", "Host.Inventory.MoveHost"} <= asked


def test_the_inventory_shows_a_reader_what_it_shows_an_administrator(tmp_path: Path) -> None:
    with lab_of(tmp_path / "lab", "site") as lab:
        shown = []
        lab.vcenter.ok("vcenter_role", name=ROBOT, jobs=["inventory"])
        for user in ({}, {"username": ROBOT, "password": PASSWORD}):
            path = tmp_path / "lab.gpu_inventory.yml"
            options = lab.vcenter.options(**user)
            path.write_text(yaml.safe_dump({"plugin": "gpuops.vsphere.gpu_inventory", **options}))
            shown.append(json.loads(lab.run("ansible-inventory", "-i", str(path), "--list")))
    assert shown[0]["_meta"]["hostvars"]
    assert shown[0] == shown[1]


def playbooks() -> dict[str, str]:
    return {path.stem: path.read_text() for path in (TOP / "playbooks").glob("*.yml")}


def test_the_page_gives_every_playbook_that_logs_in_its_jobs() -> None:
    logging_in = [name for name, text in playbooks().items() if "vcenter_hostname" in text and name != "vcenter_role"]
    given = {name: jobs_of(name) for name in (*logging_in, "site")}
    assert {job for jobs in given.values() for job in jobs} == set(JOBS) - {"inventory", "placement", "power", "lock"}
    imported = {
        name: re.findall(r"import_playbook: (\w+)[.]yml", text)
        for name, text in playbooks().items()
        if "import_playbook" in text
    }
    for name in ("site", "upgrade", "gpu_vm_change"):
        parts = [job for part in imported[name] for job in given.get(part, ())]
        assert set(needed(parts)) <= set(needed(jobs_of(name))), name
