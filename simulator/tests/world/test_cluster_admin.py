"""Clusters and hosts that come and go, rules, overrides, and placement, at the wire."""

from __future__ import annotations

import typing as t

import pytest
from pyVim.task import WaitForTask
from pyVmomi import vim, vmodl

if t.TYPE_CHECKING:
    import pathlib
    from collections.abc import Callable

MODEL = """
datacenter: dc
datastores: [{name: ds}]
networks: [{name: net}]
clusters:
  - name: a
    drs: {automation: fullyAutomated}
    hosts: [{name: h-1}, {name: h-2}]
  - name: b
    hosts: [{name: h-3, gpus: [{gpu: V100-32, passthrough: true}]}]
bare_hosts: [{name: new}]
vms:
  - {name: v-1, host: h-1, power: "on"}
  - {name: v-2, host: h-1}
"""


def connect(name: str, **changes: t.Any) -> t.Any:
    return vim.host.ConnectSpec(**{"hostName": name, "userName": "root", "password": "x", "force": True} | changes)


def result(task: t.Any) -> t.Any:
    WaitForTask(task)
    return task.info.result


def enter_maintenance(host: t.Any) -> None:
    WaitForTask(host.EnterMaintenanceMode_Task(timeout=20))


def reconfigure(cluster: t.Any, **fields: t.Any) -> None:
    WaitForTask(cluster.ReconfigureEx(spec=vim.cluster.ConfigSpecEx(**fields), modify=True))


def test_a_cluster_is_made_and_deleted(serve: Callable[..., t.Any]) -> None:
    served = serve(MODEL)
    folder = served.find("dc/host")
    spec = vim.cluster.ConfigSpecEx(drsConfig=vim.cluster.DrsConfigInfo(enabled=True, defaultVmBehavior="manual"))
    cluster = folder.CreateClusterEx(name="made", spec=spec)
    assert (cluster.configurationEx.drsConfig.enabled, cluster.configurationEx.dasConfig.enabled) == (True, False)
    assert cluster.resourcePool.owner == cluster
    with pytest.raises(vim.fault.DuplicateName):
        folder.CreateClusterEx(name="made", spec=vim.cluster.ConfigSpecEx())
    with pytest.raises(vmodl.fault.NotSupported):
        served.find("dc/vm").CreateClusterEx(name="x", spec=vim.cluster.ConfigSpecEx())
    WaitForTask(cluster.Destroy_Task())
    assert served.find("dc/host/made") is None
    with pytest.raises(vim.fault.InvalidState):
        WaitForTask(served.find("dc/host/b").Destroy_Task())


def test_a_host_moves_between_clusters_only_in_maintenance_mode(serve: Callable[..., t.Any]) -> None:
    served = serve(MODEL)
    a, b, host = served.find("dc/host/a"), served.find("dc/host/b"), served.find("dc/host/a/h-1")
    with pytest.raises(vim.fault.InvalidState):
        WaitForTask(b.MoveInto_Task(host=[host]))
    enter_maintenance(host)
    WaitForTask(b.MoveInto_Task(host=[host]))
    assert host.parent == b
    assert [one.name for one in a.host] == ["h-2"]
    assert b.summary.numHosts == 2
    assert {vm.resourcePool for vm in host.vm} <= {b.resourcePool}
    with pytest.raises(vmodl.fault.InvalidArgument):
        WaitForTask(b.MoveInto_Task(host=[host]))


def test_a_host_stands_alone_and_goes_back(serve: Callable[..., t.Any]) -> None:
    served = serve(MODEL)
    host, folder = served.find("dc/host/b/h-3"), served.find("dc/host")
    with pytest.raises(vim.fault.InvalidState):
        WaitForTask(folder.MoveIntoFolder_Task(list=[host]))
    enter_maintenance(host)
    WaitForTask(folder.MoveIntoFolder_Task(list=[host]))
    alone = host.parent
    assert (type(alone), alone.name, alone.parent) == (vim.ComputeResource, "h-3", folder)
    assert alone.summary.numHosts == 1
    WaitForTask(served.find("dc/host/a").MoveInto_Task(host=[host]))
    assert host.parent.name == "a"
    assert served.find("dc/host/h-3") is None


