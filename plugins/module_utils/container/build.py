# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Build an image into the build host's store, sign it, publish it; nothing happens where nothing changed."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import shutil
import tempfile
import typing as t

from ansible_collections.gpuops.vsphere.plugins.module_utils.container import images
from ansible_collections.gpuops.vsphere.plugins.module_utils.container.errors import ContainerError
from ansible_collections.gpuops.vsphere.plugins.module_utils.container.images import Index, Version
from ansible_collections.gpuops.vsphere.plugins.module_utils.container.places import (
    INDEX,
    Access,
    DirectoryPlace,
    copy_synced,
    locked,
    place_of,
    sha256_of,
    write_atomically,
)
from ansible_collections.gpuops.vsphere.plugins.module_utils.container.runtime import Runtime, give_to, need_space

PUSHED = "pushed.json"


@dataclasses.dataclass(frozen=True)
class Order:
    """What is wanted: an image's definition, who builds it where, which key signs it, where it goes."""

    name: str
    definition: str
    package_date: str
    base: str
    user: str
    store: pathlib.Path
    work: pathlib.Path
    signing_key: pathlib.Path
    trusted_key: pathlib.Path
    push: tuple[str, ...]
    keep: int
    space: int


@dataclasses.dataclass(frozen=True)
class Wanted:
    """The version that the order asks for, and what the store has."""

    version: str
    definition_hash: str
    index: Index
    present: Version | None
    reason: str
    unpushed: tuple[str, ...]


BASE_PLACE = "@base@"
"""Stands in a definition for the file of the image that it is built on."""


def plan(order: Order, *, assume_base: bool = False) -> Wanted:
    """Compare the order with the store. Reads only.

    `assume_base` lets the image that this one is built on be missing, as it is in check mode on a new build host.
    """
    images.checked_name(order.name)
    images.checked_date(order.package_date)
    base = base_of(order)
    base_digest = sha256_of(base) if base is not None and base.exists() else ""
    if order.base and not base_digest and not assume_base:
        raise ContainerError("no_base", f"{order.base}, which {order.name} is built on, is not there; build it first.")
    digest = images.definition_hash(order.definition, order.package_date, base_digest)
    version = images.version_of(digest, order.package_date)
    index = DirectoryPlace(order.store).index(order.name) or Index(order.name)
    entry = index.find(version)
    reason = "the definition or the package date is new" if entry is None else ""
    if entry is not None:
        file = order.store / order.name / entry.file
        if not file.exists():
            entry, reason = None, f"{file} is missing"
        elif file.stat().st_size != entry.size or sha256_of(file) != entry.sha256:
            entry, reason = None, f"{file} is not what was built"
    done = _pushed(order)
    unpushed = tuple(target for target in order.push if entry is None or version not in done.get(target, ()))
    return Wanted(version, digest, index, entry, reason, unpushed)


def base_of(order: Order) -> pathlib.Path | None:
    """File of the image that this one is built on: a path, or the current version of an image of the store."""
    if not order.base or order.base.startswith("/"):
        return pathlib.Path(order.base) if order.base else None
    index = DirectoryPlace(order.store).index(images.checked_name(order.base))
    return order.store / order.base / f"{index.current}.sif" if index else None


def check_host(order: Order, runtime: Runtime, *, building: bool) -> None:
    """Fail for what would break a build half-way, before anything is touched."""
    runtime.need_program()
    if not building:
        return
    runtime.need_fuse()
    runtime.need_ranges(order.user)
    for key in (order.signing_key, order.trusted_key):
        if not key.exists():
            raise ContainerError(
                "no_key", f"There is no key {key}; images are signed. Set singularity_image_signing_key."
            )
    need_space(order.work, order.space, f"building {order.name}")
    need_space(order.store, order.space, f"the image {order.name}")


def build(order: Order, wanted: Wanted, runtime: Runtime) -> Version:
    """Build, sign and verify in scratch space, then move into the store. A failure leaves the store as it was."""
    order.work.mkdir(parents=True, exist_ok=True, mode=0o755)
    scratch = pathlib.Path(tempfile.mkdtemp(prefix=f"build-{order.name}-", dir=order.work))
    try:
        give_to(scratch, order.user)
        definition = scratch / f"{order.name}.def"
        labels = {
            images.LABEL_NAME: order.name,
            images.LABEL_HASH: wanted.definition_hash,
            images.LABEL_DATE: order.package_date or "none",
        }
        text = order.definition.replace(BASE_PLACE, str(base_of(order) or BASE_PLACE))
        definition.write_text(images.labelled(text, labels), encoding="utf-8")
        definition.chmod(0o644)
        image = scratch / f"{order.name}.sif"
        runtime.build(order.user, definition, image, scratch)
        runtime.sign(image, order.signing_key)
        runtime.verify(image, order.trusted_key)
        size = image.stat().st_size
        entry = Version(wanted.version, sha256_of(image), size, wanted.definition_hash, order.package_date)
        directory = order.store / order.name
        with locked(directory):
            need_space(directory, size, f"the image {order.name}")
            copy_synced(image, directory / entry.file)
            write_atomically(directory / f"{entry.version}.def", order.definition)
            write_atomically(directory / INDEX, wanted.index.with_current(entry).to_json())
        return entry
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def select(order: Order, wanted: Wanted, entry: Version) -> bool:
    """Make a version that the store has already the current one; whether it was not."""
    if wanted.index.current == entry.version:
        return False
    write_atomically(order.store / order.name / INDEX, wanted.index.with_current(entry).to_json())
    return True


def push(order: Order, entry: Version, runtime: Runtime, access: Access, targets: t.Iterable[str]) -> list[str]:
    """Publish elsewhere and remember it; return where something changed."""
    changed = []
    done = _pushed(order)
    for target in targets:
        if place_of(target, runtime, access).publish(order.name, entry, order.store / order.name / entry.file):
            changed.append(target)
        done.setdefault(target, []).append(entry.version)
        write_atomically(order.store / order.name / PUSHED, json.dumps(done, indent=2, sort_keys=True) + "\n")
    return changed


def prune(order: Order, current: str, *, apply: bool) -> list[str]:
    """Remove the oldest versions beyond `keep` from the store; return them."""
    place = DirectoryPlace(order.store)
    index = place.index(order.name) or Index(order.name)
    surplus = images.prunable([entry.version for entry in index.versions], order.keep, {current})
    if apply and surplus:
        directory = order.store / order.name
        with locked(directory):
            write_atomically(directory / INDEX, index.without(surplus).to_json())
            for version in surplus:
                (directory / f"{version}.sif").unlink(missing_ok=True)
                (directory / f"{version}.def").unlink(missing_ok=True)
    return surplus


def definition_before(order: Order, wanted: Wanted) -> str:
    """The definition of the version that is current now, for the diff."""
    path = order.store / order.name / f"{wanted.index.current}.def"
    return path.read_text(encoding="utf-8") if wanted.index.current and path.exists() else ""


def _pushed(order: Order) -> dict[str, list[str]]:
    path = order.store / order.name / PUSHED
    if not path.exists():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return {str(target): [str(version) for version in versions] for target, versions in content.items()}
    except (ValueError, AttributeError, TypeError) as error:
        raise ContainerError("bad_index", f"{path} cannot be read ({error}); remove it to push again.") from error
