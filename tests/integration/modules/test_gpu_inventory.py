# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The inventory plugin, loaded in this process as Ansible loads it; once through `ansible-inventory` itself."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.errors import AnsibleError
from ansible.inventory.data import InventoryData
from ansible.parsing.dataloader import DataLoader
from ansible.plugins.loader import inventory_loader
from gpu_vms import gpu_fleet, machine, vcenter_connection
from pyVim.task import WaitForTask
from pyVmomi import vim
from simulated import BIN, PASSWORD, TOP, StartVcenter, Vcenter, environment, fleet, launch

NAME = "gpuops.vsphere.gpu_inventory"
MMIO = {"pciPassthru.use64bitMMIO": "TRUE", "pciPassthru.64bitMMIOSizeGB": "64"}
Load = Callable[..., InventoryData]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Vcenter]:
    used = {"gpus": [{"mode": "fixed", "address": "0000:3b:00.0"}], "memory_locked": True, "extra_config": MMIO}
    model = gpu_fleet(
        2,
        vms=[
            machine("trainer", power="on", **used),
            machine("twin", folder="one"),
            machine("to be twin", folder="two", host="esx-002.lab"),
            machine("shared", host="esx-vgpu.lab", gpus=[{"mode": "vgpu", "profile": "nvidia_a100-10c"}]),
        ],
    )
    model["clusters"][0]["hosts"].append(
        {
            "name": "esx-vgpu.lab",
            "vgpu_manager": "550.90",
            "gpus": [{"gpu": "A100-40", "graphics_type": "sharedDirect"}],
        }
    )
    vcenter = launch(tmp_path_factory.mktemp("site") / "vcenter", model)
    try:
        with vcenter_connection(vcenter) as content:
            machines = content.viewManager.CreateContainerView(content.rootFolder, [vim.VirtualMachine], True).view
            WaitForTask(next(vm for vm in machines if vm.name == "to be twin").Rename_Task("twin"))
        yield vcenter
    finally:
        vcenter.stop()


def configuration(vcenter: Vcenter, **more: Any) -> dict[str, Any]:
    chosen = {"plugin": NAME, **vcenter.options(), **more}
    return {name: value for name, value in chosen.items() if value is not None}


@pytest.fixture
def load(tmp_path: Path) -> Load:
    def loaded(vcenter: Vcenter, *, refresh: bool = False, **more: Any) -> InventoryData:
        path = tmp_path / "gpu_inventory.yml"
        path.write_text(yaml.safe_dump(configuration(vcenter, **more)))
        plugin = inventory_loader.get(NAME)
        assert plugin.verify_file(str(path))
        inventory = InventoryData()
        plugin.parse(inventory, DataLoader(), str(path), cache=not refresh)
        if more.get("cache"):
            plugin.update_cache_if_changed()
        inventory.reconcile_inventory()
        return inventory

    return loaded


def members(inventory: InventoryData, group: str) -> set[str]:
    return {host.name for host in inventory.groups[group].get_hosts()}


def test_hosts_and_machines_with_their_gpus(site: Vcenter, load: Load) -> None:
    inventory = load(site)
    assert members(inventory, "esxi") == {"esx-001.lab", "esx-002.lab", "esx-vgpu.lab"}
    twins = {host for host in inventory.hosts if host.startswith("twin")}
    assert len(twins) == 2
    assert all(host.startswith("twin_vm-") for host in twins)
    assert members(inventory, "vms") == {"trainer", "shared", *twins}
    assert members(inventory, "gpu_free") == {"esx-001.lab", "esx-002.lab", "esx-vgpu.lab"}
    assert members(inventory, "gpu_model_v100d") == {"esx-001.lab", "esx-002.lab", "trainer"}
    assert members(inventory, "vgpu_profile_nvidia_a100_10c") == {"shared"}
    assert members(inventory, "power_on") == {"trainer"}
    assert members(inventory, "cluster_gpu") == set(inventory.hosts)
    host = inventory.hosts["esx-001.lab"].vars
    assert [(gpu["model"], gpu["used_by"], gpu["free"]) for gpu in host["gpuops_gpus"]] == [
        ("V100-32", ["trainer"], False),
        ("V100-32", [], True),
    ]
    assert inventory.hosts["trainer"].vars["gpuops_host"] == "esx-001.lab"
    told = {gpu["address"]: gpu for gpu in site.host("esx-001.lab")["gpus"]}
    assert {gpu["address"]: gpu for gpu in host["gpuops_gpus"]} == told


