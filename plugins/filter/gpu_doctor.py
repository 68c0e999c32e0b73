# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Filter `gpu_doctor`: what is wrong with a guest, and how to mend it."""

from __future__ import annotations

import typing as t

from ansible.errors import AnsibleFilterError
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.doctor import VmView, Wanted, diagnose
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.guest_facts import GuestFacts

DOCUMENTATION = r"""
name: gpu_doctor
short_description: What is wrong with a guest, and how to mend it
version_added: "0.1.0"
author: The gpuops.vsphere contributors (@gpuops)
description:
  - Judges what M(gpuops.vsphere.guest_gpu_info) has read of a guest.
positional: _wanted
options:
  _input:
    description: The C(guest) that the module returns.
    type: dict
    required: true
  _wanted:
    description:
      - What is wanted, with the keys C(driver) and C(manager) (versions), C(licence), C(gpus) (at least so many),
        C(container) and C(max_offset_s).
    type: dict
    required: true
  vm_actions:
    description:
      - What M(gpuops.vsphere.vm_gpu) would do to the guest's machine, in check mode. Null if the vCenter was not asked.
    type: list
    elements: str
"""

EXAMPLES = r"""
- name: Show what is wrong with a guest
  ansible.builtin.debug:
    msg: "{{ read.guest | gpuops.vsphere.gpu_doctor({'driver': '550.90.07', 'gpus': 2}) }}"
"""

RETURN = r"""
_value:
  description: C(healthy), and C(findings) with C(check), C(status) (ok, FAIL or -), C(message) and C(mend).
  type: dict
"""


def gpu_doctor(
    guest: t.Mapping[str, t.Any], wanted: t.Mapping[str, t.Any], vm_actions: t.Sequence[str] | None = None
) -> dict[str, t.Any]:
    """The diagnosis of a guest; see DOCUMENTATION."""
    try:
        facts, asked = GuestFacts.from_dict(guest), Wanted(**wanted)
    except (KeyError, TypeError) as error:
        raise AnsibleFilterError(
            f"gpu_doctor needs what guest_gpu_info returns as guest, and known keys: {error}"
        ) from error
    vm = None if vm_actions is None else VmView.from_actions(vm_actions)
    return diagnose(facts, asked, vm).to_dict()


class FilterModule:
    """Tells Ansible the filters of this file."""

    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        """Name -> function."""
        return {"gpu_doctor": gpu_doctor}
