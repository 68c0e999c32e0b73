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
    labels = _Names("label-{:02d}")

    def device(gpu: dict[str, t.Any]) -> dict[str, t.Any]:
        return gpu | ({"label": labels[gpu["label"]]} if "label" in gpu else {})

    def machine(one: dict[str, t.Any]) -> dict[str, t.Any]:
        changed = one | {"name": machines[one["name"]]}
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
        return one | {"name": hosts[one["name"]]} | ({"gpus": list(map(device, one["gpus"]))} if "gpus" in one else {})

    return model | {
        "datacenter": "datacenter",
        "datastores": [one | {"name": stores[one["name"]]} for one in model["datastores"]],
        "networks": [{"name": f"network-{number:02d}"} for number, _ in enumerate(model["networks"], 1)],
        "clusters": [
            one | {"name": f"cluster-{number:02d}", "hosts": [host(entry) for entry in one["hosts"]]}
            for number, one in enumerate(model["clusters"], 1)
        ],
        "templates": [machine(one) for one in model["templates"]],
        "vms": [machine(one) for one in model["vms"]],
        "custom_attributes": [f"attribute-{number:02d}" for number, _ in enumerate(model["custom_attributes"], 1)],
        "options": {key: value for key, value in model["options"].items() if key.startswith(KEPT_SETTINGS)},
        "roles": {f"role-{number:02d}": held for number, held in enumerate(model["roles"].values(), 1)},
    }