def test_filters_names_and_constructed_groups(site: Vcenter, load: Load) -> None:
    inventory = load(
        site,
        gather=["vms"],
        filters=["gpuops_gpus | length > 0"],
        hostnames=["gpuops_name ~ '.gpu.example.org'"],
        compose={"ansible_user": "'ansible'"},
        keyed_groups=[{"key": "gpuops_host", "prefix": "on"}],
        groups={"running": "gpuops_power == 'poweredOn'"},
        strict=True,
    )
    assert set(inventory.hosts) == {"trainer.gpu.example.org", "shared.gpu.example.org"}
    assert members(inventory, "running") == {"trainer.gpu.example.org"}
    assert members(inventory, "on_esx_vgpu_lab") == {"shared.gpu.example.org"}
    assert inventory.hosts["trainer.gpu.example.org"].vars["ansible_user"] == "ansible"
    assert inventory.hosts["trainer.gpu.example.org"].vars["gpuops_cluster"] == "gpu"
    uuids = load(site, gather=["hosts"], hostnames=["guest_ip", "uuid"], gpu_groups=False)
    assert {host.vars["gpuops_uuid"] for host in uuids.hosts.values()} == set(uuids.hosts)
    assert set(uuids.groups) == {"all", "ungrouped"}


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"password": "wrong"}, "Check the options username and password"),
        ({"port": 1}, "refuses connections"),
        ({"hostname": "vcenter.invalid"}, "cannot be resolved"),
        ({"ca_file": "/nowhere.pem"}, "cannot be read"),
        ({"port": "{{ 'https' }}"}, "port: https is not a number"),
        ({"duplicate_names": "fail"}, "called twin"),
        ({"filters": ["nothing.like_that"], "strict": True}, "filters: nothing.like_that"),
        ({"hostnames": ["1 / 0"], "strict": True}, "hostnames: 1 / 0"),
        ({"bar_overrides": {"x": {}}}, "bar_overrides"),
        ({"password": "{{ lookup('ansible.builtin.file', '/nowhere') }}"}, "password"),
        ({"gather": ["pods"]}, "pods"),
    ],
)
def test_mistakes_say_what_to_do(site: Vcenter, load: Load, more: dict[str, Any], message: str) -> None:
    with pytest.raises(AnsibleError) as caught:
        load(site, **more)
    assert message in str(caught.value)
    assert PASSWORD not in str(caught.value)


def test_where_the_vcenter_is_and_how_it_is_trusted_may_be_templates(site: Vcenter, load: Load, tmp_path: Path) -> None:
    options = {name: value for name, value in site.options().items() if name in ("hostname", "port", "ca_file")}
    (tmp_path / "ready.json").write_text(json.dumps(options))
    ready = f"lookup('ansible.builtin.file', '{tmp_path}/ready.json') | from_json"
    found = load(site, **{name: f"{{{{ ({ready}).{name} }}}}" for name in options})
    assert set(options) == {"hostname", "port", "ca_file"}
    assert "trainer" in found.hosts


def test_the_cache_answers_for_the_vcenter_until_it_is_refreshed(site: Vcenter, load: Load, tmp_path: Path) -> None:
    kept = {"cache": True, "cache_plugin": "ansible.builtin.jsonfile", "cache_connection": str(tmp_path / "cache")}
    first = load(site, **kept)
    site.reset_counts()
    again = load(site, **kept)
    assert site.counts()["total"] == 0
    assert {name: host.vars for name, host in again.hosts.items()} == {
        name: host.vars for name, host in first.hosts.items()
    }
    assert load(site, gather=["hosts"], **kept).hosts.keys() < first.hosts.keys()
    assert site.counts()["total"] > 0
    site.reset_counts()
    load(site, refresh=True, gather=["hosts"], **kept)
    assert site.counts()["requests"]["RetrievePropertiesEx"] == 2
    assert PASSWORD not in "".join(file.read_text() for file in (tmp_path / "cache").iterdir())


def test_requests_do_not_grow_with_the_fleet(start_vcenter: StartVcenter, load: Load) -> None:
    expected = {
        "CreateContainerView": 2,
        "CreatePropertyCollector": 1,
        "DestroyPropertyCollector": 1,
        "DestroyView": 2,
        "RetrievePropertiesEx": 2,
        "RetrieveServiceContent": 1,
    }
    for count in (1, 10, 100):
        vms = [{"name": f"vm-{number}", "host": f"esx-{number:03}.lab"} for number in range(1, count + 1)]
        vcenter = start_vcenter(fleet(count, vms=vms))
        assert len(load(vcenter).hosts) == 2 * count
        assert vcenter.counts()["logins"] == 1
        vcenter.reset_counts()
        load(vcenter)
        assert vcenter.counts()["requests"] == expected
        assert vcenter.counts()["logins"] == 0
        vcenter.stop()


def test_ansible_inventory_lists_and_limits(site: Vcenter, tmp_path: Path) -> None:
    path = tmp_path / "vsphere_gpu.yml"
    path.write_text(yaml.safe_dump(configuration(site, password=None, hostname=None, username=None)))
    options = site.options()
    given = {
        "VMWARE_HOST": options["hostname"],
        "VMWARE_USER": options["username"],
        "VMWARE_PASSWORD": options["password"],
    }
    ran = subprocess.run(
        [str(BIN / "ansible-inventory"), "-i", str(path), "--list", "--limit", "gpu_free:&gpu_model_a100"],
        env=environment(**given), cwd=TOP, capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    assert list(json.loads(ran.stdout)["_meta"]["hostvars"]) == ["esx-vgpu.lab"]
    given["VMWARE_PASSWORD"] = "wrong"
    ran = subprocess.run(
        [str(BIN / "ansible-inventory"), "-i", str(path), "--graph"],
        env=environment(**given), cwd=TOP, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert "Check the options username and password" in " ".join(ran.stderr.split())
    assert "Traceback" not in ran.stderr
