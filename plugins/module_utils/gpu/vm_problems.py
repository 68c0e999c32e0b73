# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Problems of virtual machines that several planners meet, in one wording."""

from __future__ import annotations

import collections.abc

from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.facts import HostFacts
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.plan import Problem
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.suggest import did_you_mean


def not_found(name: str, known: collections.abc.Iterable[str]) -> Problem:
    """No virtual machine has this name; `known` are those there are."""
    hint = did_you_mean(name, known) or "Create it first (vm_group), or correct the name."
    return Problem("vm_not_found", name, f"The vCenter has no virtual machine of this name. {hint}", "vms")


def ambiguous(name: str) -> Problem:
    """Several virtual machines have this name."""
    return Problem(
        "ambiguous_name", name, "Several virtual machines have this name. Rename all but one of them.", "vms"
    )


def no_host(name: str) -> Problem:
    """The virtual machine is on no host that was read."""
    return Problem("no_host", name, "The virtual machine is on no host that the vCenter knows now.", kind="state")


def not_connected(name: str, host: HostFacts, option: str | None = None) -> Problem:
    """The virtual machine's host does not answer."""
    how = "not responding" if host.connection == "notResponding" else "disconnected"
    text = f"Its host {host.name} is {how}. Bring the host back, then run again."
    return Problem("host_not_connected", name, text, option, kind="state")


def in_maintenance(name: str, host: HostFacts, option: str | None = None) -> Problem:
    """The virtual machine's host takes no work now."""
    text = f"Its host {host.name} is in maintenance mode. Run again when it has left it."
    return Problem("host_in_maintenance", name, text, option, kind="state")


def unreadable_neighbours(host: str, moids: collections.abc.Collection[str]) -> str:
    """A warning: virtual machines on the host cannot be read, and what they hold is not known."""
    return (
        f"The account may not read {', '.join(sorted(moids))} on {host}: they may hold GPUs of the host. "
        "Give it System.Read there, so that they count."
    )
