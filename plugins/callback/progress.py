# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Callback `progress`: who is where during long tasks, on a terminal."""

from __future__ import annotations

DOCUMENTATION = r"""
name: progress
type: notification
short_description: Show who is where during long tasks, on a terminal
version_added: "0.1.0"
author: The gpuops.vsphere contributors (@gpuops)
description:
  - While a module of this collection waits for migrations, maintenance mode, reboots, clones or cluster images, prints
    a line with each object, what it is at and how far, whenever that changes and at most every few seconds.
  - Prints nothing where the output is no terminal, and changes no result.
options:
  interval:
    description: Seconds between two lines, at least.
    type: float
    default: 3
    env:
      - name: GPUOPS_PROGRESS_INTERVAL
    ini:
      - section: callback_gpuops_progress
        key: interval
"""

import contextlib
import json
import os
import pathlib
import shutil
import tempfile
import threading
import time
import typing as t

from ansible.plugins.callback import CallbackBase
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.progress import DIRECTORY

_POLL_S = 0.25
_QUIET_S = 30.0
"""After so long a line is printed although nothing has changed, to show that the run is alive."""


class CallbackModule(CallbackBase):  # type: ignore[misc]  # ansible-core ships no types
    """Makes the directory that modules write to, and tells what they write."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "notification"
    CALLBACK_NAME = "gpuops.vsphere.progress"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self, *args: t.Any, **kwargs: t.Any) -> None:
        super().__init__(*args, **kwargs)
        self._directory: str | None = None
        self._teller: _Teller | None = None

    def v2_playbook_on_start(self, playbook: t.Any) -> None:  # noqa: ARG002 - Ansible's name
        """Begin, before the first worker is started: workers inherit the environment."""
        if os.isatty(1):
            self._directory = tempfile.mkdtemp(prefix="gpuops-progress-")  # mode 0700
            os.environ[DIRECTORY] = self._directory
            self._teller = _Teller(self._directory, float(self.get_option("interval")))
            self._teller.start()

    def v2_playbook_on_task_start(self, task: t.Any, is_conditional: t.Any) -> None:  # noqa: ARG002 - Ansible's names
        """What the task before has told is over."""
        if self._teller is not None:
            self._teller.next_task()

    def v2_playbook_on_stats(self, stats: t.Any) -> None:  # noqa: ARG002 - Ansible's name
        """End."""
        if self._teller is not None:
            self._teller.stop()
            self._teller = None
        if self._directory is not None:
            os.environ.pop(DIRECTORY, None)
            shutil.rmtree(self._directory, ignore_errors=True)
            self._directory = None


class _Teller(threading.Thread):
    """Reads what modules write, and writes to the terminal.

    Ansible forks its workers while this thread runs, so it takes no lock that a worker may want: it writes to the
    terminal's descriptor, not to sys.stdout.
    """

    def __init__(self, directory: str, interval: float) -> None:
        super().__init__(name="gpuops-progress", daemon=True)
        self._directory = directory
        self._interval = interval
        self._ends = threading.Event()
        self._offsets: dict[str, int] = {}
        self._states: dict[str, dict[str, t.Any]] = {}
        self._began = time.monotonic()
        self._forget = False

    def next_task(self) -> None:
        """Forget what was told so far."""
        self._forget = True

    def stop(self) -> None:
        """End, and wait until it has."""
        self._ends.set()
        self.join(timeout=2)

    def run(self) -> None:
        told, last = "", time.monotonic() - self._interval
        while not self._ends.wait(_POLL_S):
            if self._forget:
                self._forget, told = False, ""
                self._states.clear()
            self._read()
            now, text = time.monotonic(), line(self._states)
            if text and now - last >= (self._interval if text != told else _QUIET_S):
                told, last = text, now
                minutes, seconds = divmod(int(now - self._began), 60)
                with contextlib.suppress(OSError):
                    columns = os.get_terminal_size(1).columns or 1000  # 0: it does not tell
                    shown = f"  … {minutes}:{seconds:02} {text}"
                    shown = shown if len(shown) <= columns else shown[: max(1, columns - 1)] + "…"
                    os.write(1, f"{shown}\n".encode())

    def _read(self) -> None:
        with contextlib.suppress(OSError):
            for entry in os.scandir(self._directory):
                with pathlib.Path(entry.path).open("rb") as stream:
                    stream.seek(self._offsets.get(entry.name, 0))
                    for raw in stream:
                        if not raw.endswith(b"\n"):
                            break
                        self._offsets[entry.name] = self._offsets.get(entry.name, 0) + len(raw)
                        note(self._states, json.loads(raw))


def note(states: dict[str, dict[str, t.Any]], told: t.Mapping[str, t.Any]) -> None:
    """Take in what a module tells of one object."""
    if told["ended"]:
        states.pop(told["name"], None)
    else:
        states[told["name"]] = dict(told)


def line(states: t.Mapping[str, t.Mapping[str, t.Any]]) -> str:
    """All objects that are at something: what, who, and how far; those at the same thing together."""
    groups: dict[str, list[str]] = {}
    for name, state in sorted(states.items()):
        percent = "" if state["percent"] is None else f" {state['percent']} %"
        groups.setdefault(str(state["doing"]), []).append(f"{name}{percent}")
    return "; ".join(f"{doing}: {', '.join(names)}" for doing, names in sorted(groups.items()))
