"""Graphics types of a host: when there are vGPU types, and who has a GPU."""

from __future__ import annotations

import pytest
from inventory import Inventory, change, simulate, until, virtual

from vsphere_simulator.vmomi import vim, vmodl

MODEL = """
clusters:
  - name: c
    hosts:
      - {name: h, gpus: [{gpu: A100-40}, {gpu: T4}], vgpu_manager: "16.4"}
      - {name: bare, gpus: [{gpu: A100-40}]}
vms: [{name: v, host: h, firmware: efi, memory_locked: true}]
"""
A100, T4 = "0000:3b:00.0", "0000:5e:00.0"


def config(default: str = "sharedDirect", policy: str = "performance", **devices: tuple[str, str | None]) -> object:
    named = {"a100": A100, "t4": T4, "other": "0000:ff:00.0"}
    kind = vim.host.GraphicsConfig.DeviceType
    return vim.host.GraphicsConfig(
        hostDefaultGraphicsType=default,
        sharedPassthruAssignmentPolicy=policy,
        deviceType=[kind(deviceId=named[key], graphicsType=t, vgpuMode=m) for key, (t, m) in devices.items()],
    )


def update(lab: Inventory, host: str, wanted: object) -> None:
    lab.call(lab[host].managers["graphicsManager"], "UpdateGraphicsConfig", config=wanted)


def shown(lab: Inventory, host: str) -> dict[str, tuple[str, str]]:
    return {info.pciId: (info.graphicsType, info.vgpuMode) for info in lab[host].graphics.info()}


def test_types_appear_when_the_host_is_shared_direct() -> None:
    lab = Inventory(MODEL)
    graphics = lab["h"].graphics
    assert graphics.type_names() == []
    assert shown(lab, "h") == {A100: ("shared", "none"), T4: ("shared", "none")}
    update(lab, "h", config())
    assert {"nvidia_a100-40c", "grid_t4-16q"} <= set(graphics.type_names())
    assert [one.vgpu for one in graphics.capabilities()] == graphics.type_names()
    assert shown(lab, "h") == {A100: ("sharedDirect", "sameSize"), T4: ("sharedDirect", "sameSize")}
    target = lab.call(lab["c"].environment, "QueryConfigTarget", host=lab["h"])
    assert [one.vgpu for one in target.sharedGpuPassthroughTypes] == graphics.type_names()
    assert {one.fbSizeInGib for one in target.vgpuProfileInfo if "a100" in one.name} == {4, 5, 8, 10, 20, 40}


def test_without_a_manager_there_are_none() -> None:
    async def scenario(lab: Inventory) -> None:
        update(lab, "bare", config())
        host = lab["bare"]
        assert (host.graphics.type_names(), shown(lab, "bare")) == ([], {A100: ("basic", "none")})
        host.graphics.manager = "16.4"
        assert host.graphics.type_names() == []
        assert host.builders["summary.rebootRequired"](host)
        await lab.run(host, "RebootHost_Task", force=True)
        await until(lambda: host.answers)
        assert "nvidia_a100-40c" in host.graphics.type_names()

    simulate(MODEL, scenario)


def test_single_gpus_can_differ_from_the_default() -> None:
    lab = Inventory(MODEL)
    update(lab, "h", config(a100=("sharedDirect", "mixedSize"), t4=("shared", None)))
    assert shown(lab, "h") == {A100: ("sharedDirect", "mixedSize"), T4: ("shared", "none")}
    types = lab["h"].graphics.config().deviceType
    assert [(one.deviceId, one.graphicsType, one.vgpuMode) for one in types] == [
        (A100, "sharedDirect", "mixedSize"), (T4, "shared", "sameSize")]  # fmt: skip
    update(lab, "h", config("shared"))
    assert lab["h"].graphics.type_names() == []


@pytest.mark.parametrize(
    "wanted",
    [
        config("direct"),
        config(policy="random"),
        config(other=("shared", None)),
        config(t4=("sharedDirect", "mixedSize")),
        config(a100=("sharedDirect", "oddSize")),
        config(a100=("basic", None)),
    ],
)
def test_what_cannot_be_is_refused_and_nothing_changes(wanted: object) -> None:
    lab = Inventory(MODEL)
    with pytest.raises(vmodl.fault.InvalidArgument):
        update(lab, "h", wanted)
    assert lab["h"].graphics.default_type == "shared"


def test_mixed_size_came_with_update_three() -> None:
    lab = Inventory("api_version: 8.0.2.0\n" + MODEL)
    with pytest.raises(vmodl.fault.InvalidArgument):
        update(lab, "h", config(a100=("sharedDirect", "mixedSize")))


def test_a_gpu_with_vgpus_running_keeps_its_type() -> None:
    async def scenario(lab: Inventory) -> None:
        update(lab, "h", config())
        await lab.reconfigure(lab["v"], deviceChange=[change(virtual("nvidia_a100-8c"))])
        await lab.run(lab["v"], "PowerOnVM_Task")
        with pytest.raises(vim.fault.ResourceInUse, match="virtual machine v"):
            update(lab, "h", config("shared"))
        with pytest.raises(vim.fault.ResourceInUse):
            lab.call(lab["h"].managers["pciPassthruSystem"], "UpdatePassthruConfig", config=[
                vim.host.PciPassthruConfig(id=A100, passthruEnabled=True)])  # fmt: skip
        update(lab, "h", config(t4=("shared", None)))

    simulate(MODEL, scenario)


def test_passthrough_takes_the_gpu_away_from_the_manager_and_back() -> None:
    async def scenario(lab: Inventory) -> None:
        update(lab, "h", config())
        host, system = lab["h"], lab["h"].managers["pciPassthruSystem"]
        for enabled, kind in ((True, "direct"), (False, "sharedDirect")):
            lab.call(
                system, "UpdatePassthruConfig", config=[vim.host.PciPassthruConfig(id=A100, passthruEnabled=enabled)]
            )
            await lab.run(host, "RebootHost_Task", force=True)
            await until(lambda: host.answers)
            assert shown(lab, "h")[A100][0] == kind
            assert any("a100" in name for name in host.graphics.type_names()) is not enabled

    simulate(MODEL, scenario)
