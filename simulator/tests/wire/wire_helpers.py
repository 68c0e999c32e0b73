"""Specs as clients write them, shared by the wire's tests."""

from __future__ import annotations

import time
import typing as t

from pyVmomi import vim, vmodl

PC: t.Any = vmodl.query.PropertyCollector
PATIENCE = 60.0
CLONE: t.Any = vim.vm.CloneSpec(location=vim.vm.RelocateSpec(), powerOn=False, template=False)


def machines_view(client: t.Any) -> t.Any:
    return client.content.viewManager.CreateContainerView(client.content.rootFolder, [vim.VirtualMachine], True)


def view_spec(view: t.Any, paths: list[str], kind: t.Any = vim.VirtualMachine, *, everything: bool = False) -> t.Any:
    follow = PC.TraversalSpec(name="view", type=vim.view.ContainerView, path="view", skip=False)
    return PC.FilterSpec(
        propSet=[PC.PropertySpec(type=kind, pathSet=paths, all=everything)],
        objectSet=[PC.ObjectSpec(obj=view, skip=True, selectSet=[follow])],
    )


def object_spec(obj: t.Any, paths: list[str]) -> t.Any:
    return PC.FilterSpec(
        propSet=[PC.PropertySpec(type=type(obj), pathSet=paths)], objectSet=[PC.ObjectSpec(obj=obj, skip=False)]
    )


def as_dict(content: t.Any) -> dict[str, t.Any]:
    return {prop.name: prop.val for prop in content.propSet}


def read(client: t.Any, spec: t.Any, limit: int | None = None) -> list[t.Any]:
    """Read every page."""
    collector = client.content.propertyCollector
    page = collector.RetrievePropertiesEx([spec], PC.RetrieveOptions(maxObjects=limit))
    found: list[t.Any] = []
    while page is not None:
        found.extend(page.objects)
        page = collector.ContinueRetrievePropertiesEx(page.token) if page.token else None
    return found


def machines(client: t.Any) -> list[t.Any]:
    return list(machines_view(client).view)


def until(condition: t.Callable[[], t.Any]) -> t.Any:
    """Wait for a condition and return its value."""
    deadline = time.monotonic() + PATIENCE
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise AssertionError("the condition did not come true")
        time.sleep(0.01)
    return value


def finished(task: t.Any) -> t.Any:
    """Wait for a task and return its info."""
    return until(lambda: info if (info := task.info).state in ("success", "error") else None)
