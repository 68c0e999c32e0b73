# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Filter `host_changes`: what each host is going to change."""

from __future__ import annotations

import typing as t

DOCUMENTATION = r"""
name: host_changes
short_description: What each host is going to change
version_added: "0.1.0"
author: The gpuops.vsphere contributors (@gpuops)
description:
  - Takes what a bulk module returned in check mode, and says what each host changes, also what waits for maintenance
    mode (C(pending)) and the reboot.
options:
  _input:
    description: The C(objects) of the result.
    type: dict
    required: true
"""

EXAMPLES = r"""
- name: Show what is going to change
  ansible.builtin.debug:
    msg: "{{ my_plan.objects | gpuops.vsphere.host_changes }}"
"""

RETURN = r"""
_value:
  description: By host, a list of texts; hosts without any are left out.
  type: dict
"""


def host_changes(objects: t.Mapping[str, t.Mapping[str, t.Any]]) -> dict[str, list[str]]:
    """The changes by host; see DOCUMENTATION."""
    changes = {}
    for name, found in objects.items():
        if found.get("failed") or found.get("left_alone"):
            continue
        texts = [str(action) for key in ("actions", "pending") for action in found.get(key) or ()]
        if found.get("reboot_required") or found.get("maintenance_required"):
            texts.append("reboot host")
        if texts:
            changes[name] = texts
    return changes


class FilterModule:
    """Tells Ansible the filters of this file."""

    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        """Name -> function."""
        return {"host_changes": host_changes}
