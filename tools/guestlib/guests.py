"""The guests of one instance: create, stop, start, reboot, freeze, thaw, destroy, describe."""

from __future__ import annotations

import ipaddress
import json
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from . import freeze
from .boot import SSH_PORT, wait_booted
from .errors import CommandError, ConflictError, NotFoundError, SpecError
from .host import RUN_DIR, Host
from .identity import Identity, kill, marked, wait_gone
from .images import Image, ImageStore
from .locks import locked
from .podman import LABEL, Container, Podman, container_name, network_name
from .records import Record, Records, key_fingerprint, known_hosts_line
from .spec import CreateRequest, GuestSpec

STOP_GRACE_S = 20
_FREEZE_S = 15.0
_LOCK_S = 120.0


def free_address(subnet: str, taken: Collection[str]) -> str:
    """Return the lowest free address of a subnet; the first one is the gateway's."""
    for number, address in enumerate(ipaddress.ip_network(subnet).hosts()):
        if number and str(address) not in taken:
            return str(address)
    raise ConflictError(f"no address is left in {subnet}", "destroy guests that are not needed")


def address_is_booked(message: str) -> bool:
    """Return whether podman refused to start a container because it thinks that another has its address."""
    return "already allocated to container" in message


def mac_address(address: str) -> str:
    """Return a guest's MAC address, made from its IPv4 address.

    Podman would give a new one at every start, and the host and the other guests would go on sending
    to the old one until their neighbour caches expire (half a minute).
    """
    octets = ipaddress.IPv4Address(address).packed
    return ":".join(f"{octet:02x}" for octet in (0x02, 0x67, *octets))  # 02: locally administered, unicast


def spec_label(spec: GuestSpec, image: Image) -> str:
    """Return what tells whether an existing guest is the one asked for."""
    return f"{spec.fingerprint()}-{image.digest}"


def create_words(
    instance: str, spec: GuestSpec, image: Image, address: str, owner: Identity | None, *, limits: bool
) -> list[str]:
    """Return the arguments of `podman create` for a guest; the environment is not among them (secrets)."""
    labels = {
        "name": spec.name,
        "hostname": spec.hostname,
        "address": address,
        "spec": spec_label(spec, image),
        "image": image.reference,
        "owner": str(owner or ""),
        "memory_mb": str(spec.memory_mb or ""),
        "cpus": str(spec.cpus or ""),
        "limits": "enforced" if limits else "recorded",
        "volumes": json.dumps([asdict(volume) for volume in spec.volumes]),
    }
    words = ["--name", container_name(instance, spec.name), "--hostname", spec.hostname]
    words += ["--label", f"{LABEL}={instance}"]
    for key, value in labels.items():
        words += ["--label", f"{LABEL}.{key}={value}"]
    words += ["--network", network_name(instance), "--ip", address, "--mac-address", mac_address(address)]
    for alias in dict.fromkeys((spec.hostname, spec.hostname.partition(".")[0])):
        words += ["--network-alias", alias]
    # on-failure: a reboot from inside brings the guest back, a power-off from inside does not
    words += ["--systemd=always", "--privileged", "--restart=on-failure"]
    for volume in spec.volumes:
        access = ",ro" if volume.read_only else ""
        words += ["--mount", f"type=bind,src={volume.source},dst={volume.target}{access}"]
    if limits and spec.memory_mb:
        words += ["--memory", f"{spec.memory_mb}m"]
    if limits and spec.cpus:
        words += ["--cpus", str(spec.cpus)]
    return [*words, image.reference, "/sbin/init"]


def files_of(spec: GuestSpec) -> dict[str, tuple[int, str]]:
    """Return the files that make an image this guest: path -> mode, text."""
    environment = "".join(f"{key}={value}\n" for key, value in sorted(spec.environment.items()))
    return {
        "root/.ssh/authorized_keys": (0o600, "".join(f"{key}\n" for key in spec.authorized_keys)),
        "etc/environment": (0o600, environment),
    }


