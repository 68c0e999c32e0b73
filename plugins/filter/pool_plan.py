# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Filter `pool_plan`: the GPU servers of an inventory as Slurm's configuration."""

from __future__ import annotations

import typing as t

from ansible_collections.gpuops.vsphere.plugins.module_utils.pool.nodes import plan_pool
from ansible_collections.gpuops.vsphere.plugins.module_utils.pool.servers import server_variables

DOCUMENTATION = r"""
name: pool_plan
short_description: The GPU servers of an inventory as Slurm's configuration
version_added: "0.1.0"
author: The gpuops.vsphere contributors (@gpuops)
description:
  - Reads the variables of the role gpu_pool_server of some hosts, and says what the controllers' files are to hold.
options:
  _input:
    description: C(hostvars).
    type: dict
    required: true
  hosts:
    description: Names of the servers' hosts.
    type: list
    elements: str
    required: true
  current:
    description: The C(nodes.conf) that is in force, empty if there is none.
    type: str
    required: true
  partition:
    description: Name of the partition.
    type: str
    required: true
  limits:
    description: Further words of the partition's line.
    type: str
    default: ""
"""

EXAMPLES = r"""
- name: Show the nodes
  ansible.builtin.debug:
    msg: "{{ (hostvars | gpuops.vsphere.pool_plan(groups.gpu_pool_servers, '', 'gpu')).nodes }}"
"""

RETURN = r"""
_value:
  description: C(nodes), C(gres), C(tres), C(names), C(memory_per_cpu), C(problems), C(added), C(altered), C(removed).
  type: dict
"""


def pool_plan(
    hostvars: t.Mapping[str, t.Any], hosts: t.Sequence[str], current: str, partition: str, limits: str = ""
) -> dict[str, t.Any]:
    """See DOCUMENTATION."""
    servers = [server_variables(host, hostvars[host]) for host in hosts]
    return plan_pool(servers, current, partition=partition, limits=limits)


class FilterModule:
    """Tells Ansible the filters of this file."""

    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        """Name -> function."""
        return {"pool_plan": pool_plan}
