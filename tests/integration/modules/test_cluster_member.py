# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere import reads
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.client import Client
from ansible_collections.gpuops.vsphere.plugins.modules import cluster_member, esxi_maintenance, gpu_plan
from gpu_vms import machine, vcenter_connection
from in_process import CrashError, Fuse, options, run, step
from pyVim.task import WaitForTask
from pyVmomi import vim
from simulated import BIN, TOP, StartVcenter, Vcenter, environment, fleet, wait_for

ONE, TWO = "esx-001.lab", "esx-002.lab"


def two_clusters(hosts: int = 2, **more: Any) -> dict[str, Any]:
    model = fleet(hosts, **more)
    model["clusters"].append({"name": "spare", "hosts": []})
    return model


def clusters(vcenter: Vcenter) -> dict[str, str]:
    """Name of the compute resource by host."""
    with vcenter_connection(vcenter) as content:
        view = content.viewManager.CreateContainerView(content.rootFolder, [vim.HostSystem], True)
        return {host.name: host.parent.name for host in view.view}


def disconnect(vcenter: Vcenter, name: str) -> None:
    with vcenter_connection(vcenter) as content:
        view = content.viewManager.CreateContainerView(content.rootFolder, [vim.HostSystem], True).view
        WaitForTask(next(item for item in view if item.name == name).DisconnectHost_Task())


def test_out_of_the_cluster_into_another_and_out_of_the_vcenter(start_vcenter: StartVcenter) -> None:
    vcenter = start_vcenter(two_clusters())
    both = [{"name": ONE}, {"name": TWO}]
    refused = vcenter.fails("cluster_member", hosts=both, state="standalone")
    assert refused["failure"]["code"] == "not_in_maintenance"
    vcenter.ok("esxi_maintenance", hosts=[ONE, TWO])

    planned = vcenter.ok("cluster_member", hosts=both, state="standalone", check=True, diff=True)
    assert planned["objects"][ONE]["actions"] == ["move cluster (out of gpu)"]
    assert planned["predicted"]["hosts"][ONE] == {"cluster": None, "intent": None}
    assert clusters(vcenter) == {ONE: "gpu", TWO: "gpu"}
    done = vcenter.ok("cluster_member", hosts=both, state="standalone")
    assert done["objects"][ONE]["actions"] == planned["objects"][ONE]["actions"]
    assert clusters(vcenter) == {ONE: ONE, TWO: TWO}
    assert vcenter.host(ONE)["intent"] is None
    assert not vcenter.ok("cluster_member", hosts=both, state="standalone")["changed"]

    joined = vcenter.ok("cluster_member", hosts=[{"name": ONE, "cluster": "spare"}, {"name": TWO}], cluster="gpu")
    assert joined["changed"]
    assert clusters(vcenter) == {ONE: "spare", TWO: "gpu"}
    assert not vcenter.ok("cluster_member", hosts=[{"name": ONE}], cluster="spare")["changed"]


@pytest.mark.parametrize("standalone", [False, True])
def test_removed_hosts_are_gone_and_stay_gone(start_vcenter: StartVcenter, standalone: bool) -> None:
    vcenter = start_vcenter(two_clusters())
    vcenter.ok("esxi_maintenance", hosts=[ONE])
    if standalone:
        vcenter.ok("cluster_member", hosts=[{"name": ONE}], state="standalone")
        assert vcenter.ok("cluster_member", hosts=[{"name": ONE}], state="removed")["objects"][ONE]["left_alone"]
        return
    done = vcenter.ok("cluster_member", hosts=[{"name": ONE}], state="removed")
    assert done["objects"][ONE]["actions"] == ["disconnect host", "remove host (out of the vCenter)"]
    assert clusters(vcenter) == {TWO: "gpu"}
    assert not vcenter.ok("cluster_member", hosts=[{"name": ONE}], state="removed")["changed"]


