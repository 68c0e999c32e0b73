"""What operators have laid over the hardware, as entries of a model: see `model/policies.py`."""

from __future__ import annotations

import typing as t

from vsphere_simulator.recording.rest import RestError
from vsphere_simulator.vmomi import vim

if t.TYPE_CHECKING:
    from vsphere_simulator.recording.client import Source
    from vsphere_simulator.recording.record import Notes
    from vsphere_simulator.recording.rest import Rest

Entry = dict[str, t.Any]
Names = dict[str, str]
"""Name of what has been recorded, by its id."""
_LEVELS: t.Final = ("low", "normal", "high")


def custom_values(values: Entry, fields: dict[int, str]) -> Entry:
    """`custom_values` of an object, for its entry."""
    found = {fields[one.key]: one.value for one in values.get("customValue", ()) if one.key in fields and one.value}
    return {"custom_values": found} if found else {}


# --- resource pools ---


class Pools:
    """The resource pools of a data center."""

    def __init__(self, source: Source, center: t.Any, fields: dict[int, str]) -> None:
        self._fields = fields
        paths = ["name", "parent", "owner", "config", "customValue"]
        self._pools = {moid: values for moid, (_, values) in source.read(vim.ResourcePool, paths, center).items()}
        self.entries: dict[str, Entry] = {}
        """By id."""

    def below(self, above: str) -> list[Entry]:
        """The pools directly below one, with those below them."""
        found = []
        for moid, values in self._pools.items():
            if values["parent"]._GetMoId() != above:
                continue
            config = values["config"]
            entry: Entry = {"name": values["name"]} | custom_values(values, self._fields)
            for key, allocation in (("cpu", config.cpuAllocation), ("memory", config.memoryAllocation)):
                if settings := _allocation(allocation):
                    entry[key] = settings
            self.entries[moid] = entry
            if pools := self.below(moid):
                entry["pools"] = pools
            found.append(entry)
        return found

    def path(self, pool: t.Any) -> str:
        """Where a pool is below the cluster's own; empty for that one."""
        names: list[str] = []
        moid = pool._GetMoId() if pool is not None else ""
        while moid in self._pools and isinstance(self._pools[moid]["parent"], vim.ResourcePool):
            names.insert(0, self._pools[moid]["name"])
            moid = self._pools[moid]["parent"]._GetMoId()
        return "/".join(names)


def _allocation(one: t.Any) -> Entry:
    level = str(one.shares.level)
    found = {
        "reservation": (one.reservation or 0, 0),
        "expandable": (bool(one.expandableReservation), True),
        "limit": (one.limit if one.limit is not None else -1, -1),
        "shares": (level if level in _LEVELS else one.shares.shares, "normal"),
    }
    return {key: value for key, (value, default) in found.items() if value != default}


# --- groups, rules, overrides ---


def rules(configuration: t.Any, names: Names, notes: Notes) -> Entry:
    """`groups`, `rules` and `overrides` of a cluster; members that are not recorded are left out."""
    groups: list[Entry] = []
    for group in configuration.group:
        kind, members = ("hosts", group.host) if isinstance(group, vim.cluster.HostGroup) else ("vms", group.vm)
        groups.append({"name": group.name, kind: _named(members, names)})
    found: list[Entry] = []
    for rule in configuration.rule:
        entry = _rule(rule, names)
        if entry is None:
            notes.add("rules of clusters that are neither among machines nor between machines and hosts")
        else:
            found.append(entry)
    overrides = _overrides(configuration, names)
    everything: Entry = {"groups": groups, "rules": found, "overrides": overrides}
    return {key: value for key, value in everything.items() if value}


def _named(references: t.Any, names: Names) -> list[str]:
    return [names[one._GetMoId()] for one in references if one._GetMoId() in names]


def _rule(rule: t.Any, names: Names) -> Entry | None:
    entry: Entry = {"name": rule.name}
    if isinstance(rule, vim.cluster.VmHostRuleInfo):
        on = rule.affineHostGroupName
        entry |= {"mode": "on_hosts" if on else "not_on_hosts", "vm_group": rule.vmGroupName}
        entry["host_group"] = on or rule.antiAffineHostGroupName
    elif isinstance(rule, vim.cluster.AffinityRuleSpec | vim.cluster.AntiAffinityRuleSpec):
        entry |= {"mode": "together" if isinstance(rule, vim.cluster.AffinityRuleSpec) else "apart"}
        entry["vms"] = _named(rule.vm, names)
        if len(entry["vms"]) < 2:
            return None
    else:
        return None
    if not rule.enabled:
        entry["enabled"] = False
    if rule.mandatory:
        entry["mandatory"] = True
    return entry


