#!/usr/bin/python
# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: esxi_graphics
short_description: Set how ESXi hosts share out their GPUs as vGPUs
version_added: "0.1.0"
author:
  - The gpuops.vsphere contributors (@gpuops)
description:
  - Sets the default graphics type and the assignment policy of many ESXi hosts, and type and vGPU mode of single GPUs,
    with one call for each host that needs a change.
  - A GPU that virtual machines run on is never changed, nor one that is passed through as a whole.
  - Says which services take the change over; they can be restarted here. A reboot does the same.
  - A host that somebody else has put into maintenance mode is left alone, with a warning.
options:
  hosts:
    description:
      - The hosts, and what is wanted of each. What is not set stays as it is.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description:
          - Name of the host in the vCenter.
        type: str
        required: true
      default_type:
        description:
          - Graphics type of the host, and of each of its GPUs that is neither passed through nor given a type of its
            own in O(hosts[].devices).
          - V(sharedDirect) is for vGPUs, V(shared) for virtual shared graphics.
        type: str
        choices: [shared, sharedDirect]
      assignment_policy:
        description:
          - Which GPU a new vGPU gets, V(performance) the one with the fewest, V(consolidation) the fullest that fits.
        type: str
        choices: [performance, consolidation]
      devices:
        description:
          - Settings of single GPUs, each chosen by exactly one of V(id), V(address), V(class) and V(name).
        type: list
        elements: dict
        default: []
        suboptions:
          id:
            description:
              - Vendor and device id in hex, for example V(10de:20f1).
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
              - Pattern for the device's name (vendor and device). Case is ignored.
            type: str
          graphics_type:
            description:
              - Graphics type of these GPUs.
            type: str
            choices: [shared, sharedDirect]
          vgpu_mode:
            description:
              - Whether these GPUs hold vGPUs of one size or of different sizes. From ESXi 8.0 Update 3 on;
                V(mixedSize) needs GPUs of the Ampere generation or later.
            type: str
            choices: [sameSize, mixedSize]
      missing:
        description:
          - What a choice that matches no GPU of this host means, if it differs from the other hosts.
        type: str
        choices: [fail, skip]
      restart_services:
        description:
          - Whether the services of this host are restarted, if it differs from the other hosts.
        type: bool
  missing:
    description:
      - What a choice that matches no GPU of the host means.
    type: str
    choices: [fail, skip]
    default: fail
  restart_services:
    description:
      - Restart the services that take the change over (Xorg) on hosts that have changed.
      - Not needed where the host is rebooted afterwards.
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
  - module: gpuops.vsphere.esxi_passthrough
  - module: gpuops.vsphere.esxi_driver
"""

EXAMPLES = r"""
- name: Let two hosts divide their GPUs, mixed sizes on the A100 of one of them
  gpuops.vsphere.esxi_graphics:
    hostname: vcenter.example.org
    username: "{{ vcenter_username }}"
    password: "{{ vcenter_password }}"
    hosts:
      - name: esx-gpu-01.example.org
        default_type: sharedDirect
        assignment_policy: consolidation
      - name: esx-gpu-02.example.org
        default_type: sharedDirect
        devices:
          - id: "10de:20f1"
            vgpu_mode: mixedSize
    restart_services: true
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
      actions: ["set default_type (sharedDirect, was shared)"]
      warnings: []
      services_to_restart: [xorg]
      reboot_required: false
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
    services_to_restart:
      description: Services that take the change over; a reboot does it too. Empty once they were restarted.
      type: list
      elements: str
    reboot_required:
      description: Whether the host says that it must reboot, for example for a driver installed before.
      type: bool
    vgpu_types:
      description: vGPU profiles that the host offered before the change.
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

import collections.abc as c
import dataclasses
import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.facts import HostFacts, predicted_host
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.graphics import (
    DeviceWish,
    GraphicsWish,
    plan_graphics,
)
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.selection import KEYS, parse
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.client import Client
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.errors import InputError
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.host_managers import update_graphics
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.module import (
    Applied,
    Params,
    Planned,
    applied,
    bulk_module,
    with_assumed,
)
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.options import Spec
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.reads import Found, read_hosts, read_vm_names

