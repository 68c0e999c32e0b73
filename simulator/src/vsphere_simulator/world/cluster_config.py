"""Reconfiguring a cluster: DRS and HA."""

from __future__ import annotations

import dataclasses
import typing as t

from vsphere_simulator.vmomi import make, vim, vmodl
from vsphere_simulator.world.devices import copy_of
from vsphere_simulator.world.devices import given as set_fields
from vsphere_simulator.world.entity import invalid_argument

if t.TYPE_CHECKING:
    from vsphere_simulator.kernel.objects import Context
    from vsphere_simulator.kernel.tasks import TaskControl
    from vsphere_simulator.world.compute import Cluster, DrsSettings

BEHAVIOURS: t.Final = ("manual", "partiallyAutomated", "fullyAutomated")
_DRS_FIELDS: t.Final = frozenset({"enabled", "defaultVmBehavior", "enableVmBehaviorOverrides", "vmotionRate", "option"})


def start(ctx: Context, cluster: Cluster, spec: t.Any, *, modify: bool) -> t.Any:
    """Start the task; NotSupported for a part of a cluster's configuration that the simulator does not have."""
    given = set_fields(spec)
    for key in given.keys() - {"drsConfig", "dasConfig"}:
        raise vmodl.fault.NotSupported(msg=f"The operation is not supported: clusterConfigSpec.{key}")
    if "drsConfig" in given and (unknown := sorted(set_fields(spec.drsConfig).keys() - _DRS_FIELDS)):
        raise vmodl.fault.NotSupported(msg=f"The operation is not supported: drsConfig.{unknown[0]}")

    async def body(control: TaskControl) -> None:
        await control.work(1.0, steps=1)
        fresh = type(cluster.drs)()
        drs = _drs(cluster.drs if modify else fresh, spec.drsConfig)
        das = _das(cluster.das if modify else no_das(), spec.dasConfig)
        cluster.drs, cluster.das = drs, das
        cluster.world.changed(cluster, "configurationEx", "configuration", "summary")
        for host in cluster.hosts.values():
            host.machines_changed.fire()

    return ctx.world.start_task(cluster, "ComputeResource.reconfigureEx", body, ctx.session)


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
    return make(
        vim.cluster.DasConfigInfo,
        enabled=False,
        vmMonitoring="vmMonitoringDisabled",
        hostMonitoring="enabled",
        vmComponentProtecting="disabled",
        failoverLevel=1,
        admissionControlEnabled=False,
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
    return copy_of(now, **fields)
