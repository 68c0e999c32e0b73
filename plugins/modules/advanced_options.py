#!/usr/bin/python
# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: advanced_options
short_description: Set advanced settings of a vCenter and advanced DRS options of clusters
version_added: "0.1.0"
author:
  - The gpuops.vsphere contributors (@gpuops)
description:
  - Sets advanced settings of the vCenter and advanced options of clusters' DRS, for example those that vGPUs need to
    move. Options that are not named stay as they are.
  - Options of which it is known from which vSphere release on they exist are refused, or skipped, on an older one.
options:
  vcenter:
    description:
      - Advanced settings of the vCenter, for example V(vgpu.hotmigrate.enabled).
      - A value is converted to the type that the setting has.
    type: dict
    default: {}
  clusters:
    description:
      - The clusters, and the options of each.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description:
          - Name of the cluster.
        type: str
        required: true
      drs_options:
        description:
          - Advanced options of its DRS, for example V(PassthroughDrsAutomation). Null takes an option away.
        type: dict
        required: true
  unsupported:
    description:
      - What an option means that the vSphere release does not know yet.
    type: str
    choices: [fail, skip]
    default: fail
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
- name: Let virtual machines with vGPUs move, by hand and by DRS
  gpuops.vsphere.advanced_options:
    hostname: vcenter.example.org
    username: "{{ vcenter_username }}"
    password: "{{ vcenter_password }}"
    vcenter:
      vgpu.hotmigrate.enabled: true
    clusters:
      - name: gpu
        drs_options:
          PassthroughDrsAutomation: 1
          LBMaxVmotionPerHost: 1
          VgpuMMAutomationTimeoutSecs: -1
"""

RETURN = r"""
objects:
  description: What was done, or would be done, to the vCenter (by the name V(vCenter)) and to each cluster.
  returned: always
  type: dict
  sample:
    gpu:
      changed: true
      failed: false
      actions: ["set PassthroughDrsAutomation (was not set)"]
      warnings: []
  contains:
    changed:
      description: Whether this object was or would be changed.
      type: bool
    failed:
      description: Whether it could not be brought to the wanted state.
      type: bool
    msg:
      description: Why it failed and what to do.
      type: str
requests:
  description: Number of requests made to the vCenter by method.
  returned: always
  type: dict
failure:
  description: Code, object and vSphere fault of the (first) failure.
  returned: on failure
  type: dict
"""

import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.advanced_options import (
    VCENTER,
    OptionFacts,
    plan_options,
)
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.advanced_options import (
    apply_options,
    read_options,
)
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.client import Client
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.errors import InputError
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.module import (
    Applied,
    Params,
    Planned,
    applied,
    bulk_module,
)
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.options import Spec
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.tasks import Bounds


def argument_spec() -> Spec:
    cluster: Spec = {
        "name": {"type": "str", "required": True},
        "drs_options": {"type": "dict", "required": True},
    }
    return {
        "vcenter": {"type": "dict", "default": {}},
        "clusters": {"type": "list", "elements": "dict", "default": [], "options": cluster},
        "unsupported": {"type": "str", "choices": ["fail", "skip"], "default": "fail"},
    }


def prepare(module: AnsibleModule) -> None:
    names = [cluster["name"] for cluster in module.params["clusters"]]
    mistakes = [f"{name} is listed twice" for name in sorted({name for name in names if names.count(name) > 1})]
    if VCENTER in names:
        mistakes.append(f"a cluster called {VCENTER} cannot be told from the vCenter itself")
    groups = [module.params["vcenter"], *(cluster["drs_options"] for cluster in module.params["clusters"])]
    mistakes += [
        f"{key} must be a text, a number, or true or false"
        for group in groups
        for key, value in group.items()
        if value is not None and not isinstance(value, (str, int, float, bool))
    ]
    if not names and not module.params["vcenter"]:
        mistakes.append("give vcenter, clusters, or both")
    if mistakes:
        raise InputError("; ".join(mistakes) + ".")


def read(client: Client, params: Params) -> OptionFacts:
    return read_options(client, params["vcenter"])


def plan(facts: OptionFacts, params: Params) -> Planned:
    clusters = {cluster["name"]: cluster["drs_options"] for cluster in params["clusters"]}
    plans = plan_options(facts, params["vcenter"], clusters, unsupported=params["unsupported"])
    return Planned(
        plans={name: item.plan for name, item in plans.items()},
        work={name: item.values for name, item in plans.items()},
    )


def apply(client: Client, facts: OptionFacts, planned: Planned, params: Params) -> t.Mapping[str, Applied]:
    values = {name: planned.work[name] for name in planned.todo}
    return applied(apply_options(client, facts, values, Bounds.of(params)))


def main() -> None:
    bulk_module(argument_spec(), prepare=prepare, read=read, plan=plan, apply=apply)


if __name__ == "__main__":
    main()
