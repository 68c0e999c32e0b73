# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Sharing out the GPUs of one host among the virtual machines on it."""

from __future__ import annotations

import collections
import collections.abc
import dataclasses
import typing as t

from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.assign import Assignment, Demand, assign
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.facts import VmFacts
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.host_gpus import (
    HostGpus,
    assigned_addresses,
    fixed_addresses,
    holders,
    listed,
    state_of,
)
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.plan import Problem
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.wants import GpuWant

Wants = t.Mapping[str, collections.abc.Sequence[GpuWant]]


@dataclasses.dataclass(frozen=True, slots=True)
class Share:
    """What one virtual machine gets."""

    fixed: tuple[str, ...]
    """Addresses of its fixed GPUs."""
    counts: tuple[int, ...]
    """How many devices each of its wants is, `all` counted out."""
    problems: tuple[Problem, ...]
    after: frozenset[str]
    """Virtual machines of the call that give up one of `fixed`."""


def share_out(
    host: HostGpus,
    wants: Wants,
    vms: collections.abc.Collection[VmFacts],
    stay: collections.abc.Collection[str] | None = None,
) -> dict[str, Share]:
    """Share out the GPUs of one host.

    `wants` are those of the virtual machines of the call, `vms` all that are on the host. Virtual machines
    outside the call keep what they have, and so do those of `stay` (default: all that are not powered off).
    Fixed GPUs by id go first to those that have them, then from the lowest free address.
    """
    if stay is None:
        stay = {vm.name for vm in vms if vm.power != "poweredOff"}
    return _Sharing(host, wants, vms, stay).shares()


