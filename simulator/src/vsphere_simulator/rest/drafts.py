"""Drafts of cluster images over REST: edit, validate, commit."""

from __future__ import annotations

import typing as t

from vsphere_simulator.rest import tasks
from vsphere_simulator.rest.errors import ApiError, invalid, not_found
from vsphere_simulator.rest.images import (
    CLUSTER,
    READ,
    SERVICE,
    cluster_of,
    components,
    image_of,
    notifications,
    shown,
    shown_component,
)
from vsphere_simulator.rest.operations import Call, operation
from vsphere_simulator.world import images
from vsphere_simulator.world.images import Draft

if t.TYPE_CHECKING:
    from vsphere_simulator.kernel.registry import TaskControl

_DRAFTS: t.Final = CLUSTER + "/software/drafts"
_DRAFT: t.Final = _DRAFTS + "/{draft}"
_COMPONENTS: t.Final = _DRAFT + "/software/components"
_WRITE: t.Final = ("VcIntegrity.lifecycleSoftwareSpecification.Write",)
_COMMIT: t.Final = 5.0
"""Simulated seconds that validating and committing take."""


def _draft(call: Call) -> Draft:
    cluster = cluster_of(call)
    found = call.site.images.drafts.get(call.path["draft"])
    if found is None or found.cluster != cluster.moid:
        raise not_found("draft", call.path["draft"])
    return found


def _metadata(draft: Draft) -> dict[str, t.Any]:
    return {"owner": draft.owner, "status": "VALID", "auto_generated": False}


@operation("GET", _DRAFTS, privileges=READ)
def list_drafts(call: Call) -> dict[str, t.Any]:
    """The drafts of a cluster."""
    cluster = cluster_of(call)
    found = call.site.images.drafts.items()
    return {key: {"metadata": _metadata(one)} for key, one in found if one.cluster == cluster.moid}


@operation("POST", _DRAFTS, status=201, privileges=_WRITE)
def create(call: Call) -> str:
    """Begin to edit the cluster's image; a user has one draft of a cluster at a time."""
    cluster, image = cluster_of(call), image_of(call)
    drafts = call.site.images.drafts
    if any(one.cluster == cluster.moid and one.owner == call.ctx.user for one in drafts.values()):
        raise ApiError("ALREADY_EXISTS", f"{call.ctx.user} has a draft of {cluster.name} already.")
    call.ctx.world.ids["draft"] += 1
    key = str(call.ctx.world.ids["draft"])
    drafts[key] = Draft(cluster.moid, call.ctx.user, image.copy())
    call.saved()
    return key


@operation("GET", _DRAFT, privileges=READ)
def get(call: Call) -> dict[str, t.Any]:
    """One draft."""
    draft = _draft(call)
    return {"metadata": _metadata(draft), "software": shown(call, draft.image)}


@operation("DELETE", _DRAFT, status=204, privileges=_WRITE)
def delete(call: Call) -> None:
    """Drop a draft."""
    _draft(call)
    del call.site.images.drafts[call.path["draft"]]
    call.saved()


@operation("GET", _COMPONENTS, privileges=READ)
def get_components(call: Call) -> dict[str, t.Any]:
    """The components of a draft."""
    return components(call, _draft(call).image)


@operation("PATCH", _COMPONENTS, status=204, privileges=_WRITE)
def change_components(call: Call) -> None:
    """Set and delete many components at once."""
    draft = _draft(call)
    wanted = call.field("components_to_set", dict, default={})
    if not all(isinstance(version, str) for version in wanted.values()):
        raise invalid("components_to_set gives a version for each component.")
    gone = call.field("components_to_delete", list, default=[])
    draft.image.components |= wanted
    for name in gone:
        draft.image.components.pop(name, None)
    call.saved()


@operation("GET", _COMPONENTS + "/{component}", privileges=READ)
def get_component(call: Call) -> dict[str, t.Any]:
    """One component of a draft."""
    name, draft = call.path["component"], _draft(call)
    if name not in draft.image.components:
        raise not_found("component", name)
    return shown_component(call, name, draft.image.components[name])


@operation("PUT", _COMPONENTS + "/{component}", status=204, privileges=_WRITE)
def set_component(call: Call) -> None:
    """Have a component in a version; without one, the latest that a depot has."""
    name, draft = call.path["component"], _draft(call)
    offered = [version for known, version in images.components(call.site) if known == name]
    version = call.field("version", default=max(offered, default=None))
    if version is None:
        raise not_found("component", name)
    draft.image.components[name] = version
    call.saved()


@operation("DELETE", _COMPONENTS + "/{component}", status=204, privileges=_WRITE)
def delete_component(call: Call) -> None:
    """No longer have a component."""
    name, draft = call.path["component"], _draft(call)
    if draft.image.components.pop(name, None) is None:
        raise not_found("component", name)
    call.saved()


@operation("GET", _DRAFT + "/software/base-image", privileges=READ)
def get_base(call: Call) -> dict[str, t.Any]:
    """The base image of a draft."""
    return t.cast("dict[str, t.Any]", shown(call, _draft(call).image)["base_image"])


@operation("PUT", _DRAFT + "/software/base-image", status=204, privileges=_WRITE)
def set_base(call: Call) -> None:
    """Set the base image; the simulator's hosts keep theirs, so it must be what they run."""
    draft, version = _draft(call), call.field("version")
    if version not in {images.base_of(host) for host in cluster_of(call).hosts.values()}:
        raise not_found("base image", version)
    draft.image.base = version
    call.saved()


@operation("POST", _DRAFT + "?action=validate&vmw-task=true", status=202, privileges=READ)
def validate(call: Call) -> str:
    """Say whether a draft could be committed."""
    draft = _draft(call)

    async def body(control: TaskControl) -> dict[str, t.Any]:
        await control.work(_COMMIT, steps=1)
        found = images.problems(call.site, draft.image)
        return {"valid": not found, "notifications": notifications(call, found)}

    return tasks.start(call, cluster_of(call), f"{SERVICE}.drafts.validate", body)


@operation("POST", _DRAFT + "?action=commit&vmw-task=true", status=202, privileges=_WRITE)
def commit(call: Call) -> str:
    """Make a draft the cluster's image; the result is the commit's id."""
    draft, cluster = _draft(call), cluster_of(call)

    async def body(control: TaskControl) -> str:
        await control.work(_COMMIT, steps=1)
        if found := images.problems(call.site, draft.image):
            raise invalid(" ".join(found))
        draft.image.commit = str(int(call.site.images.of[cluster.moid].commit) + 1)
        call.site.images.of[cluster.moid] = draft.image
        call.site.images.drafts.pop(call.path["draft"], None)
        call.saved()
        return draft.image.commit

    return tasks.start(call, cluster, f"{SERVICE}.drafts.commit", body)
