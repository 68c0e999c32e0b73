# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

import json

import pytest
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu import guest_facts as read
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.guest_facts import Gpu

SMI = """
==============NVSMI LOG==============

Timestamp                                 : Sun Nov 22 12:00:00 2026
Driver Version                            : 550.90.07
CUDA Version                              : 12.4

Attached GPUs                             : 2
GPU 00000000:02:00.0
    Product Name                          : GRID V100D-8Q
    Persistence Mode                      : Enabled
    GPU UUID                              : GPU-1
    vGPU Software Licensed Product
        Product Name                      : NVIDIA RTX Virtual Workstation
        License Status                    : Licensed (Expiry: 2026-11-23 19:0:0 GMT)
GPU 00000000:0A:00.0
    Product Name                          : Tesla T4
    Persistence Mode                      : Disabled
    GPU UUID                              : GPU-2
    vGPU Software Licensed Product
        Product Name                      : N/A
        License Status                    : N/A
"""


def test_nvidia_smi_is_read() -> None:
    version, gpus = read.parse_smi(SMI)
    assert version == "550.90.07"
    assert gpus == (
        Gpu("00000000:02:00.0", "GRID V100D-8Q", "GPU-1", True, "Licensed (Expiry: 2026-11-23 19:0:0 GMT)"),
        Gpu("00000000:0a:00.0", "Tesla T4", "GPU-2", False, ""),
    )
    assert [gpu.licensed for gpu in gpus] == [True, False]
    assert not Gpu("", "", "", True, "Unlicensed (Restricted)").licensed
    assert read.parse_smi("") == ("", ())


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("nvidia/550.90.07, 6.1.0-28-amd64, x86_64: installed\n", "550.90.07"),
        ("nvidia-current/550.163.01, 6.12.57+deb13-amd64, x86_64: installed\n", "550.163.01"),
        ("nvidia, 470.223.02, 4.18.0: installed\n", "470.223.02"),
        ("zfs/2.1.11, 6.1.0: installed\nnvidia/550.90.07: added\n", "550.90.07"),
        ("zfs/2.1.11, 6.1.0: installed\n", ""),
        ("", ""),
    ],
)
def test_dkms_tells_the_version(text: str, version: str) -> None:
    assert read.parse_dkms(text) == version


@pytest.mark.parametrize(
    ("text", "feature"), [("FeatureType=2\n", 2), ("#FeatureType=1\n", 0), (" FeatureType = 4 \n", 4), ("", 0)]
)
def test_feature_type(text: str, feature: int) -> None:
    assert read.parse_feature_type(text) == feature


@pytest.mark.parametrize(
    ("texts", "blocked"),
    [
        (["# nouveau\n", "blacklist nouveau\n"], True),
        (["install nouveau /bin/false\n"], True),
        (["#blacklist nouveau\n"], False),
        (["blacklist nouveau_x\n", "options nouveau modeset=0\n"], False),
        ([], False),
    ],
)
def test_what_keeps_nouveau_out(texts: list[str], blocked: bool) -> None:
    assert read.blocks_nouveau(texts) is blocked


def test_clocks() -> None:
    fields = "C0A80001,192.168.0.1,3,0,0,0,0,0,0,0,0,0,0"
    assert read.parse_chronyc(f"{fields},Normal\n") is True
    assert read.parse_chronyc(f"{fields},Not synchronised\n") is False
    assert read.parse_chronyc("506 Cannot talk to daemon\n") is None
    assert read.parse_timedatectl("NTP=yes\nNTPSynchronized=yes\n") is True
    assert read.parse_timedatectl("NTPSynchronized=no\n") is False
    assert read.parse_timedatectl("") is None


def test_bars_without_an_address() -> None:
    lines = [
        "0x00000000fb000000 0x00000000fbffffff 0x0000000000040200",
        "0x0000000000000000 0x00000000ffffffff 0x000000000014220c",
        "0x0000000000000000 0x0000000000000000 0x0000000000000000",
        "0x0000000000000000 0x0000000001ffffff 0x000000000014220c",
    ]
    assert read.unassigned_bars("\n".join(lines)) == (1, 3)
    assert read.unassigned_bars("") == ()


def test_facts_survive_json() -> None:
    facts = read.GuestFacts(
        kernel="6.1.0",
        installed="550.90.07",
        loaded="550.90.07",
        smi_error="",
        nouveau_loaded=False,
        nouveau_blocked=True,
        gpus=read.parse_smi(SMI)[1],
        pci=(read.PciGpu("0000:02:00.0", "10de:1db6", (1,)),),
        gridd=read.Gridd(True, True, False, 2, ("a line",)),
        clock=read.Clock(True, "chronyc", 0.1),
        container=read.ContainerView("x.sif", 1, ""),
    )
    assert read.GuestFacts.from_dict(json.loads(json.dumps(facts.to_dict()))) == facts
