# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Action plugin `fleet_report`: tells the module of that name where the collection keeps what the page is made of."""

from __future__ import annotations

import pathlib
import typing as t

from ansible.plugins.action import ActionBase

ASSETS = pathlib.Path(__file__).resolve().parents[2] / "roles" / "report" / "files" / "fleet_page"


class ActionModule(ActionBase):  # type: ignore[misc]  # ansible-core ships no types
    """A module cannot know: it is run from an archive that holds Python only."""

    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
        """Run the module with `assets` set."""
        result: dict[str, t.Any] = super().run(tmp, task_vars)
        args = {"assets": str(ASSETS), **self._task.args}
        return {**result, **self._execute_module(module_args=args, task_vars=task_vars)}
