# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A drain follows the plan's targets as far as there is room, also where DRS or more memory would choose otherwise."""

from __future__ import annotations

import pytest
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.drain import (
    DrainFacts,
    DrainPolicy,
    Guest,
    Target,
    plan_drain,
)


@pytest.mark.parametrize(
    ("targets", "drs", "small_mb", "to"),
    [
        ({}, False, 100, "large"),
        ({}, True, 100, None),
        ({"vm": "small"}, False, 100, "small"),
        ({"vm": "small"}, True, 100, "small"),
        ({"vm": "small"}, True, 5, "large"),
        ({"vm": "gone"}, False, 100, "large"),
    ],
)
def test_targets(targets: dict[str, str], drs: bool, small_mb: int, to: str | None) -> None:
    hosts = {
        name: Target(name, f"host-{name}", "gpu", True, memory)
        for name, memory in (("old", 500), ("large", 1000), ("small", small_mb))
    }
    guest = Guest("vm", "vm-1", "old", "poweredOn", memory_mb=10, drs_moves=drs)
    found = plan_drain(["old"], DrainFacts((guest,), hosts), DrainPolicy(targets=targets))["old"]
    if to is None:
        assert (found.drs, found.drains) == (("vm",), ())
    else:
        assert not found.drs
        assert [drain.ways[0].target for drain in found.drains] == [to]
