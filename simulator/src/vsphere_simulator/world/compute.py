"""Clusters and resource pools."""

from __future__ import annotations

import dataclasses
import typing as t

from vsphere_simulator.kernel.objects import method, prop
from vsphere_simulator.vmomi import make, vim
from vsphere_simulator.world import cluster_config
from vsphere_simulator.world.entity import Entity

if t.TYPE_CHECKING:
    from vsphere_simulator.kernel.objects import Context
    from vsphere_simulator.world.environment import EnvironmentBrowser
    from vsphere_simulator.world.host import HostSystem
    from vsphere_simulator.world.site import Site
    from vsphere_simulator.world.storage import Datastore, Network
    from vsphere_simulator.world.virtual_machine import VirtualMachine

MIB = 1024 * 1024


@dataclasses.dataclass(slots=True)
class DrsSettings:
    """Distributed Resource Scheduler of a cluster."""

    enabled: bool = True
    automation: str = "manual"
    """manual, partiallyAutomated or fullyAutomated."""
    overrides: bool = True
    """enableVmBehaviorOverrides."""
    vmotion_rate: int = 3
    options: dict[str, str] = dataclasses.field(default_factory=dict)

    @property
    def moves(self) -> bool:
        """Whether DRS moves running virtual machines by itself."""
        return self.enabled and self.automation == "fullyAutomated"


class Cluster(Entity):
    """A cluster of hosts with DRS and HA settings."""

    wsdl = vim.ClusterComputeResource
    rename_privilege = "Host.Inventory.RenameCluster"
    environment: EnvironmentBrowser
    pool: ResourcePool

    def __init__(self, site: Site, name: str, parent: Entity, moid: str | None = None) -> None:
        super().__init__(site, moid or site.new_id("domain-c"), name, parent)
        self.drs = DrsSettings()
        self.das: t.Any = cluster_config.no_das()
        """High availability, as the API has it."""
        self.hosts: dict[str, HostSystem] = {}

    @prop("host")
    def _hosts(self) -> list[HostSystem]:
        return list(self.hosts.values())

    @prop("resourcePool")
    def _pool(self) -> ResourcePool:
        return self.pool

    @prop("environmentBrowser")
    def _environment(self) -> EnvironmentBrowser:
        return self.environment

    @prop("datastore")
    def _datastores(self) -> list[Datastore]:
        return list({store.moid: store for host in self.hosts.values() for store in host.datastores}.values())

    @prop("network")
    def _networks(self) -> list[Network]:
        return list({network.moid: network for host in self.hosts.values() for network in host.networks}.values())

    @prop("summary")
    def _summary(self) -> t.Any:
        hosts = list(self.hosts.values())
        able = [host for host in hosts if host.answers and not host.in_maintenance]
        return make(
            vim.ClusterComputeResource.Summary,
            totalCpu=sum(host.cpu_mhz_total for host in hosts),
            totalMemory=sum(host.memory_bytes for host in hosts),
            numCpuCores=sum(host.cores for host in hosts),
            numCpuThreads=sum(host.threads for host in hosts),
            effectiveCpu=sum(host.cpu_mhz_total for host in able),
            effectiveMemory=sum(host.memory_bytes for host in able) // MIB,
            numHosts=len(hosts),
            numEffectiveHosts=len(able),
            overallStatus="green",
            currentFailoverLevel=max(0, len(able) - 1) if self.das.enabled else 0,
            numVmotions=0,
        )

    @prop("configurationEx")
    def _configuration(self) -> t.Any:
        return make(
            vim.cluster.ConfigInfoEx,
            vmSwapPlacement="vmDirectory",
            dasConfig=self.das,
            drsConfig=self._drs_config(),
            dpmConfigInfo=make(
                vim.cluster.DpmConfigInfo, enabled=False, defaultDpmBehavior="manual", hostPowerActionRate=3
            ),
        )

    @prop("configuration")
    def _old_configuration(self) -> t.Any:
        return make(vim.cluster.ConfigInfo, dasConfig=self.das, drsConfig=self._drs_config())

    def _drs_config(self) -> t.Any:
        return make(
            vim.cluster.DrsConfigInfo,
            enabled=self.drs.enabled,
            enableVmBehaviorOverrides=self.drs.overrides,
            defaultVmBehavior=self.drs.automation,
            vmotionRate=self.drs.vmotion_rate,
            option=[
                make(vim.option.OptionValue, key=key, value=value) for key, value in sorted(self.drs.options.items())
            ],
        )

    @method("ReconfigureComputeResource_Task")
    def reconfigure(self, ctx: Context, spec: t.Any, modify: bool) -> t.Any:
        """Change DRS and HA; with `modify` false, what is not given goes back to its default."""
        return cluster_config.start(ctx, self, spec, modify=modify)

    @method("ReconfigureCluster_Task")
    def reconfigure_old(self, ctx: Context, spec: t.Any, modify: bool) -> t.Any:
        """Change DRS and HA, as older clients ask for it."""
        return cluster_config.start(ctx, self, spec, modify=modify)

    @prop("configManagerEnabled")
    def _not_managed(self) -> bool:
        return False

    @prop("lifecycleManaged")
    def _lifecycle_managed(self) -> bool:
        return self.moid in self.site.images.of

    @prop("recommendation", "drsRecommendation", "actionHistory", "drsFault", "migrationHistory")
    def _no_recommendation(self) -> list[t.Any]:
        return []


