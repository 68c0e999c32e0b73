"""The podman calls that guests need, one function each; nothing else in the project knows podman."""

from __future__ import annotations

import io
import json
import tarfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import remains
from .errors import CommandError
from .host import Host
from .run import MARK, run

PREFIX = "gpuops"
LABEL = "gpuops.guest"
"""Label of every container (its value is the instance) and prefix of the other labels."""


@dataclass(frozen=True)
class Container:
    """A guest's container as podman reports it; `labels` are without the common prefix."""

    name: str
    instance: str
    guest: str
    status: str  # created, running, paused, exited, …
    pid: int
    labels: dict[str, str]
    id: str = ""


def container_name(instance: str, guest: str) -> str:
    """Return the container's name; instances have no dots, so that it reads back unambiguously."""
    return f"{PREFIX}.{instance}.{guest}"


def network_name(instance: str) -> str:
    """Return the name of an instance's network."""
    return f"{PREFIX}.{instance}"


def split_name(name: str) -> tuple[str, str] | None:
    """Return instance and guest of a container name, None if it is not ours."""
    parts = name.split(".", 2)
    return (parts[1], parts[2]) if len(parts) == 3 and parts[0] == PREFIX else None


def parse_containers(listing: Sequence[Mapping[str, Any]]) -> list[Container]:
    """Turn the reply of `podman ps --all --external --format json` into guests.

    A container that podman was killed over while making it has no labels: it is known by its name.
    """
    found = []
    for entry in listing:
        for name in entry.get("Names") or ():
            split = split_name(name)
            if split is None:
                continue
            labels = entry.get("Labels") or {}
            own = {key.removeprefix(f"{LABEL}."): value for key, value in labels.items() if key.startswith(f"{LABEL}.")}
            found.append(
                Container(
                    name,
                    *split,
                    status=str(entry.get("State", "")).lower(),
                    pid=int(entry.get("Pid") or 0),
                    labels=own,
                    id=str(entry.get("Id") or ""),
                )
            )
    return sorted(found, key=lambda container: container.name)


