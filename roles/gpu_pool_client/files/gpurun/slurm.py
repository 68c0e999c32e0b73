# Copyright: (c) 2026, The gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Slurm's commands, called with --json and read as JSON; their errors put into our own words."""

from __future__ import annotations

import json
import shlex
import subprocess
import time
from collections.abc import Sequence
from typing import Any

from .errors import CredentialError, GpurunError, RefusedError, SlurmError, UnreachableError

UNREACHABLE = (
    "unable to contact slurm controller",
    "connection refused",
    "connection timed out",
    "zero bytes were transmitted",
    "could not establish a configuration source",
    "socket timed out",
    "unable to connect to primary",
    "slurm backup controller in standby mode",
)
CREDENTIAL = (
    "invalid authentication credential",
    "authentication credential",
    "protocol authentication error",
    "expired credential",
    "rewound credential",
    "munge_encode failed",
    "munged",
    "invalid account or account/partition combination",
    "access/permission denied",
    "user not found",
)
NEVER = ("requested node configuration is not available", "can not be satisfied")


def call(arguments: Sequence[str], timeout_s: float = 30) -> Any:
    """Run a Slurm command with --json and return what it printed. Raises GpurunError."""
    (reply,) = ask(arguments, timeout_s=timeout_s)
    if isinstance(reply, GpurunError):
        raise reply
    return reply


def ask(*commands: Sequence[str], timeout_s: float = 30) -> list[Any]:
    """Replies of several commands that run side by side; a GpurunError in the place of one that failed."""
    end = time.monotonic() + timeout_s
    started = [_start(command) for command in commands]
    return [
        each if isinstance(each, GpurunError) else _reply(each, max(0.1, end - time.monotonic()), timeout_s)
        for each in started
    ]


def _start(command: Sequence[str]) -> subprocess.Popen[str] | GpurunError:
    try:
        return subprocess.Popen(  # noqa: S603 - no shell, fixed programs
            [command[0], "--json", *command[1:]], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
    except FileNotFoundError:
        return SlurmError(f"{command[0]} is not installed here: is this a client of the pool (role gpu_pool_client)?")


def _reply(process: subprocess.Popen[str], left_s: float, timeout_s: float) -> Any:
    with process:
        try:
            out, error = process.communicate(timeout=left_s)
        except subprocess.TimeoutExpired:
            process.kill()
            return UnreachableError(
                f"the pool's controller did not answer within {timeout_s:g} s: try again, or ask the operator"
            )
    if process.returncode != 0:
        return explain(error)
    try:
        return json.loads(out)
    except json.JSONDecodeError:
        return explain(error or out)


def explain(text: str) -> GpurunError:
    """Slurm's message as the error that a user can act on."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    last = lines[-1] if lines else "no reason given"
    low = text.lower()
    if any(part in low for part in CREDENTIAL):
        return CredentialError(
            f"the pool does not accept this machine's or your credential ({last}): check that munge runs, that the "
            f"clocks agree, and that the operator added you"
        )
    if any(part in low for part in UNREACHABLE):
        return UnreachableError(f"no controller of the pool answers ({last}): try again, or ask the operator")
    if any(part in low for part in NEVER):
        return RefusedError(f"no server of the pool can give that ({last}): ask for less")
    return SlurmError(last)


def shell(command: Sequence[str]) -> str:
    """A command as one would type it."""
    return " ".join(shlex.quote(part) for part in command)
