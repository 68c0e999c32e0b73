"""Datastore browser: the folders and files of virtual machines, which is all that a datastore here holds."""

from __future__ import annotations

import fnmatch
import typing as t

from vsphere_simulator.kernel.objects import ManagedObject, method, prop
from vsphere_simulator.vmomi import make, vim
from vsphere_simulator.world import vm_facts

if t.TYPE_CHECKING:
    from vsphere_simulator.kernel.objects import Context
    from vsphere_simulator.kernel.tasks import TaskControl
    from vsphere_simulator.world.storage import Datastore

_browser = vim.host.DatastoreBrowser
_KINDS: t.Final[tuple[tuple[str, t.Any, t.Any], ...]] = (
    (".vmtx", _browser.TemplateVmConfigInfo, _browser.TemplateVmConfigQuery),
    (".vmx", _browser.VmConfigInfo, _browser.VmConfigQuery),
    (".vmdk", _browser.VmDiskInfo, _browser.VmDiskQuery),
    ("", _browser.FileInfo, _browser.Query),
)
"""Ending of a file's name, what is told of such a file, and the query that asks for it."""
_SUPPORTED: t.Final = (
    _browser.FolderQuery,
    _browser.TemplateVmConfigQuery,
    _browser.VmConfigQuery,
    _browser.VmDiskQuery,
)


class DatastoreBrowser(ManagedObject):
    """Finds files on one datastore."""

    wsdl = _browser
    parent: Datastore

    def __init__(self, store: Datastore) -> None:
        super().__init__(store.world, f"datastoreBrowser-{store.moid}")
        self.parent = store

    @prop("datastore")
    def _datastores(self) -> list[Datastore]:
        return [self.parent]

    @prop("supportedType")
    def _supported_types(self) -> list[t.Any]:
        return [make(kind) for kind in _SUPPORTED]

    @method("SearchDatastore_Task")
    def search(self, ctx: Context, datastore_path: str, search_spec: t.Any = None) -> t.Any:
        """Find files in one folder."""

        async def body(control: TaskControl) -> t.Any:
            await control.work(0.0, steps=1)
            folders, folder = self._folders(), self._folder(datastore_path)
            if folder not in folders:
                raise _not_found(datastore_path)
            return self._result(folder, folders[folder], search_spec)

        return ctx.world.start_task(self.parent, "HostDatastoreBrowser.searchDatastore", body, ctx.session)

    @method("SearchDatastoreSubFolders_Task")
    def search_below(self, ctx: Context, datastore_path: str, search_spec: t.Any = None) -> t.Any:
        """Find files in a folder and those below it."""

        async def body(control: TaskControl) -> t.Any:
            await control.work(0.0, steps=1)
            folders, start = self._folders(), self._folder(datastore_path)
            if start not in folders:
                raise _not_found(datastore_path)
            within = {name: files for name, files in folders.items() if not start or name == start}
            found = [self._result(name, files, search_spec) for name, files in within.items()]
            return vim.host.DatastoreBrowser.SearchResults.Array(found)

        return ctx.world.start_task(self.parent, "HostDatastoreBrowser.searchDatastoreSubFolders", body, ctx.session)

    def _folder(self, path: str) -> str:
        """The folder of `[datastore] folder`; InvalidDatastorePath for another datastore's."""
        store, bracket, rest = path.strip().removeprefix("[").partition("]")
        if not bracket or store != self.parent.name:
            raise vim.fault.InvalidDatastorePath(
                name=self.parent.name, datastorePath=path, msg=f"Invalid datastore path '{path}'."
            )
        return rest.strip().strip("/")

    def _folders(self) -> dict[str, dict[str, int | None]]:
        """Sizes by file name, by folder; the datastore's own folder has the others, which have no size."""
        found: dict[str, dict[str, int | None]] = {"": {}}
        for vm in self.parent.users.values():
            for file in vm_facts.layout(vm).file:
                store, _, path = file.name.removeprefix("[").partition("] ")
                if store == self.parent.name:
                    folder, _, name = path.rpartition("/")
                    found[""][folder] = None
                    found.setdefault(folder, {})[name] = file.size
        return found

    def _result(self, folder: str, files: dict[str, int | None], spec: t.Any) -> t.Any:
        patterns = list(spec.matchPattern or ()) if spec is not None else []
        queries = list(spec.query or ()) if spec is not None else []
        whole = not (spec is not None and spec.searchCaseInsensitive is False)
        found = []
        for name, size in sorted(files.items()):
            kind, query = _kind(name, size)
            if queries and not any(type(one) in (query, _browser.Query) for one in queries):
                continue
            if patterns and not any(_matches(name, pattern, ignore_case=whole) for pattern in patterns):
                continue
            details = spec.details if spec is not None else None
            wanted = details is not None and details.fileSize
            found.append(make(kind, path=name, fileSize=size if wanted else None))
        path = f"[{self.parent.name}] {folder}".strip()
        return make(_browser.SearchResults, datastore=self.parent.ref, folderPath=path, file=found)


def _kind(name: str, size: int | None) -> tuple[t.Any, t.Any]:
    if size is None:
        return _browser.FolderInfo, _browser.FolderQuery
    return next((told, query) for ending, told, query in _KINDS if name.endswith(ending))


def _matches(name: str, pattern: str, *, ignore_case: bool) -> bool:
    if ignore_case:
        name, pattern = name.lower(), pattern.lower()
    return fnmatch.fnmatchcase(name, pattern)


def _not_found(path: str) -> Exception:
    fault: Exception = vim.fault.FileNotFound(file=path, msg=f"File {path} was not found")
    return fault
