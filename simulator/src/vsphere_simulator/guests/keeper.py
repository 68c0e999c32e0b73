"""Keeps the guest of one virtual machine in the state that the machine is in, one command at a time."""

from __future__ import annotations

import asyncio
import logging
import re
import typing as t

from vsphere_simulator.guests.command import GuestCommandError
from vsphere_simulator.vmomi import vim

if t.TYPE_CHECKING:
    from vsphere_simulator.guests.command import Entry, GuestCommand
    from vsphere_simulator.world.virtual_machine import VirtualMachine

_log = logging.getLogger(__name__)

FAILED: t.Final = "vsphere_simulator.guest.failed"
"""Type of the event that tells that a guest command has failed."""
_STATES: t.Final = {"poweredOn": "running", "suspended": "frozen", "poweredOff": "stopped"}
_STARTING: t.Final = frozenset({"create", "start", "thaw", "reboot"})


def next_action(actual: str, wanted: str, *, restart: bool = False, soft: bool = False) -> str | None:
    """What brings a guest nearer to the wanted state, None when it is there.

    `restart`: a running guest is to restart; `soft`: it is to shut down by itself where it is to stop.
    """
    if actual == "unknown":
        return "look"
    match wanted:
        case "running":
            todo = {"absent": "create", "stopped": "start", "frozen": "thaw"}.get(actual)
            return todo or ("reboot" if restart else None)
        case "frozen":
            return "freeze" if actual == "running" else None
        case "stopped":
            return ("stop" if soft else "kill") if actual in ("running", "frozen") else None
        case _:
            return "destroy" if actual != "absent" else None


def guest_name(name: str, moid: str) -> str:
    """A name for the guest that no other machine's guest ever has: the machine's own, and its id."""
    plain = re.sub(r"[^A-Za-z0-9_.-]", "-", name)[: 62 - len(moid)].lstrip("_.-")
    return f"{plain or 'vm'}.{moid}"


def host_name(name: str) -> str:
    """The machine's name as a host name."""
    labels = (re.sub(r"[^a-z0-9-]+", "-", label).strip("-")[:63].strip("-") for label in name.lower().split("."))
    return ".".join(label for label in labels if label)[:64].strip("-.") or "guest"


class Keeper:
    """The guest of one machine. What the machine does is followed in the background; `settled` waits for it."""

    def __init__(self, vm: VirtualMachine, recipe: dict[str, t.Any], command: GuestCommand) -> None:
        self.vm = vm
        self.name = guest_name(vm.name, vm.moid)
        self._recipe = recipe
        self._command = command
        self._actual = "absent"
        self._restart = False
        self._leaving = False
        """The guest was asked to shut down."""
        self._doing: str | None = None
        self._job: asyncio.Task[None] | None = None
        self._step: asyncio.Task[Entry] | None = None
        self.entry: Entry | None = None
        """What the guest is, while it is up."""

    @property
    def _wanted(self) -> str:
        if self.vm.world.objects.get(self.vm.moid) is not self.vm:
            return "absent"
        return "stopped" if self._leaving else _STATES[self.vm.power]

    @property
    def gone(self) -> bool:
        """Whether neither the machine nor the guest is there any more."""
        return self._job is None and self._wanted == self._actual == "absent"

    def follow(self) -> None:
        """Do what the machine's state asks for; called whenever that may have changed."""
        if self.vm.power != "poweredOn":
            self._leaving = self._restart = False
        if self._job is None:
            if next_action(self._actual, self._wanted, restart=self._restart) is not None:
                self._job = asyncio.get_running_loop().create_task(self._work(), name=f"guest {self.name}")
        elif self._step is not None and self._doing in _STARTING and self._wanted != "running":
            self._step.cancel()  # nobody waits for a boot that is not wanted any more

    def take_over(self, name: str) -> None:
        """Go on with the guest that another simulator has left; what state it is in is looked at first."""
        self.name = name
        self._actual = "unknown"

    def restart(self) -> None:
        """Let the guest restart."""
        self._restart = True
        self.follow()

    def shut_down(self) -> None:
        """Let the guest shut down; the machine is off when it has."""
        self._leaving = True
        self.follow()

    async def settled(self, seconds: float) -> None:
        """Wait until nothing more is to be done, but no longer than that."""
        if self._job is not None:
            await asyncio.wait([self._job], timeout=seconds)

    async def close(self) -> None:
        """Stop following; a command that runs is ended."""
        if self._job is not None:
            self._job.cancel()
            await asyncio.wait([self._job])

    async def _work(self) -> None:
        try:
            while (action := self._next()) is not None:
                if not await self._do(action):
                    break
        finally:
            self._job = None
        if self._leaving and self.vm.is_on:
            self._leaving = False
            self.vm.stop()

    def _next(self) -> str | None:
        return next_action(self._actual, self._wanted, restart=self._restart, soft=self._leaving)

    async def _do(self, action: str) -> bool:
        """Run one command; False when there is no point in going on."""
        if action in ("create", "reboot"):
            self._restart = False
        if action != "look":
            self._told(None)
        wanted = self._wanted
        self._doing, self._step = action, asyncio.get_running_loop().create_task(self._call(action))
        try:
            entry = await self._step
        except asyncio.CancelledError:  # of the step, which has ended, or of all the work
            self._actual = "unknown"
            if (job := asyncio.current_task()) is not None and job.cancelling():
                raise
            return True
        except GuestCommandError as problem:
            self._failed(action, str(problem))
            return self._wanted != wanted
        finally:
            self._doing = self._step = None
        self._actual = entry.state
        if entry.state == "running" and self._next() is None:
            self._told(entry)
        if self._next() == action and not self._restart:
            self._failed(action, f"the guest is {entry.state}")
            return False
        return True

    async def _call(self, action: str) -> Entry:
        if action == "create":
            return await self._command.create(self.name, host_name(self.vm.name), self._recipe)
        if action == "look":
            return await self._command.look(self.name)
        return await self._command.act(action, self.name)

    def _told(self, entry: Entry | None) -> None:
        """Tell who watches that the guest is up, or that it is not."""
        if entry != self.entry:
            self.entry = entry
            self.vm.guest_changed()

    def _failed(self, action: str, problem: str) -> None:
        self._actual = "unknown"
        self._restart = False
        text = f"Guest of {self.vm.name}: {action} failed: {problem}"
        _log.warning("%s", text)
        there = self._wanted != "absent"
        self.vm.world.events.post(
            vim.event.EventEx,
            text,
            entity=self.vm if there else None,
            eventTypeId=FAILED,
            severity="error",
            message=text,
        )
