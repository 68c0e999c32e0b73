"""What operators have laid over the hardware of a model: pools, rules, snapshots, tags, custom attributes."""

from __future__ import annotations

import typing as t

from pydantic import BaseModel, ConfigDict, Field, model_validator

Level = t.Literal["low", "normal", "high"]


class Strict(BaseModel):
    """A part of the model: no unknown keys, no change after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Marked(Strict):
    """An object with custom attributes and tags."""

    custom_values: dict[str, str] = {}
    """Value by the attribute's name, which `custom_attributes` has."""
    tags: dict[str, list[str]] = {}
    """Names of tags by the name of their category, which `categories` has."""


class Allocation(Strict):
    """What a resource pool is entitled to, in MHz or MB."""

    reservation: t.Annotated[int, Field(ge=0)] = 0
    expandable: bool = True
    limit: t.Annotated[int, Field(ge=-1)] = -1
    """-1: none."""
    shares: Level | t.Annotated[int, Field(gt=0)] = "normal"


class Pool(Marked):
    """A resource pool below a cluster's own or another."""

    name: str
    cpu: Allocation = Allocation()
    memory: Allocation = Allocation()
    pools: list[Pool] = []


class Group(Strict):
    """A group of a cluster's machines, or one of its hosts."""

    name: str
    vms: list[str] | None = None
    hosts: list[str] | None = None

    @model_validator(mode="after")
    def _one_kind(self) -> Group:
        if (self.vms is None) == (self.hosts is None):
            raise ValueError("a group has vms or hosts")
        return self


class Rule(Strict):
    """A rule of a cluster; `mode` says which of the other keys it needs."""

    name: str
    mode: t.Literal["together", "apart", "on_hosts", "not_on_hosts"]
    """The first two are about `vms`, the others about `vm_group` and `host_group`."""
    vms: list[str] = []
    vm_group: str | None = None
    host_group: str | None = None
    enabled: bool = True
    mandatory: bool = False

    @model_validator(mode="after")
    def _complete(self) -> Rule:
        among = self.mode in ("together", "apart")
        if among and (len(self.vms) < 2 or self.vm_group or self.host_group):
            raise ValueError(f"a rule of mode {self.mode} has two vms or more, and no groups")
        if not among and (self.vms or not self.vm_group or not self.host_group):
            raise ValueError(f"a rule of mode {self.mode} has vm_group and host_group, and no vms")
        return self


class Override(Strict):
    """What DRS and HA do with one machine instead of what they do with all."""

    vm: str
    drs: t.Literal["disabled", "manual", "partiallyAutomated", "fullyAutomated"] | None = None
    restart_priority: str | None = None
    """Of HA, for example `high`."""


class Snapshot(Strict):
    """A snapshot of a machine, with the hardware that the machine has now."""

    name: str
    id: t.Annotated[int, Field(gt=0)]
    """Its number in the machine."""
    description: str = ""
    power: t.Literal["poweredOff", "poweredOn", "suspended"] = "poweredOff"
    """What a revert brings back; on and suspended have the memory with them."""
    quiesced: bool = False
    current: bool = False
    """Whether the machine goes on from it."""
    snapshots: list[Snapshot] = []


class Tag(Strict):
    """A tag."""

    name: str
    description: str = ""


class Category(Strict):
    """A category of tags."""

    name: str
    description: str = ""
    single: bool = False
    """An object has at most one of its tags."""
    types: list[str] = []
    """Types of objects that can have them, for example `VirtualMachine`; none: all."""
    tags: list[Tag] = []
