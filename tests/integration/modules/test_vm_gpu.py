# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

import copy
from typing import Any

from gpu_vms import V100, clone, dynamic, facts, fixed, gpu_fleet, machine
from simulated import StartVcenter, Vcenter, fleet, killed_at_the_end, wait_for

RECONFIGURE = "ReconfigVM_Task"


def wanted(name: str, *gpus: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"name": name, "gpus": list(gpus), **more}


def addresses(entry: dict[str, Any]) -> list[str]:
    return [gpu["address"] for gpu in entry["gpus"]]


def gpu_addresses(vcenter: Vcenter, host: str = "esx-001.lab") -> list[str]:
    return [gpu["address"] for gpu in vcenter.host(host)["gpus"]]


def test_missing_arguments_are_named(start_vcenter: StartVcenter) -> None:
    vcenter = start_vcenter(gpu_fleet())
    assert "missing required arguments: vms" in vcenter.run("vm_gpu").result["msg"]
    ran = vcenter.run("vm_gpu", vms=[{"name": "a", "gpus": [{"mode": "shared", "id": V100}]}])
    assert "value of mode must be one of: fixed, dynamic, vgpu, device_group, got: shared" in ran.result["msg"]


def test_check_create_repeat_update_delete(start_vcenter: StartVcenter) -> None:
    vcenter = start_vcenter(gpu_fleet(vms=[machine("a")]))
    first, second = gpu_addresses(vcenter)

    planned = vcenter.ok("vm_gpu", check=True, diff=True, vms=[wanted("a", fixed("all"), memory_mb=32768)])
    assert planned["objects"]["a"]["actions"] == [
        f"attach GPU {first} (V100-32, fixed)",
        f"attach GPU {second} (V100-32, fixed)",
        "set memory_mb",
        "set memory_reservation_locked (GPUs need all memory reserved)",
        "set pciPassthru.use64bitMMIO (BARs of 64.09 GB)",
        "set pciPassthru.64bitMMIOSizeGB (BARs of 64.09 GB)",
    ]
    assert "pciPassthru.64bitMMIOSizeGB: absent" in planned["diff"][0]["before"]
    assert "pciPassthru.64bitMMIOSizeGB: 128" in planned["diff"][0]["after"]
    assert RECONFIGURE not in vcenter.counts()["requests"]
    assert "QueryConfigTarget" not in vcenter.counts()["requests"]

    made = vcenter.ok("vm_gpu", vms=[wanted("a", fixed("all"), memory_mb=32768)])
    assert made["changed"]
    assert made["objects"]["a"]["actions"] == planned["objects"]["a"]["actions"]
    assert made["requests"][RECONFIGURE] == 1
    assert made["requests"]["QueryConfigTarget"] == 1
    assert addresses(facts(vcenter, "a")) == []  # what an empty set would leave

    again = vcenter.ok("vm_gpu", vms=[wanted("a", fixed("all"), memory_mb=32768)])
    assert not again["changed"]
    assert RECONFIGURE not in again["requests"]
    real = again["predicted"]["vms"]["a"]
    assert (real["memory_mb"], real["memory_reservation_locked"]) == (32768, True)
    assert {key.lower(): value for key, value in real["extra_config"].items()} == {
        "pcipassthru.use64bitmmio": "TRUE",
        "pcipassthru.64bitmmiosizegb": "128",
    }
    assert vcenter.ok("vm_power", vms=["a"], state="on")["changed"]
    assert not vcenter.ok("vm_gpu", vms=[wanted("a", fixed("all"))])["changed"]
    vcenter.ok("vm_power", vms=["a"], state="off")

    fewer = vcenter.ok("vm_gpu", vms=[wanted("a", {"mode": "fixed", "address": second})])
    assert fewer["objects"]["a"]["actions"] == [f"detach GPU {first} (V100-32, fixed)"]
    assert addresses(vcenter.ok("vm_gpu", vms=[wanted("a", fixed())])["objects"]["a"]) == [second]

    swapped = vcenter.ok("vm_gpu", vms=[wanted("a", dynamic())])
    assert swapped["requests"][RECONFIGURE] == 1
    assert "QueryConfigTarget" not in swapped["requests"]
    assert not vcenter.ok("vm_gpu", vms=[wanted("a", dynamic())])["changed"]
    vcenter.ok("vm_power", vms=["a"], state="on")
    assert not vcenter.ok("vm_gpu", vms=[wanted("a", dynamic())])["changed"]
    vcenter.ok("vm_power", vms=["a"], state="off")

    assert vcenter.ok("vm_gpu", vms=[wanted("a")])["changed"]
    assert not vcenter.ok("vm_gpu", vms=[wanted("a")])["changed"]
    assert vcenter.counts()["logins"] == 1


