"""Tags: categories, the tags in them, and what they are attached to."""

from __future__ import annotations

import dataclasses
import typing as t

if t.TYPE_CHECKING:
    from vsphere_simulator.kernel.registry import World


@dataclasses.dataclass(slots=True)
class Category:
    """A tag category."""

    id: str
    name: str
    description: str = ""
    cardinality: str = "MULTIPLE"
    """SINGLE: an object has at most one of its tags."""
    types: list[str] = dataclasses.field(default_factory=list)
    """Wire names of the types of objects that can have its tags; empty: all."""


@dataclasses.dataclass(slots=True)
class Tag:
    """A tag of a category."""

    id: str
    name: str
    category: str
    description: str = ""


@dataclasses.dataclass(slots=True)
class Tags:
    """All tags of a vCenter; part of its state."""

    categories: dict[str, Category] = dataclasses.field(default_factory=dict)
    tags: dict[str, Tag] = dataclasses.field(default_factory=dict)
    attached: dict[str, list[str]] = dataclasses.field(default_factory=dict)
    """Tag id -> ids of the objects that have it, in order of attachment."""

    def of(self, moid: str) -> list[str]:
        """The tags of an object, by name."""
        return sorted((tag for tag, objects in self.attached.items() if moid in objects), key=self._name)

    def _name(self, tag: str) -> str:
        return self.tags[tag].name

    def forget(self, tag: str) -> None:
        """Remove a tag from everything and for good."""
        self.tags.pop(tag, None)
        self.attached.pop(tag, None)

    def objects_of(self, tag: str, world: World) -> list[str]:
        """The objects that have a tag; those that are gone are forgotten."""
        present = [moid for moid in self.attached.get(tag, []) if moid in world.objects]
        if tag in self.attached:
            self.attached[tag] = present
        return present

    def dump(self, world: World) -> dict[str, t.Any]:
        """Plain JSON types, in a fixed order."""
        return {
            "categories": [dataclasses.asdict(one) for _, one in sorted(self.categories.items())],
            "tags": [dataclasses.asdict(one) for _, one in sorted(self.tags.items())],
            "attached": {tag: found for tag in sorted(self.attached) if (found := self.objects_of(tag, world))},
        }

    @classmethod
    def load(cls, data: dict[str, t.Any]) -> Tags:
        """The reverse of `dump`."""
        return cls(
            {one["id"]: Category(**one) for one in data.get("categories", ())},
            {one["id"]: Tag(**one) for one in data.get("tags", ())},
            {tag: list(objects) for tag, objects in data.get("attached", {}).items()},
        )
