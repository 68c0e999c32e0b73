# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

import time
from typing import Any

import pytest
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere import images, rest
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.tasks import Bounds

HOST = "esx-1.lab"


def told(text: str, resolution: str | None = None) -> dict[str, Any]:
    """An Esx Settings Notification."""
    message = {"id": "x", "default_message": text, "args": []}
    more = {} if resolution is None else {"resolution": {**message, "default_message": resolution}}
    return {"id": "x", "time": "2025-01-01T00:00:00.000Z", "type": "ERROR", "message": message, **more}


class Answers:
    """A vCenter that gives these results."""

    username = "administrator@vsphere.local"

    def __init__(self, check: Any, apply: Any) -> None:
        self.results = {"check": check, "apply": apply}

    def get(self, *_arguments: Any, **_names: Any) -> Any:
        return {}

    def start(self, _verb: str, path: str, *_arguments: Any, **_names: Any) -> str:
        return path.partition("action=")[2].partition("&")[0]

    def finish(self, task: str, **_names: Any) -> Any:
        return self.results[task]


def remediated(check: Any, apply: Any) -> str:
    answers: Any = Answers(check, apply)
    bounds = Bounds(time.monotonic() + 60, 1)
    (outcome,) = images.remediate(answers, "gpu", "domain-c1", {HOST: "host-1"}, bounds).values()
    return "" if outcome.error is None else outcome.error.msg


def checked(**status: Any) -> dict[str, Any]:
    entity = {"type": "HOST", "host": "host-1", "status": "ERROR", "check_statuses": [{"status": "ERROR", **status}]}
    return {"status": "ERROR", "entity_results": [entity]}


def applied(status: str, *, whole: Any = None, result: Any = None, **notifications: Any) -> dict[str, Any]:
    return {
        "status": {"status": "ERROR", "notifications": whole or {}},
        "notifications": result,
        "host_status": {"host-1": {"status": status, "notifications": notifications}},
    }


FULL = told("The host is not in maintenance mode", "Free the host.")
REASONS: list[tuple[str, Any, Any, list[str]]] = [
    ("no reason", {}, applied("ERROR"), ["gives no reason", "vSphere Lifecycle Manager", "run again"]),
    ("nothing at all", None, applied("TIMED_OUT"), ["gives no reason"]),
    (
        "error, and what to do",
        {},
        applied("ERROR", errors=[FULL], warnings=[told("Slow.")], info=[told("Begun.")]),
        ["image: The host is not in maintenance mode. Free the host. Mend that, then run again."],
    ),
    (
        "twice the same",
        {},
        applied("ERROR", errors=[FULL, FULL]),
        ["image: The host is not in maintenance mode. Free the host. Mend"],
    ),
    ("warnings only", {}, applied("ERROR", errors=[], warnings=[told("No room.")]), ["image: No room. Mend"]),
    ("of the result", {}, applied("ERROR", result={"errors": [told("No depot.")]}), ["image: No depot. Mend"]),
    ("of the whole", {}, applied("ERROR", whole={"errors": [told("No proxy.")]}), ["image: No proxy. Mend"]),
    (
        "skipped",
        {},
        applied("SKIPPED", whole={"errors": [told("Stopped.")]}),
        ["another host failed before, so it was not begun. Stopped. Mend that, then run again."],
    ),
    ("no status", {}, {"host_status": {}}, ["another host failed before, so it was not begun. Mend"]),
    ("issues", checked(issues=[told("No quorum")["message"]]), None, ["image: No quorum. Mend"]),
    (
        "issues with what to do",
        checked(
            issues=[told("old")["message"]],
            check_issues=[{"description": told("HA is on")["message"], "resolution": told("Turn it off")["message"]}],
        ),
        None,
        ["image: HA is on. Turn it off. Mend"],
    ),
    ("no issues", checked(), None, ["gives no reason"]),
]


@pytest.mark.parametrize(("check", "apply", "words"), [row[1:] for row in REASONS], ids=[row[0] for row in REASONS])
def test_the_reason_for_a_host_is_what_the_vcenter_tells(check: Any, apply: Any, words: list[str]) -> None:
    msg = remediated(check, apply)
    assert msg.startswith(f"{HOST}: could not bring the host to its cluster's image: ")
    for word in words:
        assert word in msg
    assert ".." not in msg


def test_a_host_that_was_brought_to_the_image_has_no_error() -> None:
    assert remediated({}, applied("OK", warnings=[told("Slow.")])) == ""


def test_a_draft_that_is_not_valid_says_why() -> None:
    body = {"error_type": "INVALID_ARGUMENT", "messages": [], "data": {"notifications": {"errors": [told("No base")]}}}
    assert rest._error(body, "commit it", 400).msg == "Could not commit it: No base (INVALID_ARGUMENT)."


SAME = [
    ("administrator@vsphere.local", "administrator@vsphere.local", True),
    ("VSPHERE.LOCAL\\Administrator", "administrator@vsphere.local", True),
    ("CORP\\svc-gpu", "svc-gpu@corp.example.com", True),
    ("svc-gpu@corp.example.com", "corp\\SVC-GPU", True),
    ("root", "ROOT", True),
    ("CORP\\svc-gpu", "svc-gpu@other.example.com", False),
    ("svc-gpu@corp.one", "svc-gpu@corp.two", False),
    ("planner@vsphere.local", "administrator@vsphere.local", False),
    # Which domain is meant is not said, so nothing is known.
    ("administrator", "administrator@vsphere.local", False),
]


@pytest.mark.parametrize(("owner", "username", "same"), SAME)
def test_a_user_is_known_in_every_form(owner: str, username: str, same: bool) -> None:
    assert images._same_user(owner, username) is same
    assert images._same_user(username, owner) is same


@pytest.mark.parametrize(
    ("tasks", "told_of"),
    [
        ([{}], ("", None)),
        ([{"status": "PENDING", "progress": {"total": 0, "completed": 0}}], ("pending", None)),
        ([{"progress": {"total": 4, "completed": 1, "message": {"default_message": "Staging."}}}], ("Staging", 25)),
        (
            [
                {"progress": {"total": 100, "completed": 50, "message": {"default_message": "One"}}},
                {"progress": {"total": 100, "completed": 100, "message": {"default_message": "One"}}},
            ],
            ("One", 75),
        ),
    ],
)
def test_what_tasks_are_at(tasks: list[dict[str, Any]], told_of: tuple[str, int | None]) -> None:
    assert rest._progress(tasks) == told_of
