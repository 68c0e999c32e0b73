"""Names and addresses of a recorded model replaced by numbers, everywhere the same."""

from __future__ import annotations

import typing as t

KEPT_SETTINGS: t.Final = ("pciPassthru.", "hypervisor.", "vgpu.")
"""Settings that say nothing of who runs the machines."""


class _Names(dict[str, str]):
    def __init__(self, pattern: str) -> None:
        super().__init__()
        self.pattern = pattern

    def __missing__(self, name: str) -> str:
        self[name] = self.pattern.format(len(self) + 1)
        return self[name]


def anonymized(model: dict[str, t.Any]) -> dict[str, t.Any]:
    """The model with other names; what cannot be renamed (settings, roles' privileges) is kept only if harmless."""
    hosts, machines = _Names("esx-{:03d}.example"), _Names("vm-{:05d}")
    stores, folders = _Names("datastore-{:02d}"), _Names("folder-{:02d}")
    labels, pools, attributes = _Names("label-{:02d}"), _Names("pool-{:02d}"), _Names("attribute-{:02d}")
    categories, tags, values = _Names("category-{:02d}"), _Names("tag-{:02d}"), _Names("value-{:03d}")
    groups, rules, snapshots = _Names("group-{:02d}"), _Names("rule-{:02d}"), _Names("snapshot-{:02d}")

    def device(gpu: dict[str, t.Any]) -> dict[str, t.Any]:
        return gpu | ({"label": labels[gpu["label"]]} if "label" in gpu else {})

    def marked(one: dict[str, t.Any]) -> dict[str, t.Any]:
        changed = dict(one)
        if "custom_values" in one:
            changed["custom_values"] = {attributes[key]: values[text] for key, text in one["custom_values"].items()}
        if "tags" in one:
            changed["tags"] = {categories[key]: [tags[name] for name in held] for key, held in one["tags"].items()}
        return changed

    def snapshot(one: dict[str, t.Any]) -> dict[str, t.Any]:
        changed = {key: value for key, value in one.items() if key != "description"}
        below = {"snapshots": list(map(snapshot, one["snapshots"]))} if "snapshots" in one else {}
        return changed | {"name": snapshots[one["name"]]} | below

    def pool(one: dict[str, t.Any]) -> dict[str, t.Any]:
        below = {"pools": list(map(pool, one["pools"]))} if "pools" in one else {}
        return marked(one) | {"name": pools[one["name"]]} | below

    def group(one: dict[str, t.Any]) -> dict[str, t.Any]:
        members = {"vms": machines, "hosts": hosts}
        return {"name": groups[one["name"]]} | {
            key: [names[name] for name in one[key]] for key, names in members.items() if key in one
        }

    def rule(one: dict[str, t.Any]) -> dict[str, t.Any]:
        changed = one | {"name": rules[one["name"]]}
        if "vms" in one:
            changed["vms"] = [machines[name] for name in one["vms"]]
        return changed | {key: groups[one[key]] for key in ("vm_group", "host_group") if key in one}

    def category(one: dict[str, t.Any]) -> dict[str, t.Any]:
        changed = {key: value for key, value in one.items() if key != "description"}
        held = {"tags": [{"name": tags[tag["name"]]} for tag in one["tags"]]} if "tags" in one else {}
        return changed | {"name": categories[one["name"]]} | held

    def cluster(number: int, one: dict[str, t.Any]) -> dict[str, t.Any]:
        changed = marked(one) | {"name": f"cluster-{number:02d}", "hosts": [host(entry) for entry in one["hosts"]]}
        for key, change in (("pools", pool), ("groups", group), ("rules", rule)):
            if key in one:
                changed[key] = [change(entry) for entry in one[key]]
        if "overrides" in one:
            changed["overrides"] = [entry | {"vm": machines[entry["vm"]]} for entry in one["overrides"]]
        return changed

    def machine(one: dict[str, t.Any]) -> dict[str, t.Any]:
        changed = marked(one) | {"name": machines[one["name"]]}
        if "pool" in one:
            changed["pool"] = "/".join(pools[part] for part in one["pool"].split("/"))
        if "snapshots" in one:
            changed["snapshots"] = list(map(snapshot, one["snapshots"]))
        if "host" in one:
            changed["host"] = hosts[one["host"]]
        if "datastore" in one:
            changed["datastore"] = stores[one["datastore"]]
        if "folder" in one:
            changed["folder"] = "/".join(folders[part] for part in one["folder"].split("/"))
        if "extra_config" in one:
            changed["extra_config"] = {k: v for k, v in one["extra_config"].items() if k.startswith(KEPT_SETTINGS)}
        if "gpus" in one:
            changed["gpus"] = [device(gpu) for gpu in one["gpus"]]
        return changed

    def host(one: dict[str, t.Any]) -> dict[str, t.Any]:
        return (
            marked(one)
            | {"name": hosts[one["name"]]}
            | ({"gpus": list(map(device, one["gpus"]))} if "gpus" in one else {})
        )

    return model | {
        "datacenter": "datacenter",
        "datastores": [one | {"name": stores[one["name"]]} for one in model["datastores"]],
        "networks": [{"name": f"network-{number:02d}"} for number, _ in enumerate(model["networks"], 1)],
        "clusters": [cluster(number, one) for number, one in enumerate(model["clusters"], 1)],
        "standalone_hosts": list(map(host, model["standalone_hosts"])),
        "categories": list(map(category, model["categories"])),
        "templates": [machine(one) for one in model["templates"]],
        "vms": [machine(one) for one in model["vms"]],
        "custom_attributes": [attributes[name] for name in model["custom_attributes"]],
        "options": {key: value for key, value in model["options"].items() if key.startswith(KEPT_SETTINGS)},
        "roles": {f"role-{number:02d}": held for number, held in enumerate(model["roles"].values(), 1)},
    }
