# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The one error of container work, and the one place that hands it to Ansible.

These files run on guests, some of which have Python 3.9: nothing newer is used at run time.
"""

from __future__ import annotations

import collections.abc
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


class Ending(Failing, t.Protocol):
    """The part of AnsibleModule that ends a run."""

    def exit_json(self, **kwargs: t.Any) -> t.NoReturn:
        """End the module."""


Module = t.TypeVar("Module", bound=Ending)


def finish(module: Module, name: str, work: collections.abc.Callable[[Module], dict[str, t.Any]]) -> t.NoReturn:
    """Do the work and end the module with its result, or with what an operator can mend; `name` is the object."""
    try:
        module.exit_json(**work(module))
    except ContainerError as error:
        module.fail_json(msg=str(error), failure={"code": error.code, "object": name})
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        module.fail_json(
            msg=f"{name}: {place}{error.strerror or error}; mend that and run again.",
            failure={"code": "system", "object": name},
        )