def test_machines_in_the_way_and_wrong_names_are_named(start_vcenter: StartVcenter) -> None:
    vcenter = start_vcenter(two_clusters(vms=[machine("left", power="off"), machine("runs", TWO, power="on")]))
    vcenter.ok("esxi_maintenance", hosts=[ONE])
    refused = vcenter.fails("cluster_member", hosts=[{"name": ONE}, {"name": TWO}], state="standalone")
    assert "1 virtual machines are still registered on it: left" in refused["objects"][ONE]["msg"]
    assert "It runs runs" in refused["objects"][TWO]["msg"]
    own = {"name": ONE, "keep_vms": False}
    refused = vcenter.fails("cluster_member", hosts=[own], state="standalone", keep_vms=True)
    assert refused["failure"]["code"] == "vms_in_the_way"
    assert vcenter.ok("cluster_member", hosts=[{"name": ONE}], state="standalone", keep_vms=True)["changed"]
    wrong = vcenter.fails("cluster_member", hosts=[{"name": TWO}], cluster="spaer")
    assert wrong["failure"]["code"] == "cluster_not_found"
    assert "Did you mean spare?" in wrong["msg"]
    assert "Did you mean" in vcenter.fails("cluster_member", hosts=[{"name": "esx-02.lab"}], cluster="gpu")["msg"]
    assert "none is named" in vcenter.fails("cluster_member", hosts=[{"name": TWO}])["msg"]


