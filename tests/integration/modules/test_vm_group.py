# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

import pytest
from gpu_vms import TEMPLATE, clone, gpu_fleet, machine, vcenter_connection
from simulated import StartVcenter, killed_at_the_end, wait_for


def test_check_create_repeat_delete(start_vcenter: StartVcenter) -> None:
    vcenter = start_vcenter(gpu_fleet(2))
    vms = [clone("a"), clone("b", "esx-002.lab", folder="templates", num_cpus=8, memory_mb=32768, annotation="b's")]

    planned = vcenter.ok("vm_group", check=True, diff=True, vms=vms)
    assert planned["changed"]
    assert planned["objects"]["a"]["actions"] == [
        f"create virtual machine (clone of {TEMPLATE} on esx-001.lab, datastore shared-01)"
    ]
    assert planned["predicted"]["vms"]["b"]["host"] == "esx-002.lab"
    assert planned["predicted"]["vms"]["b"]["memory_mb"] == 32768
    assert "CloneVM_Task" not in vcenter.counts()["requests"]

    made = vcenter.ok("vm_group", vms=vms)
    assert {name: (item["changed"], item["host"]) for name, item in made["objects"].items()} == {
        "a": (True, "esx-001.lab"),
        "b": (True, "esx-002.lab"),
    }
    assert made["objects"]["a"]["actions"] == planned["objects"]["a"]["actions"]

    again = vcenter.ok("vm_group", vms=vms)
    assert not again["changed"]
    assert again["objects"]["b"]["adopted"] is True
    assert again["predicted"]["vms"]["b"]["memory_mb"] == 32768
    assert {**again["predicted"]["vms"]["a"], "moid": "", "change_version": ""} == planned["predicted"]["vms"]["a"]

    gone = vcenter.ok("vm_group", vms=[{"name": "a"}, {"name": "never"}], state="absent")
    assert [gone["objects"][name]["changed"] for name in ("a", "never")] == [True, False]
    assert not vcenter.ok("vm_group", vms=[{"name": "a"}], state="absent")["changed"]


def test_folders_are_found_by_path_or_by_a_name_that_only_one_has(start_vcenter: StartVcenter) -> None:
    vcenter = start_vcenter(gpu_fleet())
    with vcenter_connection(vcenter) as content:
        root = content.rootFolder.childEntity[0].vmFolder
        for name in ("gpu", "old"):
            root.CreateFolder(name).CreateFolder("servers")
        vms = [clone("a", folder="gpu/servers"), clone("b", folder="old"), clone("c", folder="servers")]
        result = vcenter.fails("vm_group", vms=vms)
        assert result["failure"]["code"] == "folder_ambiguous"
        assert "gpu/servers, old/servers. Give the whole path." in result["msg"]
        folders = {folder.name: folder for folder in root.childEntity if hasattr(folder, "childEntity")}
        assert [item.name for item in folders["gpu"].childEntity[0].childEntity] == ["a"]
        assert sorted(item.name for item in folders["old"].childEntity) == ["b", "servers"]


def test_missing_arguments_are_named(start_vcenter: StartVcenter) -> None:
    ran = start_vcenter(gpu_fleet()).run("vm_group")
    assert ran.code == 1
    assert "missing required arguments: vms" in ran.result["msg"]


def test_a_machine_on_another_host_is_adopted_with_a_warning(start_vcenter: StartVcenter) -> None:
    vcenter = start_vcenter(gpu_fleet(2, vms=[machine("a")]))
    result = vcenter.ok("vm_group", vms=[clone("a", "esx-002.lab")])
    assert not result["changed"]
    assert result["objects"]["a"]["warnings"] == ["a exists on esx-001.lab, not on esx-002.lab. It is left there."]


def test_all_problems_at_once_and_the_good_ones_done(start_vcenter: StartVcenter) -> None:
    model = gpu_fleet(2)
    model["clusters"].append({"name": "maintained", "hosts": [{"name": "other.lab", "in_maintenance": True}]})
    model["clusters"].append(
        {"name": "lost", "hosts": [{"name": "elsewhere.lab", "connection_state": "notResponding"}]}
    )
    vcenter = start_vcenter(model)
    result = vcenter.fails(
        "vm_group",
        vms=[
            clone("typo", "esx-01.lab", template="goldn", datastore="nowhere"),
            clone("where", datastore="shared-1", folder="templatse", resource_pool="none"),
            clone("maintained", "other.lab"),
            clone("lost", "elsewhere.lab"),
            clone(TEMPLATE),
            clone("twice"),
            clone("twice"),
            {"name": "bare"},
            clone("good"),
        ],
    )
    found = {
        name: [(problem["code"], problem["option"]) for problem in item.get("problems", [])]
        for name, item in result["objects"].items()
    }
    assert found == {
        "typo": [("template_not_found", "template"), ("host_not_found", "host")],
        "where": [
            ("datastore_not_found", "datastore"),
            ("folder_not_found", "folder"),
            ("resource_pool_not_found", "resource_pool"),
        ],
        "maintained": [("host_in_maintenance", "host")],
        "lost": [("host_not_connected", "host")],
        TEMPLATE: [("is_template", "vms")],
        "twice": [("duplicate_name", "vms")],
        "bare": [("template_missing", "template"), ("host_missing", "host")],
        "good": [],
    }
    assert "Did you mean golden?" in result["objects"]["typo"]["msg"]
    assert "Did you mean esx-001.lab?" in result["objects"]["typo"]["msg"]
    assert "Did you mean shared-01?" in result["objects"]["where"]["msg"]
    assert "Did you mean templates?" in result["objects"]["where"]["msg"]
    assert result["objects"]["good"]["changed"]
    assert result["msg"].startswith("7 of 8 failed. ")


