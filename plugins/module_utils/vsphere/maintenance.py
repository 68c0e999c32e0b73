# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Hosts into and out of maintenance mode, with the virtual machines in their way; for many hosts at once."""

from __future__ import annotations

import dataclasses
import functools
import typing as t

from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.drain import Restore, plan_restore
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.facts import HostFacts, Intent
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.maintenance import ACTION, MaintenanceStep
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.ownership import DRAINING, ENTERING
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.client import Client
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.drains import (
    DrainSettings,
    drain,
    read_drained,
    restore,
)
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.errors import GpuOpsError, OperationFailedError
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.host_managers import Moids
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.host_tasks import (
    ENTER,
    LEAVE,
    already_started,
    read_tasks,
)
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.hosts import advance, write
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.intents import vcenter_time
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.pyvmomi import vim
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.tasks import (
    Bounds,
    TaskOutcome,
    may_go_on,
    run_tasks,
)

_DOING = {ENTER: "enter maintenance mode", LEAVE: "leave maintenance mode"}

_MARGIN_S = 2


def apply_maintenance(
    client: Client,
    hosts: t.Mapping[str, HostFacts],
    steps: t.Mapping[str, MaintenanceStep],
    *,
    settings: DrainSettings,
    targets: Moids,
    bounds: Bounds,
) -> dict[str, TaskOutcome]:
    """Carry out the steps; a host that fails stops where it is, and what was moved out of its way comes back.

    `targets` are the ids of the hosts that virtual machines are migrated to.
    """
    return _Maintenance(client, hosts, steps, settings, targets, bounds).run()


class _Maintenance:
    """One call of the above: each method takes all hosts that have got that far one step further."""

    def __init__(
        self,
        client: Client,
        hosts: t.Mapping[str, HostFacts],
        steps: t.Mapping[str, MaintenanceStep],
        settings: DrainSettings,
        targets: Moids,
        bounds: Bounds,
    ) -> None:
        self.client = client
        self.hosts = hosts
        self.moids = {name: hosts[name].moid for name in steps}
        self.steps = steps
        self.settings = settings
        self.targets = targets
        self.bounds = bounds
        self.outcomes = {name: TaskOutcome() for name in steps}

    def run(self) -> dict[str, TaskOutcome]:
        """All steps in their order."""
        _wait_for_earlier(
            self.client, self.moids, [name for name, step in self.steps.items() if step.settle], LEAVE, self.bounds
        )
        entering = [name for name, step in self.steps.items() if step.enter]
        self._drain([name for name in entering if self.steps[name].drain])
        advance(self.outcomes, entering, lambda names: self._mark(names, ENTERING))
        begun = [name for name in entering if self.outcomes[name].ok]
        advance(self.outcomes, begun, self._enter)
        keeping = [name for name, step in self.steps.items() if step.write is not None]
        advance(self.outcomes, keeping, self._keep)
        self._leave_all()
        # Where entering has surely failed, nothing of ours is left on the host; where it goes on, the intent stays.
        self._give_up([name for name in entering if not self.outcomes[name].ok and not may_go_on(self.outcomes[name])])
        return self.outcomes

    def _mark(self, names: t.Sequence[str], action: str) -> dict[str, TaskOutcome]:
        kept = {name: intent for name in names if (intent := self.steps[name].write) is not None}
        marks = {name: dataclasses.replace(intent, action=action) for name, intent in kept.items()}
        return _mark(self.client, self.moids, marks, self.bounds)

    def _keep(self, names: t.Sequence[str]) -> dict[str, TaskOutcome]:
        return write(self.client, self.moids, {name: self.steps[name].write for name in names}, self.bounds)

    def _drain(self, names: t.Sequence[str]) -> None:
        advance(self.outcomes, names, lambda todo: self._mark(todo, DRAINING))
        work = {name: self.steps[name].drain for name in names if self.outcomes[name].ok}
        done = drain(self.client, work, self.targets, self.settings, self.bounds)
        self.outcomes |= {name: _together(name, machines, "drain it") for name, machines in done.items()}

    def _enter(self, names: t.Sequence[str]) -> dict[str, TaskOutcome]:
        return _enter(self.client, {name: self.moids[name] for name in names}, self.bounds)

    def _leave_all(self) -> None:
        leaving = [name for name, step in self.steps.items() if step.leave]
        # Of the hosts that seem to be in service, a killed run's task may bring some into maintenance mode still.
        in_service = [name for name, step in self.steps.items() if step.clear and not step.leave]
        leaving += _wait_for_earlier(self.client, self.moids, in_service, ENTER, self.bounds)
        marks = {name: mark for name in leaving if (mark := self.steps[name].mark) is not None}
        advance(
            self.outcomes,
            marks,
            lambda names: _mark(self.client, self.moids, {name: marks[name] for name in names}, self.bounds),
        )
        leaving = [name for name in leaving if self.outcomes[name].ok]
        advance(
            self.outcomes,
            leaving,
            lambda names: _leave(self.client, {name: self.moids[name] for name in names}, self.bounds),
        )
        # Where leaving has surely failed, the host is in our maintenance mode, however long from now it is looked at.
        stayed = [name for name in leaving if not self.outcomes[name].ok and not may_go_on(self.outcomes[name])]
        kept = {name: dataclasses.replace(marks[name], action=ACTION) for name in stayed if name in marks}
        write(self.client, self.moids, kept, self.bounds)
        restores = {name: step.restore for name, step in self.steps.items() if step.restore}
        advance(self.outcomes, restores, lambda names: self._restore({name: restores[name] for name in names}))
        # The host's mark goes last: while there is something to restore, the host counts as unfinished.
        advance(
            self.outcomes,
            [name for name, step in self.steps.items() if step.clear],
            lambda names: write(self.client, self.moids, dict.fromkeys(names), self.bounds),
        )

    def _restore(self, work: t.Mapping[str, t.Sequence[Restore]]) -> dict[str, TaskOutcome]:
        done = restore(self.client, work, {name: self.moids[name] for name in work}, self.bounds)
        return {name: _together(name, machines, "restore its virtual machines") for name, machines in done.items()}

    def _give_up(self, names: t.Sequence[str]) -> None:
        """Bring back what was moved out of the way of hosts that do not enter, and clear their marks."""
        moved = [name for name in names if self.steps[name].drain and self.settings.mark]
        back: dict[str, TaskOutcome] = {}
        if moved:
            try:
                drained = read_drained(self.client, {name: self.hosts[name] for name in moved})
            except GpuOpsError as error:
                back = {name: TaskOutcome(error=error) for name in moved}
            else:
                facts = {name: dataclasses.replace(self.hosts[name], drained=drained.get(name, ())) for name in moved}
                back = self._restore({name: plan_restore(host) for name, host in facts.items() if host.drained})
        write(
            self.client,
            self.moids,
            {name: None for name in names if back.get(name, TaskOutcome()).ok},
            self.bounds,
        )


