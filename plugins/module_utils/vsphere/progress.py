# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a module tells the terminal while it runs: one line of JSON for each step of an object, in a private directory.

The callback plugin `gpuops.vsphere.progress` makes the directory, names it in the environment, and reads it. Without it
nothing is written. A module's result does not depend on any of this.
"""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import stat

DIRECTORY = "GPUOPS_PROGRESS_DIR"


class Progress:
    """The way from one module to the terminal; safe to be called from several threads."""

    def __init__(self) -> None:
        self._stream = _open(os.environ.get(DIRECTORY, ""))

    def tell(self, name: str, doing: str, percent: int | None = None, *, ended: bool = False) -> None:
        """An object begins or goes on with something, or has ended it."""
        if self._stream is None:
            return
        line = json.dumps({"name": name, "doing": doing, "percent": percent, "ended": ended}) + "\n"
        # Nobody is to fail because nobody looks.
        with contextlib.suppress(OSError):
            os.write(self._stream, line.encode())

    def close(self) -> None:
        """Write no more."""
        if self._stream is not None:
            os.close(self._stream)
            self._stream = None


def _open(directory: str) -> int | None:
    """The module's own file in the directory, if that is there and nobody else's."""
    if not directory:
        return None
    try:
        found = os.lstat(directory)
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
            return None
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW
        return os.open(pathlib.Path(directory) / f"{os.getpid()}.jsonl", flags, 0o600)
    except OSError:
        return None
