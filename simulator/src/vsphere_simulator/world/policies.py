"""Builds what operators have laid over the hardware: pools, rules, snapshots, tags, custom attributes."""

from __future__ import annotations

import typing as t

from vsphere_simulator.model.policies import Allocation, Pool
from vsphere_simulator.vmomi import make, vim, vmodl
from vsphere_simulator.world.pools import LEVELS, ResourcePool
from vsphere_simulator.world.snapshots import Snapshot
from vsphere_simulator.world.tags import Category, Tag

if t.TYPE_CHECKING:
    from vsphere_simulator.model import policies
    from vsphere_simulator.model.schema import Cluster as ClusterModel
    from vsphere_simulator.world.compute import Cluster
    from vsphere_simulator.world.custom_fields import CustomFieldsManager
    from vsphere_simulator.world.entity import Entity
    from vsphere_simulator.world.site import Site
    from vsphere_simulator.world.virtual_machine import VirtualMachine

Found = t.Callable[[str], t.Any]
"""Returns the entity of a name. Raises ValueError when there is none."""


def _problem(fault: vmodl.MethodFault, what: str) -> ValueError:
    return ValueError(f"{what}: {fault.msg or type(fault).__name__}")


# --- resource pools ---


def _allocation(kind: str, given: Allocation) -> t.Any:
    named = isinstance(given.shares, str)
    shares = make(
        vim.SharesInfo,
        level=given.shares if named else "custom",
        shares=LEVELS[kind][str(given.shares)] if named else given.shares,
    )
    return make(
        vim.ResourceAllocationInfo,
        reservation=given.reservation,
        expandableReservation=given.expandable,
        limit=given.limit,
        shares=shares,
    )


def build_pools(above: ResourcePool, models: list[Pool], marks: t.Callable[[Entity, policies.Marked], None]) -> None:
    """Make the pools below one. Raises ValueError for what there is not enough of."""
    for model in models:
        wanted = {"cpuAllocation": model.cpu, "memoryAllocation": model.memory}
        spec = make(vim.ResourceConfigSpec, **{kind: _allocation(kind, one) for kind, one in wanted.items()})
        try:
            pool = above.create(model.name, spec)
        except vmodl.MethodFault as fault:
            raise _problem(fault, f"pool {model.name}") from fault
        marks(pool, model)
        build_pools(pool, model.pools, marks)


def pool_at(root: ResourcePool, path: str | None) -> ResourcePool:
    """The pool at a path such as `a/b` below a cluster's own. Raises ValueError."""
    pool = root
    for name in (path or "").split("/"):
        if name and name not in pool.children:
            raise ValueError(f"cluster {root.owner.name} has no pool {path}")
        pool = t.cast("ResourcePool", pool.children[name]) if name else pool
    return pool


# --- groups, rules, overrides ---


def build_rules(cluster: Cluster, model: ClusterModel, found: Found) -> None:
    """Give a cluster its groups, rules and overrides. Raises ValueError for one that does not fit it."""
    spec = vim.cluster.ConfigSpecEx()
    for group in model.groups:
        members = [found(name).ref for name in (group.vms if group.vms is not None else group.hosts or ())]
        info: t.Any = (
            vim.cluster.VmGroup(name=group.name, vm=members)
            if group.vms is not None
            else vim.cluster.HostGroup(name=group.name, host=members)
        )
        spec.groupSpec.append(vim.cluster.GroupSpec(operation="add", info=info))
    for rule in model.rules:
        spec.rulesSpec.append(vim.cluster.RuleSpec(operation="add", info=_rule(rule, found)))
    for override in model.overrides:
        vm = found(override.vm).ref
        if override.drs is not None:
            enabled = override.drs != "disabled"
            drs = vim.cluster.DrsVmConfigInfo(key=vm, enabled=enabled, behavior=override.drs if enabled else None)
            spec.drsVmConfigSpec.append(vim.cluster.DrsVmConfigSpec(operation="add", info=drs))
        if override.restart_priority is not None:
            settings = vim.cluster.DasVmSettings(restartPriority=override.restart_priority)
            das = vim.cluster.DasVmConfigInfo(key=vm, dasSettings=settings)
            spec.dasVmConfigSpec.append(vim.cluster.DasVmConfigSpec(operation="add", info=das))
    try:
        cluster.rules = cluster.rules.changed(spec)
    except vmodl.MethodFault as fault:
        raise _problem(fault, f"cluster {cluster.name}") from fault


def _rule(rule: policies.Rule, found: Found) -> t.Any:
    common: dict[str, t.Any] = {"name": rule.name, "enabled": rule.enabled, "mandatory": rule.mandatory}
    if rule.mode in ("together", "apart"):
        kind = vim.cluster.AffinityRuleSpec if rule.mode == "together" else vim.cluster.AntiAffinityRuleSpec
        return kind(vm=[found(name).ref for name in rule.vms], **common)
    field = "affineHostGroupName" if rule.mode == "on_hosts" else "antiAffineHostGroupName"
    return vim.cluster.VmHostRuleInfo(vmGroupName=rule.vm_group, **{field: rule.host_group}, **common)


# --- snapshots ---


def build_snapshots(vm: VirtualMachine, models: list[policies.Snapshot]) -> None:
    """Give a machine its snapshots, in the order in which they were taken."""
    if not models:
        return
    pending: list[tuple[policies.Snapshot, Snapshot | None]] = [(model, None) for model in models]
    while pending:
        pending.sort(key=lambda item: item[0].id)
        model, above = pending.pop(0)
        one = Snapshot(vm, model.id, above)
        one.name, one.description = model.name, model.description
        one.power, one.quiesced = model.power, model.quiesced
        one.config = vm.config.copy()
        one.config.devices, one.config.blueprint = vm.devices, None
        vm.snapshots.put(one)
        if model.current:
            vm.snapshots.current = one
        pending += [(below, one) for below in model.snapshots]
    vm.snapshots.told()


# --- tags and custom attributes ---


def build_categories(site: Site, models: list[policies.Category]) -> None:
    """Make the tags."""
    for model in models:
        key = f"urn:vmomi:InventoryServiceCategory:{site.uuid_of(f'category/{model.name}')}:GLOBAL"
        cardinality = "SINGLE" if model.single else "MULTIPLE"
        site.tags.categories[key] = Category(key, model.name, model.description, cardinality, sorted(model.types))
        for tag in model.tags:
            own = f"urn:vmomi:InventoryServiceTag:{site.uuid_of(f'tag/{model.name}/{tag.name}')}:GLOBAL"
            site.tags.tags[own] = Tag(own, tag.name, key, tag.description)


def mark(entity: Entity, model: policies.Marked) -> None:
    """Give an object its custom attributes and tags. Raises ValueError for one that does not exist."""
    fields = t.cast("CustomFieldsManager", entity.world.content["customFieldsManager"])
    for name, value in model.custom_values.items():
        field = fields.by_name(name, entity)
        if field is None:
            raise ValueError(f"{entity.name}: no custom attribute is called {name}")
        fields.set_value(entity, field, value)
    tags = entity.site.tags
    known = {(tags.categories[tag.category].name, tag.name): tag.id for tag in tags.tags.values()}
    for category, names in model.tags.items():
        for name in names:
            if (category, name) not in known:
                raise ValueError(f"{entity.name}: category {category} has no tag {name}")
            tags.attached.setdefault(known[category, name], []).append(entity.moid)
