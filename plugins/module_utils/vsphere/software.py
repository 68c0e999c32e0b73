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
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.host_driver import (
    DriverWork,
    Package,
    bulletins_of,
    kind_of,
    other_than_wanted,
)
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.plan import Problem
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
Packages = t.Mapping[str, "t.Sequence[Package] | Problem"]


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


def apply_driver(
    client: Client, rest: Rest, hosts: Hosts, packages: Packages, work: Work, bounds: Bounds
) -> dict[str, TaskOutcome]:
    """Carry out the work, every host in maintenance mode; never raises for one host. `packages` are those of before.

    The boot time is recorded before, so that no later run forgets the reboot, whoever does it.
    """
    outcomes = {name: TaskOutcome() for name in work}
    outcomes |= _record(client, hosts, list(work), bounds)
    ready = {name: item for name, item in work.items() if outcomes[name].ok}
    patches = {name: item for name, item in ready.items() if item.method == "patch"}
    outcomes |= _patch(client, hosts, patches, packages, bounds)
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


def _patch(client: Client, hosts: Hosts, work: Work, packages: Packages, bounds: Bounds) -> dict[str, TaskOutcome]:
    """Host patches: remove what is in the way, install, look what is there now."""
    if not work:
        return {}
    managers = Managers(client, {name: hosts[name].moid for name in work}, "patchManager")
    outcomes = {name: TaskOutcome() for name in work}

    def run(names: t.Iterable[str], start: t.Callable[[t.Any, str], t.Any], doing: str) -> None:
        def starter(name: str) -> t.Callable[[], t.Any]:
            return lambda: start(managers.of(name, "patchManager"), name)

        starters = {name: starter(name) for name in names if outcomes[name].ok}
        outcomes.update(run_tasks(client, starters, timeout=bounds.left, max_parallel=bounds.max_parallel, doing=doing))

    installing = [name for name, item in work.items() if item.action != "remove"]
    removing = [name for name, item in work.items() if item.action in ("remove", "downgrade")]
    # No old driver is removed for one that cannot be had.
    replacing = [name for name in installing if name in removing and kind_of(work[name].bundle or "") == "metadata"]
    run(replacing, lambda manager, name: manager.ScanHostPatchV2_Task([work[name].bundle]), "read the patch's metadata")
    run(removing, lambda manager, _name: manager.QueryHostPatch_Task(), "ask for the installed bulletins")
    bulletins: dict[str, list[str]] = {}
    for name in [name for name in removing if outcomes[name].ok]:
        status = getattr(outcomes[name].result, "status", None) or ()
        found = bulletins_of(work[name], [str(one.id) for one in status if one.installed])
        if found is None:
            outcomes[name] = TaskOutcome(error=_no_bulletin(name, work[name]))
        else:
            bulletins[name] = found
    run(removing, lambda manager, name: manager.UninstallHostPatch_Task(bulletins[name]), "remove the vGPU manager")
    run(installing, lambda manager, name: _install(manager, work[name].bundle or ""), "install the vGPU manager")
    installed = {name: hosts[name] for name in installing if outcomes[name].ok}
    return outcomes | _verified(client, installed, work, packages, bounds)


def _install(manager: t.Any, url: str) -> t.Any:
    if kind_of(url) == "vib":
        return manager.InstallHostPatchV2_Task(vibUrls=[url])
    return manager.InstallHostPatchV2_Task(metaUrls=[url])


def _no_bulletin(name: str, work: DriverWork) -> OperationFailedError:
    """For a driver that came by no bulletin that the host knows, for example as a VIB."""
    there = ", ".join(f"{package.name} {package.version}" for package in work.installed)
    return OperationFailedError(
        f"{name}: the host knows no bulletin that has brought {there}, and a host patch is removed by its bulletin. "
        "Nothing was removed. Set method to esxcli.",
        code="no_bulletin",
        object=name,
    )


def _verified(client: Client, hosts: Hosts, work: Work, before: Packages, bounds: Bounds) -> dict[str, TaskOutcome]:
    """Outcomes of hosts that have another driver now than was wanted: a scan names bulletins, not what is in them."""
    outcomes = {}
    for name, now in read_packages(client, hosts, max_parallel=bounds.max_parallel).items():
        earlier = before.get(name, ())
        if isinstance(now, Problem):
            text, code = f"what is installed now could not be read: {now.msg}", now.code
        elif not isinstance(earlier, Problem) and (other := other_than_wanted(work[name], earlier, now)) is not None:
            text = f"the host has {other} now, not {work[name].version}. Correct version or bundle, then run again."
            code = "version_not_in_bundle"
        else:
            continue
        error = OperationFailedError(f"{name}: {work[name].bundle} was installed; {text}", code=code, object=name)
        outcomes[name] = TaskOutcome(error=error, begun=True)
    return outcomes


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
