"""What a virtual machine tells about itself: the data objects behind its properties."""

from __future__ import annotations

import datetime as dt
import functools
import typing as t

from vsphere_simulator.vmomi import make, vim
from vsphere_simulator.world.devices import copy_of, is_vgpu

if t.TYPE_CHECKING:
    from vsphere_simulator.world.virtual_machine import VirtualMachine
    from vsphere_simulator.world.vm_config import VmConfig

GUEST_NAMES = {
    "ubuntu64Guest": "Ubuntu Linux (64-bit)",
    "rhel8_64Guest": "Red Hat Enterprise Linux 8 (64-bit)",
    "rhel9_64Guest": "Red Hat Enterprise Linux 9 (64-bit)",
    "debian12_64Guest": "Debian GNU/Linux 12 (64-bit)",
    "otherLinux64Guest": "Other Linux (64-bit)",
    "otherGuest64": "Other (64-bit)",
    "vmwarePhoton64Guest": "VMware Photon OS (64-bit)",
    "windows2019srv_64Guest": "Microsoft Windows Server 2019 (64-bit)",
}
SETTINGS: t.Final = (
    "alternateGuestName", "bootOptions", "changeTrackingEnabled", "consolePreferences", "deviceGroups",
    "fixedPassthruHotPlugEnabled", "ftEncryptionMode", "guestAutoLockEnabled", "latencySensitivity", "locationId",
    "managedBy", "maxMksConnections", "messageBusTunnelEnabled", "migrateEncryption", "nestedHVEnabled",
    "npivDesiredNodeWwns", "npivDesiredPortWwns", "npivOnNonRdmDisks", "npivTemporaryDisabled", "pmemFailoverEnabled",
    "rebootPowerOff", "sevEnabled", "sgxInfo", "swapPlacement", "vAssertsEnabled", "vPMCEnabled",
    "vmOpNotificationTimeout", "vmOpNotificationToAppEnabled", "vmxStatsCollectionEnabled",
)  # fmt: skip
"""Fields with one name and one type in ConfigSpec and ConfigInfo, which are kept as they are given."""
SHARES = {"low": 500, "normal": 1000, "high": 2000}
"""CPU shares of one virtual CPU at each level; memory has a hundredth of it per MB."""


def created(config: VmConfig) -> dt.datetime:
    """When the machine was made."""
    return dt.datetime.fromisoformat(config.created)


def _allocation(given: t.Any, reservation: int, units: float) -> t.Any:
    level = str(given.shares.level) if given is not None and given.shares is not None else "normal"
    custom = given.shares.shares if level == "custom" else 0
    return make(
        vim.ResourceAllocationInfo,
        reservation=reservation,
        expandableReservation=False,
        limit=given.limit if given is not None and given.limit is not None else -1,
        shares=make(vim.SharesInfo, level=level, shares=custom or int(SHARES.get(level, 1000) * units)),
    )


def memory_allocation(config: VmConfig) -> t.Any:
    """ResourceAllocationInfo of the guest's memory, with its share level resolved."""
    return _allocation(config.settings.get("memoryAllocation"), config.reserved_mb, config.memory_mb / 100)


def cpu_allocation(config: VmConfig) -> t.Any:
    """ResourceAllocationInfo of the virtual CPUs, with its share level resolved."""
    given = config.settings.get("cpuAllocation")
    reservation = given.reservation if given is not None and given.reservation is not None else 0
    return _allocation(given, reservation, config.cpus)


def extra_config(config: VmConfig) -> list[t.Any]:
    """OptionValue of each key, as strings."""
    return [make(vim.option.OptionValue, key=key, value=value) for key, value in config.extra_config.items()]


def hardware(vm: VirtualMachine, made: VmConfig | None = None) -> t.Any:
    """VirtualHardware, as it is or as another configuration has it."""
    config = made or vm.config
    return make(
        vim.vm.VirtualHardware,
        numCPU=config.cpus,
        numCoresPerSocket=config.cores_per_socket,
        autoCoresPerSocket=False,
        memoryMB=config.memory_mb,
        virtualICH7MPresent=False,
        virtualSMCPresent=False,
        device=vm.device_list() if made is None else made.devices,
        motherboardLayout="i440bxHostBridge",
        simultaneousThreads=1,
    )


