"""Runs Molecule scenarios, each on guests of its own; destroys them whatever happens; says what each took.

`test` runs the whole sequence of all scenarios, or of those of the roles named, two at a time. A scenario belongs to
the role of its name; `<role>__<variant>` is a further one. `step` runs single Molecule commands on guests that stay
until `step ROLE destroy`, for work on a scenario.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import yaml

TOP = Path(__file__).resolve().parents[1]
SCENARIOS = TOP / "extensions" / "molecule"
CACHE = TOP / ".cache" / "molecule"
STEP_FAILED = re.compile(r"^ERROR .*\[[\w-]+ > (?P<step>\w+)\] .*Executed: Failed")
_TAIL = 80
_QUICK = "[create, prepare, converge, side_effect, verify, destroy]"
"""What --quick runs: what is red so is red with all steps, but green says less."""


class UsageError(Exception):
    """What was asked for cannot be done; the text says what to do."""


@dataclass(frozen=True)
class Outcome:
    """How a scenario ended: seconds it took, and the step that failed."""

    scenario: str
    passed: bool
    seconds: float
    step: str = ""
    log: Path | None = None


@dataclass(frozen=True)
class How:
    """How scenarios are run: whether their words are shown, what is left out, seconds until one that hangs is ended."""

    live: bool
    quick: bool
    limit_s: float


@dataclass
class Runs:
    """The Molecule processes under way, so that an interruption can end them."""

    stopping: threading.Event = field(default_factory=threading.Event)
    processes: dict[int, subprocess.Popen[bytes]] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def stop(self) -> None:
        """Let no further scenario begin and end those that run, with everything they started."""
        with self.lock:
            self.stopping.set()
            running = list(self.processes)
        for number in running:
            self.end(number)

    def end(self, number: int) -> None:
        """End the scenario of that process, if it still runs, with everything it started."""
        with self.lock, contextlib.suppress(ProcessLookupError):
            if number in self.processes:
                os.killpg(number, signal.SIGTERM)


def scenarios_of(roles: Sequence[str], present: Sequence[str], *, exact: bool = False) -> list[str]:
    """Return the scenarios of the roles (none named: all), or raise UsageError for a role without one.

    `exact` takes the names as those of scenarios and leaves variants out.
    """
    if not roles:
        return list(present)
    chosen: list[str] = []
    for role in roles:
        own = [name for name in present if name == role or (not exact and name.startswith(f"{role}__"))]
        if not own:
            raise UsageError(f"no scenario tests {role!r}; there are: {', '.join(present)}")
        chosen += [name for name in own if name not in chosen]
    return chosen


def present_scenarios(directory: Path = SCENARIOS) -> list[str]:
    """Return the scenarios, the longest first, as their guests.yml say (`molecule_seconds`)."""
    seconds = {}
    for path in sorted(directory.glob("*/molecule.yml")):
        if path.parent.name != "default":
            guests = path.parent / "guests.yml"
            declared = yaml.safe_load(guests.read_text(encoding="utf-8")) if guests.is_file() else {}
            seconds[path.parent.name] = int(declared.get("molecule_seconds", 60))
    return sorted(seconds, key=lambda name: (-seconds[name], name))


def table(outcomes: Sequence[Outcome]) -> str:
    """Return the outcomes as lines of a table."""
    width = max(len("scenario"), *(len(outcome.scenario) for outcome in outcomes))
    lines = [f"{'scenario':{width}}  result  seconds"]
    for outcome in outcomes:
        result = "ok    " if outcome.passed else "FAILED"
        where = "" if outcome.passed else f"  at {outcome.step or 'start'}"
        if outcome.log:
            where += f", log: {outcome.log}"
        lines.append(f"{outcome.scenario:{width}}  {result}  {outcome.seconds:7.0f}{where}")
    return "\n".join(lines)


def _environment(run: Path, instance: str, owner: int | None) -> dict[str, str]:
    environment = {
        **os.environ,
        "PATH": f"{TOP / '.venv' / 'bin'}:{os.environ['PATH']}",
        "ANSIBLE_HOME": str(TOP / ".cache" / "ansible"),
        "ANSIBLE_SSH_CONTROL_PATH_DIR": str(run / "cp"),
        "GPUOPS_MOLECULE_RUN": str(run),
        "GPUOPS_MOLECULE_INSTANCE": instance,
        "GPUOPS_MOLECULE_OWNER": "" if owner is None else str(owner),
        "MOLECULE_EPHEMERAL_DIRECTORY": str(run / "molecule"),
        "NO_COLOR": "1",
    }
    for name in ("ANSIBLE_CONFIG", "GPUOPS_MOLECULE_SEQUENCE"):
        environment.pop(name, None)
    return environment


def _clean_up(run: Path, instance: str) -> None:
    """Destroy the guests and close the ssh connections that are kept open for them."""
    for socket in (run / "cp").glob("*"):
        subprocess.run(["ssh", "-O", "exit", "-o", f"ControlPath={socket}", "guest"], capture_output=True, check=False)
    subprocess.run([TOP / "tools" / "guest", "cleanup", "--instance", instance], stdout=subprocess.DEVNULL, check=True)
    shutil.rmtree(run, ignore_errors=True)


def _run_one(scenario: str, runs: Runs, how: How) -> Outcome:
    began = time.monotonic()
    token = secrets.token_hex(4)
    instance = f"mol-{scenario.replace('_', '-')[:26]}-{token}"
    CACHE.mkdir(parents=True, exist_ok=True)
    log = CACHE / f"{scenario}.{token}.log"
    run = Path(tempfile.mkdtemp(prefix="gpuops-mol-"))
    (run / "guests").mkdir()
    environment = _environment(run, instance, os.getpid())
    if how.quick:
        environment["GPUOPS_MOLECULE_SEQUENCE"] = _QUICK
    step = ""
    try:
        with log.open("wb") as stream:
            with runs.lock:
                if runs.stopping.is_set():
                    return Outcome(scenario, passed=False, seconds=0.0)
                process = subprocess.Popen(
                    [TOP / ".venv" / "bin" / "molecule", "test", "--scenario-name", scenario],
                    cwd=TOP,
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
                runs.processes[process.pid] = process
            limit = threading.Timer(how.limit_s, runs.end, (process.pid,))
            limit.start()
            assert process.stdout is not None  # noqa: S101 - for the type checker: it is a pipe
            for line in process.stdout:
                stream.write(line)
                stream.flush()  # for those who watch it
                if how.live:
                    sys.stdout.buffer.write(line)
                    sys.stdout.buffer.flush()
                if found := STEP_FAILED.search(line.decode(errors="replace")):
                    step = step or found["step"]
            code = process.wait()
            limit.cancel()
            with runs.lock:
                del runs.processes[process.pid]
        passed = code == 0
        if not passed and not step and time.monotonic() - began >= how.limit_s:
            step = f"its limit of {how.limit_s:.0f} s"
    finally:
        _clean_up(run, instance)
    if passed:
        log.unlink()
    elif not how.live and not runs.stopping.is_set():
        tail = log.read_text(encoding="utf-8", errors="replace").splitlines()[-_TAIL:]
        print(f"==> {scenario} failed at {step or 'start'}:", *tail, sep="\n", flush=True)
    outcome = Outcome(scenario, passed, time.monotonic() - began, step, None if passed else log.relative_to(TOP))
    print(f"==> {scenario}: {'ok' if passed else 'FAILED'} in {outcome.seconds:.0f} s", flush=True)
    return outcome


def _test(scenarios: Sequence[str], jobs: int, how: How) -> int:
    # what runs that were killed have left: their owners are gone
    subprocess.run([TOP / "tools" / "guest", "cleanup", "--stale"], stdout=subprocess.DEVNULL, check=True)
    runs = Runs()
    began = time.monotonic()

    def interrupted(_number: int, _frame: object) -> None:
        runs.stop()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, interrupted)
    with ThreadPoolExecutor(max_workers=jobs) as pool:
        outcomes = list(pool.map(lambda scenario: _run_one(scenario, runs, how), scenarios))
    print(table(outcomes))
    print(f"{len(outcomes)} scenarios in {time.monotonic() - began:.0f} s")
    if runs.stopping.is_set():
        return 130
    return 0 if all(outcome.passed for outcome in outcomes) else 1


def _tree() -> str:
    """What tells this work tree from others on the machine."""
    return hashlib.sha256(str(TOP).encode()).hexdigest()[:6]


def step_directory(scenario: str) -> Path:
    """Where `step` keeps inventory, key and known hosts of a scenario's guests until they are destroyed."""
    return Path(tempfile.gettempdir()) / f"gpuops-step-{os.getuid()}-{_tree()}" / scenario


