"""Machines with real guests, over the wire; a stand-in makes the guests (tests/lab has real ones)."""

from __future__ import annotations

import pathlib
import time
import typing as t

import pytest
from pyVim.task import WaitForTask
from pyVmomi import vim
from serving import PATIENCE, Served
from stand_in import StandIn

from vsphere_simulator.guests.keeper import guest_name, host_name, next_action
from vsphere_simulator.model.loader import ModelError, parse_model

HEAD = """
datacenter: dc
datastores: [{name: ds}]
networks: [{name: net}]
clusters: [{name: c, hosts: [{name: esx-1}, {name: esx-2}]}]
"""
MODEL = (
    HEAD
    + """
templates:
  - name: tpl
    guest: &guest
      image: {suite: bookworm, packages: [chrony]}
      volumes: [{source: /srv/home, target: /home}]
      environment: {LAB: "1"}
      authorized_keys: [ssh-ed25519 AAAA model]
vms:
  - {name: GPU VM_1, host: esx-1, guest: *guest}
  - {name: plain, host: esx-1}
"""
)
KEY = "ssh-ed25519 BBBB option"


def until(condition: t.Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.01)


@pytest.fixture
def stand_in(tmp_path: pathlib.Path) -> StandIn:
    return StandIn(tmp_path / "stand-in")


@pytest.fixture
def lab(serve: t.Callable[..., Served], stand_in: StandIn, tmp_path: pathlib.Path) -> Served:
    return start(serve, stand_in, tmp_path)


def start(serve: t.Callable[..., Served], stand_in: StandIn, directory: pathlib.Path, *more: str) -> Served:
    """Start a simulator with guests; the state file is the same each time."""
    key = directory / "key.pub"
    key.write_text(KEY + "\n")
    options = ("--guest-command", str(stand_in.path), "--guest-key", str(key))
    return serve(MODEL, *options, "--state", str(directory / "state.json"), *more)


def vm_of(lab: Served, name: str = "GPU VM_1") -> t.Any:
    return lab.find(f"dc/vm/{name}")


def powered_on(lab: Served, vm: t.Any) -> None:
    WaitForTask(vm.PowerOnVM_Task(), lab.client)
    until(lambda: vm.guest.toolsRunningStatus == "guestToolsRunning", "the guest is up")


def failures(lab: Served) -> list[t.Any]:
    events = lab.client.content.eventManager.QueryEvents(vim.event.EventFilterSpec(eventTypeId=["EventEx"]))
    return [event for event in events if event.eventTypeId == "vsphere_simulator.guest.failed"]


@pytest.mark.parametrize(
    ("actual", "wanted", "options", "action"),
    [
        ("absent", "running", {}, "create"),
        ("stopped", "running", {}, "start"),
        ("frozen", "running", {}, "thaw"),
        ("running", "running", {}, None),
        ("running", "running", {"restart": True}, "reboot"),
        ("stopped", "running", {"restart": True}, "start"),
        ("running", "frozen", {}, "freeze"),
        ("absent", "frozen", {}, None),  # a simulator started anew: the memory is gone
        ("stopped", "frozen", {}, None),
        ("running", "stopped", {}, "kill"),
        ("frozen", "stopped", {}, "kill"),
        ("running", "stopped", {"soft": True}, "stop"),
        ("stopped", "stopped", {}, None),
        ("absent", "stopped", {}, None),
        ("frozen", "absent", {}, "destroy"),
        ("absent", "absent", {}, None),
        *(("unknown", wanted, {}, "look") for wanted in ("running", "frozen", "stopped", "absent")),
    ],
)
def test_what_is_done_next(actual: str, wanted: str, options: dict[str, bool], action: str | None) -> None:
    assert next_action(actual, wanted, **options) == action


@pytest.mark.parametrize(
    ("name", "guest", "host"),
    [
        ("gpu-vm-01", "gpu-vm-01.vm-7", "gpu-vm-01"),
        ("GPU VM_1.lab", "GPU-VM_1.lab.vm-7", "gpu-vm-1.lab"),
        ("%2f..é", "2f..-.vm-7", "2f"),
        ("-_-", "vm.vm-7", "guest"),
        ("x" * 80, "x" * 58 + ".vm-7", "x" * 63),
    ],
)
def test_names_of_guests(name: str, guest: str, host: str) -> None:
    assert (guest_name(name, "vm-7"), host_name(name)) == (guest, host)


