"""How the collection fares against community.vmware and vmware.vmware doing the same job on the same simulator.

tools/venv fidelity .cache/fidelity                     (once: the others' environment)
.venv/bin/python tools/bench/collection.py              64 hosts, 100 machines, 1,000 hosts with 10,000 machines
.venv/bin/python tools/bench/collection.py --quick      8 hosts, 10 machines, 50 hosts with 500 machines

Each job is one `ansible-playbook` or `ansible-inventory`, start to end. A run that is cut off is shown as such.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import http.client
import json
import os
import pathlib
import resource
import ssl
import subprocess
import sys
import tempfile
import time
import typing as t
import urllib.request

import yaml
from lxml import etree
from pyVim.connect import SmartConnect
from pyVmomi import vim, vmodl

if t.TYPE_CHECKING:
    from collections.abc import Iterator

TOP = pathlib.Path(__file__).resolve().parents[2]
OURS = TOP / ".venv" / "bin"
THEIRS = TOP / ".cache" / "fidelity" / "bin"
USER, PASSWORD = "bench@lab", "bench"
START_LIMIT_S = 120.0
NOTHING: list[dict[str, t.Any]] = [{"ansible.builtin.meta": "noop"}]
ADDRESSES = [f"0000:{bus}:00.0" for bus in ("3b", "5e", "86", "af")]


@dataclasses.dataclass(frozen=True)
class Run:
    """One program run to its end."""

    seconds: float
    cpu_s: float
    """Its processor time, which other work on the machine hardly changes."""
    requests: int
    cut_off: bool = False

    def __str__(self) -> str:
        sign = ">" if self.cut_off else " "
        return f"{sign}{self.seconds:7.2f} s {self.cpu_s:7.2f} cpu {self.requests:6,} requests"


class Server:
    """A simulator in its own process."""

    def __init__(self, place: pathlib.Path, model: dict[str, t.Any] | list[str], latency_ms: float) -> None:
        place.mkdir()
        self.place = place
        program = [sys.executable, "-m", "vsphere_simulator.cli"]
        if isinstance(model, dict):
            (place / "model.yml").write_text(yaml.safe_dump(model))
        else:
            with (place / "model.yml").open("w") as file:
                subprocess.run([*program, "model", *model], stdout=file, check=True)
        (place / "password").touch(mode=0o600)
        (place / "password").write_text(PASSWORD)
        ready = place / "ready.json"
        serve = ["serve", "--model", str(place / "model.yml"), "--listen", "127.0.0.1:0", "--username", USER]
        serve += ["--password-file", str(place / "password"), "--ready-file", str(ready)]
        serve += ["--time-scale", "1000", "--latency-ms", str(latency_ms)]
        self.process = subprocess.Popen([*program, *serve], stdout=subprocess.DEVNULL)
        started = time.monotonic()
        while not ready.exists():
            if self.process.poll() is not None or time.monotonic() - started > START_LIMIT_S:
                self.close()
                raise SystemExit("the simulator did not start")
            time.sleep(0.01)
        self.ready: dict[str, t.Any] = json.loads(ready.read_text())
        self.environment = {
            "PATH": os.environ["PATH"],
            "LANG": "C.UTF-8",
            "HOME": str(place),
            "ANSIBLE_HOME": str(place / "ansible"),
            "ANSIBLE_LOCALHOST_WARNING": "false",
            "ANSIBLE_DEPRECATION_WARNINGS": "false",
            "SSL_CERT_FILE": self.ready["certificate"],
            "REQUESTS_CA_BUNDLE": self.ready["certificate"],
            "VMWARE_HOST": self.ready["hostname"],
            "VMWARE_PORT": str(self.ready["port"]),
            "VMWARE_USER": USER,
            "VMWARE_PASSWORD": PASSWORD,
            "VMWARE_VALIDATE_CERTS": "true",
            "VMWARE_CA_FILE": self.ready["certificate"],
        }

    def requests(self, *, reset: bool = False) -> int:
        """How many requests there were since the last reset."""
        url = self.ready["counts_url"] + ("/reset" if reset else "")
        request = urllib.request.Request(url, method="POST" if reset else "GET")  # noqa: S310 - our own process
        with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310 - our own process
            return int(json.load(answer)["total"])

    def run(self, program: pathlib.Path, *arguments: str, limit: float) -> Run:
        """Run a program of Ansible and take its time. SystemExit when it fails."""
        self.requests(reset=True)
        ours = program.parent == OURS
        more = {"ANSIBLE_COLLECTIONS_PATH": str(TOP / "collections")} if ours else {}
        output = self.place / "output"
        started, before_s = time.monotonic(), cpu_s()
        with output.open("w") as file, (self.place / "errors").open("w") as errors:
            process = subprocess.Popen(
                [str(program), *arguments], stdout=file, stderr=errors, env=self.environment | more, cwd=self.place
            )
            try:
                code: int | None = process.wait(limit)
            except subprocess.TimeoutExpired:
                code = None
            finally:
                if process.poll() is None:
                    process.kill()
                    process.wait()
        seconds = time.monotonic() - started
        if code:
            text = output.read_text()[-3000:] + (self.place / "errors").read_text()[-3000:]
            raise SystemExit(f"{' '.join([program.name, *arguments])} failed:\n{text}")
        return Run(seconds, cpu_s() - before_s, self.requests(), cut_off=code is None)

    def play(
        self, tasks: list[dict[str, t.Any]], where: pathlib.Path, limit: float, inventory: str = "localhost,"
    ) -> Run:
        """Run tasks as a playbook of one play on the controller."""
        play = {"hosts": "localhost", "gather_facts": False, "tasks": tasks}
        (self.place / "play.yml").write_text(yaml.safe_dump([play]))
        python = f"ansible_python_interpreter={where / 'python'}"
        return self.run(where / "ansible-playbook", "-i", inventory, "-c", "local", "-e", python, "play.yml",
                        limit=limit)  # fmt: skip

    def list(self, name: str, settings: dict[str, t.Any], where: pathlib.Path, limit: float) -> Run:
        """List an inventory."""
        (self.place / name).write_text(yaml.safe_dump(settings))
        return self.run(where / "ansible-inventory", "-i", name, "--list", limit=limit)

    def list_again(self, limit: float) -> Run:
        """List what has just been listed, from a file: what Ansible takes for as many variables and groups."""
        (self.place / "output").rename(self.place / "listed.json")
        program = self.place / "listed.sh"
        program.write_text(f"#!/bin/sh\ncat {self.place / 'listed.json'}\n")
        program.chmod(0o700)
        return self.run(OURS / "ansible-inventory", "-i", str(program), "--list", limit=limit)

    def close(self) -> None:
        """Stop it."""
        self.process.terminate()
        self.process.wait(timeout=30)


@contextlib.contextmanager
def serving(model: dict[str, t.Any] | list[str], latency_ms: float) -> Iterator[Server]:
    """A simulator with a fresh state."""
    with tempfile.TemporaryDirectory(prefix="collection-bench-") as directory:
        server = Server(pathlib.Path(directory) / "server", model, latency_ms)
        try:
            yield server
        finally:
            server.close()


def cpu_s() -> float:
    """Processor time of all programs that have been run to their end so far."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


