#!/usr/bin/python
# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: harvest_report
short_description: Report what desktops and compute machines got of the CPUs over a day
version_added: "0.1.0"
author:
  - The gpuops.vsphere contributors (@gpuops)
description:
  - Reads the five-minute roll-ups of usage and ready time of desktops and compute machines from the vCenter's
    performance manager, and writes what they asked for and got as JSON, as a page for a browser, and as metrics for
    Prometheus. What a machine asked for is what it used and what it had to wait for.
  - The day is read in as few queries as the vCenter's setting C(config.vpxd.stats.maxQueryMetrics) allows; with C(-1)
    there, in one for up to a thousand machines. The other requests are the same for 1 machine and for 1,000.
  - Runs on the controller. Changes nothing in the vCenter.
options:
  desktop_pools:
    description: Resource pools of desktops, by name or path below the root pool of their cluster.
    type: list
    elements: str
    default: []
  compute_pools:
    description: Resource pools of compute machines.
    type: list
    elements: str
    default: []
  desktop_vms:
    description: Names of desktops.
    type: list
    elements: str
    default: []
  compute_vms:
    description: Names of compute machines.
    type: list
    elements: str
    default: []
  hours:
    description: How much to report, back from now. A vCenter keeps samples of five minutes for a day.
    type: int
    default: 24
  timezone:
    description: Time zone in which the page shows times.
    type: str
    default: UTC
  title:
    description: Title of the page.
    type: str
    default: Cycle harvesting
  path:
    description: The file to write as JSON, see docs/harvesting.md.
    type: path
  page_path:
    description: The page to write, one HTML file. A file that is no such page is never overwritten.
    type: path
  metrics_path:
    description:
      - The file of metrics to write, for the textfile collector of Prometheus' node_exporter; it ends with C(.prom).
    type: path
  mode:
    description: Permissions of the files, in octal.
    type: str
    default: "0644"
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
    support: none
seealso:
  - module: gpuops.vsphere.vm_shares
  - module: gpuops.vsphere.fleet_report
"""

EXAMPLES = r"""
- name: What desktops and compute machines got since yesterday
  gpuops.vsphere.harvest_report:
    hostname: vcenter.example.org
    username: "{{ vcenter_username }}"
    password: "{{ vcenter_password }}"
    desktop_pools: [desktops]
    compute_pools: [compute]
    path: /srv/www/harvest-day.json
    page_path: /srv/www/harvest-day.html
    timezone: Europe/Berlin
"""

RETURN = r"""
figures:
  description: The numbers of the day, such as C(desktops_got), C(harvested_ghz_hours) and C(utilisation_with).
  returned: always
  type: dict
charts:
  description: CPU time by use, and what each kind asked for and got, as the fleet page draws them.
  returned: always
  type: list
  elements: dict
objects:
  description: For each file, whether it was written; for each machine or pool that cannot be found, why.
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
import re
import typing as t
import zoneinfo

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu import harvest_day
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.fleet_page import day_page, files, metrics
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.harvest_day import Kind, Machine
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.harvest_members import Listed, members
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.plan import Change, ObjectPlan, Problem
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
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.performance import (
    read_measured,
    read_samples,
    vcenter_now,
)

_KINDS: t.Final[dict[Kind, tuple[str, str]]] = {
    "desktop": ("desktop_pools", "desktop_vms"),
    "compute": ("compute_pools", "compute_vms"),
}
_PATHS: t.Final = ("path", "page_path", "metrics_path")


@dataclasses.dataclass(frozen=True, slots=True)
class Facts:
    day: harvest_day.Day
    problems: tuple[Problem, ...]
    now: datetime.datetime


def argument_spec() -> Spec:
    names: Spec = {
        option: {"type": "list", "elements": "str", "default": []} for pair in _KINDS.values() for option in pair
    }
    return {
        **names,
        "hours": {"type": "int", "default": 24},
        "timezone": {"type": "str", "default": "UTC"},
        "title": {"type": "str", "default": "Cycle harvesting"},
        **{option: {"type": "path"} for option in _PATHS},
        "mode": {"type": "str", "default": "0644"},
        "assets": {"type": "path"},
    }


