# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What is done to ESXi hosts: passthrough, maintenance mode, reboot; for many hosts at once."""

from __future__ import annotations

import dataclasses
import functools
import time
import typing as t

from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.facts import Intent
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.maintenance import ACTION, MaintenanceStep
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
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.host_tasks import ENTER, LEAVE, REBOOT, read_tasks
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.intents import vcenter_time, write_intents
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.pyvmomi import vim
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.tasks import (
    Bounds,
    TaskOutcome,
    run_calls,
    run_tasks,
)

_DOING = {ENTER: "enter maintenance mode", LEAVE: "leave maintenance mode"}

_MARGIN_S = 2

# Codes of failures after which the vCenter may still carry on with what was begun.
_UNFINISHED = ("timeout", "interrupted", "connection_lost", "connection_failed")


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


def apply_maintenance(
    client: Client, moids: Moids, steps: t.Mapping[str, MaintenanceStep], *, timeout: float, max_parallel: int
) -> dict[str, TaskOutcome]:
    """Carry out the steps: store intents, enter or leave, clear intents; a host that fails stops where it is."""
    bounds = Bounds(time.monotonic() + timeout, max_parallel)
    outcomes = {name: TaskOutcome() for name in steps}
    _wait_for_earlier(client, moids, [name for name, step in steps.items() if step.settle], LEAVE, bounds)
    _advance(
        outcomes,
        (name for name, step in steps.items() if step.write is not None),
        lambda names: _write(client, moids, {name: steps[name].write for name in names}, bounds),
    )
    entering = [name for name, step in steps.items() if step.enter and outcomes[name].ok]
    _advance(outcomes, entering, lambda names: _enter(client, {name: moids[name] for name in names}, bounds))
    leaving = [name for name, step in steps.items() if step.leave]
    # Of the hosts that seem to be in service, a killed run's task may bring some into maintenance mode still.
    in_service = [name for name, step in steps.items() if step.clear and not step.leave]
    leaving += _wait_for_earlier(client, moids, in_service, ENTER, bounds)
    marks = {name: mark for name in leaving if (mark := steps[name].mark) is not None}
    _advance(outcomes, marks, lambda names: _mark(client, moids, {name: marks[name] for name in names}, bounds))
    leaving = [name for name in leaving if outcomes[name].ok]
    _advance(outcomes, leaving, lambda names: _leave(client, {name: moids[name] for name in names}, bounds))
    # Where leaving has surely failed, the host is in our maintenance mode, however long from now it is looked at.
    stayed = [name for name in leaving if not outcomes[name].ok and not _may_go_on(outcomes[name])]
    _write(client, moids, {n: dataclasses.replace(marks[n], action=ACTION) for n in stayed if n in marks}, bounds)
    # Where entering has surely failed, nothing of ours is left on the host; where it goes on, the intent stays.
    refused = [name for name in entering if not outcomes[name].ok and not _may_go_on(outcomes[name])]
    _write(client, moids, dict.fromkeys(refused), bounds)
    _advance(
        outcomes,
        (name for name, step in steps.items() if step.clear),
        lambda names: _write(client, moids, dict.fromkeys(names), bounds),
    )
    return outcomes


def apply_reboots(
    client: Client, moids: Moids, steps: t.Mapping[str, RebootStep], *, force: bool, timeout: float, max_parallel: int
) -> dict[str, TaskOutcome]:
    """Carry out the steps: store boot times, reboot or wait, clear intents that are for the reboot alone."""
    bounds = Bounds(time.monotonic() + timeout, max_parallel)
    outcomes = {name: TaskOutcome() for name in steps}
    _advance(
        outcomes,
        (name for name, step in steps.items() if step.write is not None),
        lambda names: _write(client, moids, {name: steps[name].write for name in names}, bounds),
    )
    _advance(
        outcomes,
        (name for name, step in steps.items() if step.wait_beyond is not None),
        lambda names: _reboot(client, moids, {name: steps[name] for name in names}, force, bounds),
    )
    _advance(
        outcomes,
        (name for name, step in steps.items() if step.clear),
        lambda names: _write(client, moids, dict.fromkeys(names), bounds),
    )
    return outcomes


def _advance(
    outcomes: dict[str, TaskOutcome],
    names: t.Iterable[str],
    step: t.Callable[[list[str]], t.Mapping[str, TaskOutcome]],
) -> None:
    """Take the named objects that have not failed one step further."""
    outcomes.update(step([name for name in names if outcomes[name].ok]))


def _may_go_on(outcome: TaskOutcome) -> bool:
    # With a fault the vCenter itself has ended the task.
    return outcome.error is not None and outcome.error.code in _UNFINISHED and outcome.error.fault is None


