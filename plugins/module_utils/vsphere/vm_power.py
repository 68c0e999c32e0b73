# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Power of virtual machines: on, off, suspended, for many at once."""

from __future__ import annotations

import collections.abc
import typing as t

from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.facts import VmFacts
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.client import Client
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.tasks import Bounds, TaskOutcome
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.vms import Moids, power_on

Order = t.Callable[[collections.abc.Sequence[str]], collections.abc.Sequence[str]]
"""Puts names that wait for their power-on in the order in which they are to have it."""


def power_on_in_turn(
    client: Client, moids: Moids, bounds: Bounds, lanes: t.Mapping[str, str], order: Order
) -> dict[str, TaskOutcome]:
    """Power on (or resume) all at once, except that those of one lane come one after the other.

    `lanes` is the host of each virtual machine with a vGPU: the host chooses the GPU, and what it chooses for one
    depends on the one before. `order` is asked anew after each round for those that are left.
    """
    outcomes: dict[str, TaskOutcome] = {}
    waiting = list(order([name for name in moids if name in lanes]))
    now = [name for name in moids if name not in lanes]
    while now or waiting:
        busy: set[str] = set()
        for name in list(waiting):
            if lanes[name] not in busy:
                busy.add(lanes[name])
                waiting.remove(name)
                now.append(name)
        outcomes |= power_on(client, {name: moids[name] for name in now}, bounds)
        now = []
        if waiting:
            waiting = list(order(waiting))
    return outcomes


def lanes_of(vms: t.Mapping[str, VmFacts]) -> dict[str, str]:
    """The lane of each virtual machine that has a vGPU: its host."""
    return {name: str(vm.host) for name, vm in vms.items() if any(gpu.mode == "vgpu" for gpu in vm.gpus)}
