# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Action plugin `show_text`: prints a text as it is. Documented by the module of that name."""

from __future__ import annotations

import typing as t

from ansible.plugins.action import ActionBase

_SPEC: dict[str, t.Any] = {
    "text": {"type": "str", "required": True},
    "verbosity": {"type": "int", "default": 0},
}


class ActionModule(ActionBase):  # type: ignore[misc]  # ansible-core ships no types
    """Prints through Ansible's Display, so that logs and redirections get it too."""

    TRANSFERS_FILES = False
    _requires_connection = False

    def run(self, tmp: str | None = None, task_vars: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
        """Print the text; never changed."""
        output: dict[str, t.Any] = super().run(tmp, task_vars or {})
        _validation, args = self.validate_argument_spec(argument_spec=_SPEC)
        if args["verbosity"] > self._display.verbosity:
            return {**output, "skipped": True, "skip_reason": "Verbosity threshold not met."}
        self._display.display(args["text"].rstrip("\n"))
        return {**output, "changed": False}
