# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Kill playbooks at every call that changes something, run them again, and compare the end with an undisturbed one.

    crash_test.py [--sample N] [--seed N] [--workers N] [--only PLAYBOOK …]
    crash_test.py --check-mode

For each playbook of the table below one run is left alone. Its calls that change something, each killed as it is
about to be carried out and just after, are the cases; `--sample` takes so many of them at random. Each case has a
simulator of its own: the playbook is killed with SIGKILL, workers and all, and run again to its end.

With `--check-mode` every playbook is run with --check instead, all on one simulator, which must stay as it is.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import contextlib
import dataclasses
import json
import os
import random
import re
import sys
import tempfile
import threading
import time
import typing as t
from collections.abc import Callable, Sequence
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent / "integration"), str(HERE.parent / "integration" / "playbooks")]

from lab import Lab, Run, kill_hard  # noqa: E402 - found by the lines above
from simulated import TOP  # noqa: E402

# At this pace two minutes of the vCenter's time, within which a run asks for what its mark announces, are 12 s: longer
# than a busy machine keeps a run from its next call. Fast by short times instead.
TIME_SCALE = 10
TIMINGS = {
    "boot": 5, "maintenance": 2, "clone": 2, "create": 1, "destroy": 1, "reconfigure": 1, "power_on": 1,
    "power_off": 1, "guest_shutdown": 1, "suspend": 1, "migrate": 1, "install": 2,
}  # fmt: skip
HOLD_S = 3600
RUN_S = 240

# Whatever else is called changes something.
READS = re.compile(
    r"Retrieve.*|Continue.*|Query.*|Wait.*|Read.*|Find.*|Login|Logout|CurrentTime|Fetch|(Create|Destroy).*(Filter|View"
    r"|Collector|CollectorForTasks)|RewindCollector|CancelRetrieve.*|Refresh.*|SessionIsActive|fetchSoftwarePackages"
    r"|(GET|HEAD) .*|DestroyPropertyFilter"
)


ONE, THREE = "esx-gpu-01.lab", "esx-gpu-03.lab"
Model = dict[str, t.Any]


def _hosts(model: Model) -> list[Model]:
    return t.cast("list[Model]", model["clusters"][0]["hosts"])


def _passthrough(model: Model) -> None:
    """GPUs in passthrough already."""
    for host in _hosts(model):
        for gpu in host["gpus"]:
            gpu["passthrough"] = True


def _busy(model: Model) -> None:
    """An ordinary machine on each GPU host, in the way of maintenance mode."""
    shape = {"memory_mb": 4096, "power": "on"}
    model["vms"] = [
        {"name": f"web-{number}", "host": host["name"], **shape} for number, host in enumerate(_hosts(model))
    ]


def _vgpus(model: Model) -> None:
    """A host whose GPUs take vGPUs, and a machine that runs with one."""
    _hosts(model)[0] |= {
        "gpus": [{"gpu": "A100-40", "count": 2}],
        "vgpu_manager": "16.4",
        "graphics_type": "sharedDirect",
    }
    mmio = {"pciPassthru.use64bitMMIO": "TRUE", "pciPassthru.64bitMMIOSizeGB": "128"}
    gpus = [{"mode": "vgpu", "profile": "nvidia_a100-10c"}]
    shape = {"firmware": "efi", "memory_mb": 4096, "memory_locked": True, "extra_config": mmio, "power": "on"}
    model["vms"] = [{"name": "train", "host": ONE, "gpus": gpus, **shape}]


def _variables(**variables: t.Any) -> tuple[str, ...]:
    return ("-e", json.dumps(variables))


@dataclasses.dataclass(frozen=True)
class Scene:
    """A playbook, what it begins with, and how it is called."""

    playbook: str
    arguments: tuple[str, ...] = ()
    change: Callable[[Model], None] | None = None


_TWO_HOSTS = ("--limit", f"{ONE}:{THREE}")
_POOL = {
    "gpu_fleet_pool_vm": {
        "gpus": [{"mode": "dynamic", "id": "10de:1eb8"}],
        "template": "gpu-server-template",
        "memory_mb": 32768,
    },
    "gpu_vm_vms": [],
    "gpu_fleet_shut_down": "force",
    "gpu_fleet_guest_timeout": 5,
}

SCENES = (
    Scene("site", _TWO_HOSTS),
    Scene("esxi_passthrough", _TWO_HOSTS, change=_busy),
    Scene("gpu_vm", change=_passthrough),
    Scene("esxi_rolling", (*_TWO_HOSTS, *_variables(esxi_rolling_reboot="always")), change=_busy),
    Scene(
        "vgpu_host",
        (
            "--limit",
            THREE,
            *_variables(
                grid_host_driver_version="535.154.02",
                grid_host_driver_bundle="https://depot.lab/NVD-VGPU-800_535.154.02.zip",
                grid_host_driver_reboot_ok=True,
                esxi_graphics_default_type="sharedDirect",
                esxi_passthrough_devices=[],
            ),
        ),
    ),
    Scene(
        "gpu_vm_change",
        (
            "--limit",
            ONE,
            *_variables(
                gpu_vm_vms=[
                    {
                        "name": "train",
                        "gpus": [{"mode": "vgpu", "profile": "a100-20c", "count": 2}],
                        "cpu": {"shares": "high"},
                    }
                ],
                esxi_passthrough_missing="skip",
                gpu_vm_guest_timeout=60,
            ),
        ),
        change=_vgpus,
    ),
    Scene("expand", ("--limit", THREE, *_variables(gpu_fleet_pool_size=2, **_POOL))),
)
"""Every playbook that changes something in the vCenter; a new one gets a line here."""


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
        return f"{self.scene.playbook:18} {when:6} {self.method} #{self.nth}"


