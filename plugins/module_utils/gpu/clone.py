# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Planner: named clones of templates, there or not."""

from __future__ import annotations

import collections
import collections.abc
import dataclasses
import typing as t

from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu import vm_problems
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.facts import HostFacts, VmFacts
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.places import (
    HostPlaces,
    Place,
    PlaceError,
    Places,
    find,
    find_datastore,
)
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.plan import Change, ObjectPlan, Problem
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.suggest import did_you_mean, some_of


@dataclasses.dataclass(frozen=True, slots=True)
class CloneWant:
    """A virtual machine that shall exist."""

    name: str
    host: str | None = None
    template: str | None = None
    datastore: str | None = None
    folder: str | None = None
    resource_pool: str | None = None
    num_cpus: int | None = None
    memory_mb: int | None = None
    annotation: str | None = None

    @classmethod
    def from_option(cls, item: t.Mapping[str, t.Any]) -> CloneWant:
        """From an entry of the option `vms`; empty strings are as good as nothing."""
        given: dict[str, t.Any] = {field.name: item.get(field.name) or None for field in dataclasses.fields(cls)}
        return cls(**given)


@dataclasses.dataclass(frozen=True, slots=True)
class Clone:
    """One clone to make; managed object ids."""

    template: str
    host: str
    datastore: str
    folder: str
    pool: str
    num_cpus: int | None
    memory_mb: int | None
    annotation: str | None


@dataclasses.dataclass(frozen=True, slots=True)
class Removal:
    """One virtual machine to delete."""

    moid: str
    power_off: bool
    """Whether it has to be powered off first."""


@dataclasses.dataclass(frozen=True, slots=True)
class GroupPlan:
    """The plan of one virtual machine, what carries it out, and the virtual machine as it is then."""

    plan: ObjectPlan
    work: Clone | Removal | None = None
    predicted: VmFacts | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Site:
    """The facts a plan is made from."""

    vms: t.Mapping[str, VmFacts]
    """Virtual machines and templates that are named."""
    hosts: t.Mapping[str, HostFacts]
    places: Places
    known_vms: collections.abc.Collection[str] = ()
    known_hosts: collections.abc.Collection[str] = ()
    ambiguous: collections.abc.Collection[str] = ()
    """Names that several virtual machines have."""


def plan_present(wants: collections.abc.Sequence[CloneWant], site: Site) -> dict[str, GroupPlan]:
    """Clone what is not there, adopt what is. All problems of a virtual machine are found at once."""
    repeated = _repeated([want.name for want in wants])
    plans: dict[str, GroupPlan] = {}
    for want in wants:
        if want.name not in plans:
            plans[want.name] = _present(want, site, [_listed_twice(want.name)] if want.name in repeated else [])
    return plans


def plan_absent(
    names: collections.abc.Sequence[str], site: Site, *, force_power_off: bool = False
) -> dict[str, GroupPlan]:
    """Delete what is there: only what is powered off, unless `force_power_off`."""
    return {name: _absent(name, site, force_power_off) for name in dict.fromkeys(names)}


def _present(want: CloneWant, site: Site, problems: list[Problem]) -> GroupPlan:
    vm = site.vms.get(want.name)
    if vm is not None:
        return _adopt(want, vm, site, problems)
    template, template_problems = _template(want, site)
    host, host_problems = _host(want, site)
    problems += [*template_problems, *host_problems]
    here = site.places.hosts.get(host.name) if host is not None else None
    where = _where(want, template, site.places, here, problems) if here is not None else None
    if problems or template is None or host is None or where is None:
        return GroupPlan(ObjectPlan(want.name, problems=tuple(problems)))
    datastore, folder, pool = where
    text = f"clone of {template.name} on {host.name}, datastore {datastore.path}"
    if want.folder:
        text += f", folder {folder.path}"
    if want.resource_pool:
        text += f", resource pool {pool.path}"
    memory_mb = want.memory_mb or template.memory_mb
    predicted = dataclasses.replace(
        template,
        name=want.name,
        moid="",
        host=host.name,
        power="poweredOff",
        template=False,
        change_version="",
        memory_mb=memory_mb,
        memory_reservation_mb=memory_mb if template.memory_reservation_locked else template.memory_reservation_mb,
        intent=None,
    )
    return GroupPlan(
        ObjectPlan(
            want.name,
            (Change("create", "virtual machine", None, text, text),),
            notes={"host": host.name, "power": "poweredOff", "template": template.name, "adopted": False},
        ),
        Clone(
            template.moid,
            host.moid,
            datastore.moid,
            folder.moid,
            pool.moid,
            want.num_cpus,
            want.memory_mb,
            want.annotation,
        ),
        predicted,
    )


