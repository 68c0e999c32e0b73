# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Modules run in the test's own process, with a fuse that ends them after so many calls to the vCenter."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import pytest
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere import session
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.client import Client, Stub
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.module import Applied, Planned
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.options import ConnectionOptions
from simulated import Vcenter

# The same password and salt, hundreds of times in one process: a key is worked out once.
session._scrypt = functools.cache(session._scrypt)


class CrashError(BaseException):
    """The process dies here."""


class Fuse:
    """Lets so many calls through, then none; the process dies when the last one has been carried out.

    A call that is not carried out leaves the vCenter as the call before it did, so that case is none of its own.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls = 0
        self.limit: int | None = None
        original = Stub._call

        def call(stub: Stub, *arguments: Any) -> Any:
            self.calls += 1
            if self.limit is not None and self.calls > self.limit:
                raise CrashError
            answer = original(stub, *arguments)
            if self.limit == self.calls:
                raise CrashError
            return answer

        monkeypatch.setattr(Stub, "_call", call)


def options(vcenter: Vcenter) -> ConnectionOptions:
    """How to connect to the vCenter."""
    return ConnectionOptions.from_params({"validate_certs": True, "thumbprint": None, **vcenter.options()})


def run(vcenter: Vcenter, module: Any, /, **own: Any) -> tuple[Planned, Mapping[str, Applied]]:
    """What the module's shell does: read, plan, apply. `timeout` and `max_parallel` are small unless given."""
    defaults = {name: option.get("default") for name, option in module.argument_spec().items()}
    bounds = {"timeout": 60, "max_parallel": 1, "assume": {"hosts": {}, "vms": {}}}
    params = {**defaults, **bounds, **own}
    with Client.open(options(vcenter)) as client:
        facts = module.read(client, params)
        planned: Planned = module.plan(facts, params)
        return planned, module.apply(client, facts, planned, params) if planned.todo else {}


def step(vcenter: Vcenter, module: Any, **own: Any) -> Planned:
    """The same where nothing may go wrong."""
    planned, done = run(vcenter, module, **own)
    assert not any(plan.failed for plan in planned.plans.values()), planned.plans
    for name, outcome in done.items():
        assert outcome.problems == (), f"{name}: {outcome.problems}"
    return planned
