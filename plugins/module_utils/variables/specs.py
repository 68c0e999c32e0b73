# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Compare the variables of one host with the argument specs of the roles that will run on it.

Ansible checks a role's arguments when the role starts, one role after the other, stops at the first
host that fails, prints the offending values, and lets a misspelt name pass. Here all roles are checked
before the first one runs, values are never quoted (they may come from a vault), and a name that begins
like a role's variables and is declared nowhere is a problem.
"""

from __future__ import annotations

import dataclasses
import difflib
import fnmatch
import re
import typing as t

from ansible.module_utils.common.parameters import DEFAULT_TYPE_VALIDATORS
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.catalog import Catalog
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.vgpu import parse_profile

Spec = t.Mapping[str, t.Mapping[str, t.Any]]
"""The `options` of an argument spec: name -> type, elements, choices, required, options, …"""

_CLOSE = 0.75
"""How alike a name must be to be offered as the right one (difflib's ratio)."""

_SAME_BUT_FOR_A_SLIP = 0.92
"""How alike a name outside the roles' prefixes must be to count as a slip of the pen."""

_PREFIX_ALIKE = 0.8
"""How alike the beginning of a name must be to a prefix, where the rest is a declared name's."""

_PRINTABLE_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,39}")


@dataclasses.dataclass(frozen=True, slots=True)
class VariableProblem:
    """What is wrong with one variable of a host, without its value."""

    variable: str
    """Name, with the place inside it: `gpu_vm_vms[0].gpus[1].mode`."""
    msg: str
    """What is wrong and what to write instead."""
    usable: bool = False
    """Whether the host's plan can be worked out all the same (a name nobody reads does not prevent it)."""


def value_problems(name: str, value: t.Any, option: t.Mapping[str, t.Any]) -> list[VariableProblem]:
    """Problems of one value (templated, any JSON-like type) with its option of an argument spec.

    The types are those of Ansible's argument specs, with Ansible's own conversions: `"2"` is an int.
    An absent value (None) is never a problem here; `missing_problems` knows what is required.
    """
    if value is None:
        return []
    wanted = str(option.get("type", "str"))
    try:
        converted = _convert(value, wanted)
    except (TypeError, ValueError):
        return [VariableProblem(name, f"must be {_article(wanted)}, but is {_article(_type_name(value))}")]
    choices = option.get("choices")
    if choices:
        items = converted if wanted == "list" else [converted]
        if any(item not in choices for item in items):
            return [VariableProblem(name, _choice_message(items, choices))]
    if wanted == "list" and option.get("elements"):
        element = {"type": option["elements"], "options": option.get("options")}
        return [
            problem
            for index, item in enumerate(converted)
            for problem in (
                [VariableProblem(f"{name}[{index}]", "must not be empty")]
                if item is None
                else value_problems(f"{name}[{index}]", item, element)
            )
        ]
    if wanted == "dict" and option.get("options"):
        return _suboption_problems(name, converted, option["options"])
    return []


def missing_problems(present: t.Container[str], spec: Spec) -> list[VariableProblem]:
    """Required variables of a role that a host has no value for."""
    return [
        VariableProblem(name, f"is required: {_first_sentence(option)}")
        for name, option in sorted(spec.items())
        if option.get("required") and name not in present
    ]


def unknown_problems(
    names: t.Iterable[str], declared: t.Collection[str], prefixes: t.Collection[str], ignore: t.Sequence[str] = ()
) -> list[VariableProblem]:
    """Names that look like a role's variable and that no role declares.

    Either they begin with one of `prefixes` (`gpu_vm_`), or they are a slip away from a declared name
    (`gpuvm_template`), or they are a declared name but for a slip in its prefix (`vcentre_port`). `ignore` holds shell
    patterns of a site's own names.
    """
    problems = []
    declared_names = sorted(declared)
    for name in sorted(set(names) - set(declared)):
        if name.startswith("__") or any(fnmatch.fnmatchcase(name, pattern) for pattern in ignore):
            continue
        prefixed = any(name.startswith(prefix) for prefix in prefixes)
        nearest = difflib.get_close_matches(
            name, declared_names, n=1, cutoff=_CLOSE if prefixed else _SAME_BUT_FOR_A_SLIP
        )
        nearest = nearest or _slip_in_the_prefix(name, declared_names, prefixes)
        if nearest:
            problems.append(VariableProblem(name, f"no role has this variable: write {nearest[0]}", usable=True))
        elif prefixed:
            prefix = max((prefix for prefix in prefixes if name.startswith(prefix)), key=len)
            known = [candidate for candidate in declared_names if candidate.startswith(prefix)]
            problems.append(
                VariableProblem(
                    name,
                    f"no role has this variable: rename or remove it (known: {', '.join(known)})",
                    usable=True,
                )
            )
    return problems


