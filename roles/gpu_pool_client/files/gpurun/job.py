# Copyright: (c) 2026, The gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Run srun as a child: its streams, exit code and signals are the job's; waiting is explained on standard error."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator, Sequence
from types import FrameType
from typing import Any

from . import queue, slurm
from .errors import GpurunError, QuotaError

# A job that starts at once shows nothing. Then the queue is asked, less and less often.
FIRST_WORD_S = 1.0
NEXT_WORD_S = 10.0
# A job of one's own that is just ending still counts for a moment.
QUOTA_LOOKS = 2
FORWARDED = (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGQUIT)
# Of srun itself, where it has had no job.
REFUSED = (1, 255)


@dataclasses.dataclass(frozen=True)
class Voice:
    """How gpurun speaks beside the job: a line for people, or a line of JSON, on standard error."""

    as_json: bool = False
    quiet: bool = False

    def say(self, event: str, text: str, **facts: Any) -> None:
        """`facts` are for JSON only."""
        if self.as_json:
            print(json.dumps({"event": event, "message": text, **facts}), file=sys.stderr, flush=True)
        elif text and not self.quiet:
            print(f"gpurun: {text}", file=sys.stderr, flush=True)


class Watcher(threading.Thread):
    """Says where and why a job waits. One that waits for its user's own quota is ended, unless they are `patient`."""

    def __init__(self, process: subprocess.Popen[Any], comment: str, voice: Voice, *, patient: bool) -> None:
        super().__init__(daemon=True)
        self._process = process
        self._comment = comment
        self._voice = voice
        self._patient = patient
        self._ended = threading.Event()
        self.given_up: str | None = None

    def run(self) -> None:
        """Until the job runs or ends."""
        said = ""
        pause = FIRST_WORD_S
        looks = 0
        while not self._ended.wait(pause):
            pause = min(2 * pause, NEXT_WORD_S)
            try:
                reply = slurm.call(["squeue"])
                found = queue.find(reply, self._comment)
                if found is None:
                    continue
                place = queue.place(reply, self._comment, waiting_in_all())
            except GpurunError as error:
                place, found = None, None
                text, facts = str(error), {}
            if found is not None:
                if place is None:
                    return
                text, facts = place.text(), dataclasses.asdict(place)
                looks = looks + 1 if queue.over_quota(found) else 0
                if looks >= QUOTA_LOOKS and not self._patient:
                    self.given_up = queue.used_up(reply, found)
                    with contextlib.suppress(ProcessLookupError):
                        self._process.send_signal(signal.SIGINT)
                    return
                if looks and not self._patient:
                    continue
            if text != said:
                self._voice.say("waiting", text, **facts)
                said = text

    def finish(self) -> None:
        """The process has ended. Raises QuotaError where it was ended for its user's quota."""
        self._ended.set()
        self.join(timeout=5)
        if self.given_up:
            raise QuotaError(self.given_up)


def waiting_in_all() -> int | None:
    """How many jobs wait in the pool, also those that a user does not see; None where Slurm does not tell."""
    try:
        return int(slurm.call(["sdiag"])["statistics"]["jobs_pending"])
    except (GpurunError, KeyError, TypeError, ValueError):
        return None


def mark() -> str:
    """A comment by which the job is found in the queue before srun tells its number."""
    return f"gpurun:{uuid.uuid4().hex[:12]}"


def run(arguments: Sequence[str], comment: str | None, voice: Voice, *, patient: bool) -> int:
    """Run srun with these arguments; return its exit code (128 + n where a signal n ended it).

    Ctrl-C and SIGTERM end the job and free its GPUs before this returns. Raises GpurunError where there was no job.
    """
    process = subprocess.Popen(["srun", *arguments])  # noqa: S603, S607 - Slurm's own program, no shell
    watcher = Watcher(process, comment, voice, patient=patient) if comment else None
    if watcher:
        watcher.start()
    with _forwarding(process):
        code = process.wait()
    if watcher:
        watcher.finish()
    if code in REFUSED and comment:
        _explain_refusal(arguments, comment)
    return 128 - code if code < 0 else code


def _explain_refusal(arguments: Sequence[str], comment: str) -> None:
    """Raise what Slurm has against a request of which there never was a job. A job that ended is known for minutes."""
    try:
        known = queue.find(slurm.call(["squeue", "--states=all"]), comment)
    except GpurunError:
        return
    if known:
        return
    done = subprocess.run(  # noqa: S603 - Slurm's own program, no shell
        ["srun", "--test-only", *arguments],  # noqa: S607
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise slurm.explain(done.stderr)


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


def on_terminal() -> bool:
    """Whether somebody types: then the job gets a terminal too."""
    return os.isatty(0) and os.isatty(1)