class Table:
    """Prints rows as they come.

    `floor` is what no collection can do without, and `at most` the ratio that one would reach that needs no more; `net`
    leaves the floor out of both sides.
    """

    def __init__(self) -> None:
        columns = f"{'job':<52} {'gpuops.vsphere':>38}   {'the others':>38}    ratio     cpu"
        print(f"{columns}     floor   at most      net", flush=True)

    def row(self, job: str, ours: Run, theirs: Run, floor_s: float) -> None:
        """A job done by both."""
        sign = ">" if theirs.cut_off else " "
        ratio = theirs.seconds / ours.seconds
        cpu = theirs.cpu_s / max(0.01, ours.cpu_s)
        most = theirs.seconds / floor_s
        net = (theirs.seconds - floor_s) / max(0.01, ours.seconds - floor_s)
        ratios = f"{sign}{ratio:5.1f} x {cpu:5.1f} x {floor_s:7.2f} s {sign}{most:5.1f} x {sign}{net:5.1f} x"
        print(f"{job:<52} {ours!s:>38}   {theirs!s:>38}  {ratios}", flush=True)

    def note(self, text: str) -> None:
        """A line of its own."""
        print(f"  {text}", flush=True)


def passthrough(table: Table, latency: float, hosts: int, limit: float) -> None:
    """Four GPUs of each host into passthrough, then the same again."""
    names = f"esx-[001:{hosts:03}].lab"
    shape = {"name": names, "gpus": [{"gpu": "V100-32", "count": 4}]}
    model = {"datacenter": "lab", "datastores": [{"name": "ds"}], "networks": [{"name": "VM Network"}],
             "clusters": [{"name": "gpu", "hosts": [shape]}]}  # fmt: skip
    wanted = [{"name": f"esx-{n:03}.lab", "devices": [{"id": "10de:1db6"}]} for n in range(1, hosts + 1)]
    ours = [{"gpuops.vsphere.esxi_passthrough": {"hosts": wanted}}]
    devices = [{"device": address} for address in ADDRESSES]
    theirs = [{"community.vmware.vmware_host_passthrough": {"cluster_name": "gpu", "devices": devices}}]
    twice(table, latency, model, ours, theirs, f"passthrough of {4 * hosts} GPUs on {hosts} hosts", limit)


