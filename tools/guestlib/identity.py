"""Who started what: a process is known by its pid, start time and the boot it belongs to."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from .run import MARK

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True)
class Identity:
    """A process that a later one with the same pid cannot be mistaken for."""

    pid: int
    start: int  # clock ticks after boot, field 22 of /proc/PID/stat
    boot: str

    @classmethod
    def of(cls, pid: int) -> Identity | None:
        """Return the identity of a running process, None if there is none (or only a zombie)."""
        stat = read_stat(pid)
        if stat is None or stat.state in "ZX":
            return None
        return cls(pid, stat.start, boot_id())

    @classmethod
    def own(cls) -> Identity:
        """Return the identity of this process."""
        identity = cls.of(os.getpid())
        if identity is None:
            raise RuntimeError("/proc does not show this process")
        return identity

    @classmethod
    def parse(cls, text: str) -> Identity | None:
        """Read what `str()` wrote; None for anything else."""
        parts = text.split(":")
        if len(parts) != 3 or not parts[0].isdecimal() or not parts[1].isdecimal():
            return None
        return cls(int(parts[0]), int(parts[1]), parts[2])

    def __str__(self) -> str:
        return f"{self.pid}:{self.start}:{self.boot}"

    def command(self) -> str:
        """Return the process's command name, empty when it is gone."""
        stat = read_stat(self.pid)
        return stat.command if stat is not None and stat.start == self.start else ""

    def alive(self) -> bool:
        """Return whether this very process still runs."""
        return Identity.of(self.pid) == self


@dataclass(frozen=True)
class Stat:
    """The fields of /proc/PID/stat that matter here."""

    command: str
    state: str
    parent: int
    start: int


def parse_stat(text: str) -> Stat:
    """Parse a line of /proc/PID/stat; the command may hold spaces and parentheses."""
    command, _, rest = text.partition("(")[2].rpartition(")")
    fields = rest.split()
    return Stat(command, fields[0], int(fields[1]), int(fields[19]))


def read_stat(pid: int) -> Stat | None:
    """Read /proc/PID/stat; None if the process is gone."""
    try:
        return parse_stat(Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace"))
    except (FileNotFoundError, ProcessLookupError):
        return None


def boot_id() -> str:
    """Return the kernel's random identifier of this boot."""
    return _BOOT_ID.read_text(encoding="ascii").strip()


def pids() -> list[int]:
    """Return every process id of the host."""
    return [int(name) for name in os.listdir("/proc") if name.isdecimal()]  # noqa: PTH208  # names only


def marked(job: str | None = None) -> dict[Identity, str]:
    """Return the processes that `run` started with a mark, and their marks; `job` picks one mark."""
    found: dict[Identity, str] = {}
    prefix = f"{MARK}=".encode()
    for pid in pids():
        try:
            environ = Path(f"/proc/{pid}/environ").read_bytes()
        except OSError:
            continue
        for entry in environ.split(b"\0"):
            if entry.startswith(prefix):
                mark = entry.removeprefix(prefix).decode(errors="replace")
                identity = Identity.of(pid)
                if identity is not None and job in (None, mark):
                    found[identity] = mark
    return found


def wait_gone(processes: Iterable[Identity], timeout_s: float) -> list[Identity]:
    """Wait until the processes have ended; return those that have not in time."""
    deadline = time.monotonic() + timeout_s
    left = [process for process in processes if process.alive()]
    while left and time.monotonic() < deadline:
        time.sleep(0.05)
        left = [process for process in left if process.alive()]
    return left


def kill(processes: Iterable[Identity], timeout_s: float = 10.0) -> list[Identity]:
    """Kill the processes and wait for their end; return those that are still there."""
    left = list(processes)
    for process in left:
        if process.alive():
            try:
                os.kill(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
    return wait_gone(left, timeout_s)
