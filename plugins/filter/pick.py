# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Filter `pick`: some keys of a mapping, with defaults."""

from __future__ import annotations

import typing as t

from ansible.errors import AnsibleFilterError

DOCUMENTATION = r"""
name: pick
short_description: Some keys of a mapping, with defaults for those that it lacks
version_added: "0.1.0"
author: The gpuops.vsphere contributors (@gpuops)
description:
  - Makes the settings that a module takes for one object out of a wider mapping of the inventory.
  - A key that neither the mapping nor the defaults have a value for is left out.
positional: _keys
options:
  _input:
    description: The mapping.
    type: dict
    required: true
  _keys:
    description: The keys to keep.
    type: list
    elements: str
    required: true
  defaults:
    description: Values for keys that the mapping lacks or has as null. An empty string counts as no default.
    type: dict
    default: {}
"""

EXAMPLES = r"""
- name: Show what vm_power needs to know of each machine
  ansible.builtin.debug:
    msg: "{{ my_vms | map('gpuops.vsphere.pick', ['name', 'host'], defaults={'host': inventory_hostname}) }}"
"""

RETURN = r"""
_value:
  description: The new mapping.
  type: dict
"""


def pick(
    mapping: t.Mapping[str, t.Any], keys: t.Sequence[str], defaults: t.Mapping[str, t.Any] | None = None
) -> dict[str, t.Any]:
    """The chosen keys of a mapping; see DOCUMENTATION."""
    if not isinstance(mapping, t.Mapping):
        raise AnsibleFilterError(f"pick needs a mapping, not a {type(mapping).__name__}")
    picked = {}
    for key in keys:
        value = mapping.get(key)
        if value is None:
            value = (defaults or {}).get(key) or None
        if value is not None:
            picked[key] = value
    return picked


class FilterModule:
    """Tells Ansible the filters of this file."""

    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        """Name -> function."""
        return {"pick": pick}