class Podman:
    """Podman on one host. `job` marks its processes, so that a clean-up finds those left alone."""

    def __init__(self, host: Host, job: str) -> None:
        self._host = host
        self._job = job

    def _run(
        self, *words: str, stdin: bytes | None = None, timeout_s: float = 60.0, accept: Sequence[int] = (0,)
    ) -> str:
        return run(
            [*self._host.prefix(), "podman", *words],
            name=f"podman {words[0]}",
            stdin=stdin,
            environment={**self._host.environment(), MARK: self._job},
            timeout_s=timeout_s,
            accept=accept,
        )

    def containers(self, instance: str | None = None) -> list[Container]:
        """Return the guests of an instance, or of all."""
        listing = json.loads(self._run("ps", "--all", "--external", "--format", "json") or "[]")
        return [found for found in parse_containers(listing) if instance in (None, found.instance)]

    def networks(self) -> list[str]:
        """Return the instances that have a network."""
        names = self._run("network", "ls", "--format", "{{.Name}}").split()
        return sorted(name.removeprefix(f"{PREFIX}.") for name in names if name.startswith(f"{PREFIX}."))

    def network_subnet(self, instance: str) -> str:
        """Return the IPv4 subnet of an instance's network, made now if there is none."""
        name = network_name(instance)
        if instance not in self.networks():
            self._run("network", "create", "--label", f"{LABEL}={instance}", name)
        for subnet in json.loads(self._run("network", "inspect", name))[0]["subnets"]:
            if ":" not in subnet["subnet"]:
                return str(subnet["subnet"])
        raise CommandError(f"podman gave network {name} no IPv4 subnet", "check default_subnet in containers.conf")

    def remove_network(self, instance: str) -> None:
        """Remove an instance's network, with no container on it any more."""
        name = network_name(instance)
        bridge = str(json.loads(self._run("network", "inspect", name))[0].get("network_interface") or "")
        if remains.has_bridge(bridge):
            # Podman was killed while setting it up. It takes a network down (bridge, packet filter's
            # rules) with the last container that it has put there, so one is put there and removed.
            remains.unplug(bridge)
            for image in self.images()[:1]:
                self._run("run", "--rm", "--systemd=false", "--network", name, image, "true")
            if remains.has_bridge(bridge):
                remains.remove_bridge(bridge)
        self._run("network", "rm", "--force", name)
        remains.forget_names(name)

    def create(self, words: Sequence[str]) -> None:
        """Create a container (not started)."""
        self._run("create", *words)

    def copy_in(self, name: str, files: Mapping[str, tuple[int, str]]) -> None:
        """Put files (path without leading slash -> mode, text) into a container, over a pipe.

        Directories on the way are made with the mode 0700 under /root and 0755 elsewhere.
        """
        buffer, now = io.BytesIO(), int(time.time())
        with tarfile.open(fileobj=buffer, mode="w") as archive:
            for directory in sorted({str(Path(path).parent) for path in files}):
                entry = tarfile.TarInfo(directory)
                entry.type, entry.mtime = tarfile.DIRTYPE, now
                entry.mode = 0o700 if directory.startswith("root") else 0o755
                archive.addfile(entry)
            for path, (mode, text) in sorted(files.items()):
                content = text.encode()
                entry = tarfile.TarInfo(path)
                entry.size, entry.mode, entry.mtime = len(content), mode, now
                archive.addfile(entry, io.BytesIO(content))
        self._run("cp", "-", f"{name}:/", stdin=buffer.getvalue())

    def start(self, name: str) -> None:
        """Start a container."""
        self._run("start", name)

    def stop(self, name: str, grace_s: int) -> None:
        """Shut a container down; killed after the grace period (0: at once)."""
        self._run("stop", "--time", str(grace_s), name, timeout_s=60.0 + grace_s)

    def restart(self, name: str, grace_s: int) -> None:
        """Stop and start a container."""
        self._run("restart", "--time", str(grace_s), name, timeout_s=60.0 + grace_s)

    def pause(self, name: str, *, resume: bool) -> None:
        """Freeze or thaw a container by its cgroup."""
        self._run("unpause" if resume else "pause", name)

    def remove(self, name: str) -> None:
        """Remove a container whatever it is doing; no error if it is gone."""
        found = next((found for found in self.containers() if found.name == name), None)
        if found is None or found.status not in ("running", "paused"):
            remains.end_monitors(name)
        if found is None:
            return
        words = ("rm", "--force", "--volumes", "--time", "0", "--ignore", name)
        try:
            self._run(*words)
        except CommandError:
            # Podman trips over a mount that it was killed right after making, and may clear it only now.
            remains.unmount(self._host.prefix(), found.id)
            self._run(*words)

    def execute(self, name: str, *words: str, accept: Sequence[int] = (0,)) -> str | None:
        """Run a program in a container; None if that failed (guests that are booting refuse)."""
        try:
            return self._run("exec", name, *words, timeout_s=30.0, accept=accept)
        except CommandError:
            return None

    def has_image(self, reference: str) -> bool:
        """Return whether podman's store has an image."""
        return reference in self.images()

    def images(self) -> list[str]:
        """Return the references of all guest images in podman's store."""
        listing = json.loads(self._run("images", "--filter", f"label={LABEL}.recipe", "--format", "json") or "[]")
        return sorted(name for entry in listing for name in entry.get("Names") or ())

    def import_image(self, archive: Path, reference: str, recipe: str) -> None:
        """Turn a root file system archive into an image."""
        change = f"LABEL {LABEL}.recipe={recipe}"
        self._run("import", "--quiet", "--change", change, str(archive), reference, timeout_s=300.0)

    def remove_image(self, reference: str) -> None:
        """Remove an image; CommandError if a container uses it."""
        self._run("rmi", reference)

    def prune_images(self) -> None:
        """Remove guest images that have lost their name to a newer build."""
        self._run("image", "prune", "--force", "--filter", f"label={LABEL}.recipe")
