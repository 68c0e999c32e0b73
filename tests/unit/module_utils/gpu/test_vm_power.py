# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

import typing as t

import pytest
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.plan import diff
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.vm_power import PowerPlan, plan_power
from gpu_builders import fixed, host, vgpu, vm


def plan(state: t.Literal["on", "off"], power: str, *, force: bool = False, **host_state: t.Any) -> PowerPlan:
    return plan_power(["a"], state, {"a": vm("a", power=power)}, {"esx": host("esx", **host_state)}, force=force)["a"]


@pytest.mark.parametrize(
    ("state", "power", "force", "actions", "code"),
    [
        ("on", "poweredOn", False, [], None),
        ("on", "poweredOff", False, ["power on"], None),
        ("on", "suspended", False, ["power on (resume it)"], None),
        ("off", "poweredOff", False, [], None),
        ("off", "poweredOn", False, ["power off"], None),
        ("off", "suspended", False, ["power off"], "vm_suspended"),
        ("off", "suspended", True, ["power off"], None),
    ],
)
def test_states(state: t.Literal["on", "off"], power: str, force: bool, actions: list[str], code: str | None) -> None:
    planned = plan(state, power, force=force)
    assert [str(change) for change in planned.plan.changes] == actions
    assert [problem.code for problem in planned.plan.problems] == ([code] if code else [])
    assert planned.predicted is not None
    expected = power if code else {"on": "poweredOn", "off": "poweredOff"}[state]
    assert planned.predicted.power == planned.plan.notes["power"] == expected


@pytest.mark.parametrize(
    ("state", "host_state", "code"),
    [
        ("on", {"in_maintenance": True}, "host_in_maintenance"),
        ("on", {"connection": "disconnected"}, "host_not_connected"),
        ("off", {"connection": "notResponding"}, "host_not_connected"),
        ("off", {"in_maintenance": True}, None),
    ],
)
def test_hosts(state: t.Literal["on", "off"], host_state: dict[str, t.Any], code: str | None) -> None:
    planned = plan(state, "poweredOff" if state == "on" else "poweredOn", **host_state)
    assert [problem.code for problem in planned.plan.problems] == ([code] if code else [])
    assert all(problem.kind == "state" for problem in planned.plan.problems)


def test_machines_that_have_no_power_of_their_own() -> None:
    vms = {"golden": vm("golden", template=True), "twin": vm("twin"), "lost": vm("lost", host=None)}
    planned = plan_power(["golden", "twin", "lost", "nobody", "nobody"], "on", vms, {}, ambiguous={"twin"})
    assert {name: item.plan.problems[0].code for name, item in planned.items()} == {
        "golden": "is_template",
        "twin": "ambiguous_name",
        "lost": "no_host",
        "nobody": "vm_not_found",
    }


def test_the_diff_names_what_changes() -> None:
    shown = diff(plan("on", "poweredOff").plan)
    assert (shown["before"], shown["after"]) == ("power: poweredOff\n", "power: poweredOn\n")


@pytest.mark.parametrize(
    ("state", "power", "gpus", "actions", "code"),
    [
        ("suspended", "poweredOn", (), ["suspend virtual machine"], None),
        ("suspended", "suspended", (fixed("0000:3b:00.0"),), [], None),
        ("suspended", "poweredOff", (), ["suspend virtual machine"], "vm_powered_off"),
        ("suspended", "poweredOn", (fixed("0000:3b:00.0"),), ["suspend virtual machine"], "suspend_not_supported"),
        ("suspended", "poweredOn", (vgpu("nvidia_a100-10c"),), ["suspend virtual machine"], None),
        ("suspended", "poweredOn", (vgpu("nvidia_a100-20c"),), ["suspend virtual machine"], "suspend_not_supported"),
        ("resumed", "suspended", (), ["power on (resume it)"], None),
        ("resumed", "poweredOff", (), [], None),
        ("resumed", "poweredOn", (), [], None),
    ],
)
def test_suspended_and_resumed(
    state: t.Any, power: str, gpus: tuple[t.Any, ...], actions: list[str], code: str | None
) -> None:
    esx = host("esx", vgpu_suspend=("nvidia_a100-10c",))
    planned = plan_power(["a"], state, {"a": vm("a", *gpus, power=power)}, {"esx": esx})["a"]
    assert [str(change) for change in planned.plan.changes] == actions
    assert [problem.code for problem in planned.plan.problems] == ([code] if code else [])


@pytest.mark.parametrize(
    ("power", "home", "actions", "codes"),
    [
        ("suspended", {"in_maintenance": True}, ["move host (to new)", "power on (resume it)"], []),
        ("poweredOff", {}, ["move host (to new)", "power on"], []),
        # It runs, so it stays where it is.
        ("poweredOn", {}, [], []),
        ("suspended", {"connection": "notResponding"}, None, ["host_not_connected"]),
    ],
)
def test_a_machine_that_does_not_run_moves_to_its_place_first(
    power: str, home: dict[str, t.Any], actions: list[str] | None, codes: list[str]
) -> None:
    hosts = {"esx": host("esx", **home), "new": host("new")}
    planned = plan_power(["a"], "on", {"a": vm("a", power=power)}, hosts, places={"a": "new"})["a"]
    assert [problem.code for problem in planned.plan.problems] == codes
    if actions is not None:
        assert [str(change) for change in planned.plan.changes] == actions
        assert planned.host == ("new" if actions else None)


def test_a_place_that_takes_no_work_is_a_problem() -> None:
    hosts = {"esx": host("esx"), "new": host("new", in_maintenance=True)}
    places = {"a": "new", "b": "nowhere"}
    planned = plan_power(["a", "b"], "on", {"a": vm("a"), "b": vm("b")}, hosts, places=places)
    assert [item.plan.problems[0].code for item in planned.values()] == ["host_in_maintenance", "no_host"]