@pytest.mark.parametrize(
    ("guest", "message"),
    [
        ("{image: sid}", "guest.image: input should be 'trixie' or 'bookworm' (is 'sid')"),
        ("{imag: trixie}", "guest.imag: unknown key; did you mean image?"),
        ("{volumes: [{source: home, target: /home}]}", "guest.volumes[0].source: string should match pattern"),
        ("{volumes: [{source: /home}]}", "guest.volumes[0]: target is missing"),
        ("{authorized_keys: [-----BEGIN]}", "guest.authorized_keys[0]: string should match pattern"),
    ],
)
def test_a_mistake_in_the_model_is_named(guest: str, message: str) -> None:
    with pytest.raises(ModelError) as caught:
        parse_model(f"{HEAD}\nvms: [{{name: v, host: esx-1, guest: {guest}}}]")
    assert message in str(caught.value)


def test_the_life_of_a_machine_is_that_of_its_guest(lab: Served, stand_in: StandIn) -> None:
    vm, service = vm_of(lab), lab.client
    name = f"GPU-VM_1.{vm._GetMoId()}"
    assert stand_in.actions() == ["cleanup"]
    assert (vm.guest.toolsRunningStatus, vm.guest.ipAddress) == ("guestToolsNotRunning", None)

    stand_in.let("hold", "create")
    WaitForTask(vm.PowerOnVM_Task(), service)  # at once; the guest takes its time
    until(lambda: stand_in.busy("create"), "the guest is being made")
    assert (vm.runtime.powerState, vm.guest.guestState, vm.guest.ipAddress) == ("poweredOn", "notRunning", None)
    assert vm.guestHeartbeatStatus == "gray"
    with pytest.raises(vim.fault.ToolsUnavailable):
        vm.RebootGuest()
    collector = service.content.propertyCollector
    wanted = vim.PropertySpec(type=vim.VirtualMachine, pathSet=["guest.ipAddress", "summary.guest.hostName"])
    filters = vim.PropertyFilterSpec(objectSet=[vim.ObjectSpec(obj=vm)], propSet=[wanted])
    watch = collector.CreateFilter(filters, True)
    version = collector.WaitForUpdatesEx("").version
    stand_in.let("hold", "create", wanted=False)
    changes: dict[str, t.Any] = {}
    while len(changes) < 2:
        update = collector.WaitForUpdatesEx(version, vim.PropertyCollector.WaitOptions(maxWaitSeconds=15))
        assert update is not None, "the guest is up"
        version = update.version
        for one in update.filterSet[0].objectSet:
            changes |= {change.name: change.val for change in one.changeSet if change.val is not None}
    watch.Destroy()
    assert changes == {"guest.ipAddress": "198.51.100.1", "summary.guest.hostName": "gpu-vm-1"}
    guest = vm.guest
    assert (guest.ipAddress, guest.hostName, guest.guestState) == ("198.51.100.1", "gpu-vm-1", "running")
    assert (guest.toolsRunningStatus, guest.net[0].ipAddress[0]) == ("guestToolsRunning", "198.51.100.1")
    assert (vm.summary.guest.ipAddress, vm.guestHeartbeatStatus) == ("198.51.100.1", "green")
    search = service.content.searchIndex
    assert search.FindByIp(ip="198.51.100.1", vmSearch=True) == vm
    assert search.FindByDnsName(dnsName="gpu-vm-1", vmSearch=True) == vm
    (request,) = stand_in.requests()
    assert request["owner_pid"] == lab.process.pid
    assert request["guests"] == [
        {
            "name": name,
            "hostname": "gpu-vm-1",
            "image": {"suite": "bookworm", "packages": ["chrony"], "components": ["main"]},
            "volumes": [{"source": "/srv/home", "target": "/home", "read_only": False}],
            "environment": {"LAB": "1"},
            "authorized_keys": [KEY, "ssh-ed25519 AAAA model"],
        }
    ]

    WaitForTask(vm.SuspendVM_Task(), service)
    assert stand_in.guests() == {name: "frozen"}
    assert (vm.guest.toolsRunningStatus, vm.guest.ipAddress) == ("guestToolsNotRunning", None)
    powered_on(lab, vm)
    WaitForTask(vm.ResetVM_Task(), service)
    until(lambda: "reboot" in stand_in.actions(), "restarted")
    until(lambda: vm.guest.ipAddress, "up again")
    vm.RebootGuest()
    until(lambda: stand_in.actions().count("reboot") == 2, "restarted once more")
    until(lambda: vm.guest.ipAddress, "up again")
    WaitForTask(vm.PowerOffVM_Task(), service)
    assert stand_in.guests() == {name: "stopped"}
    powered_on(lab, vm)
    vm.ShutdownGuest()
    until(lambda: vm.runtime.powerState == "poweredOff", "shut down")
    assert stand_in.guests() == {name: "stopped"}
    WaitForTask(vm.Destroy_Task(), service)
    assert stand_in.guests() == {}
    assert stand_in.actions() == (
        ["cleanup", "create", "freeze", "thaw", "reboot", "reboot", "stop --hard", "start", "stop", "destroy"]
    )
    assert failures(lab) == []


