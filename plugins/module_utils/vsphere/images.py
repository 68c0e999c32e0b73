# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Cluster images (vSphere Lifecycle Manager): what they hold, changing one component, and bringing hosts to them."""

from __future__ import annotations

import dataclasses
import typing as t

from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.driver_triangle import check_manager
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.host_driver import (
    ClusterImage,
    is_daemon,
    is_driver,
)
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.versions import matches
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere import convert
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.client import Client
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.collector import all_of, paths, retrieve
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.errors import (
    BadAnswerError,
    GpuOpsError,
    OperationFailedError,
)
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.pyvmomi import vim
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.rest import Rest, reasons, sentences
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.tasks import Bounds, TaskOutcome

_CLUSTER = "/api/esx/settings/clusters/{cluster}"
_DRAFTS = _CLUSTER + "/software/drafts"
_OFFLINE = "/api/esx/settings/depots/offline"
_SERVICE = "com.vmware.esx.settings.clusters.software"
_DRAFTS_LOST: t.Final = 2
"""How many times a draft may be gone before a change of the image is given up."""
_MESSAGE = "vGPU manager (gpuops.vsphere.esxi_driver)"


@dataclasses.dataclass(frozen=True, slots=True)
class ImageChange:
    """The driver that a cluster's image shall have."""

    image: ClusterImage
    patterns: tuple[str, ...]
    """Shell patterns for the component's name."""
    version: str | None
    """None for no driver at all."""
    bundle: str | None
    """None where the vCenter's depots have it already."""
    esxi: str | None = None
    """Version of the hosts that the image is for."""


def read_images(client: Client, rest: Rest, clusters: t.Collection[str]) -> dict[str, ClusterImage]:
    """The images of the named clusters, one request for each that is managed with one. Raises GpuOpsError."""
    rows = retrieve(
        client,
        lambda: [all_of(client, vim.ClusterComputeResource)],
        [paths(vim.ClusterComputeResource, "name", "lifecycleManaged")],
    )
    managed = {
        convert.plain_name(row.props["name"]): row.moid
        for row in rows
        if "name" in row.props and row.props.get("lifecycleManaged")
    }
    return {
        name: ClusterImage(moid, _versions(rest.get(_CLUSTER + "/software/components", cluster=moid)))
        for name, moid in sorted(managed.items())
        if name in clusters
    }


def change_image(rest: Rest, cluster: str, change: ImageChange, bounds: Bounds) -> None:
    """Give a cluster's image the driver: import the bundle, edit a draft, commit it. Raises GpuOpsError.

    A draft of the user's own that differs from the image in the driver only was left by an interrupted run, and is
    taken up; one with other edits is somebody's work, and is left alone.
    """
    doing = f"change the image of cluster {cluster}"
    wanted = dict(change.image.components)
    for name in [name for name in wanted if is_driver(name, change.patterns)]:
        del wanted[name]
    if change.version is not None:
        if change.bundle is not None:
            _import(rest, change.bundle, bounds)
        wanted |= _offered(rest, change, cluster)
    for attempt in range(_DRAFTS_LOST, -1, -1):
        try:
            _commit(rest, cluster, change, wanted, bounds, doing)
        except OperationFailedError as error:
            # An interrupted run's commit has ended meanwhile, or somebody has discarded the draft.
            if error.code != "not_found" or not attempt:
                raise
        else:
            return


