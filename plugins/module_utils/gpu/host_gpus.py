# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The GPUs of one host as virtual machines see them: which there are, which attachment is a GPU, who holds what."""

from __future__ import annotations

import collections
import collections.abc

from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.catalog import NVIDIA, Catalog
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.facts import (
    GpuAttachment,
    HostFacts,
    PciFunction,
    VmFacts,
)
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.selection import normalise_address
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.wants import GpuWant


class HostGpus:
    """A host's GPUs by full PCI address."""

    def __init__(self, host: HostFacts, catalog: Catalog) -> None:
        self.name = host.name
        self.facts = host
        self.catalog = catalog
        self.functions: dict[str, PciFunction] = {
            normalise_address(function.address) or function.address: function for function in host.devices
        }
        """Every PCI function, GPU or not."""
        self.devices = {
            address: function for address, function in sorted(self.functions.items()) if catalog.is_gpu(function)
        }

    def matching(self, want: GpuWant) -> list[str]:
        """Addresses of the GPUs that would do, whoever holds them."""
        return [
            address
            for address, function in self.devices.items()
            if (want.address is None or want.address == address)
            and (want.id is None or want.id == function.id)
            and (want.label is None or want.label == function.hardware_label)
        ]

    def dynamic_ids(self, want: GpuWant) -> tuple[str, ...]:
        """The ids that a new dynamic GPU allows: a vCenter takes none that allows nothing, label or not."""
        return (want.id,) if want.id else tuple(sorted({self.devices[a].id for a in self.matching(want)}))

    def active(self, address: str) -> bool:
        """Whether the GPU is passed through now."""
        function = self.devices.get(address)
        return function is not None and function.passthrough_enabled and function.passthrough_active

    def model_name(self, device_id: str) -> str:
        """The catalogue key of a device, its id when it is unknown."""
        model = self.catalog.get(device_id)
        return model.key if model else device_id

    def gpu_attachments(self, vm: VmFacts) -> list[GpuAttachment]:
        """The passthrough devices of a virtual machine that are GPUs; others (network cards, switches) are not ours."""
        return [gpu for gpu in vm.gpus if self._is_gpu(gpu)]

    def _is_gpu(self, attachment: GpuAttachment) -> bool:
        if attachment.mode == "vgpu":
            return True
        if attachment.address in self.functions:
            return attachment.address in self.devices
        if not attachment.ids:
            bearers = [a for a, function in self.functions.items() if function.hardware_label == attachment.label]
            return not bearers or any(address in self.devices for address in bearers)
        return any(self._is_gpu_id(device_id) for device_id in attachment.ids)

    def _is_gpu_id(self, device_id: str) -> bool:
        here = [address for address, function in self.functions.items() if function.id == device_id]
        if here:
            return any(address in self.devices for address in here)
        return device_id.startswith(f"{NVIDIA:04x}:") or self.catalog.get(device_id) is not None

    def summary(self) -> str:
        """`2 x V100-32 (10de:1db6)`, for messages."""
        counts = collections.Counter(function.id for function in self.devices.values())
        return ", ".join(f"{n} x {self.model_name(i)} ({i})" for i, n in sorted(counts.items())) or "no GPU"


def holders(host: HostGpus, vms: collections.abc.Iterable[VmFacts]) -> dict[str, list[str]]:
    """Address -> names of the virtual machines that have the device: fixed, or assigned while powered on.

    Templates never run and hold nothing.
    """
    held: dict[str, list[str]] = collections.defaultdict(list)
    for vm in vms:
        if vm.template:
            continue
        for address in dict.fromkeys(gpu.address for gpu in vm.gpus if gpu.address):
            if address in host.devices:
                held[address].append(vm.name)
    return dict(held)


def fixed_addresses(host: HostGpus, vm: VmFacts) -> list[str]:
    """The GPUs of this host that the virtual machine has by address."""
    return [gpu.address for gpu in vm.gpus if gpu.mode == "fixed" and gpu.address and gpu.address in host.devices]


def assigned_addresses(host: HostGpus, vm: VmFacts, want: GpuWant) -> list[str]:
    """The GPUs that a running virtual machine was given for a dynamic want."""
    fits = set(host.matching(want))
    return [gpu.address for gpu in vm.gpus if gpu.mode == "dynamic" and gpu.address and gpu.address in fits]


def state_of(function: PciFunction) -> str:
    """Why a GPU cannot be attached yet."""
    if function.passthrough_enabled:
        return "enabled for passthrough, active after the next reboot"
    if function.passthrough_capable:
        return "not enabled for passthrough"
    return "not capable of passthrough"


def listed(parts: collections.abc.Sequence[str], most: int = 8) -> str:
    """Parts of a message, the first few of many."""
    more = [f"and {len(parts) - most} more"] if len(parts) > most else []
    return "; ".join([*parts[:most], *more])
