# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Gather everything that is wrong with an inventory (see the module of the same name)."""

from __future__ import annotations

import dataclasses
import typing as t

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible_collections.gpuops.vsphere.plugins.module_utils.variables.problems import (
    InventoryProblem,
    failure_problem,
    merge,
    plan_problems,
    render,
)


class ActionModule(ActionBase):  # type: ignore[misc]  # ansible-core ships no type information
    """Runs in the controller's process: nothing is copied to a host and no connection is opened."""

    TRANSFERS_FILES = False
    _requires_connection = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
        """Return the merged problems and the text that shows them; never fails for them."""
        result: dict[str, t.Any] = super().run(tmp, task_vars)
        _dummy, args = self.validate_argument_spec(
            argument_spec={
                "variables": {"type": "dict", "default": {}},
                "inventory": {
                    "type": "list",
                    "elements": "dict",
                    "default": [],
                    "options": {
                        "variable": {"type": "str", "required": True},
                        "msg": {"type": "str", "required": True},
                    },
                },
                "plans": {
                    "type": "list",
                    "elements": "dict",
                    "default": [],
                    "options": {
                        "result": {"type": "dict", "required": True},
                        "variables": {"type": "dict", "default": {}},
                        "hosts": {"type": "dict", "default": {}},
                    },
                },
                "connection": {"type": "dict", "default": {}},
            }
        )
        problems = [InventoryProblem(entry["variable"], entry["msg"]) for entry in args["inventory"]]
        for host, checked in args["variables"].items():
            problems += [
                InventoryProblem(problem["variable"], problem["msg"], (host,))
                for problem in (checked or {}).get("problems", ())
            ]
        for plan in args["plans"]:
            outcome = plan["result"]
            if outcome.get("skipped"):
                continue
            if crashed := crash(outcome):
                raise AnsibleActionFail(crashed)
            if "objects" in outcome:
                problems += plan_problems(outcome["objects"], plan["variables"], plan["hosts"])
            else:
                problems.append(failure_problem(outcome, plan["variables"], args["connection"]))
        merged = merge(problems)
        result["changed"] = False
        result["problems"] = [dataclasses.asdict(problem) for problem in merged]
        result["text"] = render(merged)
        return result


def crash(outcome: t.Mapping[str, t.Any]) -> str | None:
    """What to say of a module that died, which is no problem of the inventory; None for one that answered."""
    if "objects" in outcome or "failure" in outcome or ("msg" in outcome and "exception" not in outcome):
        return None
    said = [
        str(outcome[key]).strip() for key in ("msg", "exception", "module_stderr", "module_stdout") if outcome.get(key)
    ]
    return "A module stopped with a defect of its own; nothing has been touched. " + (
        "It said: " + "\n".join(said) if said else "It said nothing; run it again with -vvv."
    )
