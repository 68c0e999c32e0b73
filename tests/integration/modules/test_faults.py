# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What can go wrong, at each stage: a clear error, nothing lost, and the next run converges."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from typing import Any

import pytest
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.client import Stub
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.errors import GpuOpsError
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.rest import Rest
from ansible_collections.gpuops.vsphere.plugins.modules import (
    advanced_options,
    cluster_member,
    esxi_driver,
    esxi_graphics,
    esxi_maintenance,
    esxi_passthrough,
    esxi_power,
    gpu_lock,
    vm_gpu,
    vm_group,
    vm_power,
    vm_shares,
)
from gpu_vms import TEMPLATE, V100, fixed, machine
from in_process import run
from pyVim.connect import Disconnect, SmartConnect
from simulated import PASSWORD, USERNAME, StartVcenter, Vcenter, fleet

ONE, TWO, VM = "esx-001.lab", "esx-002.lab", "gpu-a"
NEW, OLD = "esx-new.lab", "esx-old.lab"
QUICK = {
    "maintenance": 1,
    "boot": 2,
    "install": 2,
    "migrate": 1,
    "power_on": 1,
    "power_off": 1,
    "clone": 1,
    "reconfigure": 1,
}

VERSION, BUNDLE, PATCH = "17.1", "https://depot.lab/vgpu-17.1.zip", "https://depot.lab/vgpu-17.1/metadata.zip"
AWAY = {"devices": [dict.fromkeys(("address", "class", "name")) | {"id": V100}], "enabled": False}
SHARED = {"default_type": "sharedDirect", "devices": []} | dict.fromkeys(("assignment_policy", "restart_services"))
IMAGES = "/api/esx/settings/clusters/{cluster}/software"
DRIVER = {"name": ONE, "state": "present", "version": VERSION, "package": ["NVD-*"], "checksum": None}
ON_HOST = {"hosts": [{**DRIVER, "guest_drivers": [], "method": "patch", "bundle": PATCH}]}
BY_IMAGE = {"hosts": [{**DRIVER, "guest_drivers": [], "method": "image", "bundle": BUNDLE}]}

