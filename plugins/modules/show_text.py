#!/usr/bin/python
# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: show_text
short_description: Print a text of several lines as it is
version_added: "0.1.0"
author:
  - The gpuops.vsphere contributors (@gpuops)
description:
  - Prints plans and summaries for people to read, without quotes and escapes whatever the callback plugin is.
  - Changes nothing, and prints in check mode too.
options:
  text:
    description: The text.
    type: str
    required: true
  verbosity:
    description: Print only when Ansible runs with at least this many C(-v).
    type: int
    default: 0
attributes:
  check_mode:
    description: Can run in check_mode and report what would change without changing it.
    support: full
  diff_mode:
    description: Returns what has changed (or would change in check mode) when in diff mode.
    support: none
  action:
    description: Runs on the controller, in the process of Ansible itself.
    support: full
seealso:
  - module: ansible.builtin.debug
"""

EXAMPLES = r"""
- name: Show the summary
  gpuops.vsphere.show_text:
    text: "{{ my_summary }}"
  run_once: true
"""

RETURN = r"""
"""
