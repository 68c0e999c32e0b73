"""Resource pools: the tree under a cluster or host, what each pool is entitled to, and what is in it."""

from __future__ import annotations

import typing as t

from vsphere_simulator.kernel.objects import method, prop
from vsphere_simulator.vmomi import make, vim, vmodl
from vsphere_simulator.world.devices import copy_of
from vsphere_simulator.world.devices import given as set_fields
from vsphere_simulator.world.entity import Entity, check_name, invalid_argument

if t.TYPE_CHECKING:
    from vsphere_simulator.kernel.objects import Context
    from vsphere_simulator.kernel.tasks import TaskControl
    from vsphere_simulator.world.compute import Compute
    from vsphere_simulator.world.site import Site
    from vsphere_simulator.world.virtual_machine import VirtualMachine

MIB = 1024 * 1024
LEVELS: t.Final[dict[str, dict[str, int]]] = {
    "cpuAllocation": {"low": 2000, "normal": 4000, "high": 8000},
    "memoryAllocation": {"low": 81920, "normal": 163840, "high": 327680},
}
"""Shares of a pool at each level: those of a machine with four CPUs and 16 GB."""
_EDIT: t.Final = "Resource.EditPool"


def resolved(kind: str, now: t.Any, given: t.Any) -> t.Any:
    """A pool's ResourceAllocationInfo after a change: what is given over what was, the share level as a number.

    `kind` is `cpuAllocation` or `memoryAllocation`. Raises InvalidArgument for values that make no sense.
    """
    if given is None:
        return now
    shares = now.shares
    if given.shares is not None:
        level = str(given.shares.level)
        number = given.shares.shares if level == "custom" else LEVELS[kind][level]
        if not 0 < number <= 1_000_000:
            raise invalid_argument(f"spec.{kind}.shares.shares")
        shares = make(vim.SharesInfo, shares=number, level=level)
    fields = {key: value for key, value in set_fields(given).items() if key not in ("shares", "overheadLimit")}
    fresh = copy_of(now, shares=shares, **fields)
    if fresh.reservation < 0 or fresh.limit < -1 or -1 < fresh.limit < fresh.reservation:
        raise invalid_argument(f"spec.{kind}.reservation")
    return fresh


def _unlimited(kind: str) -> t.Any:
    return make(
        vim.ResourceAllocationInfo,
        reservation=0,
        expandableReservation=True,
        limit=-1,
        shares=make(vim.SharesInfo, shares=LEVELS[kind]["normal"], level="normal"),
    )


