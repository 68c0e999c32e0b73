"""Breaks roles in the ways that tools/mutations.yml names, each on a copy of the tree, and runs the role's scenario.

Check mode and idempotence are left out at first: what is red without them is red with them. A scenario that stays green
is run again in full. If it is green then too, it did not notice: that is a failure of the scenario. Exit code 0 means
that all were noticed. The task that failed is shown, so that one can see whether it was for the right reason.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import yaml

from molecule_runs import STEP_FAILED

TOP = Path(__file__).resolve().parents[1]
TABLE = Path(__file__).with_name("mutations.yml")
_RED = 1
"""Exit code of tools/molecule for a scenario that failed, as opposed to one that could not be run."""

_STOPPED = 130
"""Exit code of a run that was interrupted."""
_TASK = re.compile(r"TASK \[(?:[\w.]+ : )?(?P<name>.+)\] \*+$")


class TableError(Exception):
    """The table does not fit the tree; the text says which entry and why."""


@dataclass(frozen=True)
class Mutation:
    """One way to break a role: `old`, which occurs once in `file`, becomes `new`."""

    role: str
    name: str
    file: str
    old: str
    new: str

    def applied(self, text: str) -> str:
        """Return the broken text, or raise TableError where `old` does not occur exactly once."""
        if text.count(self.old) != 1:
            raise TableError(
                f"{self.role}: {self.name}: {self.old!r} occurs {text.count(self.old)} times in {self.file}"
            )
        return text.replace(self.old, self.new)


def read_table(path: Path = TABLE) -> list[Mutation]:
    """Return the mutations of the table."""
    entries = yaml.safe_load(path.read_text(encoding="utf-8"))
    return [Mutation(role=role, **entry) for role, listed in entries.items() for entry in listed]


def copy_tree(target: Path) -> None:
    """Copy what git knows of the tree, or would if it were added; the environment is shared by a link."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=TOP,
        capture_output=True,
        check=True,
    )
    for name in filter(None, listed.stdout.decode().split("\0")):
        source, copy = TOP / name, target / name
        if source.is_symlink() or source.exists():
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, copy, follow_symlinks=False)
    (target / ".venv").symlink_to(TOP / ".venv")


def noticed_at(log: str) -> str:
    """Return the step of a red scenario and the last task of that step, as words after a verdict."""
    step, task = "", ""
    for line in log.splitlines():
        if found := _TASK.match(line):
            task = found["name"]
        elif found := STEP_FAILED.match(line):
            step = found["step"]
            break
    return (f" at {step}" if step else "") + (f": {task}" if step and task else "")


class Check:
    """Runs mutations, and ends them when it is interrupted."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._processes: dict[int, subprocess.Popen[bytes]] = {}
        self.stopping = False

    def stop(self) -> None:
        """Let no further run begin and end those under way; each destroys its guests."""
        with self._lock:
            self.stopping = True
            for process in self._processes.values():
                with contextlib.suppress(ProcessLookupError):
                    process.send_signal(signal.SIGTERM)

    def run(self, mutation: Mutation) -> tuple[str, float]:
        """Return how the scenario took the mutation and the seconds it needed."""
        began = time.monotonic()
        directory = Path(tempfile.mkdtemp(prefix="gpuops-mut-"))
        try:
            copy_tree(directory)
            broken = directory / mutation.file
            broken.write_text(mutation.applied(broken.read_text(encoding="utf-8")), encoding="utf-8")
            log = directory / "mutation.log"
            code = self._scenario(directory, mutation.role, log, "--quick")
            if code == 0:
                code = self._scenario(directory, mutation.role, log)
            verdict = {0: "NOT NOTICED", _RED: "noticed"}.get(code, f"NOT RUN (exit code {code})")
            if code == _RED:
                verdict += noticed_at(log.read_text(encoding="utf-8", errors="replace"))
        finally:
            shutil.rmtree(directory, ignore_errors=True)
        return verdict, time.monotonic() - began

    def _scenario(self, directory: Path, scenario: str, log: Path, *options: str) -> int:
        """Run the scenario of the tree at `directory` into `log`; return the exit code of tools/molecule."""
        with log.open("wb") as stream:
            with self._lock:
                if self.stopping:
                    return _STOPPED
                process = subprocess.Popen(
                    [directory / "tools" / "molecule", "test", "--exact", *options, scenario],
                    cwd=directory,
                    stdin=subprocess.DEVNULL,
                    stdout=stream,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
                self._processes[process.pid] = process
            code = process.wait()
            with self._lock:
                del self._processes[process.pid]
        return code


def chosen(mutations: Sequence[Mutation], roles: Sequence[str], name: str) -> list[Mutation]:
    """Return the mutations of the roles (none: all) whose name holds `name`; TableError for a role without any."""
    known = {mutation.role for mutation in mutations}
    for role in roles:
        if role not in known:
            raise TableError(f"no mutation breaks {role!r}; there are some for: {', '.join(sorted(known))}")
    return [m for m in mutations if (not roles or m.role in roles) and name in m.name]


def main() -> int:
    """Parse the command line and run; return the exit code."""
    parser = argparse.ArgumentParser(prog="tools/mutation", description=__doc__.split("\n\n")[0] if __doc__ else None)
    parser.add_argument("roles", nargs="*", metavar="ROLE", help="roles to break (default: all)")
    parser.add_argument("--name", default="", help="only mutations whose name holds this")
    parser.add_argument("--jobs", type=int, default=min(2, os.cpu_count() or 1), help="how many at a time")
    options = parser.parse_args()
    check = Check()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda _number, _frame: check.stop())
    try:
        mutations = chosen(read_table(), options.roles, options.name)
        for mutation in mutations:  # before the first minute is spent
            mutation.applied((TOP / mutation.file).read_text(encoding="utf-8"))
    except TableError as error:
        print(f"tools/mutation: {error}", file=sys.stderr)
        return 2
    width = max((len(f"{mutation.role}: {mutation.name}") for mutation in mutations), default=0)
    noticed = True
    with ThreadPoolExecutor(max_workers=options.jobs) as pool:
        for mutation, (verdict, seconds) in zip(mutations, pool.map(check.run, mutations), strict=True):
            noticed = noticed and verdict.startswith("noticed")
            print(f"{f'{mutation.role}: {mutation.name}':{width}}  {verdict}  {seconds:.0f} s", flush=True)
    if check.stopping:
        return 130
    return 0 if noticed else 1


if __name__ == "__main__":
    sys.exit(main())
