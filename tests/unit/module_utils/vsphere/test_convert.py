# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

import datetime
from typing import Any

import pytest
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.facts import HostFacts, Intent
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere import convert
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.pyvmomi import vim
from hypothesis import given
from hypothesis import strategies as st

BARE = HostFacts("esx", "host-1", "gpu", "connected", False, None)


@given(
    st.builds(
        Intent,
        run=st.text(),
        action=st.text(),
        started=st.text(),
        boot_time=st.none()
        | st.datetimes(datetime.datetime(2000, 1, 1), timezones=st.just(datetime.UTC)).map(convert.iso),
    )
)
def test_intents_survive_their_text(intent: Intent) -> None:
    assert convert.parse_intent(convert.format_intent(intent)) == intent


@pytest.mark.parametrize(
    "text", ["", "null", "[]", "{}", "maintenance by joe", '{"v":2,"run":"r","action":"a","started":"s"}']
)
def test_what_is_no_intent_of_ours_is_none(text: str) -> None:
    assert convert.parse_intent(text) is None


def test_an_intent_is_compact() -> None:
    text = convert.format_intent(Intent("r", "maintenance", "2024-05-01T08:00:00.000000Z"))
    assert text == '{"v":1,"run":"r","action":"maintenance","started":"2024-05-01T08:00:00.000000Z"}'
    assert convert.format_intent(None) == ""


@pytest.mark.parametrize(
    ("name", "plain"), [("esx-1", "esx-1"), ("a%2fb", "a/b"), ("50%25", "50%"), ("a%5Cb", "a\\b"), ("a%20b", "a%20b")]
)
def test_escaped_names(name: str, plain: str) -> None:
    assert convert.plain_name(name) == plain


def test_times_are_utc() -> None:
    zone = datetime.timezone(datetime.timedelta(hours=2))
    assert convert.iso(datetime.datetime(2024, 5, 1, 10, 0, 0, 5000, tzinfo=zone)) == "2024-05-01T08:00:00.005000Z"
    assert convert.iso(datetime.datetime(2024, 5, 1, 8)) == "2024-05-01T08:00:00.000000Z"
    assert convert.iso(None) is None


def pci(address: str, device: int, vendor: int = 0x10DE) -> Any:
    return vim.host.PciDevice(
        id=address, classId=0x0302, vendorId=vendor, deviceId=device, vendorName="NVIDIA", deviceName="GPU"
    )


def passthrough(address: str, **changes: Any) -> Any:
    plain = {"dependentDevice": address, "passthruCapable": True, "passthruEnabled": False, "passthruActive": False}
    return vim.host.PciPassthruInfo(id=address, **(plain | changes))


def test_a_host() -> None:
    facts = convert.host_facts(
        "host-1",
        {
            "name": "esx-1",
            "runtime.connectionState": "connected",
            "runtime.inMaintenanceMode": True,
            "runtime.bootTime": datetime.datetime(2024, 5, 1, 8, tzinfo=datetime.UTC),
            "hardware.pciDevice": [
                pci("0000:3b:00.0", 0x1DB6),
                pci("0000:5e:00.0", 0x9999 - 0x10000, 0x8086 - 0x10000),
            ],
            "config.pciPassthruInfo": [
                passthrough("0000:5e:00.0", dependentDevice="0000:5d:00.0"),
                passthrough("0000:3b:00.0", passthruEnabled=True, hardwareLabel="v100"),
                passthrough("0000:00:1f.0"),
            ],
            "customValue": [
                vim.CustomFieldsManager.StringValue(key=7, value="x"),
                vim.CustomFieldsManager.StringValue(key=8, value='{"v":1,"run":"r","action":"a","started":"s"}'),
            ],
            "config.graphicsInfo": [
                vim.host.GraphicsInfo(
                    deviceName="GPU",
                    vendorName="NVIDIA",
                    pciId="0000:3b:00.0",
                    graphicsType="shared",
                    memorySizeInKB=32 * 1024 * 1024,
                    vm=[vim.VirtualMachine("vm-9", None)],
                )
            ],
            "config.sharedPassthruGpuTypes": ["grid_v100d-8q"],
        },
        cluster="gpu",
        intent_key=8,
    )
    assert (facts.name, facts.cluster, facts.in_maintenance) == ("esx-1", "gpu", True)
    assert facts.boot_time == "2024-05-01T08:00:00.000000Z"
    assert [device.address for device in facts.devices] == ["0000:3b:00.0", "0000:5e:00.0"]
    first, second = facts.devices
    assert (first.id, first.passthrough_enabled, first.passthrough_active) == ("10de:1db6", True, False)
    assert (first.dependent_device, first.hardware_label) == (None, "v100")
    assert (second.id, second.dependent_device) == ("8086:9999", "0000:5d:00.0")
    assert facts.intent == Intent("r", "a", "s")
    assert facts.graphics[0].memory_mb == 32768
    assert facts.graphics[0].vm_moids == ("vm-9",)
    assert facts.vgpu_types == ("grid_v100d-8q",)


