"""EnvironmentBrowser: what a cluster or one of its hosts offers to virtual machines."""

from __future__ import annotations

import typing as t

from vsphere_simulator.kernel.objects import ManagedObject, method
from vsphere_simulator.vmomi import make, vim
from vsphere_simulator.world import device_groups, graphics
from vsphere_simulator.world.config_option import DEFAULT_HARDWARE_VERSION, HARDWARE_VERSIONS, config_option
from vsphere_simulator.world.entity import invalid_argument

if t.TYPE_CHECKING:
    from vsphere_simulator.world.compute import Compute
    from vsphere_simulator.world.host import HostSystem
    from vsphere_simulator.world.virtual_machine import VirtualMachine


class EnvironmentBrowser(ManagedObject):
    """The environment browser of a cluster."""

    wsdl = vim.EnvironmentBrowser
    volatile = True

    def __init__(self, cluster: Compute) -> None:
        super().__init__(cluster.world, f"envbrowser-{cluster.moid.removeprefix('domain-c')}")
        self.cluster = cluster
        self.name = cluster.name
        self.parent = cluster

    def _hosts(self, host: HostSystem | None) -> list[HostSystem]:
        """The host asked for; without one, those that this browser is about and that answer."""
        if host is None:
            return [one for one in self.cluster.hosts.values() if one.answers]
        if host.cluster is not self.cluster:
            raise invalid_argument("host")
        host.require_connected()
        return [host]

    @method("QueryConfigTarget")
    def query_target(self, host: HostSystem | None = None) -> t.Any:
        """What machines can have on a host, or on any host of the cluster. Unset without a host that answers.

        `pciPassthrough` (with the `systemId` that fixed DirectPath needs) is told for a single host only.
        """
        hosts = self._hosts(host)
        if not hosts:
            return None
        first = hosts[0]
        return make(
            vim.vm.ConfigTarget,
            numCpus=max(one.threads for one in hosts),
            numCpuCores=max(one.cores for one in hosts),
            numNumaNodes=max(one.make.cpu_sockets for one in hosts),
            maxCpusPerHost=max(one.threads for one in hosts),
            smcPresent=False,
            maxMemMBOptimalPerf=max(one.memory_bytes for one in hosts) // 1024**2,
            supportedMaxMemMB=24 * 1024 * 1024,
            autoVmotion=self.cluster.drs.moves,
            datastore=[_datastore(store) for store in first.datastores],
            network=[
                make(vim.vm.NetworkInfo, name=network.name, network=network._summary()) for network in first.networks
            ],
            pciPassthrough=_fixed(first) if len(hosts) == 1 else [],
            dynamicPassthrough=_dynamic(hosts),
            sharedGpuPassthroughTypes=[
                make(vim.vm.PciSharedGpuPassthroughInfo, name=name, vgpu=name)
                for name in dict.fromkeys(name for one in hosts for name in one.graphics.type_names())
            ],
            vgpuDeviceInfo=_unique(info for one in hosts for info in graphics.device_info(one)),
            vgpuProfileInfo=_unique(info for one in hosts for info in graphics.profile_info(one)),
            vendorDeviceGroupInfo=list(
                {info.name: info for one in hosts for info in device_groups.offers(one)}.values()
            ),
        )

    @method("QueryTargetCapabilities")
    def query_capabilities(self, host: HostSystem | None = None) -> t.Any:
        """HostCapability of a host, or of the first host of the cluster that answers."""
        hosts = self._hosts(host)
        return hosts[0]._capability() if hosts else None

    @method("QueryConfigOptionDescriptor")
    def query_descriptors(self) -> list[t.Any]:
        """The virtual hardware versions that the cluster's hosts can run."""
        return [
            make(
                vim.vm.ConfigOptionDescriptor,
                key=f"vmx-{version:02d}",
                description=f"Virtual hardware version {version}",
                host=[host.ref for host in self.cluster.hosts.values()],
                createSupported=True,
                defaultConfigOption=version == DEFAULT_HARDWARE_VERSION,
                runSupported=True,
                upgradeSupported=True,
            )
            for version in HARDWARE_VERSIONS
        ]

    @method("QueryConfigOption")
    def query_option(self, key: str | None = None, host: HostSystem | None = None) -> t.Any:
        """What a virtual hardware version offers."""
        self._hosts(host)
        return config_option(key)

    @method("QueryConfigOptionEx")
    def query_option_ex(self, spec: t.Any = None) -> t.Any:
        """What a virtual hardware version offers, for some guests."""
        return config_option(None) if spec is None else config_option(spec.key, tuple(spec.guestId))


def _datastore(store: t.Any) -> t.Any:
    return make(
        vim.vm.DatastoreInfo,
        name=store.name,
        datastore=store._summary(),
        capability=store._capability(),
        maxFileSize=64 * 1024**4,
        mode="readWrite",
    )


def _fixed(host: HostSystem) -> list[t.Any]:
    """The functions that fixed DirectPath can use now."""
    devices = {device.id: device for device in host.layout.devices}
    return [
        make(
            vim.vm.PciPassthroughInfo,
            name=f"{host.layout.functions[address].vendor_name} {host.layout.functions[address].name}",
            pciDevice=devices[address],
            systemId=host.system_id,
        )
        for address, state in sorted(host.passthrough.items())
        if state.active
    ]


def _dynamic(hosts: list[HostSystem]) -> list[t.Any]:
    """The kinds of devices that dynamic DirectPath can use: one entry for each id and label."""
    found: dict[tuple[str, str | None], t.Any] = {}
    for host in hosts:
        for address, state in sorted(host.passthrough.items()):
            function = host.layout.functions[address]
            if state.active and (function.id, state.label) not in found:
                found[function.id, state.label] = make(
                    vim.vm.DynamicPassthroughInfo,
                    name=function.name,
                    vendorName=function.vendor_name,
                    deviceName=function.name,
                    customLabel=state.label,
                    vendorId=function.vendor_id,
                    deviceId=function.device_id,
                )
    return list(found.values())


def _unique(infos: t.Iterable[t.Any]) -> list[t.Any]:
    return list({(info.name, info.deviceVendorId): info for info in infos}.values())


class MachineEnvironmentBrowser(EnvironmentBrowser):
    """The environment browser of one virtual machine: asked for no host, it tells of the machine's own."""

    def __init__(self, machine: VirtualMachine) -> None:
        ManagedObject.__init__(self, machine.world, f"envbrowser-{machine.moid}")
        self.machine = machine
        self.name = machine.name
        self.parent = machine

    @property
    def cluster(self) -> Compute:  # type: ignore[override]
        """The cluster that the machine is in now."""
        return self.machine.host.cluster

    def _hosts(self, host: HostSystem | None) -> list[HostSystem]:
        own = self.machine.host
        if host is None:
            return [own] if own.answers else []
        return super()._hosts(host)
