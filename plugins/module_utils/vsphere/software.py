# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Software of hosts: what is installed, and installing the vGPU manager by host patch or cluster image."""

from __future__ import annotations

import dataclasses
import hashlib
import typing as t
import urllib.error

from ansible.module_utils.urls import open_url
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.facts import HostFacts
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.host_driver import DriverWork, Package, is_driver
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.plan import Problem
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.versions import matches
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.client import Client
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.errors import (
    GpuOpsError,
    InputError,
    OperationFailedError,
)
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.host_managers import Managers
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.images import (
    ImageChange,
    change_image,
    remediate,
)
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.intents import write_intents
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.module import problem
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.pyvmomi import vim
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.rest import Rest
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.tasks import (
    Bounds,
    TaskOutcome,
    run_calls,
    run_tasks,
)

# Codes of failures after which the vCenter may still carry on with what was begun.
UNFINISHED = ("timeout", "interrupted", "connection_lost", "connection_failed")

_CHUNK = 1 << 20
_DOWNLOAD_TIMEOUT_S = 30

Hosts = t.Mapping[str, HostFacts]
Work = t.Mapping[str, DriverWork]


def read_packages(client: Client, hosts: Hosts, *, max_parallel: int) -> dict[str, tuple[Package, ...] | Problem]:
    """What is installed on the hosts that answer, or why one does not tell.

    One call for each host, at the same time: vSphere has no bulk read of it.
    """
    asked = {name: host.moid for name, host in hosts.items() if host.answers}
    if not asked:
        return {}
    managers = Managers(client, asked, "imageConfigManager")

    def fetch(name: str) -> t.Callable[[], t.Any]:
        return lambda: managers.of(name, "imageConfigManager").FetchSoftwarePackages()

    calls = {name: fetch(name) for name in asked}
    found = run_calls(client, calls, max_parallel=max_parallel, doing="read the installed software")
    return {
        name: tuple(Package(package.name, package.version, package.vendor) for package in outcome.result or ())
        if outcome.error is None
        else problem(name, outcome.error)
        for name, outcome in found.items()
    }


def check_bundle(bundle: str, checksum: str, ca_file: str | None = None) -> None:
    """Download a bundle and compare its SHA-256.

    Raises InputError where it differs, LookupError where it cannot be had.
    `checksum` is `sha256:<64 hex digits>`.
    """
    digest = hashlib.sha256()
    try:
        with open_url(bundle, timeout=_DOWNLOAD_TIMEOUT_S, ca_path=ca_file, http_agent="gpuops.vsphere") as stream:
            while chunk := stream.read(_CHUNK):
                digest.update(chunk)
    except (OSError, ValueError, urllib.error.URLError) as error:
        raise LookupError(f"{bundle} cannot be downloaded here ({error}), so its checksum was not checked.") from error
    wanted = checksum.partition(":")[2].lower()
    if digest.hexdigest() != wanted:
        raise InputError(
            f"bundle: {bundle} has the SHA-256 {digest.hexdigest()}, not {wanted}. Nothing was installed. Download the "
            "bundle again from NVIDIA, or correct the checksum."
        )


def apply_driver(client: Client, rest: Rest, hosts: Hosts, work: Work, bounds: Bounds) -> dict[str, TaskOutcome]:
    """Carry out the work, every host in maintenance mode; never raises for one host.

    The boot time is recorded before, so that no later run forgets the reboot, whoever does it.
    """
    outcomes = {name: TaskOutcome() for name in work}
    outcomes |= _record(client, hosts, list(work), bounds)
    ready = {name: item for name, item in work.items() if outcomes[name].ok}
    outcomes |= _patch(client, hosts, {name: item for name, item in ready.items() if item.method == "patch"}, bounds)
    images = {name: item for name, item in ready.items() if item.method == "image"}
    outcomes |= _image(rest, hosts, images, bounds)
    # A cluster's image has rebooted the host already; where an installation has surely failed, no reboot is due.
    _forget(client, hosts, [name for name in ready if _no_reboot_due(work[name], outcomes[name])], bounds)
    return outcomes


def _no_reboot_due(work: DriverWork, outcome: TaskOutcome) -> bool:
    if outcome.error is None:
        return work.method == "image"
    return not outcome.begun and (outcome.error.code not in UNFINISHED or outcome.error.fault is not None)


