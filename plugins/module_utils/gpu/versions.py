# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Versions of software as vendors write them: comparing, and matching what an operator wrote."""

from __future__ import annotations

import re

_NUMBERS = re.compile(r"\d+")


def numbers(version: str) -> tuple[int, ...]:
    """The numbers of a version in order: `535.154.02-1OEM.800.1.0` -> (535, 154, 2, 1, 800, 1, 0)."""
    return tuple(int(part) for part in _NUMBERS.findall(version))


def release(version: str) -> str:
    """A version without the vendor's build suffix: `535.154.02-1OEM.800.1.0.20613240` -> `535.154.02`."""
    return version.partition("-")[0]


def matches(wanted: str, found: str) -> bool:
    """Whether a version is the one wanted: the same, or the same up to the build suffix, if none was asked for."""
    return found == wanted or ("-" not in wanted and release(found) == wanted)


def older(one: str, other: str) -> bool:
    """Whether `one` is a lower version than `other`, build suffixes left out."""
    return numbers(release(one)) < numbers(release(other))
