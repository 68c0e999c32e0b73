"""A program with its commands is installed and replaced so that whoever runs it never meets half of it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import typing as t
from pathlib import Path

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.gpuops.vsphere.plugins.modules import python_program

CLI = "import sys\nfrom .text import TEXT\n\n\ndef main() -> int:\n    print(TEXT, *sys.argv[1:])\n    return 3\n"


def program(text: str) -> dict[str, str]:
    return {"tool/__init__.py": "", "tool/cli.py": CLI, "tool/text.py": f"TEXT = {text!r}\n"}


@pytest.fixture
def run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> t.Callable[..., dict[str, t.Any]]:
    def call(check: bool = False, **settings: t.Any) -> dict[str, t.Any]:
        arguments = {
            "directory": str(tmp_path / "lib"),
            "files": program("one"),
            "main": "tool.cli:main",
            "commands": [
                {"path": str(tmp_path / "bin/tool")},
                {"path": str(tmp_path / "lib/prolog"), "arguments": ["prolog", "a b"]},
            ],
            "interpreter": sys.executable,
            "_ansible_check_mode": check,
            "_ansible_diff": True,
        } | settings
        with patch_module_args(arguments), pytest.raises(SystemExit):
            python_program.main()
        return dict(json.loads(capsys.readouterr().out))

    return call


def says(*command: str | Path) -> tuple[int, str]:
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd="/", env={})
    return done.returncode, done.stdout + done.stderr


def test_install_replace_and_again(tmp_path: Path, run: t.Callable[..., dict[str, t.Any]]) -> None:
    first = run()
    assert first["changed"]
    assert says(tmp_path / "bin/tool", "more") == (3, "one more\n")
    assert says(tmp_path / "lib/prolog", "x y") == (3, "one prolog a b x y\n")
    assert not run()["changed"]

    changed = run(files=program("two"))
    assert says(tmp_path / "bin/tool") == (3, "two\n")
    assert next((part["before"], part["after"]) for part in changed["diff"]) == ("TEXT = 'one'\n", "TEXT = 'two'\n")
    assert (tmp_path / "lib" / first["version"] / "tool/cli.py").exists(), "who runs it may still import from it"
    run(files=program("three"))
    assert not (tmp_path / "lib" / first["version"]).exists()
    assert (tmp_path / "lib" / changed["version"]).exists()
    assert not [path for path in (tmp_path / "lib").iterdir() if path.name.startswith(".")]


def test_check_mode_shows_and_changes_nothing(tmp_path: Path, run: t.Callable[..., dict[str, t.Any]]) -> None:
    new = run(check=True)
    assert new["changed"]
    assert {Path(part["after_header"]).name for part in new["diff"]} == {
        "__init__.py",
        "cli.py",
        "text.py",
        "tool",
        "prolog",
    }
    assert list(tmp_path.iterdir()) == []
    run()
    before = sorted(tmp_path.rglob("*"))
    assert not run(check=True)["changed"]
    assert run(check=True, files=program("two"))["changed"]
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    "damage",
    [
        lambda version: (version / "tool/text.py").write_text("TEXT = 'edited'\n"),
        lambda version: (version / "tool/text.py").unlink(),
        lambda version: (version / "tool/extra.py").write_text(""),
        lambda version: (version / "tool/text.py").chmod(0o666),
        lambda version: version.chmod(0o700),
        lambda version: (version.parent / "prolog").chmod(0o644),
        lambda version: (version.parent / "prolog").unlink(),
    ],
    ids=["edited", "removed", "added", "writable", "closed", "not executable", "no command"],
)
def test_damage_is_mended(
    tmp_path: Path, run: t.Callable[..., dict[str, t.Any]], damage: t.Callable[[Path], object]
) -> None:
    damage(tmp_path / "lib" / run()["version"])
    assert run(check=True)["changed"]
    assert run()["changed"]
    assert says(tmp_path / "lib/prolog") == (3, "one prolog a b\n")
    assert not run()["changed"]


def test_killed_between_two_commands(tmp_path: Path, run: t.Callable[..., dict[str, t.Any]]) -> None:
    run()
    old = (tmp_path / "lib/prolog").read_text()
    run(files=program("two"))
    (tmp_path / "lib/prolog").write_text(old)
    assert says(tmp_path / "lib/prolog") == (3, "one prolog a b\n"), "the version before is whole"
    assert run(files=program("two"))["changed"]
    assert says(tmp_path / "lib/prolog") == (3, "two prolog a b\n")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"files": {"../x.py": ""}}, "files: '../x.py' is not the path of a Python module"),
        ({"main": "tool.cli"}, "main is 'tool.cli'; it must be like package.module:function."),
        ({"files": program("one") | {"tool/text.py": "TEXT = ("}}, "stays as it was.*was never closed"),
        ({"commands": [{"path": "{{ unset }}/tool"}]}, "commands: '{{ unset }}/tool' is not a path from the root."),
        ({"commands": [{"path": "/proc/nowhere/tool"}]}, "stays as it was. /proc/nowhere.*"),
    ],
    ids=["path", "main", "syntax", "no path", "place"],
)
def test_what_cannot_be_is_refused_and_the_program_stays(
    tmp_path: Path, run: t.Callable[..., dict[str, t.Any]], settings: dict[str, t.Any], said: str
) -> None:
    run()
    refused = run(**settings)
    assert refused["failed"]
    assert re.search(said, refused["msg"], re.DOTALL), refused["msg"]
    assert says(tmp_path / "bin/tool") == (3, "one\n")
