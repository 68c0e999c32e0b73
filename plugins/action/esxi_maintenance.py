# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Action plugin `esxi_maintenance`: runs the module of that name, which documents it."""

from __future__ import annotations

from ansible_collections.gpuops.vsphere.plugins.modules import esxi_maintenance
from ansible_collections.gpuops.vsphere.plugins.plugin_utils.in_controller import ModuleAction


class ActionModule(ModuleAction):
    """A fork of the controller where that is the same."""

    program = staticmethod(esxi_maintenance.main)
