#!/usr/bin/python
# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: harvest_plan
short_description: Plan which idle desktops lend their GPUs, and when they must return
version_added: "0.1.0"
author:
  - The gpuops.vsphere contributors (@gpuops)
description:
  - Says which desktops to suspend in the evening so that their vGPUs make room for compute machines, when their return
    must begin so that all are ready before work does, and which compute machines leave for a user who comes at night.
    Changes nothing.
  - A desktop is left alone unless it is known to be idle, is marked to be lent, can be suspended and can return.
  - The start of the return is counted back from the deadline, with measured times, what hosts bear at once, and a
    margin.
  - Lent desktops are those that are suspended with the intent C(lent) in the custom attribute C(gpuops.intent).
options:
  desktops:
    description:
      - The desktops that follow the O(schedules).
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description:
          - Name of the virtual machine.
        type: str
        required: true
      lend:
        description:
          - Whether it may be lent. The machine's custom attribute O(lend_attribute) and its tag O(lend_tag) say so,
            too.
        type: bool
        default: false
      cpu_mhz:
        description:
          - Its CPU usage in MHz, as averages over equal parts of the window that is to be idle, where the site knows
            better than the vCenter. Left out, O(cpu_samples) serves.
        type: list
        elements: float
        default: []
      resume_seconds:
        description:
          - The longest of its last times to resume. Left out where none was measured.
        type: float
  checks:
    description:
      - What the site's own check says of desktops, V(idle), V(busy) or V(failed), by name, as
        RV(gpuops.vsphere.site_check#module:checks) has it. It was not made of those left out.
    type: dict
    default: {}
  lend_attribute:
    description:
      - Custom attribute of the vCenter that marks a desktop as to be lent, with V(true) or V(yes); empty for none.
    type: str
    default: ''
  lend_tag:
    description:
      - Tag of the vCenter that marks a desktop as to be lent, as C(category:name); empty for none.
      - Where it cannot be read, or is not there, no desktop counts as marked by it, with a warning. Lent desktops
        return all the same.
    type: str
    default: ''
  cpu_samples:
    description:
      - Where CPU usage comes from for a desktop without O(desktops[].cpu_mhz). V(runs) are the samples of
        O(history_file), which runs took; V(vcenter) the five-minute averages (C(cpu.usagemhz.average)) that the
        vCenter keeps of a day, with which an O(idle_window) of an hour has 12 samples before the first run. Both with
        the vCenter's figure of now.
      - Averages that cannot be read are none, with a warning, so that nothing is lent.
    type: str
    choices: [runs, vcenter]
    default: runs
  history_file:
    description:
      - File in which M(gpuops.vsphere.harvest_record) remembers CPU samples and how long desktops took to resume. One
        that is not there yet is an empty one.
    type: path
  schedules:
    description:
      - Working hours by name, each with C(timezone) (of the IANA database), C(ready_by) and C(lend_from) (local times
        such as C('07:30')), and where they differ from the defaults C(days) (weekdays on which work begins, V(mon) to
        V(fri)) and C(holidays) (dates).
      - Desktops are lent only while none of the schedules has working hours.
      - A local time that the change of the clock skips or repeats is read so that desktops are never short of time.
    type: dict
    required: true
  compute_profile:
    description:
      - vGPU profile to make room for, for example V(nvidia_a100-40c).
    type: str
    required: true
  compute_vms:
    description:
      - Machines that work on lent GPUs.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description:
          - Name of the virtual machine.
        type: str
        required: true
      jobs:
        description:
          - How many jobs run on it.
        type: int
        default: 0
  compute_clone:
    description:
      - Whether names in O(compute_vms) that the vCenter does not know are to be cloned. Else they are mistakes.
    type: bool
    default: false
  phase:
    description:
      - What to do. V(auto) goes by O(schedules), and is what a timer runs.
    type: str
    choices: [auto, evening, morning]
    default: auto
  wanted:
    description:
      - Lent desktops whose users wait for them now.
    type: list
    elements: str
    default: []
  idle_mhz:
    description:
      - A desktop is idle if no sample of its CPU usage is above this, in MHz.
    type: float
    default: 300
  idle_samples:
    description:
      - How many samples that takes.
    type: int
    default: 6
  idle_window:
    description:
      - Samples count if they are not older than that, in seconds. Of those that runs have taken less than half an
        O(interval) apart, the highest alone counts.
    type: int
    default: 3600
  check_required:
    description:
      - Whether the site's own check must say V(idle) too.
    type: bool
    default: false
  reserve:
    description:
      - How many idle desktops stay ready for late users.
    type: int
    default: 0
  timing:
    description:
      - How long things take, in seconds, and how much at once.
    type: dict
    default: {}
    suboptions:
      drain:
        description:
          - From the first signal to jobs until the last is requeued.
        type: float
        default: 600
      release:
        description:
          - To suspend or power off the compute machines.
        type: float
        default: 120
      resume:
        description:
          - To resume a desktop of which nothing was measured.
        type: float
        default: 120
      at_once:
        description:
          - How many resume at once, each on a host of its own.
        type: int
        default: 16
      margin:
        description:
          - Share of all this that is added.
        type: float
        default: 0.25
      least_margin:
        description:
          - And how many seconds are added at least.
        type: float
        default: 600
  interval:
    description:
      - Seconds between two runs of the timer.
    type: int
    default: 600
  now:
    description:
      - A time in ISO 8601 with its offset, to see what would be done then with what is known now.
    type: str
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
  - module: gpuops.vsphere.harvest_record
  - module: gpuops.vsphere.site_check
  - module: gpuops.vsphere.vm_power
  - module: gpuops.vsphere.vm_shares
"""

EXAMPLES = r"""
- name: See which desktops would be lent now
  gpuops.vsphere.harvest_plan:
    hostname: vcenter.example.org
    username: "{{ vcenter_username }}"
    password: "{{ vcenter_password }}"
    schedules:
      office: {timezone: Europe/Berlin, ready_by: '07:30', lend_from: '19:00'}
    desktops:
      - {name: desk-01, lend: true, cpu_mhz: [40, 35, 60, 41, 38, 44]}
      - {name: desk-02, lend: true, cpu_mhz: [40, 2100, 60, 41, 38, 44]}
    compute_profile: nvidia_a100-40c
    reserve: 1
  register: night

- name: Say when the return must begin
  ansible.builtin.debug:
    msg: "{{ night.phase }}: back from {{ night.start_by }} UTC, ready by {{ night.deadline }}"
"""

RETURN = r"""
objects:
  description: What is planned for each desktop.
  returned: always
  type: dict
  contains:
    verdict:
      description: V(suspend), V(reserve), V(keep), V(leave alone), V(lent) or V(resume).
      type: str
    reason:
      description: Why.
      type: str
    host:
      description: Where it resumes, with RV(objects.verdict=resume).
      type: str
phase:
  description: V(day), V(evening), V(night) or V(morning).
  returned: always
  type: str
deadline:
  description: When the desktops must be ready (in RV(phase=day) since when), UTC; null for never.
  returned: always
  type: str
start_by:
  description: When the return of all that are or may be lent must begin at the latest, UTC; null with none.
  returned: always
  type: str
release:
  description: Compute machines to drain and take off first.
  returned: always
  type: list
  elements: str
suspend:
  description: Desktops to suspend.
  returned: always
  type: list
  elements: str
resume:
  description: Desktops to resume, in this order.
  returned: always
  type: list
  elements: str
waves:
  description:
    - The same, those together that resume at once. The start is counted back for one wave after the other.
  returned: always
  type: list
  elements: list
places:
  description: The host of each desktop in RV(resume), for the option O(gpuops.vsphere.vm_power#module:hosts).
  returned: always
  type: dict
start:
  description: Compute machines to power on or resume on the hosts of lent desktops, those in RV(clone) included.
  returned: always
  type: list
  elements: str
clone:
  description: Those of RV(start) that must be cloned first, C(name) and C(host) of each.
  returned: always
  type: list
  elements: dict
attach:
  description: Those of RV(start) that have no vGPU yet.
  returned: always
  type: list
  elements: str
working:
  description: In the evening, the compute machines that run and stay.
  returned: always
  type: list
  elements: str
start_places:
  description: The host of each machine in RV(start).
  returned: always
  type: dict
lent:
  description: Desktops that are lent now.
  returned: always
  type: list
  elements: str
returned:
  description: Desktops that run and are still marked as lent. M(gpuops.vsphere.vm_power) clears that.
  returned: always
  type: list
  elements: str
stranded:
  description: Lent desktops that cannot return in time, and why.
  returned: always
  type: dict
record:
  description: What was seen, for the option O(gpuops.vsphere.harvest_record#module:seen).
  returned: always
  type: dict
table:
  description: The plan for people.
  returned: always
  type: str
room:
  description: How many machines with O(compute_profile) each host then takes.
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
import datetime
import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.facts import HostFacts, VmFacts
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.harvest import options
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.harvest.files import read_history
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.harvest.history import History, HistoryError
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.harvest.night import NightFacts, plan_night
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.client import Client
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.desktops import (
    Desk,
    read_cpu_samples,
    read_desks,
)
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.errors import GpuOpsError, InputError
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.module import (
    Params,
    Planned,
    bulk_module,
    with_assumed,
)
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.options import Spec
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.reads import read_fleet
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.rest import Rest
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.tags import tagged_vms
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.vms import with_assumed_vms

_TIMING: Spec = {
    "drain": {"type": "float", "default": 600},
    "release": {"type": "float", "default": 120},
    "resume": {"type": "float", "default": 120},
    "at_once": {"type": "int", "default": 16},
    "margin": {"type": "float", "default": 0.25},
    "least_margin": {"type": "float", "default": 600},
}


@dataclasses.dataclass(frozen=True, slots=True)
class Facts:
    vms: t.Mapping[str, VmFacts]
    hosts: t.Mapping[str, HostFacts]
    desks: t.Mapping[str, Desk]
    history: History
    tagged: frozenset[str]
    """Ids of the machines with the tag that marks desktops as to be lent."""
    averages: t.Mapping[str, options.Averages] | None
    warnings: tuple[str, ...]


def argument_spec() -> Spec:
    return {
        "desktops": {
            "type": "list",
            "elements": "dict",
            "required": True,
            "options": {
                "name": {"type": "str", "required": True},
                "lend": {"type": "bool", "default": False},
                "cpu_mhz": {"type": "list", "elements": "float", "default": []},
                "resume_seconds": {"type": "float"},
            },
        },
        "checks": {"type": "dict", "default": {}},
        "lend_attribute": {"type": "str", "default": ""},
        "lend_tag": {"type": "str", "default": ""},
        "cpu_samples": {"type": "str", "choices": ["runs", "vcenter"], "default": "runs"},
        "history_file": {"type": "path"},
        "schedules": {"type": "dict", "required": True},
        "compute_profile": {"type": "str", "required": True},
        "compute_vms": {
            "type": "list",
            "elements": "dict",
            "default": [],
            "options": {"name": {"type": "str", "required": True}, "jobs": {"type": "int", "default": 0}},
        },
        "compute_clone": {"type": "bool", "default": False},
        "phase": {"type": "str", "choices": ["auto", "evening", "morning"], "default": "auto"},
        "wanted": {"type": "list", "elements": "str", "default": []},
        "idle_mhz": {"type": "float", "default": 300},
        "idle_samples": {"type": "int", "default": 6},
        "idle_window": {"type": "int", "default": 3600},
        "check_required": {"type": "bool", "default": False},
        "reserve": {"type": "int", "default": 0},
        "timing": {"type": "dict", "default": {}, "apply_defaults": True, "options": _TIMING},
        "interval": {"type": "int", "default": 600},
        "now": {"type": "str"},
    }


def prepare(module: AnsibleModule) -> None:
    mistake = options.mistakes(module.params)
    if mistake:
        raise InputError(mistake)


def read(client: Client, params: Params) -> Facts:
    hosts, vms = read_fleet(client)
    try:
        history = read_history(params["history_file"]) if params["history_file"] else History()
    except HistoryError as error:
        raise InputError(f"history_file: {error}") from error
    desks = read_desks(client, params["lend_attribute"])
    # Neither may stand in the way of those that return: what is not known counts against lending alone.
    warnings = []
    try:
        tagged = _tagged(client, params)
    except GpuOpsError as error:
        tagged = frozenset()
        warnings.append(f"lend_tag: {error} No desktop counts as marked by {params['lend_tag']}.")
    try:
        averages = _averages(client, params)
    except GpuOpsError as error:
        averages = {}
        warnings.append(f"cpu_samples: {error} No desktop counts as idle.")
    return Facts({vm.name: vm for vm in vms}, hosts, desks, history, tagged, averages, tuple(warnings))


def _tagged(client: Client, params: Params) -> frozenset[str]:
    if not params["lend_tag"]:
        return frozenset()
    rest = Rest(client)
    try:
        return tagged_vms(rest, *options.split_tag(params["lend_tag"]))
    finally:
        rest.close()


def _averages(client: Client, params: Params) -> t.Mapping[str, options.Averages] | None:
    if params["cpu_samples"] == "runs":
        return None
    names = {desktop["name"] for desktop in params["desktops"] if not desktop["cpu_mhz"]}
    return read_cpu_samples(client, names, datetime.timedelta(seconds=params["idle_window"]))


def plan(facts: Facts, params: Params) -> Planned:
    at = options.moment(params)
    seen = {name: (desk.heartbeat, desk.cpu_mhz) for name, desk in facts.desks.items()}
    given = {desktop["name"] for desktop in params["desktops"] if desktop["lend"]}
    known = NightFacts(
        with_assumed_vms(facts.vms, params),
        with_assumed(facts.hosts, params),
        options.activity(params, facts.history, at.now, seen, facts.averages),
        frozenset(
            given | {name for name, desk in facts.desks.items() if desk.marked or desk.moid in facts.tagged},
        ),
        {item["name"]: item["jobs"] for item in params["compute_vms"]},
    )
    names = [desktop["name"] for desktop in params["desktops"]]
    night = plan_night(names, known, options.policy(params, facts.history), at.hours, at.now)
    cpu = {name: desk.cpu_mhz for name, desk in facts.desks.items()}
    record = options.record_dict(params, at, known, cpu)
    returns = {**options.result_dict(night, at.now, facts.warnings), "record": record}
    return Planned(plans=night.plans, returns=returns, warnings=facts.warnings)


def main() -> None:
    bulk_module(argument_spec(), prepare=prepare, read=read, plan=plan)


if __name__ == "__main__":
    main()
