"""PlaceVm: on which hosts of a cluster a machine can be made, or moved to."""

from __future__ import annotations

import typing as t

from vsphere_simulator.vmomi import make, vim, vmodl
from vsphere_simulator.world import admission, drs, migration, reconfigure
from vsphere_simulator.world import devices as dev
from vsphere_simulator.world.entity import invalid_argument

if t.TYPE_CHECKING:
    from vsphere_simulator.kernel.objects import Context
    from vsphere_simulator.world.compute import Cluster
    from vsphere_simulator.world.host import HostSystem
    from vsphere_simulator.world.storage import Datastore
    from vsphere_simulator.world.virtual_machine import VirtualMachine

TYPES: t.Final = ("create", "reconfigure", "relocate", "clone")


def place_vm(ctx: Context, cluster: Cluster, spec: t.Any) -> t.Any:
    """PlacementResult: a recommendation for each host that can take the machine, the best first, or why none can."""
    kind = str(spec.placementType or ("relocate" if spec.vm is not None else "create"))
    if kind not in TYPES:
        raise invalid_argument("placementSpec.placementType")
    if not cluster.drs.enabled:
        raise vim.fault.InvalidState(msg=f"DRS is not enabled in cluster {cluster.name}.")
    chosen: list[HostSystem] = [ctx.world.get(host) for host in spec.hosts]
    if any(host.cluster is not cluster for host in chosen):
        raise invalid_argument("placementSpec.hosts", "A host is not in the cluster.")
    stores: list[Datastore] = [ctx.world.get(store) for store in spec.datastores]
    vm = _candidate(ctx, cluster, spec, kind)
    faults: list[t.Any] = []
    fitting = []
    for host in chosen or cluster.hosts.values():
        try:
            _check(vm, host, running=kind == "relocate" and vm.is_on)
        except vmodl.MethodFault as fault:
            faults.append(fault)
        else:
            if not stores or any(store in host.datastores for store in stores):
                fitting.append(host)
    fitting.sort(key=drs.load)
    known = vm.ref if vm.moid in ctx.world.objects else None
    if not fitting:
        return make(
            vim.cluster.PlacementResult,
            drsFault=make(
                vim.cluster.DrsFaults,
                reason=f"No host of cluster {cluster.name} can take the virtual machine.",
                faultsByVm=[make(vim.cluster.DrsFaults.FaultsByVm, vm=known, fault=faults)],
            ),
        )
    return make(
        vim.cluster.PlacementResult,
        recommendations=[
            _recommendation(ctx, number, known, host, next((s for s in stores if s in host.datastores), None))
            for number, host in enumerate(fitting, start=1)
        ],
    )


def _candidate(ctx: Context, cluster: Cluster, spec: t.Any, kind: str) -> VirtualMachine:
    """The machine in question; one that is to be made is described by its specification alone."""
    if kind != "create":
        if spec.vm is None:
            raise invalid_argument("placementSpec.vm")
        return t.cast("VirtualMachine", ctx.world.get(spec.vm))
    if spec.configSpec is None:
        raise invalid_argument("placementSpec.configSpec")
    host = next(iter(cluster.hosts.values()), None)
    if host is None or not host.datastores:
        raise vim.fault.NoActiveHostInCluster(
            computeResource=cluster.ref, msg=f"There is no active host in cluster {cluster.name}."
        )
    from vsphere_simulator.world.provisioning import empty_machine

    vm = empty_machine(host, host.datastores[0], spec.configSpec, "vm-0")
    vm.config = reconfigure.planned(vm, dev.copy_of(spec.configSpec, name=None, version=None, files=None))
    return vm


def _check(vm: VirtualMachine, host: HostSystem, *, running: bool) -> None:
    host.require_open_for_work()
    if running:
        if host is vm.host:
            return
        migration.check_vmotion(vm, host)
    if not host.cluster.rules.allows(vm, host):
        raise vim.fault.RuleViolation(host=host.ref, msg=f"Host {host.name} would break a rule of the cluster.")
    admission.admit(vm, host)


def _recommendation(ctx: Context, number: int, vm: t.Any, host: HostSystem, store: Datastore | None) -> t.Any:
    target = vim.vm.RelocateSpec(
        host=host.ref, pool=host.cluster.pool.ref, datastore=store.ref if store is not None else None
    )
    action = make(
        vim.cluster.PlacementAction,
        type="PlacementV1",
        target=host.cluster.ref,
        vm=vm,
        targetHost=host.ref,
        relocateSpec=target,
    )
    return make(
        vim.cluster.Recommendation,
        key=str(number),
        type="V1",
        time=ctx.world.clock.now(),
        rating=max(1, 6 - number),
        reason="xvmotionPlacement",
        reasonText="DRS placement",
        target=host.cluster.ref,
        action=[action],
    )