def test_from_clone_to_power_in_check_mode_before_anything_exists(start_vcenter: StartVcenter) -> None:
    """The predictions of each step carry the next one."""
    model = gpu_fleet()
    model["clusters"][0]["hosts"][0]["gpus"][0]["passthrough"] = False
    vcenter = start_vcenter(model)
    passthrough = {"name": "esx-001.lab", "devices": [{"id": V100}]}
    hosts = vcenter.ok("esxi_passthrough", check=True, hosts=[passthrough])["predicted"]["hosts"]
    for host in hosts.values():
        host["devices"] = [
            {**device, "passthrough_active": device["passthrough_enabled"]} for device in host["devices"]
        ]
    cloned = vcenter.ok("vm_group", check=True, vms=[clone("a")], assume={"hosts": hosts})["predicted"]["vms"]
    gpus = vcenter.ok("vm_gpu", check=True, vms=[wanted("a", fixed("all"))], assume={"hosts": hosts, "vms": cloned})
    assert len(gpus["objects"]["a"]["gpus"]) == 2
    assume = {"hosts": hosts, "vms": gpus["predicted"]["vms"]}
    power = vcenter.ok("vm_power", check=True, vms=["a"], state="on", assume=assume)
    assert power["objects"]["a"]["actions"] == ["power on"]
    again = vcenter.ok("vm_gpu", check=True, vms=[wanted("a", fixed("all"))], assume=assume)
    assert not again["changed"]


def test_assumptions_are_for_check_mode_only(start_vcenter: StartVcenter) -> None:
    vcenter = start_vcenter(gpu_fleet())
    cloned = vcenter.ok("vm_group", check=True, vms=[clone("a")])["predicted"]["vms"]
    result = vcenter.fails("vm_gpu", vms=[wanted("a", fixed())], assume={"vms": cloned})
    assert result["failure"]["code"] == "vm_not_found"
    result = vcenter.fails("vm_gpu", check=True, vms=[wanted("a", fixed())], assume={"vms": {"a": {"colour": "red"}}})
    assert result["failure"]["code"] in ("vm_not_found", "invalid_input")


def test_two_machines_and_one_device(start_vcenter: StartVcenter) -> None:
    vcenter = start_vcenter(gpu_fleet(vms=[machine("a"), machine("b"), machine("c")]))
    first, second = gpu_addresses(vcenter)
    one = {"mode": "fixed", "address": first}
    result = vcenter.fails("vm_gpu", vms=[wanted("a", one), wanted("b", one)])
    for name, other in (("a", "b"), ("b", "a")):
        entry = result["objects"][name]
        assert entry["failure"]["code"] == "gpu_conflict"
        assert first in entry["msg"]
        assert f"so does {other}" in entry["msg"]
    assert RECONFIGURE not in vcenter.counts()["requests"]

    vcenter.ok("vm_gpu", vms=[wanted("c", one)])
    result = vcenter.fails("vm_gpu", vms=[wanted("a", one)])
    assert f"{first} on esx-001.lab, which c has" in result["msg"]
    result = vcenter.ok("vm_gpu", vms=[wanted("a", fixed())])
    assert addresses(result["objects"]["a"]) == [second]


def test_more_gpus_than_there_are(start_vcenter: StartVcenter) -> None:
    vcenter = start_vcenter(gpu_fleet(vms=[machine("a"), machine("b"), machine("train-07")]))
    vcenter.ok("vm_gpu", vms=[wanted("train-07", fixed())])
    before = vcenter.counts()["requests"][RECONFIGURE]
    result = vcenter.fails("vm_gpu", vms=[wanted("a", fixed()), wanted("b", fixed())])
    assert result["failure"]["code"] == "gpu_shortage"
    assert "2 x 10de:1db6 asked for on esx-001.lab (a 1, b 1), and it has 2" in result["msg"]
    assert "held by train-07" in result["msg"]
    assert vcenter.counts()["requests"][RECONFIGURE] == before


def test_a_device_changes_hands_in_one_call(start_vcenter: StartVcenter) -> None:
    vcenter = start_vcenter(gpu_fleet(vms=[machine("a"), machine("b")]))
    first, second = gpu_addresses(vcenter)
    vcenter.ok("vm_gpu", vms=[wanted("a", {"mode": "fixed", "address": first})])
    moved = [
        wanted("b", {"mode": "fixed", "address": first}),
        wanted("a", {"mode": "fixed", "address": second}),
    ]
    result = vcenter.ok("vm_gpu", vms=moved)
    assert {name: addresses(entry) for name, entry in result["objects"].items()} == {"a": [second], "b": [first]}
    assert not vcenter.ok("vm_gpu", vms=moved)["changed"]


