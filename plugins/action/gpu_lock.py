# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Action plugin `gpu_lock`: tells the module which process of this machine the run is, and runs it."""

from __future__ import annotations

import os
import typing as t

from ansible_collections.gpuops.vsphere.plugins.modules import gpu_lock
from ansible_collections.gpuops.vsphere.plugins.plugin_utils.in_controller import ModuleAction


class ActionModule(ModuleAction):
    """A task runs in a worker; the run is the worker's parent."""

    program = staticmethod(gpu_lock.main)

    def _arguments(self) -> dict[str, t.Any]:
        return {"holder_pid": os.getppid(), **self._task.args}
