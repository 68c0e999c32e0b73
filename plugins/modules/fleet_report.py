#!/usr/bin/python
# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: fleet_report
short_description: Write a page that shows a fleet of GPU hosts
version_added: "0.1.0"
author:
  - The gpuops.vsphere contributors (@gpuops)
description:
  - Reads clusters, hosts, GPUs, vGPUs and the virtual machines that hold them, and writes one HTML file that shows
    them, with what is free and what waits for an operator. The file holds all that it needs and makes no request.
  - Runs on the controller. A page on which only its time would differ is written anew with it, which is no change.
  - Changes nothing in the vCenter.
options:
  path:
    description:
      - The file to write. A file that is no fleet page is never overwritten.
    type: path
    required: true
  mode:
    description: Permissions of the file, in octal.
    type: str
    default: "0644"
  title:
    description: Title of the page.
    type: str
    default: GPU fleet
  hosts:
    description:
      - Names of the hosts in the vCenter. If not set, all hosts that have GPUs.
    type: list
    elements: str
  bar_overrides:
    description: As for M(gpuops.vsphere.esxi_gpu_info).
    type: dict
    default: {}
  tenants:
    description: By tenant, shell patterns of the names of its virtual machines; the first that fits counts.
    type: dict
    default: {}
  jobs_file:
    description:
      - JSON file with the pool's jobs, what C(squeue --json) prints, or the shape in docs/fleet_page.md. If not set,
        the page shows no jobs.
    type: path
  shards_per_gpu:
    description: How many shards Slurm cuts a GPU into, to say which part of a GPU a job has.
    type: int
    default: 10
  doctor_file:
    description: JSON file with the findings of the role gpu_doctor (its C(gpu_doctor_file)).
    type: path
  plan_file:
    description:
      - JSON file with a plan of M(gpuops.vsphere.gpu_plan) (C(gpu_fleet_plan_file) of the role gpu_fleet).
    type: path
  harvest_file:
    description:
      - JSON file with the report of harvesting by hand-over (C(harvest.json)), or with charts, see docs/fleet_page.md.
    type: path
  day_file:
    description: JSON file that M(gpuops.vsphere.harvest_report) has written, a day of harvesting by shares.
    type: path
  benchmark_file:
    description: JSON file with charts of the sharing benchmark, see docs/fleet_page.md.
    type: path
  metrics_path:
    description:
      - File for the same numbers as metrics, for the textfile collector of Prometheus' node_exporter; it ends with
        C(.prom). Written anew each time, which is no change. docs/metrics.md lists them.
    type: path
  assets:
    description: Directory with what the page is made of. If not set, that of the collection's role report.
    type: path
extends_documentation_fragment:
  - gpuops.vsphere.vsphere
  - gpuops.vsphere.vsphere.bulk
  - gpuops.vsphere.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
    details:
      - Shows what the page says of which object, before and after.
seealso:
  - module: gpuops.vsphere.esxi_gpu_info
"""

EXAMPLES = r"""
- name: Write the page for the wall display
  gpuops.vsphere.fleet_report:
    hostname: vcenter.example.org
    username: "{{ vcenter_username }}"
    password: "{{ vcenter_password }}"
    path: /srv/www/gpus.html
    title: GPUs of the computing centre
    tenants:
      physics: ["phys-*"]
      chemistry: ["chem-*", "md-*"]
"""

RETURN = r"""
totals:
  description: The figures at the head of the page, such as C(hosts), C(gpus), C(vgpus) and C(vms).
  returned: always
  type: dict
capacity:
  description: For each profile, how many are C(used) and how many more of it alone would be C(free) to start now.
  returned: always
  type: list
  elements: dict
objects:
  description: For the file, whether it changed, and what.
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
import datetime
import json
import pathlib
import re
import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.catalog import Catalog, OverrideError
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.facts import HostFacts, VmFacts
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.fleet_page import files, inputs, metrics, render
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.fleet_page.build import Inputs, build_page
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.fleet_page.model import Page, to_dict
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.ownership import unknown_host
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.plan import Change, ObjectPlan
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.whole_file import write_whole
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.client import Client
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.errors import InputError
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.module import (
    Applied,
    Params,
    Planned,
    bulk_module,
)
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.options import Spec
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.reads import Found, read_fleet

_MOST_CHANGES = 40
"""Lines of a diff; what is beyond is counted."""


@dataclasses.dataclass(frozen=True, slots=True)
class Facts:
    hosts: Found[HostFacts]
    vms: tuple[VmFacts, ...]
    now: str


def argument_spec() -> Spec:
    return {
        "path": {"type": "path", "required": True},
        "mode": {"type": "str", "default": "0644"},
        "title": {"type": "str", "default": "GPU fleet"},
        "hosts": {"type": "list", "elements": "str"},
        "bar_overrides": {"type": "dict", "default": {}},
        "tenants": {"type": "dict", "default": {}},
        "jobs_file": {"type": "path"},
        "shards_per_gpu": {"type": "int", "default": 10},
        "doctor_file": {"type": "path"},
        "plan_file": {"type": "path"},
        "harvest_file": {"type": "path"},
        "day_file": {"type": "path"},
        "benchmark_file": {"type": "path"},
        "metrics_path": {"type": "path"},
        "assets": {"type": "path"},
    }


def prepare(module: AnsibleModule) -> None:
    params = module.params
    try:
        Catalog(params["bar_overrides"])
    except OverrideError as error:
        raise InputError(str(error)) from error
    if not re.fullmatch(r"0?[0-7]{3}", params["mode"]):
        raise InputError(f"mode: {params['mode']!r} is no mode in octal, such as 0644.")
    if params["shards_per_gpu"] < 1:
        raise InputError(f"shards_per_gpu: {params['shards_per_gpu']} is no number of parts.")
    given(params)
    _assets(params)
    _before(params)
    _check_metrics(params)


