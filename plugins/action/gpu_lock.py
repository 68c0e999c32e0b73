# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Action plugin `gpu_lock`: tells the module which process of this machine the run is, and runs it."""

from __future__ import annotations

import os
import typing as t

from ansible.plugins.action import ActionBase


class ActionModule(ActionBase):  # type: ignore[misc]  # ansible-core ships no types
    """A task runs in a worker; the run is the worker's parent."""

    TRANSFERS_FILES = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
        """Run the module with `holder_pid`, unless the task gives one."""
        output: dict[str, t.Any] = super().run(tmp, task_vars or {})
        arguments = {"holder_pid": os.getppid(), **self._task.args}
        output.update(self._execute_module("gpuops.vsphere.gpu_lock", module_args=arguments, task_vars=task_vars))
        return output
