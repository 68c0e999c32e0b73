"""`make demo` as a newcomer meets it: up, again, interrupted, down."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

TOP = Path(__file__).resolve().parents[3]
DEMO = [sys.executable, str(TOP / "tools" / "demo.py")]


class Demo:
    def __init__(self, lab: Path) -> None:
        self.lab = lab
        self.environment = os.environ | {"GPUOPS_LAB_DIR": str(lab), "ANSIBLE_NOCOLOR": "1"}

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*DEMO, *arguments], env=self.environment, capture_output=True, text=True, check=False, timeout=900
        )

    def start(self) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*DEMO, "up"],
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    @property
    def pid(self) -> int:
        return int((self.lab / "simulator.pid").read_text())


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[Demo]:
    demo = Demo(tmp_path / "lab")
    yield demo
    demo.run("down")


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def readme_output() -> list[str]:
    """The lines of the demo's summary that the README shows."""
    readme = (TOP / "README.md").read_text()
    shown = readme.partition("<!-- demo-output:start -->")[2].partition("<!-- demo-output:end -->")[0]
    lines = [line for line in shown.splitlines() if line.strip() and line.strip() not in ("```", "…")]
    assert len(lines) > 20
    return lines


def changed(output: str) -> list[int]:
    return [int(count) for count in re.findall(r"changed=(\d+)", output)]


def test_up_converges_and_a_second_up_changes_nothing(demo: Demo) -> None:
    first = demo.run("up")
    assert first.returncode == 0, first.stdout + first.stderr
    assert sum(changed(first.stdout)) > 0
    for name in (
        "esx-gpu-01.lab",
        "esx-gpu-02.lab",
        "esx-gpu-03.lab",
        "gpu-server-01",
        "grid_t4-4c",
        "V100",
        "P100",
        "T4",
    ):
        assert name in first.stdout
    for line in readme_output():
        assert line in first.stdout.replace(str(demo.lab), ".lab"), (
            f"README.md shows what the demo does not print: {line}"
        )

    second = demo.run("up")
    assert second.returncode == 0, second.stdout + second.stderr
    assert set(changed(second.stdout)) == {0}
    assert "nothing, everything is as wanted" in second.stdout

    pid = demo.pid
    down = demo.run("down")
    assert down.returncode == 0
    assert not alive(pid)
    assert not demo.lab.exists()


def test_secrets_are_private_and_not_in_the_output(demo: Demo) -> None:
    result = demo.run("up", "--", "--check")
    assert result.returncode == 0, result.stdout + result.stderr
    password = (demo.lab / "password").read_text().strip()
    assert (demo.lab / "password").stat().st_mode & 0o777 == 0o600
    assert demo.lab.stat().st_mode & 0o777 == 0o700
    assert password not in result.stdout + result.stderr
    arguments = Path(f"/proc/{demo.pid}/cmdline").read_text()
    assert password not in arguments


def test_ctrl_c_in_the_middle_is_carried_on_by_the_next_run(demo: Demo) -> None:
    process = demo.start()
    try:
        deadline = time.monotonic() + 3000
        while not (demo.lab / "state.json").exists() or "gpuops.intent" not in (demo.lab / "state.json").read_text():
            assert time.monotonic() < deadline
            assert process.poll() is None, process.communicate()[0]
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGINT)
        output, _ = process.communicate(timeout=60)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    assert process.returncode != 0
    assert "make demo" in output
    assert "Traceback" not in output
    assert json.loads((demo.lab / "ready.json").read_text())["pid"] == demo.pid
    assert alive(demo.pid)
    again = demo.run("up")
    assert again.returncode == 0, again.stdout + again.stderr


def test_a_second_demo_in_the_same_lab_is_refused(demo: Demo) -> None:
    process = demo.start()
    try:
        deadline = time.monotonic() + 300
        while not (demo.lab / "ready.json").exists():
            assert time.monotonic() < deadline
            time.sleep(0.05)
        second = demo.run("up")
        assert second.returncode == 1
        assert "another demo is at work" in second.stderr
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def test_down_with_nothing_running_says_so(demo: Demo) -> None:
    result = demo.run("down")
    assert result.returncode == 0
    assert "no simulator ran" in result.stdout
