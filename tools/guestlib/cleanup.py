"""Remove guests that nobody owns any more: what is stale is decided by a pure function, then purged."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field

from .guests import Guests
from .host import RUN_DIR, Host
from .identity import Identity
from .podman import Container, Podman
from .records import Record, Records

_WAIT_S = 30.0


@dataclass(frozen=True)
class Decision:
    """What to remove: whole instances (with their network), or single guests of others."""

    whole: tuple[str, ...] = ()
    guests: dict[str, tuple[str, ...]] = field(default_factory=dict)


def decide(
    containers: Collection[Container],
    records: Collection[Record],
    networks: Collection[str],
    alive: Callable[[str], bool],
) -> Decision:
    """Return what is stale: guests whose owner, or whose creator before they were ready, is gone.

    `alive` tells whether the process of an identity's text still runs. Guests without an owner
    stay until they are destroyed. A network without guests goes unless somebody is making one.
    """
    making = {(record.instance, record.guest) for record in records if not record.ready and alive(record.creator)}
    abandoned = {(record.instance, record.guest) for record in records if not record.ready} - making
    orphaned = {
        (found.instance, found.guest)
        for found in containers
        if found.labels.get("owner") and not alive(found.labels["owner"])
    }
    stale = abandoned | orphaned
    kept = ({(found.instance, found.guest) for found in containers} | making) - stale
    kept_instances = {instance for instance, _ in kept}
    touched = {instance for instance, _ in stale} | {*networks}
    return Decision(
        whole=tuple(sorted(touched - kept_instances)),
        guests={
            instance: tuple(sorted(guest for owner, guest in stale if owner == instance))
            for instance in sorted({instance for instance, _ in stale} & kept_instances)
        },
    )


def remove_instance(host: Host, instance: str) -> dict[str, list[str]]:
    """Remove everything of one instance; return the guests removed, by instance."""
    names = Guests(host, Podman(host, instance), instance).purge(None, _WAIT_S)
    return {instance: names} if names else {}


def remove_stale(host: Host) -> dict[str, list[str]]:
    """Remove what is stale in all instances; return the guests removed, by instance."""
    podman = Podman(host, "cleanup")
    decision = decide(podman.containers(), Records(RUN_DIR / "guests").all(), podman.networks(), _alive)
    removed = {}
    for instance in decision.whole:
        removed.update(remove_instance(host, instance))
    for instance, names in decision.guests.items():
        removed[instance] = Guests(host, Podman(host, instance), instance).purge(names, _WAIT_S)
    return removed


def remove_everything(host: Host) -> dict[str, list[str]]:
    """Remove every instance; return the guests removed, by instance."""
    podman = Podman(host, "cleanup")
    instances = {found.instance for found in podman.containers()} | {*podman.networks()}
    instances |= {record.instance for record in Records(RUN_DIR / "guests").all()}
    removed = {}
    for instance in sorted(instances):
        removed.update(remove_instance(host, instance))
    return removed


def _alive(text: str) -> bool:
    identity = Identity.parse(text)
    return identity is not None and identity.alive()
