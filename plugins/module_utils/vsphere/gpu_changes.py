# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Carry out the plans of vm_gpu: power off what must be, one reconfigure each, power on again.

Before a virtual machine is powered off its intent is written to it, and cleared when it runs again: whatever
happens in between, the next run powers it on.
"""

from __future__ import annotations

import dataclasses
import typing as t

from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.attach import ACTION, GpuPlan
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.facts import HostFacts, Intent, VmFacts
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.plan import Problem
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.client import Client
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.intents import now, write_intents
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.module import Applied, problem
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.pyvmomi import vim
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.tasks import Bounds, TaskOutcome
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.vm_power import lanes_of, power_on_in_turn
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.vms import (
    power_off,
    reconfigure,
    wait_for_tasks,
)


@dataclasses.dataclass(frozen=True, slots=True)
class Seen:
    """What the vCenter has at one moment, and what follows from it."""

    vms: t.Mapping[str, VmFacts]
    hosts: t.Mapping[str, HostFacts]
    plans: t.Mapping[str, GpuPlan]


Look = t.Callable[[], Seen]
"""Read everything again and plan anew."""

# Errors after which it is unknown whether a guest still shuts down: the intent stays.
_GOES_ON = ("guest_timeout", "timeout", "interrupted", "connection_lost")


def apply_gpu_plans(
    client: Client,
    names: t.Sequence[str],
    seen: Seen,
    look: Look,
    bounds: Bounds,
    *,
    run: str,
    force: bool,
    guest_timeout: float,
) -> dict[str, Applied]:
    """Carry out the plans of these virtual machines."""
    return _Work(client, names, seen, look, bounds).run(run, force, guest_timeout)


class _Work:
    def __init__(self, client: Client, names: t.Sequence[str], seen: Seen, look: Look, bounds: Bounds) -> None:
        self.client = client
        self.names = names
        self.seen = seen
        self.look = look
        self.bounds = bounds
        self.failures: dict[str, list[Problem]] = {name: [] for name in names}
        self.changed: set[str] = set()

    def run(self, run: str, force: bool, guest_timeout: float) -> dict[str, Applied]:
        plans = {name: self.seen.plans[name] for name in self.names}
        cycled = [name for name in self.names if plans[name].power_off]
        off, failed = self._power_off(cycled, run, force, guest_timeout)
        if off:
            # Powering off changes the version of a configuration: plan from what is there now.
            self.seen = self.look()
            plans = {name: plans[name] if name in failed else self.seen.plans[name] for name in self.names}
            for name in self.names:
                if name not in failed and plans[name].plan.failed:
                    self.failures[name].extend(plans[name].plan.problems)
        edits = {name: plan.edit for name, plan in plans.items() if plan.edit is not None}
        self._reconfigure({name: edit for name, edit in edits.items() if name not in failed}, failed)
        on = [name for name in self.names if name in off or (plans[name].power_on and name not in failed)]
        self._power_on(on)
        done = [name for name in self.names if plans[name].clear and name not in cycled and name not in on]
        self._write({name: None for name in [*done, *on] if name in done or self._runs(name)})
        return {
            name: Applied(
                name in self.changed,
                tuple(found),
                {"power": seen.power} if found and (seen := self.seen.vms.get(name)) else {},
            )
            for name, found in self.failures.items()
        }

    def _runs(self, name: str) -> bool:
        return not any(found.code == "not_powered_on_again" for found in self.failures[name])

    def _power_off(
        self, names: t.Sequence[str], run: str, force: bool, guest_timeout: float
    ) -> tuple[list[str], dict[str, TaskOutcome]]:
        """Those that are off now, and how it failed for the others."""
        if not names:
            return [], {}
        mine = Intent(run=run, action=ACTION, started=now())
        marked = self._write(dict.fromkeys(names, mine))
        failed = {name: outcome for name, outcome in marked.items() if not outcome.ok}
        moids = {name: self.seen.vms[name].moid for name in names if name not in failed}
        outcomes = power_off(self.client, moids, self.bounds, force=force, guest_timeout=guest_timeout)
        off = [name for name in moids if outcomes[name].ok]
        self.changed.update(off)
        failed |= {name: outcomes[name] for name in moids if not outcomes[name].ok}
        for name in moids:
            self._failed(name, outcomes[name])
        # Nothing was begun there: it is as it was.
        still = [name for name in moids if (error := outcomes[name].error) is not None and error.code not in _GOES_ON]
        self._write(dict.fromkeys(still))
        return off, failed

    def _reconfigure(self, edits: t.Mapping[str, t.Any], failed: t.Mapping[str, TaskOutcome]) -> None:
        outcomes = reconfigure(self.client, self.seen.vms, self.seen.hosts, edits, self.bounds, failed=failed)
        refused = [
            name
            for name, outcome in outcomes.items()
            if outcome.error is not None and outcome.error.fault in ("TaskInProgress", "ConcurrentAccess")
        ]
        if refused:
            # A run that was killed may have left its reconfigure going on: what it did need not be done again, and
            # what is still left to do is planned anew. Anybody else's change is only reported.
            busy = wait_for_tasks(self.client, {name: self.seen.vms[name].moid for name in refused}, self.bounds)
            later = self.look()
            fits = [name for name in refused if later.plans[name].edit is None and not later.plans[name].plan.failed]
            outcomes |= {name: TaskOutcome() for name in fits}
            again = {name: edit for name in busy if name in refused and (edit := later.plans[name].edit) is not None}
            outcomes |= reconfigure(self.client, later.vms, later.hosts, again, self.bounds)
        for name, outcome in outcomes.items():
            self._failed(name, outcome)
            if (
                outcome.ok
                or outcome.begun
                or (outcome.error and outcome.error.code == "timeout" and not outcome.error.fault)
            ):
                self.changed.add(name)

    def _power_on(self, names: t.Sequence[str]) -> None:
        moids = {name: self.seen.vms[name].moid for name in names}
        lanes = lanes_of({name: self.seen.plans[name].predicted or self.seen.vms[name] for name in names})
        outcomes = power_on_in_turn(self.client, moids, self.bounds, lanes, list) if moids else {}
        for name, outcome in outcomes.items():
            if outcome.ok:
                self.changed.add(name)
            elif outcome.error is not None:
                text = (
                    f"{problem(name, outcome.error).msg} It was powered off to be reconfigured, and is still off: run"
                )
                found = dataclasses.replace(problem(name, outcome.error), msg=f"{text} again once this is solved.")
                self.failures[name].append(dataclasses.replace(found, code="not_powered_on_again"))

    def _write(self, intents: t.Mapping[str, Intent | None]) -> dict[str, TaskOutcome]:
        refs = {
            name: (self.client.ref(vim.VirtualMachine, self.seen.vms[name].moid), intent)
            for name, intent in intents.items()
        }
        outcomes = write_intents(self.client, refs, max_parallel=self.bounds.max_parallel)
        for name, outcome in outcomes.items():
            self._failed(name, outcome)
            if outcome.ok:
                self.changed.add(name)
        return outcomes

    def _failed(self, name: str, outcome: TaskOutcome) -> None:
        if outcome.error is not None:
            self.failures[name].append(problem(name, outcome.error))
