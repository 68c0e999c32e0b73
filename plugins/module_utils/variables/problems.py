# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The list of everything that is wrong with an inventory, short enough for one screen."""

from __future__ import annotations

import dataclasses
import textwrap
import typing as t

_NAMED_HOSTS = 3
"""So many hosts are named; more are counted."""


@dataclasses.dataclass(frozen=True, slots=True)
class InventoryProblem:
    """One problem and the hosts that have it."""

    variable: str
    msg: str
    hosts: tuple[str, ...] = ()
    """Empty: it concerns the whole inventory."""


def merge(problems: t.Iterable[InventoryProblem]) -> list[InventoryProblem]:
    """The problems by variable, the same one on several hosts taken together (hosts in order of appearance)."""
    hosts: dict[tuple[str, str], dict[str, None]] = {}
    for problem in problems:
        hosts.setdefault((problem.variable, problem.msg), {}).update(dict.fromkeys(problem.hosts))
    merged = [InventoryProblem(variable, msg, tuple(names)) for (variable, msg), names in hosts.items()]
    return sorted(merged, key=lambda problem: (problem.variable, problem.hosts))


def plan_problems(
    results: t.Mapping[str, t.Mapping[str, t.Any]],
    variables: t.Mapping[str, str],
    hosts: t.Mapping[str, str] | None = None,
) -> list[InventoryProblem]:
    """What the inventory must change according to a module's `objects`, in the inventory's own words.

    `variables` names the role variable behind each option of the module; `hosts` the inventory host
    behind each object, where the object is not a host itself. Problems of kind `state` are left out:
    they pass without anybody editing the inventory.
    """
    problems = []
    for name, entry in results.items():
        for problem in entry.get("problems") or ():
            if problem.get("kind", "input") != "input":
                continue
            option = str(problem.get("option") or "")
            variable = (
                variables.get(option)
                or variables.get(option.split("[", maxsplit=1)[0].split(".", maxsplit=1)[0])
                or variables.get("*", option)
            )
            owner = (hosts or {}).get(name, name)
            msg = str(problem["msg"])
            subject = str(problem.get("object") or name)
            # The host's name stands beside the variable already; another object must be named.
            text = msg if subject == owner or msg.startswith(subject) else f"{subject}: {msg}"
            problems.append(InventoryProblem(variable, text, (owner,)))
    return problems


def failure_problem(
    outcome: t.Mapping[str, t.Any], variables: t.Mapping[str, str], connection: t.Mapping[str, str]
) -> InventoryProblem:
    """Why a module failed as a whole: its options were wrong, or the vCenter could not be read.

    `connection` names the variable behind an option of the connection, or behind a failure code of it;
    `variables` is the module's own. A message about an option begins with the option's name and a colon.
    """
    msg = str(outcome.get("msg", "the vCenter was not read"))
    code = (outcome.get("failure") or {}).get("code") or ""
    option, colon, _text = msg.partition(":")
    if code == "invalid_input" and colon and option in connection:
        return InventoryProblem(connection[option], msg)
    variable = variables.get(code) or connection.get(code) or connection.get("*", "vCenter")
    return InventoryProblem(variable, msg)


def render(problems: t.Sequence[InventoryProblem], *, width: int = 110, lines: int = 24) -> str:
    """The merged problems as text: one paragraph each, at most `lines` lines in all, then how many more there are."""
    merged = merge(problems)
    text: list[str] = []
    shown = 0
    for problem in merged:
        where = f" ({_names(problem.hosts)})" if problem.hosts else ""
        paragraph = textwrap.wrap(
            f"{problem.variable}{where}: {problem.msg}",
            width=width,
            initial_indent="- ",
            subsequent_indent="    ",
            break_long_words=False,
            break_on_hyphens=False,
        )
        if shown and len(text) + len(paragraph) > lines:
            break
        text += paragraph
        shown += 1
    if shown < len(merged):
        text.append(f"… and {len(merged) - shown} more")
    return "\n".join(text)


def _names(hosts: t.Sequence[str]) -> str:
    if len(hosts) <= _NAMED_HOSTS:
        return ", ".join(hosts)
    return f"{', '.join(hosts[:_NAMED_HOSTS])} and {len(hosts) - _NAMED_HOSTS} more"
