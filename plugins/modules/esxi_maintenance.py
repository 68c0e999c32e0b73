#!/usr/bin/python
# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: esxi_maintenance
short_description: Put ESXi hosts in or out of maintenance mode
version_added: "0.1.0"
author:
  - The gpuops.vsphere contributors (@gpuops)
description:
  - Puts many ESXi hosts into maintenance mode, or takes them out of it, at once.
  - Before a host enters, the intent is written to its custom attribute C(gpuops.intent), and it is cleared after the
    host has left. A run that was interrupted is carried on by the next one.
  - Only hosts with such an intent are taken out of maintenance mode. A host that somebody else has put there is left
    alone, with a warning.
  - Virtual machines that run on a host are drained, each by the first way that there is for it - DRS, migration while
    it runs (O(migrate)), suspending (O(suspend)), shutting down (O(shut_down)). A host with virtual machines for which
    there is no way is refused before anything is begun, with the list of them. vCLS agents are never in the way.
  - Tasks that are under way on these virtual machines, such as those of a run that was killed, are waited for first.
  - What was drained is restored with O(state=left), and nothing else - a virtual machine that somebody else has
    suspended or powered off is left alone.
options:
  hosts:
    description:
      - Names of the hosts in the vCenter.
    type: list
    elements: str
    required: true
  state:
    description:
      - Whether the hosts are to be in maintenance mode.
    type: str
    choices: [entered, left]
    default: entered
  migrate:
    description:
      - Whether running virtual machines that DRS does not move may be migrated to other hosts of the cluster.
      - One with vGPUs needs the vCenter setting C(vgpu.hotmigrate.enabled), a profile that can migrate, and another
        host that offers it and has room.
    type: bool
    default: true
  targets:
    description:
      - By virtual machine, the host that it is to be migrated to; M(gpuops.vsphere.gpu_plan) returns such C(moves).
      - DRS is not asked for these. Where that host has no room (any more), another one is chosen.
    type: dict
  suspend:
    description:
      - Whether virtual machines with vGPUs that cannot be migrated may be suspended.
      - Only for work that leaves driver, graphics type, ECC and MIG mode of the GPUs as they are, since a virtual
        machine resumes on an unchanged GPU only. One with a passed-through device cannot be suspended.
    type: bool
    default: false
  shut_down:
    description:
      - Whether virtual machines that can neither be migrated nor suspended may be shut down.
      - With V(guest), only where the guest shuts down by itself within O(guest_timeout). With V(force), the power is
        cut where it does not.
    type: str
    choices: [never, guest, force]
    default: never
  guest_timeout:
    description:
      - How many seconds guests have to shut down.
    type: int
    default: 300
  restore:
    description:
      - Whether what is drained is marked, so that O(state=left) restores it.
    type: bool
    default: true
  run_id:
    description:
      - Name of the run, stored with the intent so that people see whose it is.
    type: str
    default: ansible
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
  - module: gpuops.vsphere.esxi_power
"""

EXAMPLES = r"""
- name: Put a host into maintenance mode
  gpuops.vsphere.esxi_maintenance:
    hostname: vcenter.example.org
    username: "{{ vcenter_username }}"
    password: "{{ vcenter_password }}"
    hosts:
      - esx-gpu-01.example.org
    state: entered

- name: Take it out again
  gpuops.vsphere.esxi_maintenance:
    hostname: vcenter.example.org
    username: "{{ vcenter_username }}"
    password: "{{ vcenter_password }}"
    hosts:
      - esx-gpu-01.example.org
    state: left
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
      actions: ["enter maintenance mode"]
      warnings: []
      reboot_required: true
      reboot_in_progress: false
      in_maintenance: true
      maintenance_owner: gpuops
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
    in_maintenance:
      description: Whether the host is in maintenance mode in the end.
      type: bool
    maintenance_owner:
      description: V(gpuops) when this collection put it there, V(other) when somebody else did.
      type: str
    reboot_in_progress:
      description: Whether an earlier run has asked the host to reboot and it has not come back yet.
      type: bool
    reboot_required:
      description: Whether passthrough of any device takes effect only after a reboot.
      type: bool
    unfinished:
      description:
        - Whether an interrupted run has left its mark on the host, although the host is in service.
          With O(state=left) it is cleared.
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

