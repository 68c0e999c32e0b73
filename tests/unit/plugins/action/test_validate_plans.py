"""A module that dies is a defect of ours, not a problem of the inventory."""

from __future__ import annotations

import pytest
from ansible_collections.gpuops.vsphere.plugins.action.validate_plans import crash


@pytest.mark.parametrize(
    "outcome",
    [
        {"objects": {}},
        {"msg": "cannot log in", "failure": {"code": "invalid_login"}},
        {"msg": "hosts: value of state must be one of: entered, left"},
    ],
    ids=["planned", "failed with a reason", "wrong options"],
)
def test_an_answer_is_no_crash(outcome: dict[str, object]) -> None:
    assert crash(outcome) is None


@pytest.mark.parametrize(
    ("outcome", "said"),
    [
        ({"msg": "MODULE FAILURE", "exception": "Traceback: KeyError: 'x'"}, "KeyError: 'x'"),
        ({"module_stderr": "Killed"}, "Killed"),
        ({}, "-vvv"),
    ],
    ids=["exception", "killed", "silent"],
)
def test_a_crash_says_what_is_known(outcome: dict[str, object], said: str) -> None:
    message = crash(outcome)
    assert message is not None
    assert said in message
