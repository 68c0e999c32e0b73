# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.facts import HostFacts, Intent, PciFunction
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.passthrough import (
    DeviceUpdate,
    HostPlan,
    HostWish,
    plan_passthrough,
)
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.selection import parse

BOOTED = "2024-05-01T08:00:00.000000Z"
V100 = {"id": "10de:1db6"}


def gpu(address: str, **changes: Any) -> PciFunction:
    plain = PciFunction(address, 0x10DE, 0x1DB6, 0x0302, "NVIDIA Tesla V100", passthrough_capable=True)
    return dataclasses.replace(plain, **changes)


def host(*devices: PciFunction, **changes: Any) -> HostFacts:
    plain = HostFacts("esx-1", "host-1", "gpu", "connected", False, BOOTED, devices=devices)
    return dataclasses.replace(plain, **changes)


ON = {"passthrough_enabled": True, "passthrough_active": True}
PENDING = {"passthrough_enabled": True, "passthrough_active": False}


def plan(
    facts: HostFacts | None, *devices: dict[str, str], label: str | None = None, users: Any = None, **options: Any
) -> HostPlan:
    wish = HostWish("esx-1", tuple(parse(device) for device in devices or (V100,)), label, **options)
    hosts = {} if facts is None else {"esx-1": facts}
    return plan_passthrough(hosts, [wish], users={"esx-1": users or {}}, known=("esx-1a", "other"))["esx-1"]


def update(address: str, enabled: bool = True, *, now: bool = False, label: str | None = None) -> DeviceUpdate:
    return DeviceUpdate(address, enabled, now, label)


A, B = "0000:3b:00.0", "0000:5e:00.0"


@pytest.mark.parametrize(
    ("facts", "options", "updates", "reboot_required"),
    [
        pytest.param(host(gpu(A), gpu(B)), {}, [update(A), update(B)], True, id="all that match"),
        pytest.param(host(gpu(A, **ON), gpu(B)), {}, [update(B)], True, id="only those that change"),
        pytest.param(host(gpu(A, **ON), gpu(B, **ON)), {}, [], False, id="converged"),
        pytest.param(host(gpu(A, **PENDING)), {}, [], True, id="waits for a reboot"),
        pytest.param(host(gpu(A), rebind_without_reboot=True), {}, [update(A, now=True)], False, id="at once"),
        pytest.param(
            host(gpu(A, **PENDING), rebind_without_reboot=True), {}, [update(A, now=True)], False, id="activate"
        ),
        pytest.param(host(gpu(A, **ON)), {"enabled": False}, [update(A, False)], True, id="disable"),
        pytest.param(host(gpu(A)), {"enabled": False}, [], False, id="disabled already"),
        pytest.param(host(gpu(A, **PENDING)), {"enabled": False}, [update(A, False)], False, id="take back in time"),
        pytest.param(host(gpu(A, **ON)), {"label": "v100"}, [update(A, label="v100")], False, id="label"),
        pytest.param(host(gpu(A, **ON, hardware_label="v100")), {}, [], False, id="label unasked"),
        pytest.param(
            host(gpu(A, **ON, hardware_label="v100")), {"label": ""}, [update(A, label="")], False, id="remove label"
        ),
        pytest.param(host(gpu(A, hardware_label="v100")), {}, [update(A)], True, id="keep label"),
        pytest.param(
            host(gpu(A), in_maintenance=True, intent=Intent("r", "maintenance", BOOTED)),
            {},
            [update(A)],
            True,
            id="ours",
        ),
    ],
)
def test_only_what_differs_is_changed(
    facts: HostFacts, options: dict[str, Any], updates: list[DeviceUpdate], reboot_required: bool
) -> None:
    planned = plan(facts, **options)
    assert list(planned.updates) == updates
    assert planned.plan.problems == ()
    assert planned.plan.changed == bool(updates)
    assert planned.plan.notes["reboot_required"] == reboot_required
    assert planned.after is not None
    again = plan(planned.after, **options)
    assert again.updates == ()
    assert not again.plan.changed


AUDIO = PciFunction("0000:3b:00.1", 0x10DE, 0x10F8, 0x0403, "NVIDIA audio", True, dependent_device=A)
USB = PciFunction("0000:3b:00.2", 0x10DE, 0x1AD8, 0x0C03, "NVIDIA USB", True, dependent_device=A)
BRIDGE = PciFunction("0000:3a:00.0", 0x8086, 0x2030, 0x0604, "Intel root port")


def on(function: PciFunction) -> PciFunction:
    return dataclasses.replace(function, **ON)


