# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""ECC and MIG modes of a host's GPUs: what nvidia-smi says, compared with what is wanted."""

from __future__ import annotations

import typing as t

from ansible.errors import AnsibleFilterError
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.gpu_modes import ModeError, compare

DOCUMENTATION = r"""
name: gpu_modes
short_description: Compare the ECC and MIG modes of GPUs with the wanted ones
version_added: "0.1.0"
author: The gpuops.vsphere contributors (@gpuops)
description:
  - Reads what C(nvidia-smi --query-gpu=pci.bus_id,ecc.mode.current,ecc.mode.pending,mig.mode.current,mig.mode.pending
    --format=csv,noheader) prints, and says which calls bring the GPUs to the wanted modes.
positional: _input, ecc, mig
options:
  _input:
    description: The output of nvidia-smi.
    type: str
    required: true
  ecc:
    description: Wanted ECC mode by PCI address, or of V(all) GPUs that are not named.
    type: dict
    required: true
  mig:
    description: Wanted MIG mode by PCI address, or of V(all) GPUs that are not named.
    type: dict
    required: true
"""

EXAMPLES = r"""
- name: Show what would be changed
  ansible.builtin.debug:
    msg: "{{ output.stdout | gpuops.vsphere.gpu_modes({'all': true}, {'0000:3b:00.0': true}) }}"
"""

RETURN = r"""
_value:
  description:
    - C(changes), each with C(arguments) for nvidia-smi and a C(text); C(problems), texts about what cannot be;
      C(waits), texts about modes that are not in force; and C(reboot_required), whether a mode waits for a reboot now
      or after the changes.
  type: dict
"""


def gpu_modes(output: str, ecc: t.Mapping[str, t.Any], mig: t.Mapping[str, t.Any]) -> dict[str, t.Any]:
    """The calls, problems and whether a reboot is due."""
    try:
        return compare(output, ecc, mig)
    except ModeError as error:
        raise AnsibleFilterError(str(error)) from error


class FilterModule:
    """The filters of this file."""

    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        """By name."""
        return {"gpu_modes": gpu_modes}
