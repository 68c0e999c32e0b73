# Copyright: (c) 2026, The gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The command line: `gpu-pool prolog | epilog | health | idle | reset`."""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from . import health, idle
from .fence import Fence
from .holdings import Holding
from .settings import DEFAULT_PATH, Settings, load
from .tools import FenceError, Slurm, UnknownJobError

# Jobs start and end side by side; health and idleness only read.
LOCKED = ("prolog", "epilog", "reset")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code. What cannot be done drains the server, with the reason."""
    parser = argparse.ArgumentParser(prog="gpu-pool", description="Fence, health and idleness of this server's GPUs.")
    parser.add_argument("--config", type=Path, default=DEFAULT_PATH, help=argparse.SUPPRESS)
    parser.add_argument("command", choices=["prolog", "epilog", "health", "idle", "reset"])
    arguments = parser.parse_args(argv)
    try:
        settings = load(arguments.config)
    except (OSError, ValueError, TypeError) as error:
        print(f"gpu-pool: {arguments.config}: {error}", file=sys.stderr)
        return 1
    fence = Fence(settings)
    try:
        # Asked before anybody is locked out: jobs end also while no controller answers.
        holding = fence.wanted(os.environ) if arguments.command == "prolog" else None
        with _lock(settings) if arguments.command in LOCKED else contextlib.nullcontext():
            _run(arguments.command, settings, fence, holding)
    except (FenceError, OSError, ValueError, LookupError) as error:
        print(f"gpu-pool: {error}", file=sys.stderr)
        if arguments.command in ("prolog", "epilog"):
            # A job that is no more leaves nothing to mend: the health check takes the server back.
            cause = health.REASON if isinstance(error, UnknownJobError) else "gpu-pool fence: "
            _drain(settings, f"{cause}{error}")
        return 1
    return 0


def _run(command: str, settings: Settings, fence: Fence, holding: Holding | None) -> None:
    done: list[str] = []
    if command == "prolog":
        if holding is not None:
            fence.put_up(holding)
    elif command == "epilog":
        fence.clean(os.environ)
    elif command == "reset":
        fence.reset()
    elif command == "health":
        acted = health.act(Slurm(settings.node), health.problems(settings, fence))
        done = [acted] if acted else []
    else:
        done = idle.watch(settings, fence.register.all())
    for line in done:
        print(line, flush=True)


def _drain(settings: Settings, reason: str) -> None:
    """Slurm drains a server whose prolog or epilog failed in any case, but does not know why."""
    try:
        Slurm(settings.node).drain(reason)
    except FenceError as error:
        print(f"gpu-pool: {error}", file=sys.stderr)


@contextlib.contextmanager
def _lock(settings: Settings) -> Iterator[None]:
    """One at a time."""
    directory = Path(settings.run)
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / "lock").open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield
