#!/usr/bin/python
# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: vm_power
short_description: Power virtual machines on or off, suspend and resume them
version_added: "0.1.0"
author:
  - The gpuops.vsphere contributors (@gpuops)
description:
  - Powers many virtual machines on or off at once, suspends or resumes them, and waits until they are.
  - To power off, guests are asked to shut down. What would lose data needs O(force) or O(hard).
  - Virtual machines with vGPUs are powered on one after the other on each host, since the host chooses the GPU of each.
    Which one it will be is predicted from the host's assignment policy, and so is the order in which all find room;
    both are worked out anew from what the host has chosen after each one.
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
      - With V(suspended), they are suspended to disk. That cannot be done with a GPU by passthrough, and with vGPUs
        only where the host says that the profile supports it.
      - With V(resumed), suspended ones are resumed and all others are left alone. It needs a host with the same GPU
        type, vGPU manager, ECC and MIG setting as when they were suspended.
    type: str
    choices: ["on", "off", suspended, resumed]
    required: true
  force:
    description:
      - Whether O(state=off) may lose data. A guest that has no running VMware Tools, or does not shut down within
        O(guest_timeout), is powered off hard, and the memory of a suspended virtual machine is given up.
    type: bool
    default: false
  hard:
    description:
      - Whether O(state=off) powers off without asking the guests, as pulling the plug does.
    type: bool
    default: false
  guest_timeout:
    description:
      - How many seconds guests have to shut down.
    type: int
    default: 300
  lend:
    description:
      - Whether what is suspended is lent, that is, suspended so that others use its GPU, and what is resumed returns.
        The custom attribute C(gpuops.intent) remembers it, so that nothing that somebody else has suspended is resumed.
      - It goes with O(state=suspended), O(state=resumed) and O(state=on).
    type: bool
    default: false
  hosts:
    description:
      - ESXi hosts on which machines that do not run are to be powered on or resumed, by the machine's name. One that is
        elsewhere moves there first. It must be a host of its cluster, and its present host must answer.
      - It goes with O(state=on) and O(state=resumed).
    type: dict
    default: {}
  run_id:
    description:
      - Name of the run, kept in the custom attribute with O(lend).
    type: str
    default: vm_power
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

- name: Suspend virtual machines with vGPUs
  gpuops.vsphere.vm_power:
    hostname: vcenter.example.org
    username: "{{ vcenter_username }}"
    password: "{{ vcenter_password }}"
    vms: [train-01, train-02]
    state: suspended
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
      description: The ESXi host on which the virtual machine changes its power.
      type: str
    seconds:
      description: How long its power-on or its return took, from the request to the end of the vCenter's task.
      type: float
    power:
      description: Its power state after the change.
      type: str
    predicted_gpus:
      description: PCI addresses of the GPUs on which its vGPUs are expected, for one that is powered on.
      type: list
      elements: str
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
import functools
import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.catalog import Catalog
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.facts import HostFacts, Intent, VmFacts, to_dict
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.plan import Problem
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.vm_power import (
    LENT,
    in_the_way,
    plan_power,
    power_on_order,
)
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.client import Client
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.drains import relocate
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.errors import InputError
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.intents import now, write_intents
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.module import (
    Applied,
    Params,
    Planned,
    applied,
    bulk_module,
    with_assumed,
)
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.options import Spec
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.pyvmomi import vim
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.reads import Found, read_hosts, read_vms
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.tasks import Bounds, TaskOutcome
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.vm_power import lanes_of, power_on_in_turn
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.vms import (
    power_off,
    power_off_hard,
    suspend,
    with_assumed_vms,
)

# Faults of a power-on that are about the virtual machine's configuration, and most often about its GPUs.
_CONFIGURATION = ("GenericVmConfigFault", "InvalidVmConfig", "InvalidDeviceSpec", "InsufficientGraphicsResourcesFault")
# Faults for which the host's other virtual machines may be the cause.
_ADMISSION = (
    "InsufficientGraphicsResourcesFault",
    "NoCompatibleHostWithAccessToDevice",
    "InsufficientMemoryResourcesFault",
)


@dataclasses.dataclass(frozen=True, slots=True)
class Facts:
    vms: Found[VmFacts]
    hosts: Found[HostFacts]
    neighbours: Found[VmFacts]
    """Those on the hosts of virtual machines with vGPUs that may be powered on."""