@pytest.mark.parametrize(("keeping", "staying"), [(ONE, TWO), (TWO, ONE)], ids=["the first", "the second"])
def test_the_role_lets_only_the_hosts_keep_machines_that_are_told_so(
    start_vcenter: StartVcenter, tmp_path: Path, keeping: str, staying: str
) -> None:
    vcenter = start_vcenter(two_clusters(vms=[machine("one", power="off"), machine("two", TWO, power="off")]))
    vcenter.ok("esxi_maintenance", hosts=[ONE, TWO])
    inventory = tmp_path / "hosts.json"
    inventory.write_text(json.dumps({"all": {"hosts": {keeping: {"cluster_member_keep_vms": True}, staying: {}}}}))
    playbook = tmp_path / "play.yml"
    play = {
        "hosts": "all",
        "order": "sorted",
        "connection": "local",
        "gather_facts": False,
        "vars": {"ansible_python_interpreter": "{{ ansible_playbook_python }}", "cluster_member_state": "removed"},
        "module_defaults": {"group/gpuops.vsphere.vsphere": vcenter.options()},
        "roles": ["gpuops.vsphere.cluster_member"],
    }
    playbook.write_text(json.dumps([play]))
    ran = subprocess.run(
        [str(BIN / "ansible-playbook"), "-i", str(inventory), str(playbook)],
        cwd=TOP,
        env=environment(ANSIBLE_LOCAL_TEMP=str(tmp_path / "tmp")),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ran.returncode == 2, ran.stdout + ran.stderr
    assert "1 virtual machines are still registered on it" in ran.stdout
    assert clusters(vcenter) == {staying: "gpu"}


def test_somebody_else_s_maintenance_mode_is_left_alone(start_vcenter: StartVcenter) -> None:
    vcenter = start_vcenter(two_clusters())
    with vcenter_connection(vcenter) as content:
        view = content.viewManager.CreateContainerView(content.rootFolder, [vim.HostSystem], True).view
        host = next(item for item in view if item.name == ONE)
        WaitForTask(host.EnterMaintenanceMode_Task(0, False))
    result = vcenter.ok("cluster_member", hosts=[{"name": ONE}], state="standalone")
    assert result["objects"][ONE]["left_alone"]
    assert clusters(vcenter)[ONE] == "gpu"


@pytest.mark.parametrize("state", ["standalone", "removed", "member"])
def test_what_a_killed_run_brings_about_meanwhile_is_no_failure(start_vcenter: StartVcenter, state: str) -> None:
    vcenter = start_vcenter(two_clusters(1))
    vcenter.ok("esxi_maintenance", hosts=[ONE])
    cluster = "spare" if state == "member" else None
    wanted = {"hosts": [{"name": ONE, "cluster": cluster}], "state": state, "cluster": None, "keep_vms": False}
    params = {"timeout": 60, "max_parallel": 1, "assume": {"hosts": {}, "vms": {}}, **wanted}
    with Client.open(options(vcenter)) as client:
        facts = cluster_member.read(client, params)
        planned = cluster_member.plan(facts, params)
        step(vcenter, cluster_member, **wanted)  # the task that the killed run had asked for ends only now
        done = cluster_member.apply(client, facts, planned, params)
    assert done[ONE].problems == ()
    assert step(vcenter, cluster_member, **wanted).todo == ()


def test_a_host_that_goes_while_it_is_read_is_read_as_gone(
    start_vcenter: StartVcenter, monkeypatch: pytest.MonkeyPatch
) -> None:
    vcenter = start_vcenter(two_clusters())
    vcenter.ok("esxi_maintenance", hosts=[ONE])
    find_names, gone = reads.find_names, []

    def find_and_lose(client: Client, kind: type) -> Any:
        rows = find_names(client, kind)
        if not gone:
            gone.append(ONE)
            with vcenter_connection(vcenter) as content:
                view = content.viewManager.CreateContainerView(content.rootFolder, [vim.HostSystem], True).view
                WaitForTask(next(item for item in view if item.name == ONE).Destroy_Task())
        return rows

    monkeypatch.setattr(reads, "find_names", find_and_lose)
    with Client.open(options(vcenter)) as client:
        found = reads.read_hosts(client, [ONE, TWO])
    assert list(found) == [TWO]
    assert ONE not in found.known


@pytest.mark.parametrize("hosts", [1, 10, 100])
def test_requests_grow_with_nothing_but_the_moves(start_vcenter: StartVcenter, hosts: int) -> None:
    vcenter = start_vcenter(two_clusters(hosts))
    names = [f"esx-{number:03}.lab" for number in range(1, hosts + 1)]
    vcenter.ok("esxi_maintenance", hosts=names)
    vcenter.reset_counts()
    vcenter.ok("cluster_member", hosts=[{"name": name} for name in names], cluster="spare")
    counts = vcenter.counts()
    assert counts["logins"] == 0
    assert counts["requests"].pop("MoveHostInto_Task") == hosts
    assert counts["requests"].pop("RetrievePropertiesEx") == 3
    for method in ("ContinueRetrievePropertiesEx", "WaitForUpdatesEx"):
        counts["requests"].pop(method, None)  # pages, and as often as the vCenter has news
    assert counts["requests"] == {
        "RetrieveServiceContent": 1, "CreatePropertyCollector": 1, "CreateContainerView": 2, "CreateFilter": 1,
        "DestroyPropertyFilter": 1, "DestroyView": 2, "DestroyPropertyCollector": 1,
    }  # fmt: skip


@pytest.mark.parametrize("state", ["standalone", "removed", "member"])
def test_every_crash_is_finished_by_the_next_run(
    start_vcenter: StartVcenter, monkeypatch: pytest.MonkeyPatch, state: str
) -> None:
    """Each host is moved by a run that dies after one call more than the one before, and by a second run."""
    vcenter = start_vcenter(two_clusters(40, timings={"maintenance": 0.1}))
    fuse = Fuse(monkeypatch)
    names: list[str] = []
    crashed = True

    def converge(name: str) -> bool:
        entry = {"name": name, "cluster": "spare" if state == "member" else None}
        wanted = {"hosts": [entry], "state": state, "cluster": None, "keep_vms": False}
        return bool(step(vcenter, cluster_member, **wanted).todo)

    while crashed:  # until the fuse is longer than the whole work
        names.append(f"esx-{len(names) + 1:03}.lab")
        step(vcenter, esxi_maintenance, hosts=[names[-1]], state="entered")
        fuse.calls, fuse.limit = 0, len(names)
        try:
            converge(names[-1])
            crashed = False
        except CrashError:
            fuse.limit = None
            converge(names[-1])
        fuse.limit = None
        assert converge(names[-1]) is False, f"after call {len(names)}"
    assert len(names) > 8
    where = clusters(vcenter)
    wanted = {"standalone": lambda name: name, "removed": lambda _name: None, "member": lambda _name: "spare"}[state]
    assert {name: where.get(name) for name in names} == {name: wanted(name) for name in names}
    with vcenter_connection(vcenter) as content:
        view = content.viewManager.CreateContainerView(content.rootFolder, [vim.HostSystem], True).view
        marked = {host.name for host in view if any(value.value for value in host.customValue)}
    assert marked == (set(names) if state == "member" else set())


def tasks_end(vcenter: Vcenter) -> None:
    with vcenter_connection(vcenter) as content:
        manager = content.taskManager
        wait_for(lambda: all(task.info.completeTime for task in manager.recentTask), "no task goes on")


def contract(vcenter: Vcenter, *names: str) -> list[str]:
    """What contract.yml does to hosts that are to leave the vCenter; those that its plan names."""
    planned = step(vcenter, gpu_plan, action="contract", retiring=list(names), leave_as="removed", pool_sized=False)
    found = {item["object"] for item in planned.returns["steps"]}
    leaving = [name for name in names if name in found]
    if leaving:
        step(vcenter, esxi_maintenance, hosts=leaving, state="entered")
        step(vcenter, cluster_member, hosts=[{"name": name} for name in leaving], state="removed")
    return leaving


def test_a_contraction_finishes_every_removal_that_was_cut_off(
    start_vcenter: StartVcenter, monkeypatch: pytest.MonkeyPatch
) -> None:
    vcenter = start_vcenter(two_clusters(40, timings={"maintenance": 0.1}))
    fuse = Fuse(monkeypatch)
    names: list[str] = []
    crashed = True
    while crashed:  # until the fuse is longer than the whole work
        names.append(f"esx-{len(names) + 1:03}.lab")
        step(vcenter, esxi_maintenance, hosts=[names[-1]], state="entered")
        fuse.calls, fuse.limit = 0, len(names)
        try:
            step(vcenter, cluster_member, hosts=[{"name": names[-1]}], state="removed")
            crashed = False
        except CrashError:
            fuse.limit = None
            tasks_end(vcenter)  # a second run takes longer to begin than they do
            contract(vcenter, names[-1])
        fuse.limit = None
        assert contract(vcenter, names[-1]) == [], f"after call {len(names)}"
        assert names[-1] not in clusters(vcenter), f"after call {len(names)}"
    assert len(names) > 8


def test_a_removal_that_the_vcenter_refuses_is_finished_later_and_stops_nobody_else(
    start_vcenter: StartVcenter,
) -> None:
    refused = {"method": "Destroy_Task", "object": ONE, "nth": 1, "fail_task_at": 60}
    vcenter = start_vcenter(two_clusters(3), faults=[refused])
    step(vcenter, esxi_maintenance, hosts=[ONE], state="entered")
    _planned, done = run(vcenter, cluster_member, hosts=[{"name": ONE}], state="removed")
    assert [problem.code for problem in done[ONE].problems] == ["operation_failed"]
    assert clusters(vcenter)[ONE] == "gpu"
    assert vcenter.host(ONE)["intent"]["action"] == "removing"
    # Whoever brings hosts back into service is told, and nothing else can be done to it.
    assert vcenter.fails("esxi_maintenance", hosts=[ONE], state="left")["failure"]["code"] == "host_not_connected"
    assert contract(vcenter, ONE, TWO) == [ONE, TWO]
    assert list(clusters(vcenter)) == ["esx-003.lab"]


def test_a_host_that_is_disconnected_for_no_removal_cannot_enter(
    start_vcenter: StartVcenter,
) -> None:
    vcenter = start_vcenter(two_clusters())
    vcenter.ok("esxi_maintenance", hosts=[ONE])
    disconnect(vcenter, ONE)
    assert vcenter.fails("esxi_maintenance", hosts=[ONE])["failure"]["code"] == "host_not_connected"


def test_a_host_that_a_killed_run_s_task_disconnects_meanwhile_is_removed(start_vcenter: StartVcenter) -> None:
    vcenter = start_vcenter(two_clusters())
    vcenter.ok("esxi_maintenance", hosts=[ONE])
    wanted = {"hosts": [{"name": ONE}], "state": "removed", "cluster": None, "keep_vms": False}
    params = {"timeout": 60, "max_parallel": 1, "assume": {"hosts": {}, "vms": {}}, **wanted}
    with Client.open(options(vcenter)) as client:
        facts = cluster_member.read(client, params)
        planned = cluster_member.plan(facts, params)
        disconnect(vcenter, ONE)
        done = cluster_member.apply(client, facts, planned, params)
    assert done[ONE].problems == ()
    assert list(clusters(vcenter)) == [TWO]
