"""File locks that leave no file behind and are free again the moment their holder dies."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import ConflictError


@contextmanager
def locked(path: Path, what: str, timeout_s: float, *, shared: bool = False) -> Iterator[None]:
    """Hold a lock on `path` for the block; ConflictError naming `what` if it is not free in time.

    An exclusive holder removes the file when done; whoever was waiting for that file sees that its
    lock is on a name no longer there, and begins anew.
    """
    descriptor = _acquire(path, timeout_s, shared=shared)
    if descriptor is None:
        raise ConflictError(f"{what} is being worked on by another process", "wait for it to end, then run this again")
    try:
        yield
    finally:
        if not shared:
            path.unlink(missing_ok=True)
        os.close(descriptor)


def _acquire(path: Path, timeout_s: float, *, shared: bool) -> int | None:
    deadline = time.monotonic() + timeout_s
    mode = (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB
    while True:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except FileNotFoundError:  # the directory was tidied away between the two calls
            continue
        try:
            fcntl.flock(descriptor, mode)
            if _same_file(descriptor, path):
                return descriptor
        except BlockingIOError:
            pass
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)
        if time.monotonic() >= deadline:
            return None
        time.sleep(0.05)


def _same_file(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False
