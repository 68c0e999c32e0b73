"""vCenter settings, cluster configuration, and the software of hosts."""

from __future__ import annotations

import pytest
from inventory import Inventory, simulate, until

from vsphere_simulator.model.loader import ModelError
from vsphere_simulator.vmomi import vim, vmodl

URL = "https://depot.example/NVD-VGPU-800_16.4/metadata.zip"
VIB = "https://depot.example/NVD-VGPU-800_17.1.vib"
BULLETIN = "NVD-VMware_ESXi_8.0.0_Driver_535.161.05-1OEM.800"
MODEL = f"""
depots:
  {URL}:
    - {{version: 535.161.05-1OEM.800, vgpu_manager: "16.4"}}
    - {{name: NVD-GPU-MGMT-Daemon, version: 535.161.05-0}}
  {VIB}: [{{version: 550.90.05-1OEM.800, vgpu_manager: "17.1"}}]
clusters: [{{name: c, ha: true, hosts: [{{name: h, gpus: [{{gpu: A100-40}}], graphics_type: sharedDirect}}]}}]
"""


async def install(lab: Inventory, *urls: str):  # noqa: ANN201 - a data object made at run time
    return await lab.run(lab["h"].managers["patchManager"], "InstallHostPatchV2_Task", meta_urls=list(urls))


def test_the_manager_needs_maintenance_mode_and_a_reboot() -> None:
    async def scenario(lab: Inventory) -> None:
        host = lab["h"]
        with pytest.raises(vim.fault.InvalidState, match="maintenance mode"):
            await install(lab, URL)
        await lab.run(host, "EnterMaintenanceMode_Task", timeout=0)
        result = await install(lab, URL)
        assert [(one.installed, one.restartRequired) for one in result.status] == [(True, True), (True, False)]
        assert host.graphics.type_names() == []
        assert host.builders["summary.rebootRequired"](host)
        await lab.run(host, "RebootHost_Task", force=False)
        await until(lambda: host.answers)
        assert "nvidia_a100-40c" in host.graphics.type_names()
        packages = lab.call(host.managers["imageConfigManager"], "fetchSoftwarePackages")
        assert [(one.name, one.version) for one in packages][1:] == [
            ("NVD-VMware_ESXi_8.0.0_Driver", "535.161.05-1OEM.800"),
            ("NVD-GPU-MGMT-Daemon", "535.161.05-0"),
        ]

        again = await lab.run(host.managers["patchManager"], "ScanHostPatchV2_Task", meta_urls=[URL])
        assert [(one.applicable, one.installed) for one in again.status] == [(False, True)] * 2
        known = await lab.run(host.managers["patchManager"], "QueryHostPatch_Task")
        assert [one.id for one in known.status] == [BULLETIN, "NVD-GPU-MGMT-Daemon_535.161.05-0"]
        await lab.run(host.managers["patchManager"], "UninstallHostPatch_Task", bulletin_ids=[BULLETIN])
        assert "nvidia_a100-40c" in host.graphics.type_names()
        await lab.run(host, "RebootHost_Task", force=False)
        await until(lambda: host.answers)
        assert host.graphics.type_names() == []

    simulate(MODEL, scenario)


def test_what_cannot_be_installed_says_why() -> None:
    async def scenario(lab: Inventory) -> None:
        host = lab["h"]
        await lab.run(host, "EnterMaintenanceMode_Task", timeout=0)
        with pytest.raises(vim.fault.PlatformConfigFault, match=r"nowhere/metadata\.zip"):
            await install(lab, "https://depot.example/nowhere/metadata.zip")
        with pytest.raises(vim.fault.PlatformConfigFault, match=r"bundle\.zip is not a metadata\.zip"):
            await install(lab, "https://depot.example/bundle.zip")
        with pytest.raises(vmodl.fault.InvalidArgument):
            await install(lab)
        for unknown in ("nothing", "NVD-VMware_ESXi_8.0.0_Driver", f"NVIDIA_bootbank_{BULLETIN}"):
            with pytest.raises(vim.fault.PlatformConfigFault, match=unknown):
                await lab.run(host.managers["patchManager"], "UninstallHostPatch_Task", bulletin_ids=[unknown])
        assert host.packages == {}

    simulate(MODEL, scenario)


@pytest.mark.parametrize("name", ["InstallHostPatchV2_Task", "ScanHostPatchV2_Task", "CheckHostPatch_Task"])
def test_an_offline_bundle_is_no_patch_since_5_0(name: str) -> None:
    async def scenario(lab: Inventory) -> None:
        await lab.run(lab["h"], "EnterMaintenanceMode_Task", timeout=0)
        for more in ({}, {"meta_urls": [URL]}):
            with pytest.raises(vim.fault.PlatformConfigFault, match="bundleUrls"):
                await lab.run(lab["h"].managers["patchManager"], name, bundle_urls=[URL], **more)
        assert lab["h"].packages == {}

    simulate(MODEL, scenario)