@pytest.mark.parametrize(
    ("devices", "enabled", "addresses"),
    [
        pytest.param((gpu(A), AUDIO, USB, gpu(B)), True, {A, AUDIO.address, USB.address, B}, id="those on it"),
        pytest.param((gpu(A, **ON), on(AUDIO), USB), True, {USB.address}, id="the rest of them"),
        pytest.param((gpu(A, **ON), on(AUDIO)), False, {A, AUDIO.address}, id="and back"),
        pytest.param(
            (BRIDGE, gpu(A, dependent_device=BRIDGE.address)), True, {A}, id="a bridge is the host's own business"
        ),
        pytest.param(
            (gpu(A, dependent_device=BRIDGE.address), gpu(B, device_id=1, dependent_device=BRIDGE.address)),
            True,
            {A, B},
            id="below one bridge",
        ),
        pytest.param((gpu(A), gpu(B, device_id=1)), True, {A}, id="an independent one does not"),
    ],
)
def test_dependent_functions_go_along(devices: tuple[PciFunction, ...], enabled: bool, addresses: set[str]) -> None:
    planned = plan(host(*devices), enabled=enabled)
    assert {item.address for item in planned.updates} == addresses
    assert planned.after is not None
    assert plan(planned.after, enabled=enabled).updates == ()


def test_the_reason_is_told_whichever_function_was_chosen() -> None:
    planned = plan(host(gpu(A, **ON), on(AUDIO)), {"address": AUDIO.address}, enabled=False)
    reasons = {change.path: change.reason for change in planned.plan.changes}
    assert reasons == {
        f"{A} passthrough": f"goes along with {AUDIO.address}",
        f"{AUDIO.address} passthrough": AUDIO.name,
    }


@pytest.mark.parametrize(
    ("facts", "options", "code", "says"),
    [
        pytest.param(None, {}, "host_not_found", "Did you mean esx-1a?", id="unknown host"),
        pytest.param(host(connection="notResponding"), {}, "host_not_connected", "does not respond", id="silent"),
        pytest.param(host(connection="disconnected"), {}, "host_not_connected", "disconnected", id="disconnected"),
        pytest.param(
            host(connection="notResponding", intent=Intent("r", "maintenance", BOOTED)),
            {},
            "host_not_connected",
            "does not respond",
            id="ours but never told to reboot",
        ),
        pytest.param(
            host(PciFunction(A, 0x10DE, 0x1EB8, 0x0302, "T4")),
            {},
            "device_not_found",
            "10de:1eb8 (T4",
            id="other device",
        ),
        pytest.param(host(), {}, "device_not_found", "no display devices at all", id="no device"),
        pytest.param(
            host(gpu(A, passthrough_capable=False)),
            {},
            "device_not_capable",
            "not capable of passthrough",
            id="incapable",
        ),
        pytest.param(
            host(gpu(A, **ON)),
            {"enabled": False, "users": {A: ["vm-1"]}},
            "device_in_use",
            "in use by vm-1",
            id="in use",
        ),
    ],
)
def test_what_stands_in_the_way_is_said(facts: HostFacts | None, options: dict[str, Any], code: str, says: str) -> None:
    planned = plan(facts, **options)
    assert [problem.code for problem in planned.plan.problems] == [code]
    assert says in planned.plan.problems[0].msg
    assert not planned.plan.changed


def test_a_missing_device_can_be_skipped() -> None:
    planned = plan(host(gpu(A)), V100, {"name": "*h100*"}, missing="skip")
    assert [item.address for item in planned.updates] == [A]
    assert planned.plan.warnings == ("esx-1 has no PCI device with name *h100*; skipped.",)


def test_a_host_somebody_works_on_is_left_alone() -> None:
    planned = plan(host(gpu(A), in_maintenance=True))
    assert planned.updates == ()
    assert not planned.plan.failed
    assert planned.plan.notes["left_alone"] is True
    assert planned.plan.notes["maintenance_owner"] == "other"
    assert "somebody works on it" in planned.plan.warnings[0]


def test_a_reboot_of_ours_is_waited_for_not_failed() -> None:
    intent = Intent("r", "maintenance", BOOTED, boot_time=BOOTED)
    planned = plan(host(gpu(A, **PENDING), connection="notResponding", in_maintenance=True, intent=intent))
    assert not planned.plan.failed
    assert not planned.plan.changed
    assert planned.plan.notes["reboot_in_progress"] is True
    assert planned.plan.notes["reboot_required"] is True


def test_the_mark_of_an_interrupted_run_is_told() -> None:
    intent = Intent("r", "maintenance", BOOTED)
    assert plan(host(gpu(A, **ON), intent=intent)).plan.notes["unfinished"] is True
    assert plan(host(gpu(A, **ON), intent=intent, in_maintenance=True)).plan.notes["unfinished"] is False
    assert plan(host(gpu(A, **ON))).plan.notes["unfinished"] is False


def test_a_refused_host_is_reported_as_it_is() -> None:
    refused = plan(host(gpu(A, **ON)), enabled=False, users={A: ["web-1"]}).plan
    assert (refused.failed, refused.notes["reboot_required"]) == (True, False)
    refused = plan(host(gpu(A)), V100, {"id": "10de:ffff"}).plan
    assert (refused.failed, refused.notes["reboot_required"]) == (True, False)
