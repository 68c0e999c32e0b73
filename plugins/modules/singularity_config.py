#!/usr/bin/python
# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: singularity_config
short_description: Set directives of apptainer.conf or singularity.conf
version_added: "0.1.0"
author:
  - The gpuops.vsphere contributors (@gpuops)
description:
  - Sets directives and leaves the rest of the file, comments included, as the package brought it.
options:
  path:
    description: The file.
    type: path
    required: true
  settings:
    description:
      - Directives by their name, such as C(bind path). A boolean is written as yes or no. A list gives the directive
        once for each element, instead of all that the file has of it.
    type: dict
    required: true
extends_documentation_fragment:
  - gpuops.vsphere.attributes
attributes:
  check_mode:
    support: full
    details: A file that does not exist yet counts as empty in check mode; else it is an error.
  diff_mode:
    support: full
  platform:
    platforms: linux
  action_group:
    support: none
    membership: []
"""

EXAMPLES = r"""
- name: Show every container the scratch file system, and the GPU
  gpuops.vsphere.singularity_config:
    path: /etc/apptainer/apptainer.conf
    settings:
      bind path: [/etc/localtime, /etc/hosts, /scratch]
      always use nv: true
"""

RETURN = r"""
failure:
  description: Code and object of the failure.
  returned: on failure
  type: dict
"""

import pathlib
import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.gpuops.vsphere.plugins.module_utils.container import config
from ansible_collections.gpuops.vsphere.plugins.module_utils.container.errors import ContainerError, finish
from ansible_collections.gpuops.vsphere.plugins.module_utils.container.places import write_atomically


def main() -> None:
    module = AnsibleModule(
        argument_spec={"path": {"type": "path", "required": True}, "settings": {"type": "dict", "required": True}},
        supports_check_mode=True,
    )
    finish(module, module.params["path"], _run)


def _run(module: AnsibleModule) -> dict[str, t.Any]:
    path = pathlib.Path(module.params["path"])
    if not path.exists() and not module.check_mode:
        raise ContainerError("no_file", f"{path} is missing; the package of the runtime brings it: install that again.")
    before = path.read_text(encoding="utf-8") if path.exists() else ""
    after = config.with_settings(before, module.params["settings"])
    if after == before:
        return {"changed": False}
    if not module.check_mode:
        write_atomically(path, after)
    diff = {"before_header": str(path), "after_header": str(path), "before": before, "after": after}
    return {"changed": True, "diff": diff}


if __name__ == "__main__":
    main()
