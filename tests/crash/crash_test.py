# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Kill playbooks at every call that changes something, run them again, and compare the end with an undisturbed one.

    crash_test.py [--sample N] [--seed N] [--workers N] [--only SCENE …] [--matching TEXT]
    crash_test.py --check-mode

For each playbook of `scenes.py` one run is left alone. Its calls that change something, each killed as it is about to
be carried out and just after, are the cases; `--sample` takes so many of them at random, of every playbook as many.
Each case has a simulator of its own: the playbook is killed with SIGKILL, workers and all, and run again to its end.

Before it is left alone every playbook is run with --check: the simulator must stay as it is, and the run in earnest
that follows must change as many things as were announced. With `--check-mode` that is all.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import contextlib
import dataclasses
import itertools
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import threading
import time
import typing as t
from collections.abc import Sequence
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "integration"), str(HERE.parent / "integration" / "playbooks")]

from lab import Lab, Run, kill_hard  # noqa: E402 - found by the lines above
from scenes import SCENES, Model, Scene  # noqa: E402
from simulated import TOP  # noqa: E402

# At this pace two minutes of the vCenter's time, within which a run asks for what its mark announces, are 40 s: longer
# than a busy machine keeps a run from its next call. Fast by short times instead.
TIME_SCALE = 3
TIMINGS = {
    "boot": 1.5, "maintenance": 0.6, "clone": 0.6, "create": 0.3, "destroy": 0.3, "reconfigure": 0.3, "power_on": 0.3,
    "power_off": 0.3, "guest_shutdown": 0.3, "suspend": 0.3, "migrate": 0.3, "install": 0.6,
}  # fmt: skip
HOLD_S = 3600
FORMER_SHARES = re.compile(r"cpu=\S+ memory=\S+$")
RUN_S = 900

# Whatever else is called changes something.
READS = re.compile(
    r"Retrieve.*|Continue.*|Query.*|Wait.*|Read.*|Find.*|Login|Logout|CurrentTime|Fetch|(Create|Destroy).*(Filter|View"
    r"|Collector|CollectorForTasks)|RewindCollector|CancelRetrieve.*|Refresh.*|SessionIsActive|fetchSoftwarePackages|HasPrivilege.*|ScanHost.*"
    r"|(GET|HEAD) .*|DestroyPropertyFilter"
)


@dataclasses.dataclass(frozen=True)
class Case:
    """One crash."""

    scene: Scene
    method: str
    nth: int
    done: bool
    """Killed just after the call was carried out, not just before."""

    def __str__(self) -> str:
        when = "after" if self.done else "before"
        return f"{self.scene.name:18} {when:6} {self.method} #{self.nth}"


@dataclasses.dataclass(frozen=True)
class Verdict:
    """How a case ended."""

    case: Case
    reached: bool
    problem: str
    seconds: float


@dataclasses.dataclass(frozen=True)
class Undisturbed:
    """What a run that nobody kills ends with."""

    world: dict[str, t.Any]
    cases: list[Case]
    """The crashes that it could have had."""
    check: str
    """What is wrong with its check mode."""
    seconds: float


class CrashTestError(Exception):
    """The test itself cannot go on."""


# What differs between two runs that did the same, and why.
FORGET = {
    "ids": "how many objects, tasks and sessions there have been",
    "boot_time": "when a host or machine was started; a run that is killed before it knows reboots no host twice",
    "change_version": "how often a machine was reconfigured, and when",
    "created": "when a machine was created",
    "uuid": "made up for each clone",
    "instance_uuid": "made up for each clone",
    "macAddress": "made up for each clone",
    "version": "of a pool or machine: how often it was changed",
    "events": "what happened, crashes included",
    "fields": "the custom attribute keeps its number; its values are compared by `custom_values`",
    "directory": "where a clone's files are: numbered, when an interrupted clone has left some behind",
}