def test_a_host_leaves_the_inventory_and_comes_back_as_it_was(serve: Callable[..., t.Any]) -> None:
    served = serve(MODEL)
    cluster, host = served.find("dc/host/b"), served.find("dc/host/b/h-3")
    uuid = host.hardware.systemInfo.uuid
    with pytest.raises(vim.fault.InvalidState):
        WaitForTask(host.Destroy_Task())
    enter_maintenance(host)
    WaitForTask(host.Destroy_Task())
    with pytest.raises(vmodl.fault.ManagedObjectNotFound):
        _ = host.name
    again = result(cluster.AddHost_Task(spec=connect("h-3"), asConnected=True))
    assert again.hardware.systemInfo.uuid == uuid
    assert again.runtime.inMaintenanceMode
    assert any(one.passthruActive for one in again.config.pciPassthruInfo if isinstance(one, vim.host.PciPassthruInfo))


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"hostName": "nowhere"}, vim.fault.NoHost),
        ({"hostName": "h-1"}, vim.fault.AlreadyConnected),
        ({"password": ""}, vim.fault.InvalidLogin),
        ({"force": False}, vim.fault.SSLVerifyFault),
        ({"force": False, "sslThumbprint": "00:11"}, vim.fault.SSLVerifyFault),
    ],
)
def test_a_host_that_cannot_be_added_says_why(
    serve: Callable[..., t.Any], changes: dict[str, t.Any], fault: type[Exception]
) -> None:
    cluster = serve(MODEL).find("dc/host/b")
    with pytest.raises(fault):
        WaitForTask(cluster.AddHost_Task(spec=connect("new", **changes), asConnected=True))
    assert len(cluster.host) == 1


def test_hosts_are_where_they_were_after_a_restart(serve: Callable[..., t.Any], tmp_path: pathlib.Path) -> None:
    options = ("--state", str(tmp_path / "state.json"))
    served = serve(MODEL, *options)
    folder, host = served.find("dc/host"), served.find("dc/host/b/h-3")
    alone = result(folder.AddStandaloneHost_Task(spec=connect("new"), addConnected=True))
    services = alone.host[0].configManager.serviceSystem
    services.StartService(id="ntpd")
    enter_maintenance(host)
    WaitForTask(host.Destroy_Task())
    served.stop()

    again = serve(MODEL, *options)
    new = again.find("dc/host/new/new")
    running = {one.key: one.running for one in new.configManager.serviceSystem.serviceInfo.service}
    assert (running["ntpd"], running["TSM-SSH"]) == (True, False)
    assert again.find("dc/host/b/h-3") is None
    back = result(again.find("dc/host/b").AddHost_Task(spec=connect("h-3"), asConnected=True))
    assert back.runtime.inMaintenanceMode


def group(operation: str, info: t.Any) -> t.Any:
    return vim.cluster.GroupSpec(operation=operation, info=info)


def rule(info: t.Any, operation: str = "add") -> t.Any:
    return vim.cluster.RuleSpec(operation=operation, info=info)


def bind(served: t.Any, host: str) -> None:
    """Let v-1 and v-2 run on one host only."""
    cluster, machines = served.find("dc/host/a"), [served.find("dc/vm/v-1"), served.find("dc/vm/v-2")]
    binding = vim.cluster.VmHostRuleInfo(
        name="bound", enabled=True, mandatory=True, vmGroupName="vms", affineHostGroupName="hosts"
    )
    reconfigure(
        cluster,
        groupSpec=[
            group("add", vim.cluster.VmGroup(name="vms", vm=machines)),
            group("add", vim.cluster.HostGroup(name="hosts", host=[served.find(f"dc/host/a/{host}")])),
        ],
        rulesSpec=[rule(binding)],
    )


