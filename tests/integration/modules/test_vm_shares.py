# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

from typing import Any

from gpu_vms import gpu_fleet, machine, vcenter_connection
from pyVmomi import vim
from simulated import StartVcenter, Vcenter

RECONFIGURE = "ReconfigVM_Task"


def with_pools(vcenter: Vcenter, *names: str) -> None:
    with vcenter_connection(vcenter) as content:
        cluster = content.rootFolder.childEntity[0].hostFolder.childEntity[0]
        pool = cluster.resourcePool
        for name in names:
            shares = vim.SharesInfo(level="normal", shares=0)
            allocation = vim.ResourceAllocationInfo(reservation=0, limit=-1, expandableReservation=True, shares=shares)
            pool = pool.CreateResourcePool(
                name, vim.ResourceConfigSpec(cpuAllocation=allocation, memoryAllocation=allocation)
            )


def test_check_set_repeat_update_reset(start_vcenter: StartVcenter) -> None:
    vcenter = start_vcenter(gpu_fleet(vms=[machine("a", power="on"), machine("b")]))
    with_pools(vcenter, "prod", "gpu")
    wanted: dict[str, Any] = {
        "vms": [{"name": "a", "cpu": {"shares": "high"}}, {"name": "b", "memory": {"shares": "5000", "limit": 20000}}],
        "pools": [{"name": "prod/gpu", "memory": {"reservation": 1024, "expandable": False}}],
    }
    planned = vcenter.ok("vm_shares", check=True, diff=True, **wanted)
    actions = {name: entry["actions"] for name, entry in planned["objects"].items()}
    assert actions == {
        "a": ["set cpu.shares"],
        "b": ["set memory.shares", "set memory.limit (20000 MB)"],
        "pool prod/gpu": ["set memory.reservation (1024 MB)", "set memory.expandable"],
    }
    assert (planned["diff"][0]["before"], planned["diff"][0]["after"]) == (
        "cpu.shares: normal\n",
        "cpu.shares: high\n",
    )
    assert not {RECONFIGURE, "UpdateConfig"} & vcenter.counts()["requests"].keys()
    made = vcenter.ok("vm_shares", **wanted)
    assert {name: entry["actions"] for name, entry in made["objects"].items()} == actions
    assert (made["requests"][RECONFIGURE], made["requests"]["UpdateConfig"]) == (2, 1)
    assert not vcenter.ok("vm_shares", **wanted)["changed"]
    assert made["objects"]["b"]["memory"]["shares"] == 5000

    back: dict[str, Any] = {
        "vms": [{"name": "b", "memory": {"shares": "normal", "limit": -1}}],
        "pools": [{"name": "prod/gpu", "cluster": "gpu", "memory": {"reservation": 0}}],
    }
    assert vcenter.ok("vm_shares", **back)["objects"]["b"]["actions"] == [
        "set memory.shares",
        "set memory.limit (none)",
    ]
    assert not vcenter.ok("vm_shares", **back)["changed"]


def test_what_stands_in_the_way(start_vcenter: StartVcenter) -> None:
    vcenter = start_vcenter(gpu_fleet(vms=[machine("a"), machine("locked", memory_locked=True)]))
    with_pools(vcenter, "prod")
    assert "one of the following is required: vms, pools" in vcenter.run("vm_shares").result["msg"]
    vms: list[dict[str, Any]] = [
        {"name": "a", "cpu": {"shares": "highest"}},
        {"name": "aa", "cpu": {"shares": "high"}},
        {"name": "golden", "cpu": {"shares": "high"}},
        {"name": "locked", "memory": {"reservation": 1024}},
    ]
    pools = [
        {"name": "prd", "cpu": {"shares": "low"}},
        {"name": "Resources", "cpu": {"shares": "low"}, "cluster": "gpu"},
        {"name": "prod", "cpu": {"reservation": 2000, "limit": 1000}},
    ]
    result = vcenter.fails("vm_shares", vms=vms, pools=pools)
    codes = {name: entry["failure"]["code"] for name, entry in result["objects"].items()}
    assert codes == {
        "a": "invalid_allocation",
        "aa": "vm_not_found",
        "golden": "is_template",
        "locked": "invalid_allocation",
        "pool prd": "pool_not_found",
        "pool Resources of gpu": "root_pool",
        "pool prod": "invalid_allocation",
    }
    assert "Did you mean prod?" in result["objects"]["pool prd"]["msg"]
    assert "as GPUs need it: leave out reservation" in result["objects"]["locked"]["msg"]
    assert not {RECONFIGURE, "UpdateConfig"} & vcenter.counts()["requests"].keys()


