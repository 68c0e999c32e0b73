# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Modules that run in a fork of the controller where the controller is where they would run anyway.

Ansible packs a module into an archive, starts a Python for it, and that Python unpacks, compiles and imports all that
the module needs: about a second of processor time for each task. The controller has the same files, and has imported
them once for all tasks when it loaded the action plugin. Elsewhere, with another interpreter, with `become`, `async` or
an environment of the task's own, the module runs as all modules do.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import sys
import tempfile
import traceback
import typing as t

from ansible import constants as C  # noqa: N812 - the name that Ansible's own plugins give it
from ansible.module_utils import _internal, basic
from ansible.module_utils.common.json import Direction, get_module_decoder, get_module_encoder
from ansible.plugins.action.normal import ActionModule as AnyModule

_PROFILE = "legacy"
"""How Ansible and its modules write to each other, unless a module says otherwise."""


class ModuleAction(AnyModule):  # type: ignore[misc]  # ansible-core ships no types
    """Runs the program of a module of this collection."""

    program: t.Callable[[], None]

    def _arguments(self) -> dict[str, t.Any]:
        """The task's arguments, to which a plugin may add what only the controller knows."""
        given: dict[str, t.Any] = self._task.args
        return given

    def _execute_module(self, **settings: t.Any) -> dict[str, t.Any]:
        given, variables = self._arguments(), settings.get("task_vars") or {}
        if not self._here(variables):
            result: dict[str, t.Any] = super()._execute_module(module_args=given, **settings)
            return result
        self._update_module_args(self._task.action, given, variables)
        return run_forked(type(self).program, given)

    def _here(self, variables: t.Mapping[str, t.Any]) -> bool:
        """Whether the module would run on this machine, as this user, with this interpreter."""
        task = self._task
        plain = not (task.become or task.async_val or task.delegate_to or any(task.environment or ()))
        if not plain or C.DEFAULT_KEEP_REMOTE_FILES or getattr(self._connection, "transport", None) != "local":
            return False
        interpreter = self._templar.template(variables.get("ansible_python_interpreter", ""))
        return bool(interpreter == sys.executable)


def run_forked(program: t.Callable[[], None], arguments: t.Mapping[str, t.Any]) -> dict[str, t.Any]:
    """Run the program of a module in a fork of this process, and return its result."""
    given = json.dumps(
        {"ANSIBLE_MODULE_ARGS": arguments}, cls=get_module_encoder(_PROFILE, Direction.CONTROLLER_TO_MODULE)
    ).encode()
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        pid = os.fork()
        if pid == 0:
            _become(program, given, output.fileno(), errors.fileno())
        code = _end_of(pid)
        said, complained = _text(output), _text(errors)
    try:
        result = json.loads(said, cls=get_module_decoder(_PROFILE, Direction.MODULE_TO_CONTROLLER))
    except ValueError:
        result = None
    if not isinstance(result, dict):
        message = f"The module ended with {code} and without a result."
        streams = {"module_stdout": said, "module_stderr": complained}
        return {"failed": True, "msg": message, "exception": complained or message, "rc": code, **streams}
    return {**result, "_ansible_parsed": True}


def _become(program: t.Callable[[], None], given: bytes, output: int, errors: int) -> t.NoReturn:
    """Be the module's process, from its first line to its end."""
    code = 1
    try:
        # Those of the worker end its whole process group.
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        for stream, number in ((output, 1), (errors, 2)):
            os.dup2(stream, number)
        sys.stdout = io.TextIOWrapper(os.fdopen(1, "wb", closefd=False), encoding="utf-8")
        sys.stderr = io.TextIOWrapper(os.fdopen(2, "wb", closefd=False), encoding="utf-8", errors="backslashreplace")
        # So that warnings become part of the result, as everywhere else that modules run.
        _internal.is_controller = False
        basic._ANSIBLE_ARGS, basic._ANSIBLE_PROFILE, basic._PARSED_MODULE_ARGS = given, _PROFILE, None
        try:
            program()
            code = 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 1
    except BaseException:  # noqa: BLE001 - nothing may return into the controller's code from here
        traceback.print_exc()
    finally:
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _end_of(pid: int) -> int:
    """Wait for the end of a child and return its exit code; it does not outlive a time-out of the task."""
    try:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    except BaseException:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        raise


def _text(file: t.IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode(errors="replace")