def test_what_stands_in_the_way(start_vcenter: StartVcenter) -> None:
    cases: dict[str, tuple[dict[str, Any], dict[str, Any], str, str]] = {
        "absent": ({}, {"gpus": [fixed(1, "10de:20f1")]}, "device_not_found", "2 x V100-32 (10de:1db6)"),
        "invalid": ({}, {"gpus": [fixed(1, "V100")]}, "invalid_gpu", "such as '10de:1db6'"),
        "moved": ({}, {"gpus": [fixed()], "host": "esx-009.lab"}, "vm_on_other_host", "not on esx-009.lab"),
        "bios": ({"firmware": "bios"}, {"gpus": [fixed()]}, "firmware_bios", "firmware: efi"),
        "old": ({"hardware_version": 15}, {"gpus": [dynamic()]}, "hardware_version", "dynamic GPUs need 17"),
        "running": ({"power": "on"}, {"gpus": [fixed()]}, "vm_powered_on", "vm_power with state: off"),
    }
    vms = [machine(name, f"esx-{number:03}.lab", **case[0]) for number, (name, case) in enumerate(cases.items(), 1)]
    vcenter = start_vcenter(gpu_fleet(len(cases), vms=vms))
    result = vcenter.fails("vm_gpu", vms=[*({"name": n, **case[1]} for n, case in cases.items()), wanted("runing")])
    codes = {name: entry["failure"]["code"] for name, entry in result["objects"].items()}
    assert codes == {**{name: case[2] for name, case in cases.items()}, "runing": "vm_not_found"}
    assert [case[3] for name, case in cases.items() if case[3] not in result["objects"][name]["msg"]] == []
    assert "Did you mean running?" in result["objects"]["runing"]["msg"]
    assert RECONFIGURE not in vcenter.counts()["requests"]


def test_passthrough_must_be_active_first(start_vcenter: StartVcenter) -> None:
    vcenter = start_vcenter(fleet() | {"vms": [machine("a")]})
    result = vcenter.fails("vm_gpu", vms=[wanted("a", fixed())])
    assert result["failure"]["code"] == "passthrough_not_active"
    assert "esxi_passthrough" in result["msg"]


def test_overrides_are_checked_before_anything_is_connected_to(start_vcenter: StartVcenter) -> None:
    vcenter = start_vcenter(gpu_fleet(vms=[machine("a")]))
    result = vcenter.fails("vm_gpu", vms=[wanted("a", fixed())], bar_overrides={V100: {"bar1_gib": 32}})
    assert "use bar1_gb" in result["msg"]
    assert vcenter.counts()["total"] == 0
    result = vcenter.ok("vm_gpu", vms=[wanted("a", fixed())], bar_overrides={V100: {"bar1_gb": 64}})
    extra_config = result["predicted"]["vms"]["a"]["extra_config"]
    assert extra_config["pciPassthru.64bitMMIOSizeGB"] == "128"


def test_settings_that_fit_are_kept_however_they_are_spelt(start_vcenter: StartVcenter) -> None:
    settings = {"pcipassthru.use64bitmmio": "true", "PciPassthru.64bitMmioSizeGb": "256"}
    vcenter = start_vcenter(gpu_fleet(vms=[machine("a", memory_locked=True, extra_config=settings)]))
    actions = vcenter.ok("vm_gpu", vms=[wanted("a", fixed())])["objects"]["a"]["actions"]
    assert [action for action in actions if not action.startswith("attach GPU")] == []


def test_bios_is_changed_over_on_request(start_vcenter: StartVcenter) -> None:
    vcenter = start_vcenter(gpu_fleet(vms=[machine("a", firmware="bios")]))
    assert (
        "set firmware (64-bit MMIO needs EFI)"
        in vcenter.ok("vm_gpu", vms=[wanted("a", fixed())], firmware="efi")["objects"]["a"]["actions"]
    )
    assert vcenter.ok("vm_power", vms=["a"], state="on")["changed"]


def test_requests_are_constant_but_for_the_writes(start_vcenter: StartVcenter) -> None:
    hosts = 100
    vcenter = start_vcenter(gpu_fleet(hosts, vms=[machine(f"vm-{n}", f"esx-{n:03}.lab") for n in range(1, hosts + 1)]))
    vcenter.ok("vm_power", check=True, vms=["vm-1"], state="on")  # logs in
    writing, reading = [], []
    start = 1
    for count in (1, 10, 89):
        vms = [wanted(f"vm-{number}", fixed(2)) for number in range(start, start + count)]
        start += count
        requests = vcenter.ok("vm_gpu", vms=vms)["requests"]
        assert (requests.pop(RECONFIGURE), requests.pop("QueryConfigTarget")) == (count, count)
        requests.pop("WaitForUpdatesEx")
        writing.append(requests)
        reading.append(vcenter.ok("vm_gpu", vms=vms)["requests"])
    assert writing[0] == writing[1] == writing[2]
    assert reading[0] == reading[1] == reading[2]
    assert sum(reading[0].values()) <= 12
    assert vcenter.counts()["logins"] == 1


