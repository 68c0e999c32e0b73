# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Filter `token_problem`: why a text is no client configuration token."""

from __future__ import annotations

import time
import typing as t

from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu import guest_driver

DOCUMENTATION = r"""
name: token_problem
short_description: Why a text is no client configuration token
version_added: "0.1.0"
author: The gpuops.vsphere contributors (@gpuops)
description:
  - Looks whether a text has the form of the token that NVIDIA's licence server makes, and has not expired. The answer
    holds nothing of the text.
options:
  _input:
    description: The text.
    type: str
    required: true
"""

EXAMPLES = r"""
- name: Stop before a wrong file is installed as token
  ansible.builtin.assert:
    that: (vault_token | gpuops.vsphere.token_problem) == ""
"""

RETURN = r"""
_value:
  description: What is wrong, empty if nothing is.
  type: str
"""


def token_problem(text: str) -> str:
    """What is wrong, or nothing; see DOCUMENTATION."""
    return guest_driver.token_problem(str(text), time.time())


class FilterModule:
    """Tells Ansible the filters of this file."""

    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        """Name -> function."""
        return {"token_problem": token_problem}
