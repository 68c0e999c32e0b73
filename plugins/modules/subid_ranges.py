#!/usr/bin/python
# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: subid_ranges
short_description: Give users ranges of subordinate ids
version_added: "0.1.0"
author:
  - The gpuops.vsphere contributors (@gpuops)
description:
  - Users who build or run containers without privileges need a range in C(/etc/subuid) and one in C(/etc/subgid).
  - A range of at least 65536 ids that a user has stays as it is; else the lowest free one is added.
  - Ranges never overlap.
options:
  users:
    description: Names of the users. A user that does not exist yet is an error outside of check mode.
    type: list
    elements: str
    required: true
  state:
    description: Whether they have ranges.
    type: str
    choices: [present, absent]
    default: present
  count:
    description: Size of a new range.
    type: int
    default: 65536
  directory:
    description: Directory of the files C(subuid) and C(subgid).
    type: path
    default: /etc
extends_documentation_fragment:
  - gpuops.vsphere.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
  platform:
    platforms: linux
  action_group:
    support: none
    membership: []
"""

EXAMPLES = r"""
- name: Let the researchers build images
  gpuops.vsphere.subid_ranges:
    users: [alice, bob]
"""

RETURN = r"""
failure:
  description: Code and object of the failure.
  returned: on failure
  type: dict
"""

import pathlib
import pwd
import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.gpuops.vsphere.plugins.module_utils.container import subids
from ansible_collections.gpuops.vsphere.plugins.module_utils.container.errors import ContainerError, finish
from ansible_collections.gpuops.vsphere.plugins.module_utils.container.places import write_atomically


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "users": {"type": "list", "elements": "str", "required": True},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "count": {"type": "int", "default": subids.MINIMUM},
            "directory": {"type": "path", "default": "/etc"},
        },
        supports_check_mode=True,
    )
    finish(module, ", ".join(module.params["users"]), _run)


def _run(module: AnsibleModule) -> dict[str, t.Any]:
    params = module.params
    present = params["state"] == "present"
    if present and params["count"] < subids.MINIMUM:
        raise ContainerError(
            "bad_count", f"count is {params['count']}; a container needs {subids.MINIMUM} ids or more."
        )
    users = [(user, _number(user, required=present and not module.check_mode)) for user in params["users"]]
    diffs = []
    for name in ("subuid", "subgid"):
        path = pathlib.Path(params["directory"]) / name
        before = path.read_text(encoding="utf-8") if path.exists() else ""
        after = subids.with_ranges(before, str(path), users, params["count"], present=present)
        if after != before:
            diffs.append({"before_header": str(path), "after_header": str(path), "before": before, "after": after})
            if not module.check_mode:
                write_atomically(path, after)
    return {"changed": bool(diffs), "diff": diffs}


def _number(user: str, *, required: bool) -> str:
    try:
        return str(pwd.getpwnam(user).pw_uid)
    except KeyError as error:
        if required:
            raise ContainerError("no_user", f"There is no user {user!r} here; create the account first.") from error
        return ""


if __name__ == "__main__":
    main()
