# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

import dataclasses
import typing as t

import pytest
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.facts import HostFacts, Intent
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.host_driver import (
    PACKAGES,
    ClusterImage,
    DriverPlan,
    DriverWish,
    DriverWork,
    Package,
    Software,
    bulletins_of,
    is_driver,
    other_than_wanted,
    plan_driver,
)
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.plan import Problem
from gpu_builders import SLOTS, gpu, host

NAME = "NVD-VMware_ESXi_8.0.0_Driver"
OLD, NEW = "535.154.02", "550.54.16"
SUFFIX = "-1OEM.800.1.0.20613240"
URL, PATH = "https://depot/vgpu.zip", "/vmfs/volumes/ds/vgpu.zip"
META, VIB = "https://depot/vgpu/metadata.zip", "https://depot/vgpu.vib?token=a&b=c"
OURS = Intent("run-1", "maintenance", "2026-01-02T00:00:00.000000Z")


def in_maintenance(**more: t.Any) -> HostFacts:
    return host("esx", gpu(SLOTS[0]), **{"in_maintenance": True, "intent": OURS, "version": "8.0.3", **more})


def installed(version: str | None) -> dict[str, tuple[Package, ...]]:
    other = Package("nvdgpumgmtdaemon", "1.0", "NVD")
    return {"esx": (other, *((Package(NAME, version + SUFFIX, "NVD"),) if version else ()))}


def plan(
    facts: HostFacts, now: str | None, wish: DriverWish, image: dict[str, str] | None = None, **more: t.Any
) -> DriverPlan:
    images = {"gpu": ClusterImage("domain-c1", image)} if image is not None else {}
    return plan_driver({"esx": facts}, [wish], Software(installed(now), images), **more)["esx"]


@pytest.mark.parametrize("patterns", [PACKAGES, ("NVD-*", "nvidia-*", "nvdgpu*")], ids=["default", "wide"])
@pytest.mark.parametrize(
    ("name", "driver"),
    [
        ("NVD-VMware_ESXi_8.0.0_Driver", True),
        ("NVD-AIE_ESXi_8.0.0_Driver", True),
        ("NVD-VGPU-800", True),
        ("nvd-aie-800", True),
        ("NVIDIA-VMware_ESXi_7.0.2_Driver", True),
        ("NVIDIA-VMware_ESXi_6.7_Host_Driver", True),
        ("NVIDIA-vGPU-VMware_ESXi_6.5_Host_Driver", True),
        ("NVIDIA-AIE_ESXi_7.0.2_Driver", True),
        ("nvd-gpu-mgmt-daemon", False),
        ("nvdgpumgmtdaemon", False),
        ("NVD-GPU-MGMT-Daemon", False),
        ("nvme-pcie", False),
    ],
)
def test_the_host_drivers_of_all_releases_are_known_and_the_daemon_is_none(
    name: str, driver: bool, patterns: tuple[str, ...]
) -> None:
    assert is_driver(name, patterns) is driver


def test_the_manager_of_an_older_release_is_removed_and_the_daemon_stays() -> None:
    old = Package("NVIDIA-VMware_ESXi_7.0.2_Driver", "510.73.06-1OEM.702.0.0.17630552", "NVIDIA")
    daemon = Package("nvdgpumgmtdaemon", "510.73.06-1OEM.700.1.0.15843807", "NVD")
    wish = DriverWish("esx", None, method="esxcli")
    found = plan_driver({"esx": in_maintenance(version="7.0.3")}, [wish], Software({"esx": (old, daemon)}))["esx"]
    assert found.plan.notes["commands"] == [f"esxcli software vib remove -n {old.name}"]


@pytest.mark.parametrize(
    ("now", "wanted", "action"),
    [
        (None, NEW, "install"),
        (OLD, NEW, "upgrade"),
        (NEW, OLD, "downgrade"),
        (OLD, f"{OLD}-2OEM.800.1.0.20613240", "replace"),
        (OLD, None, "remove"),
        (OLD, OLD, None),
        (OLD, OLD + SUFFIX, None),
        (None, None, None),
    ],
)
def test_what_is_to_be_done(now: str | None, wanted: str | None, action: str | None) -> None:
    found = plan(in_maintenance(), now, DriverWish("esx", wanted, URL))
    assert not found.plan.failed
    assert (found.work.action if found.work else None) == action
    if action:
        assert found.plan.notes["reboot_required"] is True
        assert found.after is not None
        assert found.after.intent is not None
        assert found.after.intent.boot_time == found.after.boot_time


