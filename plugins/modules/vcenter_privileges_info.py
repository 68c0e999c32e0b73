#!/usr/bin/python
# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: vcenter_privileges_info
short_description: Which privileges the account lacks for jobs of this collection
version_added: "0.1.0"
author:
  - The gpuops.vsphere contributors (@gpuops)
description:
  - Asks the vCenter in one request which of the privileges that jobs need the account has, on the objects they are
    needed on, before any of the jobs begins. Changes nothing.
  - Fails and names each missing privilege, unless O(object_errors=report).
  - Where a job chooses the object itself (a datastore, a folder, a resource pool), a privilege is missing when it is
    held on none of that kind.
options:
  jobs:
    description:
      - What the account is to do, and to what.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: The job, as in M(gpuops.vsphere.vcenter_role).
        type: str
        choices:
          - validate
          - inventory
          - report
          - placement
          - passthrough
          - graphics
          - driver
          - rolling
          - vms
          - power
          - harvest
          - shares
          - lock
          - cluster
          - expand
          - site
        required: true
      modules:
        description: Modules that will run. The default is all of the job.
        type: list
        elements: str
      hosts:
        description: Hosts that it is done to. The default is all.
        type: list
        elements: str
      vms:
        description: Virtual machines that it is done to. What is not there yet will be made in some folder.
        type: list
        elements: str
        default: []
      templates:
        description: Templates that are cloned.
        type: list
        elements: str
        default: []
      cases:
        description:
          - Uses of the modules that a run may do without, and that this one does not. The default is all.
        type: list
        elements: str
        choices:
          - absent
          - begun
          - drs
          - image
          - lend
          - member
          - migrate
          - move
          - 'off'
          - 'on'
          - patch
          - pools
          - power
          - remember
          - removed
          - restart_services
          - seldom
          - shut_down
          - suspend
          - suspended
          - vcenter
extends_documentation_fragment:
  - gpuops.vsphere.vsphere
  - gpuops.vsphere.vsphere.bulk
  - gpuops.vsphere.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: N/A
    details:
      - This module changes nothing.
seealso:
  - module: gpuops.vsphere.vcenter_role
"""

EXAMPLES = r"""
- name: Make sure that the account may do all that site.yml does
  gpuops.vsphere.vcenter_privileges_info:
    hostname: vcenter.example.org
    username: gpuops@vsphere.local
    password: "{{ vault_gpuops_password }}"
    jobs:
      - name: site
        hosts: [esx-gpu-01.example.org]
"""

RETURN = r"""
account:
  description: The account, as the vCenter calls it.
  returned: always
  type: str
missing:
  description: What the account lacks.
  returned: always
  type: list
  elements: dict
  contains:
    privilege:
      description: The privilege.
      type: str
      sample: Host.Config.PciPassthru
    object:
      description: The object it is missing on, or the kind of objects.
      type: str
    jobs:
      description: Jobs that need it.
      type: list
      elements: str
    modules:
      description: Modules that need it.
      type: list
      elements: str
objects:
  description: The objects in question, each with what is missing on it.
  returned: always
  type: dict
requests:
  description: Number of requests made to the vCenter by method.
  returned: always
  type: dict
failure:
  description: Code, object and vSphere fault of the (first) failure.
  returned: on failure
  type: dict
"""

import dataclasses
import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.privilege_check import (
    Question,
    check,
    questions,
    uses,
)
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.privileges import CASES, JOBS
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.client import Client
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.errors import InputError
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.module import Params, Planned, bulk_module
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.options import Spec
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.privileges import read_held, read_inventory


@dataclasses.dataclass(frozen=True, slots=True)
class Facts:
    asked: t.Sequence[Question]
    held: t.Mapping[str, t.Collection[str]]
    account: str


def argument_spec() -> Spec:
    names: dict[str, t.Any] = {"type": "list", "elements": "str"}
    job: Spec = {
        "name": {"type": "str", "choices": list(JOBS), "required": True},
        "modules": names,
        "hosts": names,
        "vms": {**names, "default": []},
        "templates": {**names, "default": []},
        "cases": {**names, "choices": list(CASES)},
    }
    return {"jobs": {"type": "list", "elements": "dict", "required": True, "options": job}}


def prepare(module: AnsibleModule) -> None:
    for job in module.params["jobs"]:
        foreign = sorted(set(job["modules"] or ()) - set(JOBS[job["name"]]))
        if foreign:
            own = ", ".join(JOBS[job["name"]])
            raise InputError(f"jobs: {job['name']} does not run {', '.join(foreign)}; its modules are {own}.")


def read(client: Client, params: Params) -> Facts:
    wanted = uses(params["jobs"])
    found = read_inventory(client, vms=any(use.vms or use.templates for use in wanted))
    # What this vCenter's version does not know nobody can have, and nothing asks for it.
    asked = [one for one in questions(wanted, found.inventory) if one.privilege in found.privileges]
    return Facts(asked, read_held(client, asked, found), found.session.userName)


def plan(facts: Facts, params: Params) -> Planned:  # noqa: ARG001 - as the shell calls it
    plans, missing = check(facts.asked, facts.held, facts.account)
    return Planned(plans=plans, returns={"account": facts.account, "missing": missing})


def main() -> None:
    bulk_module(argument_spec(), prepare=prepare, read=read, plan=plan)


if __name__ == "__main__":
    main()
