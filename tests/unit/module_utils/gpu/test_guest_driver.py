# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

import base64
import json

import pytest
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.guest_driver import (
    Installer,
    installer_of,
    token_problem,
)
from hypothesis import given
from hypothesis import strategies as st

NOW = 1_800_000_000.0


def part(value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")


def token(claims: object = None, header: object = None, signature: str = "c2ln") -> str:
    return ".".join([part({"alg": "RS256"} if header is None else header), part(claims or {"jti": "x"}), signature])


@pytest.mark.parametrize(
    ("path", "installer"),
    [
        ("/srv/NVIDIA-Linux-x86_64-550.90.07-grid.run", Installer("run", "550.90.07", "")),
        ("https://web/d/NVIDIA-Linux-x86_64-535.161-grid.run?x=1.deb", Installer("run", "535.161", "")),
        ("nvidia-linux-grid-550_550.90.07_amd64.deb", Installer("deb", "550.90.07", "nvidia-linux-grid-550")),
        ("nvidia-linux-grid-550-550.90.07-1.x86_64.rpm", Installer("rpm", "550.90.07", "nvidia-linux-grid-550")),
        ("driver.run", Installer("run", "", "")),
        ("driver-1550.90.07.run", Installer("run", "", "")),
        ("NVIDIA-550.90.07.zip", Installer("", "550.90.07", "")),
        ("", Installer("", "", "")),
    ],
)
def test_a_files_name_says_format_version_and_package(path: str, installer: Installer) -> None:
    assert installer_of(path) == installer


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (token(), ""),
        (f"\n{token({'exp': NOW + 1})}\n", ""),
        (token({"exp": NOW - 1}), "expired"),
        ("", "1 part,"),
        ("a.b", "2 parts"),
        ("a.b.c.d", "4 parts"),
        ("a.b.c", "header"),
        (token(header=["list"]), "header"),
        (f"{part({'alg': 'x'})}.!!.c2ln", "claims"),
        (token(signature=""), "signature"),
        (token(signature="a b"), "signature"),
    ],
)
def test_what_is_no_token(text: str, problem: str) -> None:
    says = token_problem(text, NOW)
    assert (says == "") == (problem == "")
    assert problem in says


@given(st.text())
def test_no_text_breaks_the_look_at_a_token_or_is_repeated(text: str) -> None:
    says = token_problem(text, NOW)
    assert says
    assert len(text.strip()) < 12 or text.strip() not in says