class ResourcePool(Entity):
    """A resource pool of a cluster, its root pool or one below it."""

    wsdl = vim.ResourcePool
    rename_privilege = "Resource.RenamePool"

    def __init__(self, site: Site, name: str, parent: Entity, owner: Cluster, moid: str | None = None) -> None:
        super().__init__(site, moid or site.new_id("resgroup-"), name, parent)
        self.owner = owner
        self.children: dict[str, Entity] = {}
        self.machines: dict[str, VirtualMachine] = {}
        self.version = 1

    def check_free(self, name: str) -> None:
        """Raise DuplicateName when a pool below this one has the name."""
        if name in self.children:
            raise vim.fault.DuplicateName(
                name=name, object=self.children[name].ref, msg=f"The name '{name}' already exists."
            )

    @prop("owner")
    def _owner(self) -> Cluster:
        return self.owner

    @prop("vm")
    def _vms(self) -> list[VirtualMachine]:
        return list(self.machines.values())

    @prop("resourcePool")
    def _pools(self) -> list[Entity]:
        return list(self.children.values())

    @prop("config")
    def _config(self) -> t.Any:
        return make(
            vim.ResourceConfigSpec,
            entity=self.ref,
            changeVersion=str(self.version),
            cpuAllocation=self._allocation(4000),
            memoryAllocation=self._allocation(163840),
        )

    def _allocation(self, shares: int) -> t.Any:
        return make(
            vim.ResourceAllocationInfo,
            reservation=0,
            expandableReservation=True,
            limit=-1,
            shares=make(vim.SharesInfo, shares=shares, level="normal"),
        )

    @prop("runtime")
    def _runtime(self) -> t.Any:
        hosts = self.owner.hosts.values()
        memory = sum(host.memory_bytes for host in hosts)
        cpu = sum(host.cpu_mhz_total for host in hosts)
        used = sum(vm.reserved_memory_mb * MIB for vm in self.machines.values() if vm.is_on)
        return make(
            vim.ResourcePool.RuntimeInfo,
            memory=_usage(memory, used),
            cpu=_usage(cpu, 0),
            overallStatus="green",
        )

    @prop("summary")
    def _summary(self) -> t.Any:
        return make(
            vim.ResourcePool.Summary,
            name=self.name,
            config=self._config(),
            runtime=self._runtime(),
            quickStats=make(vim.ResourcePool.Summary.QuickStats),
            configuredMemoryMB=sum(vm.memory_mb for vm in self.machines.values()),
        )


def _usage(total: int, used: int) -> t.Any:
    return make(
        vim.ResourcePool.ResourceUsage,
        reservationUsed=used,
        reservationUsedForVm=used,
        unreservedForPool=total - used,
        unreservedForVm=total - used,
        overallUsage=used,
        maxUsage=total,
    )
