"""tools/release: what it refuses, and that it builds, proves and keeps a release, on a small repository of its own."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
import yaml

from release_build import GATES, Release, ReleaseError, refusals, with_version

TOP = Path(__file__).resolve().parents[3]
GREEN = (("true",),)
PARTS = (
    "galaxy.yml",
    "LICENSE",
    "README.md",
    "changelogs",
    "meta",
    "plugins",
    "roles/gpu_doctor",
    "playbooks/gpu_doctor.yml",
)


def git(repository: Path, *words: str) -> None:
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", *identity, *words], cwd=repository, check=True, capture_output=True)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """The collection's parts that the proof needs, committed."""
    top = tmp_path / "repository"
    for part in PARTS:
        source, target = TOP / part, top / part
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(source, target)
    fragments = top / "changelogs" / "fragments"
    shutil.rmtree(fragments)
    fragments.mkdir()
    (fragments / "one.yml").write_text("minor_changes:\n  - gpu_doctor - says what is wrong with a guest.\n")
    (top / ".gitignore").write_text("/build/\n")
    git(top, "init", "--quiet")
    git(top, "add", "-A")
    git(top, "commit", "--quiet", "-m", "first")
    return top


@pytest.mark.parametrize(
    ("version", "dirty", "fragments", "says"),
    [
        ("1.2.3", [], ["a.yml"], []),
        ("1.2.3-rc.1", [], ["a.yml"], []),
        ("1.2", [], ["a.yml"], ["no semantic version"]),
        ("v1.2.3", [], ["a.yml"], ["no semantic version"]),
        ("0.9.0", [], ["a.yml"], ["has been released"]),
        ("1.2.3", ["plugins/x.py"], ["a.yml"], ["dirty (plugins/x.py)"]),
        ("1.2.3", [], [], ["no changelog fragment"]),
        ("x", ["a", "b", "c", "d", "e", "f"], [], ["no semantic version", "…", "no changelog fragment"]),
    ],
)
def test_what_speaks_against_a_release(version: str, dirty: list[str], fragments: list[str], says: list[str]) -> None:
    found = refusals(version, dirty, fragments, ["0.9.0"])
    assert len(found) == len(says)
    for text, part in zip(found, says, strict=True):
        assert part in text


def test_the_version_is_one_line_of_galaxy_yml() -> None:
    assert (
        with_version("namespace: a\nversion: 0.1.0\nreadme: x\n", "1.0.0")
        == "namespace: a\nversion: 1.0.0\nreadme: x\n"
    )
    with pytest.raises(ReleaseError, match="no line"):
        with_version("name: x\n", "1.0.0")


def test_the_operators_gates_are_all_tests_and_cannot_be_left_out() -> None:
    assert [gate[1] for gate in GATES] == ["lint", "unit", "integration", "molecule"]
    result = subprocess.run(
        [sys.executable, TOP / "tools" / "release_build.py", "--help"], capture_output=True, text=True, check=True
    )
    assert "--" not in result.stdout.replace("--help", "")


def stand_in_make(directory: Path, *, red: str = "") -> Path:
    """Put a `make` in the way of the real one: it notes its target and fails for `red`. Return the file of notes."""
    notes, program = directory / "targets", directory / "bin" / "make"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\necho "$*" >> {notes}\n[ "$*" != "{red}" ]\n')
    program.chmod(0o755)
    return notes


@pytest.mark.parametrize("red", [gate[1] for gate in GATES])
def test_each_gate_is_run_and_a_red_one_stops_the_release(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, red: str
) -> None:
    notes = stand_in_make(tmp_path, red=red)
    monkeypatch.setenv("PATH", f"{notes.parent / 'bin'}:{os.environ['PATH']}")
    with pytest.raises(ReleaseError, match=f"`make {red}` failed .exit code 1.: nothing was built"):
        Release(repository, "1.0.0").run()
    targets = [gate[1] for gate in GATES]
    assert notes.read_text().split() == targets[: targets.index(red) + 1]
    assert not (repository / "build").exists()
    assert yaml.safe_load((repository / "galaxy.yml").read_text())["version"] != "1.0.0"


