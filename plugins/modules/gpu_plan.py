#!/usr/bin/python
# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: gpu_plan
short_description: Plan the expansion or contraction of a fleet of GPU hosts
version_added: "0.1.0"
author:
  - The gpuops.vsphere contributors (@gpuops)
description:
  - Says in one call what an expansion or contraction is going to do. Ordered steps (add, change, drain, remove), each
    with its reason, the virtual machines and jobs it touches, and what it needs first; as data and as a table. Changes
    nothing.
  - Fails for a plan that takes capacity that running work needs, unless O(allow_capacity_loss).
options:
  action:
    description: V(expand) adds, V(contract) takes away, V(site) does both.
    type: str
    choices: [site, expand, contract]
    default: site
  hosts:
    description:
      - Hosts that are to be in service. Only these get wanted machines; others of the vCenter do not, even if there is
        room.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: Name of the host in the vCenter.
        type: str
        required: true
      cluster:
        description: The cluster that it is to be in; not checked if not set.
        type: str
  own:
    description:
      - Virtual machines that the inventory gives O(hosts) themselves, each on its host. They have their room before
        those of O(vms); a contraction makes and changes none of them.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: Name of the virtual machine.
        type: str
        required: true
      host:
        description: Its host.
        type: str
        required: true
      gpus:
        description:
          - Its GPUs, in any way that M(gpuops.vsphere.vm_gpu) takes them. Some cannot be told before the host is asked;
            the plan says which.
        type: list
        elements: dict
        default: []
      memory_mb:
        description: Its memory.
        type: int
      num_cpus:
        description: Its virtual processors.
        type: int
  retiring:
    description: Hosts on their way out.
    type: list
    elements: str
    default: []
  leave_as:
    description: Where retiring hosts end, V(standalone) in the vCenter or V(removed) from it.
    type: str
    choices: [standalone, removed]
    default: standalone
  pool_prefix:
    description:
      - What the names of the pool's machines begin with; a number of two or more digits follows, from 01. One on
        O(hosts) that is not in O(vms), or that is on a retiring host, is to be deleted by a contraction. Machines of
        these names on other hosts are left alone. Without it no machine is the pool's.
    type: str
    default: ""
  pool_sized:
    description:
      - Whether O(vms) says how large the pool is to be. If not, a contraction deletes machines of the pool on retiring
        hosts only.
    type: bool
    default: true
  leaving:
    description:
      - Virtual machines that a contraction deletes with the retiring host that they are on. On another host they are
        left alone.
    type: list
    elements: str
    default: []
  keep_vms:
    description:
      - Hosts of O(retiring) that may leave with virtual machines that are off and registered on them. On others these
        are in the way.
    type: list
    elements: str
    default: []
  host_changes:
    description: By host, what its preparation changes, as the modules that do it say (their C(actions)).
    type: dict
    default: {}
  prepared:
    description:
      - By host, the facts that its preparation predicts, as the modules that do it return them (C(predicted)).
    type: dict
    default: {}
  jobs:
    description: By virtual machine, the jobs that run on it now, as far as they are known.
    type: dict
    default: {}
  jobs_waited_for:
    description:
      - By virtual machine, jobs that run on it now and have their time to end before it goes. The plan names them as
        those of O(jobs), and they do not stop it.
    type: dict
    default: {}
  allow_capacity_loss:
    description: Whether running work may lose its place. What it loses is a warning then.
    type: bool
    default: false
extends_documentation_fragment:
  - gpuops.vsphere.vsphere
  - gpuops.vsphere.vsphere.bulk
  - gpuops.vsphere.placement
  - gpuops.vsphere.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: N/A
    details:
      - This module changes nothing.
seealso:
  - module: gpuops.vsphere.gpu_placement
"""

EXAMPLES = r"""
- name: See what it means to take a host out
  gpuops.vsphere.gpu_plan:
    hostname: vcenter.example.org
    username: "{{ vcenter_username }}"
    password: "{{ vcenter_password }}"
    action: contract
    retiring: [esx-gpu-03.example.org]
    pool_prefix: gpu-pool-
    pool_sized: false
  register: plan

- name: Show it
  gpuops.vsphere.show_text:
    text: "{{ plan.table }}"
"""

RETURN = r"""
objects:
  description: For each host and virtual machine of the plan, its steps, or what stands in the way.
  returned: always
  type: dict
action:
  description: What was planned.
  returned: always
  type: str
steps:
  description: The steps in order, each with C(action), C(object), C(what), C(reason), C(vms), C(jobs) and C(needs).
  returned: always
  type: list
  elements: dict
