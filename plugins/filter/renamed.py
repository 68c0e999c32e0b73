# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Filter `renamed`: a mapping with other keys."""

from __future__ import annotations

import typing as t

DOCUMENTATION = r"""
name: renamed
short_description: A mapping with other keys
version_added: "0.1.0"
author: The gpuops.vsphere contributors (@gpuops)
description:
  - Gives keys of a mapping the names that a module has for them.
positional: _names
options:
  _input:
    description: The mapping.
    type: dict
    required: true
  _names:
    description: New name by old name.
    type: dict
    required: true
"""

EXAMPLES = r"""
- name: Show a host as modules take it
  ansible.builtin.debug:
    msg: "{{ {'inventory_hostname': 'esx'} | gpuops.vsphere.renamed({'inventory_hostname': 'name'}) }}"
"""

RETURN = r"""
_value:
  description: The new mapping.
  type: dict
"""


def renamed(mapping: t.Mapping[str, t.Any], names: t.Mapping[str, str]) -> dict[str, t.Any]:
    """The mapping; see DOCUMENTATION."""
    return {names.get(key, key): value for key, value in mapping.items()}


class FilterModule:
    """Tells Ansible the filters of this file."""

    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        """Name -> function."""
        return {"renamed": renamed}
