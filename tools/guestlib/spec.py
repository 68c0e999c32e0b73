"""What a caller asks for: guests of an instance, read from JSON and checked before anything is touched."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import SpecError
from .reader import Reader
from .recipe import Recipe

_INSTANCE = re.compile(r"[a-z0-9][a-z0-9-]{0,39}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")
_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_KEY = re.compile(r"(ssh|ecdsa|sk)-[A-Za-z0-9@.-]+ [A-Za-z0-9+/=]+( .*)?")

DEFAULT_TIMEOUT_S = 120.0


@dataclass(frozen=True)
class Volume:
    """A directory or file of the host, seen in the guest at `target`."""

    source: str
    target: str
    read_only: bool


@dataclass(frozen=True)
class GuestSpec:
    """One guest, as asked for. `memory_mb` and `cpus` bind only where the host has cgroups."""

    name: str
    hostname: str
    recipe: Recipe
    authorized_keys: tuple[str, ...]
    volumes: tuple[Volume, ...]
    environment: dict[str, str]
    memory_mb: int | None
    cpus: float | None

    def fingerprint(self) -> str:
        """Return a hash of every setting: equal for two specs that ask for the same guest."""
        text = json.dumps(dataclasses.asdict(self), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class CreateRequest:
    """Guests to create in one go. `owner_pid`: they are stale once that process is gone."""

    instance: str
    guests: tuple[GuestSpec, ...]
    owner_pid: int | None
    timeout_s: float


@dataclass(frozen=True)
class NamesRequest:
    """Guests to act on, by name; no name at all means every guest of the instance."""

    instance: str
    names: tuple[str, ...]
    timeout_s: float


def check_instance(value: str) -> str:
    """Return the instance name, or raise SpecError saying which names are allowed."""
    if not _INSTANCE.fullmatch(value):
        raise SpecError(f"instance name {value!r} is not usable", "use 1 to 40 lower-case letters, digits and hyphens")
    return value


def check_name(value: str, path: str = "name") -> str:
    """Return the guest name, or raise SpecError saying which names are allowed."""
    if not _NAME.fullmatch(value):
        raise SpecError(f"{path} {value!r} is not usable", "use 1 to 63 letters, digits, '.', '_' and '-'")
    return value


def parse_create(value: object) -> CreateRequest:
    """Read a create request; SpecError names the path of whatever is wrong."""
    reader = Reader(value, "")
    instance = check_instance(reader.text("instance"))
    owner_pid = reader.integer("owner_pid", minimum=1)
    timeout_s = reader.number("timeout_s", minimum=1, default=DEFAULT_TIMEOUT_S)
    guests = tuple(_guest(item, f"guests[{index}]") for index, item in enumerate(reader.items("guests", required=True)))
    reader.finish()
    if not guests:
        raise SpecError("'guests' is empty", "name at least one guest")
    _unique([guest.name for guest in guests], "name")
    _unique([guest.hostname for guest in guests], "hostname")
    return CreateRequest(instance, guests, owner_pid, timeout_s or DEFAULT_TIMEOUT_S)


def parse_names(value: object) -> NamesRequest:
    """Read a request that names existing guests."""
    reader = Reader(value, "")
    instance = check_instance(reader.text("instance"))
    names = tuple(check_name(name, "names") for name in reader.texts("names"))
    timeout_s = reader.number("timeout_s", minimum=1, default=DEFAULT_TIMEOUT_S)
    reader.finish()
    return NamesRequest(instance, names, timeout_s or DEFAULT_TIMEOUT_S)


def parse_recipe(value: object, path: str) -> Recipe:
    """Read an image: a suite's name, or an object with suite, packages and components."""
    if isinstance(value, str):
        value = {"suite": value}
    reader = Reader(value, path)
    suite = reader.text("suite")
    packages = reader.texts("packages")
    components = reader.texts("components", ["main"])
    reader.finish()
    return Recipe.checked(suite, packages, components, path)


def _guest(value: object, path: str) -> GuestSpec:
    reader = Reader(value, path)
    name = check_name(reader.text("name"), reader.at("name"))
    hostname = reader.text("hostname", name.lower().replace("_", "-"))
    if len(hostname) > 64 or not all(_LABEL.fullmatch(label) for label in hostname.split(".")):
        raise SpecError(
            f"{reader.at('hostname')!r} {hostname!r} is not a host name", "use lower-case letters, digits, '-' and '.'"
        )
    recipe = parse_recipe(reader.raw("image", "trixie"), reader.at("image"))
    keys = reader.texts("authorized_keys")
    for key in keys:
        if "\n" in key or not _KEY.fullmatch(key):
            raise SpecError(
                f"{reader.at('authorized_keys')!r} holds something that is not an OpenSSH public key",
                "give the line of a .pub file",
            )
    volumes = tuple(
        _volume(item, f"{reader.at('volumes')}[{index}]") for index, item in enumerate(reader.items("volumes"))
    )
    _unique([volume.target for volume in volumes], "volume target")
    environment = reader.mapping("environment")
    for variable, text in environment.items():
        if not _VARIABLE.fullmatch(variable) or "\n" in text:
            raise SpecError(
                f"{reader.at('environment')}.{variable} is not usable", "use a plain variable name and a one-line value"
            )
    memory_mb = reader.integer("memory_mb", minimum=64)
    cpus = reader.number("cpus", minimum=0.01)
    reader.finish()
    return GuestSpec(name, hostname, recipe, keys, volumes, environment, memory_mb, cpus)


def _volume(value: object, path: str) -> Volume:
    reader = Reader(value, path)
    volume = Volume(reader.text("source"), reader.text("target"), reader.flag("read_only", default=False))
    reader.finish()
    for key, text in (("source", volume.source), ("target", volume.target)):
        if not Path(text).is_absolute() or "," in text or "\n" in text:
            raise SpecError(f"{path}.{key} {text!r} is not usable", "give an absolute path without commas")
    return volume


def _unique(values: list[Any], what: str) -> None:
    for value in values:
        if values.count(value) > 1:
            raise SpecError(f"{what} {value!r} is given twice", "make it unique")
