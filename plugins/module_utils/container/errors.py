# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The one error of container work, and the one place that hands it to Ansible.

These files run on guests, some of which have Python 3.9: nothing newer is used at run time.
"""

from __future__ import annotations

import typing as t


class ContainerError(Exception):
    """What an operator can mend; `code` is for programs, the text says what, why and what to do."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


BROUGHT_BY_ROLES = frozenset({"no_runtime", "no_user", "no_subids", "no_key"})
"""Codes of what an earlier step of the same run mends: in check mode they are warnings."""


class Failing(t.Protocol):
    """The part of AnsibleModule that ends a run in failure."""

    def fail_json(self, msg: str, **kwargs: t.Any) -> t.NoReturn:
        """End the module."""


def fail(module: Failing, error: ContainerError, name: str) -> t.NoReturn:
    """End the module with the error's text, and its code for programs."""
    module.fail_json(msg=str(error), failure={"code": error.code, "object": name})
