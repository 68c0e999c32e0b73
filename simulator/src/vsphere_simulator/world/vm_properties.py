"""The properties of a virtual machine, each at its path."""

from __future__ import annotations

import typing as t

from vsphere_simulator.kernel.objects import prop
from vsphere_simulator.world import vm_facts
from vsphere_simulator.world.entity import Entity

if t.TYPE_CHECKING:
    from vsphere_simulator.world.environment import EnvironmentBrowser
    from vsphere_simulator.world.host import HostSystem
    from vsphere_simulator.world.pools import ResourcePool
    from vsphere_simulator.world.snapshots import Snapshot
    from vsphere_simulator.world.storage import Datastore, Network
    from vsphere_simulator.world.virtual_machine import VirtualMachine


class VmProperties(Entity):
    """What clients read of a virtual machine; the paths read most have a builder of their own."""

    @property
    def _vm(self) -> VirtualMachine:
        return t.cast("VirtualMachine", self)

    @prop("runtime.powerState", "summary.runtime.powerState")
    def _power_state(self) -> str:
        return self._vm.power

    @prop("runtime.host", "summary.runtime.host")
    def _runtime_host(self) -> HostSystem:
        return self._vm.host

    @prop("runtime.connectionState", "summary.runtime.connectionState")
    def _connection_state(self) -> str:
        return "connected" if self._vm.host.answers else "disconnected"

    @prop("runtime", "summary.runtime")
    def _runtime(self) -> t.Any:
        return vm_facts.runtime(self._vm)

    @prop("config")
    def _config(self) -> t.Any:
        return vm_facts.config(self._vm)

    @prop("config.hardware.device")
    def _device_list(self) -> list[t.Any]:
        return self._vm.device_list()

    @prop("config.hardware")
    def _hardware(self) -> t.Any:
        return vm_facts.hardware(self._vm)

    @prop("config.extraConfig")
    def _extra_config(self) -> list[t.Any]:
        return vm_facts.extra_config(self._vm.config)

    @prop("config.name", "summary.config.name")
    def _config_name(self) -> str:
        return self._vm.name

    @prop("config.template", "summary.config.template")
    def _template(self) -> bool:
        return self._vm.template

    @prop("config.changeVersion")
    def _change_version(self) -> str:
        return self._vm.config.change_version

    @prop("config.firmware")
    def _firmware(self) -> str:
        return self._vm.config.firmware

    @prop("config.version", "summary.config.hwVersion")
    def _version(self) -> str:
        return f"vmx-{self._vm.config.hardware_version:02d}"

    @prop("config.uuid", "summary.config.uuid")
    def _uuid(self) -> str:
        return self._vm.config.uuid

    @prop("config.instanceUuid", "summary.config.instanceUuid")
    def _instance_uuid(self) -> str:
        return self._vm.config.instance_uuid

    @prop("config.memoryReservationLockedToMax")
    def _memory_locked(self) -> bool:
        return self._vm.config.memory_locked

    @prop("config.cpuHotAddEnabled")
    def _cpu_hot_add(self) -> bool:
        return self._vm.config.cpu_hot_add

    @prop("config.memoryHotAddEnabled")
    def _memory_hot_add(self) -> bool:
        return self._vm.config.memory_hot_add

    @prop("config.memoryAllocation", "resourceConfig.memoryAllocation")
    def _memory_allocation(self) -> t.Any:
        return vm_facts.memory_allocation(self._vm.config)

    @prop("config.hardware.memoryMB", "summary.config.memorySizeMB")
    def _memory_mb(self) -> int:
        return self._vm.config.memory_mb

    @prop("summary")
    def _summary(self) -> t.Any:
        return vm_facts.summary(self._vm)

    @prop("guest")
    def _guest(self) -> t.Any:
        return vm_facts.guest(self._vm)

    @prop("guestHeartbeatStatus")
    def _heartbeat(self) -> str:
        return "green" if self._vm.inside is not None else "gray"

    @prop("capability")
    def _capability(self) -> t.Any:
        return vm_facts.capability()

    @prop("resourceConfig")
    def _resource_config(self) -> t.Any:
        return vm_facts.resource_config(self._vm)

    @prop("resourcePool")
    def _resource_pool(self) -> ResourcePool | None:
        return self._vm.pool

    @prop("environmentBrowser")
    def _environment(self) -> EnvironmentBrowser:
        return self._vm.environment

    @prop("datastore")
    def _datastores(self) -> list[Datastore]:
        return self._vm.datastores

    @prop("network")
    def _networks(self) -> list[Network]:
        return self._vm.networks

    @prop("storage")
    def _storage(self) -> t.Any:
        return vm_facts.storage(self._vm)

    @prop("layoutEx")
    def _layout(self) -> t.Any:
        return vm_facts.layout(self._vm)

    @prop("rootSnapshot")
    def _root_snapshots(self) -> list[Snapshot]:
        return self._vm.snapshots.roots

    @prop("snapshot")
    def _snapshot_info(self) -> t.Any:
        return self._vm.snapshots.info()
