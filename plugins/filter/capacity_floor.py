# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Filter `below_capacity_floor`: which hosts may not be taken out of service without too few free GPUs left."""

from __future__ import annotations

import typing as t

from ansible.errors import AnsibleFilterError

DOCUMENTATION = r"""
name: below_capacity_floor
short_description: Which hosts may not be taken out of service, and why
version_added: "0.1.0"
author: The gpuops.vsphere contributors (@gpuops)
description:
  - Takes the hosts of a batch out of service in their order, in thought, as long as enough GPUs of each kind stay free
    on hosts that are connected and not in maintenance mode.
  - A host that is out of service already takes nothing and is never refused.
positional: _batch, _floor
options:
  _input:
    description: The C(hosts) that M(gpuops.vsphere.esxi_gpu_info) returned.
    type: dict
    required: true
  _batch:
    description: Names of the hosts to be taken out of service.
    type: list
    elements: str
    required: true
  _floor:
    description:
      - By kind, how many GPUs must stay free. A kind is a key of the GPU catalogue or vendor and device id.
    type: dict
    required: true
"""

EXAMPLES = r"""
- name: Stop before too few T4 are free
  ansible.builtin.assert:
    that: my_info.hosts | gpuops.vsphere.below_capacity_floor(ansible_play_batch, floor) | length == 0
  vars:
    floor:
      T4: 4
"""

RETURN = r"""
_value:
  description: By name of a host that may not be taken out of service, a sentence that says why and what to do.
  type: dict
"""


def below_capacity_floor(
    hosts: t.Mapping[str, t.Mapping[str, t.Any]], batch: t.Sequence[str], floor: t.Mapping[str, t.Any]
) -> dict[str, str]:
    """Refused hosts with their reasons; see DOCUMENTATION."""
    wanted = {kind: _count(kind, number) for kind, number in floor.items()}
    left = {kind: sum(_free(host, kind) for host in hosts.values() if _serves(host)) for kind in wanted}
    refused: dict[str, str] = {}
    for name in batch:
        host = hosts.get(name)
        if host is None or not _serves(host):
            continue
        takes = {kind: _free(host, kind) for kind in wanted}
        short = [kind for kind in wanted if takes[kind] and left[kind] - takes[kind] < wanted[kind]]
        if not short:
            left = {kind: left[kind] - takes[kind] for kind in wanted}
            continue
        named = ", ".join(
            f"{left[kind] - takes[kind]} {kind} (at least {wanted[kind]} are to stay free)" for kind in short
        )
        refused[name] = (
            f"{name} was not begun: without it there would be free {named}. Free some elsewhere, lower"
            " esxi_rolling_max_unavailable, or lower esxi_rolling_capacity_floor; then run again."
        )
    return refused


def _count(kind: str, number: t.Any) -> int:
    try:
        return int(number)
    except (TypeError, ValueError):
        raise AnsibleFilterError(f"the capacity floor for {kind} is {number!r}, not a number of GPUs") from None


def _serves(host: t.Mapping[str, t.Any]) -> bool:
    return host.get("connection") == "connected" and not host.get("in_maintenance")


def _free(host: t.Mapping[str, t.Any], kind: str) -> int:
    return sum(bool(gpu["free"]) for gpu in host.get("gpus", ()) if kind in (gpu.get("model"), gpu["id"]))


class FilterModule:
    """Tells Ansible the filters of this file."""

    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        """Name -> function."""
        return {"below_capacity_floor": below_capacity_floor}
