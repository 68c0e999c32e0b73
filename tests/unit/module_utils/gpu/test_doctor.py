# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu import doctor
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.doctor import Finding, VmView, Wanted, diagnose
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.guest_facts import (
    Clock,
    ContainerView,
    Gpu,
    Gridd,
    GuestFacts,
    PciGpu,
)

GPU = Gpu("00000000:02:00.0", "GRID V100D-8Q", "GPU-1", True, "Licensed (Expiry: never)")
WELL = GuestFacts(
    kernel="6.1.0",
    installed="550.90.07",
    loaded="550.90.07",
    smi_error="",
    nouveau_loaded=False,
    nouveau_blocked=True,
    gpus=(GPU,),
    pci=(PciGpu("0000:02:00.0", "10de:1db6", ()),),
    gridd=Gridd(True, True, False, 2, ("License acquired",)),
    clock=Clock(True, "chronyc", 0.2),
    container=ContainerView("x.sif", 1, ""),
)
WANTED = Wanted(driver="550.90.07", manager="550.90.05", container=True)
UNLICENSED = dataclasses.replace(GPU, licence="Unlicensed (Restricted)")


def failures(wanted: Wanted = WANTED, vm: VmView | None = None, **changed: Any) -> list[Finding]:
    diagnosis = diagnose(dataclasses.replace(WELL, **changed), wanted, vm)
    assert [finding.check for finding in diagnosis.findings] == list(doctor.CHECKS)
    failed = [finding for finding in diagnosis.findings if finding.status == doctor.FAIL]
    assert diagnosis.healthy == (not failed)
    assert all(finding.mend for finding in failed)
    return failed


def test_a_guest_that_is_well_has_no_failure() -> None:
    assert failures(vm=VmView()) == []
    statuses = {finding.check: finding.status for finding in diagnose(WELL, WANTED, None).findings}
    assert statuses.pop("memory") == doctor.UNKNOWN
    assert set(statuses.values()) == {doctor.OK}


@pytest.mark.parametrize(
    ("changed", "check", "says", "mend"),
    [
        ({"nouveau_loaded": True}, "nouveau", "is loaded", "reboot"),
        ({"nouveau_blocked": False}, "nouveau", "next boot", "grid_guest_driver"),
        ({"loaded": "550.54.14"}, "driver", "550.90.07 is wanted", "reboot the guest"),
        ({"loaded": "535.1.1", "installed": "535.1.1"}, "driver", "550.90.07 is wanted", "grid_guest_driver"),
        ({"installed": "550.99.01"}, "driver", "550.99.01 is installed", "reboot"),
        ({"gpus": (UNLICENSED,)}, "licence", "Unlicensed (Restricted); nvidia-gridd says: License", "token"),
        ({"gpus": (UNLICENSED,), "gridd": Gridd(True, True, True, 2, ())}, "licence", "Unlic", "restart nvidia-gridd"),
        ({"gridd": Gridd(False, False, False, 0, ())}, "licence", "not installed", "grid_guest_driver"),
        ({"gridd": Gridd(True, False, False, 2, ("boom",))}, "licence", "boom", "systemctl restart"),
        ({"container": ContainerView("x.sif", 0, "")}, "container", "0 of 1", "--nv"),
        ({"container": ContainerView("x.sif", 0, "no such image")}, "container", "no such image", "singularity"),
        ({"pci": (PciGpu("0000:02:00.0", "10de:1db6", (1, 3)),)}, "mmio", "0000:02:00.0 BAR 1, 3", "gpu_vm.yml"),
        ({"clock": Clock(True, "chronyc", -61.0)}, "time", "61 s behind", "makestep"),
        ({"clock": Clock(True, "chronyc", 61.0)}, "time", "61 s ahead of", "makestep"),
        ({"clock": Clock(False, "timedatectl", None)}, "time", "timedatectl says", "time source"),
        ({"clock": Clock(None, "", None)}, "time", "nothing keeps", "chrony"),
    ],
)
def test_one_thing_wrong_is_one_failure_with_how_to_mend_it(
    changed: dict[str, Any], check: str, says: str, mend: str
) -> None:
    (failed,) = failures(**changed)
    assert failed.check == check
    assert says in failed.message
    assert mend in failed.mend


def test_a_guest_without_its_driver_says_why() -> None:
    failed = {finding.check: finding for finding in failures(loaded="", gpus=(), smi_error="cannot talk")}
    assert set(failed) == {"driver", "gpu", "licence"}
    assert "cannot talk" in failed["driver"].message
    assert "no driver is installed" in {f.message for f in failures(loaded="", installed="", gpus=())}


def test_a_loaded_driver_that_answers_nothing_says_why() -> None:
    failed = {finding.check: finding for finding in failures(gpus=(), smi_error="No devices were found")}
    assert set(failed) == {"gpu", "licence"}
    assert "No devices were found" in failed["gpu"].message


def test_gpus_missing_from_the_bus_and_missing_from_the_driver_differ() -> None:
    few = Wanted(gpus=2)
    (missing,) = failures(wanted=few)
    assert "1 on the PCI bus" in missing.message
    (unseen,) = failures(wanted=few, pci=WELL.pci * 2)
    assert "though the PCI bus has 2" in unseen.message


def test_what_is_not_wanted_is_no_failure() -> None:
    wanted = Wanted(licence=False, container=False, max_offset_s=100)
    assert failures(wanted=wanted, gpus=(UNLICENSED,), container=None, clock=Clock(True, "x", 61.0)) == []


def test_a_manager_of_another_release_is_a_failure() -> None:
    (failed,) = failures(wanted=Wanted(manager="535.161.05"))
    assert "does not work on the vGPU manager 535.161.05" in failed.message


def test_the_vms_settings_are_sorted_into_mmio_and_memory() -> None:
    vm = VmView.from_actions(["set pciPassthru.64bitMMIOSizeGB (x)", "set memory_reservation_locked (y)", "power on"])
    assert {finding.check for finding in failures(vm=vm)} == {"mmio", "memory"}


def test_the_table_has_a_line_a_guest_and_what_to_do() -> None:
    bad = diagnose(dataclasses.replace(WELL, nouveau_loaded=True), WANTED, None)
    text = doctor.table({"vm-1": diagnose(WELL, WANTED, None), "vm-two": bad, "vm-3": None})
    lines = text.splitlines()
    assert lines[0].split() == ["guest", *doctor.CHECKS]
    assert lines[1].split() == ["vm-1", "ok", "ok", "ok", "ok", "ok", "ok", "-", "ok"]
    assert lines[2].split()[:2] == ["vm-two", "FAIL"]
    assert "could not be read" in lines[3]
    assert "vm-two: nouveau: nouveau is loaded" in text
    assert "to mend: run the role" in text
    assert "Nothing to mend." in doctor.table({"vm-1": diagnose(WELL, WANTED, None)})
