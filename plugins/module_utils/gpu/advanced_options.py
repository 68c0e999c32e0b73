# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Planner: advanced settings of a vCenter, and advanced options of its clusters' DRS.

Sources: VMware's notes on vGPU with DRS and vMotion (which option exists from which release on).
"""

from __future__ import annotations

import dataclasses
import typing as t

from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.plan import Change, ObjectPlan, Problem
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.suggest import did_you_mean

VCENTER = "vCenter"
"""Name of the vCenter itself among the objects; no cluster is called so."""

Scalar = t.Union[str, int, bool]  # noqa: UP007 - sanity reads it with older Pythons

SINCE: t.Final[dict[str, tuple[int, ...]]] = {
    "vgpu.hotmigrate.enabled": (6, 7),
    "PassthroughDrsAutomation": (8, 0, 2),
    "LBMaxVmotionPerHost": (8, 0, 2),
    "VgpuMMAutomationTimeoutSecs": (7, 0, 3),
}
"""The first API version that knows an option. Options that are not here are not checked."""


@dataclasses.dataclass(frozen=True, slots=True)
class ClusterOptions:
    """What a cluster has."""

    moid: str
    drs_enabled: bool
    options: t.Mapping[str, str]


@dataclasses.dataclass(frozen=True, slots=True)
class OptionFacts:
    """What there is."""

    api_version: str
    """For example `8.0.3.0`."""
    vcenter: t.Mapping[str, Scalar]
    clusters: t.Mapping[str, ClusterOptions]


@dataclasses.dataclass(frozen=True, slots=True)
class OptionPlan:
    """The plan of one object, and the options to set with their values; an empty text takes one away."""

    plan: ObjectPlan
    values: t.Mapping[str, Scalar] = dataclasses.field(default_factory=dict)


def plan_options(
    facts: OptionFacts,
    vcenter: t.Mapping[str, t.Any],
    clusters: t.Mapping[str, t.Mapping[str, t.Any]],
    *,
    unsupported: t.Literal["fail", "skip"] = "fail",
) -> dict[str, OptionPlan]:
    """One plan for the vCenter, if anything is wanted of it, and one for each cluster.

    `None` as a value takes a DRS option away. `unsupported` says what an option means that the release does not know.
    """
    plans = {}
    if vcenter:
        plans[VCENTER] = _plan(VCENTER, facts, facts.vcenter, vcenter, unsupported, "vcenter")
    for name, wanted in clusters.items():
        cluster = facts.clusters.get(name)
        if cluster is None:
            hint = did_you_mean(name, facts.clusters) or "Correct the name."
            problem = Problem("cluster_not_found", name, f"The vCenter has no cluster of this name. {hint}", "clusters")
            plans[name] = OptionPlan(ObjectPlan(name, problems=(problem,)))
            continue
        found = _plan(name, facts, cluster.options, wanted, unsupported, "clusters")
        if found.plan.changes and not cluster.drs_enabled:
            text = f"DRS of {name} is off: its options have no effect until it is on."
            found = dataclasses.replace(
                found, plan=dataclasses.replace(found.plan, warnings=(*found.plan.warnings, text))
            )
        plans[name] = found
    return plans


def _plan(
    name: str,
    facts: OptionFacts,
    has: t.Mapping[str, Scalar],
    wanted: t.Mapping[str, t.Any],
    unsupported: str,
    option: str,
) -> OptionPlan:
    changes: list[Change] = []
    problems: list[Problem] = []
    warnings: list[str] = []
    values: dict[str, Scalar] = {}
    for key, value in wanted.items():
        if value is not None and not _known(key, facts.api_version):
            since = ".".join(str(part) for part in SINCE[key])
            text = f"{key} exists from vSphere {since} on, and this vCenter is {facts.api_version}."
            if unsupported == "skip":
                warnings.append(f"{name}: {text} It is skipped.")
            else:
                text += " Leave it out, upgrade, or set unsupported to skip."
                problems.append(Problem("option_not_supported", name, text, option))
            continue
        now = has.get(key)
        if value is None and option == "vcenter":
            text = f"{key}: a setting of the vCenter cannot be taken away. Give it a value."
            problems.append(Problem("invalid_input", name, text, option))
        elif not _same(now, value):
            values[key] = "" if value is None else _typed(now, value)
            changes.append(Change("remove" if value is None else "set", key, now, value, f"was {_text(now)}"))
    return OptionPlan(ObjectPlan(name, tuple(changes), tuple(problems), tuple(warnings)), values)


def _known(key: str, api_version: str) -> bool:
    have = tuple(int(part) for part in api_version.split(".") if part.isdigit())
    return have >= SINCE.get(key, ())


def _same(now: Scalar | None, value: t.Any) -> bool:
    if now is None or value is None:
        return now in (None, "") and value in (None, "")
    return _text(now).lower() == _text(value).lower()


def _typed(now: Scalar | None, value: t.Any) -> Scalar:
    """The value in the type that the setting has: a vCenter refuses another one."""
    text = _text(value)
    if isinstance(now, bool) and text.lower() in ("true", "false"):
        return text.lower() == "true"
    if isinstance(now, int) and not isinstance(now, bool) and text.lstrip("-").isdigit():
        return int(text)
    return value if isinstance(value, bool) and now is None else text


def _text(value: t.Any) -> str:
    if value is None:
        return "not set"
    return ("true" if value else "false") if isinstance(value, bool) else str(value)