def test_a_clone_of_a_template_has_a_guest_of_its_own_and_plain_machines_have_none(
    lab: Served, stand_in: StandIn
) -> None:
    template, cluster = lab.find("dc/vm/tpl"), lab.find("dc/host/c")
    location = vim.vm.RelocateSpec(pool=cluster.resourcePool)
    clones = []
    for number in (1, 2):
        spec = vim.vm.CloneSpec(location=location, template=False, powerOn=True)
        task = template.CloneVM_Task(template.parent, f"clone-{number}", spec)
        WaitForTask(task, lab.client)
        clones.append(task.info.result)
    WaitForTask(vm_of(lab, "plain").PowerOnVM_Task(), lab.client)
    for vm in clones:
        until(lambda vm=vm: vm.guest.ipAddress, "the clone's guest is up")
    spec = vim.vm.InstantCloneSpec(name="instant", location=vim.vm.RelocateSpec())
    task = clones[0].InstantClone_Task(spec)
    WaitForTask(task, lab.client)
    until(lambda: task.info.result.guest.ipAddress, "the instant clone's guest is up")
    assert {vm.guest.hostName for vm in (*clones, task.info.result)} == {"clone-1", "clone-2", "instant"}
    assert len({vm.guest.ipAddress for vm in (*clones, task.info.result)}) == 3
    assert len(stand_in.guests()) == 3
    assert vm_of(lab, "plain").guest.hostName == "plain"


def test_what_happens_while_a_guest_is_made_comes_in_order(lab: Served, stand_in: StandIn) -> None:
    vm = vm_of(lab)
    stand_in.let("hold", "create")
    WaitForTask(vm.PowerOnVM_Task(), lab.client)
    until(lambda: stand_in.busy("create"), "the guest is being made")
    WaitForTask(vm.PowerOffVM_Task(), lab.client)  # does not wait for a boot that nobody wants
    assert stand_in.actions() == ["cleanup", "create", "create interrupted", "list"]
    WaitForTask(vm.PowerOnVM_Task(), lab.client)
    until(lambda: stand_in.actions().count("create") == 2, "made again")
    WaitForTask(vm.SuspendVM_Task(), lab.client)
    stand_in.let("hold", "create", wanted=False)
    powered_on(lab, vm)
    stand_in.let("hold", "freeze")
    task = vm.SuspendVM_Task()
    until(lambda: stand_in.busy("freeze"), "being frozen")
    other = vm.PowerOnVM_Task()  # waits for its turn
    assert lab.client.CurrentTime()  # and so does nobody else
    stand_in.let("hold", "freeze", wanted=False)
    WaitForTask(task, lab.client)
    WaitForTask(other, lab.client)
    until(lambda: vm.guest.ipAddress, "up again")
    assert stand_in.actions()[-2:] == ["freeze", "thaw"]


def test_a_guest_that_fails_is_an_event_and_the_next_power_on_tries_again(lab: Served, stand_in: StandIn) -> None:
    vm = vm_of(lab)
    stand_in.let("fail", "create")
    WaitForTask(vm.PowerOnVM_Task(), lab.client)
    until(lambda: failures(lab), "an event")
    (event,) = failures(lab)
    said = "Guest of GPU VM_1: create failed: stand-in: create does not work; repair it"
    assert (event.fullFormattedMessage, event.severity, event.vm.vm) == (said, "error", vm)
    assert (vm.runtime.powerState, vm.guest.toolsRunningStatus) == ("poweredOn", "guestToolsNotRunning")
    assert said in (lab.directory / "log").read_text()
    stand_in.let("fail", "create", wanted=False)
    WaitForTask(vm.PowerOffVM_Task(), lab.client)
    powered_on(lab, vm)

    for action, task in (("freeze", vm.SuspendVM_Task), ("stop", vm.PowerOffVM_Task)):
        stand_in.let("fail", action)
        WaitForTask(task(), lab.client)
        assert failures(lab)[-1].message.startswith(f"Guest of GPU VM_1: {'kill' if action == 'stop' else action} fail")
        stand_in.let("fail", action, wanted=False)
        powered_on(lab, vm)
    WaitForTask(vm.PowerOffVM_Task(), lab.client)
    stand_in.let("fail", "destroy")
    WaitForTask(vm.Destroy_Task(), lab.client)
    assert failures(lab)[-1].vm is None


