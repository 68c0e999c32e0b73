#!/usr/bin/python
# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: esxi_passthrough
short_description: Put PCI devices of ESXi hosts in or out of passthrough
version_added: "0.1.0"
author:
  - The gpuops.vsphere contributors (@gpuops)
description:
  - Makes PCI devices of many ESXi hosts, such as GPUs, available (or no longer available) to virtual machines by
    DirectPath I/O, with one call for each host that needs a change.
  - Functions that another one depends on are taken along.
  - Where a host can rebind devices at once, the change takes effect at once, and the host is asked whether it did.
    Elsewhere it takes a reboot, and the host's C(reboot_required) says so;
    see M(gpuops.vsphere.esxi_maintenance) and M(gpuops.vsphere.esxi_power).
  - A host that somebody else has put into maintenance mode is left alone, with a warning.
options:
  hosts:
    description:
      - The hosts, and which of their devices are meant.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description:
          - Name of the host in the vCenter.
        type: str
        required: true
      devices:
        description:
          - The devices, each chosen by exactly one of the options below. A choice may match several devices.
        type: list
        elements: dict
        required: true
        suboptions:
          id:
            description:
              - Vendor and device id in hex, for example V(10de:1db6).
            type: str
          address:
            description:
              - PCI address, for example V(0000:3b:00.0).
            type: str
          class:
            description:
              - PCI class, or class and subclass, in hex, for example V(0302) for 3D controllers.
            type: str
          name:
            description:
              - Pattern for the device's name (vendor and device), for example V(*tesla v100*). Case is ignored.
            type: str
      hardware_label:
        description:
          - Label for the chosen devices, by which dynamic DirectPath I/O can choose them.
          - An empty string removes the label. If not set, labels stay as they are.
        type: str
      enabled:
        description:
          - Whether the devices of this host are to be passed through, if it differs from the other hosts.
        type: bool
      missing:
        description:
          - What a choice that matches no device of this host means, if it differs from the other hosts.
        type: str
        choices: [fail, skip]
  enabled:
    description:
      - Whether the devices are to be passed through.
    type: bool
    default: true
  missing:
    description:
      - What a choice that matches no device of the host means.
    type: str
    choices: [fail, skip]
    default: fail
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
  - module: gpuops.vsphere.esxi_gpu_info
  - module: gpuops.vsphere.esxi_maintenance
  - module: gpuops.vsphere.esxi_power
"""

EXAMPLES = r"""
- name: Put all V100 of two hosts in passthrough, labelled for dynamic DirectPath
  gpuops.vsphere.esxi_passthrough:
    hostname: vcenter.example.org
    username: "{{ vcenter_username }}"
    password: "{{ vcenter_password }}"
    hosts:
      - name: esx-gpu-01.example.org
        devices:
          - id: "10de:1db6"
        hardware_label: v100
      - name: esx-gpu-02.example.org
        devices:
          - id: "10de:1db6"
        hardware_label: v100

- name: Take one GPU back from passthrough
  gpuops.vsphere.esxi_passthrough:
    hostname: vcenter.example.org
    username: "{{ vcenter_username }}"
    password: "{{ vcenter_password }}"
    hosts:
      - name: esx-gpu-01.example.org
        devices:
          - address: "0000:3b:00.0"
    enabled: false
"""

RETURN = r"""
objects:
  description: What was done, or would be done, to each host.
  returned: always
  type: dict
  sample:
    esx-gpu-01.example.org:
      changed: true
      failed: false
      actions: ["enable 0000:3b:00.0 passthrough (NVIDIA Corporation GV100GL [Tesla V100 PCIe 32GB])"]
      warnings: []
      devices: ["0000:3b:00.0"]
      reboot_required: true
      reboot_in_progress: false
      in_maintenance: false
      maintenance_owner:
      unfinished: false
      left_alone: false
  contains:
    changed:
      description: Whether this host was or would be changed.
      type: bool
    failed:
      description: Whether this host could not be brought to the wanted state.
      type: bool
    msg:
      description: Why it failed and what to do.
      type: str
    devices:
      description: Addresses of the devices meant, those taken along included.
      type: list
      elements: str
    reboot_required:
      description: Whether passthrough of these devices takes effect only after a reboot.
      type: bool
    reboot_in_progress:
      description: Whether an earlier run has asked the host to reboot and it has not come back yet.
      type: bool
    in_maintenance:
      description: Whether the host is in maintenance mode.
      type: bool
    maintenance_owner:
      description: V(gpuops) when this collection put it there, V(other) when somebody else did.
      type: str
    unfinished:
      description:
        - Whether an interrupted run has left its mark on the host, although the host is in service.
          M(gpuops.vsphere.esxi_maintenance) with C(state=left) clears it.
      type: bool
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

