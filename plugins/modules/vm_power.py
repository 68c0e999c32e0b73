#!/usr/bin/python
# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: vm_power
short_description: Power virtual machines on or off
version_added: "0.1.0"
author:
  - The gpuops.vsphere contributors (@gpuops)
description:
  - Powers many virtual machines on or off at once, and waits until they are.
  - To power off, guests are asked to shut down. What would lose data needs O(force).
options:
  vms:
    description:
      - Names of the virtual machines.
    type: list
    elements: str
    required: true
  state:
    description:
      - With V(on), virtual machines are powered on, and suspended ones resumed.
      - With V(off), their guests are shut down.
    type: str
    choices: ["on", "off"]
    required: true
  force:
    description:
      - Whether O(state=off) may lose data. A guest that has no running VMware Tools, or does not shut down within
        O(guest_timeout), is powered off hard, and the memory of a suspended virtual machine is given up.
    type: bool
    default: false
  guest_timeout:
    description:
      - How many seconds guests have to shut down.
    type: int
    default: 300
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
  - module: gpuops.vsphere.vm_group
"""

EXAMPLES = r"""
- name: Power on the GPU servers
  gpuops.vsphere.vm_power:
    hostname: vcenter.example.org
    username: "{{ vcenter_username }}"
    password: "{{ vcenter_password }}"
    vms: [gpu-server-01, gpu-server-02]
    state: "on"

- name: Shut one down, and power it off hard where its guest does not answer
  gpuops.vsphere.vm_power:
    hostname: vcenter.example.org
    username: "{{ vcenter_username }}"
    password: "{{ vcenter_password }}"
    vms: [gpu-server-01]
    state: "off"
    force: true
"""

RETURN = r"""
objects:
  description: What was done, or would be done, to each virtual machine.
  returned: always
  type: dict
  sample:
    gpu-server-01:
      changed: true
      failed: false
      actions: ["power on"]
      warnings: []
      host: esx-gpu-01.example.org
      power: poweredOn
  contains:
    changed:
      description: Whether this virtual machine was or would be changed.
      type: bool
    failed:
      description: Whether this virtual machine could not be brought to the wanted state.
      type: bool
    msg:
      description: Why it failed and what to do.
      type: str
    host:
      description: The ESXi host of the virtual machine before the change.
      type: str
    power:
      description: Its power state after the change.
      type: str
predicted:
  description: The virtual machines' facts after the change, for O(assume) of later steps.
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

from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.facts import HostFacts, VmFacts, to_dict
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.vm_power import plan_power
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.client import Client
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.module import (
    Applied,
    Params,
    Planned,
    applied,
    bulk_module,
    with_assumed,
)
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.options import Spec
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.reads import Found, read_hosts, read_vms
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.tasks import Bounds
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.vms import (
    power_off,
    power_off_hard,
    power_on,
    with_assumed_vms,
)

# Faults of a power-on that are about the virtual machine's configuration, and most often about its GPUs.
_CONFIGURATION = ("GenericVmConfigFault", "InvalidVmConfig", "InvalidDeviceSpec", "InsufficientGraphicsResourcesFault")


@dataclasses.dataclass(frozen=True, slots=True)
class Facts:
    vms: Found[VmFacts]
    hosts: Found[HostFacts]


def argument_spec() -> Spec:
    return {
        "vms": {"type": "list", "elements": "str", "required": True},
        "state": {"type": "str", "choices": ["on", "off"], "required": True},
        "force": {"type": "bool", "default": False},
        "guest_timeout": {"type": "int", "default": 300},
    }


def read(client: Client, params: Params) -> Facts:
    vms = read_vms(client, params["vms"])
    known = with_assumed_vms(vms, params)
    names = {str(known[name].host) for name in params["vms"] if name in known}
    return Facts(vms, read_hosts(client, sorted(names)) if names else Found())


def plan(facts: Facts, params: Params) -> Planned:
    plans = plan_power(
        params["vms"],
        params["state"],
        with_assumed_vms(facts.vms, params),
        with_assumed(facts.hosts, params),
        force=params["force"],
        known=facts.vms.known,
        ambiguous=facts.vms.duplicates,
    )
    return Planned(
        plans={name: item.plan for name, item in plans.items()},
        vms={name: to_dict(item.predicted) for name, item in plans.items() if item.predicted is not None},
    )


def apply(client: Client, facts: Facts, planned: Planned, params: Params) -> t.Mapping[str, Applied]:
    bounds = Bounds.of(params)
    moids = {name: facts.vms[name].moid for name in planned.todo}
    if params["state"] == "on":
        done = applied(power_on(client, moids, bounds))
    else:
        suspended = {name: moid for name, moid in moids.items() if facts.vms[name].power == "suspended"}
        outcomes = power_off(
            client,
            {name: moid for name, moid in moids.items() if name not in suspended},
            bounds,
            force=params["force"],
            guest_timeout=params["guest_timeout"],
        )
        done = applied(outcomes | power_off_hard(client, suspended, bounds))
    return {name: _with_advice(item, facts.vms[name]) for name, item in done.items()}


def _with_advice(item: Applied, vm: VmFacts) -> Applied:
    """A failed operation leaves the power as it is; a fault of the configuration is one for vm_gpu."""
    problems = tuple(
        dataclasses.replace(
            problem,
            msg=f"{problem.msg} Run vm_gpu for it: it sets what its GPUs need, or says what stands in the way.",
        )
        if problem.fault in _CONFIGURATION and vm.gpus
        else problem
        for problem in item.problems
    )
    return Applied(item.changed, problems, {"power": vm.power} if problems else {})


def main() -> None:
    bulk_module(argument_spec(), read=read, plan=plan, apply=apply)


if __name__ == "__main__":
    main()
