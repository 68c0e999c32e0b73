"""Reading properties: getters, bulk reads, paging, traversals, paths that do not exist."""

from __future__ import annotations

import typing as t

import pytest
from pyVmomi import vim, vmodl
from served import Served
from wire_helpers import PC, as_dict, finished, machines, machines_view, object_spec, read, view_spec

NAMES = ["vm-00001", "vm-00002", "vm-00003"]


def collections_traversal() -> t.Any:
    """The recursive folder traversal that community.vmware and the pyVmomi samples use."""
    names = ["visitFolders", "dcToVmf", "rpToVm"]
    back = [PC.SelectionSpec(name=name) for name in names]
    return [
        PC.TraversalSpec(name="visitFolders", type=vim.Folder, path="childEntity", skip=False, selectSet=back),
        PC.TraversalSpec(name="dcToVmf", type=vim.Datacenter, path="vmFolder", skip=False, selectSet=back[:1]),
        PC.TraversalSpec(name="rpToVm", type=vim.ResourcePool, path="vm", skip=False),
    ]


def test_getters(client: t.Any) -> None:
    machine = machines(client)[0]
    assert machine.name == "vm-00001"
    assert machine.runtime.powerState == vim.VirtualMachine.PowerState.poweredOff
    assert machine.guest is None
    assert machine.parent.name == "vm"
    assert list(machine.configIssue) == []


def test_bulk_read_through_a_view(client: t.Any) -> None:
    paths = ["name", "config.hardware.device", "runtime.powerState", "config.annotation"]
    found = read(client, view_spec(machines_view(client), paths))
    values = [as_dict(content) for content in found]
    assert [value["name"] for value in values] == NAMES
    assert all(len(value["config.hardware.device"]) == 12 for value in values)
    assert isinstance(values[0]["config.hardware.device"][0], vim.vm.device.VirtualDisk)
    assert "config.annotation" not in values[0]  # unset


@pytest.mark.parametrize(("limit", "pages"), [(1, 3), (2, 2), (3, 1), (10, 1)])
def test_paging(server: Served, client: t.Any, limit: int, pages: int) -> None:
    spec = view_spec(machines_view(client), ["name"])
    server.reset_counts()
    found = read(client, spec, limit)
    assert [as_dict(content)["name"] for content in found] == NAMES
    counted = server.counts()["requests"]
    assert counted["RetrievePropertiesEx"] + counted.get("ContinueRetrievePropertiesEx", 0) == pages


def test_a_page_token_works_once(client: t.Any) -> None:
    collector = client.content.propertyCollector
    spec = view_spec(machines_view(client), ["name"])
    page = collector.RetrievePropertiesEx([spec], PC.RetrieveOptions(maxObjects=1))
    collector.CancelRetrievePropertiesEx(page.token)
    with pytest.raises(vmodl.fault.InvalidArgument) as caught:
        collector.ContinueRetrievePropertiesEx(page.token)
    assert caught.value.invalidProperty == "token"


def test_nothing_selected_is_no_result(client: t.Any) -> None:
    view = client.content.viewManager.CreateContainerView(client.content.rootFolder, [vim.HostSystem], True)
    collector = client.content.propertyCollector
    assert collector.RetrievePropertiesEx([view_spec(view, ["name"], vim.HostSystem)], PC.RetrieveOptions()) is None
    assert list(collector.RetrieveProperties([view_spec(view, ["name"], vim.HostSystem)])) == []


def test_recursive_traversal_with_named_specs(client: t.Any) -> None:
    spec = PC.FilterSpec(
        propSet=[PC.PropertySpec(type=vim.ManagedEntity, pathSet=["name"])],
        objectSet=[PC.ObjectSpec(obj=client.content.rootFolder, skip=False, selectSet=collections_traversal())],
    )
    found = client.content.propertyCollector.RetrieveContents([spec])
    assert [as_dict(content)["name"] for content in found][:5] == ["Datacenters", "vm", *NAMES]


