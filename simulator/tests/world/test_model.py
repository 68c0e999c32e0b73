"""The model: names with ranges, mistakes that a reader can act on, and generated models of any size."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from inventory import HEAD, Inventory

from vsphere_simulator.kernel.clock import Clock
from vsphere_simulator.model.generate import generate_model
from vsphere_simulator.model.loader import ModelError, load_model, parse_model
from vsphere_simulator.model.schema import expand
from vsphere_simulator.vmomi import vim
from vsphere_simulator.world.build import build_world
from vsphere_simulator.world.hardware import pci_layout
from vsphere_simulator.world.state import dump


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("esx-1", ["esx-1"]),
        ("esx-[09:11].lab", ["esx-09.lab", "esx-10.lab", "esx-11.lab"]),
        ("[1:1]", ["1"]),
    ],
)
def test_a_range_stands_for_its_names(name: str, expected: list[str]) -> None:
    assert expand(name) == expected


@given(st.integers(1, 500), st.integers(0, 200))
def test_a_range_has_one_name_a_number(first: int, more: int) -> None:
    names = expand(f"h[{first:04d}:{first + more:04d}]")
    assert len(set(names)) == more + 1
    assert {len(name) for name in names} == {5}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("xyz: red", "line 5: xyz: unknown key; known here: api_version"),
        ("template: []", "line 5: template: unknown key; did you mean templates?"),
        (
            "clusters: [{name: a, hosts: [{name: b, gpu: []}]}]",
            "clusters[0].hosts[0].gpu: unknown key; did you mean gpus?",
        ),
        (
            "clusters: [{name: a, hosts: [{name: b, gpus: [{gpu: v100-33}]}]}]",
            "unknown GPU 'v100-33'; did you mean V100-32?",
        ),
        ("clusters: [{name: a, hosts: [{name: 'b[3:1]'}]}]", "range [3:1] runs backwards"),
        ("clusters: [{name: a, hosts: [{name: b}, {name: b}]}]", "hosts: b is there more than once"),
        ("vms: [{name: v, host: nowhere}]", "v: no host is called nowhere"),
        ("api_version: eight", "api_version: string should match pattern"),
        ("timings: {boot: -1}", "timings.boot: input should be greater than or equal to 0 (is -1)"),
        ("vms: [{host: h}]", "vms[0]: name is missing"),
        (
            "vms: [{name: v, host: h, gpus: [{mode: fixed, adress: x}]}]",
            "gpus[0].adress: unknown key; did you mean address?",
        ),
        ("datacenter: again", "line 5: datacenter: the key is there already, on line 2"),
        ("  indented: badly: yes", "not YAML"),
    ],
)
def test_a_mistake_is_named_with_its_place_and_what_to_write_instead(text: str, message: str) -> None:
    with pytest.raises(ModelError) as caught:
        parse_model(HEAD + text, "model.yml")
    assert message in str(caught.value)
    assert str(caught.value).startswith("model.yml: ")


def test_all_mistakes_are_told_at_once() -> None:
    with pytest.raises(ModelError) as caught:
        parse_model(HEAD + "one: 1\ntwo: 2\ntimings: {three: 3}")
    assert len(caught.value.problems) == 3


@pytest.mark.parametrize("text", ["", "- a", "42"])
def test_what_is_no_mapping_is_no_model(text: str) -> None:
    with pytest.raises(ModelError, match="a model is a mapping"):
        parse_model(text)


def test_a_file_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="cannot be read: No such file"):
        load_model(tmp_path / "absent.yml")


@pytest.mark.parametrize(
    ("users", "message"),
    [
        ("users: [{name: u, password: p, role: Boss}]", "no role is called Boss; known: Admin"),
        ("roles: {Admin: []}", "Admin"),
    ],
)
def test_a_role_that_does_not_fit_is_a_mistake_in_the_model(users: str, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        Inventory(users)


def test_a_generated_model_has_exactly_what_was_asked_for() -> None:
    text = generate_model(clusters=2, hosts_per_cluster=3, vms_per_host=4, gpu="A100-40", gpus_per_host=8)
    inventory = Inventory(text)
    objects = inventory.world.objects.values()
    clusters = [obj for obj in objects if obj.wsdl is vim.ClusterComputeResource]
    hosts = [obj for obj in objects if obj.wsdl is vim.HostSystem]
    machines = [obj for obj in objects if obj.wsdl is vim.VirtualMachine]
    assert (len(clusters), len(hosts), len(machines)) == (2, 6, 24)
    assert {cluster.drs.automation for cluster in clusters} == {"manual"}
    for host in hosts:
        assert len(host.machines) == 4
        assert len(host.layout.gpus) == 8
        assert 55 <= len(host.layout.devices) <= 65
        assert {info.passthruCapable for info in host.passthrough_list()} == {True, False}
        assert host.graphics.manager is None
    for vm in machines:
        assert (vm.power, vm.config.firmware, vm.template) == ("poweredOff", "bios", False)
        assert len(vm.devices) >= 12


def test_a_generated_model_with_a_manager_offers_vgpu_types() -> None:
    text = generate_model(
        clusters=1, hosts_per_cluster=1, vms_per_host=0, gpu="A100-40", gpus_per_host=1, vgpu_manager="16.4"
    )
    host = Inventory(text)["esx-01-01.sim"]
    assert "nvidia_a100-40c" in host.graphics.type_names()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"gpu": "a100-41"}, "did you mean A100-40"),
        ({"clusters": 0}, "clusters: at least 1"),
        ({"vms_per_host": -1}, "virtual machines per host: at least 0"),
    ],
)
def test_a_model_that_makes_no_sense_is_not_generated(changes: dict[str, object], message: str) -> None:
    sizes: dict[str, object] = {
        "clusters": 1, "hosts_per_cluster": 1, "vms_per_host": 1, "gpu": "T4", "gpus_per_host": 1
    } | changes  # fmt: skip
    with pytest.raises(ValueError, match=message):
        generate_model(**sizes)  # type: ignore[arg-type]


@given(st.lists(st.sampled_from(["V100-32", "T4", "RTX6000", "A100-40"]), max_size=16), st.integers(8, 120))
def test_every_function_has_an_address_of_its_own(gpus: list[str], ordinary: int) -> None:
    layout = pci_layout(tuple(gpus), ordinary)
    companions = 3 * gpus.count("RTX6000")
    assert len(layout.functions) == len(gpus) + companions + ordinary
    assert [function.gpu.key for function in layout.gpus if function.gpu] == gpus
    assert list(layout.functions) == sorted(layout.functions)
    assert all(-0x8000 <= device.deviceId <= 0x7FFF for device in layout.devices)


def test_ids_above_the_middle_arrive_negative() -> None:
    device = next(d for d in pci_layout(("L40S",), 16).devices if d.vendorId == 0x10DE)
    assert (device.vendorId, device.deviceId & 0xFFFF) == (0x10DE, 0x26B9)
    assert min(d.deviceId for d in pci_layout((), 16).devices) < 0


ONE_HOST = """
datacenter: dc
datastores: [{name: ds}]
networks: [{name: net}]
custom_attributes: [owner]
categories: [{name: tier, tags: [{name: gold}]}]
clusters: [{name: c, hosts: [{name: esx-1}], CLUSTER}]
standalone_hosts: [{name: esx-2}]
vms: [{name: vm-1, host: esx-1, MACHINE}, {name: vm-2, host: esx-2}]
"""


@pytest.mark.parametrize(
    ("cluster", "machine", "said"),
    [
        ("pools: [{name: p, memory: {reservation: 99999999}}]", "", "pool p: The available memory resources"),
        ("pools: [{name: p, cpu: {shares: 0}}]", "", "greater than 0"),
        ("pools: [{name: p}, {name: p}]", "", "pool p: The name 'p' already exists."),
        ("", "pool: a/b", "cluster c has no pool a/b"),
        ("groups: [{name: g}]", "", "a group has vms or hosts"),
        ("groups: [{name: g, vms: [vm-9]}]", "", "there is no virtual machine or host vm-9"),
        ("groups: [{name: g, vms: [vm-2]}]", "", "Virtual machine vm-2 is not in the cluster."),
        ("rules: [{name: r, mode: apart, vms: [vm-1]}]", "", "mode apart has two vms or more"),
        ("rules: [{name: r, mode: on_hosts, vm_group: g}]", "", "mode on_hosts has vm_group and host_group"),
        ("rules: [{name: r, mode: on_hosts, vm_group: g, host_group: h}]", "", "The cluster has no group g."),
        ("overrides: [{vm: vm-2, drs: manual}]", "", "vm-2 is not in the cluster"),
        ("tags: {tier: [silver]}", "", "c: category tier has no tag silver"),
        ("", "custom_values: {cost: 1}", "vms[0].custom_values.cost"),
        ("", "custom_values: {cost: '1'}", "vm-1: no custom attribute is called cost"),
    ],
)
def test_mistakes_in_what_is_laid_over_the_hardware(cluster: str, machine: str, said: str) -> None:
    text = ONE_HOST.replace("CLUSTER", cluster).replace("MACHINE", machine).replace(", }", "}").replace(", ]", "]")
    with pytest.raises(ModelError) as caught:
        build_world(parse_model(text), Clock(1))
    assert said in str(caught.value)


def test_a_standalone_host_runs_its_machines_and_stays_after_a_restart() -> None:
    model = parse_model(ONE_HOST.replace(", CLUSTER", "").replace(", MACHINE", ""))
    world = build_world(model, Clock(1))
    again = build_world(model, Clock(1), state=dump(world))
    for one in (world, again):
        host = next(obj for obj in one.objects.values() if getattr(obj, "name", "") == "esx-2" and hasattr(obj, "make"))
        assert [vm.name for vm in host.machines.values()] == ["vm-2"]
        assert type(host.parent).__name__ == "Standalone"
