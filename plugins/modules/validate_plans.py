#!/usr/bin/python
# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: validate_plans
short_description: Gather every problem of an inventory in one list
version_added: "0.1.0"
author:
  - The gpuops.vsphere contributors (@gpuops)
description:
  - Takes what M(gpuops.vsphere.validate_variables) found on each host and what modules of this collection returned in
    check mode, and returns one list in the inventory's words. The same problem on several hosts is listed once.
  - Problems that only stand in the way for now (kind C(state), such as a host that does not answer) are left out.
options:
  variables:
    description: Results of M(gpuops.vsphere.validate_variables) by host.
    type: dict
    default: {}
  inventory:
    description: Problems of the inventory as a whole.
    type: list
    elements: dict
    default: []
    suboptions:
      variable:
        description: What it is about.
        type: str
        required: true
      msg:
        description: What is wrong and what to do.
        type: str
        required: true
  plans:
    description: Results of bulk modules that ran in check mode with O(ignore:object_errors=report).
    type: list
    elements: dict
    default: []
    suboptions:
      result:
        description: The registered result. One without C(objects) is a failure to reach the vCenter.
        type: dict
        required: true
      variables:
        description: The role variable behind each option of the module; C(*) is for all others.
        type: dict
        default: {}
      hosts:
        description: The inventory host behind each object, where the objects are not hosts.
        type: dict
        default: {}
  connection:
    description:
      - The variable behind each option of the connection to the vCenter, and behind each failure code; C(*) is for all
        others.
    type: dict
    default: {}
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
  - module: gpuops.vsphere.validate_variables
"""

EXAMPLES = r"""
- name: Gather every problem
  gpuops.vsphere.validate_plans:
    variables: "{{ dict(ansible_play_hosts | zip(ansible_play_hosts | map('extract', hostvars, 'my_variables'))) }}"
    plans:
      - result: "{{ my_passthrough_plan }}"
        variables:
          devices: esxi_passthrough_devices
  run_once: true
  register: my_problems
"""

RETURN = r"""
problems:
  description: The problems, by variable.
  returned: always
  type: list
  elements: dict
  contains:
    variable:
      description: The variable to change.
      type: str
      sample: esxi_passthrough_devices
    msg:
      description: What is wrong and what to do.
      type: str
    hosts:
      description: The hosts that have the problem; empty when it concerns the whole inventory.
      type: list
      elements: str
text:
  description: The problems as text for one screen.
  returned: always
  type: str
"""
