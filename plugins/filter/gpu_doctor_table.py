# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Filter `gpu_doctor_table`: the diagnoses of guests as a table."""

from __future__ import annotations

import typing as t

from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.doctor import Diagnosis, Finding, table

DOCUMENTATION = r"""
name: gpu_doctor_table
short_description: The diagnoses of guests as a table
version_added: "0.1.0"
author: The gpuops.vsphere contributors (@gpuops)
description:
  - One line a guest and one column a check, and below it what failed and how to mend it.
options:
  _input:
    description: Diagnoses of P(gpuops.vsphere.gpu_doctor#filter) by guest; an empty one is a guest that was not read.
    type: dict
    required: true
"""

EXAMPLES = r"""
- name: Show the table
  gpuops.vsphere.show_text:
    text: "{{ diagnoses | gpuops.vsphere.gpu_doctor_table }}"
"""

RETURN = r"""
_value:
  description: The table.
  type: str
"""


def gpu_doctor_table(diagnoses: t.Mapping[str, t.Mapping[str, t.Any]]) -> str:
    """The table; see DOCUMENTATION."""
    return table(
        {
            guest: Diagnosis(tuple(Finding(**finding) for finding in diagnosis["findings"])) if diagnosis else None
            for guest, diagnosis in diagnoses.items()
        }
    )


class FilterModule:
    """Tells Ansible the filters of this file."""

    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        """Name -> function."""
        return {"gpu_doctor_table": gpu_doctor_table}
