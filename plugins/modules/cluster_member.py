#!/usr/bin/python
# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: cluster_member
short_description: Put ESXi hosts into clusters or take them out
version_added: "0.1.0"
author:
  - The gpuops.vsphere contributors (@gpuops)
description:
  - Moves hosts that the vCenter knows into a cluster, out of it to stand alone, or out of the vCenter; many at once.
  - A host leaves only when it is in maintenance mode of this collection and no virtual machine is registered on it.
    Virtual machines in the way are listed. A host in somebody else's maintenance mode is left alone, with a warning.
  - A host that is to be removed is marked and disconnected first. Where a run ends between that and its removal, the
    next one removes it.
  - A bare host, which the vCenter does not know, is added with M(vmware.vmware.esxi_host).
options:
  hosts:
    description:
      - The hosts.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: Name of the host in the vCenter.
        type: str
        required: true
      cluster:
        description: The cluster, for O(state=member); instead of O(cluster).
        type: str
      keep_vms:
        description:
          - Whether this host may leave with virtual machines that are off and registered on it. If not set, O(keep_vms)
            says so.
        type: bool
  cluster:
    description: The cluster of all hosts that name none.
    type: str
  state:
    description:
      - V(member) of the cluster, V(standalone) in the folder of its cluster, or V(removed) from the vCenter.
      - A standalone host stays in maintenance mode, and is its administrator's from then on.
    type: str
    choices: [member, standalone, removed]
    default: member
  keep_vms:
    description:
      - Whether a host that does not say so itself may leave with virtual machines that are off and registered on it.
        With O(state=removed) the vCenter forgets them; their files stay.
    type: bool
    default: false
extends_documentation_fragment:
  - gpuops.vsphere.vsphere
  - gpuops.vsphere.vsphere.bulk
  - gpuops.vsphere.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
seealso:
  - module: gpuops.vsphere.esxi_maintenance
"""

EXAMPLES = r"""
- name: Two hosts join the cluster
  gpuops.vsphere.cluster_member:
    hostname: vcenter.example.org
    username: "{{ vcenter_username }}"
    password: "{{ vcenter_password }}"
    cluster: gpu
    hosts:
      - name: esx-gpu-04.example.org
      - name: esx-gpu-05.example.org

- name: A host leaves it
  gpuops.vsphere.cluster_member:
    hostname: vcenter.example.org
    username: "{{ vcenter_username }}"
    password: "{{ vcenter_password }}"
    hosts:
      - name: esx-gpu-01.example.org
    state: standalone
"""

RETURN = r"""
objects:
  description: What was done, or would be done, to each host.
  returned: always
  type: dict
  contains:
    cluster:
      description: The cluster it is in in the end, null for none.
      type: str
    known:
      description: Whether the vCenter knows it in the end.
      type: bool
    vms:
      description: Virtual machines that are registered on it.
      type: list
      elements: str
    left_alone:
      description: Whether nothing was done because somebody else has the host in maintenance mode.
      type: bool
predicted:
  description: The hosts' facts after the change, as far as they differ, for O(assume) of later steps.
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
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.facts import HostFacts, predicted_host
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.membership import MemberWant, plan_membership
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.client import Client
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.errors import InputError
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.membership import (
    Computes,
    apply_membership,
    read_computes,
)
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.module import (
    Applied,
    Params,
    Planned,
    applied,
    bulk_module,
    with_assumed,
)
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.options import Spec
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.reads import Found, read_hosts
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.tasks import Bounds


@dataclasses.dataclass(frozen=True, slots=True)
class Facts:
    hosts: Found[HostFacts]
    computes: Computes


def argument_spec() -> Spec:
    return {
        "hosts": {
            "type": "list",
            "elements": "dict",
            "required": True,
            "options": {
                "name": {"type": "str", "required": True},
                "cluster": {"type": "str"},
                "keep_vms": {"type": "bool"},
            },
        },
        "cluster": {"type": "str"},
        "state": {"type": "str", "choices": ["member", "standalone", "removed"], "default": "member"},
        "keep_vms": {"type": "bool", "default": False},
    }


def prepare(module: AnsibleModule) -> None:
    params = module.params
    lacking = [item["name"] for item in params["hosts"] if not (item.get("cluster") or params["cluster"])]
    if params["state"] == "member" and lacking:
        raise InputError(f"cluster: {', '.join(lacking)} shall be a member of a cluster, and none is named.")


def wants(params: Params) -> list[MemberWant]:
    return [
        MemberWant(
            item["name"],
            params["state"],
            item.get("cluster") or params["cluster"],
            params["keep_vms"] if item.get("keep_vms") is None else item["keep_vms"],
        )
        for item in params["hosts"]
    ]


def read(client: Client, params: Params) -> Facts:
    return Facts(read_hosts(client, [want.name for want in wants(params)], guests=True), read_computes(client))


def plan(facts: Facts, params: Params) -> Planned:
    hosts = with_assumed(facts.hosts, params)
    steps = plan_membership(
        hosts,
        wants(params),
        clusters=facts.computes.clusters,
        known=facts.hosts.known,
    )
    return Planned(
        plans={name: step.plan for name, step in steps.items()},
        hosts={
            name: predicted_host(hosts[name], step.after)
            for name, step in steps.items()
            if step.plan.changed and step.after is not None
        },
        work=steps,
    )


def apply(client: Client, facts: Facts, planned: Planned, params: Params) -> t.Mapping[str, Applied]:
    outcomes = apply_membership(
        client,
        {name: facts.hosts[name].moid for name in planned.todo},
        {name: facts.hosts[name].cluster for name in planned.todo},
        {name: planned.work[name] for name in planned.todo},
        {want.name: want.cluster for want in wants(params)},
        facts.computes,
        Bounds.of(params),
    )
    return applied(outcomes)


def main() -> None:
    bulk_module(argument_spec(), prepare=prepare, read=read, plan=plan, apply=apply)


if __name__ == "__main__":
    main()
