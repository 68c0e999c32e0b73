"""What a host tells about itself: the data objects behind its properties."""

from __future__ import annotations

import datetime as dt
import functools
import typing as t

from vsphere_simulator.vmomi import make, vim, vmodl
from vsphere_simulator.world import host_services
from vsphere_simulator.world.cluster_admin import thumbprint
from vsphere_simulator.world.config_option import filled

if t.TYPE_CHECKING:
    from vsphere_simulator.world.host import HostSystem, Make

BIOS_DATE: t.Final = dt.datetime(2024, 5, 1, tzinfo=dt.UTC)
_TRUE = (
    "recursiveResourcePoolsSupported", "cpuMemoryResourceConfigurationSupported", "rebootSupported",
    "shutdownSupported",
    "vmotionSupported", "sanSupported", "nfsSupported", "iscsiSupported", "vlanTaggingSupported", "nicTeamingSupported",
    "highGuestMemSupported", "maintenanceModeSupported",
    "suspendedRelocateSupported", "perVmSwapFiles",
    "localSwapDatastoreSupported", "unsharedSwapVMotionSupported", "backgroundSnapshotsSupported",
    "preAssignedPCIUnitNumbersSupported", "screenshotSupported", "scaledScreenshotSupported", "storageVMotionSupported",
    "vmotionWithStorageVMotionSupported", "cloneFromSnapshotSupported", "deltaDiskBackingsSupported",
    "perVMNetworkTrafficShapingSupported", "storageIORMSupported", "vmDirectPathGen2Supported", "nestedHVSupported",
    "latencySensitivitySupported", "assignableHardwareSupported", "suspendToMemorySupported", "uefiSecureBoot",
)  # fmt: skip


@functools.cache
def capability(rebind_without_reboot: bool) -> t.Any:
    """HostCapability of an ESXi 8 host; shared, nobody may change it."""
    return filled(
        vim.host.Capability,
        maxSupportedVMs=1024,
        maxRunningVMs=1024,
        maxSupportedVcpus=768,
        deviceRebindWithoutRebootSupported=rebind_without_reboot,
        **dict.fromkeys(_TRUE, True),
    )


@functools.cache
def product(hardware: Make) -> t.Any:
    """AboutInfo of the host's ESXi."""
    return make(
        vim.AboutInfo,
        name="VMware ESXi",
        fullName=f"VMware ESXi {hardware.esxi_version} build-{hardware.esxi_build}",
        vendor="VMware, Inc.",
        version=hardware.esxi_version,
        patchLevel="0",
        build=hardware.esxi_build,
        localeVersion="INTL",
        localeBuild="000",
        osType="vmnix-x86",
        productLineId="embeddedEsx",
        apiType="HostAgent",
        apiVersion=f"{hardware.esxi_version}.0",
        licenseProductName="VMware ESX Server",
        licenseProductVersion="8.0",
    )


def hardware(host: HostSystem) -> t.Any:
    """HostHardwareInfo."""
    made = host.make
    hz = made.cpu_mhz * 1_000_000
    per_socket = 2 * made.cpu_cores
    return make(
        vim.host.HardwareInfo,
        systemInfo=make(
            vim.host.SystemInfo,
            vendor=made.vendor,
            model=made.model,
            uuid=host.uuid,
            serialNumber=host.uuid[:8].upper(),
        ),
        cpuInfo=make(
            vim.host.CpuInfo, numCpuPackages=made.cpu_sockets, numCpuCores=host.cores, numCpuThreads=host.threads, hz=hz
        ),
        cpuPkg=[
            make(
                vim.host.CpuPackage,
                index=index,
                vendor="intel" if "Intel" in made.cpu_model else "amd",
                hz=hz,
                busHz=100_000_000,
                description=made.cpu_model,
                threadId=list(range(index * per_socket, (index + 1) * per_socket)),
            )
            for index in range(made.cpu_sockets)
        ],
        memorySize=host.memory_bytes,
        smcPresent=False,
        pciDevice=host.layout.devices,
        biosInfo=make(
            vim.host.BIOSInfo,
            biosVersion="1.14.1",
            releaseDate=BIOS_DATE,
            vendor=made.vendor,
            firmwareType="UEFI",
        ),
    )


def runtime(host: HostSystem) -> t.Any:
    """HostRuntimeInfo."""
    return make(
        vim.host.RuntimeInfo,
        connectionState=host.connection,
        powerState="poweredOn" if host.answers else "unknown",
        standbyMode="none",
        inMaintenanceMode=host.in_maintenance,
        inQuarantineMode=False,
        bootTime=host.boot_time,
        cryptoState="incapable",
        hostMaxVirtualDiskCapacity=68_169_720_922_112,
    )


def reboot_required(host: HostSystem) -> bool:
    """Whether something waits for the next boot."""
    return any(state.enabled != state.active for state in host.passthrough.values()) or host.graphics.waits_for_boot


def summary(host: HostSystem) -> t.Any:
    """HostListSummary."""
    made = host.make
    required = reboot_required(host)
    reason = make(
        vmodl.LocalizableMessage,
        key="com.vmware.vim.host.rebootRequired",
        message="A configuration change takes effect after the next reboot.",
    )
    return make(
        vim.host.Summary,
        host=host.ref,
        hardware=make(
            vim.host.Summary.HardwareSummary,
            vendor=made.vendor,
            model=made.model,
            uuid=host.uuid,
            memorySize=host.memory_bytes,
            cpuModel=made.cpu_model,
            cpuMhz=made.cpu_mhz,
            numCpuPkgs=made.cpu_sockets,
            numCpuCores=host.cores,
            numCpuThreads=host.threads,
            numNics=2,
            numHBAs=2,
        ),
        runtime=runtime(host),
        config=make(
            vim.host.Summary.ConfigSummary,
            name=host.name,
            port=443,
            product=product(made),
            sslThumbprint=thumbprint(host.hardware_id),
            vmotionEnabled=True,
            faultToleranceEnabled=False,
        ),
        quickStats=make(
            vim.host.Summary.QuickStats,
            overallCpuUsage=host.cpu_mhz_used,
            overallMemoryUsage=4096 + sum(vm.memory_mb for vm in host.running),
            uptime=max(0, int((host.world.clock.now() - host.boot_time).total_seconds())),
        ),
        overallStatus={"connected": "green", "disconnected": "gray"}.get(host.connection, "red"),
        rebootRequired=required,
        rebootRequiredReason=[reason] if required else [],
        maintenanceModeRequired=False,
        customValue=[
            make(vim.CustomFieldsManager.StringValue, key=key, value=value)
            for key, value in sorted(host.custom_values.items())
        ],
    )


def config(host: HostSystem) -> t.Any:
    """HostConfigInfo, as far as this host has one."""
    return make(
        vim.host.ConfigInfo,
        host=host.ref,
        product=product(host.make),
        hyperThread=make(vim.host.CpuSchedulerSystem.HyperThreadScheduleInfo, available=True, active=True, config=True),
        pciPassthruInfo=host.passthrough_list(),
        graphicsInfo=host.graphics.info(),
        graphicsConfig=host.graphics.config(),
        sharedPassthruGpuTypes=host.graphics.type_names(),
        sharedGpuCapabilities=host.graphics.capabilities(),
        vmotion=make(vim.host.VMotionInfo),
        lockdownMode="lockdownDisabled",
        network=host_services.network(host),
        sslThumbprintInfo=host_services.thumbprint_info(host),
    )
