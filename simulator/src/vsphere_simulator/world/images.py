"""Cluster images (vLCM): which software the hosts of a cluster shall have, and bringing them there."""

from __future__ import annotations

import asyncio
import dataclasses
import typing as t

from vsphere_simulator.vmomi import vim

if t.TYPE_CHECKING:
    from vsphere_simulator.kernel.objects import Context
    from vsphere_simulator.kernel.tasks import Task
    from vsphere_simulator.world.compute import Cluster
    from vsphere_simulator.world.host import HostSystem
    from vsphere_simulator.world.patches import Package
    from vsphere_simulator.world.site import Site


@dataclasses.dataclass(slots=True)
class Image:
    """The software of a cluster's hosts."""

    base: str
    """Version of the base image, for example `8.0.3-0.0.24022510`."""
    components: dict[str, str] = dataclasses.field(default_factory=dict)
    """Version of each component by its name."""
    commit: str = "1"

    def copy(self) -> Image:
        """An image that can be changed without changing this one."""
        return dataclasses.replace(self, components=dict(self.components))


@dataclasses.dataclass(slots=True)
class Draft:
    """An image that somebody is editing."""

    cluster: str
    owner: str
    image: Image


@dataclasses.dataclass(slots=True)
class Images:
    """The images of all clusters; part of the state."""

    of: dict[str, Image] = dataclasses.field(default_factory=dict)
    """By cluster id; a cluster that is not here is managed without an image."""
    drafts: dict[str, Draft] = dataclasses.field(default_factory=dict)
    depots: dict[str, str] = dataclasses.field(default_factory=dict)
    """Imported offline depots: id -> URL."""

    def dump(self, world: t.Any) -> dict[str, t.Any]:
        """Plain JSON types, in a fixed order; nothing of clusters that are gone."""
        return {
            "of": {moid: dataclasses.asdict(one) for moid, one in sorted(self.of.items()) if moid in world.objects},
            "drafts": {
                key: dataclasses.asdict(one) for key, one in sorted(self.drafts.items()) if one.cluster in world.objects
            },
            "depots": dict(sorted(self.depots.items())),
        }

    @classmethod
    def load(cls, data: dict[str, t.Any]) -> Images:
        """The reverse of `dump`."""
        return cls(
            {moid: Image(**one) for moid, one in data.get("of", {}).items()},
            {
                key: Draft(one["cluster"], one["owner"], Image(**one["image"]))
                for key, one in data.get("drafts", {}).items()
            },
            dict(data.get("depots", {})),
        )


def components(site: Site) -> dict[tuple[str, str], Package]:
    """The components that the imported depots have, by name and version."""
    packages = (package for url in site.images.depots.values() for package in site.depots.get(url, ()))
    return {(package.name, package.version): package for package in packages}


def base_of(host: HostSystem) -> str:
    """Version of the base image that a host runs."""
    return f"{host.make.esxi_version}-0.0.{host.make.esxi_build}"


def initial(cluster: Cluster) -> Image:
    """The image of a cluster that begins to be managed by one: its first host's base, no components."""
    return Image(next((base_of(host) for host in cluster.hosts.values()), "8.0.3-0.0.24022510"))


def problems(site: Site, image: Image) -> list[str]:
    """Why an image cannot be used: components that no imported depot has."""
    offered = components(site)
    return [
        f"Component {name} of version {version} is not in any depot."
        for name, version in sorted(image.components.items())
        if (name, version) not in offered
    ]


def is_compliant(host: HostSystem, image: Image) -> bool:
    """Whether a host has what the image says, and has rebooted since."""
    installed = {package.name: package.version for package in host.packages.values()}
    return installed == image.components and not host.graphics.waits_for_boot


async def remediate(ctx: Context, host: HostSystem, image: Image) -> None:
    """Bring a host to an image: maintenance mode, software, reboot, and back. Raises the fault of what fails."""
    from vsphere_simulator.world import maintenance
    from vsphere_simulator.world.patches import software_changed

    offered = components(host.site)
    host.require_connected()
    entered = not host.in_maintenance
    if entered:
        if (blocking := maintenance.in_the_way(host)) and not host.cluster.drs.moves:
            names = ", ".join(vm.name for vm in blocking)
            raise vim.fault.InvalidState(msg=f"Host {host.name} cannot enter maintenance mode: {names} run on it.")
        await _end_of(ctx, maintenance.enter(ctx, host, 0, False))
    await ctx.world.clock.sleep(host.site.timings.install)
    host.require_connected()
    host.packages = {name: offered[name, version] for name, version in sorted(image.components.items())}
    software_changed(host)
    await _end_of(ctx, maintenance.reboot(ctx, host, False))
    if host.boot_job is not None:
        await asyncio.shield(host.boot_job)
    host.require_connected()
    if entered:
        await _end_of(ctx, maintenance.leave(ctx, host, 0))


async def _end_of(ctx: Context, reference: t.Any) -> None:
    """Wait for a task; cancelling the wait cancels the task. Raises the task's error."""
    task: Task = ctx.world.get(reference)
    assert task.job is not None  # noqa: S101 - a started task has one
    try:
        await asyncio.shield(task.job)
    except asyncio.CancelledError:
        task.cancelled = True
        task.job.cancel()
        raise
    if task.error is not None:
        raise task.error