class ResourcePool(Entity):
    """A resource pool of a cluster or standalone host, its root pool or one below it."""

    wsdl = vim.ResourcePool
    rename_privilege = "Resource.RenamePool"

    def __init__(self, site: Site, name: str, parent: Entity, owner: Compute, moid: str | None = None) -> None:
        super().__init__(site, moid or site.new_id("resgroup-"), name, parent)
        self.owner = owner
        self.children: dict[str, Entity] = {}
        self.machines: dict[str, VirtualMachine] = {}
        self.version = 1
        self.allocations: dict[str, t.Any] = {kind: _unlimited(kind) for kind in LEVELS}
        """`cpuAllocation` (MHz) and `memoryAllocation` (MB), as the API has them."""

    @property
    def is_root(self) -> bool:
        """Whether it is the pool that every cluster and host has."""
        return self.owner is self.parent

    @property
    def pools(self) -> list[ResourcePool]:
        """The pools directly below."""
        return [t.cast("ResourcePool", child) for child in self.children.values()]

    def check_free(self, name: str) -> None:
        """Raise DuplicateName when a pool below this one has the name."""
        if name in self.children:
            raise vim.fault.DuplicateName(
                name=name, object=self.children[name].ref, msg=f"The name '{name}' already exists."
            )

    # --- what it is entitled to ---

    def capacity(self, kind: str) -> int:
        """MHz or MB that the pool can use at most."""
        above = self.owner.capacity(kind) if self.is_root else t.cast("ResourcePool", self.parent).capacity(kind)
        limit = self.allocations[kind].limit
        return above if limit < 0 else min(above, int(limit))

    def reserved_by_machines(self, kind: str) -> int:
        """MHz or MB that running machines in it (and in expandable pools below) hold."""
        if kind == "memoryAllocation":
            return sum(vm.reserved_memory_mb for vm in self.machines.values() if vm.is_on)
        given = (vm.config.settings.get(kind) for vm in self.machines.values() if vm.is_on)
        return sum(int(one.reservation or 0) for one in given if one is not None)

    def used(self, kind: str) -> int:
        """MHz or MB of its capacity that machines and pools below have reserved."""
        below = sum(max(child.allocations[kind].reservation, child.used(kind)) for child in self.pools)
        return int(below) + self.reserved_by_machines(kind)

    def unreserved(self, kind: str) -> int:
        """MHz or MB that a new pool below could reserve."""
        own = self.allocations[kind]
        if self.is_root:
            return self.capacity(kind) - self.used(kind)
        free = int(own.reservation) - self.used(kind)
        if not own.expandableReservation:
            return free
        more = max(0, free) + t.cast("ResourcePool", self.parent).unreserved(kind)
        return more if own.limit < 0 else min(more, int(own.limit) - self.used(kind))

    def _check_reservations(self, wanted: dict[str, t.Any], now: dict[str, t.Any]) -> None:
        """Raise the fault of a pool below that asks for more than there is."""
        for kind, allocation in wanted.items():
            more = allocation.reservation - (now[kind].reservation if now else 0)
            if more > 0 and more > self.unreserved(kind):
                is_cpu = kind == "cpuAllocation"
                fault = (
                    vim.fault.InsufficientCpuResourcesFault if is_cpu else vim.fault.InsufficientMemoryResourcesFault
                )
                unit = 1 if is_cpu else MIB
                raise fault(
                    unreserved=self.unreserved(kind) * unit,
                    requested=more * unit,
                    msg=f"The available {'CPU' if is_cpu else 'memory'} resources in the parent resource pool are "
                    "insufficient for the operation.",
                )

    # --- properties ---

    @prop("owner")
    def _owner(self) -> Compute:
        return self.owner

    @prop("vm")
    def _vms(self) -> list[VirtualMachine]:
        return list(self.machines.values())

    @prop("resourcePool")
    def _pools(self) -> list[Entity]:
        return list(self.children.values())

    @prop("config")
    def config(self) -> t.Any:
        """ResourceConfigSpec; the root pool is entitled to all there is."""
        allocations = self.allocations
        if self.is_root:
            allocations = {
                kind: copy_of(one, reservation=self.capacity(kind), limit=self.capacity(kind))
                for kind, one in allocations.items()
            }
        return make(
            vim.ResourceConfigSpec,
            entity=self.ref,
            changeVersion=str(self.version),
            scaleDescendantsShares="disabled",
            **allocations,
        )

    @prop("childConfiguration")
    def _child_configuration(self) -> list[t.Any]:
        from vsphere_simulator.world.vm_facts import resource_config

        return [pool.config() for pool in self.pools] + [resource_config(vm) for vm in self.machines.values()]

    @prop("runtime")
    def _runtime(self) -> t.Any:
        return make(
            vim.ResourcePool.RuntimeInfo,
            memory=self._usage("memoryAllocation", MIB),
            cpu=self._usage("cpuAllocation", 1),
            overallStatus="green",
        )

    def _usage(self, kind: str, unit: int) -> t.Any:
        total, used, free = self.capacity(kind), self.used(kind), self.unreserved(kind)
        return make(
            vim.ResourcePool.ResourceUsage,
            reservationUsed=used * unit,
            reservationUsedForVm=self.reserved_by_machines(kind) * unit,
            unreservedForPool=free * unit,
            unreservedForVm=free * unit,
            overallUsage=used * unit,
            maxUsage=total * unit,
        )

    @prop("summary")
    def _summary(self) -> t.Any:
        return make(
            vim.ResourcePool.Summary,
            name=self.name,
            config=self.config(),
            runtime=self._runtime(),
            quickStats=self._quick_stats(),
            configuredMemoryMB=sum(vm.memory_mb for vm in self.machines.values()),
        )

    def _running(self) -> list[VirtualMachine]:
        return [vm for vm in self.machines.values() if vm.is_on] + [
            vm for child in self.pools for vm in child._running()
        ]

    def _quick_stats(self) -> t.Any:
        running = self._running()
        usage = [self.site.load.now(vm) for vm in running]
        return make(
            vim.ResourcePool.Summary.QuickStats,
            overallCpuUsage=round(sum(one.used for one in usage)),
            overallCpuDemand=round(sum(one.demand for one in usage)),
            distributedCpuEntitlement=round(sum(one.used for one in usage)),
            guestMemoryUsage=sum(vm.memory_mb // 10 for vm in running),
            hostMemoryUsage=sum(vm.memory_mb for vm in running),
        )

    def renamed(self) -> None:
        """Tell who watches that the name has changed."""
        self.world.changed(self, "name", "summary.name")

    # --- operations ---

    @method("CreateResourcePool")
    def create(self, name: str, spec: t.Any) -> ResourcePool:
        """Make a pool below. NotSupported in a cluster whose DRS is off, which has no pools but its own."""
        if not self.owner.has_pools:
            raise vmodl.fault.NotSupported(msg="Resource pools need DRS to be on in their cluster.")
        check_name(name)
        self.check_free(name)
        wanted = {kind: resolved(kind, _unlimited(kind), getattr(spec, kind)) for kind in LEVELS}
        self._check_reservations(wanted, {})
        pool = ResourcePool(self.site, name, self, self.owner)
        pool.allocations = wanted
        self.world.add(pool)
        self._adopt(pool)
        return pool

    def _adopt(self, pool: ResourcePool) -> None:
        pool.parent = self
        self.children[pool.name] = pool
        self.world.changed(self, "resourcePool", "runtime", "summary", "childConfiguration")

    def _forget(self, pool: ResourcePool) -> None:
        self.children.pop(pool.name, None)
        self.world.changed(self, "resourcePool", "runtime", "summary", "childConfiguration")

    @method("UpdateConfig", privilege=_EDIT)
    def update(self, name: str | None = None, config: t.Any = None) -> None:
        """Rename, change the allocations, or both. ConcurrentAccess when `config` says another changeVersion."""
        if config is not None:
            self._configure(config)
        if name is not None and name != self.name:
            self.set_name(name)

    def set_name(self, name: str) -> None:
        """Take another name. Raises DuplicateName, InvalidName, or NotSupported for a root pool."""
        if self.is_root:
            raise vmodl.fault.NotSupported(msg="The root resource pool has its name from its owner.")
        super().set_name(name)

    def _configure(self, config: t.Any) -> None:
        if config.changeVersion and config.changeVersion != str(self.version):
            raise vim.fault.ConcurrentAccess(
                msg="Cannot complete operation due to concurrent modification by another operation."
            )
        if self.is_root:
            raise vmodl.fault.NotSupported(msg="The root resource pool has all that its owner has.")
        wanted = {kind: resolved(kind, self.allocations[kind], getattr(config, kind)) for kind in LEVELS}
        t.cast("ResourcePool", self.parent)._check_reservations(wanted, self.allocations)
        self.allocations = wanted
        self.version += 1
        self.world.changed(self, "config", "runtime", "summary")
        self.world.changed(self.parent, "runtime", "summary", "childConfiguration")

    @method("UpdateChildResourceConfiguration", privilege=_EDIT)
    def update_children(self, ctx: Context, spec: t.Any) -> None:
        """Change allocations of pools and machines directly in this one."""
        from vsphere_simulator.world import reconfigure

        for one in spec:
            child = ctx.world.get(one.entity)
            if isinstance(child, ResourcePool) and child.parent is self:
                child._configure(one)
            elif child.moid in self.machines:
                ctx.world.authorization.require(ctx.session, child, "VirtualMachine.Config.Resource")
                change = vim.vm.ConfigSpec(cpuAllocation=one.cpuAllocation, memoryAllocation=one.memoryAllocation)
                reconfigure.adopt(child, reconfigure.planned(child, change))
            else:
                raise invalid_argument("spec.entity")

    @method("MoveIntoResourcePool", privilege="Resource.AssignVMToPool")
    def move_into(self, list: t.Any) -> None:
        """Move machines and pools of the same owner here. InvalidArgument for anything else."""
        entities: t.Sequence[t.Any] = list
        for entity in entities:
            if isinstance(entity, ResourcePool):
                if entity.is_root or entity.owner is not self.owner or self._is_within(entity):
                    raise invalid_argument("list")
                self.check_free(entity.name)
            elif getattr(entity, "pool", None) is None or entity.pool.owner is not self.owner:
                raise invalid_argument("list")
        for entity in entities:
            if isinstance(entity, ResourcePool):
                t.cast("ResourcePool", entity.parent)._forget(entity)
                self._adopt(entity)
                self.world.changed(entity, "parent")
            else:
                entity.enter_pool(self)

    def _is_within(self, pool: ResourcePool) -> bool:
        node: t.Any = self
        while isinstance(node, ResourcePool):
            if node is pool:
                return True
            node = node.parent
        return False

    @method("Destroy_Task", privilege="")
    def destroy(self, ctx: Context) -> t.Any:
        """Delete the pool; what is in it belongs to the pool above. NotSupported for a root pool."""
        ctx.world.authorization.require(ctx.session, self, "Resource.DeletePool")
        if self.is_root:
            raise vmodl.fault.NotSupported(msg="The operation is not supported on the object.")

        async def body(control: TaskControl) -> None:
            await control.work(0.5, steps=1)
            self.dissolve()

        return ctx.world.start_task(self, "ResourcePool.destroy", body, ctx.session)

    def dissolve(self) -> None:
        """Be gone, leaving machines and pools to the pool above."""
        above = t.cast("ResourcePool", self.parent)
        for child in self.pools:
            above.check_free(child.name)
        above._forget(self)
        for child in self.pools:
            above._adopt(child)
            self.world.changed(child, "parent")
        for vm in list(self.machines.values()):
            vm.enter_pool(above)
        self.world.remove(self)

    @method("DestroyChildren", privilege="Resource.DeletePool")
    def destroy_children(self) -> None:
        """Delete all pools below; their machines are in this one then."""
        for child in self.pools:
            child.destroy_children()
            child.dissolve()

    @method("RefreshRuntime")
    def refresh_runtime(self) -> None:
        """Read usage again; here it is never stale."""
