# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Filter `entry`: an entry for a name out of a common description."""

from __future__ import annotations

import typing as t

DOCUMENTATION = r"""
name: entry
short_description: An entry for a name out of a common description
version_added: "0.1.0"
author: The gpuops.vsphere contributors (@gpuops)
description:
  - Gives machines that are all alike an entry each.
positional: _common
options:
  _input:
    description: The name, or a dictionary of C(name) and what only this entry has.
    type: raw
    required: true
  _common:
    description: What all have in common.
    type: dict
    required: true
"""

EXAMPLES = r"""
- name: Show two machines that are alike
  ansible.builtin.debug:
    msg: "{{ ['a', 'b'] | map('gpuops.vsphere.entry', {'memory_mb': 65536}) }}"
"""

RETURN = r"""
_value:
  description: The entry, with C(name).
  type: dict
"""


def entry(name: str | t.Mapping[str, t.Any], common: t.Mapping[str, t.Any]) -> dict[str, t.Any]:
    """The entry; see DOCUMENTATION."""
    return {**common, **(name if isinstance(name, t.Mapping) else {"name": name})}


class FilterModule:
    """Tells Ansible the filters of this file."""

    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        """Name -> function."""
        return {"entry": entry}
