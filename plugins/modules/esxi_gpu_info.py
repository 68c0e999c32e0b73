#!/usr/bin/python
# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: esxi_gpu_info
short_description: Gather facts of the GPUs of ESXi hosts
version_added: "0.1.0"
author:
  - The gpuops.vsphere contributors (@gpuops)
description:
  - Returns the GPUs of many ESXi hosts, what they are, how they are set up, and who uses them, in a number of requests
    that does not depend on the number of hosts.
  - The vSphere API does not tell the sizes of a GPU's memory regions (BARs). They come from a catalogue of the
    collection; a GPU that is not in it makes its host fail, until O(bar_overrides) tells its sizes.
options:
  hosts:
    description:
      - Names of the hosts in the vCenter. If not set, all hosts are returned.
    type: list
    elements: str
  bar_overrides:
    description:
      - Sizes of memory regions by vendor and device id, for GPUs that the catalogue does not know or has wrong.
      - Each is a dictionary with C(bar1_gb), the large region in GB, and optionally C(bar0_mb) and C(bar3_mb) in MB.
    type: dict
    default: {}
extends_documentation_fragment:
  - gpuops.vsphere.vsphere
  - gpuops.vsphere.vsphere.bulk
  - gpuops.vsphere.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: N/A
    details:
      - This module changes nothing.
seealso:
  - module: gpuops.vsphere.esxi_passthrough
"""

EXAMPLES = r"""
- name: See which GPUs there are, with one that the catalogue does not know
  gpuops.vsphere.esxi_gpu_info:
    hostname: vcenter.example.org
    username: "{{ vcenter_username }}"
    password: "{{ vcenter_password }}"
    bar_overrides:
      "10de:1eb9": {bar1_gb: 0.25}
  register: fleet

- name: Show the free GPUs of each host
  ansible.builtin.debug:
    msg: "{{ item.key }}: {{ item.value.gpus | selectattr('free') | map(attribute='model') | join(', ') }}"
  loop: "{{ fleet.hosts | dict2items }}"
"""

RETURN = r"""
hosts:
  description: The hosts by name.
  returned: always
  type: dict
  contains:
    cluster:
      description: Name of the cluster, null for a host outside any.
      type: str
    connection:
      description: V(connected), V(disconnected) or V(notResponding).
      type: str
    in_maintenance:
      description: Whether the host is in maintenance mode.
      type: bool
    boot_time:
      description: Time of the last boot, ISO 8601 in UTC.
      type: str
    intent:
      description: What a run of this collection has begun on the host and not yet ended, null for nothing.
      type: dict
    reentered:
      description:
        - Whether a run that was taking the host out of maintenance mode was interrupted, and the host is in
          somebody else's by now.
      type: bool
    rebind_without_reboot:
      description: Whether passthrough can be changed without a reboot.
      type: bool
    version:
      description: Version of ESXi.
      type: str
    build:
      description: Build of ESXi.
      type: str
    reboot_pending:
      description: Whether the host says that it must reboot, for another reason than passthrough.
      type: bool
    graphics_config:
      description: Default graphics type, assignment policy, and type and vGPU mode set for each GPU.
      type: dict
    unreadable_vms:
      description: Ids of virtual machines on the host that the account may not read.
      type: list
      elements: str
    vgpu_types:
      description: vGPU profiles that the host offers now.
      type: list
      elements: str
    vm_names:
      description: Names of the virtual machines on the host.
      type: list
      elements: str
    powered_on_vms:
      description: Those that keep the host from maintenance mode; vCLS agents do not count.
      type: list
      elements: str
    drs_moves_vms:
      description: Those of C(powered_on_vms) that DRS moves away by itself.
      type: list
      elements: str
    devices:
      description: All PCI functions of the host for which vSphere knows whether they are passed through.
      type: list
      elements: dict
    gpus:
      description: The GPUs among them, by address.
      type: list
      elements: dict
      contains:
        address:
          description: PCI address.
          type: str
        id:
          description: Vendor and device id in hex.
          type: str
        name:
          description: Name of vendor and device.
          type: str
        model:
          description: Key in the catalogue, for example V(V100-32); null for an unknown GPU.
          type: str
        board:
          description: Name of the board in vGPU profiles.
          type: str
        framebuffer_gb:
          description: Size of the GPU's memory in GB.
          type: int
        bars_mb:
          description: Sizes of BAR 0, 1 and 3 in MB.
          type: list
          elements: float
        passthrough_capable:
          description: Whether the device can be passed through.
          type: bool
        passthrough_enabled:
          description: Whether passthrough is set.
          type: bool
        passthrough_active:
          description: Whether passthrough is in effect. If it differs from C(passthrough_enabled), a reboot is needed.
          type: bool
        hardware_label:
          description: Label for dynamic DirectPath I/O.
          type: str
        graphics_type:
          description: V(basic), V(shared), V(direct) or V(sharedDirect); null if the host does not say.
          type: str
        vgpu_mode:
          description: V(none), V(sameSize), V(mixedSize) or V(multiInstanceGpu).
          type: str
        used_by:
          description: Virtual machines that run with it now.
          type: list
          elements: str
        configured_in:
          description: Virtual machines that have it as a fixed device, running or not.
          type: list
          elements: str
        free:
          description: Whether no virtual machine uses it or has it as a fixed device.
          type: bool
    vgpus:
      description: By virtual machine on the host that has vGPUs, running or not, their profiles.
      type: dict
objects:
  description: For each host, whether its facts are complete, and if not, why.
  returned: always
  type: dict
requests:
  description: Number of requests made to the vCenter by method.
  returned: always
  type: dict
failure:
  description: Code, object and vSphere fault of the (first) failure.
  returned: on failure
  type: dict
"""

import dataclasses
import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.catalog import Catalog, OverrideError
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.describe import describe_host
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.facts import HostFacts, VmFacts
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.ownership import unknown_host
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.plan import ObjectPlan
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.client import Client
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.errors import InputError
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.module import (
    Params,
    Planned,
    bulk_module,
    with_assumed,
)
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.options import Spec
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.reads import Found, read_fleet


@dataclasses.dataclass(frozen=True, slots=True)
class Facts:
    hosts: Found[HostFacts]
    vms: tuple[VmFacts, ...]


def argument_spec() -> Spec:
    return {
        "hosts": {"type": "list", "elements": "str"},
        "bar_overrides": {"type": "dict", "default": {}},
    }


def prepare(module: AnsibleModule) -> None:
    try:
        Catalog(module.params["bar_overrides"])
    except OverrideError as error:
        raise InputError(str(error)) from error


def read(client: Client, params: Params) -> Facts:
    hosts, vms = read_fleet(client, params["hosts"])
    return Facts(hosts, vms)


def plan(facts: Facts, params: Params) -> Planned:
    catalog = Catalog(params["bar_overrides"])
    hosts = with_assumed(facts.hosts, params)
    names = list(dict.fromkeys(params["hosts"])) if params["hosts"] is not None else sorted(hosts)
    guests: dict[str | None, list[VmFacts]] = {}
    for vm in facts.vms:
        guests.setdefault(vm.host, []).append(vm)
    described: dict[str, dict[str, t.Any]] = {}
    plans: dict[str, ObjectPlan] = {}
    for name in names:
        if name in hosts:
            described[name], plans[name] = describe_host(hosts[name], guests.get(name, ()), catalog)
        else:
            plans[name] = unknown_host(name, facts.hosts.known)
    return Planned(plans=plans, returns={"hosts": described})


def main() -> None:
    bulk_module(argument_spec(), prepare=prepare, read=read, plan=plan)


if __name__ == "__main__":
    main()
