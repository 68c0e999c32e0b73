# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Filter `systemd_word`: one word of a systemd unit."""

from __future__ import annotations

import re
import typing as t

from ansible.errors import AnsibleFilterError

DOCUMENTATION = r"""
name: systemd_word
short_description: One word as systemd reads it
version_added: "0.1.0"
author: The gpuops.vsphere contributors (@gpuops)
description:
  - Quotes and escapes a word for a command line of a unit, or a value for a file of variables, so that systemd takes it
    as it is. See systemd.syntax(7).
options:
  _input:
    description: The word. A line break in it is an error.
    type: raw
    required: true
  literal:
    description: For files (C(EnvironmentFile)) in which a percent or dollar sign has no special meaning.
    type: bool
    default: false
"""

EXAMPLES = r"""
- name: Show the command of a unit
  ansible.builtin.debug:
    msg: "ExecStart={{ my_words | map('gpuops.vsphere.systemd_word') | join(' ') }}"
"""

RETURN = r"""
_value:
  description: The word, quoted where it must be.
  type: str
"""

_PLAIN = re.compile(r"[A-Za-z0-9@_+=:,./-]+")


def systemd_word(word: t.Any, *, literal: bool = False) -> str:
    """The word, quoted; see DOCUMENTATION."""
    text = str(word)
    if "\n" in text or "\r" in text or "\0" in text:
        raise AnsibleFilterError("a word with a line break in it fits into no unit")
    if _PLAIN.fullmatch(text):
        return text
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    if literal:
        return '"' + escaped.replace("$", "\\$").replace("`", "\\`") + '"'
    return '"' + escaped.replace("%", "%%").replace("$", "$$") + '"'


class FilterModule:
    """Tells Ansible the filters of this file."""

    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        """Name -> function."""
        return {"systemd_word": systemd_word}
