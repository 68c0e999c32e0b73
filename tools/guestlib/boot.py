"""Wait until a guest has booted: systemd has finished starting, sshd answers."""

from __future__ import annotations

import socket
import time
from dataclasses import dataclass

from .errors import CommandError, WaitError
from .podman import Podman

SSH_PORT = 22
_HOST_KEY = "/etc/ssh/ssh_host_ed25519_key.pub"
_INTERVAL_S = 0.2


@dataclass(frozen=True)
class Boot:
    """What a boot ended in: systemd's state, the units that failed, the SSH host key."""

    system: str
    failed_units: tuple[str, ...]
    host_key: str


def wait_booted(podman: Podman, instance: str, container: str, address: str, deadline: float) -> Boot:
    """Wait for systemd (running or degraded) and sshd; `deadline` is on the monotonic clock.

    CommandError if the guest has stopped, WaitError if it is not up in time.
    """
    system = _wait_systemd(podman, instance, container, deadline)
    while not ssh_answers(address):
        if time.monotonic() > deadline:
            raise WaitError(
                f"{container}: sshd at {address} did not answer in time", f"look at: podman exec {container} journalctl"
            )
        time.sleep(_INTERVAL_S)
    key = podman.execute(container, "cat", _HOST_KEY) or ""
    failed: tuple[str, ...] = ()
    if system == "degraded":
        listing = podman.execute(container, "systemctl", "--failed", "--plain", "--no-legend") or ""
        failed = tuple(line.split()[0] for line in listing.splitlines() if line.strip())
    return Boot(system, failed, " ".join(key.split()[:2]))


def ssh_answers(address: str, timeout_s: float = 1.0) -> bool:
    """Return whether an SSH server greets at the address."""
    try:
        with socket.create_connection((address, SSH_PORT), timeout_s) as connection:
            connection.settimeout(timeout_s)
            return connection.recv(4) == b"SSH-"
    except OSError:
        return False


def _wait_systemd(podman: Podman, instance: str, container: str, deadline: float) -> str:
    while True:
        # is-system-running exits with 1 for every state but "running"
        state = (podman.execute(container, "systemctl", "is-system-running", accept=(0, 1)) or "").strip()
        if state in ("running", "degraded"):
            return state
        status = next((found.status for found in podman.containers(instance) if found.name == container), "gone")
        if status != "running":
            raise CommandError(f"{container} is {status} instead of booting", f"look at: podman logs {container}")
        if time.monotonic() > deadline:
            raise WaitError(
                f"{container}: systemd is {state or 'not answering'}, not running, at the time limit",
                f"look at: podman exec {container} systemctl list-jobs; or raise 'timeout_s'",
            )
        time.sleep(_INTERVAL_S)
