# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Stop after the k-th call to the vCenter, for every k, and run again: the end is the same every time."""

from __future__ import annotations

import pytest
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.facts import HostFacts
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.client import Client
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.reads import read_hosts
from ansible_collections.gpuops.vsphere.plugins.modules import esxi_maintenance, esxi_passthrough, esxi_power
from in_process import CrashError, Fuse, options, step
from simulated import StartVcenter, Vcenter, fleet

HOSTS = 100
V100 = {"id": "10de:1db6", "address": None, "class": None, "name": None}


def converge(vcenter: Vcenter, host: str) -> bool:
    """The order of work of the roles esxi_passthrough and esxi_rolling, for one host. True if anything changed."""
    device = {"name": host, "devices": [V100], "hardware_label": "v100", "enabled": None, "missing": None}
    done = [step(vcenter, esxi_passthrough, hosts=[device])]
    notes = done[0].plans[host].notes
    pending = notes["reboot_required"] or notes["reboot_in_progress"] or notes["maintenance_owner"] == "gpuops"
    if pending:
        done.append(step(vcenter, esxi_maintenance, hosts=[host], state="entered"))
        done.append(step(vcenter, esxi_power, hosts=[host]))
    if pending or notes["unfinished"]:
        done.append(step(vcenter, esxi_maintenance, hosts=[host], state="left"))
    return any(planned.todo for planned in done)


def seen(vcenter: Vcenter) -> dict[str, HostFacts]:
    with Client.open(options(vcenter)) as client:
        return dict(read_hosts(client))


def test_every_crash_is_finished_by_the_next_run(start_vcenter: StartVcenter, monkeypatch: pytest.MonkeyPatch) -> None:
    # Fast by short times: whose maintenance mode it is, is told by the vCenter's clock.
    vcenter = start_vcenter(fleet(HOSTS, timings={"maintenance": 1, "boot": 2}), time_scale=60)
    fuse = Fuse(monkeypatch)
    names: list[str] = []
    crashed = True
    while crashed:  # until the fuse is longer than the whole work
        name = f"esx-{len(names) + 1:03}.lab"
        names.append(name)
        fuse.calls, fuse.limit = 0, len(names)
        try:
            converge(vcenter, name)
            crashed = False
        except CrashError:
            fuse.limit = None
            converge(vcenter, name)
        fuse.limit = None
        assert converge(vcenter, name) is False, f"after call {len(names)}"
    assert len(names) > 30
    hosts = seen(vcenter)
    wanted = hosts[names[-1]]
    assert all(device.passthrough_active for device in wanted.devices if device.id == V100["id"])
    for number, name in enumerate(names, start=1):
        host = hosts[name]
        assert (host.in_maintenance, host.intent, host.devices) == (False, None, wanted.devices), f"after call {number}"
    assert vcenter.counts()["requests"]["RebootHost_Task"] == len(names)
