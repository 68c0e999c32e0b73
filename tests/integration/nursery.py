# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Processes of Python programs that begin with their imports done: importing them costs more than most tests do.

A nursery is a process that has imported what its programs need, and forks for each one. The fork runs the program from
its first line on, with arguments, streams, environment and end of its own. As a script this file is the nursery.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import runpy
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


class Fork:
    """A process of a nursery, with the methods of subprocess.Popen that the tests use."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        try:
            self._handle: int | None = os.pidfd_open(pid)
        except ProcessLookupError:  # it has ended already
            self._handle = None

    def __del__(self) -> None:
        if self._handle is not None:
            os.close(self._handle)

    def poll(self) -> int | None:
        """None while it runs."""
        return 0 if self._ended(0) else None

    def wait(self, timeout: float | None = None) -> None:
        """Wait for its end. Raises subprocess.TimeoutExpired."""
        if not self._ended(None if timeout is None else round(timeout * 1000)):
            raise subprocess.TimeoutExpired(f"process {self.pid}", timeout or 0)

    def send_signal(self, number: int) -> None:
        """Send a signal, if it still runs."""
        if self._handle is not None:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._handle, number)

    def kill(self) -> None:
        """End it at once."""
        self.send_signal(signal.SIGKILL)

    def _ended(self, timeout_ms: int | None) -> bool:
        if self._handle is None:
            return True
        ended = select.poll()
        ended.register(self._handle, select.POLLIN)
        return bool(ended.poll(timeout_ms))


class Nursery:
    """Starts programs that share their imports. One for each test process, begun when it is first used."""

    def __init__(self, *imports: str, environment: Mapping[str, str]) -> None:
        self._imports = imports
        self._environment = dict(environment)
        self._process: subprocess.Popen[str] | None = None
        self._using = threading.Lock()

    def start(self, program: str, arguments: Sequence[str], *, log: Path) -> Fork:
        """Start a program (a module's name), its output at the end of a file."""
        with self._using:
            return Fork(int(self._ask(program=program, arguments=list(arguments), output=str(log), errors=str(log))))

    def run(self, program: str, *, given: Path, output: Path, errors: Path, timeout: float) -> int:
        """Run a program to its end with these files as its streams, and return its exit code."""
        with self._using:
            streams = {"given": str(given), "output": str(output), "errors": str(errors)}
            fork = Fork(int(self._ask(program=program, arguments=[], wait=True, **streams)))
            try:
                fork.wait(timeout)
            except BaseException:
                fork.kill()
                raise
            finally:
                code = int(self._answer())
            return code

    def _ask(self, **request: Any) -> str:
        if self._process is None or self._process.poll() is not None:
            self._process = subprocess.Popen(
                [sys.executable, __file__, *self._imports],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env=self._environment,
            )
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> str:
        assert self._process is not None
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the nursery has ended"
        return line


def serve(imports: Sequence[str]) -> None:
    """Fork for each line of the standard input, until it ends. Returns in the nursery only."""
    for name in imports:
        importlib.import_module(name)
    for line in sys.stdin:
        request = json.loads(line)
        pid = os.fork()
        if pid == 0:
            become(request)
        sys.stdout.write(f"{pid}\n")
        sys.stdout.flush()
        if request.get("wait"):
            code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            sys.stdout.write(f"{code}\n")
            sys.stdout.flush()
        with contextlib.suppress(ChildProcessError):  # take leave of those that have ended meanwhile
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass


def become(request: Mapping[str, Any]) -> None:
    """Be that program, in this process. Does not return."""
    given = os.open(request.get("given") or os.devnull, os.O_RDONLY)
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    streams = [given, *(os.open(request[name], flags, 0o600) for name in ("output", "errors"))]
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115 - lives as long as the process
    sys.argv = [request["program"], *request["arguments"]]
    runpy.run_module(request["program"], run_name="__main__", alter_sys=True)
    sys.exit(0)


if __name__ == "__main__":
    serve(sys.argv[1:])
