#!/usr/bin/python
# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: gpu_lock
short_description: Hold the operators' lock of clusters
version_added: "0.1.0"
author:
  - The gpuops.vsphere contributors (@gpuops)
description:
  - Takes the lock of a cluster, so that two operators do not work on its hosts at once, or gives it back.
  - The lock is a folder C(gpuops-lock-<cluster>-<generation>) at the top of the vCenter's inventory. Its custom
    attribute C(gpuops.lock) says who holds it, since when and until when.
  - A lock whose process on this machine is gone is taken over with the next generation; one whose process runs is not,
    however old it is. A lock of another machine is taken over when its time is over. Of any number of contenders
    exactly one gets it.
options:
  clusters:
    description:
      - Names of the clusters. Their locks are taken in the order of their names, all or none.
      - With O(state=released) and neither this nor O(hosts), all locks of this run are given back, and those of runs of
        this machine that are gone.
    type: list
    elements: str
    default: []
  hosts:
    description:
      - Names of hosts whose clusters are meant, too. A host outside of clusters has a lock of its own, by its name.
      - Hosts that the vCenter does not have are ignored.
    type: list
    elements: str
    default: []
  kept:
    description:
      - Clusters whose locks this run has taken before, with O(state=held). They are prolonged.
      - One that is not this run's any more is lost, even if nobody has it now; the module fails then instead of
        taking it anew, because what was planned under the lock may not hold any more.
    type: list
    elements: str
    default: []
  state:
    description: Whether the locks are to be held by this run.
    type: str
    choices: [held, released]
    default: held
  run_id:
    description:
      - Name of the run. A lock of the same run is prolonged instead of refused. The default is made from the machine
        and the process that runs the playbook.
    type: str
  owner:
    description: Who holds it, as others are told. The default is the user and the machine that run Ansible.
    type: str
  lifetime:
    description:
      - After so many seconds without being prolonged other machines may take the lock over.
      - A lock is prolonged once half of it has passed; to do so, run the module again.
    type: int
    default: 14400
  force:
    description: With O(state=released) and O(clusters) or O(hosts), break the locks of others, too.
    type: bool
    default: false
  holder_pid:
    description: The process that the lock belongs to. Ansible's own, if not set.
    type: int
extends_documentation_fragment:
  - gpuops.vsphere.vsphere
  - gpuops.vsphere.vsphere.bulk
  - gpuops.vsphere.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
"""

EXAMPLES = r"""
- name: Nobody else may change this cluster for now
  gpuops.vsphere.gpu_lock:
    hostname: vcenter.example.org
    username: "{{ vcenter_username }}"
    password: "{{ vcenter_password }}"
    clusters: [gpu]

- name: Nobody else may work on the clusters of these hosts for now
  gpuops.vsphere.gpu_lock:
    hostname: vcenter.example.org
    username: "{{ vcenter_username }}"
    password: "{{ vcenter_password }}"
    hosts: [esx-gpu-01.example.org, esx-gpu-02.example.org]

- name: Give back all locks of this run
  gpuops.vsphere.gpu_lock:
    hostname: vcenter.example.org
    username: "{{ vcenter_username }}"
    password: "{{ vcenter_password }}"
    state: released

- name: Break a lock that somebody has left
  gpuops.vsphere.gpu_lock:
    hostname: vcenter.example.org
    username: "{{ vcenter_username }}"
    password: "{{ vcenter_password }}"
    clusters: [gpu]
    state: released
    force: true
"""

RETURN = r"""
objects:
  description: For each cluster, what was or would be done.
  returned: always
  type: dict
run_id:
  description: Name of the run that the locks belong to.
  returned: always
  type: str
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
import getpass
import os
import pathlib
import socket
import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.lock import (
    Holder,
    LockFolder,
    after,
    claim,
    held_text,
    key_of,
    lost_text,
    to_give_back,
)
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.plan import Change, ObjectPlan, Problem
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.client import Client
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.errors import GpuOpsError, InputError
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.intents import vcenter_time
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.locks import (
    acquire,
    read_clusters,
    read_locks,
    release,
)
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.module import (
    Applied,
    Params,
    Planned,
    bulk_module,
    problem,
)
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.options import Spec
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.tasks import Bounds


@dataclasses.dataclass(frozen=True, slots=True)
class Facts:
    locks: tuple[LockFolder, ...]
    now: str
    clusters: tuple[str, ...]
    """Of the hosts that are given."""


def argument_spec() -> Spec:
    return {
        "clusters": {"type": "list", "elements": "str", "default": []},
        "hosts": {"type": "list", "elements": "str", "default": []},
        "kept": {"type": "list", "elements": "str", "default": []},
        "state": {"type": "str", "choices": ["held", "released"], "default": "held"},
        "run_id": {"type": "str"},
        "owner": {"type": "str"},
        "lifetime": {"type": "int", "default": 14400},
        "force": {"type": "bool", "default": False},
        "holder_pid": {"type": "int"},
    }


def prepare(module: AnsibleModule) -> None:
    if module.params["lifetime"] < 60:
        raise InputError("lifetime: must be at least 60 seconds, longer than the longest step of the work.")
    if module.params["force"] and not _named(module.params):
        raise InputError("force: breaks the locks of others; name the clusters or hosts that are meant.")