def test_a_vib_is_installed_by_its_own_url() -> None:
    async def scenario(lab: Inventory) -> None:
        patches = lab["h"].managers["patchManager"]
        await lab.run(lab["h"], "EnterMaintenanceMode_Task", timeout=0)
        with pytest.raises(vim.fault.PlatformConfigFault, match=r"metadata\.zip is not a \.vib"):
            await lab.run(patches, "InstallHostPatchV2_Task", vib_urls=[URL])
        await lab.run(patches, "InstallHostPatchV2_Task", vib_urls=[VIB])
        assert [package.version for package in lab["h"].packages.values()] == ["550.90.05-1OEM.800"]
        assert (await lab.run(patches, "QueryHostPatch_Task")).status == []

    simulate(MODEL, scenario)


def test_settings_keep_their_type() -> None:
    lab = Inventory('options: {vgpu.hotmigrate.enabled: "true", my.own: x}\n' + MODEL)
    settings = lab.world.content["setting"]

    def value(key: str) -> object:
        return lab.call(settings, "QueryOptions", name=key)[0].value

    assert value("vgpu.hotmigrate.enabled") is True
    assert value("my.own") == "x"
    assert {option.key for option in lab.call(settings, "QueryOptions", name="my.")} == {"my.own"}
    assert len(lab.call(settings, "QueryOptions")) > 2
    for key, wrong in (("vgpu.hotmigrate.enabled", "false"), ("event.maxAge", "30"), ("event.maxAge", True)):
        changed = [vim.option.OptionValue(key="my.own", value="y"), vim.option.OptionValue(key=key, value=wrong)]
        with pytest.raises(vmodl.fault.InvalidArgument):
            lab.call(settings, "UpdateOptions", changed_value=changed)
    assert value("my.own") == "x"
    lab.call(
        settings, "UpdateOptions", changed_value=[vim.option.OptionValue(key="vgpu.hotmigrate.enabled", value=False)]
    )
    assert value("vgpu.hotmigrate.enabled") is False
    with pytest.raises(vim.fault.InvalidName):
        value("not.there")


def test_a_setting_of_the_wrong_type_is_a_mistake_in_the_model() -> None:
    with pytest.raises(ModelError, match=r"vgpu\.hotmigrate\.enabled is true or false, not maybe"):
        Inventory("options: {vgpu.hotmigrate.enabled: maybe}\n" + MODEL)


async def reconfigure(lab: Inventory, *, modify: bool = True, **spec: object) -> None:
    wanted = vim.cluster.ConfigSpecEx(**spec)
    await lab.run(lab["c"], "ReconfigureComputeResource_Task", spec=wanted, modify=modify)


def test_drs_and_ha_of_a_cluster_change_as_asked() -> None:
    def option(key: str, value: str) -> object:
        return vim.option.OptionValue(key=key, value=value)

    async def scenario(lab: Inventory) -> None:
        cluster = lab["c"]
        config = cluster.builders["configurationEx"]
        await reconfigure(
            lab,
            drsConfig=vim.cluster.DrsConfigInfo(
                defaultVmBehavior="fullyAutomated", vmotionRate=2, option=[option("a", "1"), option("b", "2")]
            ),
            dasConfig=vim.cluster.DasConfigInfo(failoverLevel=2, option=[option("das.x", "1")]),
        )
        shown = config(cluster)
        assert (shown.drsConfig.enabled, shown.drsConfig.defaultVmBehavior, shown.drsConfig.vmotionRate) == (
            True, "fullyAutomated", 2)  # fmt: skip
        assert (shown.dasConfig.enabled, shown.dasConfig.failoverLevel) == (True, 2)
        await reconfigure(
            lab,
            drsConfig=vim.cluster.DrsConfigInfo(enabled=False, option=[option("a", ""), option("c", "3")]),
            dasConfig=vim.cluster.DasConfigInfo(enabled=False, option=[option("das.x", "")]),
        )
        shown = config(cluster)
        assert {one.key: one.value for one in shown.drsConfig.option} == {"b": "2", "c": "3"}
        assert (shown.drsConfig.enabled, shown.drsConfig.defaultVmBehavior) == (False, "fullyAutomated")
        assert (shown.dasConfig.enabled, list(shown.dasConfig.option)) == (False, [])
        await reconfigure(lab, modify=False, drsConfig=vim.cluster.DrsConfigInfo(enabled=True))
        assert config(cluster).drsConfig.defaultVmBehavior == "manual"
        assert list(config(cluster).drsConfig.option) == []

    simulate(MODEL, scenario)


@pytest.mark.parametrize(
    ("spec", "fault"),
    [
        ({"proactiveDrsConfig": vim.cluster.ProactiveDrsConfigInfo(enabled=True)}, vmodl.fault.NotSupported),
        ({"drsConfig": vim.cluster.DrsConfigInfo(scaleDescendantsShares="disabled")}, vmodl.fault.NotSupported),
        ({"drsConfig": vim.cluster.DrsConfigInfo(vmotionRate=9)}, vmodl.fault.InvalidArgument),
    ],
)
def test_what_a_cluster_cannot_have_is_refused(spec: dict[str, object], fault: type[Exception]) -> None:
    async def scenario(lab: Inventory) -> None:
        before = lab["c"].drs
        with pytest.raises(fault):
            await reconfigure(lab, **spec)
        assert lab["c"].drs is before

    simulate(MODEL, scenario)
