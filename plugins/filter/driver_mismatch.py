# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Filter `driver_mismatch`: why a guest driver does not go with a host's vGPU manager."""

from __future__ import annotations

import typing as t

from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.driver_triangle import check_guest

DOCUMENTATION = r"""
name: driver_mismatch
short_description: Why a guest driver does not go with a host's vGPU manager
version_added: "0.1.0"
author: The gpuops.vsphere contributors (@gpuops)
description:
  - Compares the versions by NVIDIA's rule. It accepts the same release, a manager one release later, and a long-term
    manager with the guest driver of the long-term release before.
positional: _manager
options:
  _input:
    description: Version of the guest driver.
    type: str
    required: true
  _manager:
    description: Version of the host's vGPU manager.
    type: str
    required: true
"""

EXAMPLES = r"""
- name: Stop before a driver is installed that cannot work
  ansible.builtin.assert:
    that: ("550.90.07" | gpuops.vsphere.driver_mismatch("550.90.05")) == ""
"""

RETURN = r"""
_value:
  description: What is wrong, empty if they go together.
  type: str
"""


def driver_mismatch(guest: str, manager: str) -> str:
    """What is wrong, or nothing; see DOCUMENTATION."""
    mismatch = check_guest(str(manager), str(guest))
    return mismatch.msg if mismatch else ""


class FilterModule:
    """Tells Ansible the filters of this file."""

    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        """Name -> function."""
        return {"driver_mismatch": driver_mismatch}
