# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Filter `benchmark_report`: the runs of the sharing benchmark as its result."""

from __future__ import annotations

import typing as t

from ansible.errors import AnsibleFilterError
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.benchmark.model import ShapeError
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.benchmark.report import build_report

DOCUMENTATION = r"""
name: benchmark_report
short_description: The runs of the sharing benchmark as its result
version_added: "0.1.0"
author: The gpuops.vsphere contributors (@gpuops)
description:
  - Throughput and run time alone and shared, their ratios beside the figures of the talk, two charts for the fleet
    page, the machine, and what limits what may be concluded.
options:
  _input:
    description: What the jobs have written, C({"runs":[...]}).
    type: dict
    required: true
  parameters:
    description: With what they were run; V(model) and V(batch_size) are needed.
    type: dict
    required: true
  generated:
    description: When, a UTC time in ISO 8601.
    type: str
    required: true
"""

EXAMPLES = r"""
- name: Say what was found
  ansible.builtin.debug:
    msg: "{{ (runs | gpuops.vsphere.benchmark_report(parameters, now(utc=true).isoformat())).lines }}"
"""

RETURN = r"""
_value:
  description: C(format), C(generated), C(parameters), C(machine), C(summary), C(notes), C(lines), C(charts), C(runs).
  type: dict
"""


def benchmark_report(runs: t.Any, parameters: t.Mapping[str, t.Any], generated: str) -> dict[str, t.Any]:
    """See DOCUMENTATION."""
    try:
        return build_report(runs, parameters, generated)
    except ShapeError as error:
        raise AnsibleFilterError(f"benchmark_report: {error}") from error


class FilterModule:
    """Tells Ansible the filters of this file."""

    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        """Name -> function."""
        return {"benchmark_report": benchmark_report}
