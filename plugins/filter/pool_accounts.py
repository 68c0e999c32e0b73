# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Filter `pool_accounts`: what sacctmgr must be told for the tenants of an inventory."""

from __future__ import annotations

import typing as t

from ansible_collections.gpuops.vsphere.plugins.module_utils.pool.accounts import plan_accounts

DOCUMENTATION = r"""
name: pool_accounts
short_description: What sacctmgr must be told so that tenants and quotas are as wanted
version_added: "0.1.0"
author: The gpuops.vsphere contributors (@gpuops)
description:
  - Compares the associations that Slurm's accounting has with the tenants of the role gpu_pool_controller.
options:
  _input:
    description: Reply of C(sacctmgr show associations --json).
    type: dict
    required: true
  tenants:
    description: As C(gpu_pool_controller_tenants).
    type: list
    elements: dict
    required: true
  cluster:
    description: Name of the Slurm cluster.
    type: str
    required: true
  purge:
    description: Whether people and accounts that the tenants do not name are removed.
    type: bool
    default: false
"""

EXAMPLES = r"""
- name: Show what would be done
  ansible.builtin.debug:
    msg: "{{ (output.stdout | from_json | gpuops.vsphere.pool_accounts(tenants, 'gpu-pool')).commands }}"
"""

RETURN = r"""
_value:
  description: C(commands), lists of arguments in the order in which they must run, and C(problems), texts.
  type: dict
"""


def pool_accounts(
    associations: t.Mapping[str, t.Any],
    tenants: t.Sequence[t.Mapping[str, t.Any]],
    cluster: str,
    *,
    purge: bool = False,
) -> dict[str, t.Any]:
    """See DOCUMENTATION."""
    return plan_accounts(associations, tenants, cluster=cluster, purge=purge)


class FilterModule:
    """Tells Ansible the filters of this file."""

    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        """Name -> function."""
        return {"pool_accounts": pool_accounts}
