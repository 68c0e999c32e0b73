"""Views: named selections of inventory objects that follow the inventory."""

from __future__ import annotations

import itertools
import typing as t

from vsphere_simulator.kernel.objects import Context, ManagedEntity, ManagedObject, current_context, method, prop
from vsphere_simulator.vmomi import vim, vmodl

if t.TYPE_CHECKING:
    from vsphere_simulator.kernel.registry import World
    from vsphere_simulator.kernel.sessions import Session

_numbers = itertools.count(1)


def session_moid(session: Session | None, kind: str) -> str:
    """Return an id for an object that belongs to a session."""
    return f"session[{session.key if session is not None else ''}]{kind}-{next(_numbers)}"


class View(ManagedObject):
    """Base of the views: belongs to one session, ends with it or when destroyed."""

    volatile = True

    def __init__(self, world: World, session: Session | None) -> None:
        super().__init__(world, session_moid(session, "view"))
        self.session = session
        if session is not None:
            session.owned[self.moid] = self

    @method("DestroyView", privilege="")
    def destroy(self) -> None:
        """Forget the view."""
        self.world.remove(self)

    def on_removed(self) -> None:
        """Take the view off its session."""
        if self.session is not None:
            self.session.owned.pop(self.moid, None)


class ContainerView(View):
    """The objects of some types under one container."""

    wsdl = vim.view.ContainerView

    def __init__(
        self, world: World, session: Session | None, container: ManagedObject, types: list[t.Any], recursive: bool
    ) -> None:
        super().__init__(world, session)
        self.container = container
        self.types = tuple(types) or (vim.ManagedEntity,)
        self.recursive = recursive
        self._members: list[ManagedObject] | None = None

    @prop("container")
    def _container(self) -> ManagedObject:
        return self.container

    @prop("type")
    def _type(self) -> list[t.Any]:
        return list(self.types)

    @prop("recursive")
    def _recursive(self) -> bool:
        return self.recursive

    @prop("view")
    def members(self) -> list[ManagedObject]:
        """Return the objects selected now."""
        if self._members is None:
            wanted = [obj for obj in self.world.objects.values() if issubclass(obj.wsdl, self.types)]
            if self.recursive and self.container is self.world.root:
                self._members = [obj for obj in wanted if isinstance(obj, ManagedEntity) and obj is not self.container]
            else:
                below = _Below(self.container, self.recursive)
                self._members = [obj for obj in wanted if isinstance(obj, ManagedEntity) and below(obj)]
        return self._members

    def inventory_changed(self) -> None:
        """Select afresh when next asked, and say so."""
        if self._members is not None:
            self._members = None
            self.world.changed(self, "view")


class _Below:
    """Decides whether objects lie under a container, remembering the way up."""

    def __init__(self, container: ManagedObject, recursive: bool) -> None:
        self.container = container
        self.recursive = recursive
        self._known: dict[str, bool] = {}

    def __call__(self, obj: ManagedObject) -> bool:
        known = self._known.get(obj.moid)
        if known is None:
            parents = obj.containers() if isinstance(obj, ManagedEntity) else ()
            known = any(parent is self.container for parent in parents)
            if not known and self.recursive:
                known = any(self(parent) for parent in parents)
            self._known[obj.moid] = known
        return known


class ListView(View):
    """An explicit list of objects."""

    wsdl = vim.view.ListView

    def __init__(self, world: World, session: Session | None, members: list[ManagedObject]) -> None:
        super().__init__(world, session)
        self._listed = {obj.moid: obj for obj in members}

    @prop("view")
    def _view(self) -> list[ManagedObject]:
        return [obj for obj in self._listed.values() if obj.moid in self.world.objects]

    @method("ModifyListView", privilege="System.View", resolve=False)
    def modify(self, add: list[t.Any], remove: list[t.Any]) -> list[t.Any]:
        """Add and remove objects; returns the references that do not exist."""
        missing = [] if not add else [ref for ref in add if ref._GetMoId() not in self.world.objects]
        for ref in remove:
            self._listed.pop(ref._GetMoId(), None)
        for ref in add:
            if ref._GetMoId() in self.world.objects:
                self._listed[ref._GetMoId()] = self.world.get(ref)
        self.world.changed(self, "view")
        return missing

    @method("ResetListView", privilege="System.View", resolve=False)
    def reset(self, obj: list[t.Any]) -> list[t.Any]:
        """Replace the list; returns the references that do not exist."""
        self._listed.clear()
        return self.modify(obj, [])

    @method("ResetListViewFromView", privilege="System.View")
    def reset_from(self, view: ManagedObject) -> None:
        """Replace the list by what another view selects now."""
        if not isinstance(view, ContainerView | ListView):
            raise vmodl.fault.InvalidArgument(invalidProperty="view")
        members = view.members() if isinstance(view, ContainerView) else view._view()
        self._listed = {obj.moid: obj for obj in members}
        self.world.changed(self, "view")


class ViewManager(ManagedObject):
    """Makes views, and tells them of the inventory's changes."""

    wsdl = vim.view.ViewManager
    volatile = True

    def __init__(self, world: World, moid: str) -> None:
        super().__init__(world, moid)
        self._container_views: dict[str, ContainerView] = {}
        world.listeners.append(self)

    @prop("viewList")
    def _view_list(self) -> list[ManagedObject]:
        context = current_context.get()
        if context is None or context.session is None:
            return []
        return [obj for obj in context.session.owned.values() if isinstance(obj, View)]

    @method("CreateContainerView")
    def create_container_view(
        self,
        ctx: Context,
        container: ManagedObject,
        type: list[t.Any],
        recursive: bool,
    ) -> ManagedObject:
        """Make a container view."""
        allowed = (vim.Folder, vim.Datacenter, vim.ComputeResource, vim.ResourcePool, vim.HostSystem, vim.VirtualApp)
        if not issubclass(container.wsdl, allowed):
            raise vmodl.fault.InvalidArgument(invalidProperty="container", msg="The object contains no others.")
        if not all(issubclass(wanted, vim.ManagedEntity) for wanted in type):
            raise vmodl.fault.InvalidArgument(invalidProperty="type", msg="A view selects managed entities only.")
        view = self.world.add(ContainerView(self.world, ctx.session, container, type, recursive))
        self._container_views[view.moid] = view
        return view

    @method("CreateListView")
    def create_list_view(self, ctx: Context, obj: list[ManagedObject]) -> ManagedObject:
        """Make a view of listed objects."""
        return self.world.add(ListView(self.world, ctx.session, obj))

    def object_added(self, obj: ManagedObject) -> None:
        """Follow the inventory."""
        if isinstance(obj, ManagedEntity):
            self._announce()

    def object_removed(self, obj: ManagedObject) -> None:
        """Follow the inventory."""
        if isinstance(obj, ManagedEntity):
            self._announce()
        self._container_views.pop(obj.moid, None)

    def object_changed(self, obj: ManagedObject, paths: tuple[str, ...]) -> None:
        """Follow objects that move: parents of any kind are named by these properties."""
        if isinstance(obj, ManagedEntity) and (not paths or not _WHERE.isdisjoint(paths)):
            self._announce()

    def _announce(self) -> None:
        for view in list(self._container_views.values()):
            view.inventory_changed()


_WHERE = frozenset({"parent", "resourcePool", "runtime.host"})
