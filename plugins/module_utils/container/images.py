# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What is known of a container image's versions: their names, the index of a store, what to prune. Pure."""

from __future__ import annotations

import collections.abc
import dataclasses
import hashlib
import json
import re
import typing as t

from ansible_collections.gpuops.vsphere.plugins.module_utils.container.errors import ContainerError

LABEL_HASH = "gpuops.definition-hash"
LABEL_DATE = "gpuops.package-date"
LABEL_NAME = "gpuops.image"

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,126}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_DATE = re.compile(r"\d{8}(T\d{6}Z)?")
FORMAT = 1


@dataclasses.dataclass(frozen=True)
class Version:
    """One built image: `size` in bytes, `sha256` of the signed file, `definition_hash` of what it was made from."""

    version: str
    sha256: str
    size: int
    definition_hash: str = ""
    package_date: str = ""

    @property
    def file(self) -> str:
        """Name of the image's file, next to the index."""
        return f"{self.version}.sif"


@dataclasses.dataclass(frozen=True)
class Index:
    """The versions of one image, oldest first; `current` is the one that guests fetch."""

    name: str
    versions: tuple[Version, ...] = ()
    current: str = ""

    def find(self, version: str) -> Version | None:
        """That version, if the store has it."""
        return next((entry for entry in self.versions if entry.version == version), None)

    def with_current(self, entry: Version) -> Index:
        """The index with this version as the newest and current one."""
        others = tuple(known for known in self.versions if known.version != entry.version)
        return Index(self.name, (*others, entry), entry.version)

    def without(self, versions: collections.abc.Collection[str]) -> Index:
        """The index without these versions."""
        return dataclasses.replace(
            self, versions=tuple(entry for entry in self.versions if entry.version not in versions)
        )

    def to_json(self) -> str:
        """The text of index.json."""
        content = {
            "format": FORMAT,
            "name": self.name,
            "current": self.current,
            "versions": [dataclasses.asdict(entry) for entry in self.versions],
        }
        return json.dumps(content, indent=2, sort_keys=True) + "\n"


def checked_name(name: str) -> str:
    """The name, if it can be a file's and a registry's name."""
    if not _NAME.fullmatch(name):
        raise ContainerError(
            "bad_name", f"{name!r} is no name for an image: use small letters, digits and . _ - (at most 63)."
        )
    return name


def checked_version(version: str) -> str:
    """The version, if it can be a file's name and a registry's tag."""
    if not _VERSION.fullmatch(version):
        raise ContainerError(
            "bad_version", f"{version!r} is no version of an image: it must fit a file name and a tag."
        )
    return version


def checked_sha256(checksum: str, what: str) -> str:
    """The checksum in small letters, without a leading `sha256:`."""
    bare = checksum.strip().lower()
    bare = bare[len("sha256:") :] if bare.startswith("sha256:") else bare
    if not _SHA256.fullmatch(bare):
        raise ContainerError(
            "bad_checksum", f"The checksum of {what} is {checksum!r}, not the 64 hexadecimal digits of a SHA-256."
        )
    return bare


def checked_date(date: str) -> str:
    """The package date; empty if none is pinned."""
    if date and not _DATE.fullmatch(date):
        raise ContainerError(
            "bad_date",
            f"The package date {date!r} is not like 20261101 or 20261101T000000Z, as snapshot archives name it.",
        )
    return date


def definition_hash(definition: str, package_date: str, base_sha256: str = "") -> str:
    """SHA-256 over all that decides what is built: definition, package date, image that it is built on."""
    return hashlib.sha256(json.dumps([definition, package_date, base_sha256]).encode()).hexdigest()


def version_of(definition_digest: str, package_date: str) -> str:
    """Name of the version that a definition makes: its date, then 12 digits of its hash."""
    return f"{package_date or 'undated'}-{definition_digest[:12]}"


def labelled(definition: str, labels: t.Mapping[str, str]) -> str:
    """The definition with a section of labels added."""
    lines = [f"    {key} {value}" for key, value in sorted(labels.items())]
    return "\n".join([definition.rstrip("\n"), "", "%labels", *lines, ""])


def parse_index(text: str, name: str, where: str) -> Index:
    """Read index.json; an error names the place it came from."""
    try:
        content = json.loads(text)
        if content["format"] != FORMAT:
            raise ContainerError("bad_index", f"{where} has format {content['format']!r}; this release reads {FORMAT}.")
        versions = tuple(
            Version(
                checked_version(entry["version"]),
                checked_sha256(entry["sha256"], entry["version"]),
                int(entry["size"]),
                str(entry.get("definition_hash", "")),
                str(entry.get("package_date", "")),
            )
            for entry in content["versions"]
        )
        index = Index(str(content["name"]), versions, str(content["current"]))
    except (ValueError, KeyError, TypeError) as error:
        raise ContainerError(
            "bad_index", f"{where} is no index of an image ({type(error).__name__}: {error}); build the image again."
        ) from error
    if index.name != name:
        raise ContainerError("bad_index", f"{where} is of image {index.name!r}, not {name!r}.")
    return index


def choose(index: Index, version: str, where: str) -> Version:
    """The wanted version, the current one if none is named."""
    wanted = version or index.current
    entry = index.find(wanted)
    if entry is None:
        known = ", ".join(known.version for known in index.versions) or "none"
        raise ContainerError("no_such_version", f"{where} has no version {wanted!r} of {index.name}; it has: {known}.")
    return entry


def prunable(
    versions: collections.abc.Sequence[str], keep: int, protected: collections.abc.Collection[str]
) -> list[str]:
    """Which versions go so that `keep` remain: the oldest (first) that are not protected."""
    surplus = len(versions) - max(keep, 1)
    candidates = [version for version in versions if version not in protected]
    return candidates[: max(surplus, 0)]
