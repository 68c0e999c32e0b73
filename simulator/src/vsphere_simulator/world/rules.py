"""Rules, groups and per-machine overrides of a cluster."""

from __future__ import annotations

import typing as t

from vsphere_simulator.vmomi import Reference, vim
from vsphere_simulator.world import codec
from vsphere_simulator.world.devices import copy_of
from vsphere_simulator.world.entity import invalid_argument

if t.TYPE_CHECKING:
    from collections.abc import Iterable

    from vsphere_simulator.world.compute import Compute
    from vsphere_simulator.world.host import HostSystem
    from vsphere_simulator.world.virtual_machine import VirtualMachine

_rule: t.Any = vim.cluster
LISTS: t.Final = ("rulesSpec", "groupSpec", "drsVmConfigSpec", "dasVmConfigSpec")
"""Fields of a cluster's configuration specification that end up here."""


def _moids(references: Iterable[t.Any]) -> set[str]:
    return {str(reference._GetMoId()) for reference in references}


class Rules:
    """What a cluster's operators ask of DRS and HA for certain machines. A change makes a new one: see `changed`."""

    def __init__(self, cluster: Compute) -> None:
        self.cluster = cluster
        self.rules: dict[int, t.Any] = {}
        self.groups: dict[str, t.Any] = {}
        self.drs: dict[str, t.Any] = {}
        """ClusterDrsVmConfigInfo by the machine's id."""
        self.das: dict[str, t.Any] = {}
        """ClusterDasVmConfigInfo by the machine's id."""
        self.last_key = 0

    def changed(self, spec: t.Any) -> Rules:
        """The rules after the changes that a cluster's specification lists. Raises the fault of the first wrong one."""
        fresh = Rules(self.cluster)
        fresh.rules, fresh.groups = dict(self.rules), dict(self.groups)
        fresh.drs, fresh.das, fresh.last_key = dict(self.drs), dict(self.das), self.last_key
        for one in getattr(spec, "groupSpec", None) or ():
            fresh._change_group(one)
        for one in spec.rulesSpec or ():
            fresh._change_rule(one)
        for field, known in (("drsVmConfigSpec", fresh.drs), ("dasVmConfigSpec", fresh.das)):
            for one in getattr(spec, field) or ():
                fresh._change_override(field, known, one)
        return fresh

    # --- what it is made of ---

    def _change_group(self, spec: t.Any) -> None:
        operation, info = str(spec.operation), spec.info
        name = str(spec.removeKey) if operation == "remove" and spec.removeKey is not None else info and info.name
        if not name:
            raise invalid_argument("groupSpec.info.name")
        if operation == "add" and name in self.groups:
            raise vim.fault.DuplicateName(name=name, object=self.cluster.ref, msg=f"The name '{name}' already exists.")
        if operation != "add" and name not in self.groups:
            raise invalid_argument("groupSpec.info.name", f"The cluster has no group {name}.")
        if operation == "remove":
            del self.groups[name]
            self.rules = {key: rule for key, rule in self.rules.items() if name not in _group_names(rule)}
            return
        if operation == "edit" and type(info) is not type(self.groups[name]):
            raise invalid_argument("groupSpec.info")
        if isinstance(info, _rule.HostGroup):
            if not _moids(info.host) <= self.cluster.hosts.keys():
                raise invalid_argument("groupSpec.info.host", "A host of the group is not in the cluster.")
        elif isinstance(info, _rule.VmGroup):
            self._require_members(info.vm, "groupSpec.info.vm")
        else:
            raise invalid_argument("groupSpec.info")
        self.groups[name] = info

    def _require_members(self, references: Iterable[t.Any], field: str) -> None:
        for reference in references:
            vm = self.cluster.world.get(reference)
            if vm.host.cluster is not self.cluster:
                raise invalid_argument(field, f"Virtual machine {vm.name} is not in the cluster.")

    def _change_rule(self, spec: t.Any) -> None:
        operation, info = str(spec.operation), spec.info
        if operation == "remove":
            key = spec.removeKey if spec.removeKey is not None else info and info.key
            if self.rules.pop(key, None) is None:
                raise invalid_argument("rulesSpec.removeKey")
            return
        if operation == "edit" and info.key not in self.rules:
            raise invalid_argument("rulesSpec.info.key")
        old = self.rules[info.key] if operation == "edit" else None
        if old is not None and type(info) is not type(old):
            raise invalid_argument("rulesSpec.info")
        key = info.key if old is not None else self.last_key + 1
        name = info.name or (old.name if old is not None else "")
        if not name:
            raise invalid_argument("rulesSpec.info.name")
        if any(rule.name == name and other != key for other, rule in self.rules.items()):
            raise vim.fault.DuplicateName(name=name, object=self.cluster.ref, msg=f"The name '{name}' already exists.")
        self._check_rule(info)
        self.last_key = max(self.last_key, key)
        enabled = info.enabled if info.enabled is not None else old is not None and old.enabled
        self.rules[key] = copy_of(
            info,
            key=key,
            name=name,
            enabled=enabled,
            mandatory=bool(info.mandatory),
            userCreated=True,
            ruleUuid=self.cluster.site.uuid_of(f"rule/{self.cluster.moid}/{key}"),
        )

    def _check_rule(self, info: t.Any) -> None:
        if isinstance(info, _rule.AffinityRuleSpec | _rule.AntiAffinityRuleSpec):
            if len(_moids(info.vm)) < 2:
                raise invalid_argument("rulesSpec.info.vm", "The rule needs two machines or more.")
            self._require_members(info.vm, "rulesSpec.info.vm")
            return
        if isinstance(info, _rule.VmHostRuleInfo):
            if not info.vmGroupName or bool(info.affineHostGroupName) == bool(info.antiAffineHostGroupName):
                raise invalid_argument("rulesSpec.info.vmGroupName")
        elif not isinstance(info, _rule.DependencyRuleInfo):
            raise invalid_argument("rulesSpec.info")
        for name in _group_names(info):
            if name not in self.groups:
                raise invalid_argument("rulesSpec.info", f"The cluster has no group {name}.")

    def _change_override(self, field: str, known: dict[str, t.Any], spec: t.Any) -> None:
        operation, info = str(spec.operation), spec.info
        key = spec.removeKey if operation == "remove" and isinstance(spec.removeKey, Reference) else info and info.key
        if key is None:
            raise invalid_argument(f"{field}.info.key")
        if operation == "remove":
            if known.pop(key._GetMoId(), None) is None:
                raise invalid_argument(f"{field}.removeKey")
            return
        self._require_members([key], f"{field}.info.key")
        moid = key._GetMoId()
        if (operation == "add") == (moid in known):
            raise invalid_argument(f"{field}.operation")
        if isinstance(info, vim.cluster.DrsVmConfigInfo) and info.enabled is None:
            info = copy_of(info, enabled=True)
        known[moid] = info

    # --- what it shows ---

    def _living(self, references: Iterable[t.Any]) -> list[t.Any]:
        return [one for one in references if self._is_member(one._GetMoId())]

    def _is_member(self, moid: str) -> bool:
        """Whether a machine or host still exists and is in this cluster."""
        entity: t.Any = self.cluster.world.objects.get(moid)
        return entity is not None and getattr(entity, "host", entity).parent is self.cluster

    def shown(self) -> dict[str, t.Any]:
        """Overrides of machines that still exist, as fields of the cluster's configuration."""
        return {
            "drsVmConfig": [info for moid, info in self.drs.items() if self._is_member(moid)],
            "dasVmConfig": [info for moid, info in self.das.items() if self._is_member(moid)],
        }

    def group_list(self) -> list[t.Any]:
        """The groups, with those of their members that still exist."""
        found = []
        for group in self.groups.values():
            field = "host" if isinstance(group, _rule.HostGroup) else "vm"
            members = getattr(group, field)
            found.append(copy_of(group, **{field: type(members)(self._living(members))}))
        return found

    def rule_list(self) -> list[t.Any]:
        """The rules, with whether they hold now."""
        found = []
        for rule in self.rules.values():
            shown = rule
            if isinstance(rule, _rule.AffinityRuleSpec | _rule.AntiAffinityRuleSpec):
                shown = copy_of(rule, vm=type(rule.vm)(self._living(rule.vm)))
            holds = all(self._holds(rule, vm, vm.host) for vm in self._named(rule) if vm.is_on)
            found.append(copy_of(shown, inCompliance=holds, status="green" if holds or not rule.enabled else "red"))
        return found

    def rules_of(self, vm: VirtualMachine) -> list[t.Any]:
        """The rules that name a machine or a group it is in."""
        return [rule for rule in self.rule_list() if vm in self._named(rule)]

    def _named(self, rule: t.Any) -> list[VirtualMachine]:
        if isinstance(rule, _rule.AffinityRuleSpec | _rule.AntiAffinityRuleSpec):
            members = rule.vm
        else:
            members = [
                one
                for name in _group_names(rule)
                if isinstance(self.groups.get(name), _rule.VmGroup)
                for one in self.groups[name].vm
            ]
        return [self.cluster.world.get(one) for one in self._living(members)]

    # --- what it means ---

    def _holds(self, rule: t.Any, vm: VirtualMachine, host: HostSystem) -> bool:
        """Whether a rule would hold for a machine on a host."""
        if isinstance(rule, _rule.VmHostRuleInfo):
            inside = self.groups.get(rule.affineHostGroupName or rule.antiAffineHostGroupName)
            return inside is None or (host.moid in _moids(inside.host)) == bool(rule.affineHostGroupName)
        if isinstance(rule, _rule.AffinityRuleSpec | _rule.AntiAffinityRuleSpec):
            together = isinstance(rule, _rule.AffinityRuleSpec)
            others = [one for one in self._named(rule) if one is not vm and one.is_on]
            return all((one.host is host) == together for one in others)
        return True

    def allows(self, vm: VirtualMachine, host: HostSystem) -> bool:
        """Whether DRS may put a machine on a host: no rule that is enabled would be broken."""
        return all(
            self._holds(rule, vm, host) for rule in self.rules.values() if rule.enabled and vm in self._named(rule)
        )

    def check(self, vm: VirtualMachine, host: HostSystem) -> None:
        """Raise VmHostAffinityRuleViolation when a host rule that must hold keeps a machine off a host."""
        if not self.cluster.drs.enabled:
            return
        for rule in self.rules.values():
            binding = rule.enabled and rule.mandatory and isinstance(rule, _rule.VmHostRuleInfo)
            if binding and vm in self._named(rule) and not self._holds(rule, vm, host):
                raise vim.fault.VmHostAffinityRuleViolation(
                    vmName=vm.name,
                    hostName=host.name,
                    msg=f"Virtual machine '{vm.name}' on host '{host.name}' would violate a virtual machine - host "
                    f"affinity rule ({rule.name}).",
                )

    def drs_behaviour(self, vm: VirtualMachine) -> str:
        """What DRS does with a machine: manual, partiallyAutomated or fullyAutomated; empty for nothing."""
        settings = self.cluster.drs
        own = self.drs.get(vm.moid) if settings.overrides else None
        if not settings.enabled or (own is not None and own.enabled is False):
            return ""
        return settings.automation if own is None or own.behavior is None else str(own.behavior)

    # --- as JSON ---

    def dump(self) -> dict[str, t.Any]:
        """As plain JSON types; empty when there is nothing."""
        data = {
            "groups": [codec.encode(group) for group in self.groups.values()],
            "rules": [codec.encode(rule) for rule in self.rules.values()],
            "drs": [codec.encode(info) for moid, info in self.drs.items() if self._is_member(moid)],
            "das": [codec.encode(info) for moid, info in self.das.items() if self._is_member(moid)],
        }
        found: dict[str, t.Any] = {key: value for key, value in data.items() if value}
        return found | {"last_key": self.last_key} if self.last_key else found

    def load(self, data: dict[str, t.Any]) -> None:
        """The reverse of `dump`."""
        self.groups = {group.name: group for group in map(codec.decode, data.get("groups", ()))}
        self.rules = {rule.key: rule for rule in map(codec.decode, data.get("rules", ()))}
        self.drs = {info.key._GetMoId(): info for info in map(codec.decode, data.get("drs", ()))}
        self.das = {info.key._GetMoId(): info for info in map(codec.decode, data.get("das", ()))}
        self.last_key = data.get("last_key", 0)


def _group_names(rule: t.Any) -> list[str]:
    fields = ("vmGroupName", "affineHostGroupName", "antiAffineHostGroupName", "vmGroup", "dependsOnVmGroup")
    return [str(name) for name in (getattr(rule, field, None) for field in fields) if name]
