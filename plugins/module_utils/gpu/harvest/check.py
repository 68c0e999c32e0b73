# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The site's own check of whether a desktop is in use: a command of theirs, bounded in time, many at once.

Whatever goes wrong is `failed`, which leaves the desktop alone.
"""

from __future__ import annotations

import collections.abc
import concurrent.futures
import contextlib
import dataclasses
import os
import signal
import subprocess
import tempfile
import typing as t

from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.harvest.evening import Check

PLACE = "{name}"
_SHOWN = 200


@dataclasses.dataclass(frozen=True, slots=True)
class Answer:
    """What the check says of one desktop."""

    check: Check
    text: str = ""
    """The first line that it printed, or why it failed."""


def run_checks(
    argv: t.Sequence[str], names: collections.abc.Iterable[str], *, timeout: float, at_once: int
) -> dict[str, Answer]:
    """Run the command once for each name. It exits with 0 for idle and with 1 for in use."""
    names = list(dict.fromkeys(names))
    if not names:
        return {}
    with concurrent.futures.ThreadPoolExecutor(max_workers=min(at_once, len(names))) as pool:
        return dict(zip(names, pool.map(lambda name: _run(command(argv, name), timeout), names), strict=True))


def command(argv: t.Sequence[str], name: str) -> list[str]:
    """The command for a desktop: with its name for `{name}`, or at the end where that is not said."""
    if any(PLACE in word for word in argv):
        return [word.replace(PLACE, name) for word in argv]
    return [*argv, name]


def _run(words: t.Sequence[str], timeout: float) -> Answer:
    # Output goes to a file: a child that keeps a pipe open could not be waited for in bounded time. A module's
    # run_command has no limit of time and is not made for threads.
    with tempfile.TemporaryFile() as output:
        try:
            # pylint: disable-next=ansible-bad-function
            process = subprocess.Popen(  # noqa: S603 - the site's own command, without a shell
                words, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
            )
        except (OSError, ValueError) as error:
            return Answer("failed", f"could not be started: {error}")
        try:
            code: int | None = process.wait(timeout)
        except subprocess.TimeoutExpired:
            code = None
            # What it has started goes with it.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        output.seek(0)
        said = output.read(4 * _SHOWN).decode(errors="replace").strip().splitlines()
    first = said[0][:_SHOWN] if said else ""
    if code is None:
        return Answer("failed", f"hung: killed after {timeout:g} s")
    if code in (0, 1):
        return Answer("busy" if code else "idle", first)
    return Answer("failed", f"exited with {code}{': ' if first else ''}{first}")