def argument_spec() -> Spec:
    return {
        "vms": {"type": "list", "elements": "str", "required": True},
        "state": {"type": "str", "choices": ["on", "off", "suspended", "resumed"], "required": True},
        "force": {"type": "bool", "default": False},
        "hard": {"type": "bool", "default": False},
        "guest_timeout": {"type": "int", "default": 300},
        "lend": {"type": "bool", "default": False},
        "hosts": {"type": "dict", "default": {}},
        "run_id": {"type": "str", "default": "vm_power"},
    }


def prepare(module: AnsibleModule) -> None:
    if module.params["lend"] and module.params["state"] == "off":
        raise InputError("lend: goes with state suspended, resumed or on; what is off cannot return as it was.")
    if module.params["hosts"] and module.params["state"] not in ("on", "resumed"):
        raise InputError("hosts: goes with state on or resumed.")
    others = sorted({*module.params["hosts"]} - {*module.params["vms"]})
    if others:
        raise InputError(f"hosts: {', '.join(others)} is not in vms.")


def read(client: Client, params: Params) -> Facts:
    vms = read_vms(client, params["vms"])
    known = with_assumed_vms(vms, params)
    names = {str(known[name].host) for name in params["vms"] if name in known} | {*params["hosts"].values()}
    hosts: Found[HostFacts] = read_hosts(client, sorted(names)) if names else Found()
    starting = {name: vm for name, vm in known.items() if vm.power != "poweredOn"}
    lanes = {*lanes_of(starting).values(), *params["hosts"].values()} if params["state"] in ("on", "resumed") else set()
    crowded = [host for name, host in hosts.items() if name in lanes]
    return Facts(vms, hosts, read_vms(client, on_hosts=crowded) if crowded else Found())


def plan(facts: Facts, params: Params) -> Planned:
    plans = plan_power(
        list(dict.fromkeys(params["vms"])),
        params["state"],
        with_assumed_vms({**facts.neighbours, **facts.vms}, params),
        with_assumed(facts.hosts, params),
        force=params["force"],
        hard=params["hard"],
        known=facts.vms.known,
        ambiguous=facts.vms.duplicates,
        lend=Intent(params["run_id"], LENT, now()) if params["lend"] else None,
        places=params["hosts"],
    )
    return Planned(
        plans={name: item.plan for name, item in plans.items()},
        work=plans,
        vms={name: to_dict(item.predicted) for name, item in plans.items() if item.predicted is not None},
    )


def apply(client: Client, facts: Facts, planned: Planned, params: Params) -> t.Mapping[str, Applied]:
    bounds = Bounds.of(params)
    moids = {name: facts.vms[name].moid for name in planned.todo if planned.work[name].power}
    if params["state"] == "off":
        outcomes = _off(client, facts, moids, params, bounds)
    elif params["state"] == "suspended":
        marked = _mark(client, facts, planned, list(moids), bounds) if params["lend"] else {}
        unmarked = {name: outcome for name, outcome in marked.items() if not outcome.ok}
        outcomes = unmarked | suspend(
            client, {name: moid for name, moid in moids.items() if name not in unmarked}, bounds
        )
    else:
        stuck = _move(client, facts, {name: planned.work[name].host for name in moids}, bounds)
        moids = {name: moid for name, moid in moids.items() if name not in stuck}
        facts = dataclasses.replace(facts, vms=_where_they_are(facts, planned, moids))
        lanes = lanes_of({name: facts.vms[name] for name in moids})
        outcomes = stuck | power_on_in_turn(
            client, moids, bounds, lanes, functools.partial(_order, client, facts, lanes)
        )
        if params["lend"]:
            done = [name for name in planned.todo if name not in outcomes or outcomes[name].ok]
            cleared = _mark(client, facts, planned, [name for name in done if facts.vms[name].intent], bounds)
            outcomes |= {name: _later(outcomes.get(name), outcome) for name, outcome in cleared.items()}
    causes = _causes(client, facts, outcomes)
    return {
        name: _with_advice(item, facts.vms[name], causes.get(name, ""), outcomes[name].seconds)
        for name, item in applied(outcomes).items()
    }


