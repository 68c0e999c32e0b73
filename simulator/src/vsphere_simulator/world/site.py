"""What all entities of one simulated vCenter share: timings, options, ids."""

from __future__ import annotations

import dataclasses
import typing as t
import uuid

from vsphere_simulator.model.schema import Timings
from vsphere_simulator.world.images import Images
from vsphere_simulator.world.load import Load
from vsphere_simulator.world.tags import Tags

if t.TYPE_CHECKING:
    from vsphere_simulator.guests.guests import Guests
    from vsphere_simulator.kernel.registry import World
    from vsphere_simulator.world.host import HostSystem
    from vsphere_simulator.world.patches import Package

_NAMESPACE = uuid.UUID("6ba7b811-9dad-11d1-80b4-00c04fd430c8")


@dataclasses.dataclass(slots=True)
class Site:
    """The settings of a vCenter that its entities need to behave."""

    world: World
    name: str
    """The data center's name; uuids are derived from it, so that a model always gives the same ones."""
    api_version: tuple[int, ...] = (8, 0, 3, 0)
    timings: Timings = dataclasses.field(default_factory=Timings)
    options: dict[str, str | bool | int] = dataclasses.field(default_factory=dict)
    """vCenter settings (OptionManager), for example `vgpu.hotmigrate.enabled`; part of the state."""
    bare: dict[str, HostSystem] = dataclasses.field(default_factory=dict)
    """Hosts that can be reached and are not in the inventory, by name; part of the state."""
    depots: dict[str, list[Package]] = dataclasses.field(default_factory=dict)
    """Bundle URL -> what it holds."""
    tags: Tags = dataclasses.field(default_factory=Tags)
    images: Images = dataclasses.field(default_factory=Images)
    guests: Guests | None = None
    """Real guests of machines whose model has a `guest`; None: all guests are made up."""
    load: Load = dataclasses.field(init=False)
    """What machines ask of their hosts and what they get."""

    def __post_init__(self) -> None:
        self.load = Load(self.world)

    def flag(self, key: str) -> bool:
        """Whether a vCenter setting is true."""
        return self.options.get(key) is True

    def new_id(self, prefix: str) -> str:
        """An unused managed object id such as `vm-17`; all kinds share one sequence, as in a vCenter."""
        self.world.ids["entity"] += 1
        return f"{prefix}{self.world.ids['entity']}"

    def uuid_of(self, purpose: str) -> str:
        """The same uuid for the same purpose, always."""
        return str(uuid.uuid5(_NAMESPACE, f"{self.name}/{purpose}"))