def _commit(
    rest: Rest, cluster: str, change: ImageChange, wanted: t.Mapping[str, str], bounds: Bounds, doing: str
) -> None:
    """Have these components in the cluster's image, by a draft."""
    moid = change.image.moid
    draft, fresh = _draft(rest, cluster, change, doing)
    before = _versions(rest.get(_DRAFTS + "/{draft}/software/components", cluster=moid, draft=draft))
    # What else the image has may have changed since it was read, and stays as the draft has it.
    others = _others(before, change.patterns)
    wanted = others | {name: wanted[name] for name in wanted.keys() - _others(wanted, change.patterns).keys()}
    if fresh and before == wanted:  # the commit that has ended meanwhile was of the same
        rest.call("DELETE", _DRAFTS + "/{draft}", doing=doing, cluster=moid, draft=draft)
        return
    edits = {
        "components_to_set": {name: version for name, version in wanted.items() if before.get(name) != version},
        "components_to_delete": sorted(before.keys() - wanted.keys()),
    }
    rest.call("PATCH", _DRAFTS + "/{draft}/software/components", edits, doing=doing, cluster=moid, draft=draft)
    shown = _versions(rest.get(_DRAFTS + "/{draft}/software/components", cluster=moid, draft=draft))
    if _others(shown, change.patterns) != others:
        raise OperationFailedError(
            f"cluster {cluster}: somebody else has edited draft {draft} of the image meanwhile, and nothing was "
            "committed. Commit or discard it in vSphere Lifecycle Manager, then run again.",
            code="changed_meanwhile",
            object=cluster,
        )
    commit = _DRAFTS + "/{draft}?action=commit&vmw-task=true"
    task = rest.start("POST", commit, {"message": _MESSAGE}, doing=doing, cluster=moid, draft=draft)
    rest.finish(task, timeout=bounds.left, doing=doing, names=[cluster])


def remediate(
    rest: Rest, cluster: str, moid: str, hosts: t.Mapping[str, str], bounds: Bounds
) -> dict[str, TaskOutcome]:
    """Check hosts of a cluster against its image and bring them to it, with a reboot; never raises for one host.

    `hosts` are ids by name, in maintenance mode, where they stay.
    """
    doing = f"bring hosts of cluster {cluster} to its image"
    body = {"hosts": sorted(hosts.values())}
    try:
        _wait_for_earlier(rest, moid, list(hosts), bounds, doing)
        task = rest.start("POST", _CLUSTER + "/software?action=check&vmw-task=true", body, doing=doing, cluster=moid)
        checked = rest.finish(task, timeout=bounds.left, doing=f"check hosts of cluster {cluster}", names=hosts)
        refused = _refused(checked, moid)
        if moid in refused:
            raise OperationFailedError(f"Could not {doing}: {_mend(refused[moid])}", object=cluster)
        fit = {name: host for name, host in hosts.items() if host not in refused}
        outcomes = {name: _failure(name, refused[host]) for name, host in hosts.items() if host in refused}
        if not fit:
            return outcomes
        task = rest.start(
            "POST",
            _CLUSTER + "/software?action=apply&vmw-task=true",
            {"hosts": sorted(fit.values()), "accept_eula": True},
            doing=doing,
            cluster=moid,
        )
        result = rest.finish(task, timeout=bounds.left, doing=doing, names=fit)
    except GpuOpsError as error:
        return {name: TaskOutcome(error=error, begun=True) for name in hosts}
    return outcomes | {name: _applied(name, host, result) for name, host in fit.items()}


def _wait_for_earlier(rest: Rest, moid: str, names: t.Collection[str], bounds: Bounds, doing: str) -> None:
    """Wait for remediations of the cluster that killed runs have left going on."""
    tasks = rest.get("/api/cis/tasks", services=[_SERVICE])
    running = [
        key
        for key, task in tasks.items()
        if task.get("operation") == "apply"
        and task.get("status") in ("PENDING", "RUNNING", "BLOCKED")
        and (task.get("target") or {}).get("id") == moid
    ]
    if running:
        rest.wait(running, timeout=bounds.left, doing=doing, names=names)


def _versions(components: t.Any) -> dict[str, str]:
    return {name: str(component["version"]) for name, component in (components or {}).items()}


def _import(rest: Rest, bundle: str, bounds: Bounds) -> None:
    depots = rest.get(_OFFLINE)
    if any(depot.get("location") == bundle for depot in depots.values()):
        return
    doing = f"import the bundle {bundle} into the vCenter's depot"
    spec = {"source_type": "PULL", "location": bundle, "description": _MESSAGE}
    task = rest.start("POST", _OFFLINE + "?vmw-task=true", spec, doing=doing)
    rest.finish(task, timeout=bounds.left, doing=doing)


