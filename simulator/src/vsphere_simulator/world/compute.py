"""Clusters, and the compute resources that hosts outside clusters are."""

from __future__ import annotations

import dataclasses
import typing as t

from vsphere_simulator.kernel.objects import method, prop
from vsphere_simulator.vmomi import make, vim
from vsphere_simulator.world import cluster_admin, cluster_config, placement
from vsphere_simulator.world.entity import Entity
from vsphere_simulator.world.rules import Rules

if t.TYPE_CHECKING:
    from vsphere_simulator.kernel.objects import Context
    from vsphere_simulator.world.environment import EnvironmentBrowser
    from vsphere_simulator.world.host import HostSystem
    from vsphere_simulator.world.pools import ResourcePool
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


class Compute(Entity):
    """What hosts and the pools of their resources belong to."""

    rename_privilege = "Host.Inventory.RenameCluster"
    environment: EnvironmentBrowser
    pool: ResourcePool

    def __init__(self, site: Site, name: str, parent: Entity, moid: str | None = None) -> None:
        super().__init__(site, moid or site.new_id("domain-c"), name, parent)
        self.drs = DrsSettings()
        self.das: t.Any = cluster_config.no_das()
        """High availability, as the API has it."""
        self.rules = Rules(self)
        self.hosts: dict[str, HostSystem] = {}

    @property
    def has_pools(self) -> bool:
        """Whether pools can be made below its own."""
        return True

    def capacity(self, kind: str) -> int:
        """MHz (`cpuAllocation`) or MB (`memoryAllocation`) of all its hosts."""
        if kind == "cpuAllocation":
            return sum(host.cpu_mhz_total for host in self.hosts.values())
        return sum(host.memory_bytes // MIB for host in self.hosts.values())

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
        return make(vim.ComputeResource.Summary, **self._totals())

    def _totals(self) -> dict[str, t.Any]:
        hosts = list(self.hosts.values())
        able = [host for host in hosts if host.answers and not host.in_maintenance]
        return {
            "totalCpu": sum(host.cpu_mhz_total for host in hosts),
            "totalMemory": sum(host.memory_bytes for host in hosts),
            "numCpuCores": sum(host.cores for host in hosts),
            "numCpuThreads": sum(host.threads for host in hosts),
            "effectiveCpu": sum(host.cpu_mhz_total for host in able),
            "effectiveMemory": sum(host.memory_bytes for host in able) // MIB,
            "numHosts": len(hosts),
            "numEffectiveHosts": len(able),
            "overallStatus": "green",
        }

    @prop("configurationEx")
    def _configuration(self) -> t.Any:
        return make(vim.ComputeResource.ConfigInfo, vmSwapPlacement="vmDirectory")

    @prop("configManagerEnabled")
    def _not_managed(self) -> bool:
        return False


class Standalone(Compute):
    """The compute resource of one host that is in no cluster; it goes by the host's name and goes with it."""

    wsdl = vim.ComputeResource
    rename_privilege = "Host.Inventory.EditCluster"

    def __init__(self, site: Site, name: str, parent: Entity, moid: str | None = None) -> None:
        super().__init__(site, name, parent, moid or site.new_id("domain-s"))
        self.drs = DrsSettings(enabled=False)

    @method("Destroy_Task", privilege="")
    def destroy(self, ctx: Context) -> t.Any:
        """Remove the host from the inventory."""
        return cluster_admin.remove_host(ctx, next(iter(self.hosts.values())))


class Cluster(Compute):
    """A cluster of hosts with DRS and HA settings."""

    wsdl = vim.ClusterComputeResource

    @property
    def has_pools(self) -> bool:
        """Whether pools can be made below its own: DRS manages them."""
        return self.drs.enabled

    @prop("summary")
    def _summary(self) -> t.Any:
        totals = self._totals()
        spare = max(0, totals["numEffectiveHosts"] - 1)
        return make(
            vim.ClusterComputeResource.Summary,
            **totals,
            currentFailoverLevel=spare if self.das.enabled else 0,
            numVmotions=0,
            usageSummary=cluster_admin.usage(self),
        )

    @prop("configurationEx")
    def _configuration(self) -> t.Any:
        return make(
            vim.cluster.ConfigInfoEx,
            vmSwapPlacement="vmDirectory",
            dasConfig=self.das,
            drsConfig=self._drs_config(),
            **self.rules.shown(),
            rule=self.rules.rule_list(),
            group=self.rules.group_list(),
            proactiveDrsConfig=make(vim.cluster.ProactiveDrsConfigInfo, enabled=False),
            dpmConfigInfo=make(
                vim.cluster.DpmConfigInfo, enabled=False, defaultDpmBehavior="manual", hostPowerActionRate=3
            ),
        )

    @prop("configuration")
    def _old_configuration(self) -> t.Any:
        return make(
            vim.cluster.ConfigInfo,
            dasConfig=self.das,
            drsConfig=self._drs_config(),
            **self.rules.shown(),
            rule=self.rules.rule_list(),
        )

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

    @prop("lifecycleManaged")
    def _lifecycle_managed(self) -> bool:
        return self.moid in self.site.images.of

    @prop("recommendation", "drsRecommendation", "actionHistory", "drsFault", "migrationHistory")
    def _no_recommendation(self) -> list[t.Any]:
        return []

    @method("AddHost_Task")
    def add_host(
        self, ctx: Context, spec: t.Any, as_connected: bool, resource_pool: ResourcePool | None = None
    ) -> t.Any:
        """Let the vCenter know a host, as a member of this cluster."""
        return cluster_admin.add_host(ctx, self, spec, connected=as_connected, pool=resource_pool)

    @method("MoveInto_Task")
    def move_into(self, ctx: Context, host: t.Any) -> t.Any:
        """Make hosts that the vCenter knows members of this cluster."""
        return cluster_admin.move_into(ctx, self, list(host), None)

    @method("MoveHostInto_Task")
    def move_host_into(self, ctx: Context, host: HostSystem, resource_pool: ResourcePool | None = None) -> t.Any:
        """Make a host that the vCenter knows a member, its machines in a pool of the cluster."""
        return cluster_admin.move_into(ctx, self, [host], resource_pool)

    @method("Destroy_Task", privilege="")
    def destroy(self, ctx: Context) -> t.Any:
        """Delete the cluster, and its hosts from the inventory."""
        return cluster_admin.destroy(ctx, self)

    @method("PlaceVm")
    def place_vm(self, ctx: Context, placement_spec: t.Any) -> t.Any:
        """Say on which hosts a machine can be made or moved to, the best first."""
        return placement.place_vm(ctx, self, placement_spec)

    @method("GetResourceUsage")
    def resource_usage(self) -> t.Any:
        """What is used now of what there is."""
        return cluster_admin.resource_usage(self)

    @method("FindRulesForVm")
    def find_rules(self, vm: VirtualMachine) -> list[t.Any]:
        """The rules that name a machine, or a group that it is in."""
        return self.rules.rules_of(vm)

    @method("RefreshRecommendation")
    def refresh_recommendation(self) -> None:
        """Think again about what to recommend; DRS here acts by itself or not at all."""
