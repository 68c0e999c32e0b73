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
  - Gives virtual machines exactly the listed GPUs, whole ones by DirectPath I/O or vGPUs, with all that belongs to it,
    in one reconfigure each. Memory is fully reserved, CPU and memory hot-add are switched off, and 64-bit MMIO is sized
    from the BARs.
  - All virtual machines of the call are planned together with all others on their hosts, so that no device is given out
    twice. Devices that a virtual machine has and may keep are kept, new ones are taken from the lowest free address.
  - A virtual machine that fits already is not touched, whatever its power state. What has to change while it is powered
    on is subject to O(power).
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
              - With V(vgpu) virtual GPUs, by O(vms[].gpus[].profile) or by what they must have. The host chooses the
                GPU when the virtual machine is powered on.
              - With V(device_group) devices that a host gives out together only, such as GPUs joined by NVLink. It
                needs vSphere 8.
            type: str
            choices: [fixed, dynamic, vgpu, device_group]
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
              - Without O(vms[].gpus[].id) the device allows all ids of the GPUs that bear the label on the host.
            type: str
          profile:
            description:
              - vGPU profile, for example V(nvidia_a100-10c). The prefixes C(grid_) and C(nvidia_) may be left out.
            type: str
          at_least_gb:
            description:
              - Choose the smallest vGPU profile of the host with at least this framebuffer, in GB.
              - A profile that the virtual machine has already is kept if it meets everything that is asked for.
            type: float
          at_most_gpu:
            description:
              - Choose a vGPU profile that is at most this share of one GPU, for example V(0.5).
            type: float
          migrate:
            description:
              - Whether the vGPU profile to be chosen must support vMotion.
            type: bool
            default: false
          suspend:
            description:
              - Whether the vGPU profile to be chosen must support suspending the virtual machine.
            type: bool
            default: false
          profile_class:
            description:
              - Series of the vGPU profile to be chosen, V(compute) (C) if not set, or V(workstation) (Q).
            type: str
            choices: [compute, workstation]
          name:
            description:
              - Name of a device group, for example V(Nvidia:2@nvidia_a100-80c%NVLink).
            type: str
          count:
            description:
              - How many, a number, or V(all) that the host has (whole GPUs only).
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
  power:
    description:
      - What may be done to a virtual machine that is powered on and has to change.
      - With V(never) nothing; it is reported as failed.
      - With V(allow) its guest is shut down, and it is powered on again afterwards.
      - With V(force) it is powered off hard where its guest cannot be asked, or does not shut down in time.
      - What was about to be done is kept in the custom attribute C(gpuops.intent) of the virtual machine meanwhile, so
        that one that an interrupted run has powered off is powered on again by the next run.
    type: str
    choices: [never, allow, force]
    default: never
  guest_timeout:
    description:
      - How many seconds guests have to shut down.
    type: int
    default: 300
  run_id:
    description:
      - Name of the run, kept in the intent.
    type: str
    default: ansible
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

- name: Two vGPUs by name for one virtual machine, another one by what it needs, shut down for that if it runs
  gpuops.vsphere.vm_gpu:
    hostname: vcenter.example.org
    username: "{{ vcenter_username }}"
    password: "{{ vcenter_password }}"
    power: allow
    vms:
      - name: train-01
        gpus:
          - mode: vgpu
            profile: nvidia_a100-10c
            count: 2
      - name: train-02
        gpus:
          - mode: vgpu
            at_least_gb: 10
            at_most_gpu: 0.5
            migrate: true

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
          profile:
          group:
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
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.gpu_changes import Seen, apply_gpu_plans
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.module import (
    Applied,
    Params,
    Planned,
    bulk_module,
    with_assumed,
)
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.options import Spec
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.reads import Found, read_hosts, read_vms
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.tasks import Bounds
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.vms import with_assumed_vms, with_device_groups


@dataclasses.dataclass(frozen=True, slots=True)
class Facts:
    wanted: Found[VmFacts]
    neighbours: Found[VmFacts]
    """All virtual machines on the hosts of those wanted."""
    hosts: Found[HostFacts]
    api_version: tuple[int, ...]


def argument_spec() -> Spec:
    gpu: Spec = {
        "mode": {"type": "str", "choices": ["fixed", "dynamic", "vgpu", "device_group"], "required": True},
        **{key: {"type": "str"} for key in ("id", "address", "label", "profile", "name")},
        "at_least_gb": {"type": "float"},
        "at_most_gpu": {"type": "float"},
        "migrate": {"type": "bool", "default": False},
        "suspend": {"type": "bool", "default": False},
        "profile_class": {"type": "str", "choices": ["compute", "workstation"]},
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
        "power": {"type": "str", "choices": ["never", "allow", "force"], "default": "never"},
        "guest_timeout": {"type": "int", "default": 300},
        "run_id": {"type": "str", "default": "ansible"},
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
    hosts: Found[HostFacts] = read_hosts(client, sorted(names)) if names else Found()
    with_groups = [vm["name"] for vm in params["vms"] if any(gpu["mode"] == "device_group" for gpu in vm["gpus"] or ())]
    asked = {str(known[name].host) for name in with_groups if name in known}
    offering = {name: host for name, host in hosts.items() if name in asked and host.answers}
    if offering:
        hosts.update(with_device_groups(client, offering, Bounds.of(params)))
    return Facts(wanted, read_vms(client, on_hosts=hosts.values()), hosts, client.api_version)


def inventory(facts: Facts, params: Params) -> Inventory:
    names = {vm["name"] for vm in params["vms"]}
    vms = with_assumed_vms({**facts.neighbours, **facts.wanted}, params)
    hosts = with_assumed(facts.hosts, params)
    ambiguous = (facts.wanted.duplicates | facts.neighbours.duplicates) & names
    return Inventory(vms, hosts, known_vms=facts.wanted.known, ambiguous=ambiguous, api_version=facts.api_version)


def gpu_plans(facts: Facts, params: Params) -> dict[str, GpuPlan]:
    wants, mistakes = parse(params["vms"])
    return plan_gpus(
        wants,
        mistakes,
        inventory(facts, params),
        catalog=Catalog(params["bar_overrides"]),
        firmware=params["firmware"],
        power=params["power"],
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
        work=plans,
    )


def apply(client: Client, facts: Facts, planned: Planned, params: Params) -> t.Mapping[str, Applied]:
    def look() -> Seen:
        now = read(client, params)
        return Seen(now.wanted, now.hosts, gpu_plans(now, params))

    return apply_gpu_plans(
        client,
        planned.todo,
        Seen(facts.wanted, facts.hosts, planned.work),
        look,
        Bounds.of(params),
        run=params["run_id"],
        force=params["power"] == "force",
        guest_timeout=params["guest_timeout"],
    )


def main() -> None:
    bulk_module(argument_spec(), prepare=prepare, read=read, plan=plan, apply=apply)


if __name__ == "__main__":
    main()
