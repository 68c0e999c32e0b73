#!/usr/bin/python
# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: gpu_placement
short_description: Choose hosts for virtual machines with GPUs
version_added: "0.1.0"
author:
  - The gpuops.vsphere contributors (@gpuops)
description:
  - Says which virtual machine goes to which host, and which GPUs it is going to get there, so that all of them fit.
    Changes nothing.
  - Knows the rules of vGPU in same-size and mixed-size mode, passthrough devices by id, label or address, memory, CPUs,
    and anti-affinity.
  - The vCenter cannot be told which GPU of a host to use for a vGPU. It is predicted from the host's assignment policy;
    power on in the order of RV(placements).
  - For each machine without a place it says why, and what would make room.
options:
  leave:
    description:
      - Hosts that are to be emptied. Their running virtual machines are placed on other hosts of the same cluster,
        and nothing is placed on them.
    type: list
    elements: str
    default: []
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
  - module: gpuops.vsphere.gpu_plan
  - module: gpuops.vsphere.vm_group
"""

EXAMPLES = r"""
- name: Find places for four machines with a quarter of an A100 each, of which no two share a host
  gpuops.vsphere.gpu_placement:
    hostname: vcenter.example.org
    username: "{{ vcenter_username }}"
    password: "{{ vcenter_password }}"
    vms:
      - {name: infer-1, memory_mb: 32768, gpus: [{mode: vgpu, profile: nvidia_a100-10c}]}
      - {name: infer-2, memory_mb: 32768, gpus: [{mode: vgpu, profile: nvidia_a100-10c}]}
    anti_affinity:
      infer: ["infer-*"]
    spare: host
  register: placement

- name: Find a place for a machine by what its vGPU must have
  gpuops.vsphere.gpu_placement:
    hostname: vcenter.example.org
    username: "{{ vcenter_username }}"
    password: "{{ vcenter_password }}"
    vms:
      - {name: infer-3, memory_mb: 32768, gpus: [{mode: vgpu, at_least_gb: 10, at_most_gpu: 0.5, migrate: true}]}

- name: See where the machines of a host would go, with at most three others moved
  gpuops.vsphere.gpu_placement:
    hostname: vcenter.example.org
    username: "{{ vcenter_username }}"
    password: "{{ vcenter_password }}"
    leave: [esx-gpu-07.example.org]
    max_moves: 3
"""

RETURN = r"""
objects:
  description: The place of each virtual machine, or why it has none.
  returned: always
  type: dict
  contains:
    host:
      description: The host it goes to, null for none.
      type: str
    origin:
      description: The host it comes from, null for a machine that does not run.
      type: str
    gpus:
      description: The GPUs it is predicted to get, by address; for a vGPU with its slot and profile.
      type: list
      elements: dict
    existing:
      description: Whether it runs there already.
      type: bool
    advice:
      description: For a machine without a place, what would make room.
      type: str
moves:
  description: Running machines to move first, in this order, each with C(vm), C(origin), C(host) and C(gpus).
  returned: always
  type: list
  elements: dict
placements:
  description: The machines with a place, in the order in which to power them on or move them.
  returned: always
  type: list
  elements: dict
refused:
  description: The machines without a place, each with C(vm), C(code), C(reason) and C(advice).
  returned: always
  type: list
  elements: dict
cost:
  description: How many are refused and moved, and what the goal comes to (lower is better).
  returned: always
  type: dict
bound:
  description: What no answer can be below.
  returned: always
  type: dict
optimal:
  description: Whether the answer is proven to be the best.
  returned: always
  type: bool
engine:
  description: V(heuristic), V(search) or V(cp-sat).
  returned: always
  type: str
requests:
  description: Number of requests made to the vCenter by method.
  returned: always
  type: dict
failure:
  description: Code, object and vSphere fault of the (first) failure.
  returned: on failure
  type: dict
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.placement import options
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.placement.fleet import place_fleet
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.placement.site import SiteFacts
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.capacity import assumed, read_site
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.client import Client
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.errors import InputError
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.module import Params, Planned, bulk_module
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.options import Spec


def argument_spec() -> Spec:
    return {
        "leave": {"type": "list", "elements": "str", "default": []},
        **options.placement_spec(),
    }


def prepare(module: AnsibleModule) -> None:
    mistake = options.mistakes(module.params)
    if mistake:
        raise InputError(mistake)


def read(client: Client, _params: Params) -> SiteFacts:
    return read_site(client)


def plan(facts: SiteFacts, params: Params) -> Planned:
    found = place_fleet(assumed(facts, params), params)
    return Planned(plans=found.plans, returns=options.result_dict(found.result))


def main() -> None:
    bulk_module(argument_spec(), prepare=prepare, read=read, plan=plan)


if __name__ == "__main__":
    main()
