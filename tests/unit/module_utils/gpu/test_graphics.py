# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

import typing as t

import pytest
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.facts import (
    GraphicsConfig,
    GraphicsDevice,
    GraphicsSetting,
    HostFacts,
    host_from_dict,
    to_dict,
)
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.graphics import (
    DeviceWish,
    GraphicsPlan,
    GraphicsWish,
    plan_graphics,
)
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.selection import Selector
from gpu_builders import A100, SLOTS, V100, gpu, host

A, B = SLOTS[:2]


def graphics_host(
    device_id: str = A100,
    *,
    kind: str = "shared",
    active: str | None = None,
    users: tuple[str, ...] = (),
    passed: bool = False,
    version: str | None = "8.0.3",
    **more: t.Any,
) -> HostFacts:
    settings = tuple(GraphicsSetting(a, kind, "sameSize") for a in (A, B))
    devices = tuple(GraphicsDevice(a, active or kind, "none", 40960, users if a == A else ()) for a in (A, B))
    return host(
        "esx",
        gpu(A, device_id, active=passed),
        gpu(B, device_id, active=False),
        version=version,
        graphics=devices,
        graphics_config=GraphicsConfig(kind, "performance", settings),
        **more,
    )


def plan(facts: HostFacts, **wish: t.Any) -> GraphicsPlan:
    names = {"vm-7": "trainer"}
    return plan_graphics({"esx": facts}, [GraphicsWish("esx", **wish)], vm_names=names)["esx"]


def device(address: str = A, kind: str | None = None, mode: str | None = None) -> tuple[DeviceWish, ...]:
    return (DeviceWish(Selector("address", address), kind, mode),)


def paths(found: GraphicsPlan) -> list[str]:
    return [change.path for change in found.plan.changes]


def test_the_default_type_goes_for_every_gpu_that_is_not_named() -> None:
    found = plan(
        graphics_host(), default_type="sharedDirect", assignment_policy="consolidation", devices=device(B, "shared")
    )
    assert paths(found) == ["default_type", "assignment_policy", f"{A} graphics_type"]
    assert found.plan.notes["services_to_restart"] == ["xorg"]
    assert found.config is not None
    assert [item.graphics_type for item in found.config.devices] == ["sharedDirect", "shared"]
    assert found.after is not None
    again = plan(found.after, default_type="sharedDirect", devices=device(B, "shared"))
    assert not again.plan.changes
    assert host_from_dict(to_dict(found.after)) == found.after


def test_what_is_not_asked_for_stays() -> None:
    found = plan(graphics_host(kind="sharedDirect"), assignment_policy="consolidation")
    assert paths(found) == ["assignment_policy"]
    assert found.plan.notes["services_to_restart"] == []


def test_a_gpu_passed_through_is_left_out_unless_it_is_named() -> None:
    facts = graphics_host(passed=True, active="direct")
    found = plan(facts, default_type="sharedDirect")
    assert paths(found) == ["default_type", f"{B} graphics_type"]
    refused = plan(facts, devices=device(A, "sharedDirect"))
    assert [problem.code for problem in refused.plan.problems] == ["gpu_passed_through"]
    assert "esxi_passthrough" in refused.plan.problems[0].msg


def test_mixed_size_is_predicted_for_gpus_in_use_as_vgpus() -> None:
    found = plan(graphics_host(kind="sharedDirect"), devices=device(A, mode="mixedSize"))
    assert paths(found) == [f"{A} vgpu_mode"]
    assert found.after is not None
    assert [item.vgpu_mode for item in found.after.graphics] == ["mixedSize", "sameSize"]


@pytest.mark.parametrize(
    ("facts", "wish", "code", "says"),
    [
        (graphics_host(users=("vm-7",)), {"default_type": "sharedDirect"}, "gpu_in_use", "trainer"),
        (
            graphics_host(kind="sharedDirect", users=("vm-7",)),
            {"devices": device(A, mode="mixedSize")},
            "gpu_in_use",
            "trainer",
        ),
        (
            graphics_host(V100, kind="sharedDirect"),
            {"devices": device(A, mode="mixedSize")},
            "vgpu_mode_not_supported",
            "V100-32",
        ),
        (
            graphics_host(kind="sharedDirect", version="8.0.2"),
            {"devices": device(A, mode="sameSize")},
            "vgpu_mode_not_supported",
            "8.0.2",
        ),
        (graphics_host(), {"devices": device(A, mode="sameSize")}, "vgpu_mode_not_supported", "sharedDirect"),
        (graphics_host(), {"devices": device("0000:99:00.0", "shared")}, "device_not_found", A),
        (host("esx", gpu(A)), {"default_type": "sharedDirect"}, "graphics_not_supported", "6.5"),
        (
            host("esx", gpu(A), connection="notResponding"),
            {"default_type": "sharedDirect"},
            "host_not_connected",
            "respond",
        ),
    ],
)
def test_what_cannot_be_is_refused_with_the_reason(
    facts: HostFacts, wish: dict[str, t.Any], code: str, says: str
) -> None:
    found = plan(facts, **wish)
    assert [problem.code for problem in found.plan.problems] == [code]
    assert says in found.plan.problems[0].msg
    assert not found.plan.changed


def test_a_gpu_in_use_that_stays_as_it_is_stands_in_nobodys_way() -> None:
    found = plan(graphics_host(kind="sharedDirect", users=("vm-7",)), default_type="sharedDirect")
    assert not found.plan.failed
    assert not found.plan.changes


def test_a_missing_gpu_can_be_skipped_and_foreign_hosts_are_left_alone() -> None:
    found = plan(graphics_host(), devices=device("0000:99:00.0", "shared"), missing="skip")
    assert found.plan.warnings
    assert not found.plan.failed
    foreign = plan(graphics_host(in_maintenance=True), default_type="sharedDirect")
    assert foreign.plan.notes["left_alone"] is True
    assert not foreign.plan.changes
