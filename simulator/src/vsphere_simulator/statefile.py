"""The state file: the world as JSON, written whenever it has changed.

Writing is atomic, so that a killed server leaves the previous state or the next one. The content has a
fixed order and nothing that changes by itself: the same world is the same bytes.
"""

from __future__ import annotations

import asyncio
import contextlib
import glob
import json
import logging
import os
import pathlib
import typing as t

if t.TYPE_CHECKING:
    from collections.abc import Callable

    from vsphere_simulator.kernel.objects import ManagedObject

log = logging.getLogger(__name__)
_DELAY = 0.1
"""Real seconds between a change and its writing."""
_RETRY = 1.0
"""Real seconds until a state that could not be written is written again."""
_SHARE = 4
"""A world that takes long to write is written only so seldom that it takes at most a quarter of the time."""


class StateFileError(ValueError):
    """A state file that cannot be read or written; the text names it."""


def write_atomically(path: pathlib.Path, content: bytes) -> None:
    """Replace a file's content in one step."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_bytes(content)
        temporary.replace(path)
    except OSError as problem:
        raise StateFileError(f"{path}: {problem.strerror}") from None
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def remove_leftovers(path: pathlib.Path) -> None:
    """Remove what processes that were killed while they wrote this file have left beside it."""
    for left in path.parent.glob(f".{glob.escape(path.name)}.*"):
        writer = left.name.rpartition(".")[2]
        if writer.isdecimal() and not _runs(int(writer)):
            with contextlib.suppress(OSError):
                left.unlink()


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def read_state(path: pathlib.Path) -> dict[str, t.Any] | None:
    """Return the state in a file, None if there is no such file."""
    try:
        loaded = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except OSError as problem:
        raise StateFileError(f"{path}: {problem.strerror}") from None
    except ValueError as problem:
        raise StateFileError(f"{path}: not a state file: {problem}") from None
    if not isinstance(loaded, dict):
        raise StateFileError(f"{path}: not a state file")
    return loaded


class StateFile:
    """Follows a world and writes its state."""

    def __init__(self, path: pathlib.Path, dump: Callable[[], dict[str, t.Any]]) -> None:
        self.path = path
        self._dump = dump
        self._written: bytes | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._pause = _DELAY
        self._failing = False

    def write(self) -> None:
        """Write the state now, unless it is what the file has already."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        content = (json.dumps(self._dump(), indent=1, sort_keys=True) + "\n").encode()
        if content != self._written:
            write_atomically(self.path, content)
            self._written = content

    def _soon(self, obj: ManagedObject) -> None:
        if not obj.volatile and self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._pause, self._timed)

    def _timed(self) -> None:
        self._timer = None
        loop = asyncio.get_running_loop()
        started = loop.time()
        try:
            self.write()
        except StateFileError as problem:
            if not self._failing:
                log.error("%s: the state is not kept until that is repaired", problem)  # noqa: TRY400 - an operator's
            self._failing = True
            self._timer = loop.call_later(_RETRY, self._timed)
            return
        if self._failing:
            log.warning("%s: the state is kept again", self.path)
        self._failing = False
        self._pause = max(_DELAY, _SHARE * (loop.time() - started))

    def object_added(self, obj: ManagedObject) -> None:
        """Write soon."""
        self._soon(obj)

    def object_removed(self, obj: ManagedObject) -> None:
        """Write soon."""
        self._soon(obj)

    def object_changed(self, obj: ManagedObject, paths: tuple[str, ...]) -> None:
        """Write soon, but not for the coming and going of tasks."""
        if paths != ("recentTask",):
            self._soon(obj)
