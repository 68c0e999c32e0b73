#!/usr/bin/python
# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: site_check
short_description: Ask the site's own command whether desktops are idle
version_added: "0.1.0"
author:
  - The gpuops.vsphere contributors (@gpuops)
description:
  - Runs a command once for each desktop, many at once, each bounded in time. It exits with 0 for a desktop that is
    idle, and with 1 for one that is in use. Whatever else happens counts as failed, and a desktop of which the check
    fails is left alone by M(gpuops.vsphere.harvest_plan).
  - The command must change nothing; it is run in check mode, too.
options:
  argv:
    description:
      - The command and its arguments, without a shell. C({name}) stands for the desktop's name; where it is nowhere,
        the name is the last argument.
    type: list
    elements: str
    required: true
  names:
    description:
      - The desktops.
    type: list
    elements: str
    required: true
  timeout:
    description:
      - A command that is not over after so many seconds is killed with all that it has started, and has failed.
    type: float
    default: 20
  at_once:
    description:
      - How many commands run at once.
    type: int
    default: 16
attributes:
  check_mode:
    description: Can run in check_mode and report what would change without changing it.
    support: full
  diff_mode:
    description: Returns what has changed (or would change in check mode) when in diff mode.
    support: none
seealso:
  - module: gpuops.vsphere.harvest_plan
"""

EXAMPLES = r"""
- name: Ask whether anybody is logged in
  gpuops.vsphere.site_check:
    argv: [/usr/local/bin/desktop-is-idle, --host, "{name}"]
    names: [desk-01, desk-02]
    timeout: 10
  delegate_to: localhost
  register: asked
"""

RETURN = r"""
checks:
  description: V(idle), V(busy) or V(failed) by desktop.
  returned: always
  type: dict
  sample: {desk-01: idle, desk-02: failed}
texts:
  description: The first line that the command printed, or why it failed, by desktop.
  returned: always
  type: dict
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.harvest.check import run_checks


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "argv": {"type": "list", "elements": "str", "required": True},
            "names": {"type": "list", "elements": "str", "required": True},
            "timeout": {"type": "float", "default": 20},
            "at_once": {"type": "int", "default": 16},
        },
        supports_check_mode=True,
    )
    params = module.params
    for key, wrong in (
        ("argv", not params["argv"]),
        ("timeout", params["timeout"] <= 0),
        ("at_once", params["at_once"] < 1),
    ):
        if wrong:
            module.fail_json(msg=f"{key}: must not be empty or zero.")
    answers = run_checks(params["argv"], params["names"], timeout=params["timeout"], at_once=params["at_once"])
    for name, answer in answers.items():
        if answer.check == "failed":
            module.warn(f"{name}: the site's check {answer.text}. The desktop is left alone.")
    module.exit_json(
        changed=False,
        checks={name: answer.check for name, answer in answers.items()},
        texts={name: answer.text for name, answer in answers.items()},
    )


if __name__ == "__main__":
    main()