# What is asked for at a stage, and the call of the vCenter's that it is about.
STAGES: dict[str, tuple[Any, dict[str, Any], str]] = {
    "read": (esxi_maintenance, {"hosts": [ONE]}, "RetrievePropertiesEx"),
    "drain": (esxi_maintenance, {"hosts": [ONE]}, "RelocateVM_Task"),
    "maintenance": (esxi_maintenance, {"hosts": [ONE]}, "EnterMaintenanceMode_Task"),
    "maintenance alone": (esxi_maintenance, {"hosts": [OLD]}, "EnterMaintenanceMode_Task"),
    "reboot": (esxi_power, {"hosts": [ONE], "when_needed": False}, "RebootHost_Task"),
    "leave": (esxi_maintenance, {"hosts": [ONE], "state": "left"}, "ExitMaintenanceMode_Task"),
    "clone": (vm_group, {"vms": [{"name": "new", "host": TWO, "template": TEMPLATE}]}, "CloneVM_Task"),
    "reconfigure": (vm_gpu, {"vms": [{"name": VM, "gpus": [fixed()]}]}, "ReconfigVM_Task"),
    "power on": (vm_power, {"vms": [VM], "state": "on"}, "PowerOnVM_Task"),
    "power off": (vm_power, {"vms": ["db"], "state": "off", "hard": True}, "PowerOffVM_Task"),
    "suspend": (vm_power, {"vms": ["db"], "state": "suspended"}, "SuspendVM_Task"),
    "delete": (vm_group, {"vms": [{"name": VM}], "state": "absent"}, "Destroy_Task"),
    "passthrough": (
        esxi_passthrough,
        {"hosts": [{"name": TWO, "hardware_label": None, "missing": None, **AWAY}]},
        "UpdatePassthruConfig",
    ),
    "graphics": (esxi_graphics, {"hosts": [{"name": TWO, "missing": None, **SHARED}]}, "UpdateGraphicsConfig"),
    "driver": (esxi_driver, ON_HOST, "InstallHostPatchV2_Task"),
    "image, import": (esxi_driver, BY_IMAGE, "POST /api/esx/settings/depots/offline?vmw-task=true"),
    "image, draft": (esxi_driver, BY_IMAGE, f"POST {IMAGES}/drafts"),
    "image, edit": (esxi_driver, BY_IMAGE, f"PATCH {IMAGES}/drafts/{{draft}}/software/components"),
    "image, commit": (esxi_driver, BY_IMAGE, f"POST {IMAGES}/drafts/{{draft}}?action=commit&vmw-task=true"),
    "image, check": (esxi_driver, BY_IMAGE, f"POST {IMAGES}?action=check&vmw-task=true"),
    "image, apply": (esxi_driver, BY_IMAGE, f"POST {IMAGES}?action=apply&vmw-task=true"),
    "out of the cluster": (cluster_member, {"hosts": [{"name": ONE}], "state": "standalone"}, "MoveIntoFolder_Task"),
    "into a cluster": (cluster_member, {"hosts": [{"name": NEW}], "cluster": "gpu"}, "MoveHostInto_Task"),
    "out of the vCenter": (cluster_member, {"hosts": [{"name": OLD}], "state": "removed"}, "Destroy_Task"),
    "shares": (vm_shares, {"vms": [{"name": "db", "cpu": {"shares": "high"}}]}, "ReconfigVM_Task"),
    "settings of the vCenter": (advanced_options, {"vcenter": {"vgpu.hotmigrate.enabled": True}}, "UpdateOptions"),
    "settings of a cluster": (
        advanced_options,
        {"clusters": [{"name": "gpu", "drs_options": {"LBMaxVmotionPerHost": "1"}}]},
        "ReconfigureComputeResource_Task",
    ),
    "lock": (gpu_lock, {"clusters": ["gpu"], "run_id": "mine"}, "Rename_Task"),
    "record of the lock": (gpu_lock, {"clusters": ["gpu"], "run_id": "mine"}, "SetField"),
    "unlock": (gpu_lock, {"clusters": ["gpu"], "run_id": "mine", "state": "released"}, "Destroy_Task"),
}
# Stages of a cluster that is managed with an image.
OF_IMAGES = tuple(stage for stage in STAGES if stage.startswith("image, "))
# What a stage begins with: the host in our maintenance mode, or the lock held.
BEFORE = dict.fromkeys(("reboot", "leave", "driver", *OF_IMAGES, "out of the cluster"), "maintenance") | {
    "out of the vCenter": "maintenance alone",
    "unlock": "lock",
}
# Stages whose call is no task.
AT_ONCE = ("passthrough", "graphics", "settings of the vCenter", "record of the lock", "image, draft", "image, edit")


def fault(kind: str, **fields: Any) -> dict[str, Any]:
    return {"fault": {"type": kind, "message": "Told by the test.", "fields": fields}}


TASK_FAILS = {"fail_task_at": 60}
DROPPED = {"drop_connection": True}
LOST = {"lose_answer": True}
NO_PRIVILEGE = fault("vim.fault.NoPermission", privilegeId="Some.Privilege")
NO_ROOM = fault("vim.fault.InsufficientMemoryResourcesFault", unreserved=1, requested=2)
CHANGED = fault("vim.fault.ConcurrentAccess")
BUSY = fault("vim.fault.InvalidState")

GONE = fault("vim.fault.NotFound")

TASKS = [name for name in STAGES if name != "read"]
# What the next run may meet while a call whose answer was lost is still being carried out.
UNDER_WAY = {"reboot": "host_not_connected", "shares": "changed_meanwhile"}
MATRIX = [
    *((stage, "task fails", TASK_FAILS, "operation_failed") for stage in TASKS if stage not in AT_ONCE),
    *((stage, "connection dropped", DROPPED, "connection_lost") for stage in TASKS),
    *((stage, "answer lost", LOST, "connection_lost") for stage in TASKS),
    *((stage, "privilege missing", NO_PRIVILEGE, "no_permission") for stage in STAGES),
    ("drain", "no room", {**NO_ROOM, "fail_task_at": 60}, "no_resources"),
    ("power on", "no room", {**NO_ROOM, "fail_task_at": 60}, "no_resources"),
    ("clone", "no room", {**NO_ROOM, "fail_task_at": 60}, "no_resources"),
    ("reconfigure", "changed by somebody else", {**CHANGED, "fail_task_at": 60}, "changed_meanwhile"),
    # Whose draft it was, and what else may be in the way of one: test_driver_images.py.
    ("image, edit", "draft discarded by somebody else", GONE, ""),
    ("image, commit", "draft discarded by somebody else", GONE, ""),
    ("reboot", "never returns", {"never_returns": True}, "timeout"),
    *((stage, "refused for its state", BUSY, "invalid_state") for stage in TASKS),
]
# What an operator reads of it.
WORDS = {
    "task fails": "injected",
    "connection dropped": "run again",
    "answer lost": "Whether it was carried out is unknown; run again",
    "privilege missing": "privilege",
    "no room": "Free resources on this host or choose another host",
    "changed by somebody else": "run again",
    "never returns": "console",
    "refused for its state": "Told by the test",
}