def test_with_every_gate_green_it_goes_on_to_build(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    notes = stand_in_make(tmp_path)
    monkeypatch.setenv("PATH", f"{notes.parent / 'bin'}:{os.environ['PATH']}")
    Release(repository, "1.0.0").test()
    assert notes.read_text().split() == ["lint", "unit", "integration", "molecule"]


def test_gates_that_leave_the_tree_dirty_are_no_release(repository: Path) -> None:
    with pytest.raises(ReleaseError, match="left the tree dirty"):
        Release(repository, "1.0.0", (("touch", "left-over"),)).run()
    assert not (repository / "build").exists()


def test_the_gates_are_what_they_are_called() -> None:
    """What `make` would run for them has every tool: a gate that tests nothing is green too."""
    commands = subprocess.run(
        ["make", "--dry-run", "--directory", TOP, *(gate[1] for gate in GATES)],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    wanted = (
        "ruff check",
        "mypy",
        "ansible-lint",
        "tools/sanity",
        "tests/unit",
        "simulator/tests",
        "tests/integration",
    )
    assert [text for text in (*wanted, "tools/molecule test") if text not in commands] == []
    assert re.search(r"^tools/molecule test\s*$", commands, re.MULTILINE), "all roles, none named"


def test_a_dirty_tree_is_refused_before_anything_runs(repository: Path) -> None:
    (repository / "README.md").write_text("changed\n")
    with pytest.raises(ReleaseError, match=r"dirty \(README.md\)"):
        Release(repository, "1.0.0", (("touch", "gate-ran"),)).run()
    assert not (repository / "gate-ran").exists()


def test_without_a_fragment_it_is_refused(repository: Path) -> None:
    git(repository, "rm", "--quiet", "changelogs/fragments/one.yml")
    git(repository, "commit", "--quiet", "-m", "none")
    with pytest.raises(ReleaseError, match="no changelog fragment"):
        Release(repository, "1.0.0", GREEN).run()


def test_a_red_gate_builds_nothing(repository: Path) -> None:
    with pytest.raises(ReleaseError, match="`false` failed"):
        Release(repository, "1.0.0", (("true",), ("false",), ("touch", "later"))).run()
    assert not (repository / "later").exists()
    assert not (repository / "build").exists()


def test_a_release_is_built_proved_and_kept(repository: Path) -> None:
    Release(repository, "1.0.0", GREEN).run(programs=Path(sys.executable).parent)
    output = repository / "build" / "release"
    tarball = output / "gpuops-vsphere-1.0.0.tar.gz"
    digest, name = (output / "gpuops-vsphere-1.0.0.tar.gz.sha256").read_text().split()
    assert name == tarball.name
    assert digest == hashlib.sha256(tarball.read_bytes()).hexdigest()
    with tarfile.open(tarball) as stream:
        names = stream.getnames()
        assert "CHANGELOG.rst" in names
        assert "playbooks/gpu_doctor.yml" in names
    assert "says what is wrong with a guest" in (output / "CHANGELOG.rst").read_text()
    assert yaml.safe_load((repository / "galaxy.yml").read_text())["version"] == "1.0.0"
    assert not list((repository / "changelogs" / "fragments").glob("*.yml"))
    git(repository, "add", "-A")
    git(repository, "commit", "--quiet", "-m", "released")
    with pytest.raises(ReleaseError, match=r"1.0.0 has been released.*no changelog fragment"):
        Release(repository, "1.0.0", GREEN).check()


def test_a_tarball_whose_playbook_does_not_run_is_no_release(repository: Path) -> None:
    shutil.rmtree(repository / "plugins" / "filter")
    git(repository, "add", "-A")
    git(repository, "commit", "--quiet", "-m", "broken")
    with pytest.raises(ReleaseError, match=r"playbook gpuops.vsphere.gpu_doctor of the tarball fails"):
        Release(repository, "1.0.0", GREEN).run(programs=Path(sys.executable).parent)
    assert yaml.safe_load((repository / "galaxy.yml").read_text())["version"] != "1.0.0"
