# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The driver triangle: ESXi, the vGPU manager on it, and the driver in its guests must go together.

Which guests a manager takes: NVIDIA's "Virtual GPU Software R580 for VMware vSphere Release Notes" (19.0), section
"Compatibility Requirements for the NVIDIA vGPU Manager and Guest VM Driver" (the same release; a later branch with
guests of the branch before; a later long-term branch with guests of the long-term branch before), and the release notes
of 8.0 to 8.10 (their own branch only). Releases and their drivers: the same notes (8 is 418, 15 is 525, 19 is 580).
Long-term branches: NVIDIA's data center driver matrices (418 and 450 in that of 2021, 535 and 580 in that of 2026).

ESXi: the build suffix of a manager's package names the ESXi that it was built for (`-1OEM.800.` is ESXi 8.0), which
decides where it is known. The ranges of the table are for versions without a suffix. Confirmed by NVIDIA's documents
are 8.0 for release 15 and 9.0 at the time of release 19; the other ranges, and 470 as a long-term branch, are not
verified against each release's "Hypervisor Software Releases". Release 20 has no range, as none was found.
"""

from __future__ import annotations

import dataclasses
import re
import typing as t

from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.versions import numbers, release

_BUILT_FOR = re.compile(r"OEM\.(\d)(\d)\d(?:\.|$)")
_FIRST_DRIVER = 300
"""Drivers count from here (418.…), releases of the vGPU software far below (8.…)."""


@dataclasses.dataclass(frozen=True, slots=True)
class Branch:
    """One release of the vGPU software, its driver branch, and the ESXi versions that it is for."""

    number: int
    """Major number of the release, for example 16."""
    driver: int
    """Major number of its drivers, for example 535."""
    esxi: tuple[tuple[int, int], tuple[int, int]] | None
    """First and last version of ESXi (major, minor), None where that is not known."""
    long_term: bool = False


BRANCHES: t.Final = (
    Branch(8, 418, ((6, 0), (6, 7)), long_term=True),
    Branch(9, 430, ((6, 0), (6, 7))),
    Branch(10, 440, ((6, 0), (7, 0))),
    Branch(11, 450, ((6, 5), (7, 0)), long_term=True),
    Branch(12, 460, ((6, 5), (7, 0))),
    Branch(13, 470, ((6, 5), (8, 0)), long_term=True),
    Branch(14, 510, ((6, 7), (8, 0))),
    Branch(15, 525, ((7, 0), (8, 0))),
    Branch(16, 535, ((7, 0), (8, 0)), long_term=True),
    Branch(17, 550, ((7, 0), (8, 0))),
    Branch(18, 570, ((7, 0), (9, 0))),
    Branch(19, 580, ((8, 0), (9, 1)), long_term=True),
    Branch(20, 595, None),
)
_OWN_BRANCH_ONLY = 8


@dataclasses.dataclass(frozen=True, slots=True)
class Mismatch:
    """Two corners of the triangle that do not go together."""

    code: t.Literal["manager_not_for_esxi", "guest_driver_not_for_manager", "version_unreadable"]
    msg: str
    """What does not fit and what to do."""


def branch_of(version: str) -> Branch | None:
    """The branch of a driver (`535.154.02`), of a package, or of a release of the vGPU software (`16.4`).

    None for one that the table does not have.
    """
    found = numbers(release(version))
    if not found:
        return None
    by_driver = found[0] >= _FIRST_DRIVER
    return next((one for one in BRANCHES if (one.driver if by_driver else one.number) == found[0]), None)


def check_manager(esxi: str, manager: str) -> Mismatch | None:
    """Whether a vGPU manager is for a version of ESXi (`8.0.3`)."""
    host = numbers(esxi)[:2]
    if len(host) < 2 or not numbers(release(manager)):
        return Mismatch(
            "version_unreadable", f"ESXi {esxi!r} or manager {manager!r} is no version. Write them as the vendors do."
        )
    built = _BUILT_FOR.search(manager)
    if built is not None and int(built.group(1)) != host[0]:
        return Mismatch(
            "manager_not_for_esxi",
            f"The vGPU manager {manager} is built for ESXi {built.group(1)}.{built.group(2)}, and the host runs "
            f"{esxi}. Take the package for the host's ESXi.",
        )
    branch = branch_of(manager) if built is None else None
    if branch is not None and branch.esxi is not None and not branch.esxi[0] <= host <= branch.esxi[1]:
        first, last = (".".join(str(part) for part in edge) for edge in branch.esxi)
        return Mismatch(
            "manager_not_for_esxi",
            f"The vGPU manager {release(manager)} (release {branch.number}) is for ESXi {first} to {last}, and the "
            f"host runs {esxi}. Choose another release, or bring ESXi there first. If NVIDIA offers a "
            "package of it for this ESXi, write its version with the build suffix (-1OEM.…).",
        )
    return None


def check_guest(manager: str, guest: str) -> Mismatch | None:
    """Whether a guest driver works on a vGPU manager.

    Of branches that the table does not have, only the same one is accepted.
    """
    host_numbers, guest_numbers = numbers(release(manager)), numbers(release(guest))
    if not host_numbers or not guest_numbers:
        return Mismatch(
            "version_unreadable",
            f"Manager {manager!r} or guest driver {guest!r} is no version. Write them as NVIDIA does.",
        )
    of_host, of_guest = branch_of(manager), branch_of(guest)
    if of_host == of_guest and (of_host is not None or host_numbers[0] == guest_numbers[0]):
        return None
    head = f"The guest driver {guest} does not work on the vGPU manager {manager}"
    if of_host is None or of_guest is None:
        return _guest(f"{head}: of releases that are not known here, both must be of one branch.")
    if of_guest.number > of_host.number:
        return _guest(
            f"{head}: its release {of_guest.number} is later than the manager's ({of_host.number}). Upgrade the "
            "manager first, or take an older guest driver."
        )
    accepted = _accepted(of_host)
    if of_guest in accepted:
        return None
    fitting = ", ".join(str(one.driver) for one in (*accepted, of_host))
    return _guest(f"{head}: release {of_host.number} takes guest drivers of the branches {fitting}. Take one of them.")


def check_triangle(esxi: str | None, manager: str | None, guest: str | None) -> tuple[Mismatch, ...]:
    """Everything that does not go together, of the corners that are known."""
    found = []
    if esxi and manager:
        found.append(check_manager(esxi, manager))
    if manager and guest:
        found.append(check_guest(manager, guest))
    return tuple(mismatch for mismatch in found if mismatch is not None)


def _accepted(host: Branch) -> tuple[Branch, ...]:
    """The earlier branches whose guests a manager takes."""
    if host.number == _OWN_BRANCH_ONLY:
        return ()
    place = BRANCHES.index(host)
    before = [BRANCHES[place - 1]] if place else []
    if host.long_term:
        before += [one for one in BRANCHES[:place] if one.long_term][-1:]
    return tuple(dict.fromkeys(one for one in before if one.number != _OWN_BRANCH_ONLY))


def _guest(msg: str) -> Mismatch:
    return Mismatch("guest_driver_not_for_manager", msg)