def _merged(base: t.Any, given: t.Any) -> t.Any:
    """Fields of `given` that are set, over `base`."""
    if given is None:
        return base
    return copy_of(base, **{key: value for key, value in vars(given).items() if value is not None and value != []})


@functools.cache
def _flags() -> t.Any:
    return make(
        vim.vm.FlagInfo,
        disableAcceleration=False,
        enableLogging=True,
        useToe=False,
        runWithDebugInfo=False,
        monitorType="release",
        htSharing="any",
        snapshotDisabled=False,
        snapshotLocked=False,
        diskUuidEnabled=False,
        virtualMmuUsage="automatic",
        virtualExecUsage="hvAuto",
        snapshotPowerOffBehavior="powerOff",
        recordReplayEnabled=False,
        faultToleranceType="unset",
        cbrcCacheEnabled=False,
        vvtdEnabled=False,
        vbsEnabled=False,
    )


@functools.cache
def _tools() -> t.Any:
    return make(
        vim.vm.ToolsConfigInfo,
        toolsVersion=2147483647,
        toolsInstallType="guestToolsTypeOpenVMTools",
        afterPowerOn=True,
        afterResume=True,
        beforeGuestStandby=True,
        beforeGuestShutdown=True,
        toolsUpgradePolicy="manual",
        syncTimeWithHostAllowed=True,
        syncTimeWithHost=False,
    )


@functools.cache
def _power_ops() -> t.Any:
    return make(
        vim.vm.DefaultPowerOpInfo,
        powerOffType="soft",
        suspendType="hard",
        resetType="soft",
        defaultPowerOffType="soft",
        defaultSuspendType="hard",
        defaultResetType="soft",
        standbyAction="checkpoint",
    )


@functools.cache
def _boot_options() -> t.Any:
    return make(
        vim.vm.BootOptions,
        bootDelay=0,
        enterBIOSSetup=False,
        efiSecureBootEnabled=False,
        bootRetryEnabled=False,
        bootRetryDelay=10000,
    )


def path_name(vm: VirtualMachine) -> str:
    """Datastore path of the machine's VMX file."""
    return f"[{vm.datastore.name}] {vm.directory}/{vm.directory}.{'vmtx' if vm.template else 'vmx'}"


def config(vm: VirtualMachine, other: VmConfig | None = None) -> t.Any:
    """VirtualMachineConfigInfo, as it is or as another configuration (with its devices) has it."""
    made = other or vm.config
    settings = made.settings
    folder = f"[{vm.datastore.name}] {vm.directory}"
    return make(
        vim.vm.ConfigInfo,
        changeVersion=made.change_version,
        modified=created(made),
        name=vm.name,
        guestFullName=GUEST_NAMES.get(made.guest_id, made.guest_id),
        guestId=made.guest_id,
        version=f"vmx-{made.hardware_version:02d}",
        uuid=made.uuid,
        instanceUuid=made.instance_uuid,
        createDate=created(made),
        template=vm.template,
        annotation=made.annotation,
        files=make(
            vim.vm.FileInfo,
            vmPathName=path_name(vm),
            snapshotDirectory=folder,
            suspendDirectory=folder,
            logDirectory=folder,
        ),
        tools=_merged(_tools(), settings.get("tools")),
        flags=_merged(_flags(), settings.get("flags")),
        defaultPowerOps=_merged(_power_ops(), settings.get("powerOpInfo")),
        hardware=hardware(vm, other),
        cpuAllocation=cpu_allocation(made),
        memoryAllocation=memory_allocation(made),
        memoryHotAddEnabled=made.memory_hot_add,
        cpuHotAddEnabled=made.cpu_hot_add,
        cpuHotRemoveEnabled=made.cpu_hot_remove,
        extraConfig=extra_config(made),
        datastoreUrl=[
            make(vim.vm.ConfigInfo.DatastoreUrlPair, name=store.name, url=store.url.removeprefix("ds://"))
            for store in vm.datastores
        ],
        firmware=made.firmware,
        memoryReservationLockedToMax=made.memory_locked,
        **{"swapPlacement": "inherit", "latencySensitivity": make(vim.LatencySensitivity, level="normal")}
        | {key: settings[key] for key in SETTINGS if key in settings}
        | {"bootOptions": _merged(_boot_options(), settings.get("bootOptions"))},
    )


