# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Planner: shares, reservations and limits of CPU and memory, of virtual machines and resource pools."""

from __future__ import annotations

import collections.abc
import dataclasses
import re
import typing as t

from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.plan import Change, ObjectPlan, Problem
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.suggest import did_you_mean

Kind = t.Literal["vm", "pool"]
Resource = t.Literal["cpu", "memory"]

LEVELS = ("low", "normal", "high")
UNLIMITED = -1
MOST_SHARES = 1_000_000
"""What the API accepts."""
_UNITS: dict[Resource, str] = {"cpu": "MHz", "memory": "MB"}
RESOURCES: tuple[Resource, ...] = ("cpu", "memory")


@dataclasses.dataclass(frozen=True, slots=True)
class Allocation:
    """What an object is entitled to of one resource (ResourceAllocationInfo): CPU in MHz, memory in MB."""

    level: str
    """`low`, `normal`, `high` or `custom`."""
    shares: int
    reservation: int
    limit: int
    """-1: none."""
    expandable: bool = False
    """Pools only: whether it may take more from the pool above."""

    @property
    def share_text(self) -> str:
        """The level, or the number of a custom one."""
        return str(self.shares) if self.level == "custom" else self.level


@dataclasses.dataclass(frozen=True, slots=True)
class ShareFacts:
    """A virtual machine or resource pool."""

    name: str
    moid: str
    kind: Kind
    cpu: Allocation
    memory: Allocation
    change_version: str = ""
    memory_mb: int | None = None
    """Virtual machines only."""
    memory_locked: bool = False
    """Virtual machines only: all memory is reserved, whatever its size."""
    template: bool = False
    root: bool = False
    """Pools only: the one that every cluster and host has."""
    former: str = ""
    """What it was entitled to before it was changed with `remember`, as `format_former` writes it."""


@dataclasses.dataclass(frozen=True, slots=True)
class AllocationWant:
    """What is asked for; None leaves a value as it is."""

    shares: str | None = None
    """A level, or a number."""
    reservation: int | None = None
    limit: int | None = None
    """-1 for none."""
    expandable: bool | None = None

    def applied_to(self, now: Allocation) -> Allocation:
        """The allocation as it shall be."""
        level, number = now.level, now.shares
        if self.shares is not None:
            level = self.shares if self.shares in LEVELS else "custom"
            number = int(self.shares) if level == "custom" else now.shares
        return Allocation(
            level,
            number,
            now.reservation if self.reservation is None else self.reservation,
            now.limit if self.limit is None else self.limit,
            now.expandable if self.expandable is None else self.expandable,
        )


@dataclasses.dataclass(frozen=True, slots=True)
class ShareWant:
    """What one object is to be entitled to."""

    name: str
    kind: Kind
    cpu: AllocationWant
    memory: AllocationWant


@dataclasses.dataclass(frozen=True, slots=True)
class SharePlan:
    """The plan of one object, and the object as it is then."""

    plan: ObjectPlan
    after: ShareFacts | None = None
    remember: str = ""
    """Written to the object's attribute before it is changed; empty: nothing is."""
    forget: bool = False
    """Whether the attribute is cleared after the change."""


ATTRIBUTE = "gpuops.shares"
"""Custom attribute of virtual machines and pools, for what they were entitled to before."""


def format_former(facts: ShareFacts) -> str:
    """What an object is entitled to, as its attribute keeps it: `cpu=normal/4000/0/-1/no memory=...`."""
    return " ".join(f"{resource}={_packed(getattr(facts, resource))}" for resource in RESOURCES)


def _packed(one: Allocation) -> str:
    return f"{one.level}/{one.shares}/{one.reservation}/{one.limit}/{'yes' if one.expandable else 'no'}"


def parse_former(text: str) -> dict[Resource, Allocation] | None:
    """The reverse of `format_former`; None for anything else."""
    match = _FORMER.fullmatch(text.strip())
    if match is None:
        return None
    parts = match.groups()
    return {
        resource: Allocation(level, int(shares), int(reservation), int(limit), expandable == "yes")
        for resource, (level, shares, reservation, limit, expandable) in zip(
            RESOURCES, (parts[:5], parts[5:]), strict=True
        )
    }


_PACKED = r"(low|normal|high|custom)/(\d+)/(\d+)/(-1|\d+)/(yes|no)"
_FORMER = re.compile(f"cpu={_PACKED} memory={_PACKED}")


