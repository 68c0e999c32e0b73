# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Filter `gpu_report`: what a run found, did and left open, by host and by virtual machine."""

from __future__ import annotations

import collections
import typing as t

DOCUMENTATION = r"""
name: gpu_report
short_description: What a run found, did and left open
version_added: "0.1.0"
author: The gpuops.vsphere contributors (@gpuops)
description:
  - Joins the GPU facts of hosts with what the run has kept for each of them, as plain data for a summary or for JSON.
options:
  _input:
    description: The C(hosts) that M(gpuops.vsphere.esxi_gpu_info) returned.
    type: dict
    required: true
  run:
    description:
      - By host, what the run has kept in variables, such as C(gpuops_changes), C(__report_points),
        C(__esxi_rolling_error), C(__esxi_passthrough_set) and C(__gpu_vm_names). Every host of the report has an entry.
    type: dict
    required: true
  left_alone:
    description: Hosts that somebody else has put in maintenance mode.
    type: list
    elements: str
    default: []
  failed:
    description: Hosts that failed earlier in the run.
    type: list
    elements: str
    default: []
"""

EXAMPLES = r"""
- name: Show what holds which GPU
  ansible.builtin.debug:
    msg: "{{ (my_info.hosts | gpuops.vsphere.gpu_report({inventory_hostname: {}})).virtual_machines }}"
"""

RETURN = r"""
_value:
  description: C(hosts) and C(virtual_machines) by name.
  type: dict
"""


def gpu_report(
    hosts: t.Mapping[str, t.Mapping[str, t.Any]],
    run: t.Mapping[str, t.Mapping[str, t.Any]],
    left_alone: t.Collection[str] = (),
    failed: t.Collection[str] = (),
) -> dict[str, t.Any]:
    """The report; see DOCUMENTATION."""
    report: dict[str, t.Any] = {"hosts": {}, "virtual_machines": {}}
    wanted = {vm for kept in run.values() for vm in kept.get("__gpu_vm_names") or ()}
    for name, kept in run.items():
        facts = hosts.get(name)
        gpus = [_gpu(gpu) for gpu in (facts or {}).get("gpus", ())]
        error = kept.get("__esxi_rolling_error") or kept.get("__report_error") or _failure(name, kept)
        report["hosts"][name] = {
            "state": _state(facts),
            "cluster": (facts or {}).get("cluster"),
            "gpus": gpus,
            "changes": list(kept.get("gpuops_changes") or ()),
            "open_points": [*([error] if error else []), *(kept.get("__report_points") or ())],
            "left_alone": name in left_alone,
            "failed": name in failed,
        }
        vgpus = (facts or {}).get("vgpus") or {}
        for vm in sorted({*vgpus, *(vm for gpu in gpus for vm in gpu["virtual_machines"])}):
            known = vm in wanted or (None if "__gpu_vm_names" not in kept else False)
            report["virtual_machines"][vm] = {"host": name, "in_inventory": known, **_machine(vm, gpus, vgpus)}
    return report


def _machine(
    name: str, gpus: t.Sequence[t.Mapping[str, t.Any]], vgpus: t.Mapping[str, t.Sequence[str]]
) -> dict[str, t.Any]:
    """What one virtual machine has of a host's GPUs: whole ones by model, vGPUs by profile."""
    held = [gpu for gpu in gpus if name in gpu["virtual_machines"]]
    return {
        "powered_on": any(gpu["in_use"] for gpu in held),
        "models": dict(collections.Counter(gpu["model"] for gpu in held if not gpu["shared_direct"])),
        "vgpus": dict(collections.Counter(vgpus.get(name, ()))),
        "addresses": [gpu["address"] for gpu in held],
    }


def _failure(name: str, kept: t.Mapping[str, t.Any]) -> str | None:
    """Why the host failed when its passthrough was set, which a failed task can leave in no fact."""
    entry = ((kept.get("__esxi_passthrough_set") or {}).get("objects") or {}).get(name) or {}
    return str(entry.get("msg")) if entry.get("failed") else None


def _gpu(gpu: t.Mapping[str, t.Any]) -> dict[str, t.Any]:
    if gpu["passthrough_active"] and gpu["passthrough_enabled"]:
        passthrough = "active"
    elif gpu["passthrough_active"] or gpu["passthrough_enabled"]:
        passthrough = "waits for a reboot"
    else:
        passthrough = "off"
    users = list(gpu.get("used_by") or ())
    return {
        "address": gpu["address"],
        "id": gpu["id"],
        "model": gpu.get("model") or gpu["name"],
        "passthrough": passthrough,
        "shared_direct": passthrough == "off" and gpu.get("graphics_type") == "sharedDirect",
        "in_use": bool(users),
        "virtual_machines": sorted({*users, *(gpu.get("configured_in") or ())}),
    }


def _state(facts: t.Mapping[str, t.Any] | None) -> str:
    if facts is None:
        return "not read"
    if facts.get("connection") == "notResponding":
        return "does not respond"
    if facts.get("connection") != "connected":
        return "disconnected"
    return "in maintenance mode" if facts.get("in_maintenance") else "in service"


class FilterModule:
    """Tells Ansible the filters of this file."""

    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        """Name -> function."""
        return {"gpu_report": gpu_report}
