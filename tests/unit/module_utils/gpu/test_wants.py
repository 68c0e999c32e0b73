# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

import typing as t

import pytest
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.profiles import Needs
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.wants import GpuWant, VmWant, parse


@pytest.mark.parametrize(
    ("gpu", "expected"),
    [
        ({"mode": "fixed", "id": "10DE:1DB6", "count": "2"}, GpuWant("fixed", 2, id="10de:1db6")),
        ({"mode": "fixed", "id": "10de:1db6", "count": "all"}, GpuWant("fixed", None, id="10de:1db6")),
        ({"mode": "fixed", "count": "all"}, GpuWant("fixed", None)),
        ({"mode": "fixed", "address": "3B:00.0"}, GpuWant("fixed", 1, address="0000:3b:00.0")),
        ({"mode": "dynamic", "id": "10de:1db6"}, GpuWant("dynamic", 1, id="10de:1db6")),
        ({"mode": "dynamic", "label": "big", "count": 3}, GpuWant("dynamic", 3, label="big")),
        (
            {"mode": "dynamic", "id": "10de:1db6", "label": "big"},
            GpuWant("dynamic", 1, id="10de:1db6", label="big"),
        ),
        (
            {"mode": "vgpu", "profile": "grid_a100-10c", "count": "2", "migrate": False},
            GpuWant("vgpu", 2, profile="grid_a100-10c"),
        ),
        (
            {"mode": "vgpu", "at_least_gb": 10.0, "at_most_gpu": 0.5, "migrate": True},
            GpuWant("vgpu", 1, needs=Needs(10.0, 0.5, migrate=True)),
        ),
        ({"mode": "device_group", "name": "Nvidia:2"}, GpuWant("device_group", 1, group="Nvidia:2")),
    ],
)
def test_understood(gpu: dict[str, t.Any], expected: GpuWant) -> None:
    wants, problems = parse([{"name": "a", "host": "esx", "gpus": [gpu]}])
    assert problems == {}
    assert wants == {"a": VmWant("a", (expected,), host="esx")}


@pytest.mark.parametrize(
    ("gpu", "expected"),
    [
        ({"mode": "fixed", "id": "V100"}, "id 'V100' is not vendor:device in hex"),
        ({"mode": "fixed", "address": "slot 3"}, "address 'slot 3' is not a PCI address"),
        ({"mode": "fixed", "address": "3b:00.0", "count": 2}, "an address is one device"),
        ({"mode": "fixed", "address": "3b:00.0", "count": "all"}, "an address is one device"),
        ({"mode": "fixed", "address": "3b:00.0", "id": "10de:1db6"}, "either id or address"),
        ({"mode": "fixed", "label": "big"}, "label is not for mode fixed; a fixed GPU is chosen by id or address"),
        ({"mode": "dynamic", "address": "3b:00.0"}, "address is not for mode dynamic"),
        ({"mode": "dynamic"}, "needs id or label"),
        ({"mode": "fixed", "id": "10de:1db6", "count": 0}, "count must be a whole number from 1, or 'all', not 0"),
        ({"mode": "fixed", "id": "10de:1db6", "count": "-1"}, "not '-1'"),
        ({"mode": "fixed", "id": "10de:1db6", "count": "half"}, "not 'half'"),
        ({"mode": "vgpu"}, "a vGPU needs a profile, or at_least_gb"),
        ({"mode": "vgpu", "profile": "half a GPU"}, "is not a vGPU profile such as 'nvidia_a100-10c'"),
        ({"mode": "vgpu", "profile": "a100-10c", "at_least_gb": 4.0}, "either profile or at_least_gb, not both"),
        ({"mode": "vgpu", "at_most_gpu": 2.0}, "above 0 and at most 1, not 2"),
        ({"mode": "vgpu", "at_least_gb": -1.0}, "at_least_gb must be above 0"),
        ({"mode": "vgpu", "profile": "a100-10c", "count": "all"}, "count must be a number for mode vgpu"),
        ({"mode": "vgpu", "profile": "a100-10c", "id": "10de:20f1"}, "id is not for mode vgpu"),
        ({"mode": "device_group"}, "needs its name"),
    ],
)
def test_mistakes(gpu: dict[str, t.Any], expected: str) -> None:
    wants, problems = parse([{"name": "a", "gpus": [{"mode": "fixed", "id": "10de:1db6"}, gpu]}])
    assert [problem.code for problem in problems["a"]] == ["invalid_gpu"] * len(problems["a"])
    assert any(expected in problem.msg and "entry 2 of gpus" in problem.msg for problem in problems["a"])
    assert wants["a"].gpus == (GpuWant("fixed", 1, id="10de:1db6"),)


def test_repeated_names_addresses_and_odd_memory_are_told_once_each() -> None:
    twice = {"mode": "fixed", "address": "3b:00.0"}
    items = [{"name": "a", "gpus": [twice, twice], "memory_mb": 1001}, {"name": "a"}, {"name": "a"}, {"name": "b"}]
    wants, problems = parse(items)
    assert list(wants) == ["a", "b"]
    assert [problem.code for problem in problems["a"]] == ["invalid_gpu", "invalid_memory", "duplicate_name"]
    assert "b" not in problems
