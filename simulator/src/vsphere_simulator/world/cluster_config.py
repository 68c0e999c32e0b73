"""Reconfiguring a cluster: DRS and HA."""

from __future__ import annotations

import dataclasses
import typing as t

from vsphere_simulator.vmomi import DataObject, make, vim, vmodl
from vsphere_simulator.world.devices import copy_of
from vsphere_simulator.world.devices import given as set_fields
from vsphere_simulator.world.entity import invalid_argument
from vsphere_simulator.world.rules import LISTS, Rules

if t.TYPE_CHECKING:
    from vsphere_simulator.kernel.objects import Context
    from vsphere_simulator.kernel.tasks import TaskControl
    from vsphere_simulator.world.compute import Cluster, DrsSettings

BEHAVIOURS: t.Final = ("manual", "partiallyAutomated", "fullyAutomated")
_DRS_FIELDS: t.Final = frozenset({"enabled", "defaultVmBehavior", "enableVmBehaviorOverrides", "vmotionRate", "option"})


def start(ctx: Context, cluster: Cluster, spec: t.Any, *, modify: bool) -> t.Any:
    """Start the task; NotSupported for a part of a cluster's configuration that the simulator does not have.

    Turning DRS off removes the cluster's resource pools; their machines are in its own pool then.
    """
    check(spec)

    async def body(control: TaskControl) -> None:
        await control.work(1.0, steps=1)
        apply(cluster, spec, modify=modify)

    return ctx.world.start_task(cluster, "ComputeResource.reconfigureEx", body, ctx.session)


def check(spec: t.Any) -> None:
    """Raise NotSupported for a part of a cluster's configuration that the simulator does not have."""
    given = {key: value for key, value in set_fields(spec).items() if not _says_nothing(value)}
    proactive = given.pop("proactiveDrsConfig", None)
    if proactive is not None and proactive.enabled:
        raise vmodl.fault.NotSupported(msg="The operation is not supported: clusterConfigSpec.proactiveDrsConfig")
    for key in given.keys() - {"drsConfig", "dasConfig", *LISTS}:
        raise vmodl.fault.NotSupported(msg=f"The operation is not supported: clusterConfigSpec.{key}")
    if "drsConfig" in given and (unknown := sorted(set_fields(spec.drsConfig).keys() - _DRS_FIELDS)):
        raise vmodl.fault.NotSupported(msg=f"The operation is not supported: drsConfig.{unknown[0]}")


def _says_nothing(value: t.Any) -> bool:
    """Whether a part of a specification is there without a field that is set, as some clients send it."""
    return isinstance(value, DataObject) and all(_says_nothing(one) for one in set_fields(value).values())


def apply(cluster: Cluster, spec: t.Any, *, modify: bool) -> None:
    """Change the configuration; nothing is changed when the specification is wrong."""
    fresh = type(cluster.drs)()
    drs = _drs(cluster.drs if modify else fresh, spec.drsConfig)
    das = _das(cluster.das if modify else no_das(), spec.dasConfig)
    rules = (cluster.rules if modify else Rules(cluster)).changed(spec)
    cluster.drs, cluster.das, cluster.rules = drs, das, rules
    if not drs.enabled:
        cluster.pool.destroy_children()
    cluster.world.changed(cluster, "configurationEx", "configuration", "summary")
    for host in cluster.hosts.values():
        host.machines_changed.fire()


def _drs(now: DrsSettings, given: t.Any) -> DrsSettings:
    if given is None:
        return now
    options = dict(now.options)
    for option in given.option or ():
        if option.value in (None, ""):
            options.pop(option.key, None)
        else:
            options[option.key] = str(option.value)
    changes: dict[str, t.Any] = {"options": options}
    for key, field in {
        "enabled": "enabled",
        "enableVmBehaviorOverrides": "overrides",
        "vmotionRate": "vmotion_rate",
    }.items():
        if getattr(given, key) is not None:
            changes[field] = getattr(given, key)
    if given.defaultVmBehavior is not None:
        if given.defaultVmBehavior not in BEHAVIOURS:
            raise invalid_argument("spec.drsConfig.defaultVmBehavior")
        changes["automation"] = str(given.defaultVmBehavior)
    if not 1 <= changes.get("vmotion_rate", now.vmotion_rate) <= 5:
        raise invalid_argument("spec.drsConfig.vmotionRate")
    return dataclasses.replace(now, **changes)


def no_das() -> t.Any:
    """HA as a new cluster has it: off."""
    monitoring = make(
        vim.cluster.VmToolsMonitoringSettings,
        enabled=False,
        vmMonitoring="vmMonitoringDisabled",
        clusterSettings=True,
        failureInterval=30,
        minUpTime=120,
        maxFailures=3,
        maxFailureWindow=3600,
    )
    protection = make(
        vim.cluster.VmComponentProtectionSettings,
        vmStorageProtectionForAPD="disabled",
        enableAPDTimeoutForHosts=True,
        vmTerminateDelayForAPDSec=180,
        vmReactionOnAPDCleared="none",
        vmStorageProtectionForPDL="disabled",
    )
    return make(
        vim.cluster.DasConfigInfo,
        enabled=False,
        vmMonitoring="vmMonitoringDisabled",
        hostMonitoring="enabled",
        vmComponentProtecting="disabled",
        failoverLevel=1,
        admissionControlPolicy=make(vim.cluster.FailoverLevelAdmissionControlPolicy, failoverLevel=1),
        admissionControlEnabled=False,
        defaultVmSettings=make(
            vim.cluster.DasVmSettings,
            restartPriority="medium",
            restartPriorityTimeout=600,
            isolationResponse="none",
            vmToolsMonitoringSettings=monitoring,
            vmComponentProtectionSettings=protection,
        ),
        hBDatastoreCandidatePolicy="allFeasibleDsWithUserPreference",
    )


def _das(now: t.Any, given: t.Any) -> t.Any:
    """HA with the fields that are given; advanced options are merged by key, an empty value removes one."""
    if given is None:
        return now
    fields = set_fields(given)
    if "option" in fields:
        options = {option.key: option for option in now.option} | {option.key: option for option in given.option}
        kept = [option for option in options.values() if option.value not in (None, "")]
        fields["option"] = type(given.option)(kept)
    if "defaultVmSettings" in fields:
        fields["defaultVmSettings"] = _merged(now.defaultVmSettings, fields["defaultVmSettings"])
    return copy_of(now, **fields)


def _merged(now: t.Any, given: t.Any) -> t.Any:
    """The fields of a data object that are given over those that were, and so in the data objects in it."""
    if now is None or type(now) is not type(given):
        return given
    fields = set_fields(given)
    return copy_of(
        now, **{k: _merged(getattr(now, k), v) if isinstance(v, DataObject) else v for k, v in fields.items()}
    )
