#!/usr/bin/python
# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: vcenter_role
short_description: A vCenter role with exactly the privileges that jobs of this collection need
version_added: "0.1.0"
author:
  - The gpuops.vsphere contributors (@gpuops)
description:
  - Creates or updates a role of the vCenter so that it has the privileges of the chosen jobs, and no others. Check mode
    shows what would change, and returns the list for whoever may edit roles.
  - Privileges that the vCenter does not know, as its version is older, are left out with a warning.
  - Whom the role is granted, and where, is left to you. Some privileges are needed on the root folder (custom
    attributes, the lock of expansion and contraction), the others on the data center; grant it propagating.
options:
  name:
    description:
      - Name of the role.
    type: str
    default: gpuops
  jobs:
    description:
      - What the account is to do.
    type: list
    elements: str
    choices:
      - validate
      - inventory
      - report
      - placement
      - passthrough
      - graphics
      - driver
      - rolling
      - vms
      - power
      - harvest
      - shares
      - lock
      - cluster
      - expand
      - site
    default: [site]
extends_documentation_fragment:
  - gpuops.vsphere.vsphere
  - gpuops.vsphere.vsphere.bulk
  - gpuops.vsphere.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
"""

EXAMPLES = r"""
- name: A role for site.yml, as an administrator
  gpuops.vsphere.vcenter_role:
    hostname: vcenter.example.org
    username: administrator@vsphere.local
    password: "{{ vault_administrator_password }}"
    name: gpuops
    jobs: [site]
"""

RETURN = r"""
privileges:
  description: The privileges of the jobs, each with the modules that need it.
  returned: always
  type: dict
  sample:
    Host.Config.PciPassthru: [esxi_passthrough]
unknown:
  description: Privileges of the jobs that this vCenter does not know and the role goes without, each with the modules.
  returned: always
  type: dict
  sample:
    VcIntegrity.lifecycleSettings.Write: [esxi_driver]
objects:
  description: What was done, or would be done, to the role.
  returned: always
  type: dict
requests:
  description: Number of requests made to the vCenter by method.
  returned: always
  type: dict
failure:
  description: Code, object and vSphere fault of the failure.
  returned: on failure
  type: dict
"""

import dataclasses
import typing as t

from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.plan import Change, ObjectPlan
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.privileges import ALWAYS, JOBS, needed
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.client import Client
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.module import (
    Applied,
    Params,
    Planned,
    applied,
    bulk_module,
)
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.options import Spec
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.tasks import run_calls


@dataclasses.dataclass(frozen=True, slots=True)
class Facts:
    roles: t.Mapping[str, tuple[int, frozenset[str]]]
    """Id and privileges by name."""
    known: frozenset[str]
    """The privileges that this vCenter has."""


def argument_spec() -> Spec:
    return {
        "name": {"type": "str", "default": "gpuops"},
        "jobs": {"type": "list", "elements": "str", "choices": list(JOBS), "default": ["site"]},
    }


def read(client: Client, params: Params) -> Facts:  # noqa: ARG001 - as the shell calls it
    manager = t.cast("t.Any", client.content.authorizationManager)
    roles = client.read(lambda: manager.roleList)
    known = client.read(lambda: manager.privilegeList)
    return Facts(
        {role.name: (role.roleId, frozenset(role.privilege)) for role in roles}, frozenset(one.privId for one in known)
    )


def plan(facts: Facts, params: Params) -> Planned:
    name, asked = params["name"], needed(params["jobs"])
    # One that it does not know would have the vCenter refuse the whole role.
    privileges = {one: modules for one, modules in asked.items() if one in facts.known}
    unknown = {one: modules for one, modules in asked.items() if one not in facts.known}
    wanted = frozenset(privileges)
    changes: list[Change] = []
    if name not in facts.roles:
        changes.append(Change("create role", "role", None, name))
    _id, has = facts.roles.get(name, (0, frozenset()))
    changes += [Change(f"add {one}", one, None, ", ".join(privileges[one])) for one in sorted(wanted - has)]
    changes += [Change(f"remove {one}", one, "granted", None) for one in sorted(has - wanted - set(ALWAYS))]
    return Planned(
        plans={name: ObjectPlan(name, tuple(changes), warnings=_warnings(unknown))},
        returns={"privileges": privileges, "unknown": unknown},
    )


def _warnings(unknown: t.Mapping[str, t.Sequence[str]]) -> tuple[str, ...]:
    if not unknown:
        return ()
    modules = ", ".join(dict.fromkeys(module for group in unknown.values() for module in group))
    return (
        f"This vCenter does not know the privileges {', '.join(unknown)} (for {modules}): the role goes without them. "
        "Later versions have them.",
    )


def apply(client: Client, facts: Facts, planned: Planned, params: Params) -> t.Mapping[str, Applied]:
    manager = t.cast("t.Any", client.content.authorizationManager)
    privileges = list(planned.returns["privileges"])

    def writer(name: str) -> t.Callable[[], t.Any]:
        if name in facts.roles:
            return lambda: manager.UpdateAuthorizationRole(facts.roles[name][0], name, privileges)
        return lambda: manager.AddAuthorizationRole(name, privileges)

    calls = {name: writer(name) for name in planned.todo}
    return applied(run_calls(client, calls, max_parallel=params["max_parallel"], doing="write the role"))


def main() -> None:
    bulk_module(argument_spec(), read=read, plan=plan, apply=apply)


if __name__ == "__main__":
    main()
