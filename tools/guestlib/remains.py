"""What stays on the host when podman itself is killed, of which podman then knows nothing."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
from pathlib import Path

from .host import parse_mounts
from .identity import Identity, kill, pids, read_stat, wait_gone
from .run import run

_INTERFACES = Path("/sys/class/net")
_RESOLVER = Path("/run/containers/networks/aardvark-dns")
_MONITOR_END_S = 1.0


def end_monitors(container: str) -> None:
    """End the monitors (conmon) of a container that podman does not think is running, and their children.

    One whose container has just stopped ends by itself; one whose podman was killed waits for ever.
    """
    monitors = {}
    for pid in pids():
        identity = Identity.of(pid)
        if identity is not None and identity.command() == "conmon" and _monitors(pid, container):
            monitors[pid] = identity
    left = wait_gone(monitors.values(), _MONITOR_END_S)
    parents = {identity.pid for identity in left}
    children = [Identity.of(pid) for pid in pids() if (stat := read_stat(pid)) is not None and stat.parent in parents]
    kill([*(child for child in children if child is not None), *left])


def unmount(prefix: list[str], container_id: str) -> None:
    """Unmount what is mounted in a container's directory of podman's store.

    `prefix`: the words that lead into podman's mount namespace.
    """
    table = parse_mounts(run([*prefix, "cat", "/proc/self/mountinfo"]))
    for mount in reversed(table):
        if f"/{container_id}/" in mount.point:
            run([*prefix, "umount", mount.point], name="umount")


def has_bridge(bridge: str) -> bool:
    """Return whether a network's bridge exists."""
    return bridge != "" and (_INTERFACES / bridge).exists()


def unplug(bridge: str) -> None:
    """Remove the ends of dead containers' cables from a bridge."""
    for port in sorted(entry.name for entry in (_INTERFACES / bridge / "brif").iterdir()):
        run(["ip", "link", "delete", port])


def remove_bridge(bridge: str) -> None:
    """Remove a bridge."""
    run(["ip", "link", "delete", bridge])


def forget_names(network: str) -> None:
    """Take a network's names from podman's resolver.

    The resolver (one for all networks) reads its directory again on SIGHUP, and ends if it is empty.
    """
    names = _RESOLVER / network
    if not names.exists():
        return
    names.unlink(missing_ok=True)
    try:
        resolver = int((_RESOLVER / "aardvark.pid").read_text(encoding="ascii"))
    except (FileNotFoundError, ValueError):
        return
    stat = read_stat(resolver)
    if stat is not None and stat.command == "aardvark-dns":
        with contextlib.suppress(ProcessLookupError):
            os.kill(resolver, signal.SIGHUP)


def _monitors(pid: int, container: str) -> bool:
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    return any(pair == (b"-n", container.encode()) for pair in itertools.pairwise(words))