class _Sharing:
    """One sharing out; the steps in order of `shares`."""

    def __init__(
        self,
        host: HostGpus,
        wants: Wants,
        vms: collections.abc.Collection[VmFacts],
        stay: collections.abc.Collection[str],
    ) -> None:
        self.host = host
        self.stay = stay
        self.wants = wants
        self.vms = {vm.name: vm for vm in vms}
        self.users = holders(host, vms)
        self.taken = holders(host, [vm for vm in vms if vm.name not in wants])
        self.held = {name: set(fixed_addresses(host, self.vms[name])) for name in wants}
        self.problems: dict[str, list[Problem]] = {name: [] for name in wants}
        self.counts: dict[str, list[int]] = {name: [] for name in wants}
        self.demand_wants: dict[Demand, GpuWant] = {}
        self.given: dict[Demand, str] = {}
        self.claimed: set[Demand] = set()
        """Demands for dynamic GPUs that the virtual machine has in its configuration already."""
        self.locked: set[str] = set()
        """GPUs that virtual machines of the call cannot give up: those of `stay`."""

    def shares(self) -> dict[str, Share]:
        demands = self._demands()
        self._pin_running(demands)
        result = assign([demand for demand in demands if demand not in self.given], self._phases())
        self.given.update(result.given)
        self._explain_conflicts()
        self._explain_missing(result)
        self._explain_inactive()
        return {name: self._share(name) for name in self.wants}

    def _demands(self) -> list[Demand]:
        """One demand for each device wanted.

        In the order they are served: by address, dynamic ones that the virtual machine has already, fixed
        ones, other dynamic ones.
        """
        ranks: dict[Demand, int] = {}
        for name, wants in self.wants.items():
            has = list(self.vms[name].gpus)
            index = 0
            for want in wants:
                if not want.passthrough:
                    self.counts[name].append(want.count or 0)
                    continue
                matching = self.host.matching(want)
                count = want.count if want.count is not None else len(matching)
                self.counts[name].append(count)
                if not matching:
                    self.problems[name].append(self._not_found(name, want))
                    continue
                held = self.held[name] if want.mode == "fixed" else set()
                free = [address for address in matching if address not in self.taken]
                candidates = tuple(sorted(free, key=lambda address: (address not in held, address)))
                for _number in range(count):
                    demand = Demand(name, index, candidates)
                    index += 1
                    self.demand_wants[demand] = want
                    ranks[demand] = 0 if want.address else 2
                    if want.mode == "dynamic":
                        there = next(filter(want.met_by, has), None)
                        ranks[demand] = 3 if there is None else 1
                        if there is not None:
                            has.remove(there)
                            self.claimed.add(demand)
        return sorted(ranks, key=lambda demand: ranks[demand])

    def _pin_running(self, demands: list[Demand]) -> None:
        """Leave virtual machines that are not powered off what they have, and take it out of all others' choice."""
        for name in self.wants:
            vm = self.vms[name]
            if name not in self.stay:
                continue
            mine = [demand for demand in demands if demand.vm == name]
            narrowed = [dataclasses.replace(demand, candidates=self._has(vm, demand)) for demand in mine]
            kept = assign(narrowed, [lambda _demand, _address: True]).given
            for demand, narrow in zip(mine, narrowed, strict=True):
                if narrow in kept:
                    self.given[demand] = kept[narrow]
            self.locked |= {gpu.address for gpu in vm.gpus if gpu.address and gpu.address in self.host.devices}

    def _has(self, vm: VmFacts, demand: Demand) -> tuple[str, ...]:
        """What a virtual machine has that would do for the demand."""
        want = self.demand_wants[demand]
        has = self.held[vm.name] if want.mode == "fixed" else assigned_addresses(self.host, vm, want)
        return tuple(address for address in self.host.matching(want) if address in has)

    def _phases(self) -> list[t.Callable[[Demand, str], bool]]:
        active = self.host.active

        def held(demand: Demand, address: str) -> bool:
            return self.demand_wants[demand].mode == "fixed" and address in self.held[demand.vm]

        def available(address: str) -> bool:
            return address not in self.locked

        return [
            lambda demand, address: available(address) and held(demand, address) and active(address),
            lambda _demand, address: available(address) and active(address),
            lambda demand, address: available(address) and (held(demand, address) or active(address)),
            lambda _demand, address: available(address),
        ]

    def _not_found(self, name: str, want: GpuWant) -> Problem:
        host = self.host
        option = "address" if want.address else "id" if want.id else "label" if want.label else "gpus"
        function = host.functions.get(want.address or "")
        if function is not None:
            msg = f"asks for {want.address} on {host.name}, which is no GPU but {function.name or function.id}."
        else:
            what = want.address or " ".join(
                filter(None, ["GPU", want.id, f"with the hardware label {want.label}" if want.label else None])
            )
            msg = f"asks for {what}, which {host.name} does not have."
        hint = f" Its GPUs: {host.summary()}."
        labels = sorted({device.hardware_label for device in host.devices.values() if device.hardware_label})
        if want.label:
            hint += f" Their labels: {', '.join(labels) or 'none; esxi_passthrough sets them (hardware_label)'}."
        elif want.address and function is None and host.devices:
            hint += f" Their addresses: {listed(list(host.devices))}."
        return Problem("device_not_found", name, msg + hint, option)

    def _explain_conflicts(self) -> None:
        """Devices asked for by address that another virtual machine asks for too, or has."""
        asking: dict[str, list[str]] = collections.defaultdict(list)
        for name, wants in self.wants.items():
            for address in dict.fromkeys(want.address for want in wants if want.address):
                asking[address].append(name)
        for address, names in asking.items():
            if address not in self.host.devices:
                continue
            for name in names:
                others = [other for other in names if other != name]
                if others:
                    text = f"wants {address} on {self.host.name}, and so does {', '.join(others)}."
                elif address in self.taken:
                    text = f"wants {address} on {self.host.name}, which {', '.join(self.taken[address])} has."
                else:
                    continue
                self._conflict(name, text)

    def _conflict(self, name: str, text: str) -> None:
        advice = f" Give one of them another GPU. {self.host.name} has {self.host.summary()}."
        self.problems[name].append(Problem("gpu_conflict", name, text + advice, "address"))

    def _explain_missing(self, result: Assignment) -> None:
        told: set[Demand] = set()
        for demand in result.missing:
            want = self.demand_wants[demand]
            group = self._group(demand, result)
            if want.address:
                if not any(p.code == "gpu_conflict" for p in self.problems[demand.vm]):
                    keepers = ", ".join(self.users.get(want.address, ())) or "another virtual machine"
                    text = f"wants {want.address} on {self.host.name}, which {keepers} has and keeps."
                    self._conflict(demand.vm, text)
            elif demand not in told:
                told |= set(group)
                self._shortage(demand, group)

    def _group(self, demand: Demand, result: Assignment) -> list[Demand]:
        """All demands, served or not, that compete for the same devices."""
        group = dict.fromkeys([demand, *result.contenders(demand)])
        addresses = {address for other in group for address in other.candidates}
        wanted = {self.demand_wants[other] for other in group}
        for other in result.missing:
            if addresses & set(other.candidates) or self.demand_wants[other] in wanted:
                group[other] = None
        return list(group)

    def _shortage(self, demand: Demand, group: list[Demand]) -> None:
        host = self.host
        # Those pinned to what they have ask as well.
        matching = sorted({a for other in group for a in self.host.matching(self.demand_wants[other])})
        pinned = [d for d, address in self.given.items() if address in matching and d not in group]
        asked = collections.Counter(other.vm for other in [*pinned, *group])
        by_vm = ", ".join(f"{name} {asked[name]}" for name in self.wants if asked[name])
        devices = listed([f"{address} {self._holder_text(address)}" for address in matching])
        want = self.demand_wants[demand]
        what = " ".join(filter(None, [want.id or "GPUs", f"with label {want.label}" if want.label else None]))
        text = (
            f"{sum(asked.values())} x {what} asked for on {host.name} ({by_vm}), and it has {len(matching)}: {devices}."
            " Ask for fewer, free some, or use another host."
        )
        new_claims = {other.vm for other in group if other not in self.given or not self._keeps(other)}
        for name in self.wants:
            if name in new_claims:
                self.problems[name].append(Problem("gpu_shortage", name, text, "count"))

    def _keeps(self, demand: Demand) -> bool:
        """Whether the demand is met by what the virtual machine has."""
        return demand in self.claimed or self.given[demand] in self.held[demand.vm]

    def _holder_text(self, address: str) -> str:
        names = self.users.get(address)
        return f"held by {', '.join(names)}" if names else "free"

    def _explain_inactive(self) -> None:
        inactive: dict[str, list[str]] = collections.defaultdict(list)
        for demand, address in self.given.items():
            if not self.host.active(address):
                inactive[demand.vm].append(address)
        for name, addresses in inactive.items():
            states = listed([f"{address} is {state_of(self.host.devices[address])}" for address in sorted(addresses)])
            self.problems[name].append(
                Problem(
                    "passthrough_not_active",
                    name,
                    f"on {self.host.name} {states}. Enable it with the module or role esxi_passthrough, which also says"
                    " whether the host has to be rebooted.",
                    kind="state",
                )
            )

    def _share(self, name: str) -> Share:
        fixed = sorted(
            address
            for demand, address in self.given.items()
            if demand.vm == name and self.demand_wants[demand].mode == "fixed"
        )
        new = set(fixed) - self.held[name]
        after = frozenset(other for other, held in self.held.items() if other != name and held & new)
        return Share(tuple(fixed), tuple(self.counts[name]), tuple(self.problems[name]), after)