class Guests:
    """Guests of one instance on this host."""

    def __init__(self, host: Host, podman: Podman, instance: str) -> None:
        self._host = host
        self._podman = podman
        self._records = Records(RUN_DIR / "guests")
        self.instance = instance

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Keep other processes from changing this instance."""
        with locked(RUN_DIR / "locks" / f"{self.instance}.lock", f"instance {self.instance}", _LOCK_S):
            yield

    def create(self, request: CreateRequest, images: ImageStore) -> list[dict[str, Any]]:
        """Create guests and wait until they are up; all or none (those that existed are kept)."""
        for spec in request.guests:
            for volume in spec.volumes:
                if not Path(volume.source).exists():
                    raise SpecError(f"guest {spec.name}: volume source {volume.source} does not exist", "make it first")
        owner = None if request.owner_pid is None else Identity.of(request.owner_pid)
        if request.owner_pid is not None and owner is None:
            raise SpecError(f"'owner_pid' {request.owner_pid} is not a running process", "give the pid of one")
        ready = {recipe: images.ensure(recipe) for recipe in {spec.recipe for spec in request.guests}}
        made: list[str] = []
        started: list[str] = []
        try:
            with self.lock():
                existing = self._adopt(request, ready)
                for spec in request.guests:
                    if spec.name not in existing:
                        made.append(spec.name)
                        self._make(spec, ready[spec.recipe], owner)
                    elif existing[spec.name].status != "running":
                        started.append(spec.name)
                        self._podman.start(existing[spec.name].name)
            self._wait([spec.name for spec in request.guests], request.timeout_s)
        except BaseException:  # an interrupt included: nothing half-made may stay
            if made:
                with self.lock():
                    self._remove(made)
            raise
        names = [spec.name for spec in request.guests]
        return [self._describe(found, changed=found.guest in made + started) for found in self._named(names)]

    def describe(self, names: Collection[str] = ()) -> list[dict[str, Any]]:
        """Return the guests as they are now."""
        return [self._describe(found) for found in self._named(names)]

    def freeze(self, names: Collection[str]) -> list[dict[str, Any]]:
        """Freeze guests: nothing in them runs, ssh falls silent; memory and address stay."""
        return self._each(names, self._freeze)

    def thaw(self, names: Collection[str]) -> list[dict[str, Any]]:
        """Let frozen guests go on."""
        return self._each(names, self._thaw)

    def stop(self, names: Collection[str], *, hard: bool) -> list[dict[str, Any]]:
        """Shut guests down; `hard` or a frozen guest: like pulling the plug."""

        def stop(found: Container) -> bool:
            state = self.state(found)
            if state == "stopped":
                return False
            self._podman.stop(found.name, 0 if hard or state == "frozen" else STOP_GRACE_S)
            return True

        return self._each(names, stop)

    def start(self, names: Collection[str], timeout_s: float) -> list[dict[str, Any]]:
        """Start guests that are stopped, and wait until they are up."""

        def start(found: Container) -> bool:
            state = self.state(found)
            if state == "frozen":
                raise ConflictError(f"guest {found.guest} is frozen", "thaw it")
            if state == "stopped":
                self._podman.start(found.name)
            return state == "stopped"

        return self._each(names, start, timeout_s)

    def reboot(self, names: Collection[str], timeout_s: float) -> list[dict[str, Any]]:
        """Restart guests that run, and wait until they are up again; their addresses stay."""

        def reboot(found: Container) -> bool:
            state = self.state(found)
            if state != "running":
                step = "thaw" if state == "frozen" else "start"
                raise ConflictError(f"guest {found.guest} is {state}, not running", f"{step} it first")
            self._podman.restart(found.name, STOP_GRACE_S)
            return True

        return self._each(names, reboot, timeout_s)

    def destroy(self, names: Collection[str]) -> list[dict[str, Any]]:
        """Remove guests, whatever they are doing, and the network with the last one; gone ones are fine."""
        with self.lock():
            existing = [found.guest for found in self._podman.containers(self.instance)]
            wanted = list(names) or existing
            self._remove(wanted)
            return [
                {"name": name, "instance": self.instance, "state": "absent", "changed": name in existing}
                for name in wanted
            ]

    def purge(self, names: Collection[str] | None, wait_s: float) -> list[str]:
        """Remove guests (None: all) and what killed processes were about to make of them; return their names."""
        with self.lock():
            # A killed creator's podman goes on by itself, and may only now be making the container.
            kill(wait_gone(self._unattended(), wait_s))
            if names is None:
                records = [record.guest for record in self._records.all() if record.instance == self.instance]
                names = {*records, *(found.guest for found in self._podman.containers(self.instance))}
            self._remove(names)
            return sorted(names)

    def state(self, found: Container) -> str:
        """Return running, frozen or stopped."""
        if found.status == "paused":
            return "frozen"
        if found.status != "running":
            return "stopped"
        return "frozen" if freeze.is_stopped(found.pid) else "running"

    def _unattended(self) -> list[Identity]:
        """Return podman processes of this instance; with the lock held, none of a living creator's matter."""
        # What podman leaves running for as long as a guest does carries the mark too.
        resident = {"conmon", "aardvark-dns", "fuse-overlayfs"}
        return [process for process in marked(self.instance) if process.command() not in resident]

    def _adopt(self, request: CreateRequest, ready: dict[Any, Image]) -> dict[str, Container]:
        """Return the guests that exist as asked for; remove half-made ones, refuse other ones."""
        existing = {}
        for found in self._podman.containers(self.instance):
            spec = next((spec for spec in request.guests if spec.name == found.guest), None)
            if spec is None:
                continue
            record = self._records.read(self.instance, found.guest)
            if record is not None and record.abandoned():
                self._podman.remove(found.name)
                continue
            if found.labels.get("spec") != spec_label(spec, ready[spec.recipe]):
                raise ConflictError(f"guest {spec.name} exists with other settings", "destroy it first")
            if self.state(found) == "frozen":
                raise ConflictError(f"guest {spec.name} exists and is frozen", "thaw or destroy it first")
            existing[spec.name] = found
        return existing

    def _make(self, spec: GuestSpec, image: Image, owner: Identity | None) -> None:
        self._records.write(Record(self.instance, spec.name, str(Identity.own())))
        subnet = self._podman.network_subnet(self.instance)
        taken = {found.labels.get("address", "") for found in self._podman.containers(self.instance)}
        name = container_name(self.instance, spec.name)
        while True:
            address = free_address(subnet, taken)
            limits = self._host.cgroup2
            self._podman.create(create_words(self.instance, spec, image, address, owner, limits=limits))
            self._podman.copy_in(name, files_of(spec))
            try:
                self._podman.start(name)
            except CommandError as error:
                # A podman that was killed has left the address in podman's books, out of anybody's reach.
                if not address_is_booked(str(error)):
                    raise
                self._podman.remove(name)
                taken.add(address)
            else:
                return

    def _remove(self, names: Collection[str]) -> None:
        """Remove guests and, with the last, the network. The lock is held."""
        for name in names:
            self._podman.remove(container_name(self.instance, name))
            self._records.remove(self.instance, name)
        if not self._podman.containers(self.instance) and self.instance in self._podman.networks():
            self._podman.remove_network(self.instance)

    def _each(
        self, names: Collection[str], act: Callable[[Container], bool], wait_s: float | None = None
    ) -> list[dict[str, Any]]:
        with self.lock():
            changed = {found.guest: act(found) for found in self._named(names)}
        if wait_s is not None:
            self._wait(list(changed), wait_s)
        return [self._describe(found, changed=changed[found.guest]) for found in self._named(list(changed))]

    def _wait(self, names: list[str], timeout_s: float) -> None:
        deadline = time.monotonic() + timeout_s
        for found in self._named(names):
            boot = wait_booted(self._podman, self.instance, found.name, found.labels.get("address", ""), deadline)
            record = self._records.read(self.instance, found.guest)
            record = record or Record(self.instance, found.guest, str(Identity.own()))
            self._records.booted(record, boot.host_key, boot.system, boot.failed_units)

    def _named(self, names: Collection[str]) -> list[Container]:
        """Return the named guests in that order, or all; NotFoundError for one that is not there."""
        existing = {found.guest: found for found in self._podman.containers(self.instance)}
        for name in names:
            if name not in existing:
                raise NotFoundError(
                    f"instance {self.instance} has no guest {name}",
                    f"it has: {', '.join(existing)}" if existing else "create it first",
                )
        return [existing[name] for name in names] if names else list(existing.values())

    def _freeze(self, found: Container) -> bool:
        state = self.state(found)
        if state == "stopped":
            raise ConflictError(f"guest {found.guest} is stopped", "start it first")
        if state == "frozen":
            return False
        if self._host.cgroup2:
            self._podman.pause(found.name, resume=False)
        else:
            freeze.freeze(found.pid, _FREEZE_S)
        return True

    def _thaw(self, found: Container) -> bool:
        state = self.state(found)
        if state == "stopped":
            raise ConflictError(f"guest {found.guest} is stopped", "start it first")
        if state == "running":
            return False
        if found.status == "paused":
            self._podman.pause(found.name, resume=True)
        else:
            freeze.thaw(found.pid, _FREEZE_S)
        return True

    def _describe(self, found: Container, *, changed: bool | None = None) -> dict[str, Any]:
        record = self._records.read(self.instance, found.guest) or Record(self.instance, found.guest, "")
        labels = found.labels
        address, hostname = labels.get("address", ""), labels.get("hostname", "")
        state = self.state(found)
        entry: dict[str, Any] = {
            "name": found.guest,
            "instance": self.instance,
            "state": state,
            "ready": record.ready,
            "hostname": hostname,
            "address": address,
            "ssh": {
                "user": "root",
                "port": SSH_PORT,
                "host_key": record.host_key,
                "fingerprint": key_fingerprint(record.host_key),
                "known_hosts": known_hosts_line(record.host_key, (address, hostname)),
            },
            "system": record.system,
            "failed_units": list(record.failed_units),
            "image": labels.get("image", ""),
            "memory_mb": int(labels["memory_mb"]) if labels.get("memory_mb") else None,
            "cpus": float(labels["cpus"]) if labels.get("cpus") else None,
            "limits": labels.get("limits", ""),
            "volumes": json.loads(labels.get("volumes") or "[]"),
            "owner_pid": getattr(Identity.parse(labels.get("owner", "")), "pid", None),
            "container": found.name,
        }
        if changed is not None:
            entry["changed"] = changed
        return entry