table:
  description: The plan as a table for people.
  returned: always
  type: str
where:
  description: The host of each wanted virtual machine in the end.
  returned: always
  type: dict
work:
  description: The host of each wanted virtual machine that is to be made, changed or powered on.
  returned: always
  type: dict
moves:
  description: The host to which each running virtual machine of a retiring host is to migrate.
  returned: always
  type: dict
removed:
  description: Virtual machines to shut down and delete.
  returned: always
  type: list
  elements: str
clusters:
  description:
    - What the operators' lock must cover, for M(gpuops.vsphere.gpu_lock).
    - The clusters of the hosts, and the names of hosts outside of clusters that the plan touches.
  returned: always
  type: list
  elements: str
placement:
  description: The answer of placement, as M(gpuops.vsphere.gpu_placement) returns it.
  returned: always
  type: dict
warnings_of_plan:
  description: What an operator should know.
  returned: always
  type: list
  elements: str
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

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.fleet_plan import plan_fleet, table
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.placement import options
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.placement.site import SiteFacts
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.capacity import assumed, read_site
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.client import Client
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.errors import InputError
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.module import Params, Planned, bulk_module
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.options import Spec


def argument_spec() -> Spec:
    return {
        "action": {"type": "str", "choices": ["site", "expand", "contract"], "default": "site"},
        "hosts": {
            "type": "list",
            "elements": "dict",
            "default": [],
            "options": {"name": {"type": "str", "required": True}, "cluster": {"type": "str"}},
        },
        "own": {
            "type": "list",
            "elements": "dict",
            "default": [],
            "options": {
                "name": {"type": "str", "required": True},
                "host": {"type": "str", "required": True},
                "gpus": {"type": "list", "elements": "dict", "default": []},
                "memory_mb": {"type": "int"},
                "num_cpus": {"type": "int"},
            },
        },
        "retiring": {"type": "list", "elements": "str", "default": []},
        "leave_as": {"type": "str", "choices": ["standalone", "removed"], "default": "standalone"},
        "pool_prefix": {"type": "str", "default": ""},
        "pool_sized": {"type": "bool", "default": True},
        "leaving": {"type": "list", "elements": "str", "default": []},
        "keep_vms": {"type": "list", "elements": "str", "default": []},
        "host_changes": {"type": "dict", "default": {}},
        "prepared": {"type": "dict", "default": {}},
        "jobs": {"type": "dict", "default": {}},
        "jobs_waited_for": {"type": "dict", "default": {}},
        "allow_capacity_loss": {"type": "bool", "default": False},
        **options.placement_spec(),
    }


def prepare(module: AnsibleModule) -> None:
    mistake = options.mistakes(module.params)
    if mistake:
        raise InputError(mistake)
    both = {item["name"] for item in module.params["hosts"]} & set(module.params["retiring"])
    if both:
        names = ", ".join(sorted(both))
        raise InputError(f"retiring: {names} is also to be in service. Put it into one group of the inventory only.")


def read(client: Client, _params: Params) -> SiteFacts:
    return read_site(client)


def plan(facts: SiteFacts, params: Params) -> Planned:
    facts = assumed(facts, params)
    now = {name: host.cluster for name, host in facts.hosts.items()}
    try:
        found = plan_fleet(facts, {**params, "clusters_now": now})
    except TypeError as error:
        raise InputError(f"prepared is not what the return value predicted shows: {error}.") from error
    names = [*(item["name"] for item in params["hosts"]), *params["retiring"], *found.where.values()]
    wanted = {item["name"]: item.get("cluster") for item in params["hosts"]}
    touched = {step.object for step in found.steps} | set(found.work.values())
    touched |= {vm.host for vm in facts.vms.values() if vm.host and vm.name in touched}
    alone = {name for name in touched if name in now and now[name] is None and not wanted.get(name)}
    clusters = {now.get(name) for name in names} | set(wanted.values()) | alone
    return Planned(
        plans=found.plans(),
        returns={
            "action": params["action"],
            "steps": [dataclasses.asdict(step) for step in found.steps],
            "table": table(found),
            "where": found.where,
            "work": found.work,
            "moves": found.moves,
            "removed": found.removed,
            "clusters": sorted(cluster for cluster in clusters if cluster),
            "placement": options.result_dict(found.places.result),
            "warnings_of_plan": found.warnings,
        },
    )


def main() -> None:
    bulk_module(argument_spec(), prepare=prepare, read=read, plan=plan)


if __name__ == "__main__":
    main()