def _offered(rest: Rest, change: ImageChange, cluster: str) -> dict[str, str]:
    """The component for the wanted version, and the management daemon that comes with it; exact versions by name."""
    own = _content(rest, change.bundle) if change.bundle is not None else None
    drivers = [one for one in (_all_components(rest) if own is None else own) if is_driver(one[0], change.patterns)]
    fit = [
        (name, version)
        for name, version in drivers
        if matches(str(change.version), version)
        and (change.esxi is None or check_manager(change.esxi, version) is None)
    ]
    where = "the vCenter's depots have" if own is None else f"the bundle {change.bundle} has"
    if not fit:
        raise OperationFailedError(
            f"cluster {cluster}: no component {', '.join(change.patterns)} of version {change.version} for ESXi "
            f"{change.esxi} is offered; {where} {_listed(drivers) or 'none'}. Correct the version, or the bundle.",
            code="version_not_in_bundle",
            object=cluster,
        )
    if len(fit) > 1:
        raise OperationFailedError(
            f"cluster {cluster}: more than one component is the driver {change.version}; {where} {_listed(fit)}. Set "
            "package to the name of the one wanted, or the version with its build suffix.",
            code="component_ambiguous",
            object=cluster,
        )
    daemons = [one for one in own or () if is_daemon(one[0])]
    return dict([*fit, *(daemons if len(daemons) == 1 else ())])


def _content(rest: Rest, bundle: str) -> list[tuple[str, str]] | None:
    """Name and version of each component of an imported bundle; None where a vCenter before 7.0 U3 does not tell."""
    depots = rest.get(_OFFLINE)
    depot = next((key for key, one in depots.items() if one.get("location") == bundle), None)
    if depot is None:
        return None
    try:
        content = rest.get(_OFFLINE + "/{depot}/content", depot=depot)
    except (BadAnswerError, OperationFailedError) as error:
        if error.code not in ("not_a_vcenter", "not_found"):
            raise
        return None
    return sorted(
        {
            (name, version["version"])
            for vendor in content["metadata_bundles"].values()
            for part in vendor
            for name, component in (part.get("independent_components") or {}).items()
            for version in component["versions"]
        }
    )


def _all_components(rest: Rest) -> list[tuple[str, str]]:
    """Name and version of each component that any of the vCenter's depots has."""
    found = rest.get("/api/esx/settings/depot-content/components")
    return sorted({(component["name"], version["version"]) for component in found for version in component["versions"]})


def _listed(components: t.Sequence[tuple[str, str]]) -> str:
    return ", ".join(f"{name} {version}" for name, version in components)


def _draft(rest: Rest, cluster: str, change: ImageChange, doing: str) -> tuple[str, bool]:
    """A draft to edit, and whether it has just been made: the user has one of a cluster at a time."""
    moid = change.image.moid
    for key, owner in _owners(rest, moid).items():
        if _same_user(owner, rest.username):
            return _taken_up(rest, cluster, change, key), False
    try:
        return str(rest.call("POST", _DRAFTS, doing=doing, cluster=moid)), True
    except OperationFailedError as error:
        if error.fault != "ALREADY_EXISTS":
            raise
    # The user has one: made meanwhile by another run, or its owner is written in a way that only the vCenter knows.
    owners = _owners(rest, moid)
    own = [key for key, owner in owners.items() if _account(owner)[0] == _account(rest.username)[0]]
    if len(own) == 1:
        return _taken_up(rest, cluster, change, own[0]), False
    shown = ", ".join(f"draft {key} of {owner}" for key, owner in owners.items()) or "no draft"
    raise OperationFailedError(
        f"cluster {cluster}: the vCenter says that {rest.username} has a draft of the image already, and shows "
        f"{shown}. Commit or discard it in vSphere Lifecycle Manager, then run again.",
        code="draft_in_the_way",
        object=cluster,
    )