def _record(client: Client, hosts: Hosts, names: t.Sequence[str], bounds: Bounds) -> dict[str, TaskOutcome]:
    intents = {
        name: dataclasses.replace(intent, boot_time=hosts[name].boot_time)
        for name in names
        if (intent := hosts[name].intent) is not None
    }
    refs = {name: client.ref(vim.HostSystem, hosts[name].moid) for name in names}
    return write_intents(
        client, {name: (refs[name], intent) for name, intent in intents.items()}, max_parallel=bounds.max_parallel
    )


def _forget(client: Client, hosts: Hosts, names: t.Sequence[str], bounds: Bounds) -> None:
    """Store the intents as they were, without a boot time."""
    refs = {name: client.ref(vim.HostSystem, hosts[name].moid) for name in names}
    intents = {
        name: (refs[name], dataclasses.replace(intent, boot_time=None))
        for name in names
        if (intent := hosts[name].intent) is not None
    }
    write_intents(client, intents, max_parallel=bounds.max_parallel)


def _patch(client: Client, hosts: Hosts, work: Work, bounds: Bounds) -> dict[str, TaskOutcome]:
    """Host patches: look into the bundle, remove what is in the way, install."""
    if not work:
        return {}
    managers = Managers(client, {name: hosts[name].moid for name in work}, "patchManager")
    outcomes = {name: TaskOutcome() for name in work}

    def run(names: t.Iterable[str], start: t.Callable[[t.Any, DriverWork], t.Any], doing: str) -> None:
        def starter(name: str) -> t.Callable[[], t.Any]:
            return lambda: start(managers.of(name, "patchManager"), work[name])

        starters = {name: starter(name) for name in names if outcomes[name].ok}
        outcomes.update(run_tasks(client, starters, timeout=bounds.left, max_parallel=bounds.max_parallel, doing=doing))

    installing = [name for name, item in work.items() if item.action != "remove"]
    run(installing, lambda manager, item: manager.ScanHostPatchV2_Task(None, [item.bundle]), "look into the bundle")
    for name in installing:
        outcomes[name] = _scanned(name, work[name], outcomes[name])
    removing = [name for name, item in work.items() if item.action in ("remove", "downgrade")]
    run(
        removing,
        lambda manager, item: manager.UninstallHostPatch_Task([package.id for package in item.installed]),
        "remove the vGPU manager",
    )
    run(
        installing,
        lambda manager, item: manager.InstallHostPatchV2_Task(None, [item.bundle]),
        "install the vGPU manager",
    )
    return outcomes


def _scanned(name: str, work: DriverWork, outcome: TaskOutcome) -> TaskOutcome:
    """The outcome of looking into a bundle: it must hold the wanted version."""
    if not outcome.ok:
        return outcome
    versions = []
    for status in getattr(outcome.result, "status", None) or ():
        _vendor, _bootbank, rest = str(status.id).partition("_bootbank_")
        package, _underscore, version = rest.rpartition("_")
        if is_driver(package, work.packages):
            versions.append(version)
    if any(matches(str(work.version), version) for version in versions):
        return TaskOutcome()
    other = f", but {', '.join(versions)}" if versions else ""
    return TaskOutcome(
        error=OperationFailedError(
            f"{name}: the bundle {work.bundle} holds no {', '.join(work.packages)} of version {work.version}"
            f"{other}. Nothing was installed. Correct the version, or the bundle.",
            code="version_not_in_bundle",
            object=name,
        )
    )


def _image(rest: Rest, hosts: Hosts, work: Work, bounds: Bounds) -> dict[str, TaskOutcome]:
    """Cluster images: one change for each cluster, then its hosts."""
    outcomes: dict[str, TaskOutcome] = {}
    for cluster in sorted({hosts[name].cluster or "" for name in work}):
        names = [name for name in work if hosts[name].cluster == cluster]
        first = next((work[name] for name in names if work[name].image_changes), work[names[0]])
        image = first.image
        if image is None:
            continue
        try:
            if first.image_changes:
                esxi = hosts[names[0]].version
                change = ImageChange(image, first.packages, first.version, first.bundle, esxi)
                change_image(rest, cluster, change, bounds)
        except GpuOpsError as error:
            outcomes |= {name: TaskOutcome(error=error) for name in names}
            continue
        outcomes |= {name: TaskOutcome() for name in names}
        outcomes |= remediate(rest, cluster, image.moid, {name: hosts[name].moid for name in names}, bounds)
    return outcomes
