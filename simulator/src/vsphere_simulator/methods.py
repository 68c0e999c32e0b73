"""The list of what the simulator answers, from the classes themselves: what `vsphere-simulator methods` prints."""

from __future__ import annotations

import typing as t

from vsphere_simulator.kernel.objects import ManagedObject
from vsphere_simulator.kernel.service import DEFAULT_API_VERSION
from vsphere_simulator.rest.operations import OPERATIONS
from vsphere_simulator.soap import newest_version
from vsphere_simulator.vmomi import support, vim, wsdl_name
from vsphere_simulator.world import build

BEGIN: t.Final = "<!-- begin: vsphere-simulator methods -->"
END: t.Final = "<!-- end: vsphere-simulator methods -->"
_OF_THE_API: t.Final = ("vim.", "vmodl.query.")
"""Versions of what the API itself has; the other methods of a type serve reflection."""


def markdown() -> str:
    """Markdown of every managed type there is, its methods and properties, and what of the API is refused."""
    version = newest_version(DEFAULT_API_VERSION)
    types = _types()
    lines = [
        f"Of API {DEFAULT_API_VERSION}. A method under *refused* answers `NotSupported`; a property that is not listed"
        " is unset; a manager that is not there is unset in the service content.",
        "",
    ]
    for name, classes in sorted(types.items()):
        lines += _section(name, classes, version)
    lines += ["### Not there", "", "Managers of the service content: " + _code(_absent(version)) + ".", ""]
    lines += ["### REST", "", *_rest()]
    return "\n".join(lines) + "\n"


def _types() -> dict[str, list[type[ManagedObject]]]:
    """The simulator's classes by the wire name of their type; importing the builder has loaded them all."""
    assert build  # noqa: S101 - imported for its classes
    found: dict[str, list[type[ManagedObject]]] = {}
    pending: list[type[ManagedObject]] = [ManagedObject]
    while pending:
        cls = pending.pop()
        pending += cls.__subclasses__()
        if "wsdl" in vars(cls) and cls.__module__.startswith("vsphere_simulator."):
            found.setdefault(wsdl_name(cls.wsdl), []).append(cls)
    return found


def _section(name: str, classes: list[type[ManagedObject]], version: str) -> list[str]:
    wsdl = classes[0].wsdl
    known = {
        info.wsdlName
        for info in wsdl._GetMethodList()
        if support.IsChildVersion(version, info.version) and info.version.startswith(_OF_THE_API)
    }
    answered = {method for cls in classes for method in cls.methods}
    properties = {path.partition(".")[0] for cls in classes for path in cls.builders}
    of_type = {info.name for info in wsdl._GetPropertyList() if support.IsChildVersion(version, info.version)}
    lines = [f"### {name}", ""]
    for what, names in (
        ("Methods", answered & known),
        ("Properties", properties & of_type),
        ("Refused", known - answered),
    ):
        if names:
            lines.append(f"- {what}: {_code(names)}")
    return [*lines, ""]


def _absent(version: str) -> set[str]:
    declared = {
        info.name
        for info in vim.ServiceInstanceContent._GetPropertyList()
        if issubclass(info.type, support.ManagedObject) and support.IsChildVersion(version, info.version)
    }
    return declared - _singletons()


def _singletons() -> set[str]:
    from vsphere_simulator.kernel.clock import Clock
    from vsphere_simulator.model.schema import Model

    smallest = Model(datacenter="d", datastores=[{"name": "d"}], networks=[{"name": "n"}])  # type: ignore[list-item]
    return set(build.build_world(smallest, Clock()).content)


def _rest() -> list[str]:
    """One line for each path of the REST API."""
    lines = ["| path | calls |", "|---|---|"]
    by_path: dict[str, list[str]] = {}
    for operation in OPERATIONS:
        call = operation.verb + "".join(f" {key}={value}" for key, value in operation.query.items())
        by_path.setdefault(operation.path, []).append(call)
    lines += [f"| `{path}` | {', '.join(sorted(calls))} |" for path, calls in sorted(by_path.items())]
    return lines


def _code(names: set[str]) -> str:
    return ", ".join(f"`{name}`" for name in sorted(names, key=str.casefold))


def spliced(document: str, generated: str) -> str:
    """A document with the part between its two markers replaced. Raises ValueError when a marker is missing."""
    head, begin, rest = document.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the document lacks {BEGIN} or {END}")
    return f"{head}{BEGIN}\n\n{generated}\n{END}{tail}"
