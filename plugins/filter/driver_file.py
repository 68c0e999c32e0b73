# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Filter `driver_file`: what the name of a driver's installer file says."""

from __future__ import annotations

import dataclasses
import typing as t

from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.guest_driver import installer_of

DOCUMENTATION = r"""
name: driver_file
short_description: What the name of a driver's installer file says
version_added: "0.1.0"
author: The gpuops.vsphere contributors (@gpuops)
description:
  - Reads format, driver version and package name out of a path or URL of NVIDIA's guest driver.
options:
  _input:
    description: Path or URL.
    type: str
    required: true
"""

EXAMPLES = r"""
- name: Show the version
  ansible.builtin.debug:
    msg: "{{ ('/srv/NVIDIA-Linux-x86_64-550.90.07-grid.run' | gpuops.vsphere.driver_file).version }}"
"""

RETURN = r"""
_value:
  description: C(format) (run, deb or rpm), C(version) and C(package), each empty if the name does not say it.
  type: dict
"""


def driver_file(path: str) -> dict[str, str]:
    """Format, version and package; see DOCUMENTATION."""
    return dataclasses.asdict(installer_of(str(path)))


class FilterModule:
    """Tells Ansible the filters of this file."""

    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        """Name -> function."""
        return {"driver_file": driver_file}