def _adopt(want: CloneWant, vm: VmFacts, site: Site, problems: list[Problem]) -> GroupPlan:
    if vm.template:
        text = "There is a template of this name. Choose another name for the virtual machine."
        problems.append(Problem("is_template", want.name, text, "vms"))
    elif want.name in site.ambiguous:
        problems.append(vm_problems.ambiguous(want.name))
    elif not vm.change_version and vm.moid:
        text = "is still being created by another task, or cannot be read. Run again when that has ended."
        problems.append(Problem("being_created", want.name, text, kind="state"))
    warnings: tuple[str, ...] = ()
    if want.host and vm.host and vm.host != want.host and not problems:
        warnings = (f"{want.name} exists on {vm.host}, not on {want.host}. It is left there.",)
    notes = {"host": vm.host, "power": vm.power, "adopted": True}
    return GroupPlan(ObjectPlan(want.name, problems=tuple(problems), warnings=warnings, notes=notes), None, vm)


def _template(want: CloneWant, site: Site) -> tuple[VmFacts | None, list[Problem]]:
    if want.template is None:
        return None, [Problem("template_missing", want.name, "does not exist, and has no template.", "template")]
    template = site.vms.get(want.template)
    if template is None:
        hint = did_you_mean(want.template, site.known_vms) or "Make it first, or correct the name."
        text = f"There is no template {want.template}. {hint}"
        return None, [Problem("template_not_found", want.name, text, "template")]
    if not template.template:
        text = f"{want.template} is a virtual machine, not a template. Convert it, or name a template."
        return None, [Problem("not_a_template", want.name, text, "template")]
    return template, []


def _host(want: CloneWant, site: Site) -> tuple[HostFacts | None, list[Problem]]:
    if want.host is None:
        return None, [Problem("host_missing", want.name, "does not exist, and has no host.", "host")]
    host = site.hosts.get(want.host)
    if host is None:
        hint = did_you_mean(want.host, site.known_hosts) or "Add it to the vCenter first, or correct the name."
        text = f"The vCenter has no host {want.host}. {hint}"
        return None, [Problem("host_not_found", want.name, text, "host")]
    if not host.answers:
        return host, [vm_problems.not_connected(want.name, host, "host")]
    if host.in_maintenance:
        return host, [vm_problems.in_maintenance(want.name, host, "host")]
    return host, []


def _where(
    want: CloneWant, template: VmFacts | None, places: Places, here: HostPlaces, problems: list[Problem]
) -> tuple[Place, Place, Place] | None:
    """Datastore, folder and resource pool; what is wrong is added to `problems`."""
    found: list[Place] = []
    searches: dict[str, t.Callable[[], Place]] = {
        "datastore": lambda: _datastore(want, places, here),
        "folder": lambda: find("folder", want.folder or "", here.folders),
        "resource_pool": lambda: find("resource pool", want.resource_pool or "", here.pools),
    }
    if template is None and not want.datastore:
        del searches["datastore"]  # it would be the template's
    for option, search in searches.items():
        try:
            found.append(search())
        except PlaceError as error:
            problems.append(Problem(error.code, want.name, str(error), option))
    return (found[0], found[1], found[2]) if len(found) == 3 else None


def _datastore(want: CloneWant, places: Places, here: HostPlaces) -> Place:
    if want.datastore:
        return find_datastore(want.datastore, want.host or "", here, places.datastores)
    template = places.templates.get(want.template or "")
    for moid in template.datastores if template is not None else ():
        for place in here.datastores:
            if place.moid == moid:
                return place
    names = some_of([place.path for place in here.datastores])
    raise PlaceError(
        "datastore_missing", f"{want.host} does not have the template's datastore. Set datastore; there are: {names}."
    )


def _absent(name: str, site: Site, force_power_off: bool) -> GroupPlan:
    vm = site.vms.get(name)
    if vm is None:
        return GroupPlan(ObjectPlan(name))
    problems = []
    host = site.hosts.get(vm.host or "")
    if vm.template:
        problems.append(Problem("is_template", name, "This is a template, which is not deleted here.", "vms"))
    elif name in site.ambiguous:
        problems.append(vm_problems.ambiguous(name))
    elif host is None:
        problems.append(vm_problems.no_host(name))
    elif not host.answers:
        problems.append(vm_problems.not_connected(name, host))
    elif vm.power != "poweredOff" and not force_power_off:
        how = "powered on" if vm.power == "poweredOn" else vm.power
        text = f"is {how}. Power it off first (vm_power with state: off), or set force_power_off: true."
        problems.append(Problem("vm_powered_on", name, text, "force_power_off", kind="state"))
    text = f"on {vm.host}" if vm.host else "of no host"
    changes = [Change("delete", "virtual machine", text, None, text, disruptive=True)]
    if vm.power != "poweredOff" and force_power_off:
        changes.insert(0, Change("power off", "power", vm.power, "poweredOff", disruptive=True))
    plan = ObjectPlan(name, tuple(changes), tuple(problems), notes={"host": vm.host, "power": vm.power})
    return GroupPlan(plan, Removal(vm.moid, vm.power != "poweredOff"))


def _repeated(names: collections.abc.Iterable[str]) -> set[str]:
    return {name for name, count in collections.Counter(names).items() if count > 1}


def _listed_twice(name: str) -> Problem:
    return Problem("duplicate_name", name, "is listed more than once in vms. Keep one entry.", "vms")
