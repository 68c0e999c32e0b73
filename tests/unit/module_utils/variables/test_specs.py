from __future__ import annotations

import pathlib
import typing as t

import pytest
import yaml
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible_collections.gpuops.vsphere.plugins.module_utils.variables.specs import (
    contradictions,
    missing_problems,
    unknown_problems,
    value_problems,
)
from hypothesis import given
from hypothesis import strategies as st

DEVICES = {
    "type": "list",
    "elements": "dict",
    "options": {
        "id": {"type": "str", "required": True, "description": "Vendor and device id. More."},
        "mode": {"type": "str", "choices": ["fixed", "dynamic"]},
        "count": {"type": "int", "aliases": ["number"]},
    },
}


def lines(problems: list[t.Any]) -> list[str]:
    return [f"{problem.variable}: {problem.msg}" for problem in problems]


@pytest.mark.parametrize(
    ("value", "option", "expected"),
    [
        pytest.param("yes", {"type": "bool"}, [], id="Ansible's own spelling of a boolean"),
        pytest.param("perhaps", {"type": "bool"}, ["v: must be a boolean, but is a string"], id="no boolean"),
        pytest.param("2", {"type": "int"}, [], id="a number in quotes"),
        pytest.param("two", {"type": "int"}, ["v: must be a whole number, but is a string"], id="no number"),
        pytest.param(["a"], {"type": "str"}, ["v: must be a string, but is a list"], id="a list is no string"),
        pytest.param(None, {"type": "int"}, [], id="absent"),
        pytest.param("skip", {"type": "str", "choices": ["fail", "skip"]}, [], id="a choice"),
        pytest.param(
            "skpi",
            {"type": "str", "choices": ["fail", "skip"]},
            ["v: must be one of fail, skip: write skip"],
            id="slip",
        ),
        pytest.param(
            "zzz", {"type": "str", "choices": ["fail", "skip"]}, ["v: must be one of fail, skip"], id="no choice"
        ),
        pytest.param([{"id": "10de:1db6", "number": 2}], DEVICES, [], id="aliases count as given"),
        pytest.param(
            [{"id": "10de:1db6"}, {"mode": "fixd", "cuont": 1}],
            DEVICES,
            [
                "v[1].cuont: unknown key: write count",
                "v[1].id: is required: Vendor and device id",
                "v[1].mode: must be one of fixed, dynamic: write fixed",
            ],
            id="everything inside a list at once",
        ),
        pytest.param({"id": "10de:1db6"}, DEVICES, ["v: must be a list, but is a mapping"], id="a forgotten dash"),
        pytest.param([None], DEVICES, ["v[0]: must not be empty"], id="an empty element"),
        pytest.param(
            [{"id": "x", "a b\nc": 1}], DEVICES, ["v[0].<key>: unknown key: known keys: count, id, mode"], id="odd"
        ),
    ],
)
def test_a_value_is_compared_with_its_option(value: t.Any, option: dict[str, t.Any], expected: list[str]) -> None:
    assert lines(value_problems("v", value, option)) == expected


SCALARS = st.none() | st.booleans() | st.integers(-9, 9) | st.sampled_from(["a", "yes", "3", "2.5", "fixed", ""])
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["id", "mode", "other"]), inner, max_size=3)
    ),
    max_leaves=6,
)
TYPES = st.sampled_from(["int", "float", "bool", "list", "dict", "raw"])


@given(value=VALUES, wanted=TYPES)
def test_types_are_those_of_ansible(value: t.Any, wanted: str) -> None:
    option = {"type": wanted}
    ansible_accepts = not ArgumentSpecValidator({"v": option}).validate({"v": value}).error_messages
    assert (not value_problems("v", value, option)) == ansible_accepts


@given(value=st.dictionaries(st.sampled_from(["id", "mode", "count", "extra"]), SCALARS, max_size=4))
def test_keys_of_a_mapping_are_checked_as_ansible_checks_them(value: dict[str, t.Any]) -> None:
    option = {"type": "dict", "options": DEVICES["options"]}
    ansible_accepts = not ArgumentSpecValidator({"v": option}).validate({"v": value}).error_messages
    # A choice that is given and empty is none for Ansible's validator; here it counts as not given.
    if value.get("mode", "") is not None and value.get("id", "") is not None:
        assert (not value_problems("v", value, option)) == ansible_accepts


@given(secret=st.text("abcdefXYZ0123456789", min_size=12, max_size=20), wanted=TYPES)
def test_a_value_is_never_quoted(secret: str, wanted: str) -> None:
    option = {"type": wanted, "options": {"k": {"type": "int"}}}
    for value in (secret, [secret], {"k": secret}):
        assert secret not in " ".join(lines(value_problems("v", value, option)))
    assert secret not in " ".join(lines(value_problems("v", secret, {"type": "str", "choices": ["a", "b"]})))