def prepare(module: AnsibleModule) -> None:
    params = module.params
    if not 1 <= params["hours"] <= 24:
        raise InputError(f"hours: {params['hours']} is not 1 to 24: a vCenter keeps samples of five minutes for a day.")
    if not re.fullmatch(r"0?[0-7]{3}", params["mode"]):
        raise InputError(f"mode: {params['mode']!r} is no mode in octal, such as 0644.")
    try:
        zoneinfo.ZoneInfo(params["timezone"])
    except (zoneinfo.ZoneInfoNotFoundError, ValueError) as error:
        raise InputError(f"timezone: {params['timezone']!r} is no time zone, such as Europe/Berlin.") from error
    if params["metrics_path"] and not params["metrics_path"].endswith(".prom"):
        raise InputError(f"metrics_path: {params['metrics_path']} does not end with .prom, as the collector wants it.")
    _held(params)
    if params["page_path"]:
        _assets(params)


def _held(params: Params) -> dict[str, str | None]:
    """The text of each file that is there. Raises InputError for what must not be replaced."""
    kinds = {"path": files.is_json, "page_path": day_page.is_page, "metrics_path": metrics.is_metrics}
    found = {}
    for option, is_ours in kinds.items():
        if params[option]:
            try:
                found[option] = files.text_of(params[option], is_ours)
            except files.RefusedError as error:
                raise InputError(f"{option}: {error}") from error
    return found


def _assets(params: Params) -> dict[str, str]:
    try:
        return files.assets(params["assets"], day_page.ASSETS)
    except OSError as error:
        raise InputError(
            f"assets: {error.filename or 'nothing was given'} cannot be read: {error.strerror}. "
            "Run the module on the controller, where the collection is."
        ) from error


def read(client: Client, params: Params) -> Facts:
    measured = read_measured(client)
    found, problems = members(
        {kind: Listed(params[pools], params[vms]) for kind, (pools, vms) in _KINDS.items()},
        measured.vms,
        measured.pools,
    )
    now = vcenter_now(client)
    begin = now - datetime.timedelta(hours=params["hours"])
    listed = [vm for vms in found.values() for vm in vms]
    samples = read_samples(client, measured, listed, begin, now)
    hosts = {vm.host: measured.hosts[vm.host] for vm in listed if vm.host is not None and vm.host in measured.hosts}
    machines = [
        Machine(vm.name, kind, hosts[vm.host].core_mhz if vm.host in hosts else 0, samples.get(vm.moid, {}))
        for kind, vms in found.items()
        for vm in vms
    ]
    capacity = sum(host.cores * host.core_mhz for host in hosts.values())
    return Facts(harvest_day.day(machines, harvest_day.grid(begin, now), float(capacity)), problems, now)


def plan(facts: Facts, params: Params) -> Planned:
    made = facts.now.astimezone(datetime.UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    report = harvest_day.report(facts.day, generated=made, source=str(params["hostname"]), timezone=params["timezone"])
    texts: dict[str, str] = {}
    if params["path"]:
        texts[params["path"]] = json.dumps(report, indent=1, sort_keys=True, allow_nan=False) + "\n"
    if params["page_path"]:
        texts[params["page_path"]] = day_page.render(report, _assets(params), params["title"])
    if params["metrics_path"]:
        texts[params["metrics_path"]] = metrics.text(metrics.of_day(report))
    held = {params[option]: text for option, text in _held(params).items()}
    plans = {
        path: ObjectPlan(
            path, (Change("write", path, None if held[path] is None else "an earlier report", f"the report of {made}"),)
        )
        for path in texts
    }
    problems: dict[str, list[Problem]] = {}
    for problem in facts.problems:
        problems.setdefault(problem.object, []).append(problem)
    return Planned(
        plans={**plans, **{name: ObjectPlan(name, problems=tuple(found)) for name, found in problems.items()}},
        returns={"figures": report["figures"], "charts": report["charts"]},
        work=texts,
    )


def apply(_client: Client, _facts: Facts, planned: Planned, params: Params) -> dict[str, Applied]:
    for path in planned.todo:
        try:
            write_whole(path, planned.work[path], int(params["mode"], 8))
        except OSError as error:
            raise InputError(f"{path} cannot be written: {error.strerror}.") from error
    return {path: Applied(changed=True) for path in planned.todo}


def main() -> None:
    bulk_module(argument_spec(), prepare=prepare, read=read, plan=plan, apply=apply, required_one_of=[list(_PATHS)])


if __name__ == "__main__":
    main()
