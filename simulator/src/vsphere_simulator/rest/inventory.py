"""Listings of the inventory over REST (`/api/vcenter/…`)."""

from __future__ import annotations

import typing as t

from vsphere_simulator.rest.errors import not_found
from vsphere_simulator.rest.operations import Call, operation
from vsphere_simulator.world.compute import Cluster
from vsphere_simulator.world.folders import Datacenter, Folder
from vsphere_simulator.world.host import HostSystem
from vsphere_simulator.world.pools import ResourcePool
from vsphere_simulator.world.storage import Datastore, Network
from vsphere_simulator.world.virtual_machine import VirtualMachine

if t.TYPE_CHECKING:
    from collections.abc import Callable

    from vsphere_simulator.world.entity import Entity

_POWER: t.Final = {"poweredOn": "POWERED_ON", "poweredOff": "POWERED_OFF", "suspended": "SUSPENDED"}
_CONNECTION: t.Final = {
    "connected": "CONNECTED",
    "disconnected": "DISCONNECTED",
    "notResponding": "NOT_RESPONDING",
}
_FOLDERS: t.Final = {
    "root": "DATACENTER",
    "vm": "VIRTUAL_MACHINE",
    "host": "HOST",
    "datastore": "DATASTORE",
    "network": "NETWORK",
}
_BELOW: t.Final = ("datacenters", "folders", "parent_folders", "clusters", "hosts", "resource_pools")


def _list(call: Call, kind: type[t.Any], own: str, row: Callable[[t.Any], dict[str, t.Any]]) -> list[dict[str, t.Any]]:
    """The objects of a kind that the query asks for; `own` is the filter of their ids."""
    wanted = {key: set(values) for key, values in call.query.items()}
    states = wanted.get("power_states") or wanted.get("connection_states")
    found = []
    for obj in call.ctx.world.objects.values():
        if not isinstance(obj, kind) or not _matches(obj, wanted, own):
            continue
        shown = row(obj)
        if states is None or shown.get("power_state") in states or shown.get("connection_state") in states:
            found.append(shown)
    return sorted(found, key=lambda one: str(one["name"]))


def _matches(obj: t.Any, wanted: dict[str, set[str]], own: str) -> bool:
    if "names" in wanted and obj.name not in wanted["names"]:
        return False
    if own in wanted and obj.moid not in wanted[own]:
        return False
    return all(_ancestors(obj) & wanted[key] for key in _BELOW if key in wanted and key != own)


def _ancestors(obj: Entity) -> set[str]:
    found: set[str] = set()
    pending: list[t.Any] = list(obj.containers())
    while pending:
        one = pending.pop()
        found.add(one.moid)
        pending += one.containers()
    return found


@operation("GET", "/api/vcenter/datacenter")
def datacenters(call: Call) -> list[dict[str, t.Any]]:
    """Data centers."""
    return _list(call, Datacenter, "datacenters", lambda one: {"datacenter": one.moid, "name": one.name})


@operation("GET", "/api/vcenter/folder")
def folders(call: Call) -> list[dict[str, t.Any]]:
    """Folders."""
    found = _list(
        call, Folder, "folders", lambda one: {"folder": one.moid, "name": one.name, "type": _FOLDERS[one.kind]}
    )
    return [one for one in found if "type" not in call.query or one["type"] in call.query["type"]]


@operation("GET", "/api/vcenter/cluster")
def clusters(call: Call) -> list[dict[str, t.Any]]:
    """Clusters."""
    return _list(
        call,
        Cluster,
        "clusters",
        lambda one: {
            "cluster": one.moid,
            "name": one.name,
            "drs_enabled": one.drs.enabled,
            "ha_enabled": bool(one.das.enabled),
        },
    )


@operation("GET", "/api/vcenter/cluster/{cluster}")
def cluster(call: Call) -> dict[str, t.Any]:
    """One cluster."""
    found = call.ctx.world.objects.get(call.path["cluster"])
    if not isinstance(found, Cluster):
        raise not_found("cluster", call.path["cluster"])
    return {"name": found.name, "resource_pool": found.pool.moid}


@operation("GET", "/api/vcenter/host")
def hosts(call: Call) -> list[dict[str, t.Any]]:
    """Hosts; the power state is unset for one that does not answer."""
    return _list(
        call,
        HostSystem,
        "hosts",
        lambda one: {
            "host": one.moid,
            "name": one.name,
            "connection_state": _CONNECTION[one.connection],
            **({"power_state": "POWERED_ON"} if one.answers else {}),
        },
    )


@operation("GET", "/api/vcenter/vm")
def machines(call: Call) -> list[dict[str, t.Any]]:
    """Virtual machines, no templates."""
    found = _list(
        call,
        VirtualMachine,
        "vms",
        lambda one: {
            "vm": one.moid,
            "name": one.name,
            "power_state": _POWER[one.power],
            "cpu_count": one.cpus,
            "memory_size_MiB": one.memory_mb,
        },
    )
    return [one for one in found if not call.ctx.world.get(one["vm"]).template]


@operation("GET", "/api/vcenter/datastore")
def datastores(call: Call) -> list[dict[str, t.Any]]:
    """Datastores; sizes in bytes."""
    return _list(
        call,
        Datastore,
        "datastores",
        lambda one: {
            "datastore": one.moid,
            "name": one.name,
            "type": {"vsan": "VSAN"}.get(one.kind, one.kind),
            "capacity": one.capacity,
            "free_space": one.free,
        },
    )


@operation("GET", "/api/vcenter/network")
def networks(call: Call) -> list[dict[str, t.Any]]:
    """Networks."""
    return _list(
        call,
        Network,
        "networks",
        lambda one: {"network": one.moid, "name": one.name, "type": "STANDARD_PORTGROUP"},
    )


@operation("GET", "/api/vcenter/resource-pool")
def pools(call: Call) -> list[dict[str, t.Any]]:
    """Resource pools."""
    return _list(call, ResourcePool, "resource_pools", lambda one: {"resource_pool": one.moid, "name": one.name})