def _owners(rest: Rest, moid: str) -> dict[str, str]:
    """Who owns each draft of a cluster."""
    drafts = rest.get(_DRAFTS, cluster=moid)
    return {str(key): str(draft["metadata"]["owner"]) for key, draft in drafts.items()}


def _taken_up(rest: Rest, cluster: str, change: ImageChange, draft: str) -> str:
    """A draft of the user's own, unless it has edits besides the driver."""
    moid = change.image.moid
    shown = _versions(rest.get(_DRAFTS + "/{draft}/software/components", cluster=moid, draft=draft))
    if _others(shown, change.patterns) != _others(change.image.components, change.patterns):
        raise OperationFailedError(
            f"cluster {cluster}: {rest.username} has a draft of the image with edits of its own (draft {draft}). "
            "Commit or discard it in vSphere Lifecycle Manager, then run again.",
            code="draft_in_the_way",
            object=cluster,
        )
    return draft


def _same_user(one: str, other: str) -> bool:
    """Whether two names are of the same user, each as `DOMAIN\\user`, `user@domain` or `user`, in any case.

    A NetBIOS domain such as `CORP` is the domain of which it is the first label (`corp.example.com`).
    """
    (user, domain), (known, where) = _account(one), _account(other)
    return user == known and (domain == where or where.partition(".")[0] == domain or domain.partition(".")[0] == where)


def _account(name: str) -> tuple[str, str]:
    """User and domain, in lower case; "" for no domain."""
    domain, backslash, user = name.lower().partition("\\")
    if backslash:
        return user, domain
    user, at, domain = name.lower().rpartition("@")
    return (user, domain) if at else (domain, "")


def _others(components: t.Mapping[str, str], patterns: t.Sequence[str]) -> dict[str, str]:
    return {
        name: version for name, version in components.items() if not is_driver(name, patterns) and not is_daemon(name)
    }


def _refused(check: t.Any, cluster: str) -> dict[str, str]:
    """What the check says stands in the way, by the id of host or cluster."""
    refused = {}
    for entity in (check or {}).get("entity_results") or ():
        if entity.get("status") == "ERROR":
            texts = [text for status in entity.get("check_statuses") or () for text in _issues(status)]
            key = entity.get("host") if entity.get("type") == "HOST" else cluster
            refused[str(key)] = " ".join(dict.fromkeys(texts))
    return refused


def _issues(status: t.Mapping[str, t.Any]) -> list[str]:
    """What one check found: `check_issues` where the vCenter has them, with what to do, else `issues`."""
    if status.get("check_issues"):
        texts = [sentences(issue.get("description"), issue.get("resolution")) for issue in status["check_issues"]]
    else:
        texts = [sentences(issue) for issue in status.get("issues") or ()]
    return list(filter(None, texts))


def _applied(name: str, host: str, result: t.Any) -> TaskOutcome:
    """How bringing one host to the image has ended (Esx Settings Clusters Software ApplyResult)."""
    found = result or {}
    status = (found.get("host_status") or {}).get(host) or {}
    if status.get("status") == "OK":
        return TaskOutcome()
    told = [reasons(part.get("notifications")) for part in (status, found, found.get("status") or {})]
    why = next(filter(None, told), "")
    if status.get("status") in (None, "SKIPPED"):
        return _failure(name, f"another host failed before, so it was not begun. {why}")
    return _failure(name, why, begun=True)


def _failure(name: str, text: str, *, begun: bool = False) -> TaskOutcome:
    msg = f"{name}: could not bring the host to its cluster's image: {_mend(text)}"
    return TaskOutcome(error=OperationFailedError(msg, object=name), begun=begun)


def _mend(text: str) -> str:
    """A reason, and what to do about it."""
    return (
        f"{text.strip()} Mend that, then run again."
        if text
        else "the vCenter gives no reason. See the cluster's updates in vSphere Lifecycle Manager, then run again."
    )