@pytest.mark.parametrize(
    ("method", "bundle", "image", "expected"),
    [
        (None, URL, None, "esxcli"),
        (None, META, None, "patch"),
        (None, VIB, None, "patch"),
        (None, PATH, None, "esxcli"),
        (None, URL, {}, "image"),
        (None, PATH, {}, "image"),
        ("esxcli", URL, None, "esxcli"),
        ("image", URL, {}, "image"),
    ],
)
def test_the_way_is_chosen_by_what_the_cluster_has(
    method: t.Any, bundle: str, image: dict[str, str] | None, expected: str
) -> None:
    found = plan(in_maintenance(), None, DriverWish("esx", NEW, bundle, method=method), image)
    assert found.plan.notes["method"] == expected


def test_a_removal_goes_by_esxcli_unless_the_cluster_has_an_image() -> None:
    assert plan(in_maintenance(), OLD, DriverWish("esx", None, META)).plan.notes["method"] == "esxcli"
    assert plan(in_maintenance(), OLD, DriverWish("esx", None), {NAME: OLD}).plan.notes["method"] == "image"


@pytest.mark.parametrize(
    ("method", "bundle", "image", "said"),
    [
        ("patch", URL, None, "metadata.zip"),
        ("patch", PATH, None, "metadata.zip"),
        ("patch", "/vmfs/volumes/ds/vgpu/metadata.zip", None, "metadata.zip"),
        ("patch", "/vmfs/volumes/ds/vgpu.vib", None, "esxcli"),
        ("esxcli", META, None, "method to patch"),
        (None, META, {}, "offline bundle"),
        (None, VIB, {}, "offline bundle"),
    ],
)
def test_what_a_way_does_not_take_is_refused_with_what_it_takes(
    method: t.Any, bundle: str, image: dict[str, str] | None, said: str
) -> None:
    (problem,) = plan(in_maintenance(), None, DriverWish("esx", NEW, bundle, method=method), image).plan.problems
    assert (problem.code, problem.option) == ("bundle_not_for_method", "bundle")
    assert bundle in problem.msg
    assert said in problem.msg
    removal = plan(in_maintenance(), OLD, DriverWish("esx", None, bundle, method=method), image and {NAME: OLD}).plan
    assert not removal.failed


def test_an_image_that_lacks_the_driver_is_changed_even_where_the_host_has_it() -> None:
    wish = DriverWish("esx", OLD, URL)
    drifted = plan(in_maintenance(), OLD, wish, {})
    assert [change.path for change in drifted.plan.changes] == ["image of cluster gpu"]
    assert drifted.plan.notes["reboot_required"] is False
    assert plan(in_maintenance(), OLD, wish, {NAME: OLD + SUFFIX}).plan.changes == ()
    remediated = plan(in_maintenance(), None, wish, {NAME: OLD + SUFFIX})
    assert [change.action for change in remediated.plan.changes] == ["install"]


@pytest.mark.parametrize(
    ("version", "now", "wanted", "commands"),
    [
        ("8.0.3", None, NEW, [f"esxcli software component apply -d {PATH}"]),
        ("8.0.3", NEW, OLD, [f"esxcli software vib remove -n {NAME}", f"esxcli software component apply -d {PATH}"]),
        ("6.7.0", None, "460.91.03", [f"esxcli software vib install -d {PATH}"]),
        ("6.7.0", "450.248.02", "460.91.03", [f"esxcli software vib update -d {PATH}"]),
        ("8.0.3", NEW, None, [f"esxcli software vib remove -n {NAME}"]),
    ],
)
def test_commands_for_esxcli(version: str, now: str | None, wanted: str | None, commands: list[str]) -> None:
    found = plan(in_maintenance(version=version), now, DriverWish("esx", wanted, PATH, method="esxcli"))
    assert found.plan.notes["commands"] == commands


@pytest.mark.parametrize(
    ("now", "bundle", "command"),
    [
        (None, URL, f"esxcli software component apply -d {URL}"),
        (None, URL + "?a=1&b=2", f"esxcli software component apply -d '{URL}?a=1&b=2'"),
        (None, VIB, f"esxcli software vib install -v '{VIB}'"),
        (OLD, "/vmfs/volumes/my ds/vgpu.vib", "esxcli software vib update -v '/vmfs/volumes/my ds/vgpu.vib'"),
    ],
)
def test_esxcli_takes_urls_and_single_vibs(now: str | None, bundle: str, command: str) -> None:
    found = plan(in_maintenance(), now, DriverWish("esx", NEW, bundle, method="esxcli"))
    assert found.plan.notes["commands"] == [command]


