"""A large first answer to WaitForUpdatesEx: others have their turn, and what changes meanwhile is not lost."""

from __future__ import annotations

import asyncio
import re
import typing as t

from inventory import HEAD, Inventory, simulate
from pyVmomi import vim, vmodl

MODEL = HEAD + (
    "clusters: [{name: c, hosts: [{name: 'esx-[1:4]', vms: [{name: '{host}-vm-[001:300]', disks_gb: [1]}]}]}]"
)
_query = vmodl.query.PropertyCollector


def text(answer: t.Any) -> str:
    assert answer is not None
    return b"".join(answer).decode()


def test_a_large_first_answer_lets_others_have_their_turn() -> None:
    async def scenario(lab: Inventory) -> None:
        collector = lab.world.content["propertyCollector"]
        views = lab.world.content["viewManager"]
        root = lab.world.root
        view = lab.call(views, "CreateContainerView", container=root, type=[vim.VirtualMachine], recursive=True)
        follow = _query.TraversalSpec(name="v", type=vim.view.ContainerView, path="view", skip=False)
        spec = _query.FilterSpec(
            propSet=[_query.PropertySpec(type=vim.VirtualMachine, pathSet=["name", "config.annotation"])],
            objectSet=[_query.ObjectSpec(obj=view.ref, skip=True, selectSet=[follow])],
        )
        lab.call(collector, "CreateFilter", spec=spec, partial_updates=False)
        options = _query.WaitOptions(maxWaitSeconds=1)
        job = asyncio.ensure_future(lab.call(collector, "WaitForUpdatesEx", version="", options=options))
        turns = 0
        last, changed = lab["esx-4-vm-300"], lab["esx-1-vm-001"]
        while not job.done():
            await asyncio.sleep(0)
            turns += 1
            if turns == 2:  # the answer is being written: its beginning is, its end is not
                last.vanish()
                changed.name = "renamed"
                changed.renamed()
        assert turns > 5
        first = text(job.result())
        assert first.count("<kind>enter</kind>") == 1199
        assert "<kind>leave</kind>" not in first
        (version,) = re.findall(r"<version>(\d+)</version>", first)
        second = text(await lab.call(collector, "WaitForUpdatesEx", version=version, options=options))
        assert "renamed" in first + second
        assert f'<obj type="VirtualMachine">{last.moid}</obj>' not in first

    simulate(MODEL, scenario)