def _move(client: Client, facts: Facts, places: t.Mapping[str, str | None], bounds: Bounds) -> dict[str, TaskOutcome]:
    """Bring machines to the hosts where they are powered on; those that did not get there."""
    hosts = {name: facts.hosts[host].moid for name, host in places.items() if host is not None}
    outcomes = relocate(client, {name: facts.vms[name].moid for name in hosts}, hosts, bounds)
    return {name: outcome for name, outcome in outcomes.items() if not outcome.ok}


def _where_they_are(facts: Facts, planned: Planned, names: t.Iterable[str]) -> Found[VmFacts]:
    moved = {name: planned.work[name].host for name in names if planned.work[name].host is not None}
    return Found(facts.vms | {name: dataclasses.replace(facts.vms[name], host=host) for name, host in moved.items()})


def _mark(
    client: Client, facts: Facts, planned: Planned, names: t.Sequence[str], bounds: Bounds
) -> dict[str, TaskOutcome]:
    """Write or clear the intents as planned."""
    intents = {
        name: (client.ref(vim.VirtualMachine, facts.vms[name].moid), planned.work[name].predicted.intent)
        for name in names
    }
    return write_intents(client, intents, max_parallel=bounds.max_parallel)


def _off(
    client: Client, facts: Facts, moids: t.Mapping[str, str], params: Params, bounds: Bounds
) -> dict[str, TaskOutcome]:
    hard = {name: moid for name, moid in moids.items() if params["hard"] or facts.vms[name].power == "suspended"}
    asked = {name: moid for name, moid in moids.items() if name not in hard}
    outcomes = (
        power_off(client, asked, bounds, force=params["force"], guest_timeout=params["guest_timeout"]) if asked else {}
    )
    return outcomes | (power_off_hard(client, hard, bounds) if hard else {})


def _order(client: Client, facts: Facts, lanes: t.Mapping[str, str], names: t.Sequence[str]) -> list[str]:
    """The order for those that wait, from what the hosts have chosen for those before them."""
    if len({lanes[name] for name in names}) == len(names):
        return list(names)
    hosts, vms = facts.hosts, {**facts.neighbours, **facts.vms}
    if len(names) < len(lanes):
        hosts = read_hosts(client, sorted({lanes[name] for name in names}))
        vms = {**vms, **read_vms(client, on_hosts=hosts.values())}
    return power_on_order(names, vms, hosts, Catalog())


def _causes(client: Client, facts: Facts, outcomes: t.Mapping[str, TaskOutcome]) -> dict[str, str]:
    """What is in the way of those that were not admitted; one more bulk read, if there are any."""
    refused = {
        name: outcome.error.fault
        for name, outcome in outcomes.items()
        if outcome.error is not None and outcome.error.fault in _ADMISSION
    }
    if not refused:
        return {}
    hosts = read_hosts(client, sorted({str(facts.vms[name].host) for name in refused}))
    vms = read_vms(client, on_hosts=hosts.values()).values()
    return {
        name: in_the_way(facts.vms[name], hosts[str(facts.vms[name].host)], vms, fault, Catalog())
        for name, fault in refused.items()
        if str(facts.vms[name].host) in hosts
    }


def _later(first: TaskOutcome | None, then: TaskOutcome) -> TaskOutcome:
    """Two operations on one machine: the second's end, the first's time."""
    return then if first is None else dataclasses.replace(then, seconds=first.seconds)


def _with_advice(item: Applied, vm: VmFacts, cause: str, seconds: float | None) -> Applied:
    """A failed operation leaves the power as it is; a fault of the configuration is one for vm_gpu."""
    problems = tuple(_advised(problem, vm, cause) for problem in item.problems)
    notes = {"power": vm.power} if problems else {} if seconds is None else {"seconds": round(seconds, 1)}
    return Applied(item.changed, problems, notes)


def _advised(problem: Problem, vm: VmFacts, cause: str) -> Problem:
    msg = f"{problem.msg} {cause}".rstrip()
    if problem.fault in _CONFIGURATION and vm.gpus:
        msg += " Run vm_gpu for it: it sets what its GPUs need, or says what stands in the way."
    return dataclasses.replace(problem, msg=msg)


def main() -> None:
    bulk_module(argument_spec(), prepare=prepare, read=read, plan=plan, apply=apply)


if __name__ == "__main__":
    main()
