# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Stop after the k-th call to the vCenter while virtual machines are changed, for every k, and run again."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.facts import VmFacts
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.client import Client
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.options import ConnectionOptions
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.reads import read_vms
from ansible_collections.gpuops.vsphere.plugins.modules import vm_gpu, vm_group, vm_power, vm_shares
from gpu_vms import TEMPLATE, gpu_fleet, machine, vgpu_fleet
from in_process import CrashError, Fuse, step
from simulated import StartVcenter, Vcenter

MACHINES = 60
ANYTHING: dict[str, Any] = dict.fromkeys(("id", "address", "label", "profile", "name", "at_least_gb", "at_most_gpu"))
ONE: dict[str, Any] = ANYTHING | {
    "count": "1",
    "migrate": False,
    "suspend": False,
    "profile_class": None,
}
FIXED = ONE | {"mode": "fixed", "id": "10de:1db6"}
VGPU = ONE | {"mode": "vgpu", "at_least_gb": 20.0}


def attach(vcenter: Vcenter, name: str, gpu: dict[str, Any]) -> bool:
    """Give a machine its GPU, powered off for that if it runs. True if anything changed."""
    want = {"name": name, "host": None, "gpus": [gpu], "memory_mb": None, "firmware": None}
    return bool(step(vcenter, vm_gpu, vms=[want], power="allow").todo)


def cycle(vcenter: Vcenter, name: str) -> bool:
    """Suspend and resume, off and on: in the end it runs."""
    done = [step(vcenter, vm_power, vms=[name], state=state).todo for state in ("resumed", "on")]
    return any(done)


def share(vcenter: Vcenter, name: str) -> bool:
    want = {"name": name, "cpu": {"shares": "high", "reservation": 1000, "limit": None}, "memory": None}
    return bool(step(vcenter, vm_shares, vms=[want], pools=[]).todo)


def group(vcenter: Vcenter, name: str, host: str, state: str) -> bool:
    """Clone a machine, or remove it though it runs."""
    asked = dict.fromkeys(("datastore", "folder", "resource_pool", "num_cpus", "memory_mb"))
    want = asked | {"name": name, "host": host, "template": TEMPLATE, "annotation": "A clone."}
    return bool(step(vcenter, vm_group, vms=[want], state=state, force_power_off=True).todo)


def seen(vcenter: Vcenter, names: list[str]) -> dict[str, VmFacts]:
    options = ConnectionOptions.from_params({"validate_certs": True, "thumbprint": None, **vcenter.options()})
    with Client.open(options) as client:
        return dict(read_vms(client, names))


@pytest.mark.parametrize("work", ["fixed", "vgpu", "resume", "shares"])
def test_every_crash_is_finished_by_the_next_run(
    start_vcenter: StartVcenter, monkeypatch: pytest.MonkeyPatch, work: str
) -> None:
    machines = [machine(f"vm-{n:02}", f"esx-{n:03}.lab", power="on") for n in range(1, MACHINES + 1)]
    fleet = gpu_fleet if work == "fixed" else vgpu_fleet
    vcenter = start_vcenter(fleet(MACHINES, vms=machines), time_scale=50_000)
    if work == "resume":
        step(vcenter, vm_power, vms=[one["name"] for one in machines], state="suspended")
    gpu = FIXED if work == "fixed" else VGPU

    def run(name: str) -> bool:
        if work in ("fixed", "vgpu"):
            return attach(vcenter, name, gpu)
        return cycle(vcenter, name) if work == "resume" else share(vcenter, name)

    fuse = Fuse(monkeypatch)
    names: list[str] = []
    crashed = True
    while crashed:  # until the fuse is longer than the whole work
        name = f"vm-{len(names) + 1:02}"
        names.append(name)
        fuse.calls, fuse.limit = 0, len(names)
        try:
            run(name)
            crashed = False
        except CrashError:
            fuse.limit = None
            run(name)
        fuse.limit = None
        assert run(name) is False, f"after call {len(names)}"
    found = seen(vcenter, names)
    for name, vm in found.items():
        last = found[names[-1]]
        assert (vm.power, vm.intent, vm.gpus, vm.extra_config) == ("poweredOn", None, last.gpus, last.extra_config), (
            name
        )
    assert len(names) > 8


@pytest.mark.parametrize("state", ["present", "absent"])
def test_every_crash_of_making_and_removing_machines_is_finished_by_the_next_run(
    start_vcenter: StartVcenter, monkeypatch: pytest.MonkeyPatch, state: str
) -> None:
    hosts = {f"vm-{n:02}": f"esx-{n:03}.lab" for n in range(1, MACHINES + 1)}
    there = [machine(name, host, power="on") for name, host in hosts.items()] if state == "absent" else []
    vcenter = start_vcenter(gpu_fleet(MACHINES, vms=there), time_scale=50_000)
    fuse = Fuse(monkeypatch)
    names: list[str] = []
    crashed = True
    while crashed:  # until the fuse is longer than the whole work
        name = list(hosts)[len(names)]
        names.append(name)
        fuse.calls, fuse.limit = 0, len(names)
        try:
            group(vcenter, name, hosts[name], state)
            crashed = False
        except CrashError:
            fuse.limit = None
            group(vcenter, name, hosts[name], state)
        fuse.limit = None
        assert group(vcenter, name, hosts[name], state) is False, f"after call {len(names)}"
    assert len(names) > 5
    found = seen(vcenter, list(hosts))
    if state == "absent":
        assert set(found) == set(hosts) - set(names)
    else:
        assert {name: (vm.host, vm.power, vm.intent) for name, vm in found.items()} == {
            name: (hosts[name], "poweredOff", None) for name in names
        }
