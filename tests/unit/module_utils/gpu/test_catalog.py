# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

import pytest
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.catalog import (
    Catalog,
    OverrideError,
    UnknownGpuError,
    valid_id,
)
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.facts import PciFunction


@pytest.mark.parametrize(
    ("device_id", "key", "framebuffer_gb", "bar1_gb", "large"),
    [
        ("10de:15f8", "P100-16", 16, 16, True),
        ("10de:1b38", "P40", 24, 32, True),
        ("10de:1db4", "V100-16", 16, 16, True),
        ("10de:1db6", "V100-32", 32, 32, True),
        ("10de:1eb8", "T4", 16, 0.25, False),
        ("10de:20f1", "A100-40", 40, 64, True),
        ("10de:20b5", "A100-80", 80, 128, True),
        ("10de:20b7", "A30", 24, 32, True),
        ("10de:2235", "A40", 48, 64, True),
        ("10de:27b8", "L4", 24, 32, True),
        ("10de:26b9", "L40S", 48, 64, True),
        ("10de:2331", "H100-80", 80, 128, True),
        ("10de:233b", "H200-141", 141, 256, True),
        ("10DE:233B", "H200-141", 141, 256, True),
    ],
)
def test_boards(device_id: str, key: str, framebuffer_gb: int, bar1_gb: float, large: bool) -> None:
    model = Catalog().require(device_id)
    assert (model.key, model.framebuffer_gb, model.bar1_gb, model.large_bar) == (key, framebuffer_gb, bar1_gb, large)
    assert model.bars_mb == (16, bar1_gb * 1024, 32)


def test_unknown_device_says_what_to_set() -> None:
    assert Catalog().get("10de:ffff") is None
    with pytest.raises(UnknownGpuError) as caught:
        Catalog().require("10de:ffff")
    assert 'bar_overrides: {"10de:ffff": {bar1_gb: 32}}' in str(caught.value)


def test_override_adds_a_device_and_corrects_one() -> None:
    catalog = Catalog({"10DE:FFFF": {"bar1_gb": 32}, "10de:1eb8": {"bar1_gb": "16"}})
    added = catalog.require("10de:ffff")
    assert (added.key, added.board, added.framebuffer_gb, added.bar1_gb) == ("10de:ffff", None, None, 32)
    corrected = catalog.require("10de:1eb8")
    assert (corrected.key, corrected.bar1_gb, corrected.large_bar) == ("T4", 16, True)
    assert Catalog().require("10de:1eb8").bar1_gb == 0.25


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ({"V100": {"bar1_gb": 32}}, ["'V100' is not a vendor:device id"]),
        ({"10de:ffff": 32}, ["10de:ffff must be a mapping"]),
        ({"10de:ffff": {}}, ["10de:ffff must be a mapping"]),
        ({"10de:ffff": {"bar1_gib": 32}}, ["unknown key 'bar1_gib', use bar1_gb", "10de:ffff is not in the catalogue"]),
        ({"10de:ffff": {"bar1_gb": 0}}, ["bar1_gb must be a positive number, not 0"]),
        ({"10de:ffff": {"bar1_gb": "big"}}, ["bar1_gb must be a positive number, not 'big'"]),
        ({"10de:ffff": {"bar1_gb": float("nan")}}, ["bar1_gb must be a positive number"]),
        ({"10de:ffff": {"bar1_gb": True}}, ["bar1_gb must be a positive number"]),
        ({"x": {}, "10de:1eb8": {"bar1_gb": -1}}, ["'x' is not", "10de:1eb8: bar1_gb must be"]),
    ],
)
def test_mistakes_in_overrides_are_named_together(overrides: dict[str, object], expected: list[str]) -> None:
    with pytest.raises(OverrideError) as caught:
        Catalog(overrides)
    assert [text for text in expected if text not in str(caught.value)] == []


@pytest.mark.parametrize(
    ("vendor", "device", "class_id", "expected"),
    [
        (0x10DE, 0x1DB6, 0x0302, True),
        (0x10DE, 0xFFFF, 0x0300, True),  # unknown board, but a display controller of NVIDIA's
        (0x10DE, 0x10F7, 0x0403, False),  # a board's audio function
        (0x10DE, 0x22A3, 0x0680, False),  # NVSwitch
        (0x102B, 0x0536, 0x0300, False),  # a server's own VGA controller
        (0x1002, 0x740F, 0x0380, True),  # known by override
    ],
)
def test_is_gpu(vendor: int, device: int, class_id: int, expected: bool) -> None:
    catalog = Catalog({"1002:740f": {"bar1_gb": 64}})
    assert catalog.is_gpu(PciFunction("0000:3b:00.0", vendor, device, class_id, "x")) is expected


@pytest.mark.parametrize(
    ("text", "expected"), [("10de:1db6", True), ("10DE:1DB6", True), ("10de1db6", False), ("10de:1db6 ", False)]
)
def test_valid_id(text: str, expected: bool) -> None:
    assert valid_id(text) is expected
