# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options: {}
attributes:
  check_mode:
    description: Can run in C(check_mode) and return the changes it would make without making any.
  diff_mode:
    description: Returns what has changed, or would change in C(check_mode), when in diff mode.
  platform:
    description: Where the module's work can take effect.
    platforms: vsphere
    support: full
  action_group:
    description: Use C(group/gpuops.vsphere.vsphere) in C(module_defaults) to set its connection options once.
    support: full
    membership:
      - gpuops.vsphere.vsphere
"""
