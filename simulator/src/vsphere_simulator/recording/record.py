"""The whole of a live vCenter as a model."""

from __future__ import annotations

import collections
import typing as t

import yaml

from vsphere_simulator.model.loader import parse_model
from vsphere_simulator.recording import hosts, machines, policies
from vsphere_simulator.recording.anonymize import anonymized
from vsphere_simulator.recording.client import RecordError, Source
from vsphere_simulator.vmomi import vim
from vsphere_simulator.world import codec

_OPTIONS: t.Final = ("vgpu.", "event.maxAge", "task.maxAge")
"""Beginnings of the vCenter settings that a model keeps."""
_AGENTS: t.Final = 3
_NEVER: t.Final = (
    "passwords, users and permissions",
    "events, tasks, statistics, files, offline depots",
)


class Notes:
    """What a recording leaves out, each thing once with how often."""

    def __init__(self, *, with_names: bool = True) -> None:
        self._with_names = with_names
        self._counted: collections.Counter[str] = collections.Counter()

    def add(self, what: str, name: str = "") -> None:
        """Note that something cannot be expressed; of which object is left out of anonymous recordings."""
        self._counted[f"{what}: {name}" if name and self._with_names else what] += 1

    def lines(self) -> list[str]:
        """One line for each thing."""
        return [*_NEVER, *(f"{what} ({count})" for what, count in sorted(self._counted.items()))]


def record(source: Source, *, datacenter: str | None, anonymize: bool) -> tuple[str, list[str]]:
    """YAML of a model, and what it leaves out. Raises RecordError when no model can be made of it."""
    notes = Notes(with_names=not anonymize)
    model = _Recorder(source, notes).model(datacenter)
    if anonymize:
        model = anonymized(model)
    header = ["# Recorded from a live vCenter. Left out:", *(f"# - {line}" for line in notes.lines())]
    text = (
        "\n".join(header) + "\n" + yaml.safe_dump(codec.encode(model), sort_keys=False, width=120, allow_unicode=True)
    )
    parse_model(text, "recording")
    return text, notes.lines()


