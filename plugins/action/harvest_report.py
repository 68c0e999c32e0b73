# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Action plugin `harvest_report`: runs the module of that name, which documents it."""

from __future__ import annotations

from ansible_collections.gpuops.vsphere.plugins.modules import harvest_report
from ansible_collections.gpuops.vsphere.plugins.plugin_utils.in_controller import ModuleAction


class ActionModule(ModuleAction):
    """A fork of the controller where that is the same."""

    program = staticmethod(harvest_report.main)
