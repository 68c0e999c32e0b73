# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Filter `numbered`: a name with a number of two digits."""

from __future__ import annotations

import typing as t

DOCUMENTATION = r"""
name: numbered
short_description: A name with a number of two digits
version_added: "0.1.0"
author: The gpuops.vsphere contributors (@gpuops)
description:
  - Makes the names of machines that are all alike.
positional: _prefix
options:
  _input:
    description: The number.
    type: int
    required: true
  _prefix:
    description: What the name begins with.
    type: str
    required: true
"""

EXAMPLES = r"""
- name: Show gpu-pool-07
  ansible.builtin.debug:
    msg: "{{ 7 | gpuops.vsphere.numbered('gpu-pool-') }}"
"""

RETURN = r"""
_value:
  description: The name.
  type: str
"""


def numbered(number: int, prefix: str) -> str:
    """The name; see DOCUMENTATION."""
    return f"{prefix}{number:02d}"


class FilterModule:
    """Tells Ansible the filters of this file."""

    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        """Name -> function."""
        return {"numbered": numbered}