def test_a_host_takes_its_guests_down(lab: Served, stand_in: StandIn) -> None:
    vm, host = vm_of(lab), lab.find("dc/host/c/esx-1")
    powered_on(lab, vm)
    WaitForTask(host.RebootHost_Task(force=True), lab.client)
    until(lambda: list(stand_in.guests().values()) == ["stopped"], "down with its host")
    assert vm.runtime.powerState == "poweredOff"


def test_what_a_killed_simulator_leaves_goes_at_the_next_start(
    serve: t.Callable[..., Served], stand_in: StandIn, tmp_path: pathlib.Path
) -> None:
    first = start(serve, stand_in, tmp_path)
    powered_on(first, vm_of(first))
    plain = vm_of(first, "plain")
    WaitForTask(plain.PowerOnVM_Task(), first.client)
    until(lambda: '"power": "poweredOn"' in (tmp_path / "state.json").read_text(), "the state is written")
    first.kill()
    assert list(stand_in.guests().values()) == ["running"]

    stand_in.let("hold", "create")
    second = start(serve, stand_in, tmp_path)
    assert stand_in.guests() == {}
    until(lambda: stand_in.actions().count("create") == 2, "what was on gets a new guest")
    second.kill()  # its command ends with it, in order
    until(lambda: stand_in.actions()[-1] == "create interrupted", "the command has ended")
    stand_in.let("hold", "create", wanted=False)

    third = start(serve, stand_in, tmp_path)
    until(lambda: vm_of(third).guest.ipAddress, "the guest is up")
    third.stop()
    assert third.process.returncode == 0
    assert stand_in.guests() == {}
    assert stand_in.actions()[-1] == "cleanup"


def test_guests_that_are_kept_outlive_a_killed_simulator_and_follow_the_next_one(
    serve: t.Callable[..., Served], stand_in: StandIn, tmp_path: pathlib.Path
) -> None:
    first = start(serve, stand_in, tmp_path, "--guest-keep")
    vm = vm_of(first)
    powered_on(first, vm)
    assert "owner_pid" not in stand_in.requests()[0]
    WaitForTask(vm.Rename_Task("renamed"), first.client)
    until(lambda: '"renamed"' in (tmp_path / "state.json").read_text(), "the state is written")
    first.kill()
    (orphan,) = (path.parent for path in stand_in.directory.glob("guests/*/*"))
    (orphan / "gone.vm-999").write_text('{"name": "gone.vm-999", "state": "running"}')

    second = start(serve, stand_in, tmp_path, "--guest-keep")
    vm = vm_of(second, "renamed")
    until(lambda: vm.guest.ipAddress, "the guest is found")
    assert stand_in.guests() == {"GPU-VM_1." + vm._moId: "running"}
    assert stand_in.actions().count("create") == 1
    WaitForTask(vm.PowerOffVM_Task(), second.client)
    assert list(stand_in.guests().values()) == ["stopped"]
    second.stop()
    assert stand_in.guests() == {}


def test_stopping_ends_what_runs_and_removes_all(lab: Served, stand_in: StandIn) -> None:
    stand_in.let("hold", "create")
    WaitForTask(vm_of(lab).PowerOnVM_Task(), lab.client)
    until(lambda: stand_in.busy("create"), "the guest is being made")
    lab.stop()
    assert stand_in.actions() == ["cleanup", "create", "create interrupted", "cleanup"]


def test_two_simulators_cannot_have_the_same_guests(
    lab: Served, serve: t.Callable[..., Served], stand_in: StandIn, tmp_path: pathlib.Path
) -> None:
    with pytest.raises(RuntimeError, match="another simulator has the guests of instance sim-"):
        start(serve, stand_in, tmp_path)
    assert stand_in.actions() == ["cleanup"]
    powered_on(lab, vm_of(lab))


def test_a_command_that_cannot_clean_up_is_said_at_the_start(
    serve: t.Callable[..., Served], stand_in: StandIn, tmp_path: pathlib.Path
) -> None:
    stand_in.let("fail", "cleanup")
    with pytest.raises(RuntimeError, match=r"^vsphere-simulator: stand-in: cleanup does not work; repair it$"):
        start(serve, stand_in, tmp_path)
    with pytest.raises(RuntimeError, match=r"^vsphere-simulator: /absent cannot be run: No such file or directory$"):
        serve(MODEL, "--guest-command", "/absent", "--guest-instance", "lab")
