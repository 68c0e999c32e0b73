# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Planner: which PCI functions of which hosts are to be (or not to be) passed through."""

from __future__ import annotations

import dataclasses
import typing as t

from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.facts import HostFacts, PciFunction
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.ownership import (
    left_alone,
    maintenance_owner,
    not_connected,
    reboot_in_progress,
    standing,
    unknown_host,
)
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.plan import Change, ObjectPlan, Problem
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.selection import Selector, select

_DISPLAY_CLASS = 0x03

Missing = t.Literal["fail", "skip"]


@dataclasses.dataclass(frozen=True, slots=True)
class HostWish:
    """What is wanted of one host."""

    name: str
    selectors: tuple[Selector, ...]
    hardware_label: str | None = None
    """Label of the chosen functions; None leaves labels as they are, empty removes them."""
    enabled: bool = True
    """Whether the chosen functions are to be passed through."""
    missing: Missing = "fail"
    """What a selector that matches nothing means."""


@dataclasses.dataclass(frozen=True, slots=True)
class DeviceUpdate:
    """One entry of `UpdatePassthruConfig`."""

    address: str
    enabled: bool
    apply_now: bool
    """Take effect without a reboot."""
    hardware_label: str | None
    """None leaves the label as it is, empty removes it."""


@dataclasses.dataclass(frozen=True, slots=True)
class HostPlan:
    """The plan of one host, the call that carries it out, and the host as it is then."""

    plan: ObjectPlan
    updates: tuple[DeviceUpdate, ...] = ()
    after: HostFacts | None = None


Users = t.Mapping[str, t.Collection[str]]
"""PCI address -> names of the powered-on virtual machines that use the function."""


def plan_passthrough(
    hosts: t.Mapping[str, HostFacts],
    wishes: t.Sequence[HostWish],
    *,
    known: t.Collection[str] = (),
    users: t.Mapping[str, Users] | None = None,
) -> dict[str, HostPlan]:
    """One plan for each wish.

    `known` are the names to suggest for one that is not in `hosts`; `users` by host name is looked at
    when passthrough is taken away.
    """
    plans: dict[str, HostPlan] = {}
    for wish in wishes:
        host = hosts.get(wish.name)
        if host is None:
            plans[wish.name] = HostPlan(unknown_host(wish.name, known))
        elif reboot_in_progress(host):
            plans[wish.name] = HostPlan(ObjectPlan(host.name, notes={**standing(host), "devices": []}))
        elif not host.answers:
            plans[wish.name] = HostPlan(not_connected(host))
        elif maintenance_owner(host) == "other":
            plans[wish.name] = HostPlan(left_alone(host))
        else:
            plans[wish.name] = _plan_host(host, wish, (users or {}).get(host.name, {}))
    return plans


def _plan_host(host: HostFacts, wish: HostWish, users: Users) -> HostPlan:
    enabled = wish.enabled
    chosen: dict[str, str] = {}
    problems: list[Problem] = []
    warnings: list[str] = []
    for selector in wish.selectors:
        found = select(host.devices, selector)
        chosen.update((function.address, "") for function in found)
        if not found and wish.missing == "fail":
            problems.append(_not_found(host, selector))
        elif not found:
            warnings.append(f"{host.name} has no PCI device with {selector}; skipped.")
    problems += [
        _not_capable(host, function)
        for function in host.devices
        if enabled and function.address in chosen and not function.passthrough_capable
    ]
    chosen.update(_along(host, chosen))
    functions = [function for function in host.devices if function.address in chosen]
    if not enabled:
        problems += [
            _in_use(host, f, users[f.address]) for f in functions if f.passthrough_enabled and f.address in users
        ]
    changes: list[Change] = []
    updates: list[DeviceUpdate] = []
    for function in functions:
        label = wish.hardware_label if enabled else None
        found_changes = _changes(host, function, enabled, label, reason=chosen[function.address])
        if found_changes:
            changes += found_changes
            updates.append(DeviceUpdate(function.address, enabled, host.rebind_without_reboot, label))
    after = _after(host, updates)
    plan = ObjectPlan(
        host.name,
        changes=tuple(changes),
        problems=tuple(problems),
        warnings=tuple(warnings),
        notes={**standing(host if problems else after, chosen), "devices": sorted(chosen)},
    )
    return HostPlan(plan, tuple(updates), after)


def _along(host: HostFacts, chosen: t.Collection[str]) -> dict[str, str]:
    """Functions that go along with those chosen, with the reason.

    Functions that depend on the same one (vSphere's `dependentDevice`, by default the function itself) can
    only be passed through, or given back, together.
    """
    roots = {
        function.dependent_device or function.address: function.address
        for function in host.devices
        if function.address in chosen
    }
    return {
        function.address: f"goes along with {roots[function.dependent_device or function.address]}"
        for function in host.devices
        if function.address not in chosen
        and function.passthrough_capable
        and (function.dependent_device or function.address) in roots
    }


def _changes(host: HostFacts, function: PciFunction, enabled: bool, label: str | None, *, reason: str) -> list[Change]:
    changes: list[Change] = []
    path = f"{function.address} passthrough"
    if function.passthrough_enabled != enabled:
        action = "enable" if enabled else "disable"
        changes.append(Change(action, path, function.passthrough_enabled, enabled, reason or function.name))
    elif function.passthrough_active != enabled and host.rebind_without_reboot:
        changes.append(Change("activate" if enabled else "release", path, "pending", enabled, "no reboot needed"))
    if label is not None and (function.hardware_label or "") != label:
        changes.append(Change("label", f"{function.address} hardware_label", function.hardware_label, label or None))
    return changes


def _after(host: HostFacts, updates: t.Sequence[DeviceUpdate]) -> HostFacts:
    by_address = {update.address: update for update in updates}
    devices = []
    for function in host.devices:
        update = by_address.get(function.address)
        if update is not None:
            function = dataclasses.replace(
                function,
                passthrough_enabled=update.enabled,
                passthrough_active=update.enabled if update.apply_now else function.passthrough_active,
                hardware_label=function.hardware_label
                if update.hardware_label is None
                else update.hardware_label or None,
            )
        devices.append(function)
    return dataclasses.replace(host, devices=tuple(devices))


def _not_found(host: HostFacts, selector: Selector) -> Problem:
    gpus = [f"{f.id} ({f.name}, {f.address})" for f in host.devices if f.class_id >> 8 == _DISPLAY_CLASS]
    there = f"Its display devices are {', '.join(gpus)}." if gpus else "It has no display devices at all."
    return Problem(
        code="device_not_found",
        object=host.name,
        msg=f"The host has no PCI device with {selector}. {there} Correct the device, or set missing to skip.",
        option="devices",
    )


def _not_capable(host: HostFacts, function: PciFunction) -> Problem:
    return Problem(
        code="device_not_capable",
        object=host.name,
        msg=f"{function.name} at {function.address} is not capable of passthrough. Switch on the IOMMU (VT-d, AMD-Vi) "
        "and, for a GPU, memory mapped I/O above 4 GB in the host's firmware, or choose another device.",
        option="devices",
    )


def _in_use(host: HostFacts, function: PciFunction, vms: t.Collection[str]) -> Problem:
    return Problem(
        code="device_in_use",
        object=host.name,
        msg=f"{function.name} at {function.address} is in use by {', '.join(sorted(vms))}. Power it off first.",
        option="devices",
        kind="state",
    )