@pytest.mark.parametrize(
    ("ids", "found"),
    [
        ([f"NVD-VGPU-800_{OLD}{SUFFIX}", f"nvd-gpu-mgmt-daemon_{OLD}-0.0.0000"], [f"NVD-VGPU-800_{OLD}{SUFFIX}"]),
        ([f"NVIDIA_bootbank_{NAME}_{OLD}{SUFFIX}"], [f"NVIDIA_bootbank_{NAME}_{OLD}{SUFFIX}"]),
        ([f"NVD.NVIDIA_bootbank_{NAME}-{OLD}{SUFFIX}"], [f"NVD.NVIDIA_bootbank_{NAME}-{OLD}{SUFFIX}"]),
        ([f"NVD-VGPU-800_{NEW}{SUFFIX}"], None),
        ([f"other_{OLD}{SUFFIX}"], None),
        ([], None),
    ],
)
def test_a_driver_s_bulletin_has_its_name_and_version(ids: list[str], found: list[str] | None) -> None:
    driver = Package(NAME, OLD + SUFFIX, "NVD")
    assert bulletins_of(DriverWork("patch", "remove", (driver,), None, None, PACKAGES), ids) == found


@pytest.mark.parametrize(
    ("before", "now", "other"),
    [
        (None, NEW, None),
        (OLD, NEW, None),
        (OLD, OLD, None),  # the list may be of the image in force
        (None, None, None),
        (None, OLD, OLD + SUFFIX),
        (OLD, None, "no driver"),
    ],
)
def test_another_driver_than_wanted_is_seen_after_the_installation(
    before: str | None, now: str | None, other: str | None
) -> None:
    work = DriverWork("patch", "install", (), NEW, META, PACKAGES)
    assert other_than_wanted(work, installed(before)["esx"], installed(now)["esx"]) == other


def test_a_host_in_service_is_refused_or_reported() -> None:
    facts = in_maintenance(in_maintenance=False, intent=None)
    wish = DriverWish("esx", NEW, URL)
    assert [problem.code for problem in plan(facts, OLD, wish).plan.problems] == ["not_in_maintenance"]
    reported = plan(facts, OLD, wish, outside_maintenance="report")
    assert not reported.plan.failed
    assert not reported.plan.changes
    assert reported.plan.notes["maintenance_required"] is True
    assert reported.plan.notes["pending"] == [f"upgrade vGPU manager ({NEW}, esxcli on the host)"]


def test_a_reboot_that_is_due_is_said_although_the_driver_is_there() -> None:
    facts = in_maintenance(intent=Intent("r", "maintenance", "x", boot_time="2026-01-01T00:00:00.000000Z"))
    assert plan(facts, OLD, DriverWish("esx", OLD, URL)).plan.notes["reboot_required"] is True
    assert plan(in_maintenance(reboot_pending=True), OLD, DriverWish("esx", OLD)).plan.notes["reboot_required"] is True
    assert plan(in_maintenance(), OLD, DriverWish("esx", OLD)).plan.notes["reboot_required"] is False


def test_somebody_else_s_host_is_left_alone_and_a_rebooting_one_waited_for() -> None:
    foreign = plan(in_maintenance(intent=None), OLD, DriverWish("esx", NEW, URL))
    assert foreign.plan.notes["left_alone"] is True
    away = in_maintenance(
        connection="notResponding", intent=Intent("r", "maintenance", "x", boot_time="2026-01-01T00:00:00.000000Z")
    )
    assert plan(away, OLD, DriverWish("esx", NEW, URL)).plan.notes["reboot_in_progress"] is True


@pytest.mark.parametrize("ours", [True, False])
def test_a_host_that_goes_down_between_two_reads_is_a_host_that_is_away(ours: bool) -> None:
    silent = Problem("host_not_connected", "esx", "The vCenter cannot talk to the host now.", kind="state")
    mark = dataclasses.replace(OURS, boot_time="2026-01-01T00:00:00.000000Z") if ours else OURS
    found = plan_driver(
        {"esx": in_maintenance(intent=mark)}, [DriverWish("esx", NEW, URL)], Software({"esx": silent}, {})
    )["esx"].plan
    assert found.failed is not ours
    assert found.notes["reboot_in_progress"] is ours


@pytest.mark.parametrize(
    ("esxi", "guests", "codes"),
    [
        ("8.0.3", (), []),
        ("8.0.3", ("550.54.15", "535.154.05"), []),
        ("8.0.3", ("550.54.15", "470.223.02"), ["guest_driver_not_for_manager"]),
        ("6.7.0", ("570.124.06",), ["manager_not_for_esxi", "guest_driver_not_for_manager"]),
    ],
)
def test_a_manager_outside_the_triangle_is_refused(esxi: str, guests: tuple[str, ...], codes: list[str]) -> None:
    wish = DriverWish("esx", NEW, URL, guest_drivers=guests)
    assert [problem.code for problem in plan(in_maintenance(version=esxi), OLD, wish).plan.problems] == codes
