"""A controller's configuration is replaced as a whole, after Slurm (here a stand-in) could read it."""

from __future__ import annotations

import json
import typing as t
from pathlib import Path

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.gpuops.vsphere.plugins.modules import slurm_config

# Reads the configuration that it is pointed at, and no word that begins with "bad".
SCONTROL = """#!/bin/sh
if grep --quiet ^bad "$(dirname "$SLURM_CONF")"/*; then echo "scontrol: error: bad in $SLURM_CONF" >&2; exit 1; fi
"""
OLD, NEW = {"slurm.conf": "old\n", "nodes.conf": "same\n"}, {"slurm.conf": "new\n", "nodes.conf": "same\n"}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/scontrol").write_text(SCONTROL)
    (tmp_path / "bin/scontrol").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:/usr/bin:/bin")
    (tmp_path / "etc").mkdir()
    return tmp_path / "etc"


@pytest.fixture
def run(place: Path, capsys: pytest.CaptureFixture[str]) -> t.Callable[..., dict[str, t.Any]]:
    def call(check: bool = False, **settings: t.Any) -> dict[str, t.Any]:
        arguments = {"directory": str(place), "_ansible_check_mode": check, "_ansible_diff": True} | settings
        with patch_module_args(arguments), pytest.raises(SystemExit):
            slurm_config.main()
        return dict(json.loads(capsys.readouterr().out))

    return call


def files(place: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in place.iterdir() if path.is_file() and path.name[0] != "."}


def test_a_change_stays_pending_until_it_was_applied(place: Path, run: t.Callable[..., dict[str, t.Any]]) -> None:
    assert run(files=OLD)["changed"]
    assert run(state="applied") | {"invocation": 0} == {"changed": False, "pending": False, "invocation": 0}
    again = run(files=OLD)
    assert (again["changed"], again["pending"]) == (False, False)
    changed = run(files=NEW)
    assert (changed["changed"], changed["pending"], files(place)) == (True, True, NEW)
    assert [(part["before"], part["after"]) for part in changed["diff"]] == [("old\n", "new\n")]
    interrupted = run(files=NEW)
    assert (interrupted["changed"], interrupted["pending"]) == (False, True)


def test_check_mode_tests_and_shows_and_changes_nothing(place: Path, run: t.Callable[..., dict[str, t.Any]]) -> None:
    run(files=OLD)
    run(state="applied")
    assert run(check=True, files=NEW)["changed"]
    assert run(check=True, files={"slurm.conf": "bad\n"})["failed"]
    assert files(place) == OLD
    assert not run(files=OLD)["pending"]


def test_what_slurm_cannot_read_never_replaces_what_it_can(place: Path, run: t.Callable[..., dict[str, t.Any]]) -> None:
    run(files=OLD)
    refused = run(files=NEW | {"nodes.conf": "bad\n"})
    assert "the one in force stays: scontrol: error: bad in slurm.conf" in refused["msg"]
    assert files(place) == OLD
    assert not list(place.glob(".candidate-*"))


def test_back_to_what_was_before(place: Path, run: t.Callable[..., dict[str, t.Any]]) -> None:
    assert "nothing to go back to" in run(state="previous")["msg"]
    run(files=OLD)
    run(files=NEW)
    back = run(state="previous")
    assert (back["changed"], back["pending"], files(place)) == (True, True, OLD)
    assert "names without a directory" in run(files={"slurm.conf": "", "../x": ""})["msg"]
