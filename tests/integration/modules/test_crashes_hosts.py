# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Stop the vGPU path of a host after the k-th call to the vCenter, and run again: the end is the same every time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.client import Client
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.module import Planned
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.reads import read_hosts
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.rest import Rest
from ansible_collections.gpuops.vsphere.plugins.modules import (
    advanced_options,
    esxi_driver,
    esxi_graphics,
    esxi_maintenance,
    esxi_power,
)
from in_process import CrashError, Fuse, options, step
from simulated import StartVcenter, Vcenter

HOSTS = 40
STRIDE = 3
"""Each test tries every third call, from another one; together they try all."""
BUNDLE, PATCH, NEW = "https://depot.lab/vgpu.zip", "https://depot.lab/vgpu/metadata.zip", "535.154.02"
DRS = {"PassthroughDrsAutomation": 1}


class WideFuse(Fuse):
    """Counts REST calls too."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__(monkeypatch)
        original = Rest._send

        def send(rest: Rest, verb: str, path: str, body: Any, headers: Any, names: Mapping[str, Any]) -> Any:
            self.calls += 1
            if self.limit is not None and self.calls > self.limit:
                raise CrashError
            answer = original(rest, verb, path, body, headers, names)
            if self.limit == self.calls:
                raise CrashError
            return answer

        monkeypatch.setattr(Rest, "_send", send)


def site(*, image: bool) -> dict[str, Any]:
    """Hosts whose vGPU manager is missing; with an image, each in a cluster of its own."""
    host = {"gpus": [{"gpu": "A100-40"}]}
    names = [f"esx-{number:03}.lab" for number in range(1, HOSTS + 1)]
    clusters = [{"name": f"c-{name}", "image": {}, "hosts": [{"name": name, **host}]} for name in names]
    if not image:
        clusters = [{"name": "gpu", "hosts": [{"name": f"esx-[001:{HOSTS:03}].lab", **host}]}]
    return {
        "datacenter": "lab",
        "datastores": [{"name": "shared-01"}],
        "networks": [{"name": "VM Network"}],
        "clusters": clusters,
        "timings": {"maintenance": 1, "boot": 2, "install": 1},
        "depots": {url: [{"version": NEW, "vgpu_manager": "16.3"}] for url in (BUNDLE, PATCH)},
    }


def converge(vcenter: Vcenter, host: str, *, image: bool) -> bool:
    """The order of work of vgpu_host.yml for one host. True if anything changed."""
    wish = {"name": host, "version": NEW, "bundle": BUNDLE if image else PATCH, "package": ["NVD-*"]}
    driver = {"hosts": [{**wish, "method": "auto", "state": "present", "checksum": None, "guest_drivers": []}]}
    settings = {"name": host, "default_type": "sharedDirect", "assignment_policy": None, "devices": []}
    graphics = {"hosts": [{**settings, "missing": None, "restart_services": None}]}
    done: list[Planned] = []
    found = step(vcenter, esxi_driver, **driver, outside_maintenance="report")
    done.append(found)
    notes = found.plans[host].notes
    done.append(step(vcenter, esxi_graphics, **graphics))
    if image:
        clusters = [{"name": f"c-{host}", "drs_options": DRS}]
        done.append(step(vcenter, advanced_options, clusters=clusters))
    pending = (
        notes["maintenance_required"]
        or notes["reboot_required"]
        or notes["reboot_in_progress"]
        or notes["maintenance_owner"] == "gpuops"
    )
    if pending:
        done.append(step(vcenter, esxi_maintenance, hosts=[host], state="entered"))
        done.append(step(vcenter, esxi_driver, **driver))
        done.append(step(vcenter, esxi_power, hosts=[host], always=[]))
    if pending or notes["unfinished"]:
        done.append(step(vcenter, esxi_maintenance, hosts=[host], state="left"))
    return any(planned.todo for planned in done)


@pytest.mark.parametrize("first", range(1, STRIDE + 1))
@pytest.mark.parametrize("image", [False, True], ids=["host patch", "cluster image"])
def test_every_crash_is_finished_by_the_next_run(
    start_vcenter: StartVcenter, monkeypatch: pytest.MonkeyPatch, image: bool, first: int
) -> None:
    # Fast by short times: whose maintenance mode it is, is told by the vCenter's clock.
    vcenter = start_vcenter(site(image=image), time_scale=60)
    fuse = WideFuse(monkeypatch)
    names: list[str] = []
    crashed = True
    while crashed:  # until the fuse is longer than the whole work
        name = f"esx-{len(names) + 1:03}.lab"
        names.append(name)
        limit = first + STRIDE * (len(names) - 1)
        fuse.calls, fuse.limit = 0, limit
        try:
            converge(vcenter, name, image=image)
            crashed = False
        except CrashError:
            fuse.limit = None
            converge(vcenter, name, image=image)
        fuse.limit = None
        assert converge(vcenter, name, image=image) is False, f"after call {limit}"
    assert len(names) > 15
    with Client.open(options(vcenter)) as client:
        hosts = read_hosts(client)
    for name in names:
        host = hosts[name]
        assert (host.in_maintenance, host.intent, host.reboot_pending) == (False, None, False), name
        assert host.vgpu_types, name