class _Recorder:
    def __init__(self, source: Source, notes: Notes) -> None:
        self.source = source
        self.notes = notes
        self.addresses: dict[str, dict[str, str]] = {}
        """By host id: recorded GPU address -> the simulator's."""
        self.host_names: dict[str, str] = {}
        self.entries: dict[str, dict[str, t.Any]] = {}
        """By the id of the object: those of hosts, clusters, pools and machines."""
        self.fields: dict[int, str] = {}
        """Names of the custom attributes."""
        manager = source.content.customFieldsManager
        if manager is not None:
            self.fields = {field.key: field.name for field in sorted(manager.field, key=lambda one: int(one.key))}

    def model(self, wanted: str | None) -> dict[str, t.Any]:
        centers = {values["name"]: ref for ref, values in self.source.read(vim.Datacenter, ["name"]).values()}
        if wanted is None and len(centers) != 1:
            raise RecordError(f"name one of its data centers with --datacenter: {', '.join(sorted(centers)) or 'none'}")
        name = wanted or next(iter(centers))
        if name not in centers:
            raise RecordError(f"it has no data center {name}; there are {', '.join(sorted(centers)) or 'none'}")
        for _ in range(len(centers) - 1):
            self.notes.add("other data centers")
        self.center = centers[name]
        content = self.source.content
        self.pools = policies.Pools(self.source, self.center, self.fields)
        self.standalone: list[dict[str, t.Any]] = []
        found: dict[str, t.Any] = {
            "api_version": content.about.apiVersion,
            "datacenter": name,
            "datastores": self._datastores(),
            "networks": self._networks(),
            "clusters": self._clusters(),
        }
        found["templates"], found["vms"] = self._machines(found["clusters"])
        found["standalone_hosts"] = self.standalone
        self._rules()
        found["custom_attributes"] = list(dict.fromkeys(self.fields.values()))
        found["categories"] = policies.categories(self.source.rest, self.entries, self.notes)
        found["options"] = {
            option.key: str(option.value).lower() if isinstance(option.value, bool) else str(option.value)
            for option in (content.setting.setting if content.setting is not None else ())
            if option.key.startswith(_OPTIONS)
        }
        found["roles"] = {
            role.name: [one for one in role.privilege if not one.startswith("System.")]
            for role in content.authorizationManager.roleList
            if not role.system
        }
        return found

    def _datastores(self) -> list[dict[str, t.Any]]:
        found = []
        for _, values in self.source.read(vim.Datastore, ["summary"], self.center).values():
            summary = values["summary"]
            kind = {"VMFS": "VMFS", "NFS": "NFS", "NFS41": "NFS", "vsan": "vsan"}.get(summary.type)
            if kind is None:
                self.notes.add(f"the type of datastores: {summary.type}")
            size = max(1, round(summary.capacity / 1024**3))
            found.append({"name": summary.name, "type": kind or "VMFS", "capacity_gb": size})
        return found

    def _networks(self) -> list[dict[str, t.Any]]:
        found: dict[str, dict[str, t.Any]] = {}
        for ref, values in self.source.read(vim.Network, ["name"], self.center).values():
            if type(ref) is not vim.Network:
                self.notes.add("that networks are distributed (recorded as standard port groups)")
            found[values["name"]] = {"name": values["name"]}
        return list(found.values())

    def _clusters(self) -> list[dict[str, t.Any]]:
        members: dict[str, list[dict[str, t.Any]]] = collections.defaultdict(list)
        paths = ["name", "configurationEx", "resourcePool", "customValue"]
        self.clusters = clusters = self.source.read(vim.ClusterComputeResource, paths, self.center)
        for moid, (_, values) in self.source.read(vim.HostSystem, hosts.PATHS, self.center).items():
            made, self.addresses[moid] = hosts.entry(values, self.notes)
            self.entries[moid] = made
            made |= policies.custom_values(values, self.fields)
            self.host_names[moid] = values["name"]
            inside = values["parent"]._GetMoId() in clusters
            (members[values["parent"]._GetMoId()] if inside else self.standalone).append(made)
        return [self._cluster(moid, values, members[moid]) for moid, (_, values) in clusters.items()]

    def _cluster(self, moid: str, values: dict[str, t.Any], members: list[dict[str, t.Any]]) -> dict[str, t.Any]:
        configuration = values["configurationEx"]
        drs = configuration.drsConfig
        found = {
            "name": values["name"],
            "drs": {
                "enabled": bool(drs.enabled),
                "automation": str(drs.defaultVmBehavior or "manual"),
                "options": {option.key: str(option.value) for option in drs.option},
            },
            "ha": bool(configuration.dasConfig.enabled),
            "hosts": members,
        }
        found |= policies.custom_values(values, self.fields) | policies.image(self.source.rest, moid, self.notes)
        if pools := self.pools.below(values["resourcePool"]._GetMoId()):
            found["pools"] = pools
        self.entries[moid] = found
        return found

    def _rules(self) -> None:
        """What clusters have about machines, once all machines are known."""
        names = {moid: entry["name"] for moid, entry in self.entries.items()}
        for moid, (_, values) in self.clusters.items():
            self.entries[moid] |= policies.rules(values["configurationEx"], names, self.notes)
        self.entries |= self.pools.entries

    def _machines(self, clusters: list[dict[str, t.Any]]) -> tuple[list[dict[str, t.Any]], list[dict[str, t.Any]]]:
        folders = {moid: values for moid, (_, values) in self.source.read(vim.Folder, ["name", "parent"]).items()}
        homes = {entry["name"]: cluster for cluster in clusters for entry in cluster["hosts"]}
        templates: list[dict[str, t.Any]] = []
        plain: list[dict[str, t.Any]] = []
        seen: set[str] = set()
        for moid, (_, values) in self.source.read(vim.VirtualMachine, machines.PATHS, self.center).items():
            host = values["runtime.host"]._GetMoId() if values.get("runtime.host") is not None else ""
            if host not in self.host_names or "config.hardware.numCPU" not in values:
                self.notes.add("machines without a recorded host or configuration")
                continue
            manager = values.get("config.managedBy")
            if manager is not None and manager.extensionKey == machines.AGENT:
                if cluster := homes.get(self.host_names[host]):
                    cluster["vcls_agents"] = min(_AGENTS, cluster.get("vcls_agents", 0) + 1)
                continue
            if values["name"] in seen:
                self.notes.add("machines whose name another has")
                continue
            seen.add(values["name"])
            made = machines.entry(values, self.addresses[host], self.notes)
            made |= {"host": self.host_names[host]}
            made |= {"datastore": str(values["config.files.vmPathName"]).removeprefix("[").partition("]")[0]}
            if path := _path(values.get("parent"), folders):
                made["folder"] = path
            made |= policies.custom_values(values, self.fields)
            self.entries[moid] = made
            if path := self.pools.path(values.get("resourcePool")):
                made["pool"] = path
            if values.get("config.template"):
                for key in ("power", "snapshots"):
                    made.pop(key, None)
                templates.append(made)
            else:
                plain.append(made)
        return templates, plain


def _path(folder: t.Any, folders: dict[str, dict[str, t.Any]]) -> str:
    """The folder of a machine below the data center's own."""
    names: list[str] = []
    while folder is not None and folder._GetMoId() in folders:
        values = folders[folder._GetMoId()]
        if not isinstance(values.get("parent"), vim.Folder):
            break
        names.insert(0, values["name"])
        folder = values["parent"]
    return "/".join(names)
