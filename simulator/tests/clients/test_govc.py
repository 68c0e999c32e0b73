"""govc, which shares no code with pyVmomi, works on the simulator as on a vCenter."""

from __future__ import annotations

import json
import os
import pathlib
import re
import subprocess
import sys
import time
import typing as t

import pytest

pytestmark = [pytest.mark.clients, pytest.mark.xdist_group("govc")]  # one build, one server

TOP = pathlib.Path(__file__).parents[3]
BUILD = TOP / "tools" / "govc-build"
GOVC = TOP / ".cache" / "govc" / "govc"
PATIENCE = 180.0
MODEL = """
datacenter: dc
datastores: [{name: ds}]
networks: [{name: VM Network}]
options: {vgpu.hotmigrate.enabled: "true"}
clusters:
  - name: c
    drs: {automation: fullyAutomated}
    hosts: [{name: h1.lab, gpus: [{gpu: V100-32, count: 2, passthrough: true}]}, {name: h2.lab}]
bare_hosts: [{name: h3.lab}]
templates: [{name: tpl, folder: templates}]
vms: [{name: one, host: h1.lab}, {name: two, host: h2.lab, power: "on"}]
"""


class Govc:
    """govc with the environment that reaches one simulator."""

    def __init__(self, ready: dict[str, t.Any]) -> None:
        self.environment = os.environ | {
            "GOVC_URL": ready["url"],
            "GOVC_USERNAME": "admin@lab",
            "GOVC_PASSWORD": "secret",
            "GOVC_TLS_CA_CERTS": ready["certificate"],
            "GOVC_PERSIST_SESSION": "false",
        }

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(GOVC), *arguments], env=self.environment, capture_output=True, text=True, timeout=PATIENCE, check=False
        )

    def __call__(self, *arguments: str) -> str:
        done = self.run(*arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def lines(self, *arguments: str) -> list[str]:
        return self(*arguments).splitlines()

    def json(self, *arguments: str) -> t.Any:
        return json.loads(self(arguments[0], "-json", *arguments[1:]))

    def refused(self, *arguments: str) -> str:
        done = self.run(*arguments)
        assert done.returncode != 0, done.stdout
        return done.stderr

    def devices(self, vm: str) -> list[str]:
        return [line.split()[0] for line in self.lines("device.ls", "-vm", vm)]


@pytest.fixture(scope="session")
def binary() -> None:
    """Build govc once; where that cannot be done, the reason is why these tests are skipped."""
    built = subprocess.run([str(BUILD)], capture_output=True, text=True, check=False)
    if built.returncode == 3:
        pytest.skip(built.stderr.strip())
    assert built.returncode == 0, built.stderr


@pytest.fixture(scope="module")
def govc(binary: None, tmp_path_factory: pytest.TempPathFactory) -> t.Iterator[Govc]:
    directory = tmp_path_factory.mktemp("govc")
    (directory / "model.yml").write_text(MODEL)
    (directory / "password").write_text("secret")
    (directory / "password").chmod(0o600)
    ready = directory / "ready.json"
    command = [sys.executable, "-m", "vsphere_simulator.cli", "serve", "--model", str(directory / "model.yml")]
    command += ["--listen", "127.0.0.1:0", "--username", "admin@lab", "--password-file", str(directory / "password")]
    command += ["--time-scale", "500", "--ready-file", str(ready)]
    with (directory / "log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + PATIENCE
        while not ready.exists():
            assert process.poll() is None, (directory / "log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.02)
        yield Govc(json.loads(ready.read_text()))
    finally:
        process.terminate()
        process.wait(timeout=PATIENCE)


def test_about_and_login(govc: Govc) -> None:
    about = govc("about")
    assert "API type:     VirtualCenter" in about
    assert "API version:  8.0.3.0" in about
    stranger = Govc({"url": govc.environment["GOVC_URL"], "certificate": govc.environment["GOVC_TLS_CA_CERTS"]})
    stranger.environment["GOVC_PASSWORD"] = "wrong"
    assert "incorrect user name or password" in stranger.refused("about")


def test_find_and_ls(govc: Govc) -> None:
    assert govc.lines("ls", "/") == ["/dc"]
    assert {"/dc/vm/templates/tpl", "/dc/host/c/h1.lab", "/dc/datastore/ds"} <= set(govc.lines("find"))
    assert govc.lines("find", "/", "-type", "h") == ["/dc/host/c/h1.lab", "/dc/host/c/h2.lab"]
    assert govc.lines("find", "/dc/vm", "-type", "m", "-runtime.powerState", "poweredOn", "-name", "t*") == [
        "/dc/vm/two"
    ]
    assert govc.lines("find", "-i", "/dc", "-type", "c")[0].startswith("ClusterComputeResource:domain-c")


def test_object_collect(govc: Govc) -> None:
    values = govc.lines("object.collect", "-s", "/dc/vm/one", "name", "config.hardware.memoryMB")
    assert sorted(values) == ["4096", "one"]
    every = govc.lines("object.collect", "-type", "m", "/", "name")
    assert [line.split()[-1] for line in every] == ["tpl", "one", "two"]
    whole = govc("object.collect", "-json", "/dc/host/c/h1.lab")
    assert {entry["Name"] for entry in json.loads(whole)} >= {"config", "hardware", "runtime", "summary", "vm"}


def test_object_collect_waits_for_a_change(govc: Govc) -> None:
    """`-n 1` returns with the first change after the values of the beginning."""
    with subprocess.Popen(
        [str(GOVC), "object.collect", "-s", "-n", "1", "/dc/vm/one", "config.annotation", "name"],
        env=govc.environment,
        stdout=subprocess.PIPE,
        text=True,
    ) as waiting:
        try:
            assert waiting.stdout is not None
            assert waiting.stdout.readline() in ("one\n", "\n")
            govc("vm.change", "-vm", "one", "-annotation", "changed")
            output, _ = waiting.communicate(timeout=PATIENCE)
        finally:
            waiting.kill()
    assert waiting.returncode == 0
    assert "changed" in output


def test_host_info(govc: Govc) -> None:
    (host,) = govc.json("host.info", "-host", "h1.lab")["HostSystems"]
    assert host["Runtime"]["ConnectionState"] == "connected"
    assert "Processor type:" in govc("host.info", "-host", "h1.lab")


def test_a_machines_whole_life(govc: Govc) -> None:
    place = ["-host", "h1.lab", "-ds", "ds", "-on=false"]
    govc("vm.create", "-m", "1024", "-c", "1", "-net", "VM Network", *place, "made")
    govc("vm.change", "-vm", "made", "-m", "2048", "-c", "2", "-e", "guestinfo.a=b")
    (info,) = govc.json("vm.info", "-e", "made")["VirtualMachines"]
    assert (info["Config"]["Hardware"]["MemoryMB"], info["Config"]["Hardware"]["NumCPU"]) == (2048, 2)
    assert {"Key": "guestinfo.a", "Value": "b"} in info["Config"]["ExtraConfig"]
    govc("vm.clone", "-vm", "made", *place, "copy")
    for switch, state in (
        ("-on", "poweredOn"),
        ("-suspend", "suspended"),
        ("-on", "poweredOn"),
        ("-off", "poweredOff"),
    ):
        govc("vm.power", switch, "copy")
        assert govc.lines("object.collect", "-s", "/dc/vm/copy", "runtime.powerState") == [state]
    assert "already exists" in govc.refused("vm.clone", "-vm", "made", *place, "copy")
    govc("vm.destroy", "copy")
    govc("vm.destroy", "made")
    assert govc.lines("find", "/dc/vm", "-type", "m", "-name", "copy") == []


def test_pci_devices(govc: Govc) -> None:
    listed = govc.lines("device.pci.ls", "-vm", "one")
    assert [line.split()[1] for line in listed[1:]] == ["0000:3b:00.0", "0000:5e:00.0"]
    govc("device.pci.add", "-vm", "one", "0000:3b:00.0", "0000:5e:00.0")
    assert [name for name in govc.devices("one") if name.startswith("pcipass")] == [
        "pcipassthrough-13000",
        "pcipassthrough-13001",
    ]
    assert "not found" in govc.refused("device.pci.add", "-vm", "one", "0000:99:00.0")
    govc("device.pci.remove", "-vm", "one", "pcipassthrough-13000", "pcipassthrough-13001")
    assert not [name for name in govc.devices("one") if name.startswith("pcipass")]


def test_maintenance_mode_and_events(govc: Govc) -> None:
    govc("host.maintenance.enter", "h2.lab")
    assert govc.lines("object.collect", "-s", "/dc/vm/two", "runtime.powerState") == ["poweredOn"]
    assert govc.lines("object.collect", "-s", "/dc/host/c/h2.lab", "runtime.inMaintenanceMode") == ["true"]
    govc("host.maintenance.exit", "h2.lab")
    events = govc("events", "-l", "-n", "50", "/dc/host/c/h2.lab")
    assert "[EnteredMaintenanceModeEvent] Host h2.lab in dc has entered maintenance mode" in events
    assert "ExitMaintenanceMode" in govc("tasks", "/dc/host/c/h2.lab")
    govc("vm.power", "-on", "one")
    govc("vm.power", "-off", "one")
    assert "one on h1.lab in dc is powered on" in govc("events", "-type", "VmPoweredOnEvent")


def test_clusters(govc: Govc) -> None:
    usage = govc.json("cluster.usage", "c")
    assert usage["Memory"]["Capacity"] > 0
    for listing in ("cluster.rule.ls", "cluster.group.ls", "cluster.override.info"):
        assert govc.lines(listing, "-cluster", "c") == []


def test_a_cluster_is_made_filled_changed_and_removed(govc: Govc) -> None:
    govc("cluster.create", "made")
    govc("cluster.change", "-drs-enabled", "-drs-mode", "fullyAutomated", "-ha-enabled", "made")
    (values,) = govc.json("object.collect", "/dc/host/made", "configurationEx")
    configuration = values["Val"]
    assert configuration["DrsConfig"]["Enabled"] is True
    assert configuration["DrsConfig"]["DefaultVmBehavior"] == "fullyAutomated"
    assert configuration["DasConfig"]["Enabled"] is True
    login = ["-cluster", "made", "-hostname", "h3.lab", "-username", "root", "-password", "any"]
    said = govc.refused("cluster.add", *login)
    assert "certificate is not verified" in said
    govc("cluster.add", *login, "-thumbprint", said.strip().rpartition("thumbprint=")[2])
    assert govc.lines("find", "/dc/host/made", "-type", "h") == ["/dc/host/made/h3.lab"]
    govc("vm.create", "-m", "256", "-host", "/dc/host/made/h3.lab", "-ds", "ds", "-on=false", "pinned")
    govc("cluster.group.create", "-cluster", "made", "-name", "machines", "-vm", "pinned")
    govc("cluster.group.create", "-cluster", "made", "-name", "places", "-host", "h3.lab")
    govc("cluster.rule.create", "-cluster", "made", "-name", "pin", "-enable", "-mandatory", "-vm-host",
         "-vm-group", "machines", "-host-affine-group", "places")  # fmt: skip
    assert [line.split()[0] for line in govc.lines("cluster.rule.ls", "-cluster", "made")] == ["pin"]
    govc("cluster.override.change", "-cluster", "made", "-vm", "pinned", "-drs-mode", "manual")
    assert "pinned" in govc("cluster.override.info", "-cluster", "made")
    govc("cluster.rule.remove", "-cluster", "made", "-name", "pin")
    govc("vm.destroy", "pinned")
    govc("host.maintenance.enter", "h3.lab")
    govc("host.remove", "h3.lab")
    govc("object.destroy", "/dc/host/made")
    assert govc.lines("find", "/dc/host", "-type", "c") == ["/dc/host/c"]


def test_snapshots(govc: Govc) -> None:
    govc("snapshot.create", "-vm", "one", "-m=false", "-d", "before", "first")
    govc("vm.change", "-vm", "one", "-annotation", "later")
    govc("snapshot.create", "-vm", "one", "-m=false", "second")
    assert [line.split()[-1] for line in govc.lines("snapshot.tree", "-vm", "one")] == ["first", "second", "."]
    govc("snapshot.revert", "-vm", "one", "first")
    assert govc.lines("object.collect", "-s", "/dc/vm/one", "config.annotation") != ["later"]
    assert "not found" in govc.refused("snapshot.revert", "-vm", "one", "third")
    govc("snapshot.remove", "-vm", "one", "second")
    govc("snapshot.remove", "-vm", "one", "*")
    assert govc.lines("snapshot.tree", "-vm", "one") == []


def test_files_of_a_datastore(govc: Govc) -> None:
    assert {"one", "two", "tpl"} <= set(govc.lines("datastore.ls", "-ds", "ds"))
    assert {"one.vmx", "one.vmdk"} <= set(govc.lines("datastore.ls", "-ds", "ds", "one"))
    assert "not found" in govc.refused("datastore.ls", "-ds", "ds", "nothing")


def test_settings_keep_their_types(govc: Govc) -> None:
    options = {one["Key"]: one["Value"] for one in govc.json("option.ls")}
    assert options["vgpu.hotmigrate.enabled"] is True
    assert options["event.maxAge"] == 30


def test_tags(govc: Govc) -> None:
    govc("tags.category.create", "-t", "VirtualMachine", "tier")
    govc("tags.create", "-c", "tier", "gold")
    govc("tags.create", "-c", "tier", "silver")
    assert sorted(line.split()[0] for line in govc.lines("tags.ls")) == ["gold", "silver"]
    govc("tags.attach", "gold", "/dc/vm/one")
    assert govc.lines("tags.attached.ls", "-r", "/dc/vm/one") == ["gold"]
    assert govc.lines("tags.attached.ls", "gold")[0].startswith("VirtualMachine:vm-")
    assert "INVALID_ARGUMENT" in govc.refused("tags.attach", "silver", "/dc/vm/one").upper()  # a category of one tag
    govc("tags.update", "-n", "golden", "gold")
    govc("tags.detach", "golden", "/dc/vm/one")
    assert govc.lines("tags.attached.ls", "-r", "/dc/vm/one") == []
    govc("tags.rm", "silver")
    govc("tags.category.rm", "-f", "tier")
    assert govc.lines("tags.category.ls") == []


def test_attributes_folders_and_sessions(govc: Govc) -> None:
    govc("fields.add", "owner")
    govc("fields.set", "owner", "me", "/dc/vm/two")
    assert "me" in govc("fields.info", "-n", "owner", "/dc/vm/two")
    govc("folder.create", "/dc/vm/moved")
    govc("object.mv", "/dc/vm/two", "/dc/vm/moved")
    govc("object.rename", "/dc/vm/moved/two", "second")
    assert govc.lines("ls", "/dc/vm/moved") == ["/dc/vm/moved/second"]
    govc("object.mv", "/dc/vm/moved/second", "/dc/vm")
    govc("object.rename", "/dc/vm/second", "two")
    assert "admin@lab" in govc("session.ls")
    assert "Admin" in govc("permissions.ls")


def test_performance_counters(govc: Govc) -> None:
    assert {"cpu.usagemhz.average", "cpu.ready.summation"} <= set(govc.lines("metric.ls", "/dc/vm/two"))
    assert "Sampling period: 20" not in govc("metric.ls", "-i", "300", "/dc/host/c")
    assert [line.split()[0] for line in govc.lines("metric.interval.info")].count("ID:") == 4
    (line,) = govc.lines("metric.sample", "-n", "3", "/dc/vm/two", "cpu.usagemhz.average")
    assert line.split() == ["two", "-", "cpu.usagemhz.average", "100,100,100", "MHz"]
    (line,) = govc.lines("metric.sample", "-i", "300", "-n", "2", "/dc/host/c/h2.lab", "cpu.usage.average")
    assert re.fullmatch(r"h2.lab +- +cpu.usage.average +[\d.,]+ +%", line.strip())
    assert "cpu.usagemhz.average" in govc("metric.info", "/dc/vm/two", "cpu.usagemhz.average")
