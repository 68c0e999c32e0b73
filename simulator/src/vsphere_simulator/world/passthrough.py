"""Passthrough of PCI devices: configured at once, in force after a reboot or a rebind."""

from __future__ import annotations

import typing as t

from vsphere_simulator.kernel.objects import ManagedObject, method, prop
from vsphere_simulator.vmomi import vim
from vsphere_simulator.world.host import Passthrough

if t.TYPE_CHECKING:
    from vsphere_simulator.world.hardware import PciFunction
    from vsphere_simulator.world.host import HostSystem


class PciPassthruSystem(ManagedObject):
    """The part of a host that UpdatePassthruConfig is called on."""

    wsdl = vim.host.PciPassthruSystem

    def __init__(self, host: HostSystem) -> None:
        super().__init__(host.world, f"pciPassthruSystem-{host.moid.removeprefix('host-')}")
        self.host = host
        self.name = host.name
        self.parent = host

    @prop("pciPassthruInfo")
    def _info(self) -> list[t.Any]:
        return self.host.passthrough_list()

    @prop("sriovDevicePoolInfo", "value", "availableField")
    def _nothing(self) -> list[t.Any]:
        return []

    @method("Refresh")
    def refresh(self) -> None:
        """Read the devices again; here the list is never stale."""
        self.host.require_connected()

    @method("UpdatePassthruConfig")
    def update(self, config: t.Any) -> None:
        """Configure passthrough of functions and of those that belong to them: all of the list, or nothing.

        HostConfigFault for a function that is not there or not capable, ResourceInUse for one that a running
        virtual machine has (or one of its companions). In force at once where the host can rebind and
        `applyNow` does not say otherwise, else after the next boot: also for GPUs while a vGPU manager runs,
        which does not let go of them.
        """
        self.host.require_connected()
        for wanted in config:
            for function in self._checked(wanted.id):
                self._check_free(function, wants=bool(wanted.passthruEnabled))
        for wanted in config:
            now = self.host.make.rebind_without_reboot and wanted.applyNow is not False
            for function in self._checked(wanted.id):
                state = self.host.passthrough.setdefault(function.address, Passthrough())
                state.enabled = bool(wanted.passthruEnabled)
                held = function.gpu is not None and self.host.graphics.running_manager is not None
                state.active = state.enabled if now and not held else state.active
            if wanted.hardwareLabel is not None:
                self.host.passthrough[wanted.id].label = wanted.hardwareLabel or None
        self.host.passthrough_changed()

    def _checked(self, address: str) -> list[PciFunction]:
        layout = self.host.layout
        function = layout.functions.get(address)
        if function is None:
            raise vim.fault.HostConfigFault(msg=f"There is no PCI device {address} on host {self.host.name}.")
        if not function.capable:
            raise vim.fault.HostConfigFault(
                msg=f"The PCI device {address} on host {self.host.name} is not capable of passthrough."
            )
        return layout.group(function)

    def _check_free(self, function: PciFunction, *, wants: bool) -> None:
        if self.host.passthrough_of(function.address).enabled == wants:
            return
        holder = self.host.holder_of(function) or self.host.graphics.user_of(function)
        if holder is not None:
            raise vim.fault.ResourceInUse(
                type=vim.host.PciDevice,
                name=function.address,
                msg=f"The resource '{function.address}' is in use by virtual machine {holder.name}.",
            )