def test_failures_are_only_reported_on_request(start_vcenter: StartVcenter) -> None:
    vcenter = start_vcenter(gpu_fleet())
    result = vcenter.ok("vm_group", vms=[clone("a", "esx-009.lab"), clone("b")], object_errors="report")
    assert [result["objects"][name]["failed"] for name in ("a", "b")] == [True, False]
    assert result["objects"]["a"]["failure"]["code"] == "host_not_found"


def test_a_clone_that_an_interrupted_run_left_going_on_is_waited_for(start_vcenter: StartVcenter) -> None:
    vcenter = start_vcenter(gpu_fleet(timings={"clone": 900}))
    with killed_at_the_end(vcenter.start("vm_group", vms=[clone("a")])):
        wait_for(lambda: vcenter.counts()["requests"].get("CloneVM_Task"), "the clone has begun")
    result = vcenter.ok("vm_group", vms=[clone("a")])
    assert not result["objects"]["a"]["failed"]
    assert vcenter.counts()["requests"]["CloneVM_Task"] == 2
    assert not vcenter.ok("vm_group", vms=[clone("a")])["changed"]


def test_clones_are_made_at_the_same_time_with_a_constant_number_of_reads(start_vcenter: StartVcenter) -> None:
    vcenter = start_vcenter(gpu_fleet(100))
    reads = []
    for count in (1, 10, 100):
        vms = [clone(f"vm-{count}-{number}", f"esx-{number:03}.lab") for number in range(1, count + 1)]
        made = vcenter.ok("vm_group", vms=vms, timeout=60)
        assert made["requests"].pop("CloneVM_Task") == count
        made["requests"].pop("WaitForUpdatesEx")
        adopted = vcenter.ok("vm_group", vms=vms)
        reads.append((made["requests"], adopted["requests"]))
    # the first one logs in
    for made_requests, adopted_requests in reads[1:]:
        assert (made_requests, adopted_requests) == reads[1]
        assert sum(made_requests.values()) <= 20
        assert sum(adopted_requests.values()) <= 10
    assert vcenter.counts()["logins"] == 1


def test_a_failed_clone_is_reported_and_the_others_are_made(start_vcenter: StartVcenter) -> None:
    fault = {
        "method": "CloneVM_Task",
        "nth": 1,
        "fault": {"type": "vim.fault.NoDiskSpace", "message": "Insufficient disk space on datastore 'shared-01'."},
    }
    vcenter = start_vcenter(gpu_fleet(), faults=[fault])
    result = vcenter.fails("vm_group", vms=[clone("a"), clone("b")], max_parallel=1)
    assert [result["objects"][name]["changed"] for name in ("a", "b")] == [False, True]
    assert result["failure"]["fault"] == "NoDiskSpace"
    assert "Free space on the datastore" in result["msg"]
    assert vcenter.ok("vm_group", vms=[clone("a"), clone("b")])["objects"]["a"]["changed"]


@pytest.mark.parametrize("force", [False, True])
def test_a_powered_on_machine_is_deleted_by_force_only(start_vcenter: StartVcenter, force: bool) -> None:
    vcenter = start_vcenter(gpu_fleet(vms=[machine("a", power="on")]))
    if force:
        result = vcenter.ok("vm_group", vms=[{"name": "a"}], state="absent", force_power_off=True)
        assert result["objects"]["a"]["actions"] == ["power off", "delete virtual machine (on esx-001.lab)"]
        assert not vcenter.ok("vm_group", vms=[{"name": "a"}], state="absent")["changed"]
    else:
        result = vcenter.fails("vm_group", vms=[{"name": "a"}], state="absent")
        assert result["failure"]["code"] == "vm_powered_on"
        assert "force_power_off: true" in result["msg"]