def test_a_host_of_which_little_is_known() -> None:
    facts = convert.host_facts(
        "host-1", {"name": "esx-1", "runtime.connectionState": "notResponding"}, cluster=None, intent_key=None
    )
    assert not facts.answers
    assert facts.boot_time is None
    assert facts.devices == ()


def fixed() -> Any:
    kind = vim.vm.device.VirtualPCIPassthrough
    backing = kind.DeviceBackingInfo(
        id="0000:3b:00.0", deviceId="1db6", systemId="s", vendorId=0x10DE, deviceName="GPU"
    )
    return kind(key=13000, backing=backing)


def guest(name: str, power: str = "poweredOn", **more: Any) -> dict[str, Any]:
    return {"name": name, "runtime.powerState": power, "moid": f"vm-{name}"} | more


AGENT = vim.ext.ManagedByInfo(extensionKey="com.vmware.vim.eam", type="cluster-agent")
APP = vim.ext.ManagedByInfo(extensionKey="com.example.backup", type="proxy")


def test_agents_and_machines_that_are_off_keep_no_host_from_maintenance() -> None:
    facts = convert.with_guests(
        BARE,
        [
            guest("b"),
            guest("a"),
            guest("off", "poweredOff"),
            guest("suspended", "suspended"),
            guest("agent", **{"config.managedBy": AGENT}),
            guest("vCLS (1)"),
            guest("vCLS-01234567-89ab-cdef-0123-456789abcdef"),
            guest("vCLS-test-by-joe"),
            guest("proxy", **{"config.managedBy": APP}),
        ],
    )
    assert facts.powered_on_vms == ("a", "b", "proxy", "vCLS-test-by-joe")
    assert len(facts.vm_names) == 9
    assert facts.drs_moves_vms == ()


def cluster(enabled: bool = True, behavior: str = "fullyAutomated", overrides: list[Any] | None = None) -> Any:
    drs = vim.cluster.DrsConfigInfo(enabled=enabled, defaultVmBehavior=behavior, enableVmBehaviorOverrides=True)
    return vim.cluster.ConfigInfoEx(drsConfig=drs, drsVmConfig=overrides or [])


MANUAL_A = vim.cluster.DrsVmConfigInfo(key=vim.VirtualMachine("vm-a", None), enabled=True, behavior="manual")
OFF_A = vim.cluster.DrsVmConfigInfo(key=vim.VirtualMachine("vm-a", None), enabled=False)


