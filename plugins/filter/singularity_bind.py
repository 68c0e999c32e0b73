# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Filter `singularity_bind`: the option that shows a path of the guest in a container."""

from __future__ import annotations

import typing as t

from ansible.errors import AnsibleFilterError

DOCUMENTATION = r"""
name: singularity_bind
short_description: The option that shows a path of the guest in a container
version_added: "0.1.0"
author: The gpuops.vsphere contributors (@gpuops)
description:
  - Makes C(--bind=source:target:rw) out of a mapping.
options:
  _input:
    description:
      - A mapping with C(source), an absolute path, and optionally C(target) (else the same path) and C(read_only).
    type: dict
    required: true
"""

EXAMPLES = r"""
- name: Show the options
  ansible.builtin.debug:
    msg: "{{ [{'source': '/scratch', 'read_only': true}] | map('gpuops.vsphere.singularity_bind') }}"
"""

RETURN = r"""
_value:
  description: The option.
  type: str
  sample: --bind=/scratch:/scratch:ro
"""


def singularity_bind(bind: t.Mapping[str, t.Any]) -> str:
    """The option; see DOCUMENTATION."""
    source = str(bind.get("source") or "")
    target = str(bind.get("target") or source)
    for path in (source, target):
        if not path.startswith("/") or ":" in path or "," in path:
            raise AnsibleFilterError(f"the bind path {path!r} must be absolute and without : and ,")
    return f"--bind={source}:{target}:{'ro' if bind.get('read_only') else 'rw'}"


class FilterModule:
    """Tells Ansible the filters of this file."""

    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        """Name -> function."""
        return {"singularity_bind": singularity_bind}
