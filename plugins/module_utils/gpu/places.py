# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Where virtual machines can be put: datastores, folders and resource pools, and finding them by name."""

from __future__ import annotations

import collections.abc
import dataclasses
import typing as t

from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.suggest import did_you_mean, some_of


@dataclasses.dataclass(frozen=True, slots=True)
class Place:
    """A datastore, folder or resource pool."""

    moid: str
    path: str
    """Datastore: its name. Folder: below the datacenter's VM folder, without a slash in front; empty for that one.
    Resource pool: below the cluster's root pool; empty for that one."""

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self.path.rpartition("/")[2]


@dataclasses.dataclass(frozen=True, slots=True)
class HostPlaces:
    """What an ESXi host offers to a new virtual machine."""

    datastores: tuple[Place, ...]
    """Those that are accessible, by name."""
    folders: tuple[Place, ...]
    """VM folders of its datacenter, the datacenter's own first."""
    pools: tuple[Place, ...]
    """Resource pools of its cluster, the root pool first."""


@dataclasses.dataclass(frozen=True, slots=True)
class TemplatePlace:
    """Where a template is."""

    datastores: tuple[str, ...]
    """Managed object ids."""


@dataclasses.dataclass(frozen=True, slots=True)
class Places:
    """All places that a plan may need."""

    hosts: t.Mapping[str, HostPlaces]
    templates: t.Mapping[str, TemplatePlace]
    datastores: tuple[str, ...] = ()
    """Names of all datastores of the vCenter, to tell one that is elsewhere from one that is nowhere."""


class PlaceError(LookupError):
    """A place that is not there, or not the only one; `code` and the message are for the operator."""

    def __init__(self, code: str, msg: str) -> None:
        super().__init__(msg)
        self.code = code


def find(kind: str, wanted: str, places: collections.abc.Sequence[Place]) -> Place:
    """A folder or resource pool by path, or by name where only one has it. Raises PlaceError.

    `kind` names it in messages and codes: `folder`, `resource pool`. Leading slashes do not matter.
    """
    path = wanted.strip("/")
    by_path = [place for place in places if place.path == path]
    found = by_path or [place for place in places if place.name == path]
    if len(found) == 1:
        return found[0]
    code = kind.replace(" ", "_")
    paths = [place.path for place in places if place.path]
    if found:
        raise PlaceError(
            f"{code}_ambiguous",
            f"There are several of the name {wanted}: {some_of([place.path for place in found])}. Give the whole path.",
        )
    hint = did_you_mean(path, [*paths, *(place.name for place in places if place.path)])
    raise PlaceError(f"{code}_not_found", f"There is no {kind} {wanted}. {hint or f'There are: {some_of(paths)}.'}")


def find_datastore(wanted: str, host: str, here: HostPlaces, everywhere: collections.abc.Collection[str]) -> Place:
    """A datastore of a host by name. Raises PlaceError."""
    found = [place for place in here.datastores if place.path == wanted]
    if len(found) == 1:
        return found[0]
    names = [place.path for place in here.datastores]
    if found:
        raise PlaceError(
            "datastore_ambiguous", f"{host} has several datastores named {wanted}. Rename all but one of them."
        )
    if wanted in everywhere:
        raise PlaceError(
            "datastore_not_on_host",
            f"The datastore {wanted} is not on {host}, or not accessible there. Accessible there: {some_of(names)}.",
        )
    hint = did_you_mean(wanted, names) or f"On {host} there are: {some_of(names)}."
    raise PlaceError("datastore_not_found", f"There is no datastore {wanted}. {hint}")