def test_skipped_objects_are_followed_but_not_reported(client: t.Any) -> None:
    inner = PC.TraversalSpec(type=vim.Folder, path="childEntity", skip=False)
    outer = PC.TraversalSpec(type=vim.Folder, path="childEntity", skip=True, selectSet=[inner])
    spec = PC.FilterSpec(
        propSet=[PC.PropertySpec(type=vim.ManagedEntity, pathSet=["name"])],
        objectSet=[PC.ObjectSpec(obj=client.content.rootFolder, skip=True, selectSet=[outer])],
    )
    assert [as_dict(content)["name"] for content in read(client, spec)][:3] == NAMES


def test_upward_traversal(client: t.Any) -> None:
    up = PC.TraversalSpec(
        name="up", type=vim.ManagedEntity, path="parent", skip=False, selectSet=[PC.SelectionSpec(name="up")]
    )
    spec = PC.FilterSpec(
        propSet=[PC.PropertySpec(type=vim.Folder, pathSet=["name"])],
        objectSet=[PC.ObjectSpec(obj=machines(client)[0], skip=True, selectSet=[up])],
    )
    assert [as_dict(content)["name"] for content in read(client, spec)] == ["vm", "Datacenters"]


def test_an_unknown_selection_name_is_a_fault(client: t.Any) -> None:
    spec = PC.FilterSpec(
        propSet=[PC.PropertySpec(type=vim.Folder, pathSet=["name"])],
        objectSet=[PC.ObjectSpec(obj=client.content.rootFolder, selectSet=[PC.SelectionSpec(name="nowhere")])],
    )
    with pytest.raises(vmodl.fault.InvalidArgument):
        read(client, spec)


def test_several_property_specs_for_one_object_are_joined(client: t.Any) -> None:
    machine = machines(client)[0]
    spec = PC.FilterSpec(
        propSet=[
            PC.PropertySpec(type=vim.ManagedEntity, pathSet=["name"]),
            PC.PropertySpec(type=vim.VirtualMachine, pathSet=["runtime.powerState", "name"]),
        ],
        objectSet=[PC.ObjectSpec(obj=machine)],
    )
    assert sorted(as_dict(read(client, spec)[0])) == ["name", "runtime.powerState"]


def test_all_properties_of_a_task(client: t.Any) -> None:
    task = machines(client)[0].ReconfigVM_Task(vim.vm.ConfigSpec(memoryMB=2048))
    finished(task)
    spec = PC.FilterSpec(
        propSet=[PC.PropertySpec(type=vim.Task, all=True)], objectSet=[PC.ObjectSpec(obj=task, skip=False)]
    )
    assert as_dict(read(client, spec)[0])["info"].state == "success"


@pytest.mark.parametrize(
    "path",
    [
        "nothing",
        "config.nothing",
        "config.hardware.device.key",
        "name.first",
        "name[1]",
        "config..hardware",
        "config.",
        ".name",
        "config.hardware.device[2000].nothing",
        "",
        "config.hardware.device[",
    ],
)
def test_a_path_that_does_not_exist_is_invalid(client: t.Any, path: str) -> None:
    with pytest.raises(vmodl.query.InvalidProperty) as caught:
        read(client, object_spec(machines(client)[0], [path]))
    assert caught.value.name == path


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("config.hardware.device[2003].unitNumber", 3),
        ("config.hardware.device[2003].backing.fileName", "[shared] vm/3.vmdk"),
        ("config.hardware.numCPU", 2),
        ("runtime.powerState", "poweredOff"),
        ("config.hardware.device[1]", None),
        ("config.version", None),
    ],
)
def test_paths_below_and_beside_the_builders(client: t.Any, path: str, value: t.Any) -> None:
    third = machines(client)[2]
    assert as_dict(read(client, object_spec(third, [path]))[0]).get(path) == value


