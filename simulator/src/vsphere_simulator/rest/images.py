"""Cluster images over REST: reading, comparing with the hosts, and applying."""

from __future__ import annotations

import typing as t

from vsphere_simulator.rest import tasks
from vsphere_simulator.rest.errors import ApiError, not_found, of_fault
from vsphere_simulator.rest.operations import Call, operation
from vsphere_simulator.vmomi import vmodl
from vsphere_simulator.world import images, maintenance
from vsphere_simulator.world.compute import Cluster

if t.TYPE_CHECKING:
    import datetime as dt

    from vsphere_simulator.kernel.registry import TaskControl
    from vsphere_simulator.world.host import HostSystem
    from vsphere_simulator.world.images import Image

CLUSTER: t.Final = "/api/esx/settings/clusters/{cluster}"
SERVICE: t.Final = "com.vmware.esx.settings.clusters.software"
# As in the vSphere Automation API reference, esx/settings/clusters.
READ: t.Final = ("VcIntegrity.lifecycleSoftwareSpecification.Read",)
_ENABLED: t.Final = ("VcIntegrity.lifecycleSettings.Read",)
_ENABLE: t.Final = ("VcIntegrity.lifecycleSettings.Write",)
_CHECK_HOSTS: t.Final = ("VcIntegrity.lifecycleSoftwareRemediation.Read", "VcIntegrity.lifecycleHealth.Read")
_APPLY: t.Final = ("VcIntegrity.lifecycleSoftwareRemediation.Write", "VcIntegrity.lifecycleHealth.Read")
_CHECK: t.Final = 5.0
"""Simulated seconds that comparing a cluster with its image takes."""
_AGAIN: t.Final = "Remove the cause, and remediate the host again."
_INCOMPLETE: t.Final = "Not all hosts of the cluster were remediated."


def cluster_of(call: Call) -> Cluster:
    """The cluster in the path; NOT_FOUND if there is none."""
    found = call.ctx.world.objects.get(call.path["cluster"])
    if not isinstance(found, Cluster):
        raise not_found("cluster", call.path["cluster"])
    return found


def image_of(call: Call) -> Image:
    """The image of the cluster in the path; NOT_FOUND if it is managed without one."""
    cluster = cluster_of(call)
    if cluster.moid not in call.site.images.of:
        raise ApiError("NOT_FOUND", f"The cluster {cluster.name} is not managed with an image.")
    return call.site.images.of[cluster.moid]


def notifications(call: Call, errors: list[str], resolution: str = "") -> dict[str, t.Any]:
    """What the calls of this API say went wrong: nothing at all where nothing did."""
    moment = tasks.time_of(call.ctx.world.clock.now())
    told = []
    for number, text in enumerate(errors, 1):
        identifier = "com.vmware.vcIntegrity.lifecycle.failed"
        one: dict[str, t.Any] = {"id": str(number), "type": "ERROR", "time": moment, "retriable": False}
        one["message"] = {"id": identifier, "default_message": text, "args": []}
        if resolution:
            one["resolution"] = {"id": f"{identifier}.resolution", "default_message": resolution, "args": []}
        told.append(one)
    return {"errors": told} if told else {}


@operation("GET", CLUSTER + "/enablement/software", privileges=_ENABLED)
def enablement(call: Call) -> dict[str, bool]:
    """Whether the cluster is managed with an image."""
    return {"enabled": cluster_of(call).moid in call.site.images.of}


@operation("PUT", CLUSTER + "/enablement/software?vmw-task=true", status=202, privileges=_ENABLE)
def enable(call: Call) -> str:
    """Manage the cluster with an image from now; there is no way back."""
    cluster = cluster_of(call)

    async def body(control: TaskControl) -> None:
        await control.work(_CHECK, steps=1)
        if cluster.moid in call.site.images.of:
            raise ApiError("ALREADY_EXISTS", f"The cluster {cluster.name} is managed with an image already.")
        call.site.images.of[cluster.moid] = images.initial(cluster)
        call.ctx.world.changed(cluster, "lifecycleManaged")
        call.saved()

    return tasks.start(call, cluster, "com.vmware.esx.settings.clusters.enablement.software.enable", body)


