#!/usr/bin/python
# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: vm_gpu
short_description: Give virtual machines exactly the wanted GPUs
version_added: "0.1.0"
author:
  - The gpuops.vsphere contributors (@gpuops)
description:
  - Gives virtual machines exactly the listed GPUs by DirectPath I/O, with all that belongs to it, in one reconfigure
    each. Memory is fully reserved, CPU and memory hot-add are switched off, and 64-bit MMIO is sized from the BARs.
  - All virtual machines of the call are planned together with all others on their hosts, so that no device is given out
    twice. Devices that a virtual machine has and may keep are kept, new ones are taken from the lowest free address.
  - A virtual machine that fits already is not touched, whatever its power state. One that has to change must be
    powered off.
  - Passthrough devices that are no GPUs, such as network cards, are left as they are.
options:
  vms:
    description:
      - The virtual machines and their GPUs.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description:
          - Name of the virtual machine.
        type: str
        required: true
      host:
        description:
          - ESXi host on which the virtual machine must be. It is not moved; elsewhere it is reported as failed.
        type: str
      gpus:
        description:
          - The exact set of GPUs. An empty list takes all GPUs away.
        type: list
        elements: dict
        required: true
        suboptions:
          mode:
            description:
              - With V(fixed) certain devices of its host, by their PCI addresses. The virtual machine cannot be moved
                or suspended.
              - With V(dynamic) devices that the vCenter chooses when the virtual machine is powered on, so that HA can
                restart it on another host. It needs virtual hardware version 17.
            type: str
            choices: [fixed, dynamic]
            required: true
          id:
            description:
              - Vendor and device id in hex, for example V(10de:1db6).
              - A fixed GPU without O(vms[].gpus[].id) and O(vms[].gpus[].address) is any GPU of the host.
            type: str
          address:
            description:
              - PCI address of one fixed device, for example V(0000:3b:00.0).
            type: str
          label:
            description:
              - Hardware label of dynamic devices, as M(gpuops.vsphere.esxi_passthrough) sets it.
            type: str
          count:
            description:
              - How many, a number or V(all) that the host has.
            type: str
            default: "1"
      memory_mb:
        description:
          - Memory in MB. If not set, it stays as it is.
        type: int
      firmware:
        description:
          - The same as O(firmware), for this virtual machine, if it differs from the others.
        type: str
        choices: [check, efi]
  firmware:
    description:
      - What to do with a virtual machine with BIOS firmware whose GPUs need EFI, which is the case when a BAR is larger
        than 256 MB.
      - With V(check) it is reported as failed. With V(efi) it is changed over, which only makes sense before a guest is
        installed.
    type: str
    choices: [check, efi]
    default: check
  bar_overrides:
    description:
      - Sizes of BARs by vendor and device id, for boards that the collection does not know or sees otherwise.
      - Each entry has V(bar1_gb), and optionally V(bar0_mb) and V(bar3_mb).
    type: dict
    default: {}
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
  - module: gpuops.vsphere.vm_group
  - module: gpuops.vsphere.vm_power
  - module: gpuops.vsphere.esxi_passthrough
"""

EXAMPLES = r"""
- name: Two V100 by address for one virtual machine, any four T4 for another
  gpuops.vsphere.vm_gpu:
    hostname: vcenter.example.org
    username: "{{ vcenter_username }}"
    password: "{{ vcenter_password }}"
    vms:
      - name: gpu-server-01
        host: esx-gpu-01.example.org
        memory_mb: 131072
        gpus:
          - mode: fixed
            id: "10de:1db6"
            count: 2
      - name: gpu-server-03
        gpus:
          - mode: dynamic
            id: "10de:1eb8"
            count: 4

- name: Take all GPUs away
  gpuops.vsphere.vm_gpu:
    hostname: vcenter.example.org
    username: "{{ vcenter_username }}"
    password: "{{ vcenter_password }}"
    vms:
      - name: gpu-server-01
        gpus: []
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
      actions:
        - "attach GPU 0000:3b:00.0 (V100-32, fixed)"
        - "set memory_reservation_locked (GPUs need all memory reserved)"
        - "set pciPassthru.64bitMMIOSizeGB (BARs of 32.05 GB)"
      warnings: []
      host: esx-gpu-01.example.org
      power: poweredOff
      gpus:
        - mode: fixed
          address: "0000:3b:00.0"
          ids: ["10de:1db6"]
          label:
          model: V100-32
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
      description: The ESXi host of the virtual machine.
      type: str
    power:
      description: Its power state.
      type: str
    gpus:
      description: Its GPUs after the change.
      type: list
      elements: dict
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

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.attach import GpuPlan, Inventory, plan_gpus
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.catalog import Catalog, OverrideError
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.facts import HostFacts, VmFacts, to_dict
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.plan import ObjectPlan
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.vm_problems import unreadable_neighbours
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.wants import parse
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.client import Client
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.errors import InputError
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
    reconfigure,
    wait_for_tasks,
    with_assumed_vms,
)