def end_state(lab: Lab) -> dict[str, t.Any]:
    """The simulator's world without what legitimately differs; objects by what they are, not by their numbers."""
    data: dict[str, t.Any] = json.loads(lab.state())
    names = {key: f"<{entity['kind']} {entity['name']}>" for key, entity in data["objects"].items()}

    def plain(value: t.Any) -> t.Any:
        if isinstance(value, dict):
            return {names.get(k, k): plain(v) for k, v in sorted(value.items()) if k not in FORGET}
        if isinstance(value, list):
            return [plain(item) for item in value]
        return names.get(value, value) if isinstance(value, str) else value

    world = t.cast("dict[str, t.Any]", plain(data))
    taken: dict[str, list[str]] = {}
    for entity in world["objects"].values():
        # Which of its free GPUs a machine gets at power-on is the host's choice, and depends on who comes first.
        for key, address in (entity.get("assigned") or {}).items():
            taken.setdefault(entity["host"], []).append(address)
            entity["assigned"][key] = f"of {entity['host']}"
        values = entity.get("custom_values") or {}
        entity["custom_values"] = {key: _undated(text) for key, text in values.items() if text}
    return world | {"taken": {host: sorted(addresses) for host, addresses in taken.items()}}


def _undated(text: str) -> t.Any:
    """A mark of ours without its time; what is none as it is."""
    try:
        mark = json.loads(text)
    except ValueError:
        return text
    return {key: value for key, value in mark.items() if key != "started"} if isinstance(mark, dict) else text


def _stays(mark: t.Any) -> bool:
    """A lent desktop keeps its mark until it returns, and an object what it was entitled to before."""
    if isinstance(mark, str):
        return FORMER_SHARES.match(mark) is not None
    return isinstance(mark, dict) and mark.get("action") == "lent"


def difference(expected: t.Any, found: t.Any, where: str = "") -> str:
    """The first difference of two states in one line, empty for none."""
    if isinstance(expected, dict) and isinstance(found, dict):
        for key in sorted(expected.keys() | found.keys(), key=str):
            if key not in expected or key not in found:
                return f"{where}/{key} is {'missing' if key in expected else 'new'}"
            if told := difference(expected[key], found[key], f"{where}/{key}"):
                return told
        return ""
    if isinstance(expected, list) and isinstance(found, list) and len(expected) == len(found):
        pairs = enumerate(zip(expected, found, strict=True))
        return next((told for at, (one, two) in pairs if (told := difference(one, two, f"{where}/{at}"))), "")
    return "" if expected == found else f"{where}: {found!r}, not {expected!r}"[:400]


def marks(world: t.Mapping[str, t.Any]) -> list[str]:
    """Objects with a mark of ours that should be gone, and locks."""
    found = [
        name
        for name, entity in world["objects"].items()
        if not all(_stays(mark) for mark in entity["custom_values"].values())
    ]
    return found + [name for name in world["objects"] if "gpuops-lock" in name]


