# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Action plugin `advanced_options`: runs the module of that name, which documents it."""

from __future__ import annotations

from ansible_collections.gpuops.vsphere.plugins.modules import advanced_options
from ansible_collections.gpuops.vsphere.plugins.plugin_utils.in_controller import ModuleAction


class ActionModule(ModuleAction):
    """A fork of the controller where that is the same."""

    program = staticmethod(advanced_options.main)