def vgpus(table: Table, latency: float, machines: int, limit: float) -> None:
    """A vGPU for each of many machines, then the same again."""
    hosts = max(1, machines // 4)
    shape = {"name": f"esx-[001:{hosts:03}].lab", "gpus": [{"gpu": "A100-40", "count": 2}], "vgpu_manager": "16.4",
             "graphics_type": "sharedDirect"}  # fmt: skip
    vms = [{"name": f"vm-{n:03}", "host": f"esx-{1 + n % hosts:03}.lab", "firmware": "efi", "hardware_version": 21,
            "memory_mb": 16384} for n in range(machines)]  # fmt: skip
    model = {"datacenter": "lab", "datastores": [{"name": "ds"}], "networks": [{"name": "VM Network"}],
             "clusters": [{"name": "gpu", "hosts": [shape]}], "vms": vms}  # fmt: skip
    profile = "nvidia_a100-10c"
    wanted = [{"name": vm["name"], "gpus": [{"mode": "vgpu", "profile": profile}]} for vm in vms]
    ours = [{"gpuops.vsphere.vm_gpu": {"vms": wanted}}]
    one = {"datacenter": "lab", "name": "{{ item }}", "vgpu": profile}
    theirs = [{"community.vmware.vmware_guest_vgpu": one, "loop": [vm["name"] for vm in vms]}]
    twice(table, latency, model, ours, theirs, f"a vGPU for each of {machines} machines", limit)


def twice(
    table: Table,
    latency: float,
    model: dict[str, t.Any],
    ours: list[t.Any],
    theirs: list[t.Any],
    job: str,
    limit: float,
) -> None:
    """Two runs of each on its own fresh vCenter: the second has nothing to do."""
    with serving(model, latency) as server:
        start = min(server.play(NOTHING, OURS, limit).seconds for _ in range(3))
        mine = [server.play(ours, OURS, limit) for _ in range(2)]
    with serving(model, latency) as server:
        other = [server.play(theirs, THEIRS, limit) for _ in range(2)]
    table.row(job, mine[0], other[0], start)
    table.row(f"{job}, nothing to do", mine[1], other[1], start)


def inventory(table: Table, latency: float, hosts: int, per_host: int, limit: float) -> None:
    """All hosts and machines with their GPUs."""
    per_cluster = min(20, hosts)
    shape = ["--clusters", str(hosts // per_cluster), "--hosts-per-cluster", str(per_cluster)]
    shape += ["--vms-per-host", str(per_host), "--gpu", "A100-40", "--gpus-per-host", "8"]
    with serving(shape, latency) as server:
        mine = server.list("gpu_inventory.yml", {"plugin": "gpuops.vsphere.gpu_inventory"}, OURS, limit)
        listing = server.list_again(limit)
        start = min(server.play(NOTHING, OURS, limit).seconds for _ in range(3))
        bytes_s = min(fetch_and_parse(server) for _ in range(3))
        reads = [server.play(NOTHING, OURS, limit, "gpu_inventory.yml") for _ in range(3)]
        read = min(reads, key=lambda run: run.seconds)
        floor = start + bytes_s
        esxi = {"plugin": "vmware.vmware.esxi_hosts", "gather_tags": False, "gather_compute_objects": True}
        esxi["properties"] = ["name", "summary.runtime.powerState", "hardware.pciDevice", "config.pciPassthruInfo"]
        other = server.list("bench.esxi_hosts.yml", esxi, THEIRS, limit)
        vms = {"plugin": "vmware.vmware.vms", "gather_tags": False, "gather_compute_objects": False}
        vms["properties"] = ["name", "config.instanceUuid", "config.template", "config.guestId", "guest.ipAddress",
                             "summary.runtime.powerState", "runtime.host", "config.hardware.device"]  # fmt: skip
        left = max(1.0, limit - other.seconds)
        more = server.list("bench.vms.yml", vms, THEIRS, left)
    both = Run(
        other.seconds + more.seconds,
        other.cpu_s + more.cpu_s,
        other.requests + more.requests,
        other.cut_off or more.cut_off,
    )
    job = f"inventory of {hosts:,} hosts, {hosts * per_host:,} machines"
    table.row(job, mine, both, floor)
    table.note(
        f"an empty play with it: {read.seconds:.2f} s, {read.requests} requests; without it {start:.2f} s, the same "
        f"bytes fetched and parsed with lxml {bytes_s:.2f} s; ours is {read.seconds / floor:.2f} times both"
    )
    table.note(f"the same list from a file, which is all Ansible's: {listing.seconds:.2f} s")


def fetch_and_parse(server: Server) -> float:
    """Seconds of what no inventory can do without: the bytes and their parsing."""
    sys.path.insert(0, str(TOP / "collections"))
    from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.inventory import HOST_PATHS, VM_PATHS

    tls = ssl.create_default_context(cafile=server.ready["certificate"])
    host, port = server.ready["hostname"], server.ready["port"]
    client = SmartConnect(host=host, port=port, user=USER, pwd=PASSWORD, sslContext=tls)
    query: t.Any = vmodl.query.PropertyCollector
    collector = client.content.propertyCollector
    info = type(collector)._GetMethodInfo("RetrievePropertiesEx")
    seconds = 0.0
    for kind, names in ((vim.HostSystem, HOST_PATHS), (vim.VirtualMachine, VM_PATHS)):
        view = client.content.viewManager.CreateContainerView(client.content.rootFolder, [kind], True)
        follow = query.TraversalSpec(name="view", type=type(view), path="view", skip=False)
        spec = query.FilterSpec(
            propSet=[query.PropertySpec(type=kind, pathSet=list(names))],
            objectSet=[query.ObjectSpec(obj=view, skip=True, selectSet=[follow])],
        )
        body = client._stub.SerializeRequest(collector, info, [[spec], query.RetrieveOptions()])
        headers = {"Cookie": client._stub.cookie.partition(";")[0], "SOAPAction": client._stub.versionId}
        connection = http.client.HTTPSConnection(host, port, context=tls)
        with contextlib.closing(connection):
            started = time.monotonic()
            connection.request("POST", "/sdk", body, headers)
            content = connection.getresponse().read()
            etree.fromstring(content, etree.XMLParser(huge_tree=True))
            seconds += time.monotonic() - started
    return seconds


def main() -> int:
    """Run the jobs and print; 2 when the others' environment is not there."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--quick", action="store_true", help="a few minutes instead of half an hour")
    parser.add_argument("--hosts", type=int, help="of the passthrough job")
    parser.add_argument("--machines", type=int, help="of the vGPU job")
    parser.add_argument("--inventory-hosts", type=int, help="ten machines each")
    parser.add_argument("--latency-ms", type=float, nargs="*", default=[10.0, 0.0])
    parser.add_argument("--jobs", nargs="*", default=["passthrough", "vgpu", "inventory"])
    parser.add_argument("--limit-s", type=float, default=1800.0, help="a run longer than this is cut off, and shown so")
    options = parser.parse_args()
    if not (THEIRS / "ansible-playbook").exists():
        print("Make the others' environment first: tools/venv fidelity .cache/fidelity", file=sys.stderr)
        return 2
    hosts, machines, fleet = (8, 10, 50) if options.quick else (64, 100, 1000)
    for latency in options.latency_ms:
        print(f"\neach answer {latency:g} ms late" if latency else "\non loopback")
        table = Table()
        if "passthrough" in options.jobs:
            passthrough(table, latency, options.hosts or hosts, options.limit_s)
        if "vgpu" in options.jobs:
            vgpus(table, latency, options.machines or machines, options.limit_s)
        if "inventory" in options.jobs:
            inventory(table, latency, options.inventory_hosts or fleet, 10, options.limit_s)
    return 0


if __name__ == "__main__":
    sys.exit(main())
