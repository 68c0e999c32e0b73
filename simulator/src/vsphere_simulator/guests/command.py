"""The guest command: a program that makes, freezes, stops and removes guests, and answers in JSON.

It is called as `CMD create` with a request on standard input, as `CMD ACTION --instance I NAME` for the life of one
guest, and as `CMD cleanup --instance I` for all of them. Exit status 0 comes with one JSON object on standard output,
any other with one line on standard error.
"""

from __future__ import annotations

import asyncio
import ctypes
import dataclasses
import json
import os
import shlex
import signal
import typing as t

_QUICK_S: t.Final = 180.0
"""What the life of one guest may take (real seconds)."""
_CREATE_S: t.Final = 1200.0
"""The first guest may have to build its image."""
_GRACE_S: t.Final = 60.0
"""How long a terminated command may take back what it has begun."""
_AT_ONCE: t.Final = 4
_PR_SET_PDEATHSIG: t.Final = 1
_LIBC: t.Final = ctypes.CDLL(None, use_errno=True)


class GuestCommandError(Exception):
    """The command did not do what it was asked for; the text is its own last line."""


@dataclasses.dataclass(frozen=True, slots=True)
class Entry:
    """What the command says of a guest."""

    state: str
    """running, frozen, stopped or absent."""
    hostname: str = ""
    address: str = ""


class GuestCommand:
    """Runs the guest command for one instance, a few at a time; never blocks the event loop."""

    def __init__(self, line: str, instance: str, keys: tuple[str, ...] = (), *, keep: bool = False) -> None:
        try:
            self._words = shlex.split(line)
        except ValueError as problem:
            raise GuestCommandError(f"{line!r}: {problem}") from None
        if not self._words:
            raise GuestCommandError("the command is empty")
        self.instance = instance
        self.keep = keep
        """Guests outlive a simulator that is killed, and the next one takes them over."""
        self._keys = keys
        self._free = asyncio.Semaphore(_AT_ONCE)

    async def create(self, name: str, hostname: str, recipe: dict[str, t.Any]) -> Entry:
        """Make a guest and wait until it is up. `recipe` has image, volumes, environment and authorized_keys."""
        keys = [*self._keys, *recipe["authorized_keys"]]
        guest = {**recipe, "name": name, "hostname": hostname, "authorized_keys": keys}
        request: dict[str, t.Any] = {"instance": self.instance, "guests": [guest]}
        if not self.keep:
            request["owner_pid"] = os.getpid()
        return _entry(await self._run("create", given=json.dumps(request), seconds=_CREATE_S), name)

    async def act(self, action: str, name: str) -> Entry:
        """Do start, stop, kill, freeze, thaw, reboot or destroy to a guest."""
        words = ("stop", "--hard") if action == "kill" else (action,)
        return _entry(await self._run(*words, "--instance", self.instance, name), name)

    async def look(self, name: str) -> Entry:
        """What state a guest is in."""
        return _entry(await self._run("list", "--instance", self.instance), name)

    async def names(self) -> list[str]:
        """All guests of the instance, whoever has made them."""
        answer = await self._run("list", "--instance", self.instance)
        return [str(item.get("name")) for item in answer.get("guests") or () if isinstance(item, dict)]

    async def cleanup(self) -> None:
        """Remove all guests of the instance, whoever has made them."""
        async with asyncio.timeout(_CREATE_S):
            await self._run("cleanup", "--instance", self.instance)

    async def _run(self, *words: str, given: str = "", seconds: float = _QUICK_S) -> dict[str, t.Any]:
        async with self._free:
            try:
                process = await asyncio.create_subprocess_exec(
                    *self._words,
                    *words,
                    stdin=asyncio.subprocess.PIPE,
                    stdout=asyncio.subprocess.PIPE,
                    stderr=asyncio.subprocess.PIPE,
                    start_new_session=True,  # Ctrl-C is for the simulator, which then ends its commands in order
                    preexec_fn=_end_with_parent,
                )
            except OSError as problem:
                raise GuestCommandError(f"{self._words[0]} cannot be run: {problem.strerror}") from None
            try:
                async with asyncio.timeout(seconds):
                    out, err = await process.communicate(given.encode())
            except TimeoutError:
                await _end(process)
                raise GuestCommandError(f"'{words[0]}' was not done after {seconds:.0f} s") from None
            except asyncio.CancelledError:
                await asyncio.shield(_end(process))
                raise
        if process.returncode != 0:
            lines = err.decode(errors="replace").strip().splitlines()
            raise GuestCommandError(lines[-1] if lines else f"'{words[0]}' ended with status {process.returncode}")
        try:
            answer = json.loads(out)
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            raise GuestCommandError(f"'{words[0]}' did not answer with a JSON object")
        return answer


def _end_with_parent() -> None:
    """Ask the kernel to terminate this child when the simulator dies, however it dies."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


async def _end(process: asyncio.subprocess.Process) -> None:
    """Terminate a command, which takes back what it has begun; kill one that does not end."""
    if process.returncode is None:
        process.terminate()
    try:
        async with asyncio.timeout(_GRACE_S):
            await process.communicate()
    except TimeoutError:
        process.kill()
        await process.wait()


def _entry(answer: dict[str, t.Any], name: str) -> Entry:
    for item in answer.get("guests") or ():
        if isinstance(item, dict) and item.get("name") == name:
            return Entry(str(item.get("state")), str(item.get("hostname") or ""), str(item.get("address") or ""))
    return Entry("absent")
