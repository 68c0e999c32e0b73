# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Bring an image to this guest: checked, verified, switched to in one step, the versions before it kept."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import shutil
import tempfile
import typing as t

from ansible_collections.gpuops.vsphere.plugins.module_utils.container import images
from ansible_collections.gpuops.vsphere.plugins.module_utils.container.errors import ContainerError
from ansible_collections.gpuops.vsphere.plugins.module_utils.container.images import Version
from ansible_collections.gpuops.vsphere.plugins.module_utils.container.places import (
    Place,
    locked,
    sha256_of,
    write_atomically,
)
from ansible_collections.gpuops.vsphere.plugins.module_utils.container.runtime import Runtime, need_space


@dataclasses.dataclass(frozen=True)
class Shelf:
    """One image's versions on this guest: `<directory>/<name>/<version>.sif`, and the link `<directory>/<name>.sif`.

    `in_use` is a directory of links to image files that must not be pruned, made by whoever runs them.
    """

    directory: pathlib.Path
    name: str
    in_use: pathlib.Path

    @property
    def versions_directory(self) -> pathlib.Path:
        """Where the versions are."""
        return self.directory / self.name

    @property
    def link(self) -> pathlib.Path:
        """What users and services name."""
        return self.directory / f"{self.name}.sif"

    def image(self, version: str) -> pathlib.Path:
        """File of a version."""
        return self.versions_directory / f"{version}.sif"

    def current(self) -> str:
        """The version that the link names; empty if there is none."""
        return self.link.readlink().stem if self.link.is_symlink() else ""

    def record(self, version: str) -> dict[str, t.Any]:
        """What was noted of a version when it came; empty if nothing readable."""
        path = self.versions_directory / f"{version}.json"
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return content if isinstance(content, dict) else {}

    def versions(self) -> list[str]:
        """Versions that are here, oldest first by the time they came."""
        files = sorted(self.versions_directory.glob("*.sif"), key=lambda path: (path.stat().st_mtime_ns, path.name))
        return [path.name[: -len(".sif")] for path in files]

    def intact(self, entry: Version) -> bool:
        """Whether the file is what was fetched. Hashed only where size or time differ from the record."""
        path = self.image(entry.version)
        if not path.exists():
            return False
        status = path.stat()
        record = self.record(entry.version)
        if record.get("sha256") == entry.sha256 and [status.st_size, status.st_mtime_ns] == [
            record.get("size"),
            record.get("mtime_ns"),
        ]:
            return True
        return sha256_of(path) == entry.sha256

    def local(self, version: str) -> Version | None:
        """A version that is here, as it was when it came."""
        record = self.record(version)
        if not self.image(version).exists() or "sha256" not in record:
            return None
        return Version(version, str(record["sha256"]), int(record["size"]))

    def protected(self) -> set[str]:
        """Versions that something uses."""
        targets = [link.resolve() for link in self.in_use.iterdir()] if self.in_use.is_dir() else []
        return {path.stem for path in targets if path.parent == self.versions_directory.resolve()}


def choose(shelf: Shelf, place: Place | None, version: str, checksum: str) -> Version:
    """The wanted version: one that is here if it is pinned and known, else what the source says."""
    if version:
        images.checked_version(version)
        here = shelf.local(version)
        if here is not None and (not checksum or here.sha256 == checksum):
            return here
    if place is None:
        raise ContainerError("no_source", f"No source of {shelf.name} is given and the version is not here.")
    index = place.index(shelf.name)
    if index is not None:
        entry = images.choose(index, version, "The source")
        if checksum and checksum != entry.sha256:
            raise ContainerError(
                "checksum",
                f"{shelf.name} {entry.version} should have the SHA-256 {checksum}, its source says {entry.sha256}.",
            )
        return entry
    if not (version and checksum):
        raise ContainerError(
            "no_checksum",
            f"The source has no index of {shelf.name}: build and publish it first, or give version and sha256 "
            "(a registry needs both).",
        )
    return Version(version, checksum, 0)


def bring(shelf: Shelf, place: Place, entry: Version, runtime: Runtime, trusted_key: pathlib.Path | None) -> None:
    """Fetch beside the others, check, verify, then rename. Whatever fails leaves nothing behind."""
    with locked(shelf.versions_directory):
        scratch = pathlib.Path(tempfile.mkdtemp(prefix=".fetch-", dir=shelf.versions_directory))
        try:
            image = scratch / entry.file
            try:
                place.fetch(shelf.name, entry, image)
            except OSError as error:
                raise ContainerError(
                    "fetch_failed", f"{shelf.name} {entry.version} could not be fetched: {error}."
                ) from error
            got = sha256_of(image)
            if got != entry.sha256:
                raise ContainerError(
                    "checksum",
                    f"{shelf.name} {entry.version} has the SHA-256 {got}, not {entry.sha256}: it was changed or "
                    "cut off on its way. It has been thrown away.",
                )
            if trusted_key is not None:
                runtime.verify(image, trusted_key)
            image.chmod(0o644)
            target = shelf.image(entry.version)
            image.replace(target)
            status = target.stat()
            record = {"sha256": got, "size": status.st_size, "mtime_ns": status.st_mtime_ns, "version": entry.version}
            write_atomically(
                shelf.versions_directory / f"{entry.version}.json", json.dumps(record, sort_keys=True) + "\n"
            )
        finally:
            shutil.rmtree(scratch, ignore_errors=True)


def check_space(shelf: Shelf, entry: Version, reserve: int) -> None:
    """Fail before the transfer where image and reserve (bytes) do not fit."""
    need_space(shelf.versions_directory, entry.size + reserve, f"the image {shelf.name} {entry.version}")


def switch(shelf: Shelf, version: str) -> None:
    """Let the link name a version, in one step."""
    staged = shelf.directory / f".{shelf.name}.sif.new"
    staged.unlink(missing_ok=True)
    staged.symlink_to(pathlib.Path(shelf.name) / f"{version}.sif")
    staged.replace(shelf.link)


def prune(shelf: Shelf, current: str, keep: int, *, apply: bool) -> list[str]:
    """Remove versions beyond `keep` that nothing uses, oldest first; return them."""
    versions = [version for version in shelf.versions() if version != current]
    if shelf.image(current).exists() or not apply:
        versions.append(current)
    surplus = images.prunable(versions, keep, {current} | shelf.protected())
    if apply:
        for version in surplus:
            shelf.image(version).unlink(missing_ok=True)
            (shelf.versions_directory / f"{version}.json").unlink(missing_ok=True)
    return surplus


def remove(shelf: Shelf, *, apply: bool) -> bool:
    """Take the image away, all versions; whether there was anything."""
    if not shelf.link.is_symlink() and not shelf.versions_directory.exists():
        return False
    used = shelf.protected()
    if used:
        raise ContainerError(
            "in_use", f"{shelf.name} ({', '.join(sorted(used))}) is in use by a container service: remove that first."
        )
    if apply:
        shelf.link.unlink(missing_ok=True)
        shutil.rmtree(shelf.versions_directory)
    return True
