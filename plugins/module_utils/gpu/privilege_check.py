# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Which privileges some jobs ask for on which objects, and which of them an account lacks."""

from __future__ import annotations

import dataclasses
import typing as t

from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.plan import ObjectPlan, Problem
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.privileges import JOBS, Need, On, needed, needs_of

ROOT = "root folder"
_ANY: dict[On, str] = {
    "vm": "folders of virtual machines",
    "template": "folders of virtual machines",
    "folder": "folders of virtual machines",
    "datastore": "datastores",
    "pool": "resource pools",
    "network": "networks",
}
"""Kinds of which the run needs one that it chooses itself, so that the privilege is missing if held on none."""


@dataclasses.dataclass(frozen=True, slots=True)
class JobUse:
    """A job, or some of its modules, and what it is done to; names."""

    job: str
    modules: tuple[str, ...]
    hosts: tuple[str, ...] | None = None
    """None: all."""
    vms: tuple[str, ...] = ()
    templates: tuple[str, ...] = ()
    cases: frozenset[str] | None = None
    """Of the needs that a run may do without, those to look at; None: all."""


@dataclasses.dataclass(frozen=True, slots=True)
class Inventory:
    """Objects of the vCenter: ids by kind and name, and what hangs on them."""

    root: str
    named: t.Mapping[tuple[On, str], tuple[str, ...]]
    cluster_of: t.Mapping[str, str]
    """Name of a host -> name of its cluster."""
    with_vms: frozenset[str]
    """Names of the hosts that have virtual machines."""
    attributes: frozenset[str]
    """Custom attributes that are defined."""

    def every(self, kind: On) -> dict[str, tuple[str, ...]]:
        """All objects of a kind by name."""
        return {name: ids for (on, name), ids in self.named.items() if on == kind}


@dataclasses.dataclass(frozen=True, slots=True)
class Question:
    """A privilege that a job needs on an object, or on one of several."""

    privilege: str
    object: str
    """Name of the object or of the kind of objects."""
    ids: tuple[str, ...]
    any: bool
    """Whether it is enough to hold it on one of `ids`."""
    job: str
    module: str
    reason: str


def questions(uses: t.Iterable[JobUse], inventory: Inventory) -> list[Question]:
    """What is to be asked. Objects that are not there are left out: what has them done says so."""
    found: list[Question] = []
    for use in uses:
        hosts = inventory.every("host") if use.hosts is None else dict.fromkeys(use.hosts)
        for module in use.modules:
            for need in needs_of(use.job, module):
                if need.attribute in inventory.attributes:
                    continue
                if need.case and use.cases is not None and need.case not in use.cases:
                    continue
                found += [
                    Question(need.privilege, name, ids, any_of, use.job, module, need.reason)
                    for name, ids, any_of in _objects(need, module, use, tuple(hosts), inventory)
                    if ids
                ]
    return found


def _objects(
    need: Need, module: str, use: JobUse, hosts: tuple[str, ...], inventory: Inventory
) -> t.Iterator[tuple[str, tuple[str, ...], bool]]:
    """Name, ids and whether one of them is enough."""
    kind = need.on
    if kind == "root":
        yield ROOT, (inventory.root,), False
        return
    names: t.Iterable[str] = ()
    if kind == "host":
        names = hosts
    elif kind == "cluster":
        names = dict.fromkeys(inventory.cluster_of[name] for name in hosts if name in inventory.cluster_of)
    elif module == "esxi_maintenance":
        if not inventory.with_vms.intersection(hosts):
            return
    elif kind in ("vm", "template"):
        names = use.vms if kind == "vm" else use.templates
    there = {name: inventory.named.get((kind, name), ()) for name in names}
    yield from ((name, ids, False) for name, ids in there.items())
    if kind in _ANY and (not there or not all(there.values())):
        place: On = "folder" if kind in ("vm", "template") else kind
        yield _ANY[kind], tuple(i for ids in inventory.every(place).values() for i in ids), True


def check(
    asked: t.Iterable[Question], held: t.Mapping[str, t.Collection[str]], account: str
) -> tuple[dict[str, ObjectPlan], list[dict[str, t.Any]]]:
    """One plan for each object, with a problem for each missing privilege, and the list of what is missing.

    `held` are privileges by an object's id.
    """
    missing: dict[tuple[str, str], list[Question]] = {}
    objects: dict[str, None] = {}
    for question in asked:
        objects.setdefault(question.object)
        has = [question.privilege in held.get(moid, ()) for moid in question.ids]
        if not (any(has) if question.any else all(has)):
            missing.setdefault((question.object, question.privilege), []).append(question)
    problems: dict[str, list[Problem]] = {name: [] for name in objects}
    for (name, privilege), group in missing.items():
        problems[name].append(Problem("privilege_missing", name, _text(privilege, group, account)))
    listed = [
        {
            "privilege": privilege,
            "object": name,
            "jobs": list(dict.fromkeys(question.job for question in group)),
            "modules": list(dict.fromkeys(question.module for question in group)),
        }
        for (name, privilege), group in missing.items()
    ]
    return {name: ObjectPlan(name, problems=tuple(found)) for name, found in problems.items()}, listed


def _text(privilege: str, group: t.Sequence[Question], account: str) -> str:
    jobs = list(dict.fromkeys(question.job for question in group))
    modules = ", ".join(dict.fromkeys(question.module for question in group))
    where = "on any of them" if group[0].any else "there"
    return (
        f"{account} lacks the privilege {privilege} {where}, needed for {', '.join(jobs)} ({modules}). "
        f"As an administrator, make a role that has it with `{role_command(jobs)}` and grant it to the account."
    )


def role_command(jobs: t.Collection[str]) -> str:
    """The command line that makes a role for the jobs; the role for the whole site where that has all."""
    command = "ansible-playbook playbooks/vcenter_role.yml"
    if set(needed(jobs)) <= set(needed(["site"])):
        return command
    return command + ' -e \'{"vcenter_role_jobs": [' + ", ".join(f'"{job}"' for job in jobs) + "]}'"


def uses(entries: t.Iterable[t.Mapping[str, t.Any]]) -> list[JobUse]:
    """The option `jobs` of the module."""
    return [
        JobUse(
            entry["name"],
            JOBS[entry["name"]] if entry["modules"] is None else tuple(entry["modules"]),
            None if entry["hosts"] is None else tuple(entry["hosts"]),
            tuple(entry["vms"]),
            tuple(entry["templates"]),
            None if entry["cases"] is None else frozenset(entry["cases"]),
        )
        for entry in entries
    ]
