# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Planner: which compute machines start on the GPUs that desktops lend, and where."""

from __future__ import annotations

import collections.abc
import dataclasses
import typing as t

from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.catalog import Catalog
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.facts import HostFacts, VmFacts
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.vgpu import (
    Gpu,
    Profile,
    offered,
    place,
    profiles_of,
    running,
)


@dataclasses.dataclass(frozen=True, slots=True)
class ComputePlan:
    """What starts, and what is cloned first."""

    start: tuple[str, ...] = ()
    """Machines to power on or resume, the cloned ones included."""
    clone: tuple[str, ...] = ()
    attach: tuple[str, ...] = ()
    """Those without a vGPU yet: cloned ones, and those of which a run that died has not got further."""
    places: t.Mapping[str, str] = dataclasses.field(default_factory=dict)
    """The host of each of `start`."""


def plan_compute(
    names: t.Sequence[str],
    vms: t.Mapping[str, VmFacts],
    after: collections.abc.Collection[VmFacts],
    hosts: t.Mapping[str, HostFacts],
    lending: collections.abc.Collection[str],
    profile: Profile,
    *,
    clone: bool,
    catalog: Catalog | None = None,
) -> ComputePlan:
    """Fill the room on the hosts `lending` with the machines `names`, in their order, as far as there is any.

    `after` are all machines as they are once this run's desktops have been suspended and resumed. A machine starts
    where it is if it can, else it moves within its cluster; names that the vCenter does not know are cloned with
    `clone`.
    """
    catalog = catalog or Catalog()
    gpus = {
        name: running(hosts[name], after, catalog)
        for name in sorted(lending)
        if name in hosts and hosts[name].answers and not hosts[name].in_maintenance
    }
    idle = [vms[name] for name in names if name in vms and vms[name].power != "poweredOn" and not vms[name].template]
    places: dict[str, str] = {}
    for vm in idle:
        if vm.intent is None and vm.host in gpus and _put(gpus, hosts, str(vm.host), profiles_of(vm) or (profile,)):
            places[vm.name] = str(vm.host)
    for vm in idle:
        home = hosts.get(vm.host or "")
        if vm.intent is None and vm.name not in places and home is not None and home.answers:
            near = [name for name in gpus if hosts[name].cluster == home.cluster]
            _first(places, gpus, hosts, near, vm.name, profiles_of(vm) or (profile,))
    new = [name for name in names if name not in vms] if clone else []
    for name in new:
        _first(places, gpus, hosts, list(gpus), name, (profile,))
    start = tuple(name for name in names if name in places)
    return ComputePlan(
        start,
        tuple(name for name in start if name not in vms),
        tuple(name for name in start if name not in vms or not vms[name].gpus),
        places,
    )


def _first(
    places: dict[str, str],
    gpus: dict[str, dict[str, Gpu]],
    hosts: t.Mapping[str, HostFacts],
    candidates: t.Sequence[str],
    name: str,
    profiles: t.Sequence[Profile],
) -> None:
    for host in candidates:
        if _put(gpus, hosts, host, profiles):
            places[name] = host
            return


def _put(
    gpus: dict[str, dict[str, Gpu]], hosts: t.Mapping[str, HostFacts], host: str, profiles: t.Sequence[Profile]
) -> bool:
    """Take room on a host, if there is enough."""
    left = dict(gpus[host])
    for profile in profiles:
        found = (
            place(left, profile, hosts[host].assignment_policy)
            if offered(profile.name, hosts[host]) is not None
            else None
        )
        if found is None:
            return False
        left[found[0]] = left[found[0]].with_vgpu(profile, found[1])
    gpus[host] = left
    return True
