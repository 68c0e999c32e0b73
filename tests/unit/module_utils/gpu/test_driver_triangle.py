# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

import pytest
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.driver_triangle import (
    BRANCHES,
    branch_of,
    check_guest,
    check_manager,
    check_triangle,
)
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.versions import matches, older

MANAGER_16 = "535.154.02-1OEM.800.1.0.20613240"


@pytest.mark.parametrize(
    ("manager", "guest", "works"),
    [
        ("535.154.02", "535.154.05", True),
        (MANAGER_16, "535.161.07", True),
        ("16.4", "535.154.05", True),
        ("550.54.16", "535.154.05", True),  # a later branch with the branch before
        ("570.124.03", "535.154.05", False),  # two branches apart
        ("535.154.02", "470.223.02", True),  # long-term with the long-term before
        ("535.154.02", "525.147.05", True),
        ("535.154.02", "510.108.03", False),
        ("535.154.02", "450.248.02", False),  # two long-term branches apart
        ("580.65.05", "535.154.05", True),
        ("580.65.05", "570.124.06", True),
        ("580.65.05", "550.54.15", False),
        ("595.71.03", "580.65.06", True),
        ("595.71.03", "535.154.05", False),  # not long-term
        ("535.154.02", "550.54.15", False),  # guests are never ahead of their host
        ("418.240", "418.226.00", True),
        ("430.99", "418.240", False),  # 8.x goes with 8.x only
        ("450.248.02", "418.240", False),
        ("999.1", "999.2", True),
        ("999.1", "580.65.06", False),
    ],
)
def test_guest_drivers(manager: str, guest: str, works: bool) -> None:
    found = check_guest(manager, guest)
    assert (found is None) is works, found
    if found is not None:
        assert found.code == "guest_driver_not_for_manager"
        assert guest in found.msg


@pytest.mark.parametrize(
    ("esxi", "manager", "works"),
    [
        ("8.0.3", MANAGER_16, True),
        ("7.0.3", MANAGER_16, False),  # built for 8.0
        ("7.0.3", "535.154.02-1OEM.700.1.0.15525992", True),
        ("8.0.3", "16.4", True),
        ("6.7.0", "535.154.02", False),
        ("9.0.0", "550.54.16", False),
        ("9.0.0", "580.65.05", True),
        ("7.0.3", "580.65.05", False),
        ("9.0.0", "550.54.16-1OEM.900.1.0.24000000", True),  # the package itself says for which ESXi it is
        ("9.1.0", "595.71.03", True),  # no range known
        ("8.0.3", "999.1", True),  # not in the table: no opinion
    ],
)
def test_managers(esxi: str, manager: str, works: bool) -> None:
    found = check_manager(esxi, manager)
    assert (found is None) is works, found


def test_what_is_no_version_is_said() -> None:
    assert [one.code for one in check_triangle("8.0.3", "latest", "535.154.05")] == ["version_unreadable"] * 2
    assert check_triangle(None, "535.154.02", None) == ()


def test_both_sides_of_the_triangle_are_told() -> None:
    codes = [one.code for one in check_triangle("6.5.0", "550.54.16", "470.223.02")]
    assert codes == ["manager_not_for_esxi", "guest_driver_not_for_manager"]


def test_the_table_is_in_order_and_each_branch_takes_its_own_guests() -> None:
    assert [one.number for one in BRANCHES] == list(range(8, 21))
    assert [one.driver for one in BRANCHES] == sorted({one.driver for one in BRANCHES})
    for one in BRANCHES:
        assert branch_of(f"{one.driver}.10.01") == branch_of(f"{one.number}.2") == one
        assert check_guest(f"{one.driver}.10", f"{one.driver}.20") is None


@pytest.mark.parametrize(
    ("wanted", "found", "same"),
    [
        ("535.154.02", MANAGER_16, True),
        (MANAGER_16, MANAGER_16, True),
        ("535.154", MANAGER_16, False),
        ("535.154.02-2OEM", MANAGER_16, False),
        ("16.4", "16.4", True),
    ],
)
def test_versions_match_with_or_without_the_build_suffix(wanted: str, found: str, same: bool) -> None:
    assert matches(wanted, found) is same


def test_versions_are_compared_by_number() -> None:
    assert older("535.9.1", "535.154.02")
    assert not older("535.154.02-1OEM", "535.154.2")
