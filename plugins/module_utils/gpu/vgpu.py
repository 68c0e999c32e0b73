# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""vGPU profiles, the rules by which they share a GPU, and which GPU a host will choose for a new one.

Rules from NVIDIA's vGPU user guide: a GPU in same-size mode holds vGPUs of one size and series, one in mixed-size
mode different sizes at their placement ids, one in MIG mode at most seven slices. ESXi chooses the GPU by the
host's assignment policy; no client can.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import re
import typing as t

from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.catalog import Catalog, GpuModel
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.facts import HostFacts, VmFacts

_NAME = re.compile(
    r"(?:(?:grid|nvidia)_)?(?P<board>[a-z0-9]+)-(?:(?P<slices>[1-7])-)?(?P<size>\d+)(?P<series>[a-z])(?P<more>[a-z_.]*)",
    re.IGNORECASE,
)
MIG_SLICES = 7
MIG_MODE = "multiInstanceGpu"


@dataclasses.dataclass(frozen=True, slots=True)
class Profile:
    """A vGPU profile as its name tells it."""

    name: str
    board: str
    size_gb: int
    """Framebuffer."""
    series: str
    """`c` compute, `q` workstation, `a` applications, `b` business."""
    slices: int | None = None
    """MIG-backed: how many of the GPU's seven slices; None for a time-sliced profile."""


def parse_profile(name: str) -> Profile | None:
    """The profile of a name such as `nvidia_a100-10c`, `grid_a100-10c` or `A100-10C`; None for anything else."""
    match = _NAME.fullmatch(name.strip())
    if match is None:
        return None
    slices = int(match["slices"]) if match["slices"] else None
    return Profile(name, match["board"].lower(), int(match["size"]), match["series"].lower(), slices)


def plain(name: str) -> str:
    """The name without what differs between releases: `grid_a100-10c` and `nvidia_a100-10c` are one profile."""
    return name.strip().lower().removeprefix("grid_").removeprefix("nvidia_")


def offered(name: str, host: HostFacts) -> str | None:
    """The profile as the host calls it; None when the host does not offer it."""
    return next((there for there in host.vgpu_types if plain(there) == plain(name)), None)


@dataclasses.dataclass(frozen=True, slots=True)
class Slot:
    """One vGPU on a GPU."""

    profile: Profile
    start_gb: int
    """Where in the framebuffer it begins."""
    holder: str | None = None
    """Id (moid) of its virtual machine, where one is known."""


@dataclasses.dataclass(frozen=True, slots=True)
class Gpu:
    """A GPU that vGPUs run on."""

    address: str
    board: str | None
    framebuffer_gb: int
    model: GpuModel | None
    mode: str
    """`sameSize`, `mixedSize` or `multiInstanceGpu`."""
    slots: tuple[Slot, ...] = ()

    @property
    def used_gb(self) -> int:
        """Framebuffer that vGPUs hold."""
        return sum(slot.profile.size_gb for slot in self.slots)

    def start_for(self, profile: Profile) -> int | None:
        """Where a new vGPU would begin; None when the GPU does not take it."""
        if self.board is not None and profile.board != self.board:
            return None
        if any(slot.profile.series != profile.series for slot in self.slots):
            return None
        if profile.slices is not None or self.mode == MIG_MODE:
            return self._mig_start(profile)
        if self.mode == "mixedSize":
            return self._mixed_start(profile)
        division = self.model.vgpu if self.model else None
        most = division.most(profile.size_gb) if division else self.framebuffer_gb // max(1, profile.size_gb)
        if any(slot.profile.size_gb != profile.size_gb for slot in self.slots) or len(self.slots) >= most:
            return None
        taken = {slot.start_gb for slot in self.slots}
        return next(start for start in range(0, (most + 1) * profile.size_gb, profile.size_gb) if start not in taken)

    def _mixed_start(self, profile: Profile) -> int | None:
        division = self.model.vgpu if self.model else None
        for start in division.starts(profile.size_gb, self.framebuffer_gb) if division else ():
            end = start + profile.size_gb
            if all(end <= slot.start_gb or slot.start_gb + slot.profile.size_gb <= start for slot in self.slots):
                return start
        return None

    def _mig_start(self, profile: Profile) -> int | None:
        if profile.slices is None or self.mode != MIG_MODE:
            return None
        slices = sum(slot.profile.slices or 0 for slot in self.slots)
        fits = slices + profile.slices <= MIG_SLICES and self.used_gb + profile.size_gb <= self.framebuffer_gb
        return self.used_gb if fits else None

    def with_vgpu(self, profile: Profile, start_gb: int, holder: str | None = None) -> Gpu:
        """The GPU with one vGPU more."""
        return dataclasses.replace(self, slots=(*self.slots, Slot(profile, start_gb, holder)))


