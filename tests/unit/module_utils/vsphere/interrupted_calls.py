# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Calls that a Ctrl-C interrupts, as a program: prints as JSON how each ended.

The argument is the moment of the signal: `handing out` or `waiting`.
"""

from __future__ import annotations

import json
import signal
import sys
import threading
import time
import types
from collections.abc import Callable
from typing import Any

from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.tasks import TaskOutcome, run_calls


def interrupt() -> None:
    """As a terminal's Ctrl-C arrives: in the main thread, whichever thread this is."""
    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)


def main(waiting: bool) -> dict[str, Any]:
    """Six calls, the first of which goes on until the interruption is seen, then one more."""
    client: Any = types.SimpleNamespace(interrupted=False, names={})
    made: list[str] = []
    handed_out, never = threading.Event(), threading.Event()

    def first() -> str:
        if waiting:
            handed_out.wait(10)
            never.wait(0.5)  # so that the main thread is in the wait, not on its way there
            interrupt()
        end = time.monotonic() + 10
        while not client.interrupted and time.monotonic() < end:
            never.wait(0.01)
        return "done"

    class Calls(dict[str, Callable[[], Any]]):
        def items(self) -> Any:
            for number, item in enumerate(super().items()):
                if number == 3 and not waiting:
                    interrupt()
                yield item
            handed_out.set()

    def ended(outcome: TaskOutcome) -> Any:
        return outcome.error.code if outcome.error else outcome.result

    later = {f"later-{number}": lambda: made.append("made") for number in range(5)}
    outcomes = run_calls(client, Calls({"first": first} | later), max_parallel=1, doing="try")
    after = run_calls(client, {"next": lambda: made.append("made")}, max_parallel=1)
    return {
        "interrupted": client.interrupted,
        "made": made,
        "outcomes": {name: ended(outcome) for name, outcome in outcomes.items()},
        "after": ended(after["next"]),
    }


if __name__ == "__main__":
    # A run in the background inherits an ignored SIGINT.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    print(json.dumps(main(sys.argv[1] == "waiting")))
