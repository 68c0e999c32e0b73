# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

import time

from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.harvest.check import Answer, command, run_checks

SCRIPT = """
case "$1" in
  idle) echo nobody is there ;;
  busy) echo ann is logged in; exit 1 ;;
  broken) echo no route to host >&2; exit 7 ;;
  hangs) sleep 600 & wait ;;
esac
"""


def test_what_the_command_says_fails_to_say_or_never_says() -> None:
    begun = time.monotonic()
    names = ["idle", "busy", "broken", "hangs"]
    answers = run_checks(["sh", "-c", SCRIPT, "check", "{name}"], names, timeout=2, at_once=4)
    assert answers == {
        "idle": Answer("idle", "nobody is there"),
        "busy": Answer("busy", "ann is logged in"),
        "broken": Answer("failed", "exited with 7: no route to host"),
        "hangs": Answer("failed", "hung: killed after 2 s"),
    }
    assert time.monotonic() - begun < 60


def test_a_command_that_is_not_there_has_failed() -> None:
    answer = run_checks(["/nonexistent/check"], ["a"], timeout=5, at_once=4)["a"]
    assert answer.check == "failed"
    assert "could not be started" in answer.text


def test_the_name_is_a_word_of_its_own_whatever_is_in_it() -> None:
    assert command(["check", "--vm={name}"], "a; b") == ["check", "--vm=a; b"]
    assert command(["check", "-q"], "a") == ["check", "-q", "a"]
    assert run_checks(["check"], [], timeout=5, at_once=4) == {}