Gpus = t.Mapping[str, Gpu]
"""By address."""


def place(gpus: Gpus, profile: Profile, policy: str) -> tuple[str, int] | None:
    """The GPU (address) and slot that the host gives a new vGPU; None when none takes it.

    `performance` takes the GPU with the fewest vGPUs, `consolidation` the fullest; the lower address on a tie.
    """
    fitting = [(gpu, start) for gpu in gpus.values() if (start := gpu.start_for(profile)) is not None]
    if not fitting:
        return None
    if policy == "consolidation":
        gpu, start = min(fitting, key=lambda item: (-item[0].used_gb, item[0].address))
    else:
        gpu, start = min(fitting, key=lambda item: (len(item[0].slots), item[0].address))
    return gpu.address, start


def profiles_of(vm: VmFacts) -> tuple[Profile, ...]:
    """The vGPUs of a virtual machine, in the order of its devices."""
    found = (parse_profile(gpu.profile or "") for gpu in sorted(vm.gpus, key=lambda gpu: gpu.key))
    return tuple(profile for profile in found if profile is not None)


def running(host: HostFacts, vms: collections.abc.Iterable[VmFacts], catalog: Catalog) -> dict[str, Gpu]:
    """The GPUs that take vGPUs, with those of the virtual machines that run (`vms`: at least those of the host)."""
    ids = {function.address: function.id for function in host.devices}
    gpus: dict[str, Gpu] = {}
    for device in sorted(host.graphics, key=lambda device: device.address):
        if device.graphics_type == "sharedDirect":
            model = catalog.get(ids.get(device.address, ""))
            size = (model.framebuffer_gb if model else None) or round(device.memory_mb / 1024)
            mode = device.vgpu_mode if device.vgpu_mode not in (None, "none") else "sameSize"
            gpus[device.address] = Gpu(device.address, model.board if model else None, size, model, str(mode))
    on = {device.address: device.vm_moids for device in host.graphics}
    for vm in sorted(vms, key=lambda vm: vm.name):
        if vm.host != host.name or vm.power != "poweredOn":
            continue
        mine = {address: gpu for address, gpu in gpus.items() if vm.moid and vm.moid in on[address]}
        for profile in profiles_of(vm):
            # Where it is not told, the host's policy is the best guess.
            found = place(mine or gpus, profile, "performance" if mine else host.assignment_policy)
            if found is not None:
                address, start = found
                gpus[address] = gpus[address].with_vgpu(profile, start, vm.moid)
                if mine:
                    mine[address] = gpus[address]
    return gpus


@dataclasses.dataclass(frozen=True, slots=True)
class Prediction:
    """Where vGPUs will be when virtual machines are powered on one after the other."""

    order: tuple[str, ...]
    """Those that fit, in an order in which they do."""
    addresses: t.Mapping[str, tuple[str, ...]]
    """GPU of each vGPU, by virtual machine."""
    missing: tuple[str, ...]
    """Those that do not fit."""


def predict(gpus: Gpus, demands: t.Mapping[str, tuple[Profile, ...]], policy: str) -> Prediction:
    """Power on one after the other: in the order given if that serves all, else the largest first."""
    names = list(demands)
    largest = sorted(names, key=lambda name: -max((profile.size_gb for profile in demands[name]), default=0))
    first = _in_order(gpus, {name: demands[name] for name in names}, policy)
    if not first.missing:
        return first
    second = _in_order(gpus, {name: demands[name] for name in largest}, policy)
    return second if len(second.missing) < len(first.missing) else first


def _in_order(gpus: Gpus, demands: t.Mapping[str, tuple[Profile, ...]], policy: str) -> Prediction:
    state = dict(gpus)
    addresses: dict[str, tuple[str, ...]] = {}
    for name, profiles in demands.items():
        after, got = dict(state), []
        for profile in profiles:
            found = place(after, profile, policy)
            if found is None:
                break
            after[found[0]] = after[found[0]].with_vgpu(profile, found[1])
            got.append(found[0])
        else:
            state, addresses[name] = after, tuple(got)
    return Prediction(tuple(addresses), addresses, tuple(name for name in demands if name not in addresses))
