#!/usr/bin/python
# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: harvest_record
short_description: Remember what a run of harvesting saw and did, and write its report
version_added: "0.1.0"
author:
  - The gpuops.vsphere contributors (@gpuops)
description:
  - Adds a run to the history that M(gpuops.vsphere.harvest_plan) reads, CPU samples and times to resume among it, and
    writes the report on all nights that it knows.
  - Files are written whole or not at all. Which desktops are lent is not remembered here but in the vCenter.
options:
  history_file:
    description:
      - The history. One that is not there yet is made.
    type: path
    required: true
  report_file:
    description:
      - Where to write the report, as JSON (docs/harvest_report.md). Left out, none is written.
    type: path
  seen:
    description:
      - The return value RV(gpuops.vsphere.harvest_plan#module:record).
    type: dict
    required: true
  lent:
    description:
      - Desktops that were lent when the run began, and those that it has lent.
    type: list
    elements: str
    default: []
  resumed:
    description:
      - Desktops that it has resumed, and how many seconds each took.
    type: dict
    default: {}
  stranded:
    description:
      - Desktops that cannot return in time, and why.
    type: dict
    default: {}
  requeued:
    description:
      - How many jobs it has put back into their queue.
    type: int
    default: 0
  ended:
    description:
      - When all that was done was over, in ISO 8601 with its offset. The default is now.
    type: str
  interval:
    description:
      - Seconds between two runs of the timer. What was seen counts in the report for three of them at most.
    type: int
    default: 600
extends_documentation_fragment:
  - gpuops.vsphere.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
seealso:
  - module: gpuops.vsphere.harvest_plan
"""

EXAMPLES = r"""
- name: Remember what the run did
  gpuops.vsphere.harvest_record:
    history_file: /var/lib/gpu-harvest/history.json
    report_file: /var/lib/gpu-harvest/harvest.json
    seen: "{{ night.record }}"
    lent: "{{ night.lent + night.suspend }}"
    resumed: {desk-01: 48.5}
"""

RETURN = r"""
total:
  description: The report's sums over all nights.
  returned: always
  type: dict
"""

import dataclasses
import datetime

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.harvest import history as past
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.harvest.files import (
    json_text,
    read_history,
    write_file,
)
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.harvest.report import report, to_dict


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "history_file": {"type": "path", "required": True},
            "report_file": {"type": "path"},
            "seen": {"type": "dict", "required": True},
            "lent": {"type": "list", "elements": "str", "default": []},
            "resumed": {"type": "dict", "default": {}},
            "stranded": {"type": "dict", "default": {}},
            "requeued": {"type": "int", "default": 0},
            "ended": {"type": "str"},
            "interval": {"type": "int", "default": 600},
        },
        supports_check_mode=True,
    )
    params = module.params
    now = datetime.datetime.now(datetime.UTC)
    try:
        run = past.observed(params, now)
        history = past.noted(read_history(params["history_file"]), run)
    except past.HistoryError as error:
        module.fail_json(msg=f"history_file: {error}")
    except (KeyError, TypeError, ValueError) as error:
        module.fail_json(msg=f"seen, resumed or ended: not what harvest_plan and vm_power return ({error}).")
    whole = report(past.figures(history), run.ended, longest_s=3 * params["interval"])
    if not module.check_mode:
        try:
            write_file(params["history_file"], past.to_text(history), 0o600)
            if params["report_file"]:
                write_file(params["report_file"], json_text(to_dict(whole)), 0o644)
        except OSError as error:
            module.fail_json(msg=f"{error.filename or params['history_file']} cannot be written: {error.strerror}.")
    module.exit_json(changed=True, total=dataclasses.asdict(whole.total))


if __name__ == "__main__":
    main()