def runtime(vm: VirtualMachine) -> t.Any:
    """VirtualMachineRuntimeInfo."""
    host = vm.host
    return make(
        vim.vm.RuntimeInfo,
        host=host.ref,
        connectionState="connected" if host.answers else "disconnected",
        powerState=vm.power,
        faultToleranceState="notConfigured",
        toolsInstallerMounted=False,
        bootTime=vm.boot_time,
        maxCpuUsage=vm.cpus * host.make.cpu_mhz if vm.is_on else None,
        maxMemoryUsage=vm.memory_mb,
        numMksConnections=0,
        recordReplayState="inactive",
        onlineStandby=False,
        consolidationNeeded=False,
        suspendInterval=0,
        cleanPowerOff=not vm.is_on,
    )


def address(vm: VirtualMachine) -> str:
    """The address that a made-up guest shows while it runs, made from the machine's id."""
    number = int(vm.moid.rsplit("-", 1)[-1])
    return f"10.{number >> 16 & 0xFF}.{number >> 8 & 0xFF}.{number & 0xFF}"


def _guest_values(vm: VirtualMachine) -> dict[str, t.Any]:
    full_name = GUEST_NAMES.get(vm.config.guest_id, vm.config.guest_id)
    host_name, ip_address = vm.inside or (None, None)
    up = vm.inside is not None
    return {
        "toolsStatus": "toolsOk" if up else "toolsNotRunning",
        "toolsVersionStatus2": "guestToolsUnmanaged",
        "toolsVersionStatus": "guestToolsUnmanaged",
        "toolsRunningStatus": "guestToolsRunning" if up else "guestToolsNotRunning",
        "guestId": vm.config.guest_id if up else None,
        "guestFullName": full_name if up else None,
        "hostName": host_name,
        "ipAddress": ip_address,
        "hwVersion": f"vmx-{vm.config.hardware_version:02d}",
    }


def guest(vm: VirtualMachine) -> t.Any:
    """GuestInfo: a guest with open-vm-tools; one that is made up is up as soon as the machine is."""
    nics = []
    up = vm.inside is not None
    if vm.inside is not None:
        cards = [device for device in vm.devices if isinstance(device, vim.vm.device.VirtualEthernetCard)]
        nics = [
            make(
                vim.vm.GuestInfo.NicInfo,
                network=getattr(card.backing, "deviceName", None),
                ipAddress=[vm.inside[1]] if card is cards[0] else [],
                macAddress=card.macAddress,
                connected=True,
                deviceConfigId=card.key,
            )
            for card in cards
        ]
    return make(
        vim.vm.GuestInfo,
        toolsVersion="12389",
        toolsInstallType="guestToolsTypeOpenVMTools",
        guestFamily="linuxGuest" if up else None,
        net=nics,
        guestState="running" if up else "notRunning",
        guestOperationsReady=up,
        interactiveGuestOperationsReady=False,
        guestStateChangeSupported=up,
        **_guest_values(vm),
    )