def test_types_inside_any_go_with_the_value(client: t.Any) -> None:
    found = as_dict(
        read(client, object_spec(machines(client)[2], ["config.hardware.memoryMB", "config.extraConfig"]))[0]
    )
    assert type(found["config.hardware.memoryMB"]) is int
    assert isinstance(found["config.extraConfig"], vim.option.OptionValue.Array)


def test_an_object_that_does_not_exist(client: t.Any) -> None:
    gone = vim.VirtualMachine("vm-999", client._stub)
    with pytest.raises(vmodl.fault.ManagedObjectNotFound) as caught:
        gone.name  # noqa: B018 - the getter is the request
    assert caught.value.obj._moId == "vm-999"
    with pytest.raises(vmodl.fault.ManagedObjectNotFound):
        read(client, object_spec(gone, ["name"]))
    with pytest.raises(vmodl.fault.ManagedObjectNotFound):
        vim.HostSystem("vm-1", client._stub).name  # noqa: B018 - an id of another type


def test_missing_objects_can_be_left_out(client: t.Any) -> None:
    spec = object_spec(machines(client)[0], ["name"])
    spec.objectSet.append(PC.ObjectSpec(obj=vim.VirtualMachine("vm-999", client._stub)))
    spec.reportMissingObjectsInResults = True
    assert len(read(client, spec)) == 1


@pytest.mark.parametrize("limit", [0, -1])
def test_a_page_size_must_be_positive(client: t.Any, limit: int) -> None:
    with pytest.raises(vmodl.fault.InvalidArgument):
        read(client, object_spec(machines(client)[0], ["name"]), limit)


def test_collectors_of_one_s_own(client: t.Any) -> None:
    collector = client.content.propertyCollector.CreatePropertyCollector()
    found = collector.RetrieveContents([object_spec(machines(client)[0], ["name"])])
    assert as_dict(found[0])["name"] == "vm-00001"
    collector.DestroyPropertyCollector()
    with pytest.raises(vmodl.fault.ManagedObjectNotFound):
        collector.CheckForUpdates("")
    with pytest.raises(vmodl.fault.NotSupported):
        client.content.propertyCollector.DestroyPropertyCollector()


def test_views(client: t.Any) -> None:
    manager, root = client.content.viewManager, client.content.rootFolder
    everything = manager.CreateContainerView(root, [], True)
    assert {type(obj) for obj in everything.view} == {vim.Folder, vim.VirtualMachine}
    direct = manager.CreateContainerView(root, [vim.ManagedEntity], False)
    assert "vm" in [obj.name for obj in direct.view]
    assert not any(isinstance(obj, vim.VirtualMachine) for obj in direct.view)
    listed = manager.CreateListView(machines(client)[:2])
    assert [obj.name for obj in listed.view] == NAMES[:2]
    gone = vim.VirtualMachine("vm-999", client._stub)
    assert [obj._moId for obj in listed.ModifyListView([gone], machines(client)[:1])] == ["vm-999"]
    assert [obj.name for obj in listed.view] == NAMES[1:2]
    listed.ResetListViewFromView(direct)
    assert list(listed.view) == list(direct.view)
    assert listed in list(manager.viewList)
    listed.DestroyView()
    with pytest.raises(vmodl.fault.ManagedObjectNotFound):
        listed.view  # noqa: B018 - the getter is the request


def test_a_view_needs_a_container_and_entities(client: t.Any) -> None:
    manager = client.content.viewManager
    with pytest.raises(vmodl.fault.InvalidArgument) as caught:
        manager.CreateContainerView(machines(client)[0], [vim.VirtualMachine], True)
    assert caught.value.invalidProperty == "container"
    with pytest.raises(vmodl.fault.InvalidArgument) as caught:
        manager.CreateContainerView(client.content.rootFolder, [vim.Task], True)
    assert caught.value.invalidProperty == "type"


def test_time_is_simulated(client: t.Any) -> None:
    assert client.CurrentTime().utcoffset().total_seconds() == 0
    assert client.content.about.apiType == "VirtualCenter"
