#!/usr/bin/python
# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: vm_group
short_description: Clone virtual machines from templates, or delete them
version_added: "0.1.0"
author:
  - The gpuops.vsphere contributors (@gpuops)
description:
  - Makes sure that virtual machines of given names exist (or do not), with all clones made at the same time.
  - A virtual machine that exists already is adopted as it is, wherever it is. Where an earlier run was interrupted
    while it cloned, its clone is waited for.
  - New virtual machines are powered off, and have the devices and settings of their template. M(gpuops.vsphere.vm_gpu)
    gives them GPUs.
options:
  vms:
    description:
      - The virtual machines.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description:
          - Name of the virtual machine, unique in the vCenter.
        type: str
        required: true
      host:
        description:
          - ESXi host to create it on. Needed to create it.
        type: str
      template:
        description:
          - Name of the template to clone. Needed to create it.
        type: str
      datastore:
        description:
          - Datastore for its files. The default is the template's, if the host has it.
        type: str
      folder:
        description:
          - VM folder, by its path below the datacenter's VM folder or by its name. The default is the VM folder of the
            host's datacenter.
        type: str
      resource_pool:
        description:
          - Resource pool, by its path below the root pool of the host's cluster or by its name. The default is that
            root pool.
        type: str
      num_cpus:
        description:
          - Number of virtual CPUs of a new virtual machine. The default is the template's.
        type: int
      memory_mb:
        description:
          - Memory in MB of a new virtual machine. The default is the template's.
        type: int
      annotation:
        description:
          - Notes of a new virtual machine. The default is the template's.
        type: str
  state:
    description:
      - With V(present), virtual machines that do not exist are cloned.
      - With V(absent), they are deleted with their disks, if they are powered off.
    type: str
    choices: [present, absent]
    default: present
  force_power_off:
    description:
      - Whether O(state=absent) may power off (hard) what is to be deleted.
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
  - module: gpuops.vsphere.vm_gpu
  - module: gpuops.vsphere.vm_power
"""

EXAMPLES = r"""
- name: Two GPU servers
  gpuops.vsphere.vm_group:
    hostname: vcenter.example.org
    username: "{{ vcenter_username }}"
    password: "{{ vcenter_password }}"
    vms:
      - name: gpu-server-01
        host: esx-gpu-01.example.org
        template: gpu-server-template
      - name: gpu-server-02
        host: esx-gpu-02.example.org
        template: gpu-server-template
        datastore: nvme-02
        folder: gpu/servers
        memory_mb: 131072

- name: Delete one, powered on or not
  gpuops.vsphere.vm_group:
    hostname: vcenter.example.org
    username: "{{ vcenter_username }}"
    password: "{{ vcenter_password }}"
    vms:
      - name: gpu-server-02
    state: absent
    force_power_off: true
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
        - "create virtual machine (clone of gpu-server-template on esx-gpu-01.example.org, datastore shared-01)"
      warnings: []
      host: esx-gpu-01.example.org
      power: poweredOff
      template: gpu-server-template
      adopted: false
  contains:
    changed:
      description: Whether this virtual machine was or would be created or deleted.
      type: bool
    failed:
      description: Whether this virtual machine could not be brought to the wanted state.
      type: bool
    msg:
      description: Why it failed and what to do.
      type: str
    host:
      description: Its ESXi host.
      type: str
    power:
      description: Its power state.
      type: str
    adopted:
      description: Whether it existed already.
      type: bool
predicted:
  description: The virtual machines' facts after the change, those of new ones included, for O(assume) of later steps.
    Null for those that are deleted.
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

from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.clone import (
    Clone,
    CloneWant,
    Removal,
    Site,
    plan_absent,
    plan_present,
)
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.facts import HostFacts, VmFacts, to_dict
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.places import Places
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.client import Client
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.clones import clone, read_places, remove
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.module import (
    Applied,
    Params,
    Planned,
    applied,
    assumed_gone,
    bulk_module,
    with_assumed,
)
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.options import Spec
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.reads import Found, read_hosts, read_vms
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.tasks import Bounds
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.vms import with_assumed_vms


@dataclasses.dataclass(frozen=True, slots=True)
class Facts:
    vms: Found[VmFacts]
    hosts: Found[HostFacts]
    places: Places


def argument_spec() -> Spec:
    texts = ("host", "template", "datastore", "folder", "resource_pool", "annotation")
    vm: Spec = {
        "name": {"type": "str", "required": True},
        **{key: {"type": "str"} for key in texts},
        "num_cpus": {"type": "int"},
        "memory_mb": {"type": "int"},
    }
    return {
        "vms": {"type": "list", "elements": "dict", "required": True, "options": vm},
        "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
        "force_power_off": {"type": "bool", "default": False},
    }


def read(client: Client, params: Params) -> Facts:
    wants = [CloneWant.from_option(item) for item in params["vms"]]
    present = params["state"] == "present"
    names = {want.name for want in wants} | {want.template for want in wants if present and want.template}
    vms = read_vms(client, sorted(names))
    if present:
        gone = assumed_gone(params)
        missing = [want for want in wants if want.name not in vms or want.name in gone]
        host_names = {want.host for want in missing if want.host}
    else:
        missing = []
        host_names = {vms[want.name].host or "" for want in wants if want.name in vms}
    hosts = read_hosts(client, sorted(host_names)) if host_names else Found[HostFacts]()
    templates = {name: vms[name] for name in sorted({want.template or "" for want in missing}) if name in vms}
    places = read_places(client, hosts, templates) if missing and hosts else Places({}, {})
    return Facts(vms, hosts, places)


def plan(facts: Facts, params: Params) -> Planned:
    site = Site(
        vms=with_assumed_vms(facts.vms, params),
        hosts=with_assumed(facts.hosts, params),
        places=facts.places,
        known_vms=facts.vms.known,
        known_hosts=facts.hosts.known,
        ambiguous=facts.vms.duplicates,
    )
    if params["state"] == "present":
        plans = plan_present([CloneWant.from_option(item) for item in params["vms"]], site)
    else:
        names = [item["name"] for item in params["vms"]]
        plans = plan_absent(names, site, force_power_off=params["force_power_off"])
    return Planned(
        plans={name: item.plan for name, item in plans.items()},
        vms={
            name: None if item.predicted is None else to_dict(item.predicted)
            for name, item in plans.items()
            if item.predicted is not None or (item.plan.changed and not item.plan.failed)
        },
        work={name: item.work for name, item in plans.items()},
    )


def apply(client: Client, facts: Facts, planned: Planned, params: Params) -> t.Mapping[str, Applied]:  # noqa: ARG001
    bounds = Bounds.of(params)
    work = {name: planned.work[name] for name in planned.todo}
    clones = {name: item for name, item in work.items() if isinstance(item, Clone)}
    removals = {name: item for name, item in work.items() if isinstance(item, Removal)}
    return applied((clone(client, clones, bounds) if clones else {}) | remove(client, removals, bounds))


def main() -> None:
    bulk_module(argument_spec(), read=read, plan=plan, apply=apply)


if __name__ == "__main__":
    main()
