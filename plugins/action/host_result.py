# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Action plugin `host_result`: one host's share of a bulk module's result. Documented by the module of that name."""

from __future__ import annotations

import typing as t

from ansible.errors import AnsibleActionFail
from ansible.plugins import action as action_plugins
from ansible.plugins.action import ActionBase

_FACT = "gpuops_changes"
_SPEC: dict[str, t.Any] = {
    "result": {"type": "dict", "required": True},
    "names": {"type": "list", "elements": "str"},
    "missing": {"type": "str", "choices": ["fail", "skip"], "default": "fail"},
}
# Shown once, by Ansible itself, and not again within `objects`.
_SHOWN_ELSEWHERE = frozenset({"diff", "warnings"})


class ActionModule(ActionBase):  # type: ignore[misc]  # ansible-core ships no types
    """Unrolls changed, failed, diff, warnings and facts of this host out of `objects`."""

    TRANSFERS_FILES = False
    _requires_connection = False

    def run(self, tmp: str | None = None, task_vars: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
        """Return this host's part of the result as this task's own."""
        variables = task_vars or {}
        output: dict[str, t.Any] = super().run(tmp, variables)
        _validation, args = self.validate_argument_spec(argument_spec=_SPEC)
        bulk = args["result"]
        host = variables.get("inventory_hostname", "this host")
        names = list(dict.fromkeys(args["names"] if args["names"] is not None else [host]))
        if bulk.get("skipped"):
            return {**output, "skipped": True, "skip_reason": "The task whose result this is was skipped."}
        if not names:
            return {**output, "skipped": True, "skip_reason": f"{host} has no objects in this task."}

        results = merged(bulk, "objects")
        # A task with `failed_when: false` that failed as a whole says `failed: false` and has no objects.
        broken = bulk.get("failed") or ("objects" not in bulk and "failure" in bulk)
        if broken and not any(name in results for name in names):
            raise AnsibleActionFail(str(bulk.get("msg") or "The task whose result this is failed."))
        absent = [name for name in names if name not in results]
        if absent and args["missing"] == "fail":
            raise AnsibleActionFail(missing_message(absent, results))
        entries = {name: results[name] for name in names if name in results}
        if not entries:
            return {**output, "skipped": True, "skip_reason": f"The result has nothing about {', '.join(names)}."}

        output.update(unroll(entries))
        if not output["failed"]:
            output["predicted"] = {
                kind: {
                    name: facts
                    for name, facts in (merged(bulk, "predicted").get(kind) or {}).items()
                    if name in entries
                }
                for kind in ("hosts", "vms")
            }
            self._accumulate(output, variables, changes_of(entries))
        return output

    def _accumulate(self, output: dict[str, t.Any], variables: t.Mapping[str, t.Any], changes: list[str]) -> None:
        facts = {_FACT: [*(variables.get(_FACT) or []), *changes]}
        output["ansible_facts"] = facts
        layers = getattr(action_plugins, "VariableLayer", None)
        if layers is not None:
            # As set_fact does it: for this run only, so that a fact cache never brings back another run's changes.
            self.register_host_variables({}, layers.CACHEABLE_FACT)
            self.register_host_variables(facts, layers.EPHEMERAL_FACT)


def merged(bulk: t.Mapping[str, t.Any], key: str) -> dict[str, t.Any]:
    """The mapping `key` of a bulk result; of a looped task, those of all its items together."""
    looped = bulk.get("results")
    if not isinstance(looped, list):
        return dict(bulk.get(key) or {})
    together: dict[str, t.Any] = {}
    for item in looped:
        for name, value in (item.get(key) or {}).items():
            together[name] = {**together.get(name, {}), **value} if key == "predicted" else value
    return together


def unroll(entries: t.Mapping[str, t.Mapping[str, t.Any]]) -> dict[str, t.Any]:
    """What this host's task returns for the entries of its objects."""
    failed = {name: entry for name, entry in entries.items() if entry.get("failed")}
    output: dict[str, t.Any] = {
        "changed": any(entry.get("changed") for entry in entries.values()),
        "failed": bool(failed),
    }
    if failed:  # Ansible prints a failure whole, so it has nothing but what helps
        done = changes_of(entries)
        output.update({"actions": done} if done else {})
    else:
        output["actions"] = [
            f"{name}: {action}" for name, entry in entries.items() for action in entry.get("actions") or ()
        ]
        output["objects"] = {
            name: {key: value for key, value in entry.items() if key not in _SHOWN_ELSEWHERE}
            for name, entry in entries.items()
        }
    warnings = [warning for entry in entries.values() for warning in entry.get("warnings") or ()]
    if warnings:
        output["warnings"] = warnings
    diffs = [entry["diff"] for entry in entries.values() if entry.get("diff")]
    if diffs:
        output["diff"] = diffs
    if failed:
        output["msg"] = " ".join(str(entry.get("msg") or f"{name} failed.") for name, entry in failed.items())
        failures = [entry["failure"] for entry in failed.values() if entry.get("failure")]
        if failures:
            output["failure"] = failures[0]
    return output


def changes_of(entries: t.Mapping[str, t.Mapping[str, t.Any]]) -> list[str]:
    """`object: action` for everything that was changed (in check mode: would be)."""
    return [
        f"{name}: {action}"
        for name, entry in entries.items()
        if entry.get("changed")
        for action in entry.get("actions") or ["changed"]
    ]


def missing_message(absent: t.Sequence[str], results: t.Mapping[str, t.Any]) -> str:
    """What to say about objects that the result does not have."""
    there = ", ".join(sorted(results)[:5]) or "nothing"
    more = f" and {len(results) - 5} more" if len(results) > 5 else ""
    return (
        f"The result has nothing about {', '.join(absent)}; it is about {there}{more}. Give the bulk task an entry for"
        " each host of the play's batch, name the objects in `names`, or say `missing: skip`."
    )
