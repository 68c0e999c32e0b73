"""A rule about a task, seen from inside: it runs up to the per cent asked for, and not further."""

from __future__ import annotations

import typing as t

import pytest
from inventory import TWO_V100, Inventory, simulate

from vsphere_simulator.injection import FaultRule
from vsphere_simulator.kernel.tasks import Task, next_task_rule
from vsphere_simulator.vmomi import vmodl


class Watching:
    """A listener that notes how far tasks come."""

    def __init__(self) -> None:
        self.seen: list[int | None] = []

    def object_added(self, obj: t.Any) -> None:
        pass

    def object_removed(self, obj: t.Any) -> None:
        pass

    def object_changed(self, obj: t.Any, paths: tuple[str, ...]) -> None:
        if isinstance(obj, Task) and "info.progress" in paths:
            self.seen.append(obj.percent)


@pytest.mark.parametrize(("at", "seen"), [(0, []), (60, [25, 50]), (100, [25, 50, 75, 95])])
def test_a_task_fails_where_it_should(at: int, seen: list[int]) -> None:
    async def scenario(lab: Inventory) -> None:
        watching = Watching()
        lab.world.listeners.append(watching)
        mark = next_task_rule.set(FaultRule(method="PowerOnVM_Task", fail_task_at=at))
        try:
            with pytest.raises(vmodl.fault.SystemError, match="injected"):
                await lab.run(lab["vm-1"], "PowerOnVM_Task")
        finally:
            next_task_rule.reset(mark)
        assert watching.seen == seen
        if at < 100:
            assert lab["vm-1"].power == "poweredOff"
        await lab.run(lab["vm-2"], "PowerOnVM_Task")

    simulate(TWO_V100, scenario)
