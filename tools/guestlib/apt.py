"""Where Debian's packages come from: the host's own apt configuration, or GUEST_MIRROR."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from .errors import HostError
from .recipe import Recipe
from .run import run

KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"

_TARGET_FORMAT = "$(ORIGIN)|$(REPO_URI)|$(RELEASE)"
# Options without which the host's mirror may not be reachable, or its index not be accepted. Paths of
# the host (certificates, helper scripts) are left out: they do not exist in the guest.
_CARRIED = re.compile(
    r'Acquire::((http|https)::(Proxy(::[^ ]+)?|Pipeline-Depth|Timeout)|Retries|Check-Valid-Until|Check-Date) "[^"]*";'
)


@dataclass(frozen=True)
class Mirrors:
    """Archive URIs: Debian itself and, where the host uses it, its security updates."""

    main: str
    security: str | None


def choose_mirrors(targets: Iterable[str], environment: Mapping[str, str], *, host_is_debian: bool) -> Mirrors:
    """Pick Debian's mirrors; HostError if none is known.

    `targets` are lines `ORIGIN|URI|RELEASE` as `apt-get indextargets` prints them; the origin is
    empty until the host has run `apt-get update`, in which case a Debian host's sources are trusted
    to be Debian's. GUEST_MIRROR and GUEST_SECURITY_MIRROR override them.
    """
    override = environment.get("GUEST_MIRROR")
    if override:
        return Mirrors(override, environment.get("GUEST_SECURITY_MIRROR") or None)
    main: str | None = None
    security: str | None = None
    for line in targets:
        origin, _, rest = line.partition("|")
        uri, _, release = rest.partition("|")
        if origin != "Debian" and not (origin == "" and host_is_debian):
            continue
        if release.endswith("-security"):
            security = security or uri
        elif not release.endswith(("-backports", "-updates", "-proposed-updates")):
            main = main or uri
    if main is None:
        raise HostError(
            "no Debian mirror is known: the host's apt sources name none",
            "set GUEST_MIRROR to the URI of a Debian archive",
        )
    return Mirrors(main, environment.get("GUEST_SECURITY_MIRROR") or security)


def source_lines(recipe: Recipe, mirrors: Mirrors) -> tuple[str, ...]:
    """Return the guest's sources.list, one line a suite."""
    components = " ".join(recipe.components)
    lines = [
        f"deb [signed-by={KEYRING}] {mirrors.main} {suite} {components}"
        for suite in (recipe.suite, f"{recipe.suite}-updates")
    ]
    if mirrors.security:
        lines.append(f"deb [signed-by={KEYRING}] {mirrors.security} {recipe.suite}-security {components}")
    return tuple(lines)


def carried_options(dump: str) -> tuple[str, ...]:
    """Return the lines of `apt-config dump` that a guest needs to reach the host's mirror."""
    return tuple(line for line in dump.splitlines() if _CARRIED.fullmatch(line))


def host_mirrors() -> Mirrors:
    """Read the host's mirrors through apt itself, so that every source format is understood."""
    if os.environ.get("GUEST_MIRROR"):
        return choose_mirrors((), os.environ, host_is_debian=False)
    targets = run(["apt-get", "indextargets", "--format", _TARGET_FORMAT, "Identifier: Packages"]).splitlines()
    return choose_mirrors(targets, os.environ, host_is_debian=_is_debian())


def host_options() -> tuple[str, ...]:
    """Read the host's apt options that go into the guest (see `carried_options`)."""
    return carried_options(run(["apt-config", "dump"]))


def _is_debian() -> bool:
    release = Path("/etc/os-release")
    return release.is_file() and "ID=debian" in release.read_text(encoding="utf-8").splitlines()