def plan_restore(
    names: collections.abc.Sequence[tuple[Kind, str]],
    found: t.Mapping[tuple[Kind, str], collections.abc.Sequence[ShareFacts]],
    known: t.Mapping[Kind, collections.abc.Collection[str]],
) -> dict[str, SharePlan]:
    """Plans that give each object what it was entitled to before; one of which nothing is remembered stays."""
    wants = []
    for kind, name in names:
        there = found.get((kind, name), ())
        text = there[0].former if len(there) == 1 else ""
        former = parse_former(text) if text else {}
        problems = []
        if former is None:
            said = (
                f"Its attribute {ATTRIBUTE} is not readable: {text!r}. Set its shares by hand and empty the attribute."
            )
            problems.append(Problem("bad_memory", name, said, f"{kind}s", kind="state"))
        values = {resource: _want_of(kind, there[0], resource, one) for resource, one in (former or {}).items()}
        none = AllocationWant()
        wants.append((ShareWant(name, kind, values.get("cpu", none), values.get("memory", none)), problems))
    plans = plan_shares(wants, found, known)
    for kind, name in names:
        label = label_of(kind, name)
        there = found.get((kind, name), ())
        item = plans[label]
        if item.after is not None and there[0].former:
            forget = Change("clear", ATTRIBUTE, there[0].former, "")
            plan = dataclasses.replace(item.plan, changes=(*item.plan.changes, forget))
            plans[label] = dataclasses.replace(item, plan=plan, forget=True)
    return plans


def _want_of(kind: Kind, now: ShareFacts, resource: Resource, former: Allocation) -> AllocationWant:
    locked = resource == "memory" and now.memory_locked
    return AllocationWant(
        former.share_text,
        None if locked else former.reservation,
        former.limit,
        former.expandable if kind == "pool" else None,
    )


def remembering(plans: t.Mapping[str, SharePlan], found: t.Iterable[ShareFacts]) -> dict[str, SharePlan]:
    """The plans, with what each object that changes is entitled to now written down first, unless it is already."""
    facts = {label_of(one.kind, one.name): one for one in found}
    noted = dict(plans)
    for label, item in plans.items():
        if item.plan.changed and not facts[label].former:
            text = format_former(facts[label])
            note = Change("set", ATTRIBUTE, "", text)
            plan = dataclasses.replace(item.plan, changes=(note, *item.plan.changes))
            noted[label] = dataclasses.replace(item, plan=plan, remember=text)
    return noted


def parse(name: str, kind: Kind, item: t.Mapping[str, t.Any]) -> tuple[ShareWant, list[Problem]]:
    """The wanted allocations from an entry of the options, and what is wrong with them."""
    found: dict[Resource, AllocationWant] = {}
    problems: list[Problem] = []
    for resource in RESOURCES:
        given = item.get(resource) or {}
        shares = str(given["shares"]).strip().lower() if given.get("shares") is not None else None
        if shares is not None and not _valid_shares(shares):
            problems.append(
                _mistake(
                    name, resource, f"shares must be low, normal, high or a number up to {MOST_SHARES}, not {shares!r}"
                )
            )
            shares = None
        want = AllocationWant(shares, given.get("reservation"), given.get("limit"), given.get("expandable"))
        if want.reservation is not None and want.reservation < 0:
            problems.append(_mistake(name, resource, f"reservation cannot be negative, as {want.reservation} is"))
        if want.limit is not None and want.limit < UNLIMITED:
            problems.append(_mistake(name, resource, f"limit must be -1 (none) or more, not {want.limit}"))
        found[resource] = want
    return ShareWant(name, kind, found["cpu"], found["memory"]), problems


def _valid_shares(text: str) -> bool:
    return text in LEVELS or (text.isascii() and text.isdigit() and 0 < int(text) <= MOST_SHARES)


def _mistake(name: str, resource: Resource, text: str) -> Problem:
    return Problem("invalid_allocation", name, f"{resource}: {text}.", resource)