def world(stage: str) -> dict[str, Any]:
    """Two hosts with a running machine each, one of which is to move; one to give GPUs to, and a template.

    A host that is to join the cluster, and one that is to leave the vCenter.
    """
    made = fleet(2, timings=QUICK)
    made["clusters"][0]["hosts"][0]["gpus"][0]["passthrough"] = True
    if stage in OF_IMAGES:
        made["clusters"][0]["image"] = {}
    shape = {"firmware": "efi", "hardware_version": 21, "memory_mb": 8192}
    made["templates"] = [{"name": TEMPLATE, "folder": "templates", "host": TWO, **shape}]
    made["vms"] = [machine("web", power="on"), machine(VM, TWO), machine("db", TWO, power="on")]
    made["standalone_hosts"] = [{"name": NEW}, {"name": OLD}]
    made["depots"] = {url: [{"version": VERSION, "vgpu_manager": VERSION}] for url in (BUNDLE, PATCH)}
    return made


def attempt(vcenter: Vcenter, stage: str, **own: Any) -> tuple[bool, list[Any]]:
    """One run: whether it changed anything, and its problems, each with code, object and text."""
    module, params, _method = STAGES[stage]
    try:
        planned, done = run(vcenter, module, **{**params, **own})
    except GpuOpsError as error:
        return False, [error]
    problems = [problem for plan in planned.plans.values() for problem in plan.problems]
    problems += [problem for item in done.values() for problem in item.problems]
    return bool(planned.todo), problems


def settled(vcenter: Vcenter, stage: str) -> None:
    """Nothing is left to do, and nothing is lost."""
    assert attempt(vcenter, stage) == (False, [])
    if stage in ("drain", "maintenance"):
        assert attempt(vcenter, "leave")[1] == []
    host = vcenter.host(ONE)
    assert host["in_maintenance"] == (stage in ("read", "reboot", "driver", *OF_IMAGES, "out of the cluster"))
    assert host["connection"] == "connected"
    if not host["in_maintenance"]:
        assert host["intent"] is None
        assert "web" in host["powered_on_vms"]


@pytest.mark.parametrize(("stage", "what", "rule", "code"), MATRIX, ids=[f"{row[0]}: {row[1]}" for row in MATRIX])
def test_a_clear_error_and_then_the_next_run_converges(
    start_vcenter: StartVcenter, stage: str, what: str, rule: dict[str, Any], code: str
) -> None:
    # The first call of that kind is the one of this stage; leaving and rebooting begin after entering.
    vcenter = start_vcenter(world(stage), faults=[{"method": STAGES[stage][2], "nth": 1, **rule}], time_scale=60)
    if stage in BEFORE:
        assert attempt(vcenter, BEFORE[stage]) == (True, [])
    timeout = 3 if what == "never returns" else 60
    _changed, problems = attempt(vcenter, stage, timeout=timeout)
    assert bool(problems) == bool(code), "nobody was told, or for nothing"
    for problem in problems:
        assert problem.code == code
        assert problem.object or stage == "read"  # nothing has a name before it is read
        assert len(problem.msg) > 40
        assert WORDS[what] in problem.msg
        assert "Traceback" not in problem.msg
    if what == "never returns":
        # Somebody goes to the console: a host that was booting is up when the simulator starts again.
        vcenter.stop()
        vcenter = start_vcenter(world(stage), directory=vcenter.directory, time_scale=60)
    # The cause is gone: the next run finishes it, and the one after has nothing to do.
    again = attempt(vcenter, stage)[1]
    if what == "answer lost" and again:
        # What was asked for goes on without us, and may be under way: said clearly, and the next run finds it done.
        assert [problem.code for problem in again] == [UNDER_WAY.get(stage)]
        again = attempt(vcenter, stage)[1]
    assert again == []
    settled(vcenter, stage)