def test_a_binding_rule_keeps_machines_off_hosts(serve: Callable[..., t.Any], tmp_path: pathlib.Path) -> None:
    options = ("--state", str(tmp_path / "state.json"))
    served = serve(MODEL, *options)
    bind(served, "h-2")
    cluster = served.find("dc/host/a")
    shown = cluster.configurationEx.rule[0]
    assert (shown.name, shown.inCompliance, shown.userCreated, bool(shown.ruleUuid)) == ("bound", False, True, True)
    with pytest.raises(vim.fault.VmHostAffinityRuleViolation):
        WaitForTask(served.find("dc/vm/v-2").PowerOn())
    assert [one.key for one in cluster.FindRulesForVm(served.find("dc/vm/v-2"))] == [shown.key]
    served.stop()
    again = serve(MODEL, *options)
    cluster = again.find("dc/host/a")
    assert {one.name for one in cluster.configurationEx.group} == {"vms", "hosts"}
    reconfigure(cluster, groupSpec=[vim.cluster.GroupSpec(operation="remove", removeKey="hosts")])
    assert list(cluster.configurationEx.rule) == []
    WaitForTask(again.find("dc/vm/v-2").PowerOn())


def test_wrong_rules_change_nothing(serve: Callable[..., t.Any]) -> None:
    served = serve(MODEL)
    cluster, vm = served.find("dc/host/a"), served.find("dc/vm/v-1")
    wrong = [
        {"rulesSpec": [rule(vim.cluster.AffinityRuleSpec(name="alone", enabled=True, vm=[vm]))]},
        {"rulesSpec": [vim.cluster.RuleSpec(operation="remove", removeKey=7)]},
        {"rulesSpec": [rule(vim.cluster.VmHostRuleInfo(name="x", vmGroupName="no", affineHostGroupName="no"))]},
        {"groupSpec": [group("add", vim.cluster.HostGroup(name="g", host=[served.find("dc/host/b/h-3")]))]},
        {"groupSpec": [group("edit", vim.cluster.VmGroup(name="g", vm=[vm]))]},
        {"drsVmConfigSpec": [vim.cluster.DrsVmConfigSpec(operation="remove", removeKey=vm)]},
    ]
    for fields in wrong:
        with pytest.raises(vmodl.fault.InvalidArgument):
            reconfigure(cluster, **fields)
    shown = cluster.configurationEx
    assert [list(shown.rule), list(shown.group), list(shown.drsVmConfig)] == [[], [], []]


def test_an_override_keeps_drs_from_moving_a_machine(serve: Callable[..., t.Any]) -> None:
    served = serve(MODEL)
    cluster, host, vm = served.find("dc/host/a"), served.find("dc/host/a/h-1"), served.find("dc/vm/v-1")
    override = vim.cluster.DrsVmConfigInfo(key=vm, enabled=True, behavior="manual")
    reconfigure(cluster, drsVmConfigSpec=[vim.cluster.DrsVmConfigSpec(operation="add", info=override)])
    with pytest.raises(vim.fault.Timedout):
        WaitForTask(host.EnterMaintenanceMode_Task(timeout=1))
    reconfigure(cluster, drsVmConfigSpec=[vim.cluster.DrsVmConfigSpec(operation="remove", removeKey=vm)])
    enter_maintenance(host)
    assert vm.runtime.host.name == "h-2"


def test_placement_names_the_hosts_that_fit_the_best_first(serve: Callable[..., t.Any]) -> None:
    served = serve(MODEL)
    cluster, vm = served.find("dc/host/a"), served.find("dc/vm/v-2")
    spec = vim.cluster.PlacementSpec(vm=vm, placementType="relocate")
    found = cluster.PlaceVm(spec).recommendations
    assert [one.action[0].targetHost.name for one in found] == ["h-2", "h-1"]
    assert found[0].action[0].relocateSpec.host.name == "h-2"
    new = vim.vm.ConfigSpec(name="n", numCPUs=1, memoryMB=2048 * 1024, files=vim.vm.FileInfo(vmPathName="[ds]"))
    none = cluster.PlaceVm(vim.cluster.PlacementSpec(configSpec=new, placementType="create"))
    assert list(none.recommendations) == []
    assert isinstance(none.drsFault.faultsByVm[0].fault[0], vim.fault.InsufficientMemoryResourcesFault)
    reconfigure(cluster, drsConfig=vim.cluster.DrsConfigInfo(enabled=False))
    with pytest.raises(vim.fault.InvalidState):
        cluster.PlaceVm(spec)