def plan_shares(
    wants: collections.abc.Sequence[tuple[ShareWant, collections.abc.Sequence[Problem]]],
    found: t.Mapping[tuple[Kind, str], collections.abc.Sequence[ShareFacts]],
    known: t.Mapping[Kind, collections.abc.Collection[str]],
) -> dict[str, SharePlan]:
    """One plan for each object, by `label`. `found` are all objects of a name, `known` all names."""
    plans: dict[str, SharePlan] = {}
    for want, mistakes in wants:
        label = label_of(want.kind, want.name)
        if label in plans:
            twice = Problem("duplicate_name", want.name, "is listed more than once. Keep one entry.")
            plans[label] = SharePlan(dataclasses.replace(plans[label].plan, problems=(twice,)))
            continue
        there = found.get((want.kind, want.name), ())
        problems = [*mistakes, *_standing(want, there, known)]
        plans[label] = (
            SharePlan(ObjectPlan(label, problems=tuple(problems))) if problems else _plan(want, there[0], label)
        )
    return plans


def label_of(kind: Kind, name: str) -> str:
    """What an object is called in results: pools and virtual machines may have the same name."""
    return name if kind == "vm" else f"pool {name}"


def _standing(
    want: ShareWant,
    there: collections.abc.Sequence[ShareFacts],
    known: t.Mapping[Kind, collections.abc.Collection[str]],
) -> list[Problem]:
    name = want.name
    what = "virtual machine" if want.kind == "vm" else "resource pool"
    if not there:
        hint = did_you_mean(name, known.get(want.kind, ())) or "Create it first, or correct the name."
        return [
            Problem(f"{want.kind}_not_found", name, f"The vCenter has no {what} of this name. {hint}", f"{want.kind}s")
        ]
    if len(there) > 1:
        advice = "Say which with cluster." if want.kind == "pool" else "Rename all but one of them."
        return [Problem("ambiguous_name", name, f"Several {what}s have this name. {advice}", f"{want.kind}s")]
    if there[0].template:
        return [Problem("is_template", name, "This is a template, which never runs.", "vms")]
    if there[0].root:
        text = "is the root pool, which has all that its cluster has. Name a pool below it."
        return [Problem("root_pool", name, text, "pools")]
    return []


def _plan(want: ShareWant, now: ShareFacts, label: str) -> SharePlan:
    cpu, memory = want.cpu.applied_to(now.cpu), want.memory.applied_to(now.memory)
    if now.memory_locked and want.memory.reservation is None:
        # It follows the size by itself.
        memory = dataclasses.replace(memory, reservation=now.memory.reservation)
    after = dataclasses.replace(now, cpu=cpu, memory=memory)
    changes = [*_changes("cpu", now.cpu, cpu), *_changes("memory", now.memory, memory)]
    problems = _contradictions(now, after) if changes else []
    notes = {resource: dataclasses.asdict(value) for resource, value in (("cpu", cpu), ("memory", memory))}
    return SharePlan(ObjectPlan(label, tuple(changes), tuple(problems), notes=notes), None if problems else after)


def _changes(resource: Resource, now: Allocation, then: Allocation) -> t.Iterator[Change]:
    unit = _UNITS[resource]
    if (now.level, now.shares if now.level == "custom" else 0) != (
        then.level,
        then.shares if then.level == "custom" else 0,
    ):
        yield Change("set", f"{resource}.shares", now.share_text, then.share_text)
    if now.reservation != then.reservation:
        yield Change("set", f"{resource}.reservation", now.reservation, then.reservation, f"{then.reservation} {unit}")
    if now.limit != then.limit:
        before, after = (_limit(value) for value in (now.limit, then.limit))
        yield Change("set", f"{resource}.limit", before, after, f"{after} {unit}" if then.limit >= 0 else "none")
    if now.expandable != then.expandable:
        yield Change("set", f"{resource}.expandable", now.expandable, then.expandable)


def _limit(value: int) -> int | str:
    return "none" if value < 0 else value


def _contradictions(now: ShareFacts, after: ShareFacts) -> list[Problem]:
    problems = []
    for resource in RESOURCES:
        allocation: Allocation = getattr(after, resource)
        if 0 <= allocation.limit < allocation.reservation:
            text = f"would reserve {allocation.reservation} {_UNITS[resource]} with a limit of {allocation.limit}"
            problems.append(_mistake(now.name, resource, f"{text}: raise the limit, or reserve less"))
    if now.memory_mb is None:
        return problems
    if now.memory_locked and after.memory.reservation != now.memory_mb:
        text = f"all its memory ({now.memory_mb} MB) is reserved and stays so, as GPUs need it: leave out reservation"
        problems.append(_mistake(now.name, "memory", text))
    elif after.memory.reservation > now.memory_mb:
        text = f"would reserve {after.memory.reservation} MB, and it has {now.memory_mb} MB: reserve no more than that"
        problems.append(_mistake(now.name, "memory", text))
    return problems