def test_dynamic_gpus_by_label_alone(start_vcenter: StartVcenter) -> None:
    """The vCenter wants to know the ids, too: they are those that bear the label on the host."""
    site = gpu_fleet(vms=[machine("a"), machine("b")])
    site["clusters"][0]["hosts"][0]["gpus"] = [
        {"gpu": "V100-32", "count": 2, "passthrough": True, "label": "training"},
        {"gpu": "A100-40", "count": 1, "passthrough": True, "label": "training"},
        {"gpu": "T4", "count": 1, "passthrough": True, "label": "inference"},
    ]
    vcenter = start_vcenter(site)
    label = {"mode": "dynamic", "label": "training", "count": "1"}
    vms = [wanted("a", label), wanted("b", {"mode": "dynamic", "label": "inference", "count": "1"})]
    planned = vcenter.ok("vm_gpu", check=True, vms=vms)
    made = vcenter.ok("vm_gpu", vms=vms)
    assert made["objects"]["a"]["actions"] == planned["objects"]["a"]["actions"]
    again = vcenter.ok("vm_gpu", vms=vms)
    assert not again["changed"]
    kinds = {name: [(gpu["ids"], gpu["label"]) for gpu in one["gpus"]] for name, one in again["objects"].items()}
    assert kinds == {"a": [(["10de:1db6", "10de:20f1"], "training")], "b": [(["10de:1eb8"], "inference")]}
    # room for the largest that it may be given, the A100
    assert "set pciPassthru.64bitMMIOSizeGB (BARs of 64.05 GB)" in made["objects"]["a"]["actions"]
    assert vcenter.ok("vm_power", vms=["a", "b"], state="on")["changed"]
    assert not vcenter.ok("vm_gpu", vms=vms)["changed"]
    assert vcenter.ok("vm_power", vms=["a"], state="off")["changed"]
    more = vcenter.ok("vm_gpu", vms=[wanted("a", {**label, "count": "2"})])
    assert [action for action in more["objects"]["a"]["actions"] if "etach" in action] == []
    assert len(more["objects"]["a"]["gpus"]) == 2


def test_somebody_else_changed_it_meanwhile(start_vcenter: StartVcenter) -> None:
    fault = {"method": RECONFIGURE, "nth": 1, "fault": {"type": "vim.fault.ConcurrentAccess", "message": "Changed."}}
    vcenter = start_vcenter(gpu_fleet(vms=[machine("a")]), faults=[fault])
    result = vcenter.fails("vm_gpu", vms=[wanted("a", fixed())])
    assert result["failure"] == {"code": "changed_meanwhile", "object": "a", "fault": "ConcurrentAccess"}
    assert "Somebody else changed it meanwhile; run again" in result["msg"]
    assert vcenter.ok("vm_gpu", vms=[wanted("a", fixed())])["changed"]


def test_one_failed_reconfigure_leaves_the_others(start_vcenter: StartVcenter) -> None:
    fault = {"method": RECONFIGURE, "object": "b", "fail_task_at": 60}
    vcenter = start_vcenter(gpu_fleet(2, vms=[machine("a"), machine("b", "esx-002.lab")]), faults=[fault])
    result = vcenter.ok("vm_gpu", vms=[wanted("a", fixed()), wanted("b", fixed())], object_errors="report")
    assert [(result["objects"][name]["changed"], result["objects"][name]["failed"]) for name in ("a", "b")] == [
        (True, False),
        (False, True),
    ]


def test_a_reconfigure_that_an_interrupted_run_left_going_on_is_waited_for(start_vcenter: StartVcenter) -> None:
    vcenter = start_vcenter(gpu_fleet(vms=[machine("a")], timings={"reconfigure": 900}))
    want = wanted("a", fixed(2))
    with killed_at_the_end(vcenter.start("vm_gpu", vms=[copy.deepcopy(want)])):
        wait_for(lambda: vcenter.counts()["requests"].get(RECONFIGURE), "the reconfigure has begun")
    result = vcenter.ok("vm_gpu", vms=[want])
    assert len(result["objects"]["a"]["gpus"]) == 2
    assert not vcenter.ok("vm_gpu", vms=[want])["changed"]
