# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Check one host's variables against the argument specs of all roles (see the module of the same name)."""

from __future__ import annotations

import dataclasses
import pathlib
import re
import typing as t

import yaml
from ansible.errors import AnsibleError, AnsibleUndefinedVariable
from ansible.plugins.action import ActionBase
from ansible_collections.gpuops.vsphere.plugins.module_utils.variables.specs import (
    Spec,
    VariableProblem,
    contradictions,
    missing_problems,
    unknown_problems,
    value_problems,
)

# Parts of Ansible's messages that name a plugin or a path, never a value.
_HARMLESS = (
    re.compile(r"[Tt]he (?:lookup|filter|test) plugin '[\w.]+' (?:failed|was not found)"),
    re.compile(r"[Uu]nable to access the file '[^'\n]+'"),
    re.compile(r"no vault secrets (?:were )?found|vault secrets (?:were )?found that could decrypt", re.IGNORECASE),
)

_ROLES = pathlib.Path(__file__).resolve().parents[2] / "roles"


class ActionModule(ActionBase):  # type: ignore[misc]  # ansible-core ships no type information
    """Runs in the controller's process: nothing is copied to a host and no connection is opened."""

    TRANSFERS_FILES = False
    _requires_connection = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
        """Return the host's problems; never fails for one of them, so that all hosts can be checked first."""
        result: dict[str, t.Any] = super().run(tmp, task_vars)
        variables = task_vars or {}
        _dummy, args = self.validate_argument_spec(
            argument_spec={
                "roles": {"type": "dict", "required": True},
                "plan_roles": {"type": "list", "elements": "str"},
                "extra_prefixes": {"type": "list", "elements": "str", "default": []},
                "ignore": {"type": "list", "elements": "str", "default": []},
            }
        )
        groups: t.Mapping[str, t.Sequence[str]] = variables.get("groups", {})
        host = variables["inventory_hostname"]
        declared: dict[str, Spec] = {role: _spec(role) for role in args["roles"]}
        here = [role for role, group in args["roles"].items() if host in groups.get(group, ())]
        problems = unknown_problems(
            variables,
            {name for spec in declared.values() for name in spec},
            [*(f"{role}_" for role in declared), *args["extra_prefixes"]],
            args["ignore"],
        )
        values: dict[str, t.Any] = {}
        for role in here:
            found = missing_problems(variables, declared[role])
            for name in sorted(set(declared[role]) & set(variables)):
                found += self._checked(name, variables[name], declared[role][name], values)
            needed = args["plan_roles"] is None or role in args["plan_roles"]
            problems += found if needed else [dataclasses.replace(problem, usable=True) for problem in found]
        problems += contradictions(values)
        result["changed"] = False
        result["problems"] = [dataclasses.asdict(problem) for problem in problems]
        result["usable"] = all(problem.usable for problem in problems)
        return result

    def _checked(
        self, name: str, raw: t.Any, option: t.Mapping[str, t.Any], values: dict[str, t.Any]
    ) -> list[VariableProblem]:
        """Problems of one variable; its value is added to `values`."""
        try:
            value = self._templar.template(raw)
        except AnsibleUndefinedVariable as error:
            return [VariableProblem(name, f"its template does not resolve: {_first_line(error)}")]
        except AnsibleError as error:
            return [VariableProblem(name, f"its value cannot be had: {_harmless(error)}")]
        values[name] = value
        return value_problems(name, value, option)


def _spec(role: str) -> Spec:
    path = _ROLES / role / "meta" / "argument_specs.yml"
    if not path.is_file():
        raise AnsibleError(f"the collection has no role {role!r} with an argument spec")
    document = yaml.safe_load(path.read_text(encoding="utf-8"))
    return t.cast("Spec", document["argument_specs"]["main"].get("options") or {})


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0]


def _harmless(error: AnsibleError) -> str:
    """What may be said of an error whose text can quote what a lookup or a vault returned."""
    text = str(error)
    said = [match.group() for pattern in _HARMLESS if (match := pattern.search(text))]
    return ", ".join(said) or type(error).__name__
