"""All guests of one simulator: those of its machines now, and those that a killed one has left."""

from __future__ import annotations

import asyncio
import socket
import typing as t

from vsphere_simulator.guests.command import GuestCommandError
from vsphere_simulator.guests.keeper import Keeper

if t.TYPE_CHECKING:
    from collections.abc import Iterable

    from vsphere_simulator.guests.command import Entry, GuestCommand
    from vsphere_simulator.world.virtual_machine import VirtualMachine

_SETTLE_S: t.Final = 30.0
"""How long a task of the API waits for its guest (real seconds); the guest goes on after that."""


class Guests:
    """The guests of one instance; nobody else may have guests of that name at the same time."""

    def __init__(self, command: GuestCommand) -> None:
        self._command = command
        self._keepers: dict[str, Keeper] = {}
        self._claim: socket.socket | None = None

    async def open(self) -> None:
        """Claim the instance; remove what a dead simulator has left of it, unless guests are kept.

        Raises GuestCommandError when another simulator has the instance, or when the command fails.
        """
        claim = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            # an abstract address: the kernel frees it when the process ends, however it ends
            claim.bind(f"\0vsphere-simulator/guests/{self._command.instance}")
        except OSError:
            claim.close()
            raise GuestCommandError(f"another simulator has the guests of instance {self._command.instance}") from None
        self._claim = claim
        try:
            if not self._command.keep:
                await self._command.cleanup()
        except (GuestCommandError, TimeoutError) as problem:
            self._release()
            raise GuestCommandError(str(problem) or "the clean-up at the start was not done in time") from None

    async def close(self) -> None:
        """End what runs and remove all guests. Raises GuestCommandError when that fails."""
        try:
            await asyncio.gather(*(keeper.close() for keeper in self._keepers.values()))
            await self._command.cleanup()
        except TimeoutError:
            raise GuestCommandError("the clean-up at the end was not done in time") from None
        finally:
            self._release()

    def _release(self) -> None:
        if self._claim is not None:
            self._claim.close()
            self._claim = None

    def of(self, vm: VirtualMachine) -> Keeper | None:
        """The keeper of a machine that has a guest, None for others."""
        keeper = self._keepers.get(vm.moid)
        if keeper is None and vm.recipe is not None:
            keeper = self._keepers[vm.moid] = Keeper(vm, vm.recipe.model_dump(exclude_none=True), self._command)
        return keeper

    def follow(self, vm: VirtualMachine) -> None:
        """Do to the guest what has happened to the machine."""
        for moid in [moid for moid, keeper in self._keepers.items() if keeper.gone]:
            del self._keepers[moid]
        if (keeper := self.of(vm)) is not None:
            keeper.follow()

    async def begin(self, machines: Iterable[VirtualMachine]) -> None:
        """Start the guests of machines that are on already; take over those that are kept, remove what has no machine.

        Raises GuestCommandError.
        """
        left = {name.rpartition(".")[2]: name for name in (await self._command.names() if self._command.keep else ())}
        for vm in machines:
            if vm.moid in left and (keeper := self.of(vm)) is not None:
                keeper.take_over(left.pop(vm.moid))
            self.follow(vm)
        for name in left.values():
            await self._command.act("destroy", name)

    def entry(self, vm: VirtualMachine) -> Entry | None:
        """What the machine's guest is, while it is up."""
        keeper = self._keepers.get(vm.moid)
        return keeper.entry if keeper is not None else None

    async def settled(self, vm: VirtualMachine) -> None:
        """Wait until the guest is as the machine is; give up after a while."""
        if (keeper := self._keepers.get(vm.moid)) is not None:
            await keeper.settled(_SETTLE_S)