def _slip_in_the_prefix(name: str, declared: t.Sequence[str], prefixes: t.Collection[str]) -> list[str]:
    """The declared name that this one is but for its prefix, which must be much alike; none or one."""
    for prefix in sorted(prefixes):
        words = prefix.count("_")
        head, rest = "_".join(name.split("_")[:words]), "_".join(name.split("_")[words:])
        alike = difflib.SequenceMatcher(None, head, prefix.rstrip("_")).ratio() >= _PREFIX_ALIKE
        if rest and alike and f"{prefix}{rest}" in declared:
            return [f"{prefix}{rest}"]
    return []


def contradictions(values: t.Mapping[str, t.Any]) -> list[VariableProblem]:
    """Variables of one host that cannot both be meant; `values` are templated, those that do not resolve left out."""
    machines = [item for item in _items(values.get("gpu_vm_vms")) if isinstance(item, t.Mapping)]
    wanted = [(item.get("name"), gpu) for item in machines for gpu in _items(item.get("gpus"))]
    gpus = [(name, gpu) for name, gpu in wanted if isinstance(gpu, t.Mapping)]
    whole = sorted({str(name) for name, gpu in gpus if gpu.get("mode") in ("fixed", "dynamic")})
    problems = []
    off = str(values.get("esxi_passthrough_enabled", True)).strip().lower() in ("false", "no", "off", "0")
    if off and whole:
        text = (
            f"is false, which takes the GPUs out of passthrough, and gpu_vm_vms wants GPUs by passthrough for"
            f" {', '.join(whole)}: set it to true, or take those GPUs (or their mode) out of gpu_vm_vms"
        )
        problems.append(VariableProblem("esxi_passthrough_enabled", text, usable=True))
    passed = {
        str(device.get("id")).lower()
        for device in _items(values.get("esxi_passthrough_devices"))
        if isinstance(device, t.Mapping) and device.get("id")
    }
    catalog = Catalog()
    for name, gpu in gpus if not off else ():
        profile = parse_profile(str(gpu.get("profile") or "")) if gpu.get("mode") == "vgpu" else None
        model = catalog.of_board(profile.board) if profile is not None else None
        if profile is not None and model is not None and model.id in passed:
            text = (
                f"passes {model.id} ({model.key}) through, and gpu_vm_vms wants the vGPU {profile.name} of these GPUs"
                f" for {name}: a GPU is either passed through or divided. Take one of them out"
            )
            problems.append(VariableProblem("esxi_passthrough_devices", text, usable=True))
    return list(dict.fromkeys(problems))


def _items(value: t.Any) -> t.Sequence[t.Any]:
    return value if isinstance(value, (list, tuple)) else ()


def _suboption_problems(name: str, value: t.Mapping[str, t.Any], options: Spec) -> list[VariableProblem]:
    problems = []
    aliases = {alias: key for key, option in options.items() for alias in option.get("aliases") or ()}
    for key in value:
        if key not in options and key not in aliases:
            shown = key if isinstance(key, str) and _PRINTABLE_KEY.fullmatch(key) else "<key>"
            nearest = difflib.get_close_matches(str(key), sorted(options), n=1, cutoff=0.6)
            instead = f"write {nearest[0]}" if nearest else f"known keys: {', '.join(sorted(options))}"
            problems.append(VariableProblem(f"{name}.{shown}", f"unknown key: {instead}"))
    for key, option in options.items():
        names = [key, *(option.get("aliases") or ())]
        given = next((candidate for candidate in names if value.get(candidate) is not None), None)
        if given is None:
            if option.get("required"):
                problems.append(VariableProblem(f"{name}.{key}", f"is required: {_first_sentence(option)}"))
        else:
            problems += value_problems(f"{name}.{given}", value[given], option)
    return problems


def _convert(value: t.Any, wanted: str) -> t.Any:
    if wanted == "raw":
        return value
    if wanted == "str":
        # Ansible turns anything into a string, a list into "['a', 'b']" too: never what was meant.
        if isinstance(value, (list, tuple, dict, set)):
            raise TypeError(wanted)
        return str(value)
    return DEFAULT_TYPE_VALIDATORS[wanted](value)


def _choice_message(items: t.Sequence[t.Any], choices: t.Sequence[t.Any]) -> str:
    text = f"must be {'one of ' if len(choices) > 1 else ''}{', '.join(map(str, choices))}"
    wrong = next(str(item) for item in items if item not in choices)
    nearest = difflib.get_close_matches(wrong.lower(), [str(choice) for choice in choices], n=1)
    return f"{text}: write {nearest[0]}" if nearest else text


_TYPE_NAMES = {"str": "string", "bool": "boolean", "int": "whole number", "float": "number", "dict": "mapping"}


def _type_name(value: t.Any) -> str:
    for kind, name in ((bool, "bool"), (int, "int"), (float, "float"), (str, "str"), (dict, "dict"), (list, "list")):
        if isinstance(value, kind):
            return name
    return type(value).__name__


def _article(type_name: str) -> str:
    return f"a {_TYPE_NAMES.get(type_name, type_name)}"


def _first_sentence(option: t.Mapping[str, t.Any]) -> str:
    description = option.get("description") or "see the role's README"
    text = description if isinstance(description, str) else " ".join(map(str, description))
    return " ".join(text.split()).split(". ", maxsplit=1)[0].rstrip(".")
