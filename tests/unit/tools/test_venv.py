"""tools/venv takes the newest Python that really runs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

TOP = Path(__file__).resolve().parents[3]


def which(path: list[Path], **extra: str) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": os.pathsep.join([*map(str, path), "/usr/bin", "/bin"]), "HOME": os.environ["HOME"], **extra}
    return subprocess.run(
        [TOP / "tools" / "venv", "which"], env=environment, capture_output=True, text=True, check=False, timeout=60
    )


def program(path: Path, text: str) -> None:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def answering(version: int) -> str:
    """A stand-in interpreter: it answers the probe as Python 3.<version> would."""
    return f'echo "{version} yes $0"'


def test_a_shim_that_fails_is_passed_over(tmp_path: Path) -> None:
    program(tmp_path / "python3.14", "echo 'python3.14: command not found' >&2; exit 127")
    program(tmp_path / "python3.13", answering(13))
    assert which([tmp_path]).stdout.strip() == str(tmp_path / "python3.13")


def test_the_newest_wins_wherever_it_is_on_the_path(tmp_path: Path) -> None:
    (tmp_path / "first").mkdir()
    (tmp_path / "second").mkdir()
    program(tmp_path / "first" / "python3", answering(12))
    program(tmp_path / "second" / "python3.14", answering(14))
    assert which([tmp_path / "first", tmp_path / "second"]).stdout.strip() == str(tmp_path / "second" / "python3.14")


def test_a_named_python_is_the_only_candidate(tmp_path: Path) -> None:
    program(tmp_path / "python3.14", answering(14))
    assert which([tmp_path], PYTHON=sys.executable).stdout.strip() == sys.executable


def test_no_python_that_runs_is_one_line_that_says_what_to_do() -> None:
    result = which([], PYTHON="/bin/false")
    assert result.returncode == 1
    assert result.stderr.count("\n") == 1
    assert "PYTHON=" in result.stderr