def test_missing_names_come_with_their_description() -> None:
    spec = {
        "gpu_vm_template": {"type": "str", "required": True, "description": ["Template to clone. Must be EFI."]},
        "gpu_vm_folder": {"type": "str"},
    }
    assert lines(missing_problems({"gpu_vm_folder"}, spec)) == ["gpu_vm_template: is required: Template to clone"]
    assert missing_problems({"gpu_vm_template"}, spec) == []


DECLARED = ["esxi_passthrough_devices", "esxi_passthrough_enabled", "gpu_vm_template", "vcenter_port"]
PREFIXES = ["esxi_passthrough_", "gpu_vm_", "vcenter_"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        pytest.param("esxi_passthrough_devices", [], id="declared"),
        pytest.param("esxi_passthrough_device", ["write esxi_passthrough_devices"], id="one letter short"),
        pytest.param("esxi_passthruogh_devices", ["write esxi_passthrough_devices"], id="slip within the prefix"),
        pytest.param("gpus_vm_template", ["write gpu_vm_template"], id="slip in a prefix"),
        pytest.param("vcentre_port", ["write vcenter_port"], id="the other spelling of a prefix"),
        pytest.param("venture_port", [], id="another word"),
        pytest.param("gpu_vm_colour", ["rename or remove it (known: gpu_vm_template)"], id="nothing like it"),
        pytest.param("gpu_vm_billing_code", [], id="the site's own"),
        pytest.param("my_devices", [], id="somebody else's"),
        pytest.param("ansible_connection", [], id="Ansible's"),
        pytest.param("__gpu_vm_wanted", [], id="internal"),
    ],
)
def test_names_that_no_role_has(name: str, expected: list[str]) -> None:
    problems = unknown_problems([name], DECLARED, PREFIXES, ["gpu_vm_billing_*"])
    assert lines(problems) == [f"{name}: no role has this variable: {text}" for text in expected]
    assert all(problem.usable for problem in problems)


def wants(**gpu: t.Any) -> list[dict[str, t.Any]]:
    return [{"name": "server", "gpus": [gpu]}]


@pytest.mark.parametrize(
    ("values", "variable"),
    [
        ({"esxi_passthrough_enabled": False, "gpu_vm_vms": wants(mode="fixed")}, "esxi_passthrough_enabled"),
        ({"esxi_passthrough_enabled": "no", "gpu_vm_vms": wants(mode="dynamic")}, "esxi_passthrough_enabled"),
        ({"esxi_passthrough_enabled": False, "gpu_vm_vms": wants(mode="vgpu", profile="a100-10c")}, None),
        ({"esxi_passthrough_enabled": True, "gpu_vm_vms": wants(mode="fixed")}, None),
        ({"gpu_vm_vms": wants(mode="fixed")}, None),
        (
            {
                "esxi_passthrough_devices": [{"id": "10de:20F1"}],
                "gpu_vm_vms": wants(mode="vgpu", profile="nvidia_a100-10c"),
            },
            "esxi_passthrough_devices",
        ),
        (
            {
                "esxi_passthrough_devices": [{"id": "10de:1db6"}],
                "gpu_vm_vms": wants(mode="vgpu", profile="nvidia_a100-10c"),
            },
            None,
        ),
        ({"esxi_passthrough_devices": "V100", "gpu_vm_vms": "server"}, None),
    ],
)
def test_what_cannot_both_be_meant(values: dict[str, t.Any], variable: str | None) -> None:
    problems = contradictions(values)
    assert [problem.variable for problem in problems] == ([variable] if variable else [])
    assert all("server" in problem.msg for problem in problems)


@pytest.mark.parametrize(
    ("slip", "meant"),
    [("gpu_fleet_pol_size", "gpu_fleet_pool_size"), ("cluster_member_cluter", "cluster_member_cluster")],
)
def test_the_variables_of_growing_and_shrinking_are_checked(slip: str, meant: str) -> None:
    roles = pathlib.Path(__file__).parents[4] / "roles"
    checked = yaml.safe_load((roles / "validate" / "vars" / "main.yml").read_text())["__validate_roles"]
    specs = [yaml.safe_load((roles / role / "meta" / "argument_specs.yml").read_text()) for role in checked]
    declared = {name for spec in specs for name in spec["argument_specs"]["main"]["options"]}
    found = lines(unknown_problems([slip, meant], declared, [f"{role}_" for role in checked]))
    assert len(found) == 1
    assert meant in found[0]
