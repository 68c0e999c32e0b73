# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

import typing as t

import pytest
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.gpu_modes import ModeError, compare

A, B = "0000:3b:00.0", "0000:5e:00.0"
OUTPUT = """00000000:3B:00.0, Enabled, Enabled, Disabled, Disabled
00000000:5E:00.0, Enabled, Disabled, [N/A], [N/A]
"""


@pytest.mark.parametrize(
    ("ecc", "mig", "texts", "reboot"),
    [
        ({}, {}, [], False),
        ({"all": True}, {}, [f"ECC on at {B}"], False),  # what was pending is taken back
        ({"all": False}, {}, [f"ECC off at {A}"], True),
        ({A: False}, {}, [f"ECC off at {A}"], True),
        ({"all": True, A: False}, {}, [f"ECC off at {A}", f"ECC on at {B}"], True),
        ({}, {"all": True}, [f"MIG on at {A}"], True),
        ({}, {"3b:00.0": False, B: False}, [], False),
        ({B: False}, {}, [], True),  # set before, the reboot is still due
    ],
)
def test_only_what_differs_is_called(
    ecc: dict[str, bool], mig: dict[str, bool], texts: list[str], reboot: bool
) -> None:
    found = compare(OUTPUT, ecc, mig)
    assert [change["text"] for change in found["changes"]] == texts
    assert found["reboot_required"] is reboot
    assert found["problems"] == []


def test_a_mode_that_a_gpu_lacks_and_a_gpu_that_is_not_there_are_problems() -> None:
    problems = compare(OUTPUT, {"0000:99:00.0": True}, {B: True})["problems"]
    assert "no GPU at 0000:99:00.0" in problems[0]
    assert f"{B} has no MIG mode" in problems[1]


@pytest.mark.parametrize(
    ("output", "ecc"),
    [
        ("NVIDIA-SMI has failed, because it could not talk to the driver.", {}),
        (OUTPUT, {"first": True}),
        (OUTPUT, {A: 1}),
    ],
)
def test_what_cannot_be_read_is_said(output: str, ecc: t.Any) -> None:
    with pytest.raises(ModeError):
        compare(output, ecc, {})


def test_calls_name_the_gpu_as_nvidia_smi_does() -> None:
    (change,) = compare(OUTPUT, {A: False}, {})["changes"]
    assert change["arguments"] == "-i 00000000:3B:00.0 -e 0"


@pytest.mark.parametrize(
    ("ecc", "mig", "waits"),
    [
        ({A: True}, {A: False}, []),
        ({A: False}, {}, [f"ECC of the GPU at {A} is wanted off, and is on (pending: on)"]),
        ({"all": False}, {}, [f"ECC of the GPU at {A} is wanted off, and is on (pending: on)",
                              f"ECC of the GPU at {B} is wanted off, and is on (pending: off)"]),
        ({B: True}, {"all": True}, [f"MIG of the GPU at {A} is wanted on, and is off (pending: off)"]),
    ],
)  # fmt: skip
def test_what_is_not_in_force_is_said_with_gpu_wanted_and_found(
    ecc: dict[str, bool], mig: dict[str, bool], waits: list[str]
) -> None:
    assert compare(OUTPUT, ecc, mig)["waits"] == waits
