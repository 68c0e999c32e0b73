# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

import typing as t

from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.clone import (
    Clone,
    CloneWant,
    GroupPlan,
    Removal,
    Site,
    plan_absent,
    plan_present,
)
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.facts import VmFacts
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.places import (
    HostPlaces,
    Place,
    Places,
    TemplatePlace,
)
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.plan import diff
from gpu_builders import host, vm

GOLDEN = vm("golden", template=True, host="esx-9", memory_mb=8192, memory_reservation_mb=8192)
PLACES = Places(
    hosts={
        "esx-1": HostPlaces(
            datastores=(Place("d1", "local-01"), Place("d2", "shared-01")),
            folders=(Place("f0", ""), Place("f1", "gpu")),
            pools=(Place("p0", ""), Place("p1", "batch")),
        ),
        "esx-2": HostPlaces((Place("d3", "local-02"),), (Place("f0", ""),), (Place("p0", ""),)),
    },
    templates={"golden": TemplatePlace(("d2",))},
    datastores=("local-01", "local-02", "shared-01"),
)


def site(*vms: VmFacts, **more: t.Any) -> Site:
    known = {item.name: item for item in (GOLDEN, *vms)}
    hosts = {name: host(name) for name in ("esx", "esx-1", "esx-2")}
    return Site(**{"vms": known, "hosts": hosts, "places": PLACES, "known_vms": list(known), **more})


def present(where: Site, **want: t.Any) -> GroupPlan:
    return plan_present([CloneWant.from_option({"name": "a", "host": "esx-1", "template": "golden", **want})], where)[
        "a"
    ]


def codes(planned: GroupPlan) -> list[str]:
    return [problem.code for problem in planned.plan.problems]


def test_defaults_are_the_templates_datastore_and_the_roots() -> None:
    planned = present(site(), datastore="", folder="", resource_pool="")
    assert planned.work == Clone("vm-golden", "host-esx-1", "d2", "f0", "p0", None, None, None)
    assert planned.predicted == vm(
        "a", moid="", host="esx-1", change_version="", memory_mb=8192, memory_reservation_mb=8192
    )


def test_places_and_sizes_are_as_asked_for() -> None:
    planned = present(
        site(),
        datastore="local-01",
        folder="gpu",
        resource_pool="batch",
        num_cpus=16,
        memory_mb=65536,
        annotation="mine",
    )
    assert planned.work == Clone("vm-golden", "host-esx-1", "d1", "f1", "p1", 16, 65536, "mine")
    assert planned.predicted is not None
    assert (planned.predicted.memory_mb, planned.predicted.memory_reservation_mb) == (65536, 65536)
    assert "datastore local-01, folder gpu, resource pool batch" in str(planned.plan.changes[0])


def test_template_on_a_datastore_that_the_host_lacks() -> None:
    planned = present(site(), host="esx-2")
    assert codes(planned) == ["datastore_missing"]
    assert "there are: local-02" in planned.plan.problems[0].msg
    assert codes(present(site(), host="esx-2", datastore="shared-01")) == ["datastore_not_on_host"]


def test_a_machine_is_no_template() -> None:
    assert codes(present(site(vm("plain")), template="plain")) == ["not_a_template"]


def test_what_exists_is_adopted_or_refused() -> None:
    planned = present(site(vm("a", host="esx-2", power="poweredOn")))
    assert (planned.plan.changed, planned.plan.failed, planned.work) == (False, False, None)
    assert "exists on esx-2" in planned.plan.warnings[0]
    assert codes(present(site(vm("a")), host=None, template=None)) == []
    assert codes(present(site(vm("a", template=True)))) == ["is_template"]
    assert codes(present(site(vm("a"), ambiguous={"a"}))) == ["ambiguous_name"]
    assert codes(present(site(vm("a", change_version="")))) == ["being_created"]


def absent(where: Site, *, force: bool = False) -> GroupPlan:
    return plan_absent(["a"], where, force_power_off=force)["a"]


def test_deleting() -> None:
    assert absent(site()).plan.changes == ()
    assert absent(site(vm("a"))).work == Removal("vm-a", power_off=False)
    assert codes(absent(site(vm("a", template=True)))) == ["is_template"]
    assert codes(absent(site(vm("a"), ambiguous={"a"}))) == ["ambiguous_name"]
    assert codes(absent(site(vm("a", host=None)))) == ["no_host"]
    for power in ("poweredOn", "suspended"):
        assert codes(absent(site(vm("a", power=power)))) == ["vm_powered_on"]
        assert absent(site(vm("a", power=power)), force=True).work == Removal("vm-a", power_off=True)


def test_the_diff_of_a_forced_deletion_names_what_changes() -> None:
    shown = diff(absent(site(vm("a", power="poweredOn")), force=True).plan)
    assert shown["before"].startswith("power: poweredOn\n")
    assert shown["after"].startswith("power: poweredOff\n")
