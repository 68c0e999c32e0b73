"""The encoder writes what pyVmomi's serialiser writes, for every kind of value."""

from __future__ import annotations

import datetime as dt
import re
import typing as t

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyVmomi import SoapAdapter
from pyVmomi.VmomiSupport import Object

from vsphere_simulator.encode import Encoder, encoder_for
from vsphere_simulator.vmomi import conform, make, support, vim, vmodl

V8 = "vim.version.v8_0_3_0"
V67 = "vim.version.version12"
NOW = dt.datetime(2026, 1, 2, 3, 4, 5, 6000, tzinfo=dt.UTC)


def by_pyvmomi(value: t.Any, version: str) -> str:
    names = SoapAdapter.SOAP_NSMAP.copy()
    names["urn:vim25"] = ""
    info = Object(name="val", type=object, version=version, flags=0)
    return str(SoapAdapter.SerializeToStr(value, info, version, names))


def canonical(text: str) -> str:
    """Drop what pyVmomi adds to the outermost element, and the order of attributes."""
    text = re.sub(r' (versionId="[^"]*"|xmlns="urn:vim25")', "", text)
    return re.sub(r"<(\w+)((?: [\w:]+=\"[^\"]*\")*)>", lambda m: f"<{m[1]}{' '.join(sorted(m[2].split(' ')))}>", text)


def disk() -> t.Any:
    return make(
        vim.vm.device.VirtualDisk,
        key=2000,
        deviceInfo=make(vim.Description, label="Hard disk <1>", summary="40 & more"),
        backing=make(
            vim.vm.device.VirtualDisk.FlatVer2BackingInfo,
            fileName="[shared] a/a.vmdk",
            diskMode="persistent",
            datastore=vim.Datastore("datastore-1"),
        ),
        capacityInKB=41943040,
        capacityInBytes=42949672960,
    )


def task_info() -> t.Any:
    return make(
        vim.TaskInfo,
        key="task-1",
        task=vim.Task("task-1"),
        descriptionId="VirtualMachine.clone",
        name=vim.VirtualMachine.CloneVM_Task,
        state="error",
        error=vim.fault.InvalidState(msg="bad <state>"),
        reason=make(vim.TaskReasonUser, userName="admin"),
        queueTime=NOW,
        eventChainId=1,
    )


VALUES = {
    "int": 1,
    "bool": True,
    "long": support.long(1 << 40),
    "float": 1.5,
    "text": "a <b> & c",
    "time": NOW,
    "binary": support.binary(b"\x00\x01"),
    "enum": vim.VirtualMachine.PowerState("poweredOn"),
    "type": vim.VirtualMachine,
    "strings": support.GetVmodlType("string[]")(["a", "b"]),
    "ints": support.GetVmodlType("int[]")([1, 2]),
    "no strings": support.GetVmodlType("string[]")([]),
    "references": support.GetVmodlType("vim.VirtualMachine[]")([vim.VirtualMachine("vm-1")]),
    "option": make(vim.option.OptionValue, key="k", value=False),
    "device": disk(),
    "devices": vim.vm.device.VirtualDevice.Array([disk(), make(vim.vm.device.VirtualKeyboard, key=600)]),
    "task": task_info(),
    "fault": vim.fault.NoPermission(object=vim.VirtualMachine("vm-1"), privilegeId="x", msg="no"),
    "dynamic": make(
        vim.vm.device.VirtualPCIPassthrough,
        key=1,
        backing=make(vim.vm.device.VirtualPCIPassthrough.DynamicBackingInfo, deviceName="gpu", customLabel="v100"),
    ),
}


@pytest.mark.parametrize("version", [V8, V67])
@pytest.mark.parametrize("kind", VALUES)
def test_as_pyvmomi_writes_it(kind: str, version: str) -> None:
    assert canonical(Encoder(version).element("val", VALUES[kind], object)) == canonical(
        by_pyvmomi(VALUES[kind], version)
    )


def test_a_reference_in_any_says_what_it_is() -> None:
    text = encoder_for(V8).element("val", vim.VirtualMachine("vm-1"), object)
    assert text == '<val type="VirtualMachine" xsi:type="ManagedObjectReference">vm-1</val>'


def test_fields_and_types_an_old_client_does_not_know_are_left_out() -> None:
    text = Encoder(V67).element("val", VALUES["dynamic"], object)
    assert "customLabel" not in text
    assert "VirtualPCIPassthroughDynamicBackingInfo" not in text
    assert "customLabel" in Encoder(V8).element("val", VALUES["dynamic"], object)


@given(st.text())
def test_any_text_is_read_back(text: str) -> None:
    body = f"<a>{encoder_for(V8).element('val', text, str)}</a>"
    parsed = SoapAdapter.Deserialize(re.sub(r"</?a>", "", body).encode(), str)
    carried = "".join("\ufffd" if not _xml_char(character) else character for character in text)
    assert parsed == carried.replace("\r\n", "\n").replace("\r", "\n")


def _xml_char(character: str) -> bool:
    code = ord(character)
    return code in (9, 10, 13) or 0x20 <= code <= 0xD7FF or 0xE000 <= code <= 0xFFFD or code >= 0x10000


def test_a_missing_required_field_is_an_error() -> None:
    with pytest.raises(TypeError, match="required field connectionState"):
        encoder_for(V8).element("val", make(vim.vm.RuntimeInfo), object)


def test_an_untyped_list_is_an_error() -> None:
    with pytest.raises(TypeError, match="untyped"):
        encoder_for(V8).element("val", [1], object)


def test_make_refuses_a_field_the_type_does_not_have() -> None:
    with pytest.raises(TypeError, match="memory"):
        make(vim.vm.ConfigSpec, memory=1)
    assert make(vim.vm.ConfigSpec).deviceChange is not make(vim.vm.ConfigSpec).deviceChange


@pytest.mark.parametrize(
    ("declared", "value", "kind"),
    [
        ("long", 1, support.long),
        ("string[]", ["a"], support.GetVmodlType("string[]")),
        ("vim.VirtualMachine.PowerState", "poweredOn", vim.VirtualMachine.PowerState),
        ("vmodl.Binary", b"a", support.binary),
    ],
)
def test_conform_gives_the_declared_type(declared: str, value: t.Any, kind: t.Any) -> None:
    found = conform(value, support.GetVmodlType(declared))
    assert type(found) is kind
    assert found == value


def test_fault_detail_carries_no_message() -> None:
    detail = encoder_for(V8).fault_detail(vmodl.fault.InvalidArgument(invalidProperty="spec", msg="said elsewhere"))
    assert detail.startswith('<InvalidArgumentFault xmlns="urn:vim25" xsi:type="InvalidArgument">')
    assert "said elsewhere" not in detail
