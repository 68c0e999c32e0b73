"""A world of a few objects, served like the real one: what the wire's own tests talk to.

Run as `python tiny_world.py`, with the options of `vsphere-simulator serve` but for the model, and
`--machines N`.
"""

from __future__ import annotations

import argparse
import asyncio
import pathlib
import typing as t

from vsphere_simulator.kernel.clock import Clock
from vsphere_simulator.kernel.objects import Context, ManagedEntity, ManagedObject, method, prop
from vsphere_simulator.kernel.registry import TaskControl, World
from vsphere_simulator.kernel.service import install_services
from vsphere_simulator.serve import Prepared, Settings, serve
from vsphere_simulator.soap import newest_version
from vsphere_simulator.vmomi import make, vim, vmodl

DEVICES = 12


class Folder(ManagedEntity):
    wsdl = vim.Folder

    def __init__(self, world: World, moid: str, name: str, parent: ManagedObject | None) -> None:
        super().__init__(world, moid)
        self.name = name
        self.parent = parent
        self.children: list[ManagedObject] = []

    @prop("childEntity")
    def _children(self) -> list[ManagedObject]:
        return self.children

    @prop("childType")
    def _types(self) -> list[str]:
        return ["Folder", "VirtualMachine"]

    @method("CreateFolder")
    def create_folder(self, name: str) -> Folder:
        if any(child.name == name for child in self.children):
            raise vim.fault.DuplicateName(name=name, object=self.ref, msg=f"The name '{name}' already exists.")
        return self.put(Folder(self.world, self.world.next_id("group-v"), name, self))

    def put(self, child: t.Any) -> t.Any:
        self.children.append(self.world.add(child))
        self.world.changed(self, "childEntity")
        return child

    @method("UnregisterAndDestroy_Task", privilege="Folder.Delete")
    def breaks(self) -> None:
        raise ZeroDivisionError("a bug in an operation")


class Machine(ManagedEntity):
    wsdl = vim.VirtualMachine

    def __init__(self, world: World, moid: str, name: str, parent: Folder) -> None:
        super().__init__(world, moid)
        self.name = name
        self.parent: t.Any = parent
        self.memory = 1024
        self.power = "poweredOff"
        self.notes: str | None = None
        self.extra: dict[str, str] = {}

    @prop("runtime")
    def _runtime(self) -> t.Any:
        return make(
            vim.vm.RuntimeInfo,
            powerState=self.power,
            connectionState="connected",
            faultToleranceState="notConfigured",
            toolsInstallerMounted=False,
            numMksConnections=0,
            recordReplayState="inactive",
        )

    @prop("config.annotation")
    def _notes(self) -> str | None:
        return self.notes

    @prop("config.hardware")
    def _hardware(self) -> t.Any:
        return make(vim.vm.VirtualHardware, numCPU=2, memoryMB=self.memory, device=[_disk(n) for n in range(DEVICES)])

    @prop("config.extraConfig")
    def _extra(self) -> list[t.Any]:
        return [make(vim.option.OptionValue, key=key, value=value) for key, value in self.extra.items()]

    @prop("guest")
    def _guest(self) -> t.Any:
        return None

    @method("ReconfigVM_Task", privilege="VirtualMachine.Config.Settings")
    def reconfigure(self, ctx: Context, spec: t.Any) -> t.Any:
        async def body(control: TaskControl) -> None:
            await control.work(2)
            if spec.memoryMB is not None:
                self.memory = spec.memoryMB
                self.world.changed(self, "config.hardware.memoryMB")
            if spec.annotation is not None:
                self.notes = spec.annotation or None
                self.world.changed(self, "config.annotation")

        return self.world.start_task(self, "VirtualMachine.reconfigure", body, ctx.session)

    @method("PowerOnVM_Task")
    def power_on(self, ctx: Context) -> t.Any:
        async def body(control: TaskControl) -> None:
            if self.power == "poweredOn":
                raise vim.fault.InvalidPowerState(
                    requestedState="poweredOn", existingState="poweredOn", msg="It is on already."
                )
            await control.work(5)
            self.power = "poweredOn"
            self.world.changed(self, "runtime.powerState")

        return self.world.start_task(self, "VirtualMachine.powerOn", body, ctx.session)

    @method("Destroy_Task", privilege="VirtualMachine.Inventory.Delete")
    def destroy(self, ctx: Context) -> t.Any:
        async def body(control: TaskControl) -> None:
            await control.sleep(1)
            self.parent.children.remove(self)
            self.world.remove(self)
            self.world.changed(self.parent, "childEntity")

        return self.world.start_task(self, "VirtualMachine.destroy", body, ctx.session)

    @method("CloneVM_Task", privilege="VirtualMachine.Provisioning.Clone")
    def clone(self, ctx: Context, folder: Folder, name: str, spec: t.Any) -> t.Any:
        if spec.config is not None:
            raise vmodl.fault.NotSupported(msg="config")

        async def body(control: TaskControl) -> Machine:
            await control.work(10)
            return t.cast("Machine", folder.put(Machine(self.world, self.world.next_id("vm"), name, folder)))

        return self.world.start_task(self, "VirtualMachine.clone", body, ctx.session)


