#!/usr/bin/python
# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: vm_shares
short_description: Set CPU and memory shares, reservations and limits of virtual machines and resource pools
version_added: "0.1.0"
author:
  - The gpuops.vsphere contributors (@gpuops)
description:
  - Sets what many virtual machines and resource pools are entitled to, with one call for each that needs a change.
  - At least one of O(vms) and O(pools) is needed. Values that are not given stay as they are, and what fits already is
    not touched.
  - A virtual machine with GPUs has all its memory reserved; its memory reservation cannot be set to anything else.
options:
  state:
    description:
      - With V(present), objects are entitled to what is given.
      - With V(restored), they get back what they were entitled to before a run with O(remember), and only their names
        are read. An object of which nothing is remembered stays as it is.
    type: str
    choices: [present, restored]
    default: present
  remember:
    description:
      - Write what an object is entitled to into its custom attribute C(gpuops.shares) before it is changed, unless
        something is written there.
    type: bool
    default: false
  vms:
    description:
      - The virtual machines.
    type: list
    elements: dict
    suboptions:
      name:
        description:
          - Name of the virtual machine.
        type: str
        required: true
      cpu:
        description:
          - What it is entitled to of the CPUs.
        type: dict
        suboptions:
          shares:
            description:
              - A level, V(low), V(normal) or V(high), or a number.
            type: str
          reservation:
            description:
              - In MHz.
            type: int
          limit:
            description:
              - In MHz, or V(-1) for none.
            type: int
      memory:
        description:
          - What it is entitled to of the memory.
        type: dict
        suboptions:
          shares:
            description:
              - A level, V(low), V(normal) or V(high), or a number.
            type: str
          reservation:
            description:
              - In MB.
            type: int
          limit:
            description:
              - In MB, or V(-1) for none.
            type: int
  pools:
    description:
      - The resource pools.
    type: list
    elements: dict
    suboptions:
      name:
        description:
          - Name of the resource pool, as a path below the root pool of its cluster, for example V(prod/gpu).
        type: str
        required: true
      cluster:
        description:
          - Cluster (or standalone host) of the pool, where several have one of this name.
        type: str
      cpu:
        description:
          - What it is entitled to of the CPUs.
        type: dict
        suboptions:
          shares:
            description:
              - A level, V(low), V(normal) or V(high), or a number.
            type: str
          reservation:
            description:
              - In MHz.
            type: int
          limit:
            description:
              - In MHz, or V(-1) for none.
            type: int
          expandable:
            description:
              - Whether it may take more than its reservation from the pool above.
            type: bool
      memory:
        description:
          - What it is entitled to of the memory.
        type: dict
        suboptions:
          shares:
            description:
              - A level, V(low), V(normal) or V(high), or a number.
            type: str
          reservation:
            description:
              - In MB.
            type: int
          limit:
            description:
              - In MB, or V(-1) for none.
            type: int
          expandable:
            description:
              - Whether it may take more than its reservation from the pool above.
            type: bool
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
  - module: gpuops.vsphere.vm_gpu
  - module: gpuops.vsphere.vm_power
"""

EXAMPLES = r"""
- name: Two training machines come before others, one pool has a floor
  gpuops.vsphere.vm_shares:
    hostname: vcenter.example.org
    username: "{{ vcenter_username }}"
    password: "{{ vcenter_password }}"
    vms:
      - name: train-01
        cpu: {shares: high}
      - name: train-02
        cpu: {shares: high, reservation: 8000}
    pools:
      - name: prod/gpu
        cluster: gpu
        memory: {shares: 400000, reservation: 262144}

- name: Compute waits for desktops, for a while
  gpuops.vsphere.vm_shares:
    hostname: vcenter.example.org
    username: "{{ vcenter_username }}"
    password: "{{ vcenter_password }}"
    remember: true
    pools:
      - name: compute
        cpu: {shares: 1}

- name: As it was before
  gpuops.vsphere.vm_shares:
    hostname: vcenter.example.org
    username: "{{ vcenter_username }}"
    password: "{{ vcenter_password }}"
    state: restored
    pools:
      - name: compute
"""

RETURN = r"""
objects:
  description: What was done, or would be done, to each object. A pool is called C(pool) and its name.
  returned: always
  type: dict
  sample:
    train-02:
      changed: true
      failed: false
      actions: ["set cpu.shares", "set cpu.reservation (8000 MHz)"]
      warnings: []
      cpu: {level: high, shares: 8000, reservation: 8000, limit: -1, expandable: false}
      memory: {level: normal, shares: 163840, reservation: 16384, limit: -1, expandable: false}
  contains:
    changed:
      description: Whether this object was or would be changed.
      type: bool
    failed:
      description: Whether this object could not be brought to the wanted state.
      type: bool
    msg:
      description: Why it failed and what to do.
      type: str
    cpu:
      description: What it is entitled to of the CPUs after the change, in MHz; a limit of -1 is none.
      type: dict
    memory:
      description: What it is entitled to of the memory after the change, in MB; a limit of -1 is none.
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

