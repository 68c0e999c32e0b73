# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The operators' lock: names, the record of its holder, and who may have it.

A lock is a folder `gpuops-lock-<cluster>-<generation>` whose custom attribute holds the record. Two folders of one
name cannot be, so whoever gives a folder of its own that name has the lock. A folder of the next generation takes it
over from a holder that is gone. The record is written before the folder gets that name: a lock always says whose it is.

Until then the folder has a name of its own, which says who made it and when: whatever a run dies of, its folder can be
told from that of a run that is about to take the lock.
"""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
import json
import re
import typing as t

ATTRIBUTE = "gpuops.lock"
PREFIX = "gpuops-lock-"
_LONGEST = 48
_NAME = re.compile(r"gpuops-lock-(?P<cluster>.+)-(?P<generation>[0-9]+)")
# It ends in a letter, so that it is never read as a lock.
_PREPARED = re.compile(
    r"gpuops-lock-new-(?P<made>\d{8}T\d{6}Z)-(?P<pid>\d+)-(?P<started>\d*)-(?P<controller>[0-9a-f]{12})-[0-9a-f]{8}n"
)
PREPARED_S = 3600.0
"""How long a run can take at most from making its folder to giving it the lock's name: a few requests."""
_TIME = "%Y-%m-%dT%H:%M:%S.%fZ"


@dataclasses.dataclass(frozen=True, slots=True)
class Holder:
    """Who has the lock, since when and until when (ISO 8601 in UTC, the vCenter's time)."""

    owner: str
    run: str
    since: str
    expires: str
    controller: str = ""
    """Machine and boot of the process that holds it."""
    pid: int = 0
    started: str = ""
    """When that process started, in the system's own units, so that a pid that is used again is not taken for it."""


Alive = t.Callable[[Holder], "bool | None"]
"""Whether the process of a holder still runs; None where that cannot be known, such as on another machine."""


@dataclasses.dataclass(frozen=True, slots=True)
class LockFolder:
    """A lock that is there."""

    moid: str
    name: str
    cluster: str
    """As the folder's name has it."""
    generation: int
    holder: Holder | None


def key_of(cluster: str) -> str:
    """The cluster's part of the name; a long one is shortened, as names are limited to 80 characters."""
    if len(cluster) <= _LONGEST:
        return cluster
    return f"{cluster[: _LONGEST - 9]}-{hashlib.sha256(cluster.encode()).hexdigest()[:8]}"


def name_of(cluster: str, generation: int) -> str:
    """The folder's name."""
    return f"{PREFIX}{key_of(cluster)}-{generation}"


def prepared_name(holder: Holder, salt: str) -> str:
    """The name of a folder that is to become the lock; `salt` is 8 hexadecimal digits that no other folder has."""
    made = datetime.datetime.strptime(holder.since, _TIME).strftime("%Y%m%dT%H%M%SZ")
    return f"{PREFIX}new-{made}-{holder.pid}-{holder.started}-{_digest(holder.controller)}-{salt}n"


def abandoned(name: str, holder: Holder, alive: Alive) -> bool:
    """Whether the folder of this name was prepared by a run that is gone, as seen by `holder`; False for other names.

    That is known of processes of its own machine; elsewhere by the folder's age.
    """
    match = _PREPARED.fullmatch(name)
    if match is None:
        return False
    made = datetime.datetime.strptime(match["made"], "%Y%m%dT%H%M%SZ")
    controller = holder.controller if match["controller"] == _digest(holder.controller) else ""
    if controller:
        return alive(Holder("", "", "", "", controller, int(match["pid"]), match["started"])) is False
    return (datetime.datetime.strptime(holder.since, _TIME) - made).total_seconds() > PREPARED_S


def _digest(controller: str) -> str:
    return hashlib.sha256(controller.encode()).hexdigest()[:12]


