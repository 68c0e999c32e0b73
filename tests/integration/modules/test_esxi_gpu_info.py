# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

from typing import Any

import pytest
from simulated import StartVcenter, fleet

V100_A, V100_B = "0000:3b:00.0", "0000:5e:00.0"


def test_the_gpus_of_all_hosts_and_who_has_them(start_vcenter: StartVcenter) -> None:
    model = fleet(2)
    model["clusters"][0]["hosts"][0]["gpus"][0]["passthrough"] = True
    shape = {"host": "esx-001.lab", "memory_locked": True, "firmware": "efi", "power": "on"}
    mmio = {"pciPassthru.use64bitMMIO": "TRUE", "pciPassthru.64bitMMIOSizeGB": "64"}
    model["vms"] = [
        {"name": "trainer", "gpus": [{"mode": "fixed", "address": V100_A}], "extra_config": mmio, **shape},
        {**shape, "name": "spare", "gpus": [{"mode": "fixed", "address": V100_A}], "power": "off"},
    ]
    vcenter = start_vcenter(model)
    hosts = vcenter.ok("esxi_gpu_info")["hosts"]
    assert sorted(hosts) == ["esx-001.lab", "esx-002.lab"]
    first, second = hosts["esx-001.lab"]["gpus"]
    assert (first["address"], first["id"], first["model"]) == (V100_A, "10de:1db6", "V100-32")
    assert first["bars_mb"] == [16, 32768, 32]
    assert (first["used_by"], first["configured_in"], first["free"]) == (["trainer"], ["spare", "trainer"], False)
    assert (second["used_by"], second["configured_in"], second["free"]) == ([], [], True)
    assert (first["passthrough_enabled"], first["passthrough_active"]) == (True, True)
    assert hosts["esx-001.lab"]["cluster"] == "gpu"
    assert hosts["esx-001.lab"]["powered_on_vms"] == ["trainer"]
    assert hosts["esx-001.lab"]["vm_names"] == ["spare", "trainer"]
    assert hosts["esx-002.lab"]["vm_names"] == []


def test_named_hosts_only_and_those_that_do_not_answer_too(start_vcenter: StartVcenter) -> None:
    model = fleet(3)
    model["clusters"][0]["hosts"].append(
        {"name": "esx-dead.lab", "connection_state": "notResponding", "gpus": [{"gpu": "T4"}]}
    )
    vcenter = start_vcenter(model)
    hosts = vcenter.ok("esxi_gpu_info", hosts=["esx-dead.lab", "esx-002.lab"])["hosts"]
    assert {name: host["connection"] for name, host in hosts.items()} == {
        "esx-dead.lab": "notResponding",
        "esx-002.lab": "connected",
    }


def test_mistakes(start_vcenter: StartVcenter) -> None:
    vcenter = start_vcenter(fleet(2))
    result = vcenter.fails("esxi_gpu_info", hosts=["esx-001.lab", "esx-01.lab"])
    assert result["failure"] == {"code": "host_not_found", "object": "esx-01.lab", "fault": None}
    assert "Did you mean esx-0" in result["msg"]
    assert list(result["hosts"]) == ["esx-001.lab"]
    result = vcenter.fails("esxi_gpu_info", bar_overrides={"10de": {"bar1_gb": 1}})
    assert result["failure"]["code"] == "invalid_input"
    assert "bar_overrides" in result["msg"]


@pytest.mark.parametrize("named", [False, True])
def test_requests_do_not_grow_with_the_fleet(start_vcenter: StartVcenter, named: bool) -> None:
    expected = {
        "CreateContainerView": 1,
        "CreatePropertyCollector": 1,
        "DestroyPropertyCollector": 1,
        "DestroyView": 1,
        "RetrievePropertiesEx": 2 if named else 1,
        "RetrieveServiceContent": 1,
    }
    seen: list[dict[str, Any]] = []
    for count in (1, 10, 100):
        vcenter = start_vcenter(fleet(count))
        hosts = [f"esx-{number:03}.lab" for number in range(1, count + 1)] if named else None
        first = vcenter.ok("esxi_gpu_info", hosts=hosts)
        assert first["requests"] == expected | {"Login": 1}
        assert len(first["hosts"]) == count
        vcenter.reset_counts()
        assert vcenter.ok("esxi_gpu_info", hosts=hosts)["requests"] == expected
        seen.append(vcenter.counts())
        vcenter.stop()
    assert [counts["requests"] for counts in seen] == [expected] * 3
    assert [counts["logins"] for counts in seen] == [0, 0, 0]
