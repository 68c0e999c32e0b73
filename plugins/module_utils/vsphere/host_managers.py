# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The parts of a host that its settings are changed by (HostConfigManager), found for many hosts in one request."""

from __future__ import annotations

import typing as t

from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.facts import GraphicsConfig
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.client import Client
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.collector import moid, paths, retrieve, start
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.errors import ObjectGoneError
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.pyvmomi import vim
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.tasks import TaskOutcome, run_calls

Moids = t.Mapping[str, str]
"""Managed object ids by host name."""


class Managers:
    """`configManager.<names>` of some hosts."""

    def __init__(self, client: Client, moids: Moids, *names: str) -> None:
        """Read the references. Raises GpuOpsError."""
        self._moids = moids
        self._paths = {name: f"configManager.{name}" for name in names}
        refs = [client.ref(vim.HostSystem, host) for host in moids.values()]
        rows = retrieve(
            client, lambda: [start(ref) for ref in refs], [paths(vim.HostSystem, "name", *self._paths.values())]
        )
        self._found = {row.moid: row.props for row in rows}
        # A privilege that is missing is reported on this part of the host; to people it is the host.
        for host, props in self._found.items():
            for path in self._paths.values():
                if path in props:
                    client.names[str(moid(props[path]))] = client.names.get(host, host)

    def of(self, host: str, name: str) -> t.Any:
        """One part of a host. Raises ObjectGoneError where the host has none (any more)."""
        ref = self._found.get(self._moids[host], {}).get(self._paths[name])
        if ref is None:
            raise ObjectGoneError(
                f"{host}: the vCenter no longer knows the host's {name}. Run again when the host answers.", object=host
            )
        return ref


def update_graphics(
    client: Client,
    moids: Moids,
    configs: t.Mapping[str, GraphicsConfig],
    services: t.Mapping[str, t.Sequence[str]],
    *,
    max_parallel: int,
) -> dict[str, TaskOutcome]:
    """One `UpdateGraphicsConfig` for each host, then a restart of the services named for it."""
    managers = Managers(client, {name: moids[name] for name in configs}, "graphicsManager", "serviceSystem")
    kind: t.Any = vim.host.GraphicsConfig

    def update(name: str) -> t.Callable[[], None]:
        wanted = configs[name]
        config = kind(
            hostDefaultGraphicsType=wanted.default_type,
            sharedPassthruAssignmentPolicy=wanted.assignment_policy,
            deviceType=[
                kind.DeviceType(deviceId=gpu.address, graphicsType=gpu.graphics_type, vgpuMode=gpu.vgpu_mode)
                for gpu in wanted.devices
            ],
        )
        return lambda: managers.of(name, "graphicsManager").UpdateGraphicsConfig(config)

    outcomes = run_calls(
        client, {name: update(name) for name in configs}, max_parallel=max_parallel, doing="set the graphics"
    )
    restarts = {name: services[name] for name, outcome in outcomes.items() if outcome.ok and services.get(name)}
    return outcomes | _restart(client, managers, restarts, max_parallel)


def _restart(
    client: Client, managers: Managers, services: t.Mapping[str, t.Sequence[str]], max_parallel: int
) -> dict[str, TaskOutcome]:
    def restart(name: str) -> t.Callable[[], None]:
        def call() -> None:
            for service in services[name]:
                managers.of(name, "serviceSystem").RestartService(service)

        return call

    outcomes = run_calls(
        client, {name: restart(name) for name in services}, max_parallel=max_parallel, doing="restart its services"
    )
    # The graphics are set by now, whatever became of the service.
    return {
        name: outcome if outcome.ok else TaskOutcome(error=outcome.error, begun=True)
        for name, outcome in outcomes.items()
    }