def _together(host: str, machines: t.Mapping[str, TaskOutcome], doing: str) -> TaskOutcome:
    """How it went for a host, from how it went for its virtual machines."""
    failed = {name: outcome for name, outcome in machines.items() if not outcome.ok}
    if not failed:
        return TaskOutcome()
    open_ended = [outcome for outcome in failed.values() if may_go_on(outcome)]
    errors = [(name, outcome.error) for name, outcome in failed.items() if outcome.error is not None]
    told = " ".join(f"{name}: {error.msg.removeprefix(f'{name}: ')}" for name, error in errors)
    first = next((outcome.error for outcome in open_ended if outcome.error is not None), errors[0][1])
    error = OperationFailedError(f"{host}: could not {doing}. {told}", code=first.code, object=host, fault=first.fault)
    return TaskOutcome(error=error, begun=bool(open_ended))


def _mark(client: Client, moids: Moids, marks: t.Mapping[str, Intent], bounds: Bounds) -> dict[str, TaskOutcome]:
    """Store intents with the vCenter's time, which the times of its tasks can be compared with."""
    if not marks:
        return {}
    started = vcenter_time(client)
    return write(client, moids, {n: dataclasses.replace(mark, started=started) for n, mark in marks.items()}, bounds)


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
            {name: functools.partial(already_started, task) for name, task in state.running.items()},
            timeout=bounds.left,
            max_parallel=bounds.max_parallel,
            doing=doing,
        )
        state = read_tasks(client, {name: moids[name] for name in refused}, kind)
    done = {name for name in refused if (name in state.in_maintenance) == wanted}
    return {name: TaskOutcome() if name in done else outcome for name, outcome in outcomes.items()}


def _wait_for_earlier(client: Client, moids: Moids, names: t.Sequence[str], kind: str, bounds: Bounds) -> list[str]:
    """Wait for tasks of a kind that killed runs have left going on; the hosts where one has ended well."""
    running = read_tasks(client, {name: moids[name] for name in names}, kind).running if names else {}
    ended = run_tasks(
        client,
        {name: functools.partial(already_started, task) for name, task in running.items()},
        timeout=bounds.left,
        max_parallel=bounds.max_parallel,
        doing=_DOING[kind],
    )
    return [name for name, outcome in ended.items() if outcome.ok]
