from __future__ import annotations

import typing as t

import pytest
from ansible_collections.gpuops.vsphere.plugins.module_utils.variables.problems import (
    InventoryProblem,
    failure_problem,
    merge,
    plan_problems,
    render,
)
from hypothesis import given
from hypothesis import strategies as st


def entry(**problem: t.Any) -> dict[str, t.Any]:
    return {"failed": True, "problems": [{"code": "x", "option": None, "kind": "input", **problem}]}


def test_the_same_problem_of_several_hosts_is_one_line() -> None:
    problems = [
        InventoryProblem("b", "is wrong", ("h1",)),
        InventoryProblem("a", "is wrong", ("h2",)),
        InventoryProblem("b", "is wrong", ("h2",)),
        InventoryProblem("b", "is wrong", ("h2",)),
    ]
    assert merge(problems) == [
        InventoryProblem("a", "is wrong", ("h2",)),
        InventoryProblem("b", "is wrong", ("h1", "h2")),
    ]
    assert render(problems) == "- a (h2): is wrong\n- b (h1, h2): is wrong"


def test_many_hosts_are_counted() -> None:
    problem = InventoryProblem("a", "is wrong", tuple(f"h{number}" for number in range(1, 9)))
    assert render([problem]) == "- a (h1, h2, h3 and 5 more): is wrong"


def test_a_plan_speaks_of_role_variables_and_leaves_states_out() -> None:
    results = {
        "h1": entry(object="h1", msg="has no device 10de:20b5", option="devices"),
        "h2": entry(object="h2", msg="does not answer", option=None, kind="state"),
        "vm1": entry(object="vm1", msg="wants 3 GPUs", option="vms[0].gpus"),
        "vm2": entry(object="vm2", msg="vm2 has no host", option="host"),
        "h3": {"failed": False, "changed": True},
    }
    variables = {"devices": "esxi_passthrough_devices", "vms": "gpu_vm_vms", "*": "inventory"}
    assert plan_problems(results, variables, {"vm1": "h1", "vm2": "h2"}) == [
        InventoryProblem("esxi_passthrough_devices", "has no device 10de:20b5", ("h1",)),
        InventoryProblem("gpu_vm_vms", "vm1: wants 3 GPUs", ("h1",)),
        InventoryProblem("inventory", "vm2 has no host", ("h2",)),
    ]


@given(
    problems=st.lists(
        st.builds(
            InventoryProblem,
            variable=st.sampled_from(["gpu_vm_vms", "esxi_passthrough_devices"]),
            msg=st.lists(
                st.sampled_from(["must", "be", "one", "of", "fixed,", "dynamic"]), min_size=1, max_size=60
            ).map(" ".join),
            hosts=st.lists(st.sampled_from(["h1", "h2", "h3", "h4", "h5"]), max_size=5).map(tuple),
        ),
        max_size=60,
    )
)
def test_the_list_fits_a_screen_and_counts_what_it_leaves_out(problems: list[InventoryProblem]) -> None:
    text = render(problems, lines=24).splitlines()
    assert len(text) <= 25
    shown = sum(line.startswith("- ") for line in text)
    left_out = int(text[-1].split()[2]) if text and text[-1].startswith("… and") else 0
    assert shown + left_out == len(merge(problems))


@pytest.mark.parametrize(
    ("code", "msg", "expected"),
    [
        pytest.param("invalid_input", "password: is empty.", "vcenter_password", id="an option of the connection"),
        pytest.param("invalid_input", "hosts: h1: id is odd", "esxi_passthrough_devices", id="an option of the module"),
        pytest.param("invalid_login", "password: refused", "vcenter_username", id="a failure of the connection"),
        pytest.param("something_new", "odd", "vCenter", id="anything else"),
        pytest.param(None, "missing required arguments: hosts", "vCenter", id="no code at all"),
    ],
)
def test_a_failure_as_a_whole_names_the_variable_to_look_at(code: str | None, msg: str, expected: str) -> None:
    connection = {"password": "vcenter_password", "invalid_login": "vcenter_username", "*": "vCenter"}
    outcome = {"msg": msg, "failure": {"code": code}} if code else {"msg": msg}
    found = failure_problem(outcome, {"invalid_input": "esxi_passthrough_devices"}, connection)
    assert found == InventoryProblem(expected, msg)
