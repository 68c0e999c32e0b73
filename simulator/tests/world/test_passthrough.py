"""The passthrough life cycle of PCI devices."""

from __future__ import annotations

import pytest
from inventory import TWO_V100, V100_IDS, Inventory, change, fixed, simulate, until

from vsphere_simulator.vmomi import vim, vmodl

PLAIN = """
clusters:
  - name: c
    hosts:
      - {name: plain, gpus: [{gpu: V100-32}, {gpu: RTX6000}]}
      - {name: quick, rebind_without_reboot: true, gpus: [{gpu: V100-32, count: 2}]}
      - {name: away, connection_state: disconnected, gpus: [{gpu: T4}]}
"""
GPU = "0000:3b:00.0"


def wanted(address: str, enabled: bool = True, **fields: object) -> object:
    return vim.host.PciPassthruConfig(id=address, passthruEnabled=enabled, **fields)


def update(lab: Inventory, host: str, *configs: object) -> None:
    lab.call(lab[host].managers["pciPassthruSystem"], "UpdatePassthruConfig", config=list(configs))


def state(lab: Inventory, host: str, address: str) -> tuple[bool, bool]:
    info = next(one for one in lab[host].passthrough_list() if one.id == address)
    return info.passthruEnabled, info.passthruActive


def test_enabled_at_once_and_active_after_a_reboot() -> None:
    async def scenario(lab: Inventory) -> None:
        host = lab["plain"]
        update(lab, "plain", wanted(GPU))
        assert state(lab, "plain", GPU) == (True, False)
        assert host.builders["summary.rebootRequired"](host) is True
        await lab.run(host, "EnterMaintenanceMode_Task", timeout=0)
        await lab.run(host, "RebootHost_Task", force=False)
        await until(lambda: host.answers)
        assert state(lab, "plain", GPU) == (True, True)
        assert host.builders["summary.rebootRequired"](host) is False
        update(lab, "plain", wanted(GPU, enabled=False))
        assert state(lab, "plain", GPU) == (False, True)

    simulate(PLAIN, scenario)


@pytest.mark.parametrize(
    ("host", "apply_now", "active"),
    [
        ("quick", True, True),
        ("quick", None, True),
        ("quick", False, False),
        ("plain", True, False),
        ("plain", None, False),
    ],
)
def test_a_host_that_can_rebind_applies_it_at_once(host: str, apply_now: bool | None, active: bool) -> None:
    lab = Inventory(PLAIN)
    update(lab, host, wanted(GPU, applyNow=apply_now))
    assert state(lab, host, GPU) == (True, active)


@pytest.mark.parametrize("address", ["0000:00:00.0", "0000:ff:00.0"])
def test_what_is_not_capable_or_not_there_changes_nothing(address: str) -> None:
    lab = Inventory(PLAIN)
    with pytest.raises(vim.fault.HostConfigFault):
        update(lab, "plain", wanted(GPU), wanted(address))
    assert state(lab, "plain", GPU) == (False, False)


def test_the_functions_of_one_card_go_together() -> None:
    lab = Inventory(PLAIN)
    card = [f"0000:5e:00.{function}" for function in range(4)]
    infos = {info.id: info for info in lab["plain"].passthrough_list()}
    assert {infos[address].dependentDevice for address in card} == {card[0]}
    update(lab, "plain", wanted(card[1]))
    assert [state(lab, "plain", address) for address in card] == [(True, False)] * 4
    assert state(lab, "plain", GPU) == (False, False)


def test_a_label_is_kept_until_it_is_taken_away() -> None:
    lab = Inventory(PLAIN)
    update(lab, "plain", wanted(GPU, hardwareLabel="blue"))
    update(lab, "plain", wanted(GPU))
    assert lab["plain"].passthrough_of(GPU).label == "blue"
    update(lab, "plain", wanted(GPU, hardwareLabel=""))
    assert lab["plain"].passthrough_of(GPU).label is None


def test_a_device_in_use_cannot_be_taken_away() -> None:
    async def scenario(lab: Inventory) -> None:
        host, vm = lab["esx-1"], lab["vm-1"]
        await lab.reconfigure(vm, deviceChange=[change(fixed(host, V100_IDS[0]))])
        await lab.run(vm, "PowerOnVM_Task")
        with pytest.raises(vim.fault.ResourceInUse, match="vm-1"):
            update(lab, "esx-1", wanted(V100_IDS[0], enabled=False))
        update(lab, "esx-1", wanted(V100_IDS[1], enabled=False))
        await lab.run(vm, "PowerOffVM_Task")
        update(lab, "esx-1", wanted(V100_IDS[0], enabled=False))

    simulate(TWO_V100, scenario)


def test_a_host_that_is_away_cannot_be_configured() -> None:
    with pytest.raises(vmodl.fault.HostNotConnected):
        update(Inventory(PLAIN), "away", wanted("0000:3b:00.0"))


def test_the_config_target_offers_what_is_active() -> None:
    lab = Inventory(TWO_V100)
    host = lab["esx-1"]
    target = lab.call(host.cluster.environment, "QueryConfigTarget", host=host)
    assert [info.pciDevice.id for info in target.pciPassthrough] == list(V100_IDS)
    assert {info.systemId for info in target.pciPassthrough} == {host.system_id}
    assert host.system_id != lab["esx-2"].system_id
    assert [(info.vendorId, info.deviceId) for info in target.dynamicPassthrough] == [(0x10DE, 0x1DB6)]
    whole = lab.call(host.cluster.environment, "QueryConfigTarget")
    assert len(whole.pciPassthrough) == 0
