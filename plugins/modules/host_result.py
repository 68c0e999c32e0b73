#!/usr/bin/python
# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: host_result
short_description: Report one host's share of a bulk task's result
version_added: "0.1.0"
author:
  - The gpuops.vsphere contributors (@gpuops)
description:
  - The modules of this collection serve a whole fleet in one task that runs once. This task follows them and gives each
    host of the play what concerns it, so that changed, failed, C(--diff), warnings and the recap are right per host,
    and one failed host leaves the play while the others go on.
  - The bulk task itself should say O(ignore:changed_when=false) and O(ignore:object_errors=report), so that nothing is
    counted twice.
options:
  result:
    description: The registered result of the bulk task; that of a looped bulk task is taken as a whole.
    type: dict
    required: true
  names:
    description:
      - Names of the objects that belong to this host, such as its virtual machines. The default is the host itself.
      - With an empty list the task is skipped.
    type: list
    elements: str
  missing:
    description: What to do when the result has no entry for one of O(names).
    type: str
    choices: [fail, skip]
    default: fail
attributes:
  check_mode:
    description: Can run in check_mode and report what would change without changing it.
    support: full
  diff_mode:
    description: Returns what has changed (or would change in check mode) when in diff mode.
    support: full
  action:
    description: Runs on the controller, in the process of Ansible itself.
    support: full
"""

EXAMPLES = r"""
- name: Put the GPUs of all hosts of this batch in passthrough
  gpuops.vsphere.esxi_passthrough:
    hosts: "{{ ansible_play_batch | map('extract', hostvars) | map(attribute='my_passthrough') | list }}"
    object_errors: report
  run_once: true
  changed_when: false
  register: my_passthrough_result

- name: Put the GPUs of this host in passthrough
  gpuops.vsphere.host_result:
    result: "{{ my_passthrough_result }}"

- name: Report the virtual machines of this host
  gpuops.vsphere.host_result:
    result: "{{ my_vm_result }}"
    names: "{{ my_vm_names }}"
    missing: skip
"""

RETURN = r"""
actions:
  description:
    - What was done (in check mode, would be done) to the objects of this host.
    - After a failure, only what was really done.
  returned: when the result has an entry for this host
  type: list
  elements: str
  sample: ["esx-gpu-01.lab: enable passthrough 0000:3b:00.0"]
objects:
  description:
    - The entries of this host's objects by name, with the notes of the module, such as C(reboot_required).
  returned: when the result has an entry for this host and nothing failed
  type: dict
  sample: {"esx-gpu-01.lab": {"changed": true, "reboot_required": true}}
predicted:
  description: The predicted facts of this host's objects, as the bulk task returned them.
  returned: when the result has an entry for this host and nothing failed
  type: dict
  sample: {"hosts": {}, "vms": {}}
failure:
  description: Machine-readable reason of the first failure.
  returned: when an object of this host failed
  type: dict
  sample: {"code": "gpu_shortage", "object": "gpu-vm-01", "fault": null}
ansible_facts:
  description: The changes of all tasks of this kind in this run.
  returned: when the result has an entry for this host and nothing failed
  type: dict
  contains:
    gpuops_changes:
      description: One line for each action on an object that was changed. It grows over the run.
      type: list
      elements: str
      sample: ["esx-gpu-01.lab: enable passthrough 0000:3b:00.0"]
"""
