"""One job of the benchmark without PyTorch, and whole runs with a stand-in for gpurun."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time
import types
from pathlib import Path
from typing import Any

import pytest

from gpubench import run, train

FILES = Path(run.__file__).parent
# Stands in for gpurun: notes its options, then runs a job that writes what train.py writes.
GPURUN = """#!{python}
import json, os, sys, time
words = sys.argv[1:]
job = dict(word[2:].split("=", 1) for word in words[words.index("--") + 1:] if word.startswith("--"))
with open("{root}/calls", "a") as calls:
    calls.write(" ".join(words[:words.index("--")]) + "\\n")
if os.path.exists("{root}/hang"):
    open("{root}/started-" + str(os.getpid()), "w").close()
    time.sleep(600)
if os.path.exists("{root}/broken") and job["number"] == "1":
    print("train.py: no memory"); print("srun: error: pool-01: task 0: Exited with exit code 1"); sys.exit(9)
open(job["out"], "w").write(json.dumps({{"number": int(job["number"]), "jobs": job["jobs"]}}))
"""


def plan(tmp_path: Path, **more: Any) -> Path:
    """A plan in a file, with the stand-in for gpurun."""
    gpurun = tmp_path / "gpurun"
    gpurun.write_text(GPURUN.format(python=sys.executable, root=tmp_path))
    gpurun.chmod(0o755)
    file = tmp_path / "plan.json"
    settings = {
        "jobs": 3, "fraction": 0.3, "model": "resnet50", "batch_size": 8, "image_size": 64, "steps": 5, "warmup": 1,
        "repeats": 2, "device": "auto", "threads": 0, "timeout_s": 60, "patience_s": 30,
        "launcher": [str(gpurun), "run"],
    }  # fmt: skip
    file.write_text(json.dumps({**settings, **more}))
    return file


def test_only_the_steps_after_the_meeting_are_measured() -> None:
    calls: list[str] = []
    clock = itertools.count(100.0, 2.0)
    times = train.measure(
        lambda: calls.append("step"),
        steps=3,
        warmup=2,
        settle=lambda: calls.append("settle"),
        meet=lambda: calls.append("meet"),
        clock=lambda: next(clock),
    )
    assert calls == ["step", "step", "settle", "meet"] + ["step", "settle"] * 3
    assert times == train.Times(100.0, 106.0, (2.0, 2.0, 2.0))


def test_jobs_wait_for_each_other(tmp_path: Path) -> None:
    gone: list[int] = []
    first = threading.Thread(target=lambda: (train.meeting(tmp_path, 0, 2, 60)(), gone.append(0)))
    first.start()
    while not (tmp_path / "ready-0").exists():
        time.sleep(0.01)
    assert gone == []
    train.meeting(tmp_path, 1, 2, 60)()
    first.join(60)
    assert gone == [0]


def test_a_job_that_the_others_do_not_join_says_so(tmp_path: Path) -> None:
    with pytest.raises(train.BenchError, match="only 1 of 3 jobs run at the same time after 0 s"):
        train.meeting(tmp_path, 0, 3, 0)()
    train.meeting(None, 0, 3, 0)()
    train.meeting(tmp_path, 0, 1, 0)()


@pytest.mark.parametrize(
    ("wanted", "gpu", "device"), [("auto", True, "cuda"), ("auto", False, "cpu"), ("cpu", True, "cpu")]
)
def test_device(wanted: str, gpu: bool, device: str) -> None:
    torch = types.SimpleNamespace(cuda=types.SimpleNamespace(is_available=lambda: gpu))
    assert train.device_kind(wanted, torch) == device


def test_a_gpu_that_is_wanted_must_be_there() -> None:
    torch = types.SimpleNamespace(cuda=types.SimpleNamespace(is_available=lambda: False))
    with pytest.raises(train.BenchError, match="sees no GPU"):
        train.device_kind("cuda", torch)


def test_without_pytorch_a_job_says_what_it_needs(tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("raise ImportError('No module named torch')")
    done = subprocess.run(
        [sys.executable, FILES / "train.py", f"--out={tmp_path / 'out'}"],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert (
        done.stderr
        == "train.py: No module named torch: the job needs PyTorch and torchvision, in its image or on the server\n"
    )


def test_names_of_processor_and_driver(tmp_path: Path) -> None:
    (tmp_path / "cpuinfo").write_text("processor\t: 0\nmodel name\t: A Processor @ 2GHz\n")
    assert train.cpu_name(tmp_path / "cpuinfo") == "A Processor @ 2GHz"
    assert train.cpu_name(tmp_path / "none")
    (tmp_path / "version").write_text("550.163.01\n")
    assert train.driver_version(tmp_path / "version") == "550.163.01"
    assert train.driver_version(tmp_path / "none") == ""


def test_alone_and_shared_take_turns(tmp_path: Path) -> None:
    assert run.main([str(plan(tmp_path, image="pytorch", gpu_type="t4", cpus=2)), str(tmp_path / "result.json")]) == 0
    runs = json.loads((tmp_path / "result.json").read_text())["runs"]
    assert [(one["phase"], one["repeat"], [job["number"] for job in one["jobs"]]) for one in runs] == [
        ("alone", 0, [0]), ("shared", 0, [0, 1, 2]), ("alone", 1, [0]), ("shared", 1, [0, 1, 2]),
    ]  # fmt: skip
    assert {job["jobs"] for one in runs for job in one["jobs"] if one["phase"] == "shared"} == {"3"}
    calls = (tmp_path / "calls").read_text().splitlines()
    alone = [call for call in calls if "-p" not in call.split()]
    assert len(calls) == 8
    assert len(alone) == 2
    assert all("run -n 1 " in call and "--image=pytorch --gpu-type=t4 --cpus=2" in call for call in calls)
    assert all("-p 0.3" in call for call in calls if call not in alone)
    # Nothing stays of the directories in which jobs meet.
    assert not list(tmp_path.glob("alone-*")) + list(tmp_path.glob("shared-*"))


def test_a_job_that_fails_ends_the_run_with_its_own_words(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "broken").touch()
    assert run.main([str(plan(tmp_path)), str(tmp_path / "result.json")]) == 1
    assert "benchmark: shared: job 2 of 3 ended with 9: train.py: no memory\n" in capsys.readouterr().err
    assert not (tmp_path / "result.json").exists()


def test_a_run_that_takes_too_long_is_ended(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "hang").touch()
    assert run.main([str(plan(tmp_path, timeout_s=0)), str(tmp_path / "result.json")]) == 1
    assert "alone: 1 of 1 jobs are not done after 0 s" in capsys.readouterr().err


def test_ended_from_outside_it_ends_its_jobs(tmp_path: Path) -> None:
    (tmp_path / "hang").touch()
    process = subprocess.Popen(
        [sys.executable, "-m", "gpubench.run", plan(tmp_path), tmp_path / "result.json"],
        cwd=FILES.parent,
        stderr=subprocess.PIPE,
        text=True,
    )
    while not (started := list(tmp_path.glob("started-*"))):
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    assert process.communicate(timeout=60)[1] == "benchmark: it was ended from outside\n"
    assert process.returncode == 1
    with pytest.raises(ProcessLookupError):
        os.kill(int(started[0].name.removeprefix("started-")), 0)


def test_where_gpurun_is_not_installed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run.main([str(plan(tmp_path, launcher=["/nowhere/gpurun"])), str(tmp_path / "result.json")]) == 1
    assert "/nowhere/gpurun is not installed here: run this on a client" in capsys.readouterr().err