def _step(scenario: str, command: Sequence[str]) -> int:
    if scenario not in present_scenarios():
        raise UsageError(f"there is no scenario {scenario!r}; there are: {', '.join(present_scenarios())}")
    run = step_directory(scenario)
    instance = f"step-{_tree()}-{scenario.replace('_', '-')[:26]}"
    run.mkdir(parents=True, exist_ok=True, mode=0o700)
    (run / "guests").mkdir(exist_ok=True)
    code = subprocess.call(
        [TOP / ".venv" / "bin" / "molecule", command[0].replace("_", "-"), "--scenario-name", scenario, *command[1:]],
        cwd=TOP,
        env=_environment(run, instance, None),
    )
    if command[0] == "destroy":
        _clean_up(run, instance)
    return code


def main() -> int:
    """Parse the command line and run; return the exit code."""
    parser = argparse.ArgumentParser(prog="tools/molecule", description=__doc__.split("\n\n")[0] if __doc__ else None)
    commands = parser.add_subparsers(dest="command", required=True)
    test = commands.add_parser("test", help="run scenarios from create to destroy; exit code 1 if one fails")
    test.add_argument("roles", nargs="*", metavar="ROLE", help="roles whose scenarios to run (default: all)")
    test.add_argument("--jobs", type=int, default=min(2, os.cpu_count() or 1), help="how many at a time")
    test.add_argument("--exact", action="store_true", help="the names are scenarios: leave variants out")
    test.add_argument("--quick", action="store_true", help="leave check mode and idempotence out: tools/mutation does")
    test.add_argument("--limit", type=float, default=1800, metavar="SECONDS", help="end a scenario that takes longer")
    step = commands.add_parser("step", help="run one Molecule command on guests that stay until `destroy`")
    step.add_argument("scenario", metavar="SCENARIO")
    step.add_argument("molecule", nargs="+", metavar="COMMAND", help="create, prepare, check, converge, … destroy")
    commands.add_parser("list", help="name the scenarios, the longest first")
    options = parser.parse_args()
    try:
        if options.command == "test":
            scenarios = scenarios_of(options.roles, present_scenarios(), exact=options.exact)
            return _test(scenarios, options.jobs, How(len(scenarios) == 1, options.quick, options.limit))
        if options.command == "step":
            return _step(options.scenario, options.molecule)
        print("\n".join(present_scenarios()))
    except UsageError as error:
        print(f"tools/molecule: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