def test_somebody_else_changed_it_meanwhile(start_vcenter: StartVcenter) -> None:
    fault = {"method": RECONFIGURE, "nth": 1, "fault": {"type": "vim.fault.ConcurrentAccess", "message": "Changed."}}
    vcenter = start_vcenter(gpu_fleet(vms=[machine("a")]), faults=[fault])
    wanted = [{"name": "a", "cpu": {"shares": "low"}}]
    assert vcenter.fails("vm_shares", vms=wanted)["failure"]["code"] == "changed_meanwhile"
    assert vcenter.ok("vm_shares", vms=wanted)["changed"]


def test_requests_are_constant_but_for_the_writes(start_vcenter: StartVcenter) -> None:
    vcenter = start_vcenter(gpu_fleet(vms=[machine(f"vm-{number}") for number in range(1, 112)]))
    vcenter.ok("vm_power", check=True, vms=["vm-1"], state="on")  # logs in
    seen = []
    start = 1
    for count in (1, 10, 100):
        vms = [{"name": f"vm-{number}", "cpu": {"shares": "high"}} for number in range(start, start + count)]
        start += count
        requests = vcenter.ok("vm_shares", vms=vms)["requests"]
        assert requests.pop(RECONFIGURE) == count
        requests.pop("WaitForUpdatesEx")
        seen.append((requests, vcenter.ok("vm_shares", vms=vms)["requests"]))
    assert seen[0] == seen[1] == seen[2]
    assert sum(seen[0][1].values()) <= 9


def test_what_was_is_remembered_and_comes_back(start_vcenter: StartVcenter) -> None:
    vcenter = start_vcenter(gpu_fleet(vms=[machine("a", power="on"), machine("b")]))
    with_pools(vcenter, "desktops")
    own: dict[str, Any] = {"vms": [{"name": "a", "cpu": {"shares": "high", "reservation": 300}}]}
    vcenter.ok("vm_shares", **own)
    names: dict[str, Any] = {"vms": [{"name": "a"}, {"name": "b"}], "pools": [{"name": "desktops"}]}
    one = {"cpu": {"shares": "1", "reservation": 0}, "memory": {"shares": "1"}}
    wanted = {key: [item | one for item in items] for key, items in names.items()}
    before = vcenter.ok("vm_shares", **names)["objects"]
    planned = vcenter.ok("vm_shares", check=True, remember=True, **wanted)
    made = vcenter.ok("vm_shares", remember=True, **wanted)
    assert planned["objects"] == made["objects"]
    assert "set gpuops.shares" in made["objects"]["pool desktops"]["actions"]
    assert not vcenter.ok("vm_shares", remember=True, **wanted)["changed"]
    again = {"vms": [{"name": "a", "cpu": {"shares": "2"}}]}
    assert vcenter.ok("vm_shares", remember=True, **again)["objects"]["a"]["actions"] == ["set cpu.shares"]

    shown = vcenter.ok("vm_shares", state="restored", check=True, diff=True, **names)
    back = vcenter.ok("vm_shares", state="restored", **names)
    assert shown["objects"] == back["objects"]
    after = vcenter.ok("vm_shares", **names)["objects"]
    assert {name: (entry["cpu"], entry["memory"]) for name, entry in after.items()} == {
        name: (entry["cpu"], entry["memory"]) for name, entry in before.items()
    }
    assert after["a"]["cpu"]["reservation"] == 300
    assert not vcenter.ok("vm_shares", state="restored", **names)["changed"]


def test_nothing_is_changed_that_could_not_be_remembered(start_vcenter: StartVcenter) -> None:
    fault = {"method": "SetField", "nth": 1, "fault": {"type": "vim.fault.NoPermission", "message": "No."}}
    vcenter = start_vcenter(gpu_fleet(vms=[machine("a")]), faults=[fault])
    wanted = [{"name": "a", "cpu": {"shares": "low"}}]
    vcenter.fails("vm_shares", vms=wanted, remember=True)
    assert RECONFIGURE not in vcenter.counts()["requests"]
    assert vcenter.ok("vm_shares", vms=wanted, remember=True)["changed"]
