# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Planner: the vGPU manager of hosts at a wanted version, by the way that fits the host's cluster.

Sources: NVIDIA's vGPU user guide for vSphere (maintenance mode before, a reboot after, whatever the installer says);
VMware's guides of vSphere Lifecycle Manager (a cluster managed with an image takes software by the image only); the
vSphere Web Services API reference, HostPatchManager (a patch is a metadata.zip or a VIB, an offline bundle "is not
supported in 5.0 or later"; a removal names bulletins).
"""

from __future__ import annotations

import dataclasses
import fnmatch
import re
import shlex
import typing as t
import urllib.parse

from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.driver_triangle import check_triangle
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.facts import HostFacts
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.ownership import (
    left_alone,
    maintenance_owner,
    not_connected,
    reboot_in_progress,
    standing,
    unknown_host,
)
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.plan import Change, ObjectPlan, Problem
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.power import rebooted
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.versions import matches, numbers, older

Method = t.Literal["image", "patch", "esxcli"]
Action = t.Literal["install", "upgrade", "downgrade", "replace", "remove"]
Kind = t.Literal["zip", "metadata", "vib"]

PACKAGES: t.Final = ("NVD-VGPU*", "NVD-AIE*", "NVD-VMware*", "NVIDIA-VMware*", "NVIDIA-vGPU*", "NVIDIA-AIE*")
"""How NVIDIA names the host driver: NVD-… since release 15, NVIDIA-… before (VIBs and components)."""
_DAEMON = re.compile(r"nvd-?gpu-?mgmt-?daemon", re.IGNORECASE)
_COMPONENTS_SINCE = 7
"""ESXi 7 takes software as components; before, only VIBs."""


@dataclasses.dataclass(frozen=True, slots=True)
class Package:
    """Installed software (a VIB)."""

    name: str
    version: str
    vendor: str


@dataclasses.dataclass(frozen=True, slots=True)
class ClusterImage:
    """The image (vLCM) that a cluster is managed with."""

    moid: str
    components: t.Mapping[str, str]
    """Version of each component by its name."""


@dataclasses.dataclass(frozen=True, slots=True)
class DriverWish:
    """What is wanted of one host."""

    name: str
    version: str | None
    """As NVIDIA writes it (`535.154.02`), or with the build suffix; None for no driver at all."""
    bundle: str | None = None
    """URL of the offline bundle, its metadata.zip or a VIB, or a path on the host."""
    packages: tuple[str, ...] = PACKAGES
    """Shell patterns for the name of the package or component."""
    method: Method | None = None
    """None chooses by what the cluster has."""
    guest_drivers: tuple[str, ...] = ()
    """Drivers of the guests on the host, which must go with the manager."""


@dataclasses.dataclass(frozen=True, slots=True)
class DriverWork:
    """How a host comes to the wanted driver."""

    method: Method
    action: Action
    installed: tuple[Package, ...]
    version: str | None
    bundle: str | None
    packages: tuple[str, ...]
    image: ClusterImage | None = None
    image_changes: bool = False
    """The cluster's image must change first."""
    commands: tuple[str, ...] = ()
    """For esxcli."""


@dataclasses.dataclass(frozen=True, slots=True)
class DriverPlan:
    """The plan of one host, how to carry it out, and the host as it is then."""

    plan: ObjectPlan
    work: DriverWork | None = None
    after: HostFacts | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Software:
    """What is installed, and how clusters are managed."""

    packages: t.Mapping[str, t.Sequence[Package] | Problem]
    """By host; why it is not known where a host did not tell."""
    images: t.Mapping[str, ClusterImage] = dataclasses.field(default_factory=dict)
    """By name of the cluster; absent for one that is managed without an image."""


def is_driver(name: str, patterns: t.Sequence[str]) -> bool:
    """Whether a package or component is the driver. The GPU management daemon never is, however wide the pattern."""
    return not is_daemon(name) and any(fnmatch.fnmatchcase(name.lower(), pattern.lower()) for pattern in patterns)


def is_daemon(name: str) -> bool:
    """Whether a package (`nvdgpumgmtdaemon`) or component (`nvd-gpu-mgmt-daemon`) is NVIDIA's GPU management daemon."""
    return _DAEMON.search(name) is not None


def kind_of(bundle: str) -> Kind:
    """What a URL or path leads to, by its name: an offline bundle, the metadata of an unpacked one, or a VIB."""
    path = urllib.parse.urlsplit(bundle).path.lower() if "://" in bundle else bundle.lower()
    return "metadata" if path.endswith("metadata.zip") else "vib" if path.endswith(".vib") else "zip"


def bulletins_of(work: DriverWork, ids: t.Iterable[str]) -> list[str] | None:
    """The installed bulletins that have brought the driver; None where one of its packages came in none of them.

    A bulletin's id has name and version of its component (`NVD-VGPU-800_535.154.02-1OEM…`), before ESXi 7 of its VIB
    (`NVIDIA_bootbank_…`).
    """
    found: dict[str, str] = {}
    for one in ids:
        for package in work.installed:
            name, version, _build = one.rpartition("_bootbank_")[2].partition(package.version)
            if version and is_driver(name.rstrip("_-"), work.packages):
                found[package.name] = one
    return list(dict.fromkeys(found.values())) if len(found) == len(work.installed) else None


def other_than_wanted(work: DriverWork, before: t.Sequence[Package], now: t.Sequence[Package]) -> str | None:
    """What an installation has brought in the place of the wanted driver; None if it may have brought that.

    Where the list is as it was before, nothing is known: a host may tell of the image in force until it reboots, as
    `esxcli software vib list` does without `--rebooting-image`.
    """
    versions = [package.version for package in now if is_driver(package.name, work.packages)]
    if _fits(versions, work.version) or set(now) == set(before):
        return None
    return ", ".join(versions) or "no driver"


def plan_driver(
    hosts: t.Mapping[str, HostFacts],
    wishes: t.Sequence[DriverWish],
    software: Software,
    *,
    known: t.Collection[str] = (),
    outside_maintenance: t.Literal["fail", "report"] = "fail",
) -> dict[str, DriverPlan]:
    """One plan for each wish.

    Software changes in maintenance mode only. With `outside_maintenance` set to `report` a host in service is no
    problem: its notes say what is `pending` and that maintenance mode is required.
    """
    plans: dict[str, DriverPlan] = {}
    for wish in wishes:
        host = hosts.get(wish.name)
        if host is not None and _went_away(software.packages.get(host.name)):
            host = dataclasses.replace(host, connection="notResponding")
        if host is None:
            plans[wish.name] = DriverPlan(unknown_host(wish.name, known))
        elif reboot_in_progress(host):
            plans[wish.name] = DriverPlan(ObjectPlan(host.name, notes=_notes(host, None, ())))
        elif not host.answers:
            plans[wish.name] = DriverPlan(not_connected(host))
        elif maintenance_owner(host) == "other":
            plans[wish.name] = DriverPlan(left_alone(host))
        else:
            plans[wish.name] = _plan_host(host, wish, software, outside_maintenance)
    return plans


def _went_away(packages: t.Sequence[Package] | Problem | None) -> bool:
    """Whether a host that answered when facts were read did no more when asked for its software: it goes down."""
    return isinstance(packages, Problem) and packages.code == "host_not_connected"


def _plan_host(host: HostFacts, wish: DriverWish, software: Software, outside: str) -> DriverPlan:
    packages = software.packages.get(host.name, ())
    if isinstance(packages, Problem):
        return DriverPlan(ObjectPlan(host.name, problems=(packages,), notes=_notes(host, None, ())))
    installed = tuple(package for package in packages if is_driver(package.name, wish.packages))
    image = software.images.get(host.cluster or "")
    if wish.method == "image" and image is None:
        return _failed(
            host,
            "no_cluster_image",
            f"The cluster {host.cluster or '(none)'} is not managed with an image. Set it up in vSphere Lifecycle "
            "Manager, or let the method be chosen automatically.",
            "method",
        )
    mismatches = _triangle(host, wish)
    if mismatches:
        return DriverPlan(ObjectPlan(host.name, problems=mismatches, notes=_notes(host, None, installed)))
    action = _action(installed, wish.version)
    in_image = {name: v for name, v in (image.components if image else {}).items() if is_driver(name, wish.packages)}
    method = wish.method or _method(wish, image)
    image_changes = method == "image" and not _fits(list(in_image.values()), wish.version)
    if action is None and not image_changes:
        return DriverPlan(ObjectPlan(host.name, notes=_notes(host, method, installed)), after=host)
    problem = _obstacle(host, wish, method, image)
    if problem is not None:
        return DriverPlan(ObjectPlan(host.name, problems=(problem,), notes=_notes(host, method, installed)))
    work = DriverWork(
        method,
        action or "replace",
        installed,
        wish.version,
        wish.bundle,
        wish.packages,
        image if method == "image" else None,
        image_changes,
        _commands(host, wish, installed, action) if method == "esxcli" and action is not None else (),
    )
    changes = _changes(host, wish, work, in_image, remediate=action is not None)
    if not host.in_maintenance:
        return _outside(host, work, changes, outside)
    intent = host.intent
    if intent is not None and action is not None:
        intent = dataclasses.replace(intent, boot_time=None if method == "image" else host.boot_time)
    after = dataclasses.replace(_with_driver(host, wish.version), intent=intent)
    notes = {
        **_notes(host, method, installed),
        "installed": wish.version,
        "reboot_required": method != "image" and action is not None,
        "commands": list(work.commands),
    }
    return DriverPlan(ObjectPlan(host.name, changes=tuple(changes), notes=notes), work, after)


def _action(installed: t.Sequence[Package], version: str | None) -> Action | None:
    """What is to be done on the host, None for nothing."""
    if version is None:
        return "remove" if installed else None
    if not installed:
        return "install"
    if _fits([package.version for package in installed], version):
        return None
    now = installed[0].version
    return "upgrade" if older(now, version) else "downgrade" if older(version, now) else "replace"


def _fits(versions: t.Sequence[str], wanted: str | None) -> bool:
    if wanted is None:
        return not versions
    return bool(versions) and all(matches(wanted, version) for version in versions)


def _method(wish: DriverWish, image: ClusterImage | None) -> Method:
    """The cluster's image where it has one; else a host patch where that is what the bundle is; else esxcli."""
    if image is not None:
        return "image"
    return "patch" if wish.version is not None and _refusal("patch", wish.bundle or "") is None else "esxcli"


def _triangle(host: HostFacts, wish: DriverWish) -> tuple[Problem, ...]:
    """Where ESXi, the wanted manager and the drivers of the guests do not go together."""
    found = [
        one for guest in wish.guest_drivers or (None,) for one in check_triangle(host.version, wish.version, guest)
    ]
    return tuple(
        Problem(one.code, host.name, one.msg, "guest_drivers" if one.code.startswith("guest") else "version")
        for one in dict.fromkeys(found)
    )


def _obstacle(host: HostFacts, wish: DriverWish, method: Method, image: ClusterImage | None) -> Problem | None:
    if wish.version is not None and not wish.bundle and method != "image":
        return Problem(
            "bundle_missing",
            host.name,
            f"The driver {wish.version} is to be installed, and no bundle says where it is. Set bundle to the URL of "
            "the offline bundle, or to its path on the host.",
            "bundle",
        )
    if method != "image" and image is not None:
        return Problem(
            "managed_by_image",
            host.name,
            f"The cluster {host.cluster} is managed with an image, which would remove what is installed by hand. Let "
            "the method be chosen automatically, or set it to image.",
            "method",
        )
    refusal = _refusal(method, wish.bundle) if wish.version is not None and wish.bundle else None
    return Problem("bundle_not_for_method", host.name, refusal, "bundle") if refusal is not None else None


def _refusal(method: Method, bundle: str) -> str | None:
    """Why a way does not take a bundle, and what to do; None if it does."""
    kind = kind_of(bundle)
    if method == "image" and kind != "zip":
        return f"The vCenter imports the offline bundle (ZIP), and {bundle} is none. Give the URL of the ZIP."
    if method == "patch" and (kind == "zip" or "://" not in bundle):
        return (
            f"A host patch is the URL of a metadata.zip or of a .vib, and {bundle} is neither: ESXi 5.0 and later "
            "takes no offline bundle (ZIP) as a patch. Unpack the bundle on a web server and give the URL of its "
            "metadata.zip, or set method to esxcli, which takes the ZIP."
        )
    if method == "esxcli" and kind == "metadata":
        return (
            f"esxcli takes the offline bundle (ZIP) or a .vib, and {bundle} is the metadata of one. Give the URL or "
            "path of the ZIP, or set method to patch."
        )
    return None


def _commands(
    host: HostFacts, wish: DriverWish, installed: t.Sequence[Package], action: Action | None
) -> tuple[str, ...]:
    """What to run on the host."""
    bundle = wish.bundle or ""
    single = kind_of(bundle) == "vib"
    components = not single and numbers(host.version or "0")[:1] >= (_COMPONENTS_SINCE,)
    kind = "component" if components else "vib"
    removals = [f"esxcli software vib remove -n {package.name}" for package in installed]
    if action == "remove":
        return tuple(removals)
    install = {"component": "apply", "vib": "update" if action == "upgrade" else "install"}[kind]
    # The host's shell reads it, and URLs may have a query.
    source = f"{'-v' if single else '-d'} {shlex.quote(bundle)}"
    return (*(removals if action == "downgrade" else ()), f"esxcli software {kind} {install} {source}")


def _changes(
    host: HostFacts, wish: DriverWish, work: DriverWork, in_image: t.Mapping[str, str], *, remediate: bool
) -> list[Change]:
    changes = []
    if work.image_changes:
        now = ", ".join(in_image.values()) or None
        changes.append(
            Change("set", f"image of cluster {host.cluster}", now, wish.version, "once for all of its hosts")
        )
    if remediate:
        now = ", ".join(package.version for package in work.installed) or None
        how = {"image": "by the cluster's image", "patch": "host patch", "esxcli": "esxcli on the host"}[work.method]
        text = f"{wish.version}, {how}" if wish.version else f"was {now}, {how}"
        changes.append(Change(work.action, "vGPU manager", now, wish.version, text, disruptive=True))
    return changes


def _with_driver(host: HostFacts, version: str | None) -> HostFacts:
    """The host as it is after the reboot: with a driver each GPU takes the type set for it, without one none.

    GPUs that are passed through are not the driver's.
    """
    config = host.graphics_config
    types = {device.address: device.graphics_type for device in config.devices} if config is not None else {}
    default = config.default_type if config is not None else "shared"
    graphics = tuple(
        gpu
        if gpu.graphics_type == "direct"
        else dataclasses.replace(gpu, graphics_type="basic" if version is None else types.get(gpu.address, default))
        for gpu in host.graphics
    )
    return dataclasses.replace(host, graphics=graphics)


def _outside(host: HostFacts, work: DriverWork, changes: t.Sequence[Change], outside: str) -> DriverPlan:
    """The plan for a host in service."""
    notes = {**_notes(host, work.method, work.installed), "maintenance_required": True}
    if outside == "report":
        notes["pending"] = [str(change) for change in changes]
        return DriverPlan(ObjectPlan(host.name, notes=notes), after=_with_driver(host, work.version))
    problem = Problem(
        "not_in_maintenance",
        host.name,
        "Software of a host changes in maintenance mode only. Put it there first (gpuops.vsphere.esxi_maintenance), "
        "or use the playbook upgrade.yml, which does it host by host.",
        kind="state",
    )
    return DriverPlan(ObjectPlan(host.name, problems=(problem,), notes=notes))


def _failed(host: HostFacts, code: str, msg: str, option: str) -> DriverPlan:
    problem = Problem(code, host.name, msg, option)
    return DriverPlan(ObjectPlan(host.name, problems=(problem,), notes=_notes(host, None, ())))


def _notes(host: HostFacts, method: Method | None, installed: t.Sequence[Package]) -> dict[str, t.Any]:
    recorded = host.intent.boot_time if host.intent is not None else None
    waits = recorded is not None and not rebooted(recorded, host.boot_time)
    return {
        **standing(host, ()),
        "reboot_required": host.reboot_pending or waits,
        "maintenance_required": False,
        "pending": [],
        "method": method,
        "installed": ", ".join(package.version for package in installed) or None,
        "loaded": any(gpu.graphics_type in ("shared", "sharedDirect") for gpu in host.graphics),
        "vgpu_types": list(host.vgpu_types),
        "commands": [],
    }