def _write(
    client: Client, moids: Moids, intents: t.Mapping[str, Intent | None], bounds: Bounds
) -> dict[str, TaskOutcome]:
    refs = {name: client.ref(vim.HostSystem, moids[name]) for name in intents}
    return write_intents(
        client, {name: (refs[name], intent) for name, intent in intents.items()}, max_parallel=bounds.max_parallel
    )


def _mark(client: Client, moids: Moids, marks: t.Mapping[str, Intent], bounds: Bounds) -> dict[str, TaskOutcome]:
    """Store intents with the vCenter's time, which the times of its tasks can be compared with."""
    if not marks:
        return {}
    started = vcenter_time(client)
    return _write(client, moids, {n: dataclasses.replace(mark, started=started) for n, mark in marks.items()}, bounds)


def _enter(client: Client, moids: Moids, bounds: Bounds) -> dict[str, TaskOutcome]:
    """Put hosts into maintenance mode; the vCenter gives up just before we do, so that nothing is left half done."""

    def starter(name: str) -> t.Callable[[], t.Any]:
        host = client.ref(vim.HostSystem, moids[name])
        return lambda: host.EnterMaintenanceMode(bounds.whole_seconds(margin=_MARGIN_S), False, None)

    return _change_mode(client, moids, starter, wanted=True, bounds=bounds)


def _leave(client: Client, moids: Moids, bounds: Bounds) -> dict[str, TaskOutcome]:
    """Take hosts out of maintenance mode."""

    def starter(name: str) -> t.Callable[[], t.Any]:
        host = client.ref(vim.HostSystem, moids[name])
        return lambda: host.ExitMaintenanceMode(bounds.whole_seconds())

    return _change_mode(client, moids, starter, wanted=False, bounds=bounds)


def _change_mode(
    client: Client,
    moids: Moids,
    starter: t.Callable[[str], t.Callable[[], t.Any]],
    *,
    wanted: bool,
    bounds: Bounds,
) -> dict[str, TaskOutcome]:
    kind = ENTER if wanted else LEAVE
    doing = _DOING[kind]
    outcomes = run_tasks(
        client,
        {name: starter(name) for name in moids},
        timeout=bounds.left,
        max_parallel=bounds.max_parallel,
        doing=doing,
    )
    # A killed run may have left its task going on: the vCenter then refuses a second one, or finds it done.
    refused = [
        name
        for name, outcome in outcomes.items()
        if outcome.error is not None and outcome.error.fault in ("InvalidState", "TaskInProgress")
    ]
    if not refused:
        return outcomes
    state = read_tasks(client, {name: moids[name] for name in refused}, kind)
    if state.running:
        run_tasks(
            client,
            {name: functools.partial(_already_started, task) for name, task in state.running.items()},
            timeout=bounds.left,
            max_parallel=bounds.max_parallel,
            doing=doing,
        )
        state = read_tasks(client, {name: moids[name] for name in refused}, kind)
    done = {name for name in refused if (name in state.in_maintenance) == wanted}
    return {name: TaskOutcome() if name in done else outcome for name, outcome in outcomes.items()}


def _already_started(task: t.Any) -> t.Any:
    return task


def _wait_for_earlier(client: Client, moids: Moids, names: t.Sequence[str], kind: str, bounds: Bounds) -> list[str]:
    """Wait for tasks of a kind that killed runs have left going on; the hosts where one has ended well."""
    running = read_tasks(client, {name: moids[name] for name in names}, kind).running if names else {}
    ended = run_tasks(
        client,
        {name: functools.partial(_already_started, task) for name, task in running.items()},
        timeout=bounds.left,
        max_parallel=bounds.max_parallel,
        doing=_DOING[kind],
    )
    return [name for name, outcome in ended.items() if outcome.ok]


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
            name: functools.partial(_already_started, begun[name]) if name in begun else starter(name)
            for name, step in steps.items()
            if step.reboot
        },
        timeout=bounds.left,
        max_parallel=bounds.max_parallel,
        doing="reboot",
    )
    waiting = {moids[name]: name for name, outcome in outcomes.items() if outcome.ok}

    def observe(host: str, values: dict[str, t.Any]) -> bool:
        if values.get("gone"):
            outcomes[waiting[host]] = TaskOutcome(error=_removed(waiting[host]), begun=True)
            return True
        before = steps[waiting[host]].wait_beyond
        boot_time = iso(values.get("runtime.bootTime"))
        connected = str(values.get("runtime.connectionState")) == "connected"
        return connected and boot_time is not None and (before is None or rebooted(before, boot_time))

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