def given(params: Params) -> Inputs:
    """What the other files say. Raises InputError."""
    tenants = params["tenants"]
    for tenant, patterns in tenants.items():
        if not isinstance(patterns, list) or not all(isinstance(pattern, str) for pattern in patterns):
            raise InputError(f"tenants: {tenant} needs a list of shell patterns of names of virtual machines.")
    return Inputs(
        jobs=_file(params, "jobs_file", lambda data: inputs.jobs(data, params["shards_per_gpu"])),
        findings=_file(params, "doctor_file", inputs.findings),
        plan=_file(params, "plan_file", inputs.plan),
        harvest=(
            *(_file(params, "harvest_file", inputs.harvest) or ()),
            *(_file(params, "day_file", lambda data: inputs.charts(inputs.day(data))) or ()),
        ),
        benchmark=_file(params, "benchmark_file", inputs.charts) or (),
        tenants=tenants,
    )


F = t.TypeVar("F")


def _file(params: Params, option: str, parse: t.Callable[[t.Any], F]) -> F | None:
    name = params[option]
    if not name:
        return None
    try:
        return parse(json.loads(pathlib.Path(name).read_text("utf-8")))
    except OSError as error:
        raise InputError(
            f"{option}: {name} cannot be read: {error.strerror}. Write it first, or leave it out."
        ) from error
    except inputs.ShapeError as error:
        raise InputError(f"{option}: {name}: {error}. docs/fleet_page.md shows its shape.") from error
    except ValueError as error:
        raise InputError(f"{option}: {name} is no JSON: {error}.") from error


def _assets(params: Params) -> dict[str, str]:
    try:
        return files.assets(params["assets"])
    except OSError as error:
        raise InputError(
            f"assets: {error.filename or 'nothing was given'} cannot be read: {error.strerror}. "
            "Run the module on the controller, where the collection is."
        ) from error


def _before(params: Params) -> files.Held | None:
    try:
        return files.held(params["path"])
    except files.RefusedError as error:
        raise InputError(f"path: {error}") from error


def _check_metrics(params: Params) -> None:
    path = params["metrics_path"]
    if not path:
        return
    if not path.endswith(".prom"):
        raise InputError(f"metrics_path: {path} does not end with .prom, as the collector wants it.")
    try:
        files.text_of(path, metrics.is_metrics)
    except files.RefusedError as error:
        raise InputError(f"metrics_path: {error}") from error


def _metrics(page: Page, params: Params, now: str) -> str:
    """What the page and the files of harvesting say, as metrics."""
    nights = _file(params, "harvest_file", inputs.nights)
    day = _file(params, "day_file", inputs.day)
    return metrics.text(
        [
            *metrics.of_page(page, now),
            *(metrics.of_nights(nights) if nights else ()),
            *(metrics.of_day(day) if day else ()),
        ]
    )


def read(client: Client, params: Params) -> Facts:
    hosts, vms = read_fleet(client, params["hosts"])
    return Facts(hosts, vms, datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds").replace("+00:00", "Z"))


def plan(facts: Facts, params: Params) -> Planned:
    catalog = Catalog(params["bar_overrides"])
    named = params["hosts"]
    shown = {
        name: host
        for name, host in facts.hosts.items()
        if named is not None or any(catalog.is_gpu(function) for function in host.devices)
    }
    page = build_page(shown, facts.vms, catalog, given(params), title=params["title"], source=str(params["hostname"]))
    unknown = {name: unknown_host(name, facts.hosts.known) for name in named or () if name not in facts.hosts}
    parts, before = _assets(params), _before(params)
    path, data = params["path"], to_dict(page)
    changes = _changes(path, before, data, params["mode"])
    if before is not None and not changes and render.render(page, parts, before.former.generated) != before.text:
        changes = (Change("draw anew", path, "another edition of the page", "this edition"),)
    return Planned(
        plans={path: ObjectPlan(path, changes=changes), **unknown},
        returns={"totals": data["totals"], "capacity": data.get("capacity", [])},
        work={
            path: render.render(page, parts, facts.now),
            **({params["metrics_path"]: _metrics(page, params, facts.now)} if params["metrics_path"] else {}),
        },
        always=True,
    )


def _changes(path: str, before: files.Held | None, data: dict[str, t.Any], mode: str) -> tuple[Change, ...]:
    after = render.summary(data)
    if before is None:
        return (Change("write", path, None, f"{after['hosts']} hosts, {after['gpus']} GPUs, {after['vms']} VMs"),)
    changes = []
    if before.mode != int(mode, 8):
        changes.append(Change("set mode", path, f"{before.mode:04o}", f"{int(mode, 8):04o}"))
    was = render.summary(before.former.data)
    differing = sorted(key for key in {*was, *after} if was.get(key) != after.get(key))
    changes += [Change("show", key, was.get(key), after.get(key)) for key in differing[:_MOST_CHANGES]]
    if len(differing) > _MOST_CHANGES:
        changes.append(Change("show", f"{len(differing) - _MOST_CHANGES} more", "as before", "as now"))
    return tuple(changes)


def apply(_client: Client, _facts: Facts, planned: Planned, params: Params) -> dict[str, Applied]:
    path = params["path"]
    for name, text in planned.work.items():
        try:
            write_whole(name, text, int(params["mode"], 8))
        except OSError as error:
            option = "path" if name == path else "metrics_path"
            raise InputError(f"{option}: {name} cannot be written: {error.strerror}.") from error
    return {path: Applied(changed=planned.plans[path].changed)}


def main() -> None:
    bulk_module(argument_spec(), prepare=prepare, read=read, plan=plan, apply=apply)


if __name__ == "__main__":
    main()
