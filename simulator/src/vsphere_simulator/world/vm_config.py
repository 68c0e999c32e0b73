"""The configuration of a virtual machine: a plain record that clones copy and reconfigurations replace."""

from __future__ import annotations

import dataclasses
import typing as t

from vsphere_simulator.world.devices import Blueprint


@dataclasses.dataclass(slots=True)
class VmConfig:
    """What a VMX file says. Never changed in place once a machine has it: see `copy`."""

    uuid: str
    instance_uuid: str
    change_version: str
    created: str
    """ISO 8601, UTC."""
    cpus: int = 1
    cores_per_socket: int = 1
    memory_mb: int = 1024
    memory_reservation_mb: int = 0
    memory_locked: bool = False
    """memoryReservationLockedToMax: the reservation follows the size."""
    firmware: str = "bios"
    hardware_version: int = 20
    guest_id: str = "otherGuest64"
    annotation: str = ""
    cpu_hot_add: bool = False
    cpu_hot_remove: bool = False
    memory_hot_add: bool = False
    extra_config: dict[str, str] = dataclasses.field(default_factory=dict)
    settings: dict[str, t.Any] = dataclasses.field(default_factory=dict)
    """Fields of ConfigSpec that ConfigInfo shows as they are, for example `bootOptions`."""
    devices: tuple[t.Any, ...] | None = None
    """None: still those of the blueprint, made when somebody asks."""
    blueprint: Blueprint | None = None

    @property
    def reserved_mb(self) -> int:
        """Reserved guest memory."""
        return self.memory_mb if self.memory_locked else min(self.memory_mb, self.memory_reservation_mb)

    def copy(self) -> VmConfig:
        """A copy that can be changed without changing this one."""
        return dataclasses.replace(self, extra_config=dict(self.extra_config), settings=dict(self.settings))

    def flag(self, key: str) -> bool:
        """An extraConfig value as a boolean; values compare case-insensitively."""
        return self.extra_config.get(key, "").strip().lower() in ("true", "1", "yes")
