# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

import pytest
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.facts import PciFunction
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.selection import (
    Selector,
    normalise_address,
    parse,
    select,
)
from hypothesis import given
from hypothesis import strategies as st

V100 = PciFunction("0000:3b:00.0", 0x10DE, 0x1DB6, 0x0302, "NVIDIA Corporation GV100GL [Tesla V100 PCIe 32GB]")
T4 = PciFunction("0000:5e:00.0", 0x10DE, 0x1EB8, 0x0302, "NVIDIA Corporation TU104GL [Tesla T4]")
VGA = PciFunction("0000:03:00.0", 0x102B, 0x0538, 0x0300, "Matrox Electronics Systems Ltd. G200eW3")
NIC = PciFunction("0000:18:00.1", 0x8086, 0x1572, 0x0200, "Intel Corporation X710 for 10GbE SFP+")
ALL = (V100, T4, VGA, NIC)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0000:3b:00.0", "0000:3b:00.0"),
        ("0000:3B:00.0", "0000:3b:00.0"),
        ("3b:00.0", "0000:3b:00.0"),
        ("3b:0.0", "0000:3b:00.0"),
        ("10000:3b:00.1", "10000:3b:00.1"),
        ("00000:059:00.0", "0000:3b:00.0"),
        ("", None),
        ("3b:00", None),
        ("10de:1db6", None),
        ("0000:3g:00.0", None),
        ("0000:3b:00.9", None),
    ],
)
def test_addresses_are_brought_to_one_form(text: str, expected: str | None) -> None:
    assert normalise_address(text) == expected


@pytest.mark.parametrize(
    ("device", "expected"),
    [
        ({"id": "10de:1db6"}, {V100}),
        ({"id": "10DE:1DB6"}, {V100}),
        ({"id": "10de:ffff"}, set()),
        ({"address": "5e:00.0"}, {T4}),
        ({"address": "00000:059:00.0"}, {V100}),
        ({"class": "0302"}, {V100, T4}),
        ({"class": "0x03"}, {V100, T4, VGA}),
        ({"class": "02"}, {NIC}),
        ({"name": "*tesla t4*"}, {T4}),
        ({"name": "nvidia*"}, {V100, T4}),
        ({"name": "tesla"}, set()),
        ({"id": "10de:1db6", "address": None, "class": None, "name": None}, {V100}),
    ],
)
def test_a_selector_chooses(device: dict[str, str], expected: set[PciFunction]) -> None:
    assert set(select(ALL, parse(device))) == expected


@pytest.mark.parametrize(
    ("device", "says"),
    [
        ({}, "exactly one of id, address, class, name"),
        ({"id": "10de:1db6", "name": "x"}, "not id, name"),
        ({"id": "10de"}, "vendor:device"),
        ({"id": "10de:1db6:00"}, "vendor:device"),
        ({"address": "10de:1db6"}, "PCI address"),
        ({"class": "3D"}, None),
        ({"class": "display"}, "PCI class"),
        ({"class": "030"}, "PCI class"),
    ],
)
def test_a_mistaken_selector_says_what_to_write(device: dict[str, str], says: str | None) -> None:
    if says is None:
        assert parse(device) == Selector("class", "3d")
        return
    with pytest.raises(ValueError, match=says):
        parse(device)


functions = st.builds(
    PciFunction,
    address=st.builds("{:04x}:{:02x}:{:02x}.{}".format, *map(st.integers, (0, 0, 0, 0), (3, 255, 31, 7))),
    vendor_id=st.integers(0, 0xFFFF),
    device_id=st.integers(0, 0xFFFF),
    class_id=st.integers(0, 0xFFFF),
    name=st.text(st.characters(codec="ascii", exclude_characters="[]*?"), min_size=1, max_size=12)
    .map(str.strip)
    .filter(bool),
)


@given(st.lists(functions, max_size=8), functions)
def test_every_function_is_chosen_by_each_of_its_properties(others: list[PciFunction], one: PciFunction) -> None:
    for device in (
        {"id": one.id.upper()},
        {"address": one.address},
        {"class": f"{one.class_id:04x}"},
        {"class": f"{one.class_id >> 8:02x}"},
        {"name": one.name.swapcase() if one.name.isascii() else one.name},
    ):
        chosen = select([*others, one], parse(device))
        assert one in chosen
        assert set(chosen) <= {*others, one}


@given(functions, functions)
def test_an_id_chooses_no_other_id(one: PciFunction, other: PciFunction) -> None:
    assert (other in select([other], parse({"id": one.id}))) == (one.id == other.id)
