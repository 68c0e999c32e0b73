# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""An account that may not read everything: only what is concerned fails, or is warned about."""

from __future__ import annotations

from typing import Any

from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.client import Client
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.collector import all_of, paths, retrieve
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.options import ConnectionOptions
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.pyvmomi import vim
from simulated import StartVcenter, Vcenter, fleet

ONE, TWO = "esx-001.lab", "esx-002.lab"
NO_ACCESS = -5
USER = {"username": "gpuops", "password": "Gpuops-1-password"}
V100_A = "0000:3b:00.0"


def hidden(vcenter: Vcenter, kind: type, name: str) -> str:
    """Take all access to one object from the user; its id."""
    options = ConnectionOptions.from_params({"validate_certs": True, "thumbprint": None, **vcenter.options()})
    with Client.open(options) as client:
        rows = retrieve(client, lambda: [all_of(client, kind)], [paths(kind, "name")])
        ref = next(row.ref for row in rows if row.props["name"] == name)
        permission = vim.AuthorizationManager.Permission(
            principal=USER["username"], group=False, roleId=NO_ACCESS, propagate=True
        )
        client.content.authorizationManager.SetEntityPermissions(ref, [permission])
        return str(ref._moId)


def site(**more: Any) -> dict[str, Any]:
    model = fleet(2, users=[{"name": USER["username"], "password": USER["password"], "role": "Admin"}], **more)
    model["clusters"][0]["hosts"][0]["gpus"][0]["passthrough"] = True
    shape = {"memory_mb": 4096, "firmware": "efi"}
    model["vms"] = [
        {"name": "theirs", "host": ONE, "power": "on", **shape},
        {"name": "ours", "host": ONE, **shape},
        {"name": "elsewhere", "host": TWO, **shape},
    ]
    return model


def test_a_machine_that_cannot_be_read_keeps_only_its_host_from_maintenance(start_vcenter: StartVcenter) -> None:
    vcenter = start_vcenter(site())
    moid = hidden(vcenter, vim.VirtualMachine, "theirs")
    facts = vcenter.ok("esxi_gpu_info", hosts=[ONE, TWO], **USER)["hosts"]
    assert facts[ONE]["unreadable_vms"] == [moid]
    assert facts[ONE]["vm_names"] == ["ours"]
    assert facts[TWO]["unreadable_vms"] == []
    result = vcenter.fails("esxi_maintenance", hosts=[ONE, TWO], state="entered", **USER)
    assert result["objects"][ONE]["failure"]["code"] == "vms_in_the_way"
    assert moid in result["objects"][ONE]["msg"]
    assert "may not read" in result["objects"][ONE]["msg"]
    assert result["objects"][TWO]["changed"] is True


def test_a_machine_that_cannot_be_read_may_hold_gpus(start_vcenter: StartVcenter) -> None:
    vcenter = start_vcenter(site())
    moid = hidden(vcenter, vim.VirtualMachine, "theirs")
    wanted = [{"name": name, "gpus": [{"mode": "fixed", "address": V100_A}]} for name in ("ours", "elsewhere")]
    objects = vcenter.ok("vm_gpu", vms=wanted, check=True, **USER)["objects"]
    assert moid in objects["ours"]["warnings"][0]
    assert "System.Read" in objects["ours"]["warnings"][0]
    assert objects["elsewhere"]["warnings"] == []


def test_a_host_that_cannot_be_read_fails_alone(start_vcenter: StartVcenter) -> None:
    vcenter = start_vcenter(site())
    hidden(vcenter, vim.HostSystem, ONE)
    wanted = [{"name": name, "devices": [{"id": "10de:1db6"}]} for name in (ONE, TWO)]
    result = vcenter.fails("esxi_passthrough", hosts=wanted, **USER)
    assert result["objects"][ONE]["failure"]["code"] == "host_not_found"
    assert "may read" in result["objects"][ONE]["msg"]
    assert result["objects"][TWO]["failed"] is False
