# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What planners return: changes and problems for one object each, as plain data.

A planner is a pure function (facts, wanted) -> {name: ObjectPlan}. It never raises for what an
operator wrote or for the state of one host: that is a `Problem` of that object, and the other
objects' plans still stand.
"""

from __future__ import annotations

import dataclasses
import typing as t

ProblemKind = t.Literal["input", "state"]


@dataclasses.dataclass(frozen=True, slots=True)
class Change:
    """One step that brings an object nearer to the wanted state."""

    action: str
    """Verb and thing, for example `enable passthrough`, `clone`, `reconfigure`, `reboot`."""
    path: str
    """What it touches, for example `0000:3b:00.0` or `memory.reservation_locked`."""
    before: t.Any
    after: t.Any
    reason: str = ""
    disruptive: bool = False

    def __str__(self) -> str:
        # An action such as `power on` names what it touches itself.
        text = self.action if self.path in self.action.split() else f"{self.action} {self.path}"
        return f"{text} ({self.reason})" if self.reason else text


@dataclasses.dataclass(frozen=True, slots=True)
class Problem:
    """Why an object cannot reach the wanted state."""

    code: str
    """Stable identifier, for example `device_not_found`."""
    object: str
    """Name of the host or virtual machine."""
    msg: str
    """What is wrong and what to do about it, one or two sentences."""
    option: str | None = None
    """The module option that asked for it, so that a role can name its own variable."""
    kind: ProblemKind = "input"
    """`input`: the inventory must change. `state`: the vCenter's state stands in the way now."""
    fault: str | None = None
    """Name of the vSphere fault, where one was raised."""


@dataclasses.dataclass(frozen=True, slots=True)
class ObjectPlan:
    """Changes, problems and notes of one object."""

    name: str
    changes: tuple[Change, ...] = ()
    problems: tuple[Problem, ...] = ()
    warnings: tuple[str, ...] = ()
    notes: t.Mapping[str, t.Any] = dataclasses.field(default_factory=dict)
    """Module-specific return values of the object, for example `reboot_required`."""

    @property
    def failed(self) -> bool:
        """Whether anything stands in the way."""
        return bool(self.problems)

    @property
    def changed(self) -> bool:
        """Whether there is something to do and nothing stands in the way."""
        return bool(self.changes) and not self.problems


def diff(plan: ObjectPlan) -> dict[str, str]:
    """The plan's changes in the form that Ansible prints with `--diff`: one `path: value` line each."""
    before = "".join(f"{change.path}: {_plain(change.before)}\n" for change in plan.changes)
    after = "".join(f"{change.path}: {_plain(change.after)}\n" for change in plan.changes)
    return {
        "before": before,
        "after": after,
        "before_header": f"{plan.name} (now)",
        "after_header": f"{plan.name} (wanted)",
    }


def _plain(value: t.Any) -> str:
    if value is None:
        return "absent"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (list, tuple)):
        return ", ".join(_plain(item) for item in value) or "none"
    if isinstance(value, t.Mapping):
        return ", ".join(f"{key}={_plain(item)}" for key, item in value.items()) or "none"
    return str(value)


def result(plan: ObjectPlan, *, changed: bool | None = None) -> dict[str, t.Any]:
    """The object's entry in a module's `objects`.

    `changed` is what was really done, where that may differ from the plan (a failure half-way).
    """
    entry: dict[str, t.Any] = {
        "changed": plan.changed if changed is None else changed,
        "failed": plan.failed,
        "actions": [str(change) for change in plan.changes],
        "warnings": list(plan.warnings),
        **plan.notes,
    }
    if plan.changes:
        entry["diff"] = diff(plan)
    if plan.problems:
        entry["msg"] = " ".join(f"{problem.object}: {problem.msg}" for problem in plan.problems)
        entry["problems"] = [dataclasses.asdict(problem) for problem in plan.problems]
        first = plan.problems[0]
        entry["failure"] = {"code": first.code, "object": first.object, "fault": first.fault}
    return entry