class CrashTest:
    """All cases of some scenes, on several simulators side by side."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._numbers = iter(range(10**6))
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def lab(self, scene: Scene, faults: Sequence[dict[str, t.Any]] = ()) -> t.Iterator[Lab]:
        """A simulator with what the scene begins with."""
        with self._lock:
            place = self.directory / f"lab-{next(self._numbers)}"
        lab = Lab(place)

        def change(model: Model) -> None:
            model["timings"] = TIMINGS
            if scene.change is not None:
                scene.change(model)

        lab.start(time_scale=TIME_SCALE, change=change, faults=faults)
        try:
            yield lab
        finally:
            lab.stop()

    def undisturbed(self, scene: Scene) -> Undisturbed:
        """The end without a crash, and the cases."""
        began = time.monotonic()
        with self.lab(scene) as lab:
            announced, check = announcement(lab, scene)
            lab.vcenter.reset_counts()
            made = self._finish(lab, scene).count("changed")
            counts: dict[str, int] = lab.vcenter.counts()["requests"]
            world = end_state(lab)
        if left := marks(world):
            raise CrashTestError(f"{scene.name}, undisturbed, leaves marks on {', '.join(left)}")
        changing = {method: count for method, count in counts.items() if not READS.fullmatch(method)}
        cases = [
            Case(scene, method, nth, done)
            for method, count in sorted(changing.items())
            for nth in range(1, count + 1)
            for done in (False, True)
        ]
        if not check and announced != made:
            check = f"announced {announced} changes, made {made}"
        return Undisturbed(world, cases, check or ("" if made else "nothing to do"), time.monotonic() - began)

    def crash(self, case: Case, expected: t.Mapping[str, t.Any]) -> Verdict:
        """Kill at the case's call, run again, compare."""
        began = time.monotonic()
        hold = "answer_after_s" if case.done else "delay_s"
        rule = {"method": case.method, "nth": case.nth, hold: HOLD_S}
        try:
            with self.lab(case.scene, [rule]) as lab:
                lab.vcenter.reset_counts()
                reached = self._kill_at(lab, case)
                self._finish(lab, case.scene)
                world = end_state(lab)
            left = marks(world)
            problem = f"marks are left on {', '.join(left)}" if left else difference(expected, world)
        except CrashTestError as error:
            reached, problem = True, str(error)
        return Verdict(case, reached, problem, time.monotonic() - began)

    def _kill_at(self, lab: Lab, case: Case) -> bool:
        process = lab.start_playbook(case.scene.playbook, *case.scene.arguments)
        pause, deadline = threading.Event(), time.monotonic() + RUN_S
        # Somebody must read what it prints, or it stops when the pipe is full.
        reader = threading.Thread(target=_drain, args=(process.stdout,), daemon=True)
        reader.start()
        try:
            while process.poll() is None and time.monotonic() < deadline:
                if lab.vcenter.counts()["requests"].get(case.method, 0) >= case.nth:
                    return True
                pause.wait(0.02)
            return False
        finally:
            kill_hard(process)

    def _finish(self, lab: Lab, scene: Scene) -> Run:
        process = lab.start_playbook(scene.playbook, *scene.arguments)
        try:
            output, _ = process.communicate(timeout=RUN_S)
        except subprocess.TimeoutExpired:
            raise CrashTestError(f"a run is not over after {RUN_S} s") from None
        finally:
            if process.poll() is None:
                kill_hard(process)
        if process.returncode != 0:
            raise CrashTestError(f"the run after it failed: {_told_by(output)}")
        return Run(process.returncode, output)


# Those that change nothing in the vCenter, or only guests.
OTHERS = (
    "validate", "report", "harvest_report", "gpu_doctor", "guest_driver", "images", "environment", "pool", "benchmark",
    "monitoring", "pool_usage",
)  # fmt: skip


def announcement(lab: Lab, scene: Scene) -> tuple[dict[str, int], str]:
    """The changes that a run with --check announces by host, and what is wrong with it."""
    before = lab.state()
    run = lab.playbook(scene.playbook, "--check", *scene.arguments)
    after = lab.state()
    if after != before:
        return {}, f"CHANGED: {difference(json.loads(before), json.loads(after)) or 'other bytes'}"
    if run.returncode != 0:
        return {}, f"exit code {run.returncode}: {_told_by(run.output)}"
    return run.count("changed"), ""


def check_others(test: CrashTest, playbook: str) -> str:
    """What is wrong with the check mode of a playbook that changes nothing in the vCenter."""
    scene = Scene(playbook)
    with test.lab(scene) as lab:
        return announcement(lab, scene)[1]


def _told_by(output: str) -> str:
    told = re.findall(r"msg: .*|\[ERROR\].*|fatal: .*", output)
    return " ".join(told[-2:])[:400] or output[-400:]


def _drain(stream: t.Any) -> None:
    with contextlib.suppress(ValueError):  # closed under us
        for _line in stream:
            pass


