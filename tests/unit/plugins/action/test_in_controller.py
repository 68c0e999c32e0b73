# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Modules in a fork of the controller: the same results as elsewhere, and the controller is none the worse for them."""

from __future__ import annotations

import json
import os
import signal
import sys
import types
import typing as t
from pathlib import Path

import pytest
import yaml
from ansible.module_utils import _internal, basic
from ansible.module_utils.basic import AnsibleModule
from ansible.plugins.action.normal import ActionModule as AnyModule
from ansible_collections.gpuops.vsphere.plugins.action import gpu_lock
from ansible_collections.gpuops.vsphere.plugins.action.validate_plans import crash
from ansible_collections.gpuops.vsphere.plugins.plugin_utils.in_controller import ModuleAction, run_forked

COLLECTION = Path(__file__).resolve().parents[4]


def echo() -> None:
    module = AnsibleModule({"word": {"required": True}, "secret": {"no_log": True}}, supports_check_mode=True)
    module.warn("mind the gap")
    if module.params["word"] == "fail":
        module.fail_json(msg="no such word", failure={"code": "x"})
    module.exit_json(changed=not module.check_mode, said=module.params["word"])


def defective() -> None:
    raise KeyError("x")


def killed() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_result_with_its_warnings() -> None:
    # Before ansible-core 2.20 a module tells its invocation unasked, and does not know the question.
    asked = {"_ansible_inject_invocation": True} if "inject_invocation" in basic.PASS_VARS else {}
    result = run_forked(echo, {"word": "höher", "secret": "s3cret", **asked})
    assert (result["changed"], result["said"]) == (True, "höher")
    assert "mind the gap" in json.dumps(result["warnings"], default=str)
    assert result["invocation"]["module_args"]["secret"] == "VALUE_SPECIFIED_IN_NO_LOG_PARAMETER"
    assert run_forked(echo, {"word": "x", "_ansible_check_mode": True})["changed"] is False


@pytest.mark.parametrize("given", [{"word": "fail"}, {"wrod": "x"}], ids=["of the module", "of its arguments"])
def test_a_failure_is_the_modules_own(given: dict[str, str]) -> None:
    result = run_forked(echo, given)
    assert result["failed"] is True
    assert crash(result) is None
    assert result["msg"] == ("no such word" if "word" in given else "missing required arguments: word")


@pytest.mark.parametrize(("program", "said"), [(defective, "KeyError: 'x'"), (killed, "-9")])
def test_a_module_that_dies_is_a_crash(program: t.Callable[[], None], said: str) -> None:
    message = crash(run_forked(program, {}))
    assert message is not None
    assert said in message


def test_the_controller_stays_what_it_was() -> None:
    before = (basic._ANSIBLE_ARGS, basic._ANSIBLE_PROFILE, sys.stdout, signal.getsignal(signal.SIGTERM))
    controller = _internal.is_controller
    run_forked(echo, {"word": "x"})
    assert (basic._ANSIBLE_ARGS, basic._ANSIBLE_PROFILE, sys.stdout, signal.getsignal(signal.SIGTERM)) == before
    assert _internal.is_controller is controller


def test_a_time_out_of_the_task_ends_the_module(tmp_path: Path) -> None:
    place = tmp_path / "pid"

    def endless() -> None:
        place.write_text(str(os.getpid()))
        while True:
            signal.pause()

    def time_out(number: int, frame: object) -> t.NoReturn:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, time_out)
    signal.setitimer(signal.ITIMER_REAL, 1)
    try:
        with pytest.raises(TimeoutError):
            run_forked(endless, {})
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert not Path(f"/proc/{place.read_text()}").exists()


class Templar:
    def template(self, text: str) -> str:
        return text


def action(*, transport: str = "local", **task: t.Any) -> ModuleAction:
    """An action as far as it decides where its module runs."""
    made = object.__new__(gpu_lock.ActionModule)
    plain: dict[str, t.Any] = {"become": False, "async_val": 0, "delegate_to": None, "environment": [{}]}
    plain |= {"action": "gpuops.vsphere.gpu_lock", "args": {"state": "taken"}}
    made._task = types.SimpleNamespace(**(plain | task))
    made._connection = types.SimpleNamespace(transport=transport)
    made._templar = Templar()
    return made


@pytest.mark.parametrize(
    ("here", "task", "interpreter"),
    [
        (True, {}, sys.executable),
        (False, {}, "/usr/bin/python3.99"),
        (False, {}, ""),
        (False, {"transport": "ssh"}, sys.executable),
        (False, {"become": True}, sys.executable),
        (False, {"async_val": 60}, sys.executable),
        (False, {"delegate_to": "elsewhere"}, sys.executable),
        (False, {"environment": [{"HTTPS_PROXY": "http://proxy"}]}, sys.executable),
    ],
)
def test_where_a_module_runs(
    monkeypatch: pytest.MonkeyPatch, here: bool, task: dict[str, t.Any], interpreter: str
) -> None:
    elsewhere: list[dict[str, t.Any]] = []
    monkeypatch.setattr(AnyModule, "_execute_module", lambda _self, **given: elsewhere.append(given) or {})
    monkeypatch.setattr(ModuleAction, "_update_module_args", lambda *_given: None)
    monkeypatch.setattr(gpu_lock.ActionModule, "program", staticmethod(echo))
    one = action(**task)
    result = one._execute_module(task_vars={"ansible_python_interpreter": interpreter})
    assert bool(result) is here
    assert [sorted(given["module_args"]) for given in elsewhere] == ([] if here else [["holder_pid", "state"]])


def test_all_modules_of_the_vcenter_run_so() -> None:
    runtime = yaml.safe_load((COLLECTION / "meta" / "runtime.yml").read_text())
    for name in runtime["action_groups"]["vsphere"]:
        source = (COLLECTION / "plugins" / "action" / f"{name}.py").read_text()
        assert f"{name}.main" in source
        assert "(ModuleAction)" in source