def just_before(monkeypatch: pytest.MonkeyPatch, method: str, action: Callable[[], Any]) -> list[Any]:
    """Do something once, just before a call of a method goes out; what it has given is in the list then."""
    given: list[Any] = []
    call, send = Stub._call, Rest._send

    def at(name: str) -> None:
        if name == method and not given:
            given.append(action())

    def called(stub: Stub, mo: Any, info: Any, args: Any, outer: Any) -> Any:
        at(info.wsdlName)
        return call(stub, mo, info, args, outer)

    def sent(rest: Rest, verb: str, path: str, *more: Any) -> Any:
        at(f"{verb} {path}")
        return send(rest, verb, path, *more)

    monkeypatch.setattr(Stub, "_call", called)
    monkeypatch.setattr(Rest, "_send", sent)
    return given


@pytest.mark.parametrize("stage", STAGES)
def test_a_session_that_an_administrator_ends_is_renewed_and_the_stage_goes_on(
    start_vcenter: StartVcenter, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    """Just before the call of the stage the session ends, and with it collector, filters and views."""
    vcenter = start_vcenter(world(stage), time_scale=60)
    if stage in BEFORE:
        assert attempt(vcenter, BEFORE[stage]) == (True, [])
    ended = just_before(monkeypatch, STAGES[stage][2], lambda: end_all_sessions(vcenter))
    vcenter.reset_counts()
    assert attempt(vcenter, stage) == (True, [])
    assert ended
    monkeypatch.undo()
    # The administrator's own login, at most the first one of the run, and the one that was needed again. REST logs in
    # by itself.
    assert vcenter.counts()["logins"] in ((3, 4) if stage in OF_IMAGES else (2, 3))
    counts = vcenter.counts()["requests"]
    assert stage == "read" or counts[STAGES[stage][2]] == 2, "carried out twice, or not asked for again"
    assert attempt(vcenter, stage) == (False, [])
    if stage in ("drain", "maintenance"):
        assert attempt(vcenter, "leave")[1] == []
        assert "web" in vcenter.host(ONE)["powered_on_vms"]
        assert vcenter.host(ONE)["intent"] is None


@pytest.mark.parametrize("stage", STAGES)
def test_a_vcenter_whose_services_restart_is_said_and_the_next_run_converges(
    start_vcenter: StartVcenter, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    """It goes just before the call of the stage; sessions and tasks that were going on are gone when it is back."""
    vcenter = start_vcenter(world(stage), time_scale=60)
    if stage in BEFORE:
        assert attempt(vcenter, BEFORE[stage]) == (True, [])
    stopped = just_before(monkeypatch, STAGES[stage][2], vcenter.stop)
    _changed, problems = attempt(vcenter, stage)
    assert stopped
    assert problems, "nobody was told"
    for problem in problems:
        assert problem.code in ("connection_lost", "connection_refused")
        assert problem.object
        assert "127.0.0.1" in problem.msg
        assert "Traceback" not in problem.msg
    monkeypatch.undo()
    vcenter = start_vcenter(world(stage), directory=vcenter.directory, time_scale=60)
    assert attempt(vcenter, stage)[1] == []
    settled(vcenter, stage)


def end_all_sessions(vcenter: Vcenter) -> str:
    """What an administrator does in the client: end everybody else's sessions."""
    context = ssl.create_default_context(cafile=vcenter.certificate)
    administrator = SmartConnect(host="127.0.0.1", port=vcenter.port, user=USERNAME, pwd=PASSWORD, sslContext=context)
    try:
        manager = administrator.content.sessionManager
        keys = [session.key for session in manager.sessionList if session.key != manager.currentSession.key]
        assert keys, "nobody else was logged in"
        manager.TerminateSession(keys)
    finally:
        Disconnect(administrator)
    return ", ".join(keys)