def shown_component(call: Call, name: str, version: str) -> dict[str, t.Any]:
    """A component of an image as the API shows it."""
    package = images.components(call.site).get((name, version))
    return {
        "version": version,
        "details": {
            "display_name": package.summary or name if package is not None else name,
            "vendor": package.vendor if package is not None else "",
            "display_version": version,
        },
    }


def shown(call: Call, image: Image) -> dict[str, t.Any]:
    """An image as the API shows it."""
    return {
        "base_image": {
            "version": image.base,
            "details": {"display_name": "ESXi", "display_version": image.base, "release_date": ""},
        },
        "components": components(call, image),
        "solutions": {},
        "alternative_images": {},
    }


def components(call: Call, image: Image) -> dict[str, t.Any]:
    """The components of an image, by name."""
    return {name: shown_component(call, name, version) for name, version in sorted(image.components.items())}


@operation("GET", CLUSTER + "/software", privileges=READ)
def get(call: Call) -> dict[str, t.Any]:
    """The cluster's image."""
    return shown(call, image_of(call))


@operation("GET", CLUSTER + "/software/components", privileges=READ)
def get_components(call: Call) -> dict[str, t.Any]:
    """The components of the cluster's image."""
    return components(call, image_of(call))


@operation("GET", CLUSTER + "/software/components/{component}", privileges=READ)
def get_component(call: Call) -> dict[str, t.Any]:
    """One component of the cluster's image."""
    name, image = call.path["component"], image_of(call)
    if name not in image.components:
        raise not_found("component", name)
    return shown_component(call, name, image.components[name])


def _hosts(call: Call) -> list[HostSystem]:
    """The hosts that the body names, or all of the cluster."""
    cluster = cluster_of(call)
    body = call.body if isinstance(call.body, dict) else {}
    wanted = body.get("hosts")
    if wanted is None:
        return list(cluster.hosts.values())
    missing = [moid for moid in wanted if moid not in cluster.hosts]
    if missing:
        raise not_found("host of the cluster", missing[0])
    return [cluster.hosts[moid] for moid in wanted]


def _compliance(call: Call, image: Image, hosts: list[HostSystem]) -> dict[str, t.Any]:
    reachable = [host for host in hosts if host.answers]
    good = [host.moid for host in reachable if images.is_compliant(host, image)]
    bad = [host.moid for host in reachable if host.moid not in good]
    away = [host.moid for host in hosts if not host.answers]
    return {
        "status": "UNAVAILABLE" if away and not bad else "NON_COMPLIANT" if bad else "COMPLIANT",
        "impact": "REBOOT_REQUIRED" if bad else "NO_IMPACT",
        "commit": image.commit,
        "notifications": {},
        "hosts": {host.moid: _host_compliance(call, host, image) for host in reachable},
        "host_info": {host.moid: {"name": host.name, "is_vsan_witness": False} for host in hosts},
        "compliant_hosts": good,
        "non_compliant_hosts": bad,
        "incompatible_hosts": [],
        "unavailable_hosts": away,
    }


def _host_compliance(call: Call, host: HostSystem, image: Image) -> dict[str, t.Any]:
    compliant = images.is_compliant(host, image)
    found = {}
    for name in sorted({*image.components, *host.packages}):
        wanted, package = image.components.get(name), host.packages.get(name)
        same = package is not None and package.version == wanted
        entry: dict[str, t.Any] = {"status": "COMPLIANT" if same else "NON_COMPLIANT", "notifications": {}}
        if package is not None:
            entry["current"] = shown_component(call, name, package.version)
        if wanted is not None:
            entry["target"] = shown_component(call, name, wanted)
        found[name] = entry
    return {
        "status": "COMPLIANT" if compliant else "NON_COMPLIANT",
        "impact": "NO_IMPACT" if compliant else "REBOOT_REQUIRED",
        "base_image": {"status": "COMPLIANT" if images.base_of(host) == image.base else "NON_COMPLIANT"},
        "components": found,
        "notifications": {},
    }


@operation("GET", CLUSTER + "/software/compliance", privileges=READ)
def compliance(call: Call) -> dict[str, t.Any]:
    """How the hosts compare with the image."""
    return _compliance(call, image_of(call), _hosts(call))