TYPES = ["shared", "sharedDirect"]


@dataclasses.dataclass(frozen=True, slots=True)
class Facts:
    hosts: Found[HostFacts]
    vm_names: c.Mapping[str, str]


def argument_spec() -> Spec:
    device: Spec = {key: {"type": "str"} for key in ("id", "address", "class", "name")}
    device["graphics_type"] = {"type": "str", "choices": TYPES}
    device["vgpu_mode"] = {"type": "str", "choices": ["sameSize", "mixedSize"]}
    host: Spec = {
        "name": {"type": "str", "required": True},
        "default_type": {"type": "str", "choices": TYPES},
        "assignment_policy": {"type": "str", "choices": ["performance", "consolidation"]},
        "devices": {"type": "list", "elements": "dict", "default": [], "options": device},
        "missing": {"type": "str", "choices": ["fail", "skip"]},
        "restart_services": {"type": "bool"},
    }
    return {
        "hosts": {"type": "list", "elements": "dict", "required": True, "options": host},
        "missing": {"type": "str", "choices": ["fail", "skip"], "default": "fail"},
        "restart_services": {"type": "bool", "default": False},
    }


def prepare(module: AnsibleModule) -> None:
    mistakes = []
    seen = set()
    for host in module.params["hosts"]:
        if host["name"] in seen:
            mistakes.append(f"{host['name']} is listed twice; give each host one entry with all its settings")
        seen.add(host["name"])
        for device in host["devices"]:
            try:
                parse({key: device[key] for key in KEYS})
            except ValueError as error:
                mistakes.append(f"{host['name']}: {error}")
            if not device["graphics_type"] and not device["vgpu_mode"]:
                mistakes.append(f"{host['name']}: give graphics_type or vgpu_mode for each of its devices")
    if mistakes:
        raise InputError("hosts: " + "; ".join(mistakes) + ".")


def read(client: Client, params: Params) -> Facts:
    hosts = read_hosts(client, [host["name"] for host in params["hosts"]])
    users = {moid for host in hosts.values() for gpu in host.graphics for moid in gpu.vm_moids}
    return Facts(hosts, read_vm_names(client, sorted(users)))


def wishes(params: Params) -> list[GraphicsWish]:
    """What is wanted of each host, with the module's own `missing` where it does not say."""
    return [
        GraphicsWish(
            host["name"],
            host["default_type"],
            host["assignment_policy"],
            tuple(
                DeviceWish(parse({key: device[key] for key in KEYS}), device["graphics_type"], device["vgpu_mode"])
                for device in host["devices"]
            ),
            missing=host["missing"] or params["missing"],
        )
        for host in params["hosts"]
    ]


def plan(facts: Facts, params: Params) -> Planned:
    hosts = with_assumed(facts.hosts, params)
    plans = plan_graphics(hosts, wishes(params), known=facts.hosts.known, vm_names=facts.vm_names)
    restarts = {
        host["name"]
        for host in params["hosts"]
        if (params["restart_services"] if host["restart_services"] is None else host["restart_services"])
    }
    shown = {
        name: dataclasses.replace(item.plan, notes={**item.plan.notes, "services_to_restart": []})
        if name in restarts and item.plan.changed
        else item.plan
        for name, item in plans.items()
    }
    return Planned(
        plans=shown,
        hosts={
            name: predicted_host(hosts[name], item.after)
            for name, item in plans.items()
            if item.plan.changed and item.after is not None
        },
        work={
            name: (item.config, item.plan.notes.get("services_to_restart", []) if name in restarts else [])
            for name, item in plans.items()
        },
    )


def apply(client: Client, facts: Facts, planned: Planned, params: Params) -> t.Mapping[str, Applied]:
    moids = {name: facts.hosts[name].moid for name in planned.todo}
    configs = {name: planned.work[name][0] for name in planned.todo}
    services = {name: planned.work[name][1] for name in planned.todo}
    return applied(update_graphics(client, moids, configs, services, max_parallel=params["max_parallel"]))


def main() -> None:
    bulk_module(argument_spec(), prepare=prepare, read=read, plan=plan, apply=apply)


if __name__ == "__main__":
    main()
