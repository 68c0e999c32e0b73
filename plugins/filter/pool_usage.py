# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Filter `pool_usage`: who used how much of the GPU pool."""

from __future__ import annotations

import typing as t

from ansible.errors import AnsibleFilterError
from ansible_collections.gpuops.vsphere.plugins.module_utils.pool.usage import read_runs, summarise, table

DOCUMENTATION = r"""
name: pool_usage
short_description: Who used how much of the GPU pool
version_added: "0.1.0"
author: The gpuops.vsphere contributors (@gpuops)
description:
  - Adds up Slurm's accounting by tenant and by user, in hours of a whole GPU.
options:
  _input:
    description:
      - What C(sacct --allusers --allocations --duplicates --noheader --parsable2
        --format=JobIDRaw,Account,User,State,Submit,Start,End,AllocTRES) printed, with C(SLURM_TIME_FORMAT=%s).
    type: str
    required: true
  start:
    description: From when, in seconds since 1970.
    type: int
    required: true
  end:
    description: Until when.
    type: int
    required: true
  title:
    description: First line of the table.
    type: str
    default: ""
"""

EXAMPLES = r"""
- name: Show who used the pool
  gpuops.vsphere.show_text:
    text: "{{ (output.stdout | gpuops.vsphere.pool_usage(1793491200, 1796083200)).table }}"
"""

RETURN = r"""
_value:
  description: C(tenants), a list of dictionaries with C(users), and C(table), the same for people.
  type: dict
"""


def pool_usage(text: str, start: int, end: int, title: str = "") -> dict[str, t.Any]:
    """See DOCUMENTATION."""
    try:
        tenants = summarise(read_runs(text), int(start), int(end))
    except ValueError as error:
        raise AnsibleFilterError(str(error)) from error
    return {"tenants": tenants, "table": table(tenants, title)}


class FilterModule:
    """Tells Ansible the filters of this file."""

    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        """Name -> function."""
        return {"pool_usage": pool_usage}
