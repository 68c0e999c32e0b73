"""What an image is made of, and the hash under which it is cached. Pure."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass

from .errors import SpecError

SUITES = ("trixie", "bookworm")

BASE_PACKAGES = (
    "ca-certificates",
    "dbus",
    "iproute2",
    "openssh-server",
    "python3",
    "sudo",
    "systemd",
    "systemd-sysv",
)
"""Packages of every guest; a recipe adds to them."""

FORMAT = 1
"""Part of the hash: raise it when images must be rebuilt for a reason that the recipe does not show."""

_PACKAGE = re.compile(r"[a-z0-9][a-z0-9+.-]+")
_COMPONENTS = ("main", "contrib", "non-free", "non-free-firmware")


@dataclass(frozen=True)
class Recipe:
    """A Debian suite with packages added to the base set; lists are sorted and without repeats."""

    suite: str
    packages: tuple[str, ...] = ()
    components: tuple[str, ...] = ("main",)

    @classmethod
    def checked(cls, suite: str, packages: Sequence[str], components: Sequence[str], path: str = "image") -> Recipe:
        """Return the normalised recipe, or raise SpecError with the path of what is wrong."""
        if suite not in SUITES:
            raise SpecError(f"{path}.suite {suite!r} is not known", f"use one of: {', '.join(SUITES)}")
        for package in packages:
            if not _PACKAGE.fullmatch(package):
                raise SpecError(f"{path}.packages: {package!r} is not a package name", "correct it")
        for component in components:
            if component not in _COMPONENTS:
                raise SpecError(
                    f"{path}.components: {component!r} is not known", f"use some of: {', '.join(_COMPONENTS)}"
                )
        if "main" not in components:
            raise SpecError(f"{path}.components lacks 'main'", "add it")
        return cls(suite, tuple(sorted({*packages} - {*BASE_PACKAGES})), tuple(sorted({*components})))

    def all_packages(self) -> tuple[str, ...]:
        """Return base and added packages, sorted."""
        return tuple(sorted({*BASE_PACKAGES, *self.packages}))


def recipe_hash(recipe: Recipe, sources: Sequence[str], apt_options: Sequence[str], customize: str) -> str:
    """Return 12 hex digits over everything that goes into an image.

    `sources` are the lines of sources.list, `apt_options` those of apt.conf, `customize` the text of
    the script that is run on the finished tree.
    """
    content = {
        "format": FORMAT,
        "suite": recipe.suite,
        "packages": recipe.all_packages(),
        "components": recipe.components,
        "sources": list(sources),
        "apt_options": list(apt_options),
        "customize": customize,
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]
