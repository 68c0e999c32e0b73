# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The options that modules with a placement share, and its answer as they return it."""

from __future__ import annotations

import dataclasses
import typing as t

from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.placement.model import (
    GOALS,
    Grant,
    Placement,
    Refusal,
    Result,
)
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.placement.site import Rules
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.plan import ObjectPlan, Problem

Spec = dict[str, dict[str, t.Any]]


def placement_spec() -> Spec:
    """The options of the documentation fragment `placement`: who wants a place, and how places are chosen."""
    return {
        "vms": {"type": "list", "elements": "dict", "default": [], "options": _vm_spec()},
        "goal": {"type": "str", "choices": list(GOALS), "default": "spread"},
        "spare": {"type": "str", "choices": ["none", "host"], "default": "none"},
        "max_moves": {"type": "int", "default": 0},
        "anti_affinity": {"type": "dict", "default": {}},
        "cpu_overcommit": {"type": "float", "default": 4.0},
        "host_memory_reserve_mb": {"type": "int", "default": 8192},
        "solver": {"type": "str", "choices": ["auto", "heuristic", "search", "cp_sat"], "default": "auto"},
    }


def _vm_spec() -> Spec:
    """Machines that are asked for."""
    return {
        "name": {"type": "str", "required": True},
        "gpus": {
            "type": "list",
            "elements": "dict",
            "default": [],
            "options": {
                "mode": {"type": "str", "choices": ["fixed", "dynamic", "vgpu"], "required": True},
                "id": {"type": "str"},
                "address": {"type": "str"},
                "label": {"type": "str"},
                "profile": {"type": "str"},
                "at_least_gb": {"type": "float"},
                "at_most_gpu": {"type": "float"},
                "migrate": {"type": "bool", "default": False},
                "suspend": {"type": "bool", "default": False},
                "profile_class": {"type": "str", "choices": ["compute", "workstation"]},
                "count": {"type": "str", "default": "1"},
            },
        },
        "memory_mb": {"type": "int"},
        "num_cpus": {"type": "int"},
        "host": {"type": "str"},
        "cluster": {"type": "str"},
    }


def mistakes(params: t.Mapping[str, t.Any]) -> str | None:
    """What is wrong with the options beyond their types."""
    if params["max_moves"] < 0:
        return "max_moves: must not be negative."
    if params["cpu_overcommit"] <= 0:
        return "cpu_overcommit: must be above 0, for example 4 virtual CPUs for each logical CPU."
    if params["host_memory_reserve_mb"] < 0:
        return "host_memory_reserve_mb: must not be negative."
    for group, patterns in params["anti_affinity"].items():
        if not isinstance(patterns, list) or not all(isinstance(pattern, str) for pattern in patterns):
            return f"anti_affinity: {group} must be a list of names or shell patterns of virtual machines."
    return None


def rules(params: t.Mapping[str, t.Any]) -> Rules:
    """The site's rules."""
    return Rules(params["host_memory_reserve_mb"], params["cpu_overcommit"], params["anti_affinity"])


def gpu_text(grants: t.Sequence[Grant]) -> str:
    """The GPUs that a machine is predicted to get, for people."""
    parts = [
        grant.address if grant.slot is None else f"{grant.profile or f'{grant.slot.size} GB'} of {grant.address}"
        for grant in grants
    ]
    return ", ".join(parts) or "no GPU"


def step_dict(step: Placement) -> dict[str, t.Any]:
    """A placement or move as plain data."""
    return {
        "vm": step.vm,
        "host": step.host,
        "origin": step.origin,
        "gpus": [
            {
                "address": grant.address,
                "slot": dataclasses.asdict(grant.slot) if grant.slot else None,
                "profile": grant.profile,
            }
            for grant in step.grants
        ],
    }


def plan_of(step: Placement) -> ObjectPlan:
    """The place of one machine; nothing is changed by it."""
    text = f"{step.vm} goes {f'from {step.origin} ' if step.origin else ''}to {step.host}, {gpu_text(step.grants)}"
    return ObjectPlan(step.vm, notes={**step_dict(step), "existing": False, "text": text})


def refusal_plan(refusal: Refusal) -> ObjectPlan:
    """Why the machine has no place."""
    problem = Problem(refusal.code, refusal.vm, f"{refusal.reason} {refusal.advice}", "vms", kind="state")
    return ObjectPlan(refusal.vm, problems=(problem,), notes={"host": None, "advice": refusal.advice})


def result_dict(result: Result) -> dict[str, t.Any]:
    """The whole answer as plain data."""
    return {
        "moves": [step_dict(step) for step in result.moves],
        "placements": [step_dict(step) for step in result.placements],
        "refused": [dataclasses.asdict(refusal) for refusal in result.refused],
        "cost": dataclasses.asdict(result.cost),
        "bound": dataclasses.asdict(result.bound),
        "optimal": result.optimal,
        "engine": result.engine,
    }