def _disk(number: int) -> t.Any:
    backing = make(
        vim.vm.device.VirtualDisk.FlatVer2BackingInfo, fileName=f"[shared] vm/{number}.vmdk", diskMode="persistent"
    )
    return make(
        vim.vm.device.VirtualDisk,
        key=2000 + number,
        deviceInfo=make(vim.Description, label=f"Hard disk {number}", summary="41,943,040 KB"),
        backing=backing,
        controllerKey=1000,
        unitNumber=number,
        capacityInKB=41943040,
    )


def build(machines: int, scale: float) -> Prepared:
    world = World(Clock(scale))
    root = world.add(Folder(world, "group-d1", "Datacenters", None))
    world.content["rootFolder"] = root
    install_services(world)
    vms = root.put(Folder(world, "group-v1", "vm", root))
    for number in range(1, machines + 1):
        vms.put(Machine(world, world.next_id("vm"), f"vm-{number:05d}", vms))
    world.authorization.add_user("reader@lab", "reading", "ReadOnly")
    world.authorization.add_user("blind@lab", "blind", "NoAccess")
    world.authorization.add_role("Switcher", ["VirtualMachine.Interact.PowerOn"])
    world.authorization.add_user("switcher@lab", "switching", "Switcher")
    world.authorization.add_user("folder@lab", "folding", "Admin", vms)

    def dump() -> dict[str, t.Any]:
        found = (obj for obj in world.objects.values() if isinstance(obj, Machine))
        return {"machines": {obj.moid: {"name": obj.name, "memory": obj.memory} for obj in found}}

    return Prepared(world, newest_version("8.0.3.0"), dump)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--ready-file", type=pathlib.Path, required=True)
    parser.add_argument("--machines", type=int, default=3)
    parser.add_argument("--time-scale", type=float, default=50)
    parser.add_argument("--session-timeout", type=float, default=1800)
    parser.add_argument("--latency-ms", type=float, default=0)
    parser.add_argument("--faults", type=pathlib.Path)
    parser.add_argument("--state", type=pathlib.Path)
    options = parser.parse_args()
    settings = Settings(
        model=pathlib.Path("none"),
        host="127.0.0.1",
        port=0,
        username="admin@lab",
        password="secret",
        time_scale=options.time_scale,
        latency_s=options.latency_ms / 1000,
        session_timeout_s=options.session_timeout,
        faults=options.faults,
        ready_file=options.ready_file,
        state=options.state,
    )
    asyncio.run(serve(settings, lambda _: build(options.machines, options.time_scale)))


if __name__ == "__main__":
    main()
