# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What is done to ESXi hosts: passthrough, maintenance mode, reboot; for many hosts at once."""

from __future__ import annotations

import functools
import time
import typing as t

from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.facts import Intent
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.passthrough import DeviceUpdate
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.power import RebootStep, rebooted
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.client import Client
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.collector import (
    paths,
    retrieve,
    start,
    watch,
)
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.convert import iso
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.errors import (
    GpuOpsError,
    InterruptedRunError,
    ObjectGoneError,
    OperationTimeoutError,
)
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.host_managers import Managers, Moids
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.host_tasks import (
    REBOOT,
    already_started,
    read_tasks,
)
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.intents import write_intents
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.pyvmomi import vim
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.tasks import (
    Bounds,
    TaskOutcome,
    run_calls,
    run_tasks,
)


def update_passthrough(
    client: Client, moids: Moids, updates: t.Mapping[str, t.Sequence[DeviceUpdate]], *, max_parallel: int
) -> dict[str, TaskOutcome]:
    """One `UpdatePassthruConfig` for each host, with the devices that change and no others."""
    managers = Managers(client, {name: moids[name] for name in updates}, "pciPassthruSystem")

    def call(name: str, wanted: t.Sequence[DeviceUpdate]) -> t.Callable[[], None]:
        config = [
            vim.host.PciPassthruConfig(
                id=update.address,
                passthruEnabled=update.enabled,
                applyNow=update.apply_now,
                hardwareLabel=update.hardware_label,
            )
            for update in wanted
        ]
        return lambda: managers.of(name, "pciPassthruSystem").UpdatePassthruConfig(config)

    return run_calls(
        client,
        {name: call(name, wanted) for name, wanted in updates.items()},
        max_parallel=max_parallel,
        doing="set passthrough",
    )


def still_pending(client: Client, moids: Moids, addresses: t.Mapping[str, t.Collection[str]]) -> dict[str, list[str]]:
    """The functions of each host whose passthrough is set and not in effect, of those named; one request for all.

    A host may say that it can rebind devices at once and yet not do it, for example for a device in use.
    """
    names = {moids[name]: name for name in addresses}
    refs = [client.ref(vim.HostSystem, host) for host in names]
    path = "config.pciPassthruInfo"
    rows = retrieve(client, lambda: [start(ref) for ref in refs], [paths(vim.HostSystem, path)]) if refs else []
    return {
        names[row.moid]: sorted(
            info.id
            for info in row.props.get(path) or ()
            if info.id in addresses[names[row.moid]] and bool(info.passthruEnabled) != bool(info.passthruActive)
        )
        for row in rows
    }


def apply_reboots(
    client: Client, moids: Moids, steps: t.Mapping[str, RebootStep], *, force: bool, timeout: float, max_parallel: int
) -> dict[str, TaskOutcome]:
    """Carry out the steps: store boot times, reboot or wait, clear intents that are for the reboot alone."""
    bounds = Bounds(time.monotonic() + timeout, max_parallel)
    outcomes = {name: TaskOutcome() for name in steps}
    advance(
        outcomes,
        (name for name, step in steps.items() if step.write is not None),
        lambda names: write(client, moids, {name: steps[name].write for name in names}, bounds),
    )
    advance(
        outcomes,
        (name for name, step in steps.items() if step.wait_beyond is not None),
        lambda names: _reboot(client, moids, {name: steps[name] for name in names}, force, bounds),
    )
    advance(
        outcomes,
        (name for name, step in steps.items() if step.clear),
        lambda names: write(client, moids, dict.fromkeys(names), bounds),
    )
    return outcomes


def advance(
    outcomes: dict[str, TaskOutcome],
    names: t.Iterable[str],
    step: t.Callable[[list[str]], t.Mapping[str, TaskOutcome]],
) -> None:
    """Take the named objects that have not failed one step further."""
    outcomes.update(step([name for name in names if outcomes[name].ok]))


def write(
    client: Client, moids: Moids, intents: t.Mapping[str, Intent | None], bounds: Bounds
) -> dict[str, TaskOutcome]:
    """Set the intents of hosts, or clear them with None."""
    refs = {name: client.ref(vim.HostSystem, moids[name]) for name in intents}
    return write_intents(
        client, {name: (refs[name], intent) for name, intent in intents.items()}, max_parallel=bounds.max_parallel
    )


def _reboot(
    client: Client, moids: Moids, steps: t.Mapping[str, RebootStep], force: bool, bounds: Bounds
) -> dict[str, TaskOutcome]:
    """Reboot hosts, or wait for those that go through a reboot already, until they answer with a later boot time."""
    timeout = bounds.left

    def starter(name: str) -> t.Callable[[], t.Any]:
        host = client.ref(vim.HostSystem, moids[name])
        return lambda: host.Reboot(force)

    outcomes = {name: TaskOutcome() for name in steps}
    # Where an earlier run recorded the reboot, its task may still be about to take the host down.
    recorded = {name: moids[name] for name, step in steps.items() if step.reboot and step.write is None}
    begun = read_tasks(client, recorded, REBOOT).running if recorded else {}
    outcomes |= run_tasks(
        client,
        {
            name: functools.partial(already_started, begun[name]) if name in begun else starter(name)
            for name, step in steps.items()
            if step.reboot
        },
        timeout=bounds.left,
        max_parallel=bounds.max_parallel,
        doing="reboot",
    )
    waiting = {moids[name]: name for name, outcome in outcomes.items() if outcome.ok}
    for name in waiting.values():
        client.progress.tell(name, "wait until it is back")

    def observe(host: str, values: dict[str, t.Any]) -> bool:
        if values.get("gone"):
            outcomes[waiting[host]] = TaskOutcome(error=_removed(waiting[host]), begun=True)
            return True
        before = steps[waiting[host]].wait_beyond
        boot_time = iso(values.get("runtime.bootTime"))
        connected = str(values.get("runtime.connectionState")) == "connected"
        back = connected and boot_time is not None and (before is None or rebooted(before, boot_time))
        if back:
            client.progress.tell(waiting[host], "wait until it is back", ended=True)
        return back

    refs = [client.ref(vim.HostSystem, host) for host in waiting]
    try:
        names = ("runtime.connectionState", "runtime.bootTime")
        late = set() if client.interrupted else watch(client, refs, vim.HostSystem, names, observe, timeout=bounds.left)
        for host in late:
            outcomes[waiting[host]] = TaskOutcome(error=_not_back(waiting[host], timeout), begun=True)
    except KeyboardInterrupt:
        client.interrupted = True
    except GpuOpsError as error:
        for name in waiting.values():
            outcomes[name] = TaskOutcome(error=error, begun=True)
    if client.interrupted:
        for name in waiting.values():
            outcomes[name] = TaskOutcome(error=_interrupted(name), begun=True)
    return outcomes


def _not_back(name: str, timeout: float) -> OperationTimeoutError:
    return OperationTimeoutError(
        f"{name}: the host is not back from its reboot after {timeout:.0f} s. Look at its console. Run again to go on "
        "waiting: it is not rebooted a second time.",
        object=name,
    )


def _removed(name: str) -> ObjectGoneError:
    return ObjectGoneError(f"{name}: somebody removed the host from the vCenter while it rebooted.", object=name)


def _interrupted(name: str) -> InterruptedRunError:
    return InterruptedRunError(f"{name}: interrupted while the host reboots. Run again to wait for it.", object=name)
