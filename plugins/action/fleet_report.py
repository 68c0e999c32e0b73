# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Action plugin `fleet_report`: tells the module of that name where the collection keeps what the page is made of."""

from __future__ import annotations

import pathlib
import typing as t

from ansible_collections.gpuops.vsphere.plugins.modules import fleet_report
from ansible_collections.gpuops.vsphere.plugins.plugin_utils.in_controller import ModuleAction

ASSETS = pathlib.Path(__file__).resolve().parents[2] / "roles" / "report" / "files" / "fleet_page"


class ActionModule(ModuleAction):
    """A module cannot know: it may be run from an archive that holds Python only."""

    program = staticmethod(fleet_report.main)

    def _arguments(self) -> dict[str, t.Any]:
        return {"assets": str(ASSETS), **self._task.args}
