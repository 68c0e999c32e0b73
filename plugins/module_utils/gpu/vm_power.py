# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Planner: virtual machines on or off."""

from __future__ import annotations

import collections.abc
import dataclasses
import typing as t

from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu import vm_problems
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.facts import HostFacts, VmFacts
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.plan import Change, ObjectPlan, Problem

State = t.Literal["on", "off"]


@dataclasses.dataclass(frozen=True, slots=True)
class PowerPlan:
    """The plan of one virtual machine, and the virtual machine as it is then."""

    plan: ObjectPlan
    predicted: VmFacts | None = None


def plan_power(
    names: collections.abc.Sequence[str],
    state: State,
    vms: t.Mapping[str, VmFacts],
    hosts: t.Mapping[str, HostFacts],
    *,
    force: bool = False,
    known: collections.abc.Collection[str] = (),
    ambiguous: collections.abc.Collection[str] = (),
) -> dict[str, PowerPlan]:
    """Plan each virtual machine. `force` allows what loses data: discarding a suspended machine's memory."""
    return {name: _plan(name, state, vms.get(name), hosts, force, known, ambiguous) for name in dict.fromkeys(names)}


def _plan(
    name: str,
    state: State,
    vm: VmFacts | None,
    hosts: t.Mapping[str, HostFacts],
    force: bool,
    known: collections.abc.Collection[str],
    ambiguous: collections.abc.Collection[str],
) -> PowerPlan:
    if vm is None:
        return _refused(name, vm_problems.not_found(name, known))
    if name in ambiguous:
        return _refused(name, vm_problems.ambiguous(name))
    if vm.template:
        return _refused(name, Problem("is_template", name, "This is a template; only its clones have power.", "vms"))
    wanted: t.Literal["poweredOn", "poweredOff"] = "poweredOn" if state == "on" else "poweredOff"
    notes = {"host": vm.host, "power": wanted}
    if vm.power == wanted:
        return PowerPlan(ObjectPlan(name, notes=notes), vm)
    problems = _in_the_way(vm, state, hosts, force)
    reason = "resume it" if state == "on" and vm.power == "suspended" else ""
    change = Change(f"power {state}", "power", vm.power, wanted, reason, disruptive=state == "off")
    if problems:
        return PowerPlan(ObjectPlan(name, (change,), tuple(problems), notes={**notes, "power": vm.power}), vm)
    return PowerPlan(ObjectPlan(name, (change,), notes=notes), dataclasses.replace(vm, power=wanted))


def _in_the_way(vm: VmFacts, state: State, hosts: t.Mapping[str, HostFacts], force: bool) -> list[Problem]:
    host = hosts.get(vm.host or "")
    if host is None:
        return [vm_problems.no_host(vm.name)]
    if not host.answers:
        return [vm_problems.not_connected(vm.name, host)]
    if state == "on" and host.in_maintenance:
        return [vm_problems.in_maintenance(vm.name, host)]
    if state == "off" and vm.power == "suspended" and not force:
        return [
            Problem(
                "vm_suspended",
                vm.name,
                "is suspended; powering it off would lose what its guest was doing. Resume it first (state: on), or"
                " allow the loss with force: true.",
                "force",
                kind="state",
            )
        ]
    return []


def _refused(name: str, problem: Problem) -> PowerPlan:
    return PowerPlan(ObjectPlan(name, problems=(problem,)))
