# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Filter `benchmark_page`: the result of the sharing benchmark as an HTML file."""

from __future__ import annotations

import pathlib
import typing as t

from ansible.errors import AnsibleFilterError
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.benchmark.page import ASSETS, render

ROLES = pathlib.Path(__file__).resolve().parents[2] / "roles"
PLACES = (ROLES / "gpu_benchmark" / "files" / "page", ROLES / "report" / "files" / "fleet_page")

DOCUMENTATION = r"""
name: benchmark_page
short_description: The result of the sharing benchmark as an HTML file
version_added: "0.1.0"
author: The gpuops.vsphere contributors (@gpuops)
description:
  - One file that makes no request, with two charts in which the figures of the talk are lines.
options:
  _input:
    description: What the filter P(gpuops.vsphere.benchmark_report#filter) has returned.
    type: dict
    required: true
"""

EXAMPLES = r"""
- name: Write the page
  ansible.builtin.copy:
    content: "{{ report | gpuops.vsphere.benchmark_page }}"
    dest: /srv/www/benchmark.html
    mode: "0644"
"""

RETURN = r"""
_value:
  description: The file's text.
  type: str
"""


def benchmark_page(report: t.Mapping[str, t.Any]) -> str:
    """See DOCUMENTATION."""
    # Bytes as they are: the page's policy names the hashes of what it holds.
    found = {
        name: (place / name).read_bytes().decode() for place in PLACES for name in ASSETS if (place / name).is_file()
    }
    try:
        return render(report, found)
    except ValueError as error:
        raise AnsibleFilterError(f"benchmark_page: {error}") from error


class FilterModule:
    """Tells Ansible the filters of this file."""

    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        """Name -> function."""
        return {"benchmark_page": benchmark_page}
