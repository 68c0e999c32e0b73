"""The files of virtual machines on a datastore, as a browser finds them."""

from __future__ import annotations

import typing as t

import pytest
from inventory import Inventory, simulate
from pyVmomi import vim

MODEL = """
datacenter: dc
datastores: [{name: ds}, {name: other}]
networks: [{name: net}]
clusters: [{name: c, hosts: [{name: esx-1}]}]
templates: [{name: tpl}]
vms: [{name: vm-1, host: esx-1, disks_gb: [1, 2]}, {name: vm-2, host: esx-1, datastore: other}]
"""
_browser = vim.host.DatastoreBrowser


def names(result: t.Any) -> list[str]:
    return [f"{result.folderPath}|{file.path}" for file in result.file]


def test_files_and_folders_are_those_of_the_machines() -> None:
    async def scenario(lab: Inventory) -> None:
        browser = lab["ds"].browser
        root = await lab.run(browser, "SearchDatastore_Task", datastore_path="[ds]")
        assert names(root) == ["[ds]|tpl", "[ds]|vm-1"]
        assert all(isinstance(one, _browser.FolderInfo) for one in root.file)
        spec = _browser.SearchSpec(details=_browser.FileInfo.Details(fileSize=True), matchPattern=["VM-1*.vmdk"])
        disks = await lab.run(browser, "SearchDatastore_Task", datastore_path="[ds] vm-1/", search_spec=spec)
        assert names(disks) == ["[ds] vm-1|vm-1.vmdk", "[ds] vm-1|vm-1_1.vmdk"]
        assert [one.fileSize for one in disks.file] == [1024**3, 2 * 1024**3]
        exact = _browser.SearchSpec(searchCaseInsensitive=False, matchPattern=["VM-1*"])
        none = await lab.run(browser, "SearchDatastore_Task", datastore_path="[ds] vm-1", search_spec=exact)
        assert names(none) == []
        query = _browser.SearchSpec(query=[_browser.VmConfigQuery(), _browser.TemplateVmConfigQuery()])
        below = await lab.run(browser, "SearchDatastoreSubFolders_Task", datastore_path="[ds]", search_spec=query)
        assert [names(one) for one in below] == [[], ["[ds] tpl|tpl.vmtx"], ["[ds] vm-1|vm-1.vmx"]]
        await lab.run(lab["vm-1"], "Destroy_Task")
        assert names(await lab.run(browser, "SearchDatastore_Task", datastore_path="[ds]")) == ["[ds]|tpl"]

    simulate(MODEL, scenario)


@pytest.mark.parametrize(
    ("path", "fault"),
    [
        ("[ds] nothing", vim.fault.FileNotFound),
        ("[other] vm-2", vim.fault.InvalidDatastorePath),
        ("vm-1", vim.fault.InvalidDatastorePath),
    ],
)
@pytest.mark.parametrize("method", ["SearchDatastore_Task", "SearchDatastoreSubFolders_Task"])
def test_what_is_not_there_is_a_fault(method: str, path: str, fault: type[Exception]) -> None:
    async def scenario(lab: Inventory) -> None:
        with pytest.raises(fault):
            await lab.run(lab["ds"].browser, method, datastore_path=path)

    simulate(MODEL, scenario)
