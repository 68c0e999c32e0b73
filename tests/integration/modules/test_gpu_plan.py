# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

from typing import Any

import pytest
from gpu_vms import gpu_fleet, machine
from simulated import StartVcenter

V100 = "10de:1db6"
ONE, TWO = "esx-001.lab", "esx-002.lab"


def pool(count: int) -> list[dict[str, Any]]:
    gpus = [{"mode": "dynamic", "id": V100}]
    return [{"name": f"pool-{number:02d}", "gpus": gpus, "memory_mb": 16384} for number in range(1, count + 1)]


def running(name: str, host: str) -> dict[str, Any]:
    mmio = {"pciPassthru.use64bitMMIO": "TRUE", "pciPassthru.64bitMMIOSizeGB": "64"}
    gpus = [{"mode": "dynamic", "ids": [V100]}]
    return machine(name, host, gpus=gpus, power="on", memory_locked=True, extra_config=mmio)


def actions(result: dict[str, Any]) -> list[tuple[str, str]]:
    return [(step["action"], step["object"]) for step in result["steps"]]


def test_expansion_prepares_places_and_then_has_nothing_to_do(start_vcenter: StartVcenter) -> None:
    model = gpu_fleet(2, vms=[running("pool-01", ONE)])
    vcenter = start_vcenter(model)
    hosts = [{"name": ONE, "cluster": "gpu"}, {"name": TWO, "cluster": "gpu"}]
    plan = vcenter.ok("gpu_plan", action="expand", hosts=hosts, vms=pool(3))
    assert actions(plan) == [("add", "pool-02"), ("add", "pool-03")]
    assert plan["where"]["pool-01"] == ONE
    assert sorted(plan["where"].values()).count(ONE) <= 2
    assert "clone to esx-002.lab with 0000:" in plan["table"]
    assert plan["clusters"] == ["gpu"]
    assert not plan["changed"]
    again = vcenter.ok("gpu_plan", action="expand", hosts=hosts, vms=pool(1))
    assert again["steps"] == []
    assert "nothing to do" in again["table"]
    full = vcenter.fails("gpu_plan", action="expand", hosts=hosts, vms=pool(5))
    assert full["failure"] == {"code": "gpus_taken", "object": "pool-05", "fault": None}
    assert "In the way" in full["table"]


def test_a_host_outside_of_clusters_is_locked_where_the_plan_touches_it(start_vcenter: StartVcenter) -> None:
    model = gpu_fleet(2)
    model["standalone_hosts"] = [model["clusters"][0]["hosts"].pop()]
    vcenter = start_vcenter(model)
    task: dict[str, Any] = {"action": "expand", "hosts": [{"name": ONE, "cluster": "gpu"}, {"name": TWO}]}
    assert vcenter.ok("gpu_plan", vms=pool(3), **task)["clusters"] == [TWO, "gpu"]
    assert vcenter.ok("gpu_plan", vms=[], **task)["clusters"] == ["gpu"]


def test_a_plan_counts_with_hosts_as_they_are_going_to_be(start_vcenter: StartVcenter) -> None:
    model = gpu_fleet(1)
    model["clusters"][0]["hosts"][0]["gpus"][0]["passthrough"] = False
    vcenter = start_vcenter(model | {"clusters": [*model["clusters"], {"name": "new", "hosts": []}]})
    wanted = {"name": ONE, "devices": [{"id": V100}]}
    change = vcenter.ok("esxi_passthrough", hosts=[wanted], check=True)
    plan = vcenter.ok(
        "gpu_plan",
        action="expand",
        hosts=[{"name": ONE, "cluster": "new"}],
        vms=pool(1),
        host_changes={ONE: [*change["objects"][ONE]["actions"], "reboot host"]},
        prepared=change["predicted"]["hosts"],
    )
    assert actions(plan) == [("add", ONE), ("change", ONE), ("add", "pool-01")]
    assert plan["steps"][1]["needs"] == [f"{ONE} in cluster new"]
    assert plan["steps"][2]["needs"] == [f"{ONE} prepared"]


def test_contraction_names_who_moves_who_goes_and_what_work_would_be_lost(start_vcenter: StartVcenter) -> None:
    vms = [running("pool-01", ONE), running("pool-02", TWO), machine("theirs", TWO, power="on")]
    vcenter = start_vcenter(gpu_fleet(2, vms=vms))
    task: dict[str, Any] = {"action": "contract", "hosts": [{"name": ONE}], "retiring": [TWO], "pool_prefix": "pool-"}
    plan = vcenter.ok("gpu_plan", vms=pool(1), **task)
    assert actions(plan) == [("remove", "pool-02"), ("drain", TWO), ("remove", TWO)]
    assert plan["removed"] == ["pool-02"]
    assert plan["steps"][1]["vms"] == ["theirs"]
    assert f"theirs to {ONE}" in plan["steps"][1]["what"]
    assert plan["moves"] == {"theirs": ONE}
    assert plan["steps"][1]["needs"] == ["pool-02 deleted"]
    bound = vcenter.fails("gpu_plan", action="contract", hosts=[{"name": TWO}], retiring=[ONE])
    assert bound["failure"]["code"] == "vms_in_the_way"
    assert "pool-01 cannot migrate" in bound["table"]
    # The retiring host's own machines may go with it; one of that name on another host may not.
    task_own = {"action": "contract", "hosts": [{"name": TWO}], "retiring": [ONE], "leaving": ["pool-01", "pool-02"]}
    stays = vcenter.fails("gpu_plan", **task_own)
    assert "golden, off or suspended or a template, would stay registered on it" in stays["msg"]
    own = vcenter.ok("gpu_plan", keep_vms=[ONE], **task_own)
    assert own["removed"] == ["pool-01"]
    assert actions(own) == [("remove", "pool-01"), ("drain", ONE), ("remove", ONE)]
    lost = vcenter.fails("gpu_plan", vms=pool(3), **task)
    assert lost["failure"]["code"] == "gpus_taken"
    busy = vcenter.fails("gpu_plan", vms=pool(1), jobs={"pool-02": ["4711 (ann)"]}, **task)
    assert busy["failure"]["code"] == "jobs_running"
    assert "4711 (ann)" in busy["msg"]
    told = vcenter.ok("gpu_plan", vms=pool(1), jobs={"pool-02": ["4711 (ann)"]}, allow_capacity_loss=True, **task)
    assert any("4711" in text for text in told["warnings_of_plan"])
    both = vcenter.fails("gpu_plan", hosts=[{"name": ONE}], retiring=[ONE])
    assert both["failure"]["code"] == "invalid_input"


@pytest.mark.parametrize("hosts", [1, 10, 100])
def test_the_number_of_requests_does_not_depend_on_the_number_of_hosts(start_vcenter: StartVcenter, hosts: int) -> None:
    vcenter = start_vcenter(gpu_fleet(hosts))
    ran = vcenter.run("gpu_plan", hosts=[{"name": f"esx-{n:03}.lab"} for n in range(1, hosts + 1)], vms=pool(hosts))
    assert ran.code == 0, ran.stdout
    assert len(ran.result["steps"]) == hosts
    assert ran.requests["RetrievePropertiesEx"] == 2
    pages = ran.requests.pop("ContinueRetrievePropertiesEx", 0)
    assert pages <= hosts // 50 + 1
    assert sum(ran.requests.values()) <= 16