def main(arguments: Sequence[str]) -> int:
    """Run the cases and print a table; 1 when any ended otherwise."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--sample", type=int, default=0, help="so many cases at random; 0 takes all")
    parser.add_argument("--seed", type=int, default=None, help="of the sample; the default is the time, and is printed")
    parser.add_argument("--workers", type=int, default=max(1, min(4, os.cpu_count() or 1)))
    parser.add_argument("--only", nargs="+", choices=[scene.name for scene in SCENES], default=None)
    parser.add_argument("--matching", default="", help="only crashes whose line of the table contains this text")
    parser.add_argument("--check-mode", action="store_true", help="only compare --check with what is done")
    options = parser.parse_args(arguments)
    seed = options.seed if options.seed is not None else int(time.time())
    scenes = [scene for scene in SCENES if options.only is None or scene.name in options.only]
    known = {scene.playbook for scene in SCENES} | set(OTHERS)
    if unknown := {path.stem for path in (TOP / "playbooks").glob("*.yml")} - known:
        raise SystemExit(f"{', '.join(sorted(unknown))}: say in scenes.py how it is called")
    with tempfile.TemporaryDirectory(prefix="gpuops-crash-") as place:
        test = CrashTest(Path(place))
        with concurrent.futures.ThreadPoolExecutor(options.workers) as pool:
            found = dict(zip(scenes, pool.map(test.undisturbed, scenes), strict=True))
            others = [] if options.only else OTHERS
            checks = {scene.name: one.check for scene, one in found.items()}
            checks |= dict(zip(others, pool.map(lambda name: check_others(test, name), others), strict=True))
            for name, problem in checks.items():
                print(f"  {name:18} --check {problem or 'announced what is done, and did nothing'}", flush=True)
            wrong = any(checks.values())
            if options.check_mode:
                return int(wrong)
            cases = [case for one in found.values() for case in one.cases if options.matching in str(case)]
            chosen = sample(cases, options.sample or len(cases), seed)
            took = ", ".join(f"{scene.name} {one.seconds:.0f} s" for scene, one in found.items())
            print(f"undisturbed: {took}")
            print(f"{len(chosen)} of {len(cases)} crashes, seed {seed}, {options.workers} at a time", flush=True)
            verdicts = pool.map(lambda case: test.crash(case, found[case.scene].world), chosen)
            return report(list(_told(verdicts))) or int(wrong)


def sample(cases: Sequence[Case], size: int, seed: int) -> list[Case]:
    """So many cases at random, of each scene as many as there are; the same for the same seed."""
    piles: dict[Scene, list[Case]] = {}
    for case in random.Random(seed).sample(cases, len(cases)):  # noqa: S311 - no secret
        piles.setdefault(case.scene, []).append(case)
    in_turn = [case for turn in itertools.zip_longest(*piles.values()) for case in turn if case is not None]
    return sorted(in_turn[:size], key=cases.index)


def _told(verdicts: t.Iterable[Verdict]) -> t.Iterator[Verdict]:
    for verdict in verdicts:
        state = verdict.problem or ("same end" if verdict.reached else "same end; the call was not reached")
        print(f"  {verdict.seconds:5.0f} s  {verdict.case!s:64} {state}", flush=True)
        yield verdict


def report(verdicts: Sequence[Verdict]) -> int:
    """The table of scenes, and the exit code."""
    print(f"\n{'scene':18} {'crashes':>8} {'reached':>8} {'wrong end':>10}")
    for scene in dict.fromkeys(verdict.case.scene.name for verdict in verdicts):
        mine = [verdict for verdict in verdicts if verdict.case.scene.name == scene]
        wrong = sum(bool(verdict.problem) for verdict in mine)
        print(f"{scene:18} {len(mine):8} {sum(verdict.reached for verdict in mine):8} {wrong:10}")
    return 1 if any(verdict.problem for verdict in verdicts) else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
