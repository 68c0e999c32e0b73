#!/usr/bin/python
# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: esxi_power
short_description: Reboot ESXi hosts and wait until they are back
version_added: "0.1.0"
author:
  - The gpuops.vsphere contributors (@gpuops)
description:
  - Reboots many ESXi hosts at once and waits until each answers again with a later boot time.
  - The boot time before the reboot is written to the custom attribute C(gpuops.intent) of the host first. A run that
    was interrupted is carried on by the next one, which only waits where the host is already on its way.
  - With O(state=reboot_due) only that is written, before work that needs the reboot, for example ECC modes of GPUs. So
    the reboot is done once and not forgotten, at whatever point a run ends.
  - Hosts must be in maintenance mode, see M(gpuops.vsphere.esxi_maintenance). A host that somebody else has put there
    is left alone, with a warning.
options:
  hosts:
    description:
      - Names of the hosts in the vCenter.
    type: list
    elements: str
    required: true
  state:
    description:
      - What is wanted.
      - V(reboot_due) records that the host is to reboot once more than it has by now; it changes nothing where a
        recorded reboot has not happened yet. V(rebooted) carries it out.
    type: str
    choices: [rebooted, reboot_due]
    default: rebooted
  when_needed:
    description:
      - Reboot only hosts with a device whose passthrough waits for a reboot, or for which an earlier run recorded
        a reboot that has not happened yet.
      - If V(false), every host is rebooted that has not done so since an earlier run recorded it.
    type: bool
    default: true
  always:
    description:
      - Those of O(hosts) for which O(when_needed) does not hold, for example because a driver was installed.
    type: list
    elements: str
    default: []
  force:
    description:
      - Reboot hosts that are not in maintenance mode, too. Their virtual machines die.
    type: bool
    default: false
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
  - module: gpuops.vsphere.esxi_maintenance
"""

EXAMPLES = r"""
- name: Reboot the hosts whose passthrough waits for it
  gpuops.vsphere.esxi_power:
    hostname: vcenter.example.org
    username: "{{ vcenter_username }}"
    password: "{{ vcenter_password }}"
    hosts:
      - esx-gpu-01.example.org
      - esx-gpu-02.example.org
    timeout: 3600

- name: Record a reboot before the work that needs it
  gpuops.vsphere.esxi_power:
    hostname: vcenter.example.org
    username: "{{ vcenter_username }}"
    password: "{{ vcenter_password }}"
    hosts:
      - esx-gpu-01.example.org
    state: reboot_due
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
      actions: ["reboot host (passthrough of 0000:3b:00.0 waits for it)"]
      warnings: []
      reboot_required: false
      reboot_in_progress: false
      in_maintenance: true
      maintenance_owner: gpuops
      unfinished: false
      left_alone: false
  contains:
    changed:
      description: Whether this host was or would be rebooted or waited for, or a reboot recorded.
      type: bool
    failed:
      description: Whether this host could not be rebooted or did not come back.
      type: bool
    msg:
      description: Why it failed and what to do.
      type: str
    reboot_required:
      description: Whether passthrough of any device still waits for a reboot.
      type: bool
    reboot_in_progress:
      description: Whether the host has been asked to reboot and is not back yet.
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
  description: The hosts' facts after the reboot, as far as they differ, for O(assume) of later steps.
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

import typing as t

from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.facts import HostFacts, predicted_host
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.power import plan_reboot, plan_reboot_due
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.client import Client
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.hosts import apply_reboots
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.intents import now
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


def argument_spec() -> Spec:
    return {
        "hosts": {"type": "list", "elements": "str", "required": True},
        "state": {"type": "str", "choices": ["rebooted", "reboot_due"], "default": "rebooted"},
        "when_needed": {"type": "bool", "default": True},
        "always": {"type": "list", "elements": "str", "default": []},
        "force": {"type": "bool", "default": False},
        "run_id": {"type": "str", "default": "ansible"},
    }


def read(client: Client, params: Params) -> Found[HostFacts]:
    return read_hosts(client, params["hosts"])


def plan(facts: Found[HostFacts], params: Params) -> Planned:
    hosts = with_assumed(facts, params)
    names = list(dict.fromkeys(params["hosts"]))
    common = {"run": params["run_id"], "now": now(), "force": params["force"], "known": facts.known}
    if params["state"] == "reboot_due":
        steps = plan_reboot_due(hosts, names, **common)
    else:
        steps = plan_reboot(hosts, names, when_needed=params["when_needed"], always=params["always"], **common)
    return Planned(
        plans={name: step.plan for name, step in steps.items()},
        hosts={
            name: predicted_host(hosts[name], step.after)
            for name, step in steps.items()
            if step.plan.changed and step.after is not None
        },
        work=steps,
    )


def apply(client: Client, facts: Found[HostFacts], planned: Planned, params: Params) -> t.Mapping[str, Applied]:
    outcomes = apply_reboots(
        client,
        {name: facts[name].moid for name in planned.todo},
        {name: planned.work[name] for name in planned.todo},
        force=params["force"],
        timeout=params["timeout"],
        max_parallel=params["max_parallel"],
    )
    return applied(outcomes)


def main() -> None:
    bulk_module(argument_spec(), read=read, plan=plan, apply=apply)


if __name__ == "__main__":
    main()
