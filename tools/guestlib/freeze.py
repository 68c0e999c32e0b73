"""Freeze and thaw a guest by signals to its processes, for hosts where podman has no cgroup to pause."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Mapping
from dataclasses import dataclass

from .errors import WaitError
from .identity import pids, read_stat

_STOPPED = frozenset("Tt")
_ENDING = frozenset("ZX")


@dataclass(frozen=True)
class Process:
    """A process as the host sees it: parent, pid namespace and state letter (see proc(5))."""

    parent: int
    namespace: str
    state: str


def members(table: Mapping[int, Process], init: int) -> set[int]:
    """Return the pids of a guest: everything in its init's pid namespace, and all descendants.

    The descendants take in nested namespaces (containers in the guest); the namespace takes in
    what was started from outside (`podman exec`).
    """
    root = table.get(init)
    if root is None:
        return set()
    children: dict[int, list[int]] = {}
    for pid, process in table.items():
        children.setdefault(process.parent, []).append(pid)
    found: set[int] = set()
    queue = [pid for pid, process in table.items() if process.namespace == root.namespace]
    while queue:
        pid = queue.pop()
        if pid not in found:
            found.add(pid)
            queue.extend(children.get(pid, ()))
    return found


def process_table() -> dict[int, Process]:
    """Read every process of the host."""
    table: dict[int, Process] = {}
    for pid in pids():
        stat = read_stat(pid)
        try:
            namespace = os.readlink(f"/proc/{pid}/ns/pid")  # noqa: PTH115  # a magic link, not a path
        except OSError:
            continue
        if stat is not None and stat.state not in _ENDING:
            table[pid] = Process(stat.parent, namespace, stat.state)
    return table


def is_stopped(init: int) -> bool:
    """Return whether the guest's init is stopped by a signal."""
    stat = read_stat(init)
    return stat is not None and stat.state in _STOPPED


def freeze(init: int, timeout_s: float) -> None:
    """Stop every process of the guest; those forked meanwhile are caught by looking again."""
    _signal_all(init, signal.SIGSTOP, stopped=True, timeout_s=timeout_s)


def thaw(init: int, timeout_s: float) -> None:
    """Continue every process of the guest."""
    _signal_all(init, signal.SIGCONT, stopped=False, timeout_s=timeout_s)


def _signal_all(init: int, number: signal.Signals, *, stopped: bool, timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while True:
        table = process_table()
        left = [pid for pid in members(table, init) if (table[pid].state in _STOPPED) != stopped]
        if not left:
            return
        if time.monotonic() > deadline:
            verb = "stop" if stopped else "continue"
            raise WaitError(f"{len(left)} processes of the guest did not {verb} within {timeout_s:g} s", "try again")
        for pid in left:
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                continue
        time.sleep(0.01)
