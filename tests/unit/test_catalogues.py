"""The collection and the simulator keep a GPU catalogue each, since neither imports the other; they must agree."""

from __future__ import annotations

import pytest
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.catalog import Catalog

from vsphere_simulator.world.catalog import CATALOG


@pytest.mark.parametrize("key", sorted(CATALOG.by_key))
def test_a_gpu_is_the_same_device_with_the_same_bars_in_both(key: str) -> None:
    simulated = CATALOG.by_key[key]
    known = Catalog().get(simulated.pci)
    assert known is not None
    assert (known.key, known.board) == (key, simulated.board)
    assert known.bars_mb == simulated.bars_mb
    assert known.framebuffer_gb == simulated.framebuffer_gb
    assert known.vgpu is not None
    assert dict(known.vgpu.equal) == simulated.equal
    assert dict(known.vgpu.mixed) == simulated.mixed
    for size in simulated.mixed:
        assert known.vgpu.starts(size, simulated.framebuffer_gb) == simulated.starts(size)
