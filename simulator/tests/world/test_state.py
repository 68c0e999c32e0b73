"""The state of a world: written, read, and the same again."""

from __future__ import annotations

import json

import pytest
from inventory import TWO_V100, Inventory, change, dynamic, fixed, simulate, virtual

from vsphere_simulator.vmomi import vim
from vsphere_simulator.world.state import StateError, dump

VGPU = """
clusters:
  - name: c
    vcls_agents: 1
    hosts: [{name: h, gpus: [{gpu: A100-40, count: 2, vgpu_mode: mixedSize, label: blue}], vgpu_manager: "16.4",
             graphics_type: sharedDirect}]
vms: [{name: v, host: h, power: "on", firmware: efi, memory_locked: true,
       gpus: [{mode: vgpu, profile: nvidia_a100-10c}]}]
templates: [{name: t, folder: a/b}]
custom_attributes: [gpuops.intent]
"""


def as_json(inventory: Inventory) -> str:
    return json.dumps(dump(inventory.world))


@pytest.mark.parametrize("text", [TWO_V100, VGPU])
def test_a_restored_world_has_the_same_state(text: str) -> None:
    first = as_json(Inventory(text))
    assert as_json(Inventory(text, state=json.loads(first))) == first


def test_reading_changes_nothing() -> None:
    inventory = Inventory(TWO_V100)
    before = as_json(inventory)
    for obj in inventory.world.objects.values():
        for path in obj.builders:
            obj.builders[path](obj)
    assert as_json(inventory) == before


def test_what_was_done_is_there_after_a_restart() -> None:
    async def scenario(lab: Inventory) -> None:
        vm, host = lab["vm-1"], lab["esx-1"]
        await lab.reconfigure(
            vm,
            annotation="held",
            deviceChange=[change(fixed(host, "0000:3b:00.0")), change(dynamic("10de:1db6"))],
            bootOptions=vim.vm.BootOptions(efiSecureBootEnabled=True),
        )
        await lab.run(vm, "PowerOnVM_Task")
        lab.call(vm.parent, "CreateFolder", name="made")
        lab.call(host.managers["pciPassthruSystem"], "UpdatePassthruConfig", config=[
            vim.host.PciPassthruConfig(id="0000:05:00.0", passthruEnabled=True, hardwareLabel="net")])  # fmt: skip
        field = lab.call(lab.world.content["customFieldsManager"], "AddCustomFieldDef", name="owner")
        lab.call(lab.world.content["customFieldsManager"], "SetField", entity=vm, key=field.key, value="me")
        await lab.run(lab["vm-2"], "Destroy_Task")
        saved = as_json(lab)

        again = Inventory(TWO_V100, state=json.loads(saved))
        assert as_json(again) == saved
        vm, host = again["vm-1"], again["esx-1"]
        assert (vm.power, vm.config.annotation, set(vm.assigned.values())) == (
            "poweredOn", "held", {"0000:3b:00.0", "0000:5e:00.0"})  # fmt: skip
        assert vm.config.settings["bootOptions"].efiSecureBootEnabled is True
        assert "made" in vm.parent.children
        assert "vm-2" not in vm.parent.children
        assert host.passthrough_of("0000:05:00.0").label == "net"
        assert list(vm.custom_values.values()) == ["me"]
        new = await again.run(vm.parent.parent, "PowerOnMultiVM_Task", vm=[vm])
        assert len(new.attempted) == 1

    simulate(TWO_V100, scenario)


def test_a_host_that_was_booting_has_come_up() -> None:
    async def scenario(lab: Inventory) -> None:
        host = lab["esx-2"]
        await lab.run(host, "RebootHost_Task", force=True)
        assert host.connection == "notResponding"
        again = Inventory(TWO_V100, state=json.loads(as_json(lab)))["esx-2"]
        assert again.connection == "connected"
        assert again.boot_time > host.boot_time

    simulate(TWO_V100, scenario, scale=200)


def test_vgpus_are_where_they_were() -> None:
    first = Inventory(VGPU)
    again = Inventory(VGPU, state=dump(first.world))
    assert again["v"].vgpus == first["v"].vgpus != {}
    assert virtual("nvidia_a100-10c").backing.vgpu == again["v"].devices[-1].backing.vgpu


def test_a_state_of_another_format_is_refused() -> None:
    with pytest.raises(StateError, match="format 99"):
        Inventory(TWO_V100, state={"format": 99})
