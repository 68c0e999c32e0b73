"""Locks of environments and what differs from them."""

from __future__ import annotations

import typing as t

import pytest
from ansible_collections.gpuops.vsphere.plugins.module_utils.container import environment
from ansible_collections.gpuops.vsphere.plugins.module_utils.container.errors import ContainerError

LOCK: dict[str, t.Any] = {
    "format": 1,
    "distribution": "debian 13",
    "architecture": "x86_64",
    "kernel": "6.12.0",
    "gpus": ["GRID V100D-16Q"],
    "driver": "550.90.07",
    "packages": {"apptainer": "1.4.5-2"},
    "images": {"torch": {"version": "20261101-aa", "sha256": "a" * 64}},
}


def facts(**changes: t.Any) -> dict[str, t.Any]:
    return {**LOCK, "all_packages": {"apptainer": "1.4.5-2", "vim": "9"}, **changes}


def test_a_guest_like_the_lock_differs_in_nothing() -> None:
    more = {"torch": LOCK["images"]["torch"], "other": {"version": "1", "sha256": "b" * 64}}
    assert environment.differences(LOCK, facts(images=more)) == []


@pytest.mark.parametrize(
    ("changes", "part", "recreated", "text"),
    [
        ({"kernel": "6.1.0"}, "kernel", False, "kernel: 6.12.0 in the lock, 6.1.0 here; install and boot"),
        ({"gpus": []}, "gpus", False, "gpus: GRID V100D-16Q in the lock, none here; give the virtual machine"),
        ({"driver": "535.1"}, "driver", False, "driver: 550.90.07 in the lock, 535.1 here; apply the role"),
        ({"architecture": "aarch64"}, "architecture", False, "architecture: x86_64 in the lock"),
        ({"distribution": "debian 12"}, "distribution", False, "distribution: debian 13 in the lock"),
        ({"all_packages": {}}, "packages", True, "packages apptainer: 1.4.5-2 in the lock, none here"),
        ({"images": {}}, "images", True, "images torch: 20261101-aa in the lock, none here"),
        ({"images": {"torch": {"version": "20261101-aa", "sha256": "b" * 64}}}, "images", True, "images torch"),
    ],
)
def test_what_differs_is_named_with_what_to_do(
    changes: dict[str, t.Any], part: str, recreated: bool, text: str
) -> None:
    (found,) = environment.differences(LOCK, facts(**changes))
    assert (found.part, found.recreated) == (part, recreated)
    assert found.text.startswith(text)


@pytest.mark.parametrize(
    "lock",
    [
        None,
        [],
        {},
        {**LOCK, "format": 2},
        {**LOCK, "kernel": None},
        {**LOCK, "gpus": "one"},
        {**LOCK, "images": {"torch": {"version": "1"}}},
        {**LOCK, "images": {"torch": "1"}},
    ],
)
def test_a_lock_that_is_none(lock: object) -> None:
    with pytest.raises(ContainerError):
        environment.checked_lock(lock, "x.lock.yml")
    assert environment.checked_lock(LOCK, "x.lock.yml") is LOCK


def test_packages_by_pattern() -> None:
    packages = {"nvidia-smi": "1", "apptainer": "2", "vim": "3", "libnvidia-ml1": "4"}
    assert environment.matching(packages, ["nvidia-*", "apptainer"]) == {"apptainer": "2", "nvidia-smi": "1"}
