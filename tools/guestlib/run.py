"""Run a program of the host; what it says on failure becomes one line."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence

from .errors import CommandError, HostError, WaitError

MARK = "GPUOPS_GUEST_JOB"
"""Environment variable of every program started here: lets a clean-up find those whose starter was killed."""


def run(
    argv: Sequence[str],
    *,
    name: str | None = None,
    stdin: bytes | None = None,
    environment: Mapping[str, str] | None = None,
    timeout_s: float = 120.0,
    accept: Sequence[int] = (0,),
    log: int | None = None,
) -> str:
    """Run `argv` and return its standard output.

    The program gets a session of its own: a signal for our process group (Ctrl-C, a harness that
    kills the group) must not stop it half-way; it is ended only by the time limit. `name` is what
    messages call it, `accept` the exit codes that are no failure, `log` a file descriptor that
    takes both streams. Raises HostError (no such program), WaitError or CommandError.
    """
    shown = name or argv[0]
    try:
        process = subprocess.Popen(
            list(argv),
            stdin=subprocess.DEVNULL if stdin is None else subprocess.PIPE,
            stdout=subprocess.PIPE if log is None else log,
            stderr=subprocess.PIPE if log is None else log,
            env={**os.environ, **(environment or {})},
            start_new_session=True,
        )
    except FileNotFoundError as error:
        raise HostError(f"{argv[0]} is not installed", "run 'tools/guest setup' as root") from error
    with process:
        try:
            out, err = process.communicate(stdin, timeout=timeout_s)
        except subprocess.TimeoutExpired as error:
            end(process)
            raise WaitError(
                f"{shown} did not finish within {timeout_s:g} s", "run it again, or raise 'timeout_s'"
            ) from (error)
        except BaseException:
            end(process)
            raise
    if process.returncode not in accept:
        raise CommandError(f"{shown} failed: {last_line(err) or f'exit code {process.returncode}'}", "")
    return (out or b"").decode(errors="replace")


def end(process: subprocess.Popen[bytes], grace_s: float = 10.0) -> None:
    """End a program and its session: first asked, then killed."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
            process.wait(grace_s)
        except ProcessLookupError:
            return
        except subprocess.TimeoutExpired:
            continue
        return


def last_line(stream: bytes | None) -> str:
    """Return the last non-empty line: where command-line programs put the cause of a failure."""
    lines = [line.strip() for line in (stream or b"").decode(errors="replace").splitlines() if line.strip()]
    return lines[-1] if lines else ""