@dataclasses.dataclass(frozen=True)
class Verdict:
    """How a case ended."""

    case: Case
    reached: bool
    problem: str
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
    for entity in world["objects"].values():
        entity["custom_values"] = {key: text for key, text in (entity.get("custom_values") or {}).items() if text}
    return world


def difference(expected: t.Any, found: t.Any, where: str = "") -> str:
    """The first difference of two states in one line, empty for none."""
    if isinstance(expected, dict) and isinstance(found, dict):
        for key in sorted(expected.keys() | found.keys(), key=str):
            if key not in expected or key not in found:
                return f"{where}/{key} is {'missing' if key in expected else 'new'}"
            if told := difference(expected[key], found[key], f"{where}/{key}"):
                return told
        return ""
    return "" if expected == found else f"{where}: {found!r}, not {expected!r}"


def marks(world: t.Mapping[str, t.Any]) -> list[str]:
    """Objects with a mark of ours, and locks."""
    found = [name for name, entity in world["objects"].items() if entity["custom_values"]]
    return found + [name for name in world["objects"] if "gpuops-lock" in name]


class CrashTest:
    """All cases of some scenes, on several simulators side by side."""

    def __init__(self, directory: Path, scenes: Sequence[Scene]) -> None:
        self.directory = directory
        self.scenes = scenes
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

    def undisturbed(self, scene: Scene) -> tuple[dict[str, t.Any], list[Case]]:
        """The end without a crash, and the cases."""
        with self.lab(scene) as lab:
            lab.vcenter.reset_counts()
            self._finish(lab, scene)
            counts: dict[str, int] = lab.vcenter.counts()["requests"]
            world = end_state(lab)
        if left := marks(world):
            raise CrashTestError(f"{scene.playbook}, undisturbed, leaves marks on {', '.join(left)}")
        changing = {method: count for method, count in counts.items() if not READS.fullmatch(method)}
        return world, [
            Case(scene, method, nth, done)
            for method, count in sorted(changing.items())
            for nth in range(1, count + 1)
            for done in (False, True)
        ]

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
        finally:
            if process.poll() is None:
                kill_hard(process)
        if process.returncode != 0:
            told = re.findall(r"msg: .*|\[ERROR\].*|fatal: .*", output)
            raise CrashTestError(f"the run after it failed: {' '.join(told[-2:])[:400] or output[-400:]}")
        return Run(process.returncode, output)


# What these are given beside the inventory of the lab, so that they have something to do.
CHECKED = {scene.playbook: scene.arguments for scene in SCENES if scene.change is None} | {
    "esxi_rolling": _variables(esxi_rolling_reboot="always"),
    "contract": ("--limit", THREE, *_variables(gpu_fleet_pool_size=0, **_POOL)),
}


def check_mode(lab: Lab) -> int:
    """Run every playbook with --check and print how it ended; 1 when any has changed the simulator's world."""
    before, changed = lab.state(), 0
    for playbook in sorted(path.stem for path in (TOP / "playbooks").glob("*.yml")):
        run = lab.playbook(playbook, "--check", *CHECKED.get(playbook, ()))
        after = lab.state()
        same = after == before
        told = "" if same else difference(json.loads(before), json.loads(after))
        print(f"  {playbook:18} {'as it was' if same else f'CHANGED: {told}'} (exit code {run.returncode})", flush=True)
        before, changed = after, changed + (not same)
    return 1 if changed else 0


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
    parser.add_argument("--only", nargs="+", choices=[scene.playbook for scene in SCENES], default=None)
    parser.add_argument("--check-mode", action="store_true", help="run every playbook with --check instead")
    options = parser.parse_args(arguments)
    seed = options.seed if options.seed is not None else int(time.time())
    scenes = [scene for scene in SCENES if options.only is None or scene.playbook in options.only]
    with tempfile.TemporaryDirectory(prefix="gpuops-crash-") as place:
        test = CrashTest(Path(place), scenes)
        if options.check_mode:
            with test.lab(Scene("every one")) as lab:
                return check_mode(lab)
        with concurrent.futures.ThreadPoolExecutor(options.workers) as pool:
            found = dict(zip(scenes, pool.map(test.undisturbed, scenes), strict=True))
            cases = [case for _world, mine in found.values() for case in mine]
            chosen = random.Random(seed).sample(cases, options.sample) if 0 < options.sample < len(cases) else cases  # noqa: S311 - no secret
            print(f"{len(chosen)} of {len(cases)} crashes, seed {seed}, {options.workers} at a time", flush=True)
            verdicts = pool.map(lambda case: test.crash(case, found[case.scene][0]), chosen)
            return report(list(_told(verdicts)))


def _told(verdicts: t.Iterable[Verdict]) -> t.Iterator[Verdict]:
    for verdict in verdicts:
        state = verdict.problem or ("same end" if verdict.reached else "same end; the call was not reached")
        print(f"  {verdict.seconds:5.0f} s  {verdict.case!s:64} {state}", flush=True)
        yield verdict


def report(verdicts: Sequence[Verdict]) -> int:
    """The table of playbooks, and the exit code."""
    print(f"\n{'playbook':18} {'crashes':>8} {'reached':>8} {'wrong end':>10}")
    for scene in dict.fromkeys(verdict.case.scene.playbook for verdict in verdicts):
        mine = [verdict for verdict in verdicts if verdict.case.scene.playbook == scene]
        wrong = sum(bool(verdict.problem) for verdict in mine)
        print(f"{scene:18} {len(mine):8} {sum(verdict.reached for verdict in mine):8} {wrong:10}")
    return 1 if any(verdict.problem for verdict in verdicts) else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
