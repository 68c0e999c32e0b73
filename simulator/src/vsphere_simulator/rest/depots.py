"""Depots over REST: importing offline bundles, and what the depots hold."""

from __future__ import annotations

import typing as t

from vsphere_simulator.rest import tasks
from vsphere_simulator.rest.errors import invalid, not_found
from vsphere_simulator.rest.operations import Call, operation
from vsphere_simulator.world import images
from vsphere_simulator.world.host import HostSystem

if t.TYPE_CHECKING:
    from vsphere_simulator.kernel.registry import TaskControl

# As in the vSphere Automation API reference, esx/settings/depots/offline and depot-content.
_READ: t.Final = ("VcIntegrity.lifecycleSettings.Read",)
_WRITE: t.Final = ("VcIntegrity.lifecycleSettings.Write",)
_DELETE: t.Final = ("VcIntegrity.lifecycleDepots.Delete",)
_OFFLINE: t.Final = "/api/esx/settings/depots/offline"
_CONTENT: t.Final = "/api/esx/settings/depot-content"
_DOWNLOAD: t.Final = 10.0
"""Simulated seconds that importing a bundle takes."""


@operation("POST", _OFFLINE + "?vmw-task=true", status=202, privileges=_WRITE)
def import_offline(call: Call) -> str:
    """Import a bundle by its URL; the task's result is the depot's id."""
    source = call.field("source_type")
    if source != "PULL":
        raise invalid("The simulator imports bundles by PULL from a location only.")
    location = call.field("location")
    site = call.site

    async def body(control: TaskControl) -> dict[str, str]:
        await control.work(_DOWNLOAD)
        if location not in site.depots:
            raise invalid(f"Could not download from depot at {location}.")
        depot = next((key for key, url in site.images.depots.items() if url == location), None)
        if depot is None:
            call.ctx.world.ids["depot"] += 1
            depot = site.uuid_of(f"depot/{call.ctx.world.ids['depot']}")
            site.images.depots[depot] = location
            call.saved()
        return {"depot": depot}

    return tasks.start(call, call.ctx.world.root, "com.vmware.esx.settings.depots.offline.create", body)


@operation("GET", _OFFLINE, privileges=_READ)
def list_offline(call: Call) -> dict[str, t.Any]:
    """The imported bundles."""
    return {depot: _depot(url) for depot, url in call.site.images.depots.items()}


@operation("GET", _OFFLINE + "/{depot}", privileges=_READ)
def get_offline(call: Call) -> dict[str, t.Any]:
    """One imported bundle."""
    depot = call.path["depot"]
    if depot not in call.site.images.depots:
        raise not_found("depot", depot)
    return _depot(call.site.images.depots[depot])


@operation("GET", _OFFLINE + "/{depot}/content", privileges=_READ)
def get_content(call: Call) -> dict[str, t.Any]:
    """What one imported bundle holds: components of their own, by the vendor of their metadata."""
    depot = call.path["depot"]
    if depot not in call.site.images.depots:
        raise not_found("depot", depot)
    vendors: dict[str, list[dict[str, t.Any]]] = {}
    for package in call.site.depots.get(call.site.images.depots[depot], ()):
        part = {"file_name": "metadata.zip", "base_images": [], "addons": {}, "solutions": {}, "hardware_support": {}}
        (bundle,) = vendors.setdefault(package.vendor, [part | {"independent_components": {}, "updates": {}}])
        entry = {"display_name": package.summary or package.name, "versions": []}
        versions = bundle["independent_components"].setdefault(package.name, entry)["versions"]
        versions.append({"version": package.version, "display_version": package.version})
    return {"metadata_bundles": vendors}


def _depot(url: str) -> dict[str, t.Any]:
    return {"source_type": "PULL", "location": url, "description": "", "owner": ""}


@operation("DELETE", _OFFLINE + "/{depot}?vmw-task=true", status=202, privileges=_DELETE)
def delete_offline(call: Call) -> str:
    """Forget a bundle."""
    depot = call.path["depot"]
    if depot not in call.site.images.depots:
        raise not_found("depot", depot)

    async def body(control: TaskControl) -> None:
        await control.work(1.0, steps=1)
        call.site.images.depots.pop(depot, None)
        call.saved()

    return tasks.start(call, call.ctx.world.root, "com.vmware.esx.settings.depots.offline.delete", body)


@operation("GET", _CONTENT + "/components", privileges=_READ)
def list_components(call: Call) -> list[dict[str, t.Any]]:
    """The components that the imported bundles hold."""
    found: dict[str, dict[str, t.Any]] = {}
    for (name, version), package in sorted(images.components(call.site).items()):
        entry = found.setdefault(
            name, {"name": name, "display_name": package.summary or name, "vendor": package.vendor, "versions": []}
        )
        entry["versions"].append({"version": version, "display_version": version})
    return list(found.values())


@operation("GET", _CONTENT + "/base-images", privileges=_READ)
def list_base_images(call: Call) -> list[dict[str, str]]:
    """The base images there are: those that the hosts run."""
    versions = {images.base_of(host) for host in call.ctx.world.objects.values() if isinstance(host, HostSystem)}
    return [
        {"display_name": "ESXi", "display_version": version, "version": version, "release_date": "", "category": ""}
        for version in sorted(versions)
    ]
