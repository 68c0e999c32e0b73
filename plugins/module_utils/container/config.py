# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Directives of apptainer.conf and singularity.conf: `name = value`, some of them repeated. Pure."""

from __future__ import annotations

import re
import typing as t

from ansible_collections.gpuops.vsphere.plugins.module_utils.container.errors import ContainerError

if t.TYPE_CHECKING:
    Value: t.TypeAlias = "str | int | bool | t.Sequence[str]"

_NAME = re.compile(r"[a-z][a-z0-9 -]*[a-z0-9]")
_DIRECTIVE = re.compile(r"(?P<comment>#\s*)?(?P<name>[a-z][a-z0-9 -]*?)\s*=")


def with_settings(text: str, settings: t.Mapping[str, Value]) -> str:
    """The file's text with each directive set; a list gives it once for each element, and no other.

    A directive stands where it was, or where the file shows it as a comment, or at the end.
    """
    lines = text.splitlines()
    for name, value in settings.items():
        if not _NAME.fullmatch(name):
            raise ContainerError("bad_setting", f"{name!r} is no name of a directive; they look like 'bind path'.")
        lines = _with_one(lines, name, [f"{name} = {written}" for written in _written(name, value)])
    return "".join(f"{line}\n" for line in lines)


def _written(name: str, value: Value) -> list[str]:
    values = [value] if isinstance(value, (str, int)) else list(value)
    texts = [("yes" if entry else "no") if isinstance(entry, bool) else str(entry) for entry in values]
    for text in texts:
        if "\n" in text:
            raise ContainerError("bad_setting", f"The value of {name!r} has a line break in it.")
    return texts


def _with_one(lines: list[str], name: str, wanted: list[str]) -> list[str]:
    active = [index for index, line in enumerate(lines) if _name_of(line) == (name, False)]
    if [_spaced(lines[index]) for index in active] == wanted:
        return lines
    if active:
        place = active[0]
    else:
        shown = [index for index, line in enumerate(lines) if _name_of(line) == (name, True)]
        place = shown[-1] + 1 if shown else len(lines)
    before = [line for index, line in enumerate(lines[:place]) if index not in active]
    after = [line for index, line in enumerate(lines[place:], place) if index not in active]
    return [*before, *wanted, *after]


def _name_of(line: str) -> tuple[str, bool] | None:
    found = _DIRECTIVE.match(line)
    return (found["name"], bool(found["comment"])) if found else None


def _spaced(line: str) -> str:
    name, value = line.split("=", 1)
    return f"{name.strip()} = {value.strip()}"
