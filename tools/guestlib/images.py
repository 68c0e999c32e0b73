"""Guest images: built by mmdebstrap, cached by recipe hash, one build of a recipe at a time."""

from __future__ import annotations

import os
import platform
import shutil
import time
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import apt
from .errors import CommandError, HostError
from .identity import Identity, kill, marked
from .locks import locked
from .podman import Podman
from .recipe import Recipe, recipe_hash
from .run import MARK, run

_CUSTOMIZE = Path(__file__).with_name("customize.sh")
_REPOSITORY = "localhost/gpuops-guest"
_BUILD_MARK = "build:"


@dataclass(frozen=True)
class Image:
    """An image ready to use; `cached` is whether nothing had to be built, `seconds` what it took."""

    reference: str
    digest: str
    cached: bool
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            "image": self.reference,
            "recipe_hash": self.digest,
            "cached": self.cached,
            "seconds": round(self.seconds, 1),
        }


def cache_directory() -> Path:
    """Return where archives of images are kept: GUEST_CACHE, else under XDG_CACHE_HOME."""
    explicit = os.environ.get("GUEST_CACHE")
    if explicit:
        return Path(explicit).absolute()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "gpuops-guest"


def reference_of(recipe: Recipe, digest: str) -> str:
    """Return podman's name of a recipe's image."""
    return f"{_REPOSITORY}:{recipe.suite}-{digest}"


class ImageStore:
    """The cache directory and podman's image store, seen as one."""

    def __init__(self, podman: Podman, directory: Path) -> None:
        self._podman = podman
        self._directory = directory

    def ensure(self, recipe: Recipe, timeout_s: float = 1800.0, *, refresh: bool = False) -> Image:
        """Return the image of a recipe: from podman's store, else from the cache, else built now.

        `refresh` builds anew, to take in packages that have been updated since. A build that runs
        already is waited for.
        """
        began = time.monotonic()
        sources = apt.source_lines(recipe, apt.host_mirrors())
        options = apt.host_options()
        digest = recipe_hash(recipe, sources, options, _CUSTOMIZE.read_text(encoding="utf-8") + platform.machine())
        reference = reference_of(recipe, digest)
        archive = self._directory / f"{recipe.suite}-{digest}.tar"
        cached = True
        with locked(self._directory / f"{archive.stem}.lock", f"image {reference}", timeout_s):
            if refresh or not self._podman.has_image(reference):
                if refresh or not archive.is_file():
                    self._build(recipe, sources, options, archive, timeout_s)
                    cached = False
                self._podman.import_image(archive, reference, digest)
        return Image(reference, digest, cached, time.monotonic() - began)

    def listing(self) -> list[dict[str, Any]]:
        """Return the images that podman or the cache has."""
        stored = {reference.rpartition(":")[2]: reference for reference in self._podman.images()}
        archives = {path.stem: path.stat().st_size for path in self._directory.glob("*-*.tar")}
        return [
            {
                "image": f"{_REPOSITORY}:{tag}",
                "in_podman": tag in stored,
                "archive_bytes": archives.get(tag),
            }
            for tag in sorted({*stored, *archives})
        ]

    def prune(self, references: Collection[str] = ()) -> list[str]:
        """Remove images (none named: all) and their archives unless a guest uses them; return their names."""
        removed = []
        for entry in self.listing():
            reference = str(entry["image"])
            if references and reference not in references:
                continue
            if entry["in_podman"]:
                try:
                    self._podman.remove_image(reference)
                except CommandError:  # in use by a guest
                    continue
            (self._directory / f"{reference.rpartition(':')[2]}.tar").unlink(missing_ok=True)
            removed.append(reference)
        self._podman.prune_images()
        return removed

    def clean(self) -> list[str]:
        """Remove what builds whose builder was killed have left; return their directories' names."""
        for process, mark in marked().items():
            builder = Identity.parse(mark.removeprefix(_BUILD_MARK)) if mark.startswith(_BUILD_MARK) else None
            if builder is not None and not builder.alive():
                kill([process])
        removed = []
        for directory in sorted(self._directory.glob("build.*")):
            builder = Identity.parse(directory.name.removeprefix("build.").replace(".", ":"))
            if builder is None or not builder.alive():
                shutil.rmtree(directory)
                removed.append(directory.name)
        return removed

    def _build(
        self, recipe: Recipe, sources: tuple[str, ...], options: tuple[str, ...], archive: Path, timeout_s: float
    ) -> None:
        if not Path(apt.KEYRING).is_file():
            raise HostError("Debian's archive keys are not installed", "run 'tools/guest setup' as root")
        self.clean()
        builder = Identity.own()
        work = self._directory / f"build.{builder}".replace(":", ".")
        work.mkdir(mode=0o755)
        log = archive.with_suffix(".log")
        try:
            (work / "apt.conf").write_text("\n".join([*options, ""]), encoding="utf-8")
            partial = work / "image.tar"
            with log.open("wb") as stream:
                run(
                    [
                        "mmdebstrap",
                        "--mode=root",
                        "--variant=minbase",
                        f"--include={','.join(recipe.all_packages())}",
                        f"--aptopt={work / 'apt.conf'}",
                        f"--customize-hook={_CUSTOMIZE}",
                        recipe.suite,
                        str(partial),
                        "-",
                    ],
                    stdin="\n".join([*sources, ""]).encode(),  # not in argv: a mirror's URI may hold a password
                    environment={"TMPDIR": str(work), MARK: f"{_BUILD_MARK}{builder}"},
                    timeout_s=timeout_s,
                    log=stream.fileno(),
                )
            partial.replace(archive)
            log.unlink()
        except CommandError as error:
            lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
            cause = next((line for line in lines if line.startswith("E:")), str(error))
            raise CommandError(f"building the {recipe.suite} image failed: {cause}", f"read {log}") from error
        finally:
            shutil.rmtree(work, ignore_errors=True)