@operation("POST", CLUSTER + "/software?action=scan&vmw-task=true", status=202, privileges=READ)
def scan(call: Call) -> str:
    """Compare the hosts with the image; the result is the compliance."""
    image, hosts = image_of(call), list(cluster_of(call).hosts.values())

    async def body(control: TaskControl) -> dict[str, t.Any]:
        await control.work(_CHECK)
        return _compliance(call, image, hosts)

    return tasks.start(call, cluster_of(call), f"{SERVICE}.scan", body)


@operation("POST", CLUSTER + "/software?action=check&vmw-task=true", status=202, privileges=_CHECK_HOSTS)
def check(call: Call) -> str:
    """Say whether the image could be applied now."""
    image, hosts, cluster = image_of(call), _hosts(call), cluster_of(call)

    async def body(control: TaskControl) -> dict[str, t.Any]:
        await control.work(_CHECK)
        results = [_checked("CLUSTER", cluster.moid, images.problems(call.site, image))]
        results += [_checked("HOST", host.moid, _obstacles(host)) for host in hosts]
        worst = "ERROR" if any(one["status"] == "ERROR" for one in results) else "OK"
        return {"status": worst, "commit": image.commit, "entity_results": results}

    return tasks.start(call, cluster, f"{SERVICE}.check", body)


def _obstacles(host: HostSystem) -> list[str]:
    if not host.answers:
        return [f"Host {host.name} does not answer."]
    blocking = [vm.name for vm in maintenance.in_the_way(host)]
    if blocking and not host.cluster.drs.moves:
        return [f"Host {host.name} cannot enter maintenance mode: {', '.join(blocking)} run on it."]
    return []


def _checked(kind: str, moid: str, problems: list[str]) -> dict[str, t.Any]:
    status = "ERROR" if problems else "OK"
    issues = [{"id": "com.vmware.vlcm.check", "default_message": text, "args": []} for text in problems]
    return {
        "type": kind,
        kind.lower(): moid,
        "status": status,
        "check_statuses": [{"check": {"check": "HEALTH"}, "status": status, "issues": issues}],
    }


def _ended(call: Call, start: dt.datetime, told: dict[str, t.Any]) -> dict[str, t.Any]:
    """The status of a remediation that is over."""
    times = {"start_time": tasks.time_of(start), "end_time": tasks.time_of(call.ctx.world.clock.now())}
    return {"status": "ERROR" if told else "OK", **times, "notifications": told}


@operation("POST", CLUSTER + "/software?action=apply&vmw-task=true", status=202, privileges=_APPLY)
def apply(call: Call) -> str:
    """Bring the hosts to the image, one after the other; stops at the first that fails."""
    image, hosts, cluster = image_of(call), _hosts(call), cluster_of(call)
    commit = call.body.get("commit") if isinstance(call.body, dict) else None
    if commit is not None and commit != image.commit:
        raise ApiError("NOT_FOUND", f"The commit {commit} is not the cluster's latest.")

    async def body(control: TaskControl) -> dict[str, t.Any]:
        if found := images.problems(call.site, image):
            raise ApiError("NOT_ALLOWED_IN_CURRENT_STATE", " ".join(found))
        status: dict[str, t.Any] = {}
        failed: list[str] = []
        skipped: list[str] = []
        began = call.ctx.world.clock.now()
        for number, host in enumerate(hosts):
            control.check_cancelled()
            if failed or not host.answers:
                skipped.append(host.moid)
                continue
            control.say(f"Remediating host {host.name}.")
            control.progress(100 * number // len(hosts))
            start = call.ctx.world.clock.now()
            try:
                if not images.is_compliant(host, image):
                    await images.remediate(call.ctx, host, image)
            except vmodl.MethodFault as fault:
                failed.append(host.moid)
                status[host.moid] = _ended(call, start, notifications(call, [of_fault(fault).message], _AGAIN))
            else:
                status[host.moid] = _ended(call, start, {})
            control.progress(100 * (number + 1) // max(1, len(hosts)))
        return {
            "commit": image.commit,
            "status": _ended(call, began, notifications(call, [_INCOMPLETE] if failed or skipped else [])),
            "host_info": {host.moid: {"name": host.name} for host in hosts},
            "host_status": status,
            "successful_hosts": [moid for moid, one in status.items() if one["status"] == "OK"],
            "failed_hosts": failed,
            "skipped_hosts": skipped,
        }

    return tasks.start(call, cluster, f"{SERVICE}.apply", body)
