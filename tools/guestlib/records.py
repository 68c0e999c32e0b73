"""What is known of a guest besides podman's labels: who is making it, and its host key once it has booted."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from .identity import Identity


@dataclass(frozen=True)
class Record:
    """A guest's record: `creator` made (or is making) it, `ready` is set when it has booted once."""

    instance: str
    guest: str
    creator: str
    ready: bool = False
    host_key: str = ""  # "ssh-ed25519 AAAA…"
    system: str = ""  # running or degraded, as systemd said at the last boot
    failed_units: tuple[str, ...] = ()

    def abandoned(self) -> bool:
        """Return whether its creator died before the guest was ready."""
        creator = Identity.parse(self.creator)
        return not self.ready and (creator is None or not creator.alive())


class Records:
    """Records as JSON files in one directory, written atomically."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def read(self, instance: str, guest: str) -> Record | None:
        """Return a guest's record, None if it has none."""
        path = self._path(instance, guest)
        try:
            fields = json.loads(path.read_text(encoding="utf-8"))
            return Record(**{**fields, "failed_units": tuple(fields["failed_units"])})
        except FileNotFoundError:
            return None
        except (ValueError, TypeError, KeyError):  # of another version, or damaged: as good as none
            path.unlink(missing_ok=True)
            return None

    def all(self) -> list[Record]:
        """Return every record."""
        found = []
        for path in sorted(self._directory.glob("*.json")):
            instance, _, guest = path.name.removesuffix(".json").partition(".")
            record = self.read(instance, guest)
            if record is not None:
                found.append(record)
        return found

    def write(self, record: Record) -> None:
        """Write a record; a reader sees the old or the new one, never a part."""
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = self._path(record.instance, record.guest)
        partial = path.with_name(f"{path.name}.partial")
        partial.write_text(json.dumps(asdict(record), sort_keys=True), encoding="utf-8")
        partial.replace(path)

    def booted(self, record: Record, host_key: str, system: str, failed_units: tuple[str, ...]) -> Record:
        """Note what was learnt from a boot, and return the new record."""
        updated = replace(record, ready=True, host_key=host_key, system=system, failed_units=failed_units)
        self.write(updated)
        return updated

    def remove(self, instance: str, guest: str) -> None:
        """Remove a record, if there is one."""
        path = self._path(instance, guest)
        path.unlink(missing_ok=True)
        path.with_name(f"{path.name}.partial").unlink(missing_ok=True)

    def _path(self, instance: str, guest: str) -> Path:
        return self._directory / f"{instance}.{guest}.json"


def key_fingerprint(host_key: str) -> str:
    """Return the fingerprint of an OpenSSH public key as ssh shows it, empty for anything else."""
    fields = host_key.split()
    if len(fields) < 2:
        return ""
    try:
        blob = base64.b64decode(fields[1], validate=True)
    except binascii.Error:
        return ""
    digest = base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")
    return f"SHA256:{digest}"


def known_hosts_line(host_key: str, names: tuple[str, ...]) -> str:
    """Return a line for known_hosts, empty without a key."""
    return f"{','.join(dict.fromkeys(names))} {host_key}" if host_key else ""
