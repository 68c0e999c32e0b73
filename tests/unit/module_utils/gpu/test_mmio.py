# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

import pytest
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.catalog import Catalog, GpuModel
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.mmio import (
    SIZE_GB,
    USE_64BIT,
    mmio_size_gb,
    needs_64bit,
    wanted_settings,
)
from hypothesis import given
from hypothesis import strategies as st

P100, V100_16, V100_32, T4 = "10de:15f8", "10de:1db4", "10de:1db6", "10de:1eb8"
A100_40, A100_80, A30, A40, A10 = "10de:20f1", "10de:20b5", "10de:20b7", "10de:2235", "10de:2236"
L4, L40, H100, H200 = "10de:27b8", "10de:26b5", "10de:2331", "10de:233b"


def boards(*ids: str) -> list[GpuModel]:
    return [Catalog().require(device_id) for device_id in ids]


@pytest.mark.parametrize(
    ("ids", "size"),
    [
        ([], 0),
        ([T4], 0),
        ([T4] * 4, 0),
        ([T4] * 12, 0),  # 3.6 GB
        ([T4] * 13, 4),  # 3.9 GB no longer fits below 4 GB
        ([P100], 32),
        ([P100, P100], 64),
        ([V100_16, V100_16], 64),
        ([V100_32], 64),
        ([V100_32, V100_32], 128),
        ([A30], 64),
        ([A10], 64),
        ([L4], 64),
        ([A100_40], 128),
        ([A40], 128),
        ([L40], 128),
        ([A100_80], 256),
        ([H100], 256),
        ([H200], 512),
        ([H100] * 8, 2048),
        ([T4, V100_32], 64),
    ],
)
def test_size(ids: list[str], size: int) -> None:
    assert mmio_size_gb(boards(*ids)) == size
    assert needs_64bit(boards(*ids)) is bool(size)


model = st.builds(
    GpuModel,
    key=st.just("x"),
    board=st.none(),
    id=st.just("10de:ffff"),
    framebuffer_gb=st.none(),
    bar1_gb=st.sampled_from([0.25, 0.5, 1, 8, 16, 32, 64, 128, 256]),
)


@given(st.lists(model, max_size=16), model)
def test_size_holds_all_bars_and_is_the_smallest_power_of_two(models: list[GpuModel], one_more: GpuModel) -> None:
    size = mmio_size_gb(models)
    total = sum(item.bars_gb for item in models)
    if size:
        assert size & (size - 1) == 0
        assert total <= size
        assert size == 1 or size / 2 < total
    else:
        assert total <= 3.75
        assert all(item.bar1_gb <= 0.25 for item in models)
    assert mmio_size_gb([*models, one_more]) >= size
    assert mmio_size_gb(reversed(models)) == size


@pytest.mark.parametrize(
    ("extra_config", "expected"),
    [
        ({}, {USE_64BIT: "TRUE", SIZE_GB: "128"}),
        ({USE_64BIT: "TRUE", SIZE_GB: "128"}, {}),
        ({USE_64BIT: "true", SIZE_GB: "128"}, {}),
        ({USE_64BIT: "TRUE", SIZE_GB: "256"}, {}),  # larger, and a power of two
        ({USE_64BIT: "TRUE", SIZE_GB: "200"}, {SIZE_GB: "128"}),
        ({USE_64BIT: "TRUE", SIZE_GB: "64"}, {SIZE_GB: "128"}),
        ({USE_64BIT: "TRUE", SIZE_GB: "lots"}, {SIZE_GB: "128"}),
        ({USE_64BIT: "FALSE", SIZE_GB: "128"}, {USE_64BIT: "TRUE"}),
        ({SIZE_GB: "128"}, {USE_64BIT: "TRUE"}),
        ({"pcipassthru.use64BitMMIO": "TRUE", "pciPassthru.64BitMMIOSizeGB": "128"}, {}),
        (
            {"pcipassthru.use64BitMMIO": "no", "pciPassthru.64BitMMIOSizeGB": "1"},
            {"pcipassthru.use64BitMMIO": "TRUE", "pciPassthru.64BitMMIOSizeGB": "128"},
        ),
    ],
)
def test_settings_for_two_v100(extra_config: dict[str, str], expected: dict[str, str]) -> None:
    assert wanted_settings(boards(V100_32, V100_32), extra_config) == expected


def test_small_bars_leave_settings_alone() -> None:
    assert wanted_settings(boards(T4), {USE_64BIT: "FALSE"}) == {}


@given(st.lists(model, max_size=8), st.dictionaries(st.sampled_from([USE_64BIT, SIZE_GB]), st.text(max_size=5)))
def test_written_settings_fit(models: list[GpuModel], extra_config: dict[str, str]) -> None:
    written = wanted_settings(models, extra_config)
    assert wanted_settings(models, {**extra_config, **written}) == {}
