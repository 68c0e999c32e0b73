#!/usr/bin/python
# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: esxi_driver
short_description: Bring the vGPU manager (host driver) of ESXi hosts to a wanted version
version_added: "0.1.0"
author:
  - The gpuops.vsphere contributors (@gpuops)
description:
  - Installs, upgrades, downgrades or removes the NVIDIA vGPU manager on many ESXi hosts.
  - Where the cluster of a host is managed with an image (vSphere Lifecycle Manager), the component is set in the image,
    once for the cluster, and the hosts of the call are checked and remediated. Elsewhere C(esxcli) on the host takes
    the bundle, or the host takes a host patch; see O(hosts[].method).
  - A host must be in maintenance mode, by this collection. What somebody else has put there is left alone.
  - The driver works after a reboot. The reboot that is due is recorded on the host, so that
    M(gpuops.vsphere.esxi_power) does it, also when this run is interrupted.
options:
  hosts:
    description:
      - The hosts, and which driver each is to have.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description:
          - Name of the host in the vCenter.
        type: str
        required: true
      version:
        description:
          - Version of the vGPU manager, as NVIDIA writes it (V(535.154.02)) or with the build suffix of the package.
          - Needed unless O(hosts[].state=absent).
        type: str
      bundle:
        description:
          - URL of the offline bundle (ZIP), as the vCenter or the hosts can download it, or its path on the host; for a
            host patch the URL of a C(metadata.zip) or a C(.vib). See O(hosts[].method).
        type: str
      checksum:
        description:
          - SHA-256 of the bundle, as V(sha256:) and 64 hex digits.
          - Before anything is installed, a bundle with a URL is downloaded and compared. A bundle that cannot be
            downloaded from here is a warning; one that differs is an error. A path is on the host, where the role
            P(gpuops.vsphere.grid_host_driver#role) compares it. A removal compares nothing.
        type: str
      package:
        description:
          - Shell patterns for the name of the package or component. Case is ignored.
          - The default knows the host drivers of all releases. The GPU management daemon is never taken for the driver.
        type: list
        elements: str
        default: [NVD-VGPU*, NVD-AIE*, NVD-VMware*, NVIDIA-VMware*, NVIDIA-vGPU*, NVIDIA-AIE*]
      method:
        description:
          - V(image) by the cluster's image, from the URL of an offline bundle (ZIP).
          - V(patch) as a host patch, from the URL of the C(metadata.zip) of an unpacked offline bundle, or of a
            C(.vib). ESXi takes no ZIP this way. What is installed is compared afterwards. A patch is removed (so also
            for a downgrade) by the bulletin that has brought it, where the host knows one. VMware has deprecated host
            patches since vSphere 8.0 U3.
          - V(esxcli) only prepares the host and returns the C(commands) to run on it, as the role
            P(gpuops.vsphere.grid_host_driver#role) does by SSH. It takes a ZIP or a C(.vib), by URL or path.
          - V(auto) takes the image where the cluster has one, else the patch for the URL of a C(metadata.zip) or a
            C(.vib), else esxcli; esxcli for a removal.
        type: str
        choices: [auto, image, patch, esxcli]
        default: auto
      guest_drivers:
        description:
          - Versions of the drivers that the guests on the host have or are to have. A vGPU manager that does not go
            with one of them, or with the host's ESXi, is refused.
        type: list
        elements: str
        default: []
      state:
        description:
          - Whether the driver is to be there.
        type: str
        choices: [present, absent]
        default: present
  outside_maintenance:
    description:
      - What a host in service means that needs a change. With V(report) its entry says so
        (C(maintenance_required), C(pending)), and nothing is done to it.
    type: str
    choices: [fail, report]
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
seealso:
  - module: gpuops.vsphere.esxi_maintenance
  - module: gpuops.vsphere.esxi_power
  - module: gpuops.vsphere.esxi_graphics
"""

EXAMPLES = r"""
- name: Have the same vGPU manager on two hosts of a cluster with an image, both in maintenance mode
  gpuops.vsphere.esxi_driver:
    hostname: vcenter.example.org
    username: "{{ vcenter_username }}"
    password: "{{ vcenter_password }}"
    hosts:
      - name: esx-gpu-01.example.org
        version: 535.154.02
        bundle: https://depot.example.org/NVD-VGPU-800_535.154.02-1OEM.800.1.0.20613240.zip
        checksum: sha256:2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae
      - name: esx-gpu-02.example.org
        version: 535.154.02
        bundle: https://depot.example.org/NVD-VGPU-800_535.154.02-1OEM.800.1.0.20613240.zip

- name: Say what would have to be done, without asking for maintenance mode
  gpuops.vsphere.esxi_driver:
    hostname: vcenter.example.org
    username: "{{ vcenter_username }}"
    password: "{{ vcenter_password }}"
    hosts:
      - name: esx-gpu-01.example.org
        state: absent
    outside_maintenance: report
  check_mode: true
"""

RETURN = r"""
objects:
  description: What was done, or would be done, to each host.
  returned: always
  type: dict
  sample:
    esx-gpu-01.example.org:
      changed: true
      failed: false
      actions: ["install vGPU manager (535.154.02, host patch)"]
      warnings: []
      method: patch
      installed: 535.154.02
      loaded: false
      maintenance_required: false
      reboot_required: true
  contains:
    changed:
      description: Whether this host was or would be changed.
      type: bool
    failed:
      description: Whether this host could not be brought to the wanted state.
      type: bool
    msg:
      description: Why it failed and what to do.
      type: str
    method:
      description: V(image), V(patch) or V(esxcli).
      type: str
    installed:
      description: Version of the driver after the change, null for none.
      type: str
    loaded:
      description: Whether the driver had any GPU of the host before the change.
      type: bool
    vgpu_types:
      description: vGPU profiles that the host offered before the change.
      type: list
      elements: str
    maintenance_required:
      description: Whether the host needs a change and is in service.
      type: bool
    pending:
      description: With O(outside_maintenance=report), what has to be done in maintenance mode.
      type: list
      elements: str
    reboot_required:
      description: Whether the host must reboot for the driver, or for another change of its software.
      type: bool
    commands:
      description: For the method V(esxcli), what is to be run on the host.
      type: list
      elements: str
    left_alone:
      description: Whether nothing was done because somebody else has the host in maintenance mode.
      type: bool
predicted:
  description: The hosts' facts after the change, as far as they differ, for O(assume) of later steps.
  returned: always
  type: dict
requests:
  description: Number of requests made to the vCenter by method; those of the REST API by verb and path.
  returned: always
  type: dict
failure:
  description: Code, object and vSphere fault of the (first) failure.
  returned: on failure
  type: dict
"""

import dataclasses
import re
import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.facts import HostFacts, predicted_host
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.host_driver import (
    PACKAGES,
    DriverWish,
    DriverWork,
    Software,
    plan_driver,
)
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.client import Client
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.errors import InputError
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.images import read_images
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.module import (
    Applied,
    Params,
    Planned,
    applied,
    bulk_module,
    problem,
    with_assumed,
)
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.options import Spec
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.reads import Found, read_hosts
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.rest import Rest
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.software import (
    apply_driver,
    check_bundle,
    read_packages,
)
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.tasks import Bounds


@dataclasses.dataclass(frozen=True, slots=True)
class Facts:
    hosts: Found[HostFacts]
    software: Software
    rest: Rest


def argument_spec() -> Spec:
    host: Spec = {
        "name": {"type": "str", "required": True},
        **{key: {"type": "str"} for key in ("version", "bundle", "checksum")},
        "package": {"type": "list", "elements": "str", "default": list(PACKAGES)},
        "method": {"type": "str", "choices": ["auto", "image", "patch", "esxcli"], "default": "auto"},
        "guest_drivers": {"type": "list", "elements": "str", "default": []},
        "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    }
    return {
        "hosts": {"type": "list", "elements": "dict", "required": True, "options": host},
        "outside_maintenance": {"type": "str", "choices": ["fail", "report"], "default": "fail"},
    }


def prepare(module: AnsibleModule) -> None:
    mistakes = []
    seen = set()
    for host in module.params["hosts"]:
        name = host["name"]
        if name in seen:
            mistakes.append(f"{name} is listed twice")
        seen.add(name)
        if host["state"] == "present" and not host["version"]:
            mistakes.append(f"{name}: version is missing; write it as NVIDIA does, for example 535.154.02")
        if not host["package"]:
            mistakes.append(f"{name}: package is empty; leave it out for the names that NVIDIA uses")
        if host["checksum"] and not re.fullmatch(r"sha256:[0-9a-fA-F]{64}", host["checksum"]):
            mistakes.append(f"{name}: checksum must be sha256: and 64 hex digits, as `sha256sum` prints them")
    if mistakes:
        raise InputError("hosts: " + "; ".join(mistakes) + ".")


def read(client: Client, params: Params) -> Facts:
    hosts = read_hosts(client, [host["name"] for host in params["hosts"]])
    rest = Rest(client)
    images = read_images(client, rest, {host.cluster for host in hosts.values() if host.cluster}) if hosts else {}
    return Facts(hosts, Software(read_packages(client, hosts, max_parallel=params["max_parallel"]), images), rest)


def wishes(params: Params) -> list[DriverWish]:
    """What is wanted of each host."""
    return [
        DriverWish(
            host["name"],
            host["version"] if host["state"] == "present" else None,
            host["bundle"],
            tuple(host["package"]),
            None if host["method"] == "auto" else host["method"],
            tuple(host["guest_drivers"]),
        )
        for host in params["hosts"]
    ]


def plan(facts: Facts, params: Params) -> Planned:
    hosts = with_assumed(facts.hosts, params)
    plans = plan_driver(
        hosts,
        wishes(params),
        facts.software,
        known=facts.hosts.known,
        outside_maintenance=params["outside_maintenance"],
    )
    return Planned(
        plans={name: item.plan for name, item in plans.items()},
        hosts={
            name: predicted_host(hosts[name], item.after)
            for name, item in plans.items()
            if not item.plan.failed and item.after is not None and item.after != hosts[name]
        },
        work={name: item.work for name, item in plans.items()},
    )


def apply(client: Client, facts: Facts, planned: Planned, params: Params) -> t.Mapping[str, Applied]:
    work = {name: planned.work[name] for name in planned.todo}
    # A path is the host's, where the role reads it; nothing is downloaded to remove a driver.
    checked = {
        host["name"]: (work[host["name"]].bundle, host["checksum"])
        for host in params["hosts"]
        if host["checksum"] and host["name"] in work and _is_downloaded(work[host["name"]])
    }
    refused: dict[tuple[str, str], InputError] = {}
    unchecked: dict[tuple[str, str], str] = {}
    for bundle, checksum in sorted(set(checked.values())):
        try:
            check_bundle(bundle, checksum)
        except InputError as error:
            refused[bundle, checksum] = error
        except LookupError as error:
            unchecked[bundle, checksum] = str(error)
    done: dict[str, Applied] = {}
    for name, key in checked.items():
        if key in refused:
            del work[name]
            done[name] = Applied(changed=False, problems=(problem(name, refused[key]),))
    done |= applied(apply_driver(client, facts.rest, facts.hosts, facts.software.packages, work, Bounds.of(params)))
    facts.rest.close()
    for name, key in checked.items():
        if key in unchecked:
            warnings = [*planned.plans[name].warnings, unchecked[key]]
            done[name] = dataclasses.replace(done[name], notes={**done[name].notes, "warnings": warnings})
    return done


def _is_downloaded(work: DriverWork) -> bool:
    return work.version is not None and "://" in (work.bundle or "")


def main() -> None:
    bulk_module(argument_spec(), prepare=prepare, read=read, plan=plan, apply=apply)


if __name__ == "__main__":
    main()