def _overrides(configuration: t.Any, names: Names) -> list[Entry]:
    found: dict[str, Entry] = {}
    for one in configuration.drsVmConfig:
        if one.key._GetMoId() in names:
            name = names[one.key._GetMoId()]
            behaviour = "disabled" if one.enabled is False else one.behavior and str(one.behavior)
            found.setdefault(name, {"vm": name}).update({"drs": behaviour} if behaviour else {})
    for one in configuration.dasVmConfig:
        priority = one.dasSettings.restartPriority if one.dasSettings is not None else None
        if one.key._GetMoId() in names and priority:
            name = names[one.key._GetMoId()]
            found.setdefault(name, {"vm": name})["restart_priority"] = priority
    return list(found.values())


# --- snapshots ---


def snapshots(info: t.Any) -> list[Entry]:
    """The snapshots of a machine."""
    if info is None:
        return []
    current = info.currentSnapshot._GetMoId() if info.currentSnapshot is not None else ""
    return [_snapshot(one, current) for one in info.rootSnapshotList]


def _snapshot(tree: t.Any, current: str) -> Entry:
    entry: Entry = {"name": tree.name, "id": tree.id}
    if tree.description:
        entry["description"] = tree.description
    if tree.state != "poweredOff":
        entry["power"] = str(tree.state)
    if tree.quiesced:
        entry["quiesced"] = True
    if tree.snapshot._GetMoId() == current:
        entry["current"] = True
    if tree.childSnapshotList:
        entry["snapshots"] = [_snapshot(one, current) for one in tree.childSnapshotList]
    return entry


# --- what only REST tells: tags and images ---


def image(rest: Rest, cluster: str, notes: Notes) -> Entry:
    """`image` of a cluster that has one."""
    path = f"/api/esx/settings/clusters/{cluster}"
    try:
        if not rest.get(f"{path}/enablement/software")["enabled"]:
            return {}
        parts = rest.get(f"{path}/software/components")
    except RestError as problem:
        notes.add(f"images of clusters ({problem})")
        return {}
    return {"image": {name: str(part["version"]) for name, part in sorted(parts.items())}}


def categories(rest: Rest, entries: dict[str, Entry], notes: Notes) -> list[Entry]:
    """The categories with their tags; the entries, by the ids of their objects, get their `tags`."""
    base = "/api/cis/tagging"
    try:
        known = {one: rest.get(f"{base}/category/{one}") for one in rest.get(f"{base}/category")}
        tags = {one: rest.get(f"{base}/tag/{one}") for one in rest.get(f"{base}/tag")}
        question = {"tag_ids": list(tags)}
        on = rest.post(f"{base}/tag-association?action=list-attached-objects-on-tags", question) if tags else []
    except RestError as problem:
        notes.add(f"tags ({problem})")
        return []
    made = {key: _category(one) for key, one in sorted(known.items(), key=lambda item: str(item[1]["name"]))}
    for tag in sorted(tags.values(), key=lambda one: str(one["name"])):
        described = {"description": tag["description"]} if tag.get("description") else {}
        made[tag["category_id"]].setdefault("tags", []).append({"name": tag["name"], **described})
    for one in on:
        tag = tags[one["tag_id"]]
        for target in one["object_ids"]:
            if target["id"] in entries:
                own = entries[target["id"]].setdefault("tags", {})
                own[made[tag["category_id"]]["name"]] = sorted(
                    [*own.get(made[tag["category_id"]]["name"], []), tag["name"]]
                )
            else:
                notes.add("tags of objects other than hosts, clusters, pools and machines")
    return list(made.values())


def _category(one: Entry) -> Entry:
    entry: Entry = {"name": one["name"]}
    if one.get("description"):
        entry["description"] = one["description"]
    if one["cardinality"] == "SINGLE":
        entry["single"] = True
    if one.get("associable_types"):
        entry["types"] = sorted(str(kind).rpartition(":")[2] for kind in one["associable_types"])
    return entry
