# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What is asked of the vCenter, and what is made of an answer with holes in it."""

from __future__ import annotations

import collections
import types
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.facts import HostFacts
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.passthrough import DeviceUpdate
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere import clones, host_managers, hosts, vms
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.pyvmomi import vim, vmodl
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.tasks import Bounds

FACTS = {f"esx-{n}": HostFacts(f"esx-{n}", f"host-{n}", "gpu", "connected", False, None) for n in range(3)}


@pytest.fixture
def client() -> Any:
    return types.SimpleNamespace(
        interrupted=False,
        names={},
        ref=lambda kind, moid: kind(moid),
        view=lambda _kind: vim.view.ContainerView("view-1"),
    )


def nothing(*_arguments: Any) -> list[Any]:
    return []


def selections(specs: list[Any]) -> Iterator[Any]:
    for spec in specs:
        yield spec
        yield from selections(getattr(spec, "selectSet", None) or [])


def test_each_traversal_is_defined_once(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def retrieve(_client: Any, objects: Callable[[], list[Any]], _properties: Any) -> list[Any]:
        asked.extend(objects())
        return []

    monkeypatch.setattr(clones, "retrieve", retrieve)
    clones.read_places(client, FACTS, {})
    traversal = vmodl.query.PropertyCollector.TraversalSpec
    defined: collections.Counter[str] = collections.Counter()
    for start in asked:
        used = [s for s in selections(start.selectSet) if s.name]
        here = [s.name for s in used if isinstance(s, traversal)]
        assert {s.name for s in used} == set(here)
        defined.update(here)
    assert list(defined.values()) == [1] * len(FACTS)


def test_hosts_that_tell_less_than_before_fail_one_by_one(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vms, "retrieve", nothing)
    monkeypatch.setattr(host_managers, "retrieve", nothing)
    offers = vms.host_offers(client, FACTS, Bounds(0, 2))
    assert {name: outcome.error and outcome.error.code for name, outcome in offers.items()} == dict.fromkeys(
        FACTS, "changed_meanwhile"
    )
    updates = {"esx-1": [DeviceUpdate("0000:3b:00.0", True, False, None)]}
    outcomes = hosts.update_passthrough(client, {"esx-1": "host-1"}, updates, max_parallel=1)
    assert outcomes["esx-1"].error is not None
    assert outcomes["esx-1"].error.code == "object_gone"