from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.shares import (
    UNLIMITED,
    Allocation,
    Kind,
    ShareFacts,
    SharePlan,
    label_of,
    parse,
    plan_restore,
    plan_shares,
    remembering,
)
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.allocations import (
    carry_out,
    read_pool_shares,
    read_vm_shares,
)
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.client import Client
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.module import (
    Applied,
    Params,
    Planned,
    applied,
    bulk_module,
)
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.options import Spec
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.tasks import Bounds


@dataclasses.dataclass(frozen=True, slots=True)
class Facts:
    found: t.Mapping[tuple[Kind, str], t.Sequence[ShareFacts]]
    known: t.Mapping[Kind, t.Collection[str]]


def argument_spec() -> Spec:
    values: Spec = {"shares": {"type": "str"}, "reservation": {"type": "int"}, "limit": {"type": "int"}}
    pool_values: Spec = {**values, "expandable": {"type": "bool"}}
    vm: Spec = {
        "name": {"type": "str", "required": True},
        "cpu": {"type": "dict", "options": values},
        "memory": {"type": "dict", "options": values},
    }
    pool: Spec = {
        "name": {"type": "str", "required": True},
        "cluster": {"type": "str"},
        "cpu": {"type": "dict", "options": pool_values},
        "memory": {"type": "dict", "options": pool_values},
    }
    return {
        "state": {"type": "str", "choices": ["present", "restored"], "default": "present"},
        "remember": {"type": "bool", "default": False},
        "vms": {"type": "list", "elements": "dict", "options": vm},
        "pools": {"type": "list", "elements": "dict", "options": pool},
    }


def read(client: Client, params: Params) -> Facts:
    found: dict[tuple[Kind, str], t.Sequence[ShareFacts]] = {}
    known: dict[Kind, t.Collection[str]] = {}
    if params["vms"]:
        names = {vm["name"] for vm in params["vms"]}
        vms, known["vm"] = read_vm_shares(client, names)
        found.update(assumed(vms, names, params["assume"]["vms"]))
    if params["pools"]:
        pools = read_pool_shares(client)
        known["pool"] = tuple(pools)
        for item in params["pools"] or ():
            fitting = [
                facts for owner, facts in pools.get(item["name"], ()) if not item["cluster"] or item["cluster"] == owner
            ]
            found["pool", _pool(item)] = [dataclasses.replace(facts, name=_pool(item)) for facts in fitting]
    return Facts(found, known)


def assumed(
    vms: t.Mapping[tuple[Kind, str], t.Sequence[ShareFacts]],
    names: t.Collection[str],
    predicted: t.Mapping[str, t.Mapping[str, t.Any]],
) -> dict[tuple[Kind, str], t.Sequence[ShareFacts]]:
    """The facts with those of virtual machines added that an earlier step predicts, as check mode does."""
    found = dict(vms)
    for name in sorted(names & predicted.keys()):
        memory_mb = predicted[name].get("memory_mb")
        locked = bool(predicted[name].get("memory_reservation_locked"))
        if ("vm", name) in found:
            found["vm", name] = [
                dataclasses.replace(
                    one, memory_mb=memory_mb or one.memory_mb, memory_locked=locked or one.memory_locked
                )
                for one in found["vm", name]
            ]
        elif memory_mb is not None:
            reserved = predicted[name].get("memory_reservation_mb") or 0
            fresh = Allocation("normal", 0, 0, UNLIMITED)
            found["vm", name] = [
                ShareFacts(
                    name,
                    "",
                    "vm",
                    fresh,
                    dataclasses.replace(fresh, reservation=reserved),
                    memory_mb=memory_mb,
                    memory_locked=locked,
                )
            ]
    return found


def _pool(item: t.Mapping[str, t.Any]) -> str:
    return f"{item['name']} of {item['cluster']}" if item["cluster"] else str(item["name"])


def share_plans(facts: Facts, params: Params) -> dict[str, SharePlan]:
    if params["state"] == "restored":
        names: list[tuple[Kind, str]] = [("vm", item["name"]) for item in params["vms"] or ()]
        names += [("pool", _pool(item)) for item in params["pools"] or ()]
        return plan_restore(names, facts.found, facts.known)
    wants = [parse(item["name"], "vm", item) for item in params["vms"] or ()]
    wants += [parse(_pool(item), "pool", item) for item in params["pools"] or ()]
    plans = plan_shares(wants, facts.found, facts.known)
    there = [found[0] for found in facts.found.values() if found]
    return remembering(plans, there) if params["remember"] else plans


def plan(facts: Facts, params: Params) -> Planned:
    plans = share_plans(facts, params)
    return Planned(
        plans={label: item.plan for label, item in plans.items()},
        work={label: item for label, item in plans.items() if item.after is not None},
    )


def apply(client: Client, facts: Facts, planned: Planned, params: Params) -> t.Mapping[str, Applied]:
    before = {label_of(kind, name): found[0] for (kind, name), found in facts.found.items() if found}
    return applied(carry_out(client, before, {label: planned.work[label] for label in planned.todo}, Bounds.of(params)))


def main() -> None:
    bulk_module(argument_spec(), read=read, plan=plan, apply=apply, required_one_of=[("vms", "pools")])


if __name__ == "__main__":
    main()
