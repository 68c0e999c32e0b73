# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Filter `open_points`: what keeps objects from being as wanted, out of plans made in check mode."""

from __future__ import annotations

import typing as t

from ansible.errors import AnsibleFilterError

DOCUMENTATION = r"""
name: open_points
short_description: What keeps objects from being as wanted
version_added: "0.1.0"
author: The gpuops.vsphere contributors (@gpuops)
description:
  - Reads results of this collection's bulk modules that ran in check mode with C(object_errors=report), and says for
    each object what is still to do or what stands in the way. Nothing to say means that the object is as wanted.
positional: _names
options:
  _input:
    description: The registered results.
    type: list
    elements: dict
    required: true
  _names:
    description: Names of the objects.
    type: list
    elements: str
    required: true
"""

EXAMPLES = r"""
- name: Fail a host whose passthrough is not as wanted
  ansible.builtin.fail:
    msg: "{{ my_points | join('; ') }}"
  vars:
    my_points: "{{ [my_passthrough_plan] | gpuops.vsphere.open_points([inventory_hostname]) }}"
  when: my_points | length > 0
"""

RETURN = r"""
_value:
  description: One sentence for each point, beginning with the object's name, in the order of the results.
  type: list
  elements: str
"""


def open_points(results: t.Sequence[t.Mapping[str, t.Any]], names: t.Sequence[str]) -> list[str]:
    """What is not as wanted; see DOCUMENTATION."""
    if isinstance(results, t.Mapping):
        raise AnsibleFilterError("open_points needs a list of results")
    points: dict[str, None] = {}
    for result in results:
        if result.get("skipped"):
            continue
        if "objects" not in result:
            points[str(result.get("msg", "a plan could not be made"))] = None
            continue
        for name in names:
            entry = result["objects"].get(name)
            if entry is not None:
                points.update(dict.fromkeys(f"{name}: {point}" for point in _of(name, entry)))
    return list(points)


def _of(name: str, entry: t.Mapping[str, t.Any]) -> list[str]:
    if entry.get("failed"):
        return [str(entry.get("msg", "failed")).removeprefix(f"{name}: ")]
    if entry.get("reboot_in_progress"):
        return ["its reboot is still going on"]
    points = [f"still to do: {action}" for action in entry.get("actions", ())]
    if entry.get("reboot_required") and not points:
        points.append("still waits for a reboot")
    return points


class FilterModule:
    """Tells Ansible the filters of this file."""

    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        """Name -> function."""
        return {"open_points": open_points}
