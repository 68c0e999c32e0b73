# Copyright: (c) 2026, The gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Run srun as a child: its streams, exit code and signals are the job's; waiting is explained on standard error."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator, Sequence
from types import FrameType

from . import queue, slurm
from .errors import GpurunError

# srun tells by itself after this long; a job that starts at once shows nothing.
FIRST_WORD_S = 1.0
NEXT_WORD_S = 10.0
FORWARDED = (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGQUIT)


def mark() -> str:
    """A comment by which the job is found in the queue before srun tells its number."""
    return f"gpurun:{uuid.uuid4().hex[:12]}"


def run(arguments: Sequence[str], comment: str | None, *, quiet: bool) -> int:
    """Run srun with these arguments; return its exit code (128 + n where a signal n ended it).

    Ctrl-C and SIGTERM end the job and free its GPUs before this returns.
    """
    process = subprocess.Popen(["srun", *arguments])  # noqa: S603, S607 - Slurm's own program, no shell
    done = threading.Event()
    watcher = threading.Thread(target=_explain_waiting, args=(comment, done), daemon=True)
    if comment and not quiet:
        watcher.start()
    with _forwarding(process):
        code = process.wait()
    done.set()
    if watcher.ident:
        watcher.join(timeout=5)
    return 128 - code if code < 0 else code


@contextlib.contextmanager
def _forwarding(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """Signals that this program gets go to srun, which hands them to the job."""

    def forward(number: int, _frame: FrameType | None) -> None:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(number)

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        # The terminal sends Ctrl-C to srun too; sent again it is harmless, and needed where only we were meant.
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGINT)

    before = {number: signal.signal(number, forward) for number in FORWARDED}
    before[signal.SIGINT] = signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _explain_waiting(comment: str | None, done: threading.Event) -> None:
    """While the job waits, say its place in the queue and why, whenever that changes."""
    said = None
    pause = FIRST_WORD_S
    while not done.wait(pause):
        try:
            place = queue.place(slurm.call(["squeue"]), comment)
        except GpurunError as error:
            place = str(error)
        if place is None:
            return
        if place != said:
            print(f"gpurun: {place}", file=sys.stderr, flush=True)
            said = place
        pause = NEXT_WORD_S


def on_terminal() -> bool:
    """Whether somebody types: then the job gets a terminal too."""
    return os.isatty(0) and os.isatty(1)
