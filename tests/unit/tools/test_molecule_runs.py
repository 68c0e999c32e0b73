"""tools/molecule and tools/mutation: which scenarios and mutations are chosen, and that the tables fit the tree."""

from __future__ import annotations

import re
import signal
import subprocess
from pathlib import Path

import pytest
import yaml

from molecule_runs import SCENARIOS, Outcome, Runs, UsageError, present_scenarios, scenarios_of, table
from mutation_check import TABLE, TOP, Mutation, TableError, chosen, noticed_at, read_table

PRESENT = ["slow__variant", "slow", "quick", "slower"]


@pytest.mark.parametrize(
    ("roles", "exact", "scenarios"),
    [
        ([], False, PRESENT),
        (["quick"], False, ["quick"]),
        (["slow"], False, ["slow__variant", "slow"]),
        (["slow"], True, ["slow"]),
        (["slow", "slow__variant"], False, ["slow__variant", "slow"]),
    ],
)
def test_a_role_has_its_scenario_and_its_variants(roles: list[str], exact: bool, scenarios: list[str]) -> None:
    assert scenarios_of(roles, PRESENT, exact=exact) == scenarios


def test_a_role_without_a_scenario_is_an_error_not_a_silent_success() -> None:
    with pytest.raises(UsageError, match="'quik'; there are: slow__variant"):
        scenarios_of(["quik"], PRESENT)


def test_the_longest_scenarios_are_first(tmp_path: Path) -> None:
    for name, seconds in (("a", 10), ("b", 300), ("default", 999)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "molecule.yml").touch()
        (tmp_path / name / "guests.yml").write_text(yaml.safe_dump({"molecule_seconds": seconds}))
    assert present_scenarios(tmp_path) == ["b", "a"]


def test_the_table_names_result_seconds_and_failing_step() -> None:
    lines = table([Outcome("a", True, 1.4), Outcome("bb", False, 60.6, "verify", Path("x.log"))]).splitlines()
    assert lines[1].split() == ["a", "ok", "1"]
    assert lines[2].split(maxsplit=3) == ["bb", "FAILED", "61", "at verify, log: x.log"]


def test_every_scenario_tests_a_role_and_can_fail() -> None:
    for scenario in present_scenarios():
        assert (TOP / "roles" / scenario.partition("__")[0]).is_dir(), scenario
        for step in ("converge", "side_effect", "verify"):
            assert (SCENARIOS / scenario / f"{step}.yml").is_file(), f"{scenario} has no {step}"
        assert "assert:" in (SCENARIOS / scenario / "verify.yml").read_text()
    for playbook in SCENARIOS.rglob("*.yml"):
        assert "ignore_errors" not in playbook.read_text(), playbook


def test_every_role_that_becomes_root_on_a_machine_has_a_scenario() -> None:
    """Its example says so: a role for the vCenter runs on the controller and needs no root."""
    roles = {example.parent.name for example in (TOP / "roles").glob("*/README.md") if _becomes_root(example)}
    assert "grid_guest_driver" in roles
    assert roles - {*present_scenarios()} == set()


def _becomes_root(example: Path) -> bool:
    return re.search(r"^\s+become: true$", example.read_text(), re.MULTILINE) is not None


def test_every_mutation_fits_the_tree() -> None:
    listed = re.findall(r"^(\w+):$", TABLE.read_text(), re.MULTILINE)
    assert len(listed) == len({*listed}), "YAML keeps only the last of two lists of one role"
    mutations = read_table()
    assert {mutation.role for mutation in mutations} <= {*present_scenarios()}
    for mutation in mutations:
        text = (TOP / mutation.file).read_text()
        assert mutation.applied(text) != text


def test_a_mutation_that_no_longer_fits_is_an_error() -> None:
    mutation = Mutation("role", "name", "file", "old", "new")
    assert mutation.applied("an old thing") == "an new thing"
    for text in ("nothing", "old old"):
        with pytest.raises(TableError, match="role: name"):
            mutation.applied(text)
    assert chosen([mutation], [], "am") == [mutation]
    assert chosen([mutation], ["role"], "else") == []
    with pytest.raises(TableError, match="no mutation breaks 'other'"):
        chosen([mutation], ["other"], "")


def test_what_a_mutation_broke_is_named_by_the_step_and_its_last_task() -> None:
    log = """INFO     [singularity > converge] Executing
TASK [gpuops.vsphere.singularity : Write the execution control list] ***********
changed: [gpu-vm-01]
INFO     [singularity > converge] Executed: Successful
INFO     [singularity > verify] Executing
TASK [Look at the guest] *******************************************************
TASK [Is it as wanted] *********************************************************
fatal: [gpu-vm-01]: FAILED! => {}
ERROR    [singularity > verify] Executed: Failed
TASK [Destroy the guests] ******************************************************
"""
    assert noticed_at(log) == " at verify: Is it as wanted"
    assert noticed_at("ERROR    [singularity > create] Executed: Failed\n") == " at create"
    assert noticed_at("Traceback\n") == ""


def test_a_scenario_is_ended_with_all_that_it_started_and_nobody_elses_is() -> None:
    runs = Runs()
    with (
        subprocess.Popen(["sh", "-c", "sleep 600 & echo; wait"], stdout=subprocess.PIPE, start_new_session=True) as own,
        subprocess.Popen(["sleep", "600"], start_new_session=True) as other,
    ):
        assert own.stdout is not None
        own.stdout.readline()
        runs.processes[own.pid] = own
        runs.end(other.pid)
        runs.end(own.pid)
        assert own.wait() == -signal.SIGTERM
        assert own.stdout.read() == b"", "what it started has ended too, and closed the pipe"
        assert other.poll() is None
        other.kill()
