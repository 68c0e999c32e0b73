# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys
import threading
import time
import types
from collections.abc import Callable
from typing import Any

import pytest
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.errors import (
    ConnectionFailedError,
    ConnectionLostError,
    GpuOpsError,
    OperationTimeoutError,
)
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.module import applied
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.pyvmomi import vim
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.tasks import Bounds, TaskOutcome, run_calls


@pytest.fixture
def client() -> Any:
    return types.SimpleNamespace(interrupted=False, names={})


@pytest.mark.parametrize("bound", [1, 3])
def test_calls_are_made_at_once_but_no_more_than_allowed(client: Any, bound: int) -> None:
    full = threading.Barrier(bound)
    lock = threading.Lock()
    running = peak = 0

    def call() -> None:
        nonlocal running, peak
        with lock:
            running += 1
            peak = max(peak, running)
        full.wait(10)
        with lock:
            running -= 1

    outcomes = run_calls(client, {f"host-{number}": call for number in range(2 * bound)}, max_parallel=bound)
    assert all(outcome.ok for outcome in outcomes.values())
    assert peak == bound


def test_one_failure_is_that_object_s_alone(client: Any) -> None:
    def fails(error: BaseException) -> Callable[[], None]:
        def call() -> None:
            raise error

        return call

    outcomes = run_calls(
        client,
        {
            "good": lambda: 42,
            "fault": fails(vim.fault.InvalidState(msg="No.")),
            "lost": fails(ConnectionLostError("gone", object="endpoint")),
        },
        max_parallel=2,
        doing="try",
    )
    assert list(outcomes) == ["good", "fault", "lost"]
    assert outcomes["good"].result == 42
    assert [outcome.error.code if outcome.error else None for outcome in outcomes.values()] == [
        None,
        "invalid_state",
        "connection_lost",
    ]
    assert outcomes["fault"].error is not None
    assert outcomes["fault"].error.msg == "fault: could not try: No (InvalidState)."


@pytest.mark.parametrize("moment", ["handing out", "waiting"])
def test_an_interruption_ends_what_has_not_begun_and_reports_what_has(moment: str) -> None:
    # One at a time: the call under way ends, those behind it are never made. The signal comes while calls are
    # still being handed out, or when all are and their ends are waited for. In a process of its own: a signal is a
    # process's, and this one is the test runner's.
    script = pathlib.Path(__file__).with_name("interrupted_calls.py")
    done = subprocess.run(
        [sys.executable, str(script), moment],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    assert seen["interrupted"] is True
    assert seen["made"] == []
    assert seen["outcomes"] == {"first": "done"} | {f"later-{number}": "interrupted" for number in range(5)}
    assert next(iter(seen["outcomes"])) == "first"
    assert seen["after"] == "interrupted"


def test_nothing_to_do(client: Any) -> None:
    assert run_calls(client, {}, max_parallel=4) == {}


@pytest.mark.parametrize(
    ("seconds", "margin", "expected"), [(-5, 0, 1), (0.5, 0, 1), (1.5, 2, 1), (100.5, 0, 100), (100.5, 2, 98)]
)
def test_the_time_given_to_vsphere_is_never_without_limit(seconds: float, margin: int, expected: int) -> None:
    assert Bounds(time.monotonic() + seconds, 1).whole_seconds(margin=margin) == expected


def test_what_may_have_been_carried_out_counts_as_a_change() -> None:
    error = GpuOpsError("a: how it ended is unknown.", code="task_gone", object="a")
    done = applied(
        {
            "fine": TaskOutcome(),
            "refused": TaskOutcome(error=error),
            "lost": TaskOutcome(error=error, begun=True),
            "slow": TaskOutcome(error=OperationTimeoutError("a: not over.")),
            "given up": TaskOutcome(error=OperationTimeoutError("a: not done.", fault="Timedout")),
        }
    )
    changed = {name for name, item in done.items() if item.changed}
    assert changed == {"fine", "lost", "slow"}


@pytest.mark.parametrize(
    ("error", "begun"),
    [(ConnectionLostError("dropped"), True), (ConnectionFailedError("refused"), False), (GpuOpsError("no"), False)],
)
def test_a_request_that_was_sent_may_have_been_carried_out(client: Any, error: GpuOpsError, begun: bool) -> None:
    def call() -> None:
        raise error

    assert run_calls(client, {"a": call}, max_parallel=1)["a"] == TaskOutcome(error=error, begun=begun)