@dataclasses.dataclass(frozen=True, slots=True)
class Facts:
    wanted: Found[VmFacts]
    neighbours: Found[VmFacts]
    """All virtual machines on the hosts of those wanted."""
    hosts: Found[HostFacts]


def argument_spec() -> Spec:
    gpu: Spec = {
        "mode": {"type": "str", "choices": ["fixed", "dynamic"], "required": True},
        "id": {"type": "str"},
        "address": {"type": "str"},
        "label": {"type": "str"},
        "count": {"type": "str", "default": "1"},
    }
    vm: Spec = {
        "name": {"type": "str", "required": True},
        "host": {"type": "str"},
        "gpus": {"type": "list", "elements": "dict", "required": True, "options": gpu},
        "memory_mb": {"type": "int"},
        "firmware": {"type": "str", "choices": ["check", "efi"]},
    }
    return {
        "vms": {"type": "list", "elements": "dict", "required": True, "options": vm},
        "firmware": {"type": "str", "choices": ["check", "efi"], "default": "check"},
        "bar_overrides": {"type": "dict", "default": {}},
    }


def prepare(module: AnsibleModule) -> None:
    try:
        Catalog(module.params["bar_overrides"])
    except OverrideError as error:
        raise InputError(f"{error}.") from error


def read(client: Client, params: Params) -> Facts:
    wanted = read_vms(client, [vm["name"] for vm in params["vms"]])
    known = with_assumed_vms(wanted, params)
    names = {str(known[vm["name"]].host) for vm in params["vms"] if vm["name"] in known}
    hosts = read_hosts(client, sorted(names)) if names else Found()
    return Facts(wanted, read_vms(client, on_hosts=hosts.values()), hosts)


def inventory(facts: Facts, params: Params) -> Inventory:
    names = {vm["name"] for vm in params["vms"]}
    vms = with_assumed_vms({**facts.neighbours, **facts.wanted}, params)
    hosts = with_assumed(facts.hosts, params)
    ambiguous = (facts.wanted.duplicates | facts.neighbours.duplicates) & names
    return Inventory(vms, hosts, known_vms=facts.wanted.known, ambiguous=ambiguous)


def gpu_plans(facts: Facts, params: Params) -> dict[str, GpuPlan]:
    wants, mistakes = parse(params["vms"])
    return plan_gpus(
        wants,
        mistakes,
        inventory(facts, params),
        catalog=Catalog(params["bar_overrides"]),
        firmware=params["firmware"],
    )


def warned(plan: ObjectPlan, neighbours: Found[VmFacts]) -> ObjectPlan:
    """The plan, with a warning where its host has virtual machines that cannot be read."""
    host = str(plan.notes.get("host"))
    if host not in neighbours.unreadable:
        return plan
    return dataclasses.replace(
        plan, warnings=(*plan.warnings, unreadable_neighbours(host, neighbours.unreadable[host]))
    )


def plan(facts: Facts, params: Params) -> Planned:
    plans = gpu_plans(facts, params)
    return Planned(
        plans={name: warned(item.plan, facts.neighbours) for name, item in plans.items()},
        vms={name: to_dict(item.predicted) for name, item in plans.items() if item.predicted is not None},
        work={name: item.edit for name, item in plans.items() if item.edit is not None},
    )


def apply(client: Client, facts: Facts, planned: Planned, params: Params) -> t.Mapping[str, Applied]:
    bounds = Bounds.of(params)
    outcomes = reconfigure(client, facts.wanted, facts.hosts, planned.work, bounds)
    done = applied(outcomes)
    refused = [
        name
        for name, outcome in outcomes.items()
        if outcome.error is not None and outcome.error.fault in ("TaskInProgress", "ConcurrentAccess")
    ]
    if not refused:
        return done
    # A run that was killed may have left its reconfigure going on: what it did need not be done again, and what
    # is still left to do is planned anew. Anybody else's change is only reported.
    busy = wait_for_tasks(client, {name: facts.wanted[name].moid for name in refused}, bounds)
    now = read(client, params)
    later = gpu_plans(now, params)
    fits = [name for name in refused if not later[name].plan.changes and not later[name].plan.failed]
    done |= {name: Applied(changed=True) for name in fits}
    edits = {name: edit for name in busy if (edit := later[name].edit) is not None}
    done |= applied(reconfigure(client, now.wanted, now.hosts, edits, bounds))
    return done


def main() -> None:
    bulk_module(argument_spec(), prepare=prepare, read=read, plan=plan, apply=apply)


if __name__ == "__main__":
    main()
