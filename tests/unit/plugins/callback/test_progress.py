# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.gpuops.vsphere.plugins.callback.progress import line, note
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.progress import DIRECTORY, Progress


def told(directory: Path) -> list[dict[str, Any]]:
    return [json.loads(text) for file in directory.iterdir() for text in file.read_text().splitlines()]


def test_who_is_where_in_one_line() -> None:
    states: dict[str, dict[str, Any]] = {}
    for name, doing, percent, ended in [
        ("esx-2", "reboot", None, False),
        ("esx-1", "reboot", None, False),
        ("gpu-a", "migrate it", 10, False),
        ("gpu-a", "migrate it", 40, False),
        ("esx-3", "reboot", None, False),
        ("esx-3", "reboot", None, True),
    ]:
        note(states, {"name": name, "doing": doing, "percent": percent, "ended": ended})
    assert line(states) == "migrate it: gpu-a 40 %; reboot: esx-1, esx-2"
    assert line({}) == ""


def test_a_module_tells_what_it_is_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tmp_path.chmod(0o700)
    monkeypatch.setenv(DIRECTORY, str(tmp_path))
    progress = Progress()
    progress.tell("esx-1", "reboot", 5)
    progress.tell("esx-1", "reboot", ended=True)
    progress.close()
    progress.tell("esx-1", "too late")
    assert told(tmp_path) == [
        {"name": "esx-1", "doing": "reboot", "percent": 5, "ended": False},
        {"name": "esx-1", "doing": "reboot", "percent": None, "ended": True},
    ]
    assert [file.stat().st_mode & 0o777 for file in tmp_path.iterdir()] == [0o600]


@pytest.mark.parametrize("mode", [0o755, 0o770])
def test_a_directory_that_others_can_look_into_is_not_written_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: int
) -> None:
    tmp_path.chmod(mode)
    monkeypatch.setenv(DIRECTORY, str(tmp_path))
    Progress().tell("esx-1", "reboot")
    assert told(tmp_path) == []


def test_without_a_terminal_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(DIRECTORY, raising=False)
    Progress().tell("esx-1", "reboot")
    monkeypatch.setenv(DIRECTORY, str(tmp_path / "gone"))
    Progress().tell("esx-1", "reboot")
    assert list(tmp_path.iterdir()) == []