import dataclasses
import typing as t

from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.drain import DrainFacts, DrainPolicy, plan_drain
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.facts import HostFacts, predicted_host
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.maintenance import plan_enter, plan_leave, to_drain
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.client import Client
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.drains import (
    DrainSettings,
    read_drain,
    read_drained,
    wait_for_guests,
)
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.intents import now
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.maintenance import apply_maintenance
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
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.reads import Found, read_hosts
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.tasks import Bounds


@dataclasses.dataclass(frozen=True, slots=True)
class Facts:
    hosts: Found[HostFacts]
    drain: DrainFacts = dataclasses.field(default_factory=DrainFacts)


def argument_spec() -> Spec:
    return {
        "hosts": {"type": "list", "elements": "str", "required": True},
        "state": {"type": "str", "choices": ["entered", "left"], "default": "entered"},
        "migrate": {"type": "bool", "default": True},
        "targets": {"type": "dict"},
        "suspend": {"type": "bool", "default": False},
        "shut_down": {"type": "str", "choices": ["never", "guest", "force"], "default": "never"},
        "guest_timeout": {"type": "int", "default": 300},
        "restore": {"type": "bool", "default": True},
        "run_id": {"type": "str", "default": "ansible"},
    }


def read(client: Client, params: Params) -> Facts:
    hosts = read_hosts(client, params["hosts"], guests=params["state"] == "entered")
    if params["state"] == "entered":
        # What was assumed is not known yet here: it only ever takes hosts off the list.
        entering = to_drain(hosts, list(hosts))
        if wait_for_guests(client, [hosts[name] for name in entering], Bounds.of(params)):
            hosts = read_hosts(client, params["hosts"], guests=True)
            entering = to_drain(hosts, list(hosts))
        return Facts(hosts, read_drain(client, [hosts[name] for name in entering]))
    drained = read_drained(client, hosts) if hosts else {}
    for name, items in drained.items():
        hosts[name] = dataclasses.replace(hosts[name], drained=items)
    return Facts(hosts)


def plan(facts: Facts, params: Params) -> Planned:
    hosts = with_assumed(facts.hosts, params)
    names = list(dict.fromkeys(params["hosts"]))
    known = facts.hosts.known
    if params["state"] == "entered":
        policy = DrainPolicy(params["migrate"], params["suspend"], params["shut_down"], params["targets"] or {})
        entering = to_drain(hosts, names)
        unreadable = {name: hosts[name].unreadable_vms for name in entering}
        gone = assumed_gone(params)
        guests = tuple(guest for guest in facts.drain.guests if guest.name not in gone)
        drains = plan_drain(entering, dataclasses.replace(facts.drain, guests=guests), policy, unreadable)
        steps = plan_enter(
            hosts, names, run=params["run_id"], now=now(), drains=drains, restore=params["restore"], known=known
        )
    else:
        steps = plan_leave(hosts, names, known=known)
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
    outcomes = apply_maintenance(
        client,
        facts.hosts,
        {name: planned.work[name] for name in planned.todo},
        settings=DrainSettings(
            run=params["run_id"],
            mark=params["restore"],
            force=params["shut_down"] == "force",
            guest_timeout=params["guest_timeout"],
        ),
        targets={name: target.moid for name, target in facts.drain.targets.items()},
        bounds=Bounds.of(params),
    )
    return applied(outcomes)


def main() -> None:
    bulk_module(argument_spec(), read=read, plan=plan, apply=apply)


if __name__ == "__main__":
    main()
