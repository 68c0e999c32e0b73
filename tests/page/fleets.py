# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Fleets of any size as facts, and the page of one as a file."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.catalog import Catalog
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.facts import GraphicsDevice, HostFacts, VmFacts
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.fleet_page import files, render
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.fleet_page.build import Inputs, build_page
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.fleet_page.model import Page
from gpu_builders import A100, SLOTS, V100, fixed, gpu, host, vgpu, vm

TOP = Path(__file__).resolve().parents[2]
ASSETS = TOP / "roles" / "report" / "files" / "fleet_page"
PROFILES = tuple(f"grid_a100-{size}c" for size in (40, 20, 10, 8, 5, 4))
GENERATED = "2026-01-02T03:04:05Z"


@dataclasses.dataclass(frozen=True)
class Fleet:
    hosts: dict[str, HostFacts]
    vms: list[VmFacts]

    def page(self, **inputs: Any) -> Page:
        return build_page(
            self.hosts, self.vms, Catalog(), Inputs(**inputs), title="GPU fleet", source="vcenter.example.org"
        )


def divided(name: str, gpus: int = 8, **more: Any) -> HostFacts:
    """A host with so many A100-40 that are divided into vGPUs."""
    functions = [gpu(address, A100, active=False) for address in SLOTS[:gpus]]
    graphics = tuple(GraphicsDevice(address, "sharedDirect", "sameSize", 40960) for address in SLOTS[:gpus])
    return host(name, *functions, graphics=graphics, vgpu_types=PROFILES, **more)


def on_gpu(where: HostFacts, slot: int, machines: list[VmFacts]) -> HostFacts:
    """The host with these machines on one of its GPUs."""
    graphics = list(where.graphics)
    graphics[slot] = dataclasses.replace(graphics[slot], vm_moids=tuple(machine.moid for machine in machines))
    return dataclasses.replace(where, graphics=tuple(graphics))


def large(hosts: int) -> Fleet:
    """Hosts of 8 GPUs in clusters of 50, six of eight GPUs in use with four vGPUs each."""
    made, vms = {}, []
    for number in range(hosts):
        name = f"esx-{number:04d}.example.org"
        one = divided(name, cluster=f"cluster-{number // 50:02d}")
        for slot in range(6):
            machines = [
                vm(f"vm-{number:04d}-{slot}{at}", vgpu("grid_a100-10c"), host=name, power="poweredOn")
                for at in range(4)
            ]
            one = on_gpu(one, slot, machines)
            vms += machines
        made[name] = one
    return Fleet(made, vms)


def small(hosts: tuple[str, str] = ("esx-1", "esx-2"), machine: str = "train") -> Fleet:
    """A divided host with a full, a partly used and a free GPU, and one with passed-through GPUs, one to reboot."""
    first, second = hosts
    machines = [
        vm(f"{machine}-a", vgpu("grid_a100-40c"), host=first, power="poweredOn"),
        vm(f"{machine}-b", vgpu("grid_a100-10c"), host=first, power="poweredOn"),
        vm(f"{machine}-c", vgpu("grid_a100-10c"), host=first, power="suspended"),
    ]
    one = on_gpu(on_gpu(divided(first, 3), 0, machines[:1]), 1, machines[1:2])
    waiting = gpu(SLOTS[2], V100, passthrough_active=False, passthrough_enabled=True)
    two = host(second, gpu(SLOTS[0], V100), gpu(SLOTS[1], V100), waiting, cluster="other")
    machines += [
        vm(f"{machine}-d", fixed(SLOTS[0]), host=second, power="poweredOn"),
        vm("template", fixed(SLOTS[1]), host=second, template=True),
        vm("no-gpu", host=second, power="poweredOn"),
    ]
    return Fleet({first: one, second: two}, machines)


def write(page: Page, path: Path, generated: str = GENERATED) -> str:
    """The page as a file; its URL."""
    path.write_text(render.render(page, files.assets(str(ASSETS)), generated))
    return path.as_uri()