@pytest.mark.parametrize(
    ("config", "moved"),
    [
        (None, ()),
        (cluster(enabled=False), ()),
        (cluster(behavior="manual"), ()),
        (cluster(behavior="partiallyAutomated"), ()),
        (cluster(), ("a", "b")),
        (cluster(overrides=[MANUAL_A]), ("b",)),
        (cluster(overrides=[OFF_A]), ("b",)),
    ],
)
def test_drs_moves_what_it_may_and_can(config: Any, moved: tuple[str, ...]) -> None:
    guests = [guest("a"), guest("b"), guest("gpu", **{"config.hardware.device": [fixed()]})]
    facts = convert.with_guests(BARE, guests, cluster_config=config)
    assert facts.powered_on_vms == ("a", "b", "gpu")
    assert facts.drs_moves_vms == moved


def test_a_virtual_machine() -> None:
    kind = vim.vm.device.VirtualPCIPassthrough
    dynamic = kind.DynamicBackingInfo(
        deviceName="",
        allowedDevice=[
            kind.AllowedDevice(vendorId=0x10DE, deviceId=0x1EB8),
            kind.AllowedDevice(vendorId=0x10DE, deviceId=0x1DB6),
        ],
        customLabel="any",
        assignedId="00000:059:00.0",
    )
    facts = convert.vm_facts(
        "vm-1",
        {
            "name": "a%2fb",
            "runtime.powerState": "poweredOn",
            "runtime.host": vim.HostSystem("host-1", None),
            "config.changeVersion": "2024",
            "config.firmware": "efi",
            "config.version": "vmx-21",
            "config.hardware.memoryMB": 32768,
            "config.memoryReservationLockedToMax": True,
            "config.memoryAllocation.reservation": 32768,
            "config.extraConfig": [
                vim.option.OptionValue(key="pciPassthru.use64bitMMIO", value="TRUE"),
                vim.option.OptionValue(key="guestinfo.secret", value="x"),
            ],
            "config.hardware.device": [
                vim.vm.device.VirtualKeyboard(key=600),
                fixed(),
                kind(key=13001, backing=dynamic),
                kind(key=13002, backing=kind.VmiopBackingInfo(vgpu="nvidia_a100-10c")),
            ],
        },
        host_names={"host-1": "esx-1"},
        intent_key=None,
    )
    assert (facts.name, facts.host, facts.power, facts.firmware, facts.hardware_version) == (
        "a/b",
        "esx-1",
        "poweredOn",
        "efi",
        21,
    )
    assert facts.extra_config == {"pciPassthru.use64bitMMIO": "TRUE"}
    assert [(gpu.mode, gpu.key, gpu.address) for gpu in facts.gpus] == [
        ("fixed", 13000, "0000:3b:00.0"),
        ("dynamic", 13001, "0000:3b:00.0"),
        ("vgpu", 13002, None),
    ]
    assert facts.gpus[0].ids == ("10de:1db6",)
    assert facts.gpus[1].ids == ("10de:1db6", "10de:1eb8")
    assert facts.gpus[2].profile == "nvidia_a100-10c"


def test_a_virtual_machine_that_cannot_be_read() -> None:
    facts = convert.vm_facts("vm-1", {"name": "a"}, host_names={}, intent_key=None)
    assert (facts.host, facts.power, facts.hardware_version, facts.gpus) == (None, "unknown", 0, ())


@pytest.mark.parametrize(
    ("device_id", "expected"),
    [("1db6", ("10de:1db6",)), ("0x1db6", ("10de:1db6",)), ("", ()), ("none", ())],
)
def test_a_fixed_device_without_a_readable_id_is_still_there(device_id: str, expected: tuple[str, ...]) -> None:
    kind = vim.vm.device.VirtualPCIPassthrough
    backing = kind.DeviceBackingInfo(id="0000:3b:00.0", deviceId=device_id, vendorId=0x10DE, systemId="s")
    props = {"name": "a", "config.hardware.device": [kind(key=13000, backing=backing)]}
    gpu = convert.vm_facts("vm-1", props, host_names={}, intent_key=None).gpus[0]
    assert (gpu.mode, gpu.address, gpu.ids) == ("fixed", "0000:3b:00.0", expected)