def format_holder(holder: Holder) -> str:
    """The record as compact JSON."""
    return json.dumps({"v": 1, **dataclasses.asdict(holder)}, separators=(",", ":"))


def parse_holder(text: str) -> Holder | None:
    """The record from its JSON; None for what is none."""
    try:
        data = json.loads(text)
        names = {field.name for field in dataclasses.fields(Holder)}
        return Holder(**{key: value for key, value in data.items() if key in names})
    except (ValueError, TypeError, AttributeError):
        return None


def parse_folder(moid: str, name: str, record: str) -> LockFolder | None:
    """A lock from its folder; None for another folder."""
    match = _NAME.fullmatch(name)
    if match is None:
        return None
    return LockFolder(moid, name, match["cluster"], int(match["generation"]), parse_holder(record))


@dataclasses.dataclass(frozen=True, slots=True)
class Claim:
    """What stands between us and a lock."""

    held_by: LockFolder | None
    """Somebody else, who is not gone."""
    ours: LockFolder | None
    next_generation: int
    stale: tuple[LockFolder, ...]
    """To remove once the lock is ours."""


def claim(folders: t.Iterable[LockFolder], cluster: str, run: str, now: str, alive: Alive) -> Claim:
    """Whether the lock of a cluster is free, ours, or somebody else's.

    The highest generation holds. Whether its holder is gone is told by its process where `alive` knows of that, else by
    the lock's time. A record that nobody can read is somebody else's for ever, as it is not known to be ours.
    """
    here = sorted((f for f in folders if f.cluster == key_of(cluster)), key=lambda f: f.generation)
    if not here:
        return Claim(None, None, 1, ())
    last = here[-1]
    generation = last.generation + 1
    if last.holder is not None and last.holder.run == run:
        return Claim(None, last, generation, tuple(here[:-1]))
    if last.holder is None or _holds(last.holder, now, alive):
        return Claim(last, None, generation, tuple(here[:-1]))
    return Claim(None, None, generation, tuple(here))


def _holds(holder: Holder, now: str, alive: Alive) -> bool:
    living = alive(holder)
    return holder.expires > now if living is None else living


def to_give_back(lock: LockFolder, run: str, alive: Alive) -> bool:
    """Whether a lock is a run's own, or of one of this machine that is gone: killed before it gave it back."""
    return lock.holder is not None and (lock.holder.run == run or alive(lock.holder) is False)


def after(now: str, seconds: float) -> str:
    """A time in the form of `now`, so much later."""
    return (datetime.datetime.strptime(now, _TIME) + datetime.timedelta(seconds=seconds)).strftime(_TIME)


def held_text(cluster: str, folder: LockFolder, now: str) -> str:
    """Who holds the lock, since when, and how to break it."""
    return (
        f"Another operator is changing this cluster: {_who(folder, now)}. Wait for the end of that run. If it is gone, "
        f"break the lock with gpu_lock (state: released, force: true, clusters: [{cluster}]), or delete the folder "
        f"{folder.name} at the top of the vCenter's inventory."
    )


def lost_text(folder: LockFolder | None, now: str) -> str:
    """Who has a lock that this run had (None: nobody), and what to do now."""
    if folder is None:
        return (
            "This run had the lock of this cluster, and it is gone: it was broken, or taken over and given back since. "
            "Nothing more is done here, as the cluster may have changed. Run again."
        )
    return (
        f"This run had the lock of this cluster, and another operator has it now: {_who(folder, now)}. Nothing more is "
        "done here. Run again when that run has ended."
    )


def _who(folder: LockFolder, now: str) -> str:
    holder = folder.holder
    if holder is None:
        return "its folder has no readable record"
    # Past its time it is held only by a process that is known to run.
    end = f"until {holder.expires[:19]}Z" if holder.expires > now else f"and its process {holder.pid} still runs here"
    return f"{holder.owner} has held it since {holder.since[:19]}Z, run {holder.run}, {end}"
