# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Which hosts and machines an expansion or a contraction is about; all others of the vCenter are not its business."""

from __future__ import annotations

import collections.abc
import dataclasses
import re
import typing as t

from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.catalog import Catalog
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.facts import HostFacts, VmFacts
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.placement.fleet import FleetPlaces, place_fleet
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.placement.site import SiteFacts
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.plan import Problem
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.suggest import some_of

Params = t.Mapping[str, t.Any]

OUTSIDE = "not in the inventory, or outside --limit"
WIDEN = "Add it to the group esxi_gpu, or widen --limit."


def of_pool(name: str, prefix: str) -> bool:
    """Whether the pool gives its machines such names: the prefix, and a number as the filter numbered writes it."""
    number = name.removeprefix(prefix)
    return bool(prefix) and number != name and re.fullmatch("0[1-9]|[1-9][0-9]+", number) is not None


@dataclasses.dataclass(frozen=True, slots=True)
class Scope:
    """The hosts that a run works on. Nothing is made, changed or deleted on any other."""

    facts: SiteFacts
    hosts: frozenset[str]
    retiring: frozenset[str]
    params: Params

    def has(self, host: str | None) -> bool:
        """Whether the run works on a host."""
        return host in self.hosts or host in self.retiring

    def outside(self, item: t.Mapping[str, t.Any]) -> list[str]:
        """Other hosts that could be thought of for a machine that finds no place."""
        catalog = Catalog()
        return sorted(
            name
            for name, host in self.facts.hosts.items()
            if not self.has(name)
            and item.get("cluster") in (None, "", host.cluster)
            and (not item.get("gpus") or any(catalog.is_gpu(device) for device in host.devices))
        )

    def _elsewhere(self) -> list[VmFacts]:
        wanted = {item["name"] for item in self.params["vms"]}
        return [
            vm
            for name, vm in sorted(self.facts.vms.items())
            if not vm.template
            and not self.has(vm.host)
            and (name in wanted or of_pool(name, self.params["pool_prefix"]))
        ]

    def left_alone(self) -> list[str]:
        """A warning that names the machines of the pool's names that are on hosts of others."""
        names = [f"{vm.name} (on {vm.host or 'an unknown host'})" for vm in self._elsewhere()]
        return [f"{some_of(names, 10)}: left alone, as the host is {OUTSIDE}."] if names else []

    def asked(self) -> tuple[list[t.Mapping[str, t.Any]], list[Problem]]:
        """The wanted machines that may be placed, and why others may not."""
        elsewhere = {vm.name for vm in self._elsewhere()}
        within = {self.facts.hosts[name].cluster for name in self.hosts if name in self.facts.hosts}
        everywhere = {host.cluster for host in self.facts.hosts.values()}
        asked, problems = [], []
        for item in self.params["vms"]:
            name, host, cluster = item["name"], item.get("host"), item.get("cluster")
            if name in elsewhere:
                continue
            if host in self.facts.hosts and host not in self.hosts:
                text = f"it wants {host}, and {host} is {OUTSIDE}. {WIDEN}"
            elif cluster and cluster in everywhere and cluster not in within:
                text = (
                    f"no host of cluster {cluster} is in the inventory, or all are outside --limit."
                    " Add one to the group esxi_gpu, or widen --limit."
                )
            else:
                asked.append(item)
                continue
            problems.append(Problem("host_outside", name, text, "vms", kind="state"))
        return asked, problems


def places_within(
    facts: SiteFacts, params: Params, scope: Scope, asked: collections.abc.Sequence[t.Mapping[str, t.Any]]
) -> FleetPlaces:
    """Places on the run's hosts. What runs on a retiring host may go to any other host of its cluster if need be."""
    leave = [name for name in params["retiring"] if name in scope.retiring and name in facts.hosts]
    inside = {name: host for name, host in facts.hosts.items() if scope.has(name)}

    def place(hosts: t.Mapping[str, HostFacts], vms: t.Sequence[t.Mapping[str, t.Any]]) -> FleetPlaces:
        return place_fleet(dataclasses.replace(facts, hosts=hosts), {**params, "vms": vms, "leave": leave})

    places = place(inside, asked)
    names = {item["name"] for item in asked}
    clusters = {facts.hosts[name].cluster for name in leave}
    near = {
        name: host for name, host in facts.hosts.items() if name in inside or clusters & {host.cluster, None}
    }  # what is in no cluster may go anywhere
    if len(near) == len(inside) or all(refusal.vm in names for refusal in places.result.refused):
        return places
    found = {step.vm: step.host for step in places.result.placements}
    return place(near, [{**item, "host": found.get(item["name"], item.get("host"))} for item in asked])
