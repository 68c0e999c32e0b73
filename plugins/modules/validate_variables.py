#!/usr/bin/python
# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: validate_variables
short_description: Check a host's variables against the argument specs of several roles
version_added: "0.1.0"
author:
  - The gpuops.vsphere contributors (@gpuops)
description:
  - Checks the variables of each host of the play against the argument specs of all the roles that will run on it,
    before the first of them runs.
  - Unlike Ansible's own validation, which is per role, it also rejects names that begin like a role's variables and
    that no role declares, and names that are a slip of the pen away from a declared one.
  - It never fails for what it finds, so that one task can gather the problems of all hosts
    (see M(gpuops.vsphere.validate_plans)), and never returns the value of a variable.
options:
  roles:
    description:
      - Roles of this collection, each with the inventory group of the hosts that it runs on.
      - Unknown names are looked for on every host; required variables and types only on the hosts of the group.
    type: dict
    required: true
  plan_roles:
    description:
      - Those of the roles whose variables the wanted state is worked out from. A mistake in another role's variable
        does not make the host's RV(usable) false. The default is all roles.
    type: list
    elements: str
  extra_prefixes:
    description: Beginnings of names that belong to the roles besides C(<role>_).
    type: list
    elements: str
    default: []
  ignore:
    description: Shell patterns of names that are the site's own, although they begin like a role's.
    type: list
    elements: str
    default: []
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
  - module: gpuops.vsphere.validate_plans
"""

EXAMPLES = r"""
- name: Check every host's variables
  gpuops.vsphere.validate_variables:
    roles:
      esxi_passthrough: esxi_gpu
      gpu_vm: esxi_gpu
    ignore: [gpu_vm_billing_*]
  register: my_variables
"""

RETURN = r"""
problems:
  description: What is wrong with the host's variables.
  returned: always
  type: list
  elements: dict
  contains:
    variable:
      description: Name of the variable, with the place inside it.
      type: str
      sample: gpu_vm_vms[0].gpus[1].mode
    msg:
      description: What is wrong and what to write instead.
      type: str
      sample: "must be one of fixed, dynamic: write fixed"
    usable:
      description: Whether the wanted state can be worked out in spite of it.
      type: bool
usable:
  description: Whether the wanted state of the host can be worked out from its variables.
  returned: always
  type: bool
"""
