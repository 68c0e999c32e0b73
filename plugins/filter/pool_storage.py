# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Filter `pool_storage`: what one machine exports and mounts of the pool's shared directories."""

from __future__ import annotations

import typing as t

from ansible_collections.gpuops.vsphere.plugins.module_utils.pool.storage import plan_storage

DOCUMENTATION = r"""
name: pool_storage
short_description: What one machine exports and mounts of the pool's shared directories
version_added: "0.1.0"
author: The gpuops.vsphere contributors (@gpuops)
description:
  - Plans the exports of the file server and the mounts of a machine, for the role gpu_pool_storage.
options:
  _input:
    description: As C(gpu_pool_storage_directories).
    type: list
    elements: dict
    required: true
  hostvars:
    description: C(hostvars), for the addresses.
    type: dict
    required: true
  host:
    description: Name of the machine.
    type: str
    required: true
  kind:
    description: V(nfs), V(bind) or V(none).
    type: str
    required: true
  server:
    description: The file server, a host of the inventory or an address.
    type: str
    required: true
  hosts:
    description: Who mounts a directory that names no hosts.
    type: list
    elements: str
    required: true
"""

EXAMPLES = r"""
- name: Show what this machine mounts
  ansible.builtin.debug:
    msg: "{{ (wanted | gpuops.vsphere.pool_storage(hostvars, inventory_hostname, 'nfs', 'files', ['gpu-01'])).mounts }}"
"""

RETURN = r"""
_value:
  description: C(exports), C(sources), C(mounts), C(paths), C(problems).
  type: dict
"""


def pool_storage(
    directories: t.Sequence[t.Mapping[str, t.Any]],
    hostvars: t.Mapping[str, t.Any],
    host: str,
    kind: str,
    server: str,
    hosts: t.Sequence[str],
) -> dict[str, t.Any]:
    """See DOCUMENTATION."""
    named = {server, *hosts, *(each for entry in directories for each in entry.get("hosts") or ())}
    return plan_storage(
        directories,
        host=host,
        kind=kind,
        server=server,
        exported=server in hostvars,
        hosts=hosts,
        addresses={name: str(hostvars[name].get("ansible_host") or name) for name in named if name in hostvars},
    )


class FilterModule:
    """Tells Ansible the filters of this file."""

    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        """Name -> function."""
        return {"pool_storage": pool_storage}
