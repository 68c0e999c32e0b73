"""A world without a server: tests call methods as the dispatcher would, and wait for the tasks."""

from __future__ import annotations

import asyncio
import typing as t

from vsphere_simulator.kernel.clock import Clock
from vsphere_simulator.kernel.objects import Context
from vsphere_simulator.model.loader import parse_model
from vsphere_simulator.vmomi import vim
from vsphere_simulator.world.build import build_world

if t.TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

HEAD = """
datacenter: dc
datastores: [{name: ds}]
networks: [{name: net}]
"""
TWO_V100 = """
clusters:
  - name: gpu
    hosts:
      - {name: esx-1, gpus: [{gpu: V100-32, count: 2, passthrough: true}]}
      - {name: esx-2, gpus: [{gpu: V100-32, count: 2, passthrough: true}]}
vms:
  - {name: vm-1, host: esx-1, firmware: efi, memory_mb: 8192, memory_locked: true, extra_config: &mmio
       {pciPassthru.use64bitMMIO: "TRUE", pciPassthru.64bitMMIOSizeGB: "128"}}
  - {name: vm-2, host: esx-1, firmware: efi, memory_mb: 8192, memory_locked: true, extra_config: *mmio}
"""
V100_IDS = ("0000:3b:00.0", "0000:5e:00.0")


class Inventory:
    """A world built from a model text, and short ways to work in it as an administrator."""

    def __init__(self, text: str, *, scale: float = 2000.0, state: dict[str, t.Any] | None = None) -> None:
        self.model = parse_model(HEAD + text if "datacenter:" not in text else text)
        self.world = build_world(self.model, Clock(scale), state=state)
        self.world.authorization.add_user("admin", "unused")
        session = self.world.sessions.open("admin", locale="en", ip_address="", user_agent="")
        self.ctx = Context(self.world, session)

    def __getitem__(self, name: str) -> t.Any:
        """The entity of this name."""
        found = [obj for obj in self.world.objects.values() if obj.name == name and hasattr(obj, "custom_values")]
        assert len(found) == 1, f"{name}: {found}"
        return found[0]

    def call(self, obj: t.Any, name: str, /, **arguments: t.Any) -> t.Any:
        """Answer a method as the dispatcher does once everything is checked."""
        entry = obj.methods[name]
        context = {"ctx": self.ctx} if "ctx" in entry.accepts else {}
        return entry.function(obj, **context, **arguments)

    async def run(self, obj: t.Any, name: str, /, **arguments: t.Any) -> t.Any:
        """Call a method that starts a task, wait for its end, return its result or raise its error."""
        task = self.world.get(self.call(obj, name, **arguments))
        await task.job
        if task.error is not None:
            raise task.error
        return self.world.get(task.result) if isinstance(task.result, vim.ManagedEntity) else task.result

    async def start(self, obj: t.Any, name: str, /, **arguments: t.Any) -> t.Any:
        """Call a method that starts a task, let it begin, return the task."""
        task = self.world.get(self.call(obj, name, **arguments))
        await asyncio.sleep(0)
        return task

    async def reconfigure(self, vm: t.Any, **fields: t.Any) -> None:
        """Reconfigure a virtual machine and wait."""
        await self.run(vm, "ReconfigVM_Task", spec=vim.vm.ConfigSpec(**fields))


async def until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    """Wait until something holds; AssertionError when it does not in time."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.001)


def simulate(text: str, scenario: Callable[[Inventory], Awaitable[None]], **options: t.Any) -> None:
    """Build a world on a fresh event loop and play a scenario in it."""

    async def play() -> None:
        inventory = Inventory(text, **options)
        try:
            await asyncio.wait_for(scenario(inventory), 30)
        finally:
            await inventory.world.tasks.shutdown()

    asyncio.run(play())


_pci = vim.vm.device.VirtualPCIPassthrough


def fixed(host: t.Any, address: str, **changes: t.Any) -> t.Any:
    """A fixed DirectPath device for a function of a host."""
    function = host.layout.functions.get(address)
    values = {
        "id": address,
        "deviceId": f"{function.device_id:x}" if function else "1db6",
        "systemId": host.system_id,
        "vendorId": 0x10DE,
        "deviceName": "gpu",
    } | changes
    return _pci(key=-1, backing=_pci.DeviceBackingInfo(**values))


def dynamic(*ids: str, label: str | None = None) -> t.Any:
    """A dynamic DirectPath device that allows these ids."""
    allowed = [_pci.AllowedDevice(vendorId=int(one[:4], 16), deviceId=int(one[5:], 16)) for one in ids]
    return _pci(key=-1, backing=_pci.DynamicBackingInfo(deviceName="", allowedDevice=allowed, customLabel=label))


def virtual(profile: str) -> t.Any:
    """A vGPU."""
    return _pci(key=-1, backing=_pci.VmiopBackingInfo(vgpu=profile))


def change(device: t.Any, operation: str = "add") -> t.Any:
    """A device change of a specification."""
    return vim.vm.device.VirtualDeviceSpec(operation=operation, device=device)


def options(**values: str) -> list[t.Any]:
    """ExtraConfig options; a double underscore stands for a dot."""
    return [vim.option.OptionValue(key=key.replace("__", "."), value=value) for key, value in values.items()]


def mmio(size_gb: int | str) -> list[t.Any]:
    """The two options that give a machine MMIO space."""
    return [
        vim.option.OptionValue(key="pciPassthru.use64bitMMIO", value="TRUE"),
        vim.option.OptionValue(key="pciPassthru.64bitMMIOSizeGB", value=str(size_gb)),
    ]