def summary(vm: VirtualMachine) -> t.Any:
    """VirtualMachineSummary."""
    made = vm.config
    full_name = GUEST_NAMES.get(made.guest_id, made.guest_id)
    device = vim.vm.device
    return make(
        vim.vm.Summary,
        vm=vm.ref,
        runtime=runtime(vm),
        guest=make(vim.vm.Summary.GuestSummary, **_guest_values(vm)),
        config=make(
            vim.vm.Summary.ConfigSummary,
            name=vm.name,
            template=vm.template,
            vmPathName=path_name(vm),
            memorySizeMB=made.memory_mb,
            cpuReservation=cpu_allocation(made).reservation,
            memoryReservation=made.reserved_mb,
            numCpu=made.cpus,
            numEthernetCards=sum(isinstance(d, device.VirtualEthernetCard) for d in vm.devices),
            numVirtualDisks=sum(isinstance(d, device.VirtualDisk) for d in vm.devices),
            uuid=made.uuid,
            instanceUuid=made.instance_uuid,
            guestId=made.guest_id,
            guestFullName=full_name,
            annotation=made.annotation,
            installBootRequired=False,
            tpmPresent=any(isinstance(d, device.VirtualTPM) for d in vm.devices),
            numVmiopBackings=sum(is_vgpu(d) for d in vm.devices),
            hwVersion=f"vmx-{made.hardware_version:02d}",
            managedBy=made.settings.get("managedBy"),
        ),
        storage=make(
            vim.vm.Summary.StorageSummary,
            committed=vm.disk_bytes,
            uncommitted=0,
            unshared=vm.disk_bytes,
            timestamp=created(made),
        ),
        quickStats=make(
            vim.vm.Summary.QuickStats,
            **_cpu_stats(vm),
            guestMemoryUsage=vm.memory_mb // 10 if vm.is_on else 0,
            hostMemoryUsage=vm.memory_mb if vm.is_on else 0,
            guestHeartbeatStatus="green" if vm.inside is not None else "gray",
            uptimeSeconds=0 if vm.boot_time is None else int((vm.world.clock.now() - vm.boot_time).total_seconds()),
        ),
        overallStatus="green",
        customValue=[
            make(vim.CustomFieldsManager.StringValue, key=key, value=value)
            for key, value in sorted(vm.custom_values.items())
        ],
    )


def _cpu_stats(vm: VirtualMachine) -> dict[str, int]:
    """What it asks for, may have by its reservation, limit and shares, and gets, in MHz."""
    usage = vm.site.load.now(vm)
    used = round(usage.used)
    return {"overallCpuUsage": used, "overallCpuDemand": round(usage.demand), "distributedCpuEntitlement": used}


def resource_config(vm: VirtualMachine) -> t.Any:
    """ResourceConfigSpec of the machine in its pool."""
    return make(
        vim.ResourceConfigSpec,
        entity=vm.ref,
        changeVersion=vm.config.change_version,
        cpuAllocation=cpu_allocation(vm.config),
        memoryAllocation=memory_allocation(vm.config),
    )


def storage(vm: VirtualMachine) -> t.Any:
    """VirtualMachineStorageInfo, all of it on the machine's first datastore."""
    usage = make(
        vim.vm.StorageInfo.UsageOnDatastore,
        datastore=vm.datastore.ref,
        committed=vm.disk_bytes,
        uncommitted=0,
        unshared=vm.disk_bytes,
    )
    return make(vim.vm.StorageInfo, perDatastoreUsage=[usage], timestamp=created(vm.config))


def layout(vm: VirtualMachine) -> t.Any:
    """VirtualMachineFileLayoutEx: the configuration file and the disks."""
    disks = [d for d in vm.devices if isinstance(d, vim.vm.device.VirtualDisk)]
    files = [("config", path_name(vm), 4096)]
    files += [("diskDescriptor", disk.backing.fileName, disk.capacityInKB * 1024) for disk in disks]
    return make(
        vim.vm.FileLayoutEx,
        file=[
            make(
                vim.vm.FileLayoutEx.FileInfo, key=key, name=name, type=kind, size=size, uniqueSize=size, accessible=True
            )
            for key, (kind, name, size) in enumerate(files)
        ],
        disk=[
            make(
                vim.vm.FileLayoutEx.DiskLayout,
                key=disk.key,
                chain=[make(vim.vm.FileLayoutEx.DiskUnit, fileKey=[number])],
            )
            for number, disk in enumerate(disks, start=1)
        ],
        timestamp=created(vm.config),
    )


@functools.cache
def capability() -> t.Any:
    """VirtualMachineCapability of hardware versions 17 and later; shared, nobody may change it."""
    names = [info.name for info in vim.vm.Capability._GetPropertyList() if info.type is bool]
    off = {
        "vmNpivWwnSupported",
        "npivWwnOnNonRdmVmSupported",
        "recordReplaySupported",
        "sevSupported",
        "sevSnpSupported",
    }
    return make(vim.vm.Capability, **{name: name not in off for name in names if not name.startswith("dynamic")})
