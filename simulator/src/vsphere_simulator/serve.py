"""Run one simulated vCenter until it is told to stop."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import os
import pathlib
import signal
import tempfile
import typing as t

from vsphere_simulator.certificates import ServedCertificate, self_signed, serve_with
from vsphere_simulator.dispatch import Dispatcher
from vsphere_simulator.guests.guests import Guests
from vsphere_simulator.http import Server
from vsphere_simulator.injection import FaultRules, load_rules
from vsphere_simulator.statefile import StateFile, remove_leftovers, write_atomically
from vsphere_simulator.world.virtual_machine import VirtualMachine

if t.TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from vsphere_simulator.guests.command import GuestCommand
    from vsphere_simulator.kernel.registry import World
    from vsphere_simulator.world.site import Site


@dataclasses.dataclass(frozen=True, slots=True)
class Settings:
    """What `vsphere-simulator serve` was asked for."""

    model: pathlib.Path
    host: str
    port: int
    username: str
    password: str
    certificate: tuple[pathlib.Path, pathlib.Path] | None = None
    """Certificate and key files; None makes a self-signed one."""
    time_scale: float = 1.0
    latency_s: float = 0.0
    session_timeout_s: float = 1800.0
    faults: pathlib.Path | None = None
    ready_file: pathlib.Path | None = None
    state: pathlib.Path | None = None
    guests: GuestCommand | None = None
    """What makes real guests for machines whose model has them."""


class Prepared(t.NamedTuple):
    """A world ready to be served."""

    world: World
    newest: str
    """API version it speaks, such as `vim.version.v8_0_3_0`."""
    dump: Callable[[], dict[str, t.Any]]
    """Returns the state to keep in the state file."""
    site: Site | None = None
    """Whose machines may have guests."""


async def serve(settings: Settings, prepare: Callable[[Settings], Prepared]) -> None:
    """Serve until SIGTERM or SIGINT; whatever the operator can cause is raised before it listens.

    `prepare` builds the world; it is called on the event loop.
    """
    rules = load_rules(settings.faults) if settings.faults is not None else FaultRules()
    world, newest, dump, site = prepare(settings)
    world.sessions.idle_timeout = settings.session_timeout_s
    world.authorization.add_user(settings.username, settings.password)
    with _certificate(settings) as tls:
        guests = await _guests(settings)
        dispatcher = Dispatcher(world, newest=newest, rules=rules, latency=settings.latency_s)
        server = Server(dispatcher, tls.context)
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        try:
            await server.start(settings.host, settings.port)
            if guests is not None and site is not None:
                site.guests = guests
                await guests.begin(vm for vm in world.objects.values() if isinstance(vm, VirtualMachine))
            state = _follow(world, settings, dump)
            _announce(settings, server, tls)
            await stop.wait()
        finally:
            if settings.ready_file is not None:
                with contextlib.suppress(OSError):
                    settings.ready_file.unlink()
            await server.stop()
            await world.tasks.shutdown()
            if guests is not None:
                await guests.close()
        if state is not None:
            state.write()
        print(f"counts {json.dumps(dispatcher.counters.as_dict())}", flush=True)


async def _guests(settings: Settings) -> Guests | None:
    """Take charge of the guests, those that a killed simulator has left too."""
    if settings.guests is None:
        return None
    guests = Guests(settings.guests)
    await guests.open()
    return guests


def _follow(world: World, settings: Settings, dump: Callable[[], dict[str, t.Any]]) -> StateFile | None:
    """Write the state file from now on."""
    if settings.state is None:
        return None
    state = StateFile(settings.state, dump)
    remove_leftovers(settings.state)
    state.write()
    world.listeners.append(state)
    return state


@contextlib.contextmanager
def _certificate(settings: Settings) -> Iterator[ServedCertificate]:
    """Load the certificate, or make one beside the ready file (else in a directory of its own)."""
    if settings.certificate is not None:
        yield serve_with(*settings.certificate)
    elif settings.ready_file is not None:
        yield serve_with(*self_signed(settings.ready_file.parent, settings.host))
    else:
        with tempfile.TemporaryDirectory(prefix="vsphere-simulator-") as directory:
            yield serve_with(*self_signed(pathlib.Path(directory), settings.host))


def _announce(settings: Settings, server: Server, tls: ServedCertificate) -> None:
    """Print where the server is, and write it to the ready file."""
    reachable = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.host, settings.host)  # noqa: S104 - compared only
    address = f"[{reachable}]" if ":" in reachable else reachable
    ready = {
        "hostname": reachable,
        "port": server.port,
        "url": f"https://{address}:{server.port}/sdk",
        "thumbprint": tls.thumbprint,
        "certificate": str(tls.certificate.resolve()),
        "counts_url": f"http://127.0.0.1:{server.counts_port}/counts",
        "pid": os.getpid(),
    }
    for key, shown in (
        ("url", "url"),
        ("thumbprint", "thumbprint"),
        ("certificate", "certificate"),
        ("counts_url", "counts"),
    ):
        print(shown, ready[key], flush=True)
    if settings.ready_file is not None:
        write_atomically(settings.ready_file, (json.dumps(ready, indent=1) + "\n").encode())
