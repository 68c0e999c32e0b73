# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The fast reader makes of a vCenter's answers what pyVmomi makes of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere import fastxml, reads
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.client import Client
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.collector import all_of, paths, retrieve, wsdl_name
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.errors import GpuOpsError
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.options import ConnectionOptions
from gpu_vms import gpu_fleet, machine
from pyVmomi import VmomiSupport, vim
from simulated import StartVcenter, Vcenter, fleet, launch

KINDS = (vim.HostSystem, vim.VirtualMachine, vim.ClusterComputeResource, vim.Datastore, vim.Folder, vim.Network)


def plain(value: Any) -> Any:
    """A value with all its fields and the types of everything, to be compared."""
    if isinstance(value, VmomiSupport.ManagedObject):
        return (type(value), value._moId, value._serverGuid)
    if isinstance(value, list):
        return (type(value), [plain(item) for item in value])
    if isinstance(value, VmomiSupport.DataObject):
        return (type(value), {info.name: plain(getattr(value, info.name)) for info in value._GetPropertyList()})
    return (type(value), value)


def opened(vcenter: Vcenter) -> Client:
    options = vcenter.options() | {"validate_certs": True, "thumbprint": None}
    return Client.open(ConnectionOptions.from_params(options))


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """Of a vCenter with hosts in all states, machines with all kinds of GPUs, attributes and intents."""
    mmio = {"pciPassthru.use64bitMMIO": "TRUE", "pciPassthru.64bitMMIOSizeGB": "64", "x": 'ü<&>"\n'}
    model = gpu_fleet(
        3,
        vms=[
            machine("on", gpus=[{"mode": "fixed", "address": "0000:3b:00.0"}], memory_locked=True,
                    extra_config=mmio, power="on"),
            machine("off", gpus=[{"mode": "dynamic", "ids": ["10de:1db6"]}]),
            machine("plain %2f ü", host="esx-002.lab"),
            machine("vgpu", host="esx-vgpu.lab", gpus=[{"mode": "vgpu", "profile": "nvidia_a100-10c"}]),
        ],
    )  # fmt: skip
    model["clusters"][0]["hosts"] += [
        {"name": "esx-dead.lab", "connection_state": "notResponding", "gpus": [{"gpu": "T4"}]},
        {
            "name": "esx-vgpu.lab",
            "vgpu_manager": "550.90",
            "gpus": [{"gpu": "A100-40", "graphics_type": "sharedDirect"}],
        },
    ]
    vcenter = launch(tmp_path_factory.mktemp("rich") / "vcenter", model)
    try:
        yield from prepared(vcenter)
    finally:
        vcenter.stop()


def prepared(vcenter: Vcenter) -> Iterator[Client]:
    with opened(vcenter) as client:
        key = client.content.customFieldsManager.AddFieldDefinition(name="gpuops.intent", moType=None).key
        host = reads.find_names(client, vim.HostSystem)[0].ref
        client.content.customFieldsManager.SetField(entity=host, key=key, value='{"v":1,"run":"r","action":"a"}')
        yield client


@pytest.mark.parametrize("kind", KINDS)
def test_every_property_of_every_object_is_the_same(client: Client, kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def everything() -> dict[str, Any]:
        wanted = paths(kind)
        wanted.all = True
        rows = retrieve(client, lambda: [all_of(client, kind)], [wanted])
        return {row.moid: (plain(row.ref), {name: plain(value) for name, value in row.props.items()}) for row in rows}

    assert fastxml.AVAILABLE
    fast = everything()
    assert fast
    monkeypatch.setattr(fastxml, "AVAILABLE", False)
    slow = everything()
    # These tell the time, or count what is asked.
    for rows in (fast, slow):
        for _ref, props in rows.values():
            for name in ("summary", "info", "recentTask"):
                props.pop(name, None)
    assert fast == slow


@pytest.mark.parametrize("page_size", [None, 2])
def test_facts_are_the_same_whole_and_in_pages(
    client: Client, page_size: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def facts() -> Any:
        wanted = [paths(vim.VirtualMachine, *reads.VM_PATHS)]
        rows = retrieve(
            client,
            lambda: [all_of(client, vim.VirtualMachine)],
            wanted,
            keep=reads.KEEP,
            page_size=page_size,
        )
        return (
            reads.read_fleet(client),
            reads.read_vms(client),
            [(row.moid, {name: plain(value) for name, value in row.props.items()}) for row in rows],
        )

    before = client.requests["ContinueRetrievePropertiesEx"]
    fast = facts()
    pages = client.requests["ContinueRetrievePropertiesEx"] - before
    assert pages == (0 if page_size is None else 2)
    monkeypatch.setattr(fastxml, "AVAILABLE", False)
    assert facts() == fast
    vms = {vm.name: vm for vm in fast[0][1]}
    assert [gpu.mode for gpu in vms["on"].gpus] == ["fixed"]
    assert vms["vgpu"].gpus[0].profile == "nvidia_a100-10c"


@pytest.mark.parametrize("fast", [True, False])
def test_only_the_items_asked_for_are_kept(client: Client, fast: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fastxml, "AVAILABLE", fast)
    wanted = [paths(vim.VirtualMachine, "name", "config.hardware.device")]
    rows = retrieve(client, lambda: [all_of(client, vim.VirtualMachine)], wanted, keep=reads.KEEP)
    kept = {row.props["name"]: [wsdl_name(item) for item in row.props["config.hardware.device"]] for row in rows}
    assert kept["on"] == ["VirtualPCIPassthrough"]
    assert kept["plain %2f ü"] == []
    nvidia = fastxml.Only(field="vendorId", values=frozenset({str(0x10DE)}))
    wanted = [paths(vim.HostSystem, "name", "hardware.pciDevice")]
    hosts = retrieve(client, lambda: [all_of(client, vim.HostSystem)], wanted, keep={"hardware.pciDevice": nvidia})
    first = next(row for row in hosts if row.props["name"] == "esx-001.lab")
    assert [device.id for device in first.props["hardware.pciDevice"]] == ["0000:3b:00.0", "0000:5e:00.0"]


@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize(
    ("fault", "code"),
    [
        ({"fault": {"type": "vmodl.fault.InvalidArgument", "message": "no"}}, "invalid_argument"),
        ({"fault": {"type": "vim.fault.NotAuthenticated", "message": "ended"}, "nth": 1}, None),
        ({"drop_connection": True, "nth": 1}, None),
    ],
)
def test_faults_renewed_sessions_and_dropped_connections(
    start_vcenter: StartVcenter,
    monkeypatch: pytest.MonkeyPatch,
    fault: dict[str, Any],
    code: str | None,
    fast: bool,
) -> None:
    monkeypatch.setattr(fastxml, "AVAILABLE", fast)
    vcenter = start_vcenter(fleet(2), faults=[{"method": "RetrievePropertiesEx", **fault}])
    with opened(vcenter) as client:
        if code is None:
            assert sorted(reads.read_hosts(client)) == ["esx-001.lab", "esx-002.lab"]
        else:
            with pytest.raises(GpuOpsError, match="no") as caught:
                reads.read_hosts(client)
            assert caught.value.code == code