import collections.abc as c
import dataclasses
import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.facts import HostFacts, predicted_host
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.passthrough import HostWish, Users, plan_passthrough
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.selection import parse
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.client import Client
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.errors import InputError
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.hosts import still_pending, update_passthrough
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


@dataclasses.dataclass(frozen=True, slots=True)
class Facts:
    hosts: Found[HostFacts]
    users: c.Mapping[str, Users]


def argument_spec() -> Spec:
    device: Spec = {key: {"type": "str"} for key in ("id", "address", "class", "name")}
    host: Spec = {
        "name": {"type": "str", "required": True},
        "devices": {"type": "list", "elements": "dict", "required": True, "options": device},
        "hardware_label": {"type": "str"},
        "enabled": {"type": "bool"},
        "missing": {"type": "str", "choices": ["fail", "skip"]},
    }
    return {
        "hosts": {"type": "list", "elements": "dict", "required": True, "options": host},
        "enabled": {"type": "bool", "default": True},
        "missing": {"type": "str", "choices": ["fail", "skip"], "default": "fail"},
    }


def prepare(module: AnsibleModule) -> None:
    mistakes = []
    seen = set()
    for host in module.params["hosts"]:
        if host["name"] in seen:
            mistakes.append(f"{host['name']} is listed twice; give each host one entry with all its devices")
        seen.add(host["name"])
        for device in host["devices"]:
            try:
                parse(device)
            except ValueError as error:
                mistakes.append(f"{host['name']}: {error}")
    if mistakes:
        raise InputError("hosts: " + "; ".join(mistakes) + ".")


def read(client: Client, params: Params) -> Facts:
    hosts = read_hosts(client, [host["name"] for host in params["hosts"]])
    users: dict[str, dict[str, list[str]]] = {}
    if not all(wish.enabled for wish in wishes(params)):
        for vm in read_vms(client, on_hosts=hosts.values()).values():
            for gpu in vm.gpus if vm.power == "poweredOn" and vm.host is not None else ():
                if gpu.address is not None:
                    users.setdefault(vm.host or "", {}).setdefault(gpu.address, []).append(vm.name)
    return Facts(hosts, users)


def wishes(params: Params) -> list[HostWish]:
    """What is wanted of each host, with the module's own `enabled` and `missing` where it does not say."""
    return [
        HostWish(
            host["name"],
            tuple(parse(device) for device in host["devices"]),
            host["hardware_label"],
            enabled=params["enabled"] if host["enabled"] is None else host["enabled"],
            missing=host["missing"] or params["missing"],
        )
        for host in params["hosts"]
    ]


def plan(facts: Facts, params: Params) -> Planned:
    hosts = with_assumed(facts.hosts, params)
    plans = plan_passthrough(
        hosts,
        wishes(params),
        known=facts.hosts.known,
        users=facts.users,
    )
    return Planned(
        plans={name: item.plan for name, item in plans.items()},
        hosts={
            name: predicted_host(hosts[name], item.after)
            for name, item in plans.items()
            if item.plan.changed and item.after is not None
        },
        work={name: item.updates for name, item in plans.items()},
    )


def apply(client: Client, facts: Facts, planned: Planned, params: Params) -> t.Mapping[str, Applied]:
    moids = {name: facts.hosts[name].moid for name in planned.todo}
    updates = {name: planned.work[name] for name in planned.todo}
    done = applied(update_passthrough(client, moids, updates, max_parallel=params["max_parallel"]))
    # What a host was told to apply at once is looked at again: only its own word tells whether a reboot is due.
    at_once = {
        name: set(planned.plans[name].notes["devices"])
        for name, outcome in done.items()
        if not outcome.problems and any(update.apply_now for update in updates[name])
    }
    pending = still_pending(client, moids, at_once)
    return {
        name: dataclasses.replace(outcome, notes={"reboot_required": bool(pending[name])})
        if name in pending
        else outcome
        for name, outcome in done.items()
    }


def main() -> None:
    bulk_module(argument_spec(), prepare=prepare, read=read, plan=plan, apply=apply)


if __name__ == "__main__":
    main()
