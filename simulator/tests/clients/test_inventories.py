"""The inventory plugins of `vmware.vmware` and `community.vmware` against a simulator."""

from __future__ import annotations

import json
import typing as t

import pytest

if t.TYPE_CHECKING:
    import pathlib

    from controller import Controller

pytestmark = pytest.mark.clients
MACHINES = {"web-1", "web-2", "vgpu-1"}
PLUGINS = {
    "vmware.vmware.vms": (
        "machines.vms.yml",
        """
hostnames: [name]
properties: [name, config, guest, runtime, summary]
groups: {uses_efi: config.firmware == 'efi'}
keyed_groups: [{key: summary.runtime.powerState, separator: ""}]
compose: {memory: config.hardware.memoryMB}
gather_tags: false
""",
    ),
    "vmware.vmware.esxi_hosts": (
        "machines.esxi_hosts.yml",
        """
properties: [name, summary, config, runtime]
keyed_groups: [{key: summary.runtime.powerState, separator: ""}]
compose: {gpus: config.graphicsInfo | length}
gather_tags: false
""",
    ),
    "community.vmware.vmware_vm_inventory": (
        "machines.vmware.yml",
        """
hostnames: [config.name]
properties: [name, config.name, config.firmware, guest.ipAddress, runtime.powerState, config.hardware.memoryMB]
keyed_groups: [{key: runtime.powerState, separator: ""}]
groups: {uses_efi: config.firmware == 'efi'}
with_tags: false
""",
    ),
}


def inventory(controller: Controller, directory: pathlib.Path, plugin: str) -> dict[str, t.Any]:
    name, text = PLUGINS[plugin]
    source = directory / name
    source.write_text(f"plugin: {plugin}\n{text}")
    output = controller.run("ansible-inventory", "-i", str(source), "--list")
    return t.cast("dict[str, t.Any]", json.loads(output))


def plain(value: t.Any) -> str:
    """A string that ansible-inventory may mark as not to be templated."""
    return str(value["__ansible_unsafe"] if isinstance(value, dict) else value)


@pytest.mark.parametrize("plugin", ["vmware.vmware.vms", "community.vmware.vmware_vm_inventory"])
def test_machines_come_with_what_they_are(controller: Controller, tmp_path: pathlib.Path, plugin: str) -> None:
    found = inventory(controller, tmp_path, plugin)
    hosts = found["_meta"]["hostvars"]
    assert hosts.keys() - {"golden"} == MACHINES
    assert found["poweredOn"]["hosts"] == ["web-1"]
    assert set(found["uses_efi"]["hosts"]) - {"golden"} == {"vgpu-1"}
    assert hosts["vgpu-1"]["config"]["hardware"]["memoryMB"] == 8192
    assert plain(hosts["web-1"]["guest"]["ipAddress"]).startswith("10.")


def test_hosts_come_with_their_gpus(controller: Controller, tmp_path: pathlib.Path) -> None:
    found = inventory(controller, tmp_path, "vmware.vmware.esxi_hosts")
    hosts = found["_meta"]["hostvars"]
    assert {name: one["gpus"] for name, one in hosts.items()} == {
        "esx-1.test": 2, "esx-2.test": 2, "esx-3.test": 2, "esx-4.test": 0}  # fmt: skip
    assert set(found["poweredOn"]["hosts"]) == set(hosts)
