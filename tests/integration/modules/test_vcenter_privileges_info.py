# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.privileges import needed
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.client import Client
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.options import ConnectionOptions
from ansible_collections.gpuops.vsphere.plugins.modules import vcenter_privileges_info
from gpu_vms import TEMPLATE, gpu_fleet, machine, vcenter_connection
from pyVmomi import vim
from simulated import StartVcenter, Vcenter

ROBOT = {"username": "robot", "password": "Robot-1-password"}
ONE, TWO = "esx-001.lab", "esx-002.lab"
PCI = "Host.Config.PciPassthru"
SITE = {"name": "site", "vms": ["old", "new"], "templates": [TEMPLATE]}


def site(hosts: int = 2, *, without: tuple[str, ...] = ()) -> dict[str, Any]:
    privileges = [one for one in needed(["site"]) if one not in without]
    return gpu_fleet(
        hosts,
        vms=[machine("old", power="on")],
        roles={"robot": privileges},
        users=[{"name": ROBOT["username"], "password": ROBOT["password"], "role": "robot"}],
    )


def lacks(vcenter: Vcenter, job: dict[str, Any]) -> list[tuple[str, str]]:
    """What the module finds missing, in this process."""
    nothing: dict[str, Any] = {"modules": None, "hosts": None, "vms": [], "templates": [], "cases": None}
    params = {"jobs": [nothing | job]}
    options = {"validate_certs": True, "thumbprint": None, **vcenter.options(**ROBOT)}
    with Client.open(ConnectionOptions.from_params(options)) as client:
        planned = vcenter_privileges_info.plan(vcenter_privileges_info.read(client, params), params)
    return sorted((one["privilege"], one["object"]) for one in planned.returns["missing"])


def test_the_role_of_the_site_is_enough_and_each_privilege_it_lacks_is_named(start_vcenter: StartVcenter) -> None:
    assert lacks(start_vcenter(site()), SITE) == []
    gone = (PCI, "Folder.Create", "Datastore.AllocateSpace", "VirtualMachine.Config.Memory", "Resource.HotMigrate")
    vcenter = start_vcenter(site(without=gone))
    folders = "folders of virtual machines"
    assert lacks(vcenter, SITE) == [
        ("Datastore.AllocateSpace", "datastores"),
        ("Folder.Create", "root folder"),
        (PCI, ONE),
        (PCI, TWO),
        ("Resource.HotMigrate", folders),
        ("VirtualMachine.Config.Memory", folders),
        ("VirtualMachine.Config.Memory", "old"),
    ]
    passthrough = {"name": "passthrough", "modules": ["esxi_passthrough"], "hosts": [TWO], "cases": []}
    assert lacks(vcenter, passthrough) == [(PCI, TWO)]
    assert lacks(vcenter, passthrough | {"modules": ["esxi_power"]}) == []
    failed = vcenter.fails("vcenter_privileges_info", jobs=[passthrough], **ROBOT)
    assert failed["failure"] == {"code": "privilege_missing", "object": TWO, "fault": None}
    assert f"{TWO}: robot lacks the privilege {PCI} there, needed for passthrough (esxi_passthrough)." in failed["msg"]
    assert "`ansible-playbook playbooks/vcenter_role.yml`" in failed["msg"]
    locked = vcenter.fails("vcenter_privileges_info", jobs=[{"name": "lock"}], **ROBOT)
    assert "root folder: robot lacks the privilege Folder.Create there" in locked["msg"]
    options = {"name": "cluster", "modules": ["advanced_options"]}
    cluster = vcenter.fails("vcenter_privileges_info", jobs=[options], **ROBOT)
    assert """playbooks/vcenter_role.yml -e '{"vcenter_role_jobs": ["cluster"]}'`""" in cluster["msg"]
    wrong = vcenter.fails("vcenter_privileges_info", jobs=[passthrough | {"modules": ["vm_gpu"]}])
    assert "passthrough does not run vm_gpu" in wrong["msg"]


def test_what_is_held_on_the_object_alone_counts_there(start_vcenter: StartVcenter) -> None:
    vcenter = start_vcenter(site(without=(PCI,)))
    with vcenter_connection(vcenter) as content:
        manager = content.authorizationManager
        role = manager.AddAuthorizationRole("more", [*needed(["site"])])
        hosts = content.viewManager.CreateContainerView(content.rootFolder, [vim.HostSystem], True).view
        host = next(one for one in hosts if one.name == TWO)
        permission = vim.AuthorizationManager.Permission(principal="robot", group=False, roleId=role, propagate=True)
        manager.SetEntityPermissions(host, [permission])
    assert lacks(vcenter, SITE) == [(PCI, ONE)]


def test_the_attribute_is_wanted_until_it_is_there(start_vcenter: StartVcenter) -> None:
    manage = "Global.ManageCustomFields"
    vcenter = start_vcenter(site(without=(manage,)))
    rolling = {"name": "rolling", "hosts": [ONE]}
    assert lacks(vcenter, rolling) == [(manage, "root folder")]
    with vcenter_connection(vcenter) as content:
        for attribute in ("gpuops.intent", "gpuops.lock"):
            content.customFieldsManager.AddCustomFieldDef(attribute, None, None, None)
    assert lacks(vcenter, rolling) == []


@pytest.mark.parametrize("count", [1, 10, 100])
def test_the_requests_do_not_grow_with_the_hosts(start_vcenter: StartVcenter, count: int) -> None:
    vcenter = start_vcenter(site(count))
    assert len(vcenter.ok("vcenter_privileges_info", jobs=[SITE])["objects"]) > count
    vcenter.reset_counts()
    result = vcenter.ok("vcenter_privileges_info", jobs=[SITE])
    assert result["missing"] == []
    expected = {
        "CreateContainerView": 1, "CreatePropertyCollector": 1, "DestroyPropertyCollector": 1, "DestroyView": 1,
        "HasPrivilegeOnEntities": 1, "RetrievePropertiesEx": 1, "RetrieveServiceContent": 1,
    }  # fmt: skip
    assert result["requests"] == expected
    assert vcenter.counts()["total"] == sum(expected.values())
