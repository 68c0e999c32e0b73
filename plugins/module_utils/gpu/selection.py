# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Choosing PCI functions of a host as an operator writes it: by id, address, class or name."""

from __future__ import annotations

import dataclasses
import fnmatch
import re
import typing as t

from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.facts import PciFunction

_HEX_ADDRESS = re.compile(r"(?:([0-9a-fA-F]{1,8}):)?([0-9a-fA-F]{1,2}):([0-9a-fA-F]{1,2})\.([0-7])")
# Virtual machines show addresses in decimal: five digits of domain, three of bus.
_DECIMAL_ADDRESS = re.compile(r"(\d{5}):(\d{3}):(\d{2})\.(\d)")
_ID = re.compile(r"([0-9a-fA-F]{4}):([0-9a-fA-F]{4})")
_CLASS = re.compile(r"(?:0[xX])?([0-9a-fA-F]{2})([0-9a-fA-F]{2})?")

KEYS = ("id", "address", "class", "name")


def normalise_address(text: str) -> str | None:
    """A PCI address as `0000:3b:00.0`, from `3b:00.0`, `0000:3B:00.0` or decimal `00000:059:00.0`.

    None when it is no PCI address.
    """
    match = _DECIMAL_ADDRESS.fullmatch(text)
    if match:
        domain, bus, slot, function = (int(part) for part in match.groups())
    else:
        match = _HEX_ADDRESS.fullmatch(text)
        if not match:
            return None
        domain, bus, slot, function = (int(part or "0", 16) for part in match.groups())
    return f"{domain:04x}:{bus:02x}:{slot:02x}.{function}"


@dataclasses.dataclass(frozen=True, slots=True)
class Selector:
    """One way of choosing functions; exactly one key, checked by `parse`."""

    key: str
    """One of `KEYS`."""
    value: str
    """Normalised: lower-case hex for id and class, a full address, the glob as written."""

    def matches(self, function: PciFunction) -> bool:
        """Whether the function is chosen. Class `03` matches every subclass; name globs ignore case."""
        if self.key == "id":
            return function.id == self.value
        if self.key == "address":
            return normalise_address(function.address) == self.value
        if self.key == "class":
            return f"{function.class_id:04x}".startswith(self.value)
        return fnmatch.fnmatchcase(function.name.lower(), self.value.lower())

    def __str__(self) -> str:
        return f"{self.key} {self.value}"


def parse(device: t.Mapping[str, t.Any]) -> Selector:
    """A selector from an option such as `{"id": "10de:1db6"}`. Raises ValueError with what to write instead."""
    given = [key for key in KEYS if device.get(key)]
    if len(given) != 1:
        raise ValueError(f"give exactly one of {', '.join(KEYS)} for a device, not {', '.join(given) or 'none'}")
    key = given[0]
    text = str(device[key]).strip()
    if key == "id":
        if not _ID.fullmatch(text):
            raise ValueError(f"id: {text!r} is not vendor:device in hex, such as '10de:1db6'")
        return Selector(key, text.lower())
    if key == "address":
        address = normalise_address(text)
        if address is None:
            raise ValueError(f"address: {text!r} is not a PCI address such as '0000:3b:00.0'")
        return Selector(key, address)
    if key == "class":
        match = _CLASS.fullmatch(text)
        if not match:
            raise ValueError(f"class: {text!r} is not a PCI class in hex, such as '0302' (3D controller) or '03'")
        return Selector(key, (match.group(1) + (match.group(2) or "")).lower())
    return Selector(key, text)


def select(functions: t.Iterable[PciFunction], selector: Selector) -> tuple[PciFunction, ...]:
    """The functions that the selector chooses, in their order."""
    return tuple(function for function in functions if selector.matches(function))