def _named(params: Params) -> bool:
    return bool(params["clusters"] or params["hosts"])


def process_started(pid: int) -> str:
    """When a process of this machine started, in clock ticks since the boot; empty when it is gone."""
    try:
        text = pathlib.Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    except OSError:
        return ""
    fields = text.rpartition(")")[2].split()
    return "" if fields[0] in "ZX" else fields[19]


def controller() -> str:
    """This machine, its boot, and the namespace of its process ids, which containers with its name do not share."""
    try:
        boot = pathlib.Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
        numbering = str(pathlib.Path("/proc/self/ns/pid").readlink())
    except OSError:
        boot = numbering = ""
    return f"{socket.gethostname()} {boot} {numbering}".strip()


def alive(holder: Holder) -> bool | None:
    """Whether the holder's process still runs: only of this machine's is that known."""
    if not holder.started or holder.controller != controller():
        return None
    return process_started(holder.pid) == holder.started


def run_id(params: Params) -> str:
    if params["run_id"]:
        return str(params["run_id"])
    pid = params["holder_pid"] or os.getppid()
    return f"{socket.gethostname()}-{pid}-{process_started(pid)}"


def read(client: Client, params: Params) -> Facts:
    clusters = read_clusters(client, params["hosts"])
    locks, _prepared = read_locks(client)
    return Facts(tuple(locks), vcenter_time(client), tuple(clusters))


def plan(facts: Facts, params: Params) -> Planned:
    run = run_id(params)
    plans = {}
    for cluster in _clusters(facts, params, run):
        if params["state"] == "held":
            kept = key_of(cluster) in {key_of(name) for name in params["kept"]}
            plans[cluster] = _plan_held(facts, cluster, run, params["lifetime"], kept=kept)
            continue
        there = [lock for lock in facts.locks if lock.cluster == key_of(cluster)]
        ours = [lock for lock in there if params["force"] or to_give_back(lock, run, alive)]
        changes = tuple(Change("release", "operators' lock", lock.name, None) for lock in ours)
        plans[cluster] = ObjectPlan(cluster, changes, notes={"held": False})
    return Planned(plans=plans, returns={"run_id": run})


def _clusters(facts: Facts, params: Params, run: str) -> list[str]:
    if params["state"] == "held":
        return sorted({*params["clusters"], *facts.clusters, *params["kept"]})
    if _named(params):
        return sorted({*params["clusters"], *facts.clusters})
    return sorted({lock.cluster for lock in facts.locks if to_give_back(lock, run, alive)})


def _plan_held(facts: Facts, cluster: str, run: str, lifetime: float, *, kept: bool) -> ObjectPlan:
    found = claim(facts.locks, cluster, run, facts.now, alive)
    if kept and found.ours is None:
        text = lost_text(found.held_by, facts.now)
        return ObjectPlan(cluster, problems=(Problem("lock_lost", cluster, text, "kept", kind="state"),))
    if found.held_by is not None:
        text = held_text(cluster, found.held_by, facts.now)
        return ObjectPlan(cluster, problems=(Problem("locked", cluster, text, "clusters", kind="state"),))
    notes = {"held": True, "taken_over": [lock.name for lock in found.stale]}
    if found.ours is not None and found.ours.holder is not None:
        until = after(facts.now, lifetime / 2)
        if found.ours.holder.expires > until:
            return ObjectPlan(cluster, notes=notes)
        change = Change("prolong", "operators' lock", found.ours.holder.expires, after(facts.now, lifetime))
        return ObjectPlan(cluster, (change,), notes=notes)
    was = found.stale[-1].name if found.stale else None
    reason = "its holder is gone" if was else ""
    return ObjectPlan(cluster, (Change("take", "operators' lock", was, cluster, reason),), notes=notes)


def apply(client: Client, facts: Facts, planned: Planned, params: Params) -> t.Mapping[str, Applied]:
    bounds = Bounds.of(params)
    pid = params["holder_pid"] or os.getppid()
    holder = Holder(
        params["owner"] or f"{getpass.getuser()}@{socket.gethostname()}",
        planned.returns["run_id"],
        facts.now,
        after(facts.now, params["lifetime"]),
        controller(),
        pid,
        process_started(pid),
    )
    done: dict[str, Applied] = {}
    taken: list[str] = []
    for cluster in planned.todo:
        new = any(change.action == "take" for change in planned.plans[cluster].changes)
        try:
            if params["state"] == "released":
                done[cluster] = Applied(release(client, cluster, holder, alive, force=params["force"], bounds=bounds))
            elif any(plan.failed for plan in planned.plans.values()) or any(item.problems for item in done.values()):
                done[cluster] = Applied(changed=False)
            else:
                acquire(client, cluster, holder, alive, bounds, new=new)
                done[cluster] = Applied(changed=True)
                taken += [cluster] if new else []
        except GpuOpsError as error:
            done[cluster] = Applied(changed=False, problems=(problem(cluster, error),))
            for other in taken:  # all or none
                release(client, other, holder, alive, force=False, bounds=bounds)
                done[other] = Applied(changed=False)
    return done


def main() -> None:
    bulk_module(argument_spec(), prepare=prepare, read=read, plan=plan, apply=apply)


if __name__ == "__main__":
    main()
