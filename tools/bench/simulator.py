"""How the simulator carries a large vCenter: prints a table of figures, asserts only that nothing is lost.

make bench            1,000 hosts, 8,000 GPUs, 10,000 machines
.venv/bin/python tools/bench/simulator.py --hosts 20 --watchers 5 --tasks 50
"""

from __future__ import annotations

import argparse
import concurrent.futures
import contextlib
import http.client
import io
import json
import pathlib
import ssl
import subprocess
import sys
import tempfile
import threading
import time
import typing as t

import pyVmomi.SoapAdapter
from pyVim.connect import Disconnect, SmartConnect
from pyVmomi import vim, vmodl

if t.TYPE_CHECKING:
    from collections.abc import Iterator

USER, PASSWORD = "bench@lab", "bench"
PATHS = ["name", "runtime.powerState", "runtime.host", "config.hardware.device"]
QUERY: t.Any = vmodl.query.PropertyCollector
START_LIMIT = 120.0
WATCH_LIMIT = 300.0


class Server:
    """A simulator in its own process."""

    def __init__(self, directory: pathlib.Path, options: argparse.Namespace) -> None:
        program = [sys.executable, "-m", "vsphere_simulator.cli"]
        shape = ["--clusters", str(max(1, options.hosts // 20)), "--hosts-per-cluster", str(min(20, options.hosts))]
        shape += ["--vms-per-host", str(options.vms_per_host), "--gpu", "A100-40", "--gpus-per-host", "8"]
        with (directory / "model.yml").open("w") as model:
            subprocess.run([*program, "model", *shape], stdout=model, check=True)
        (directory / "password").write_text(PASSWORD)
        (directory / "password").chmod(0o600)
        ready = directory / "ready.json"
        serve = ["serve", "--model", str(directory / "model.yml"), "--listen", "127.0.0.1:0", "--username", USER]
        serve += ["--password-file", str(directory / "password"), "--ready-file", str(ready), "--time-scale", "100"]
        started = time.monotonic()
        self.process = subprocess.Popen([*program, *serve], stdout=subprocess.DEVNULL)
        while not ready.exists():
            if self.process.poll() is not None or time.monotonic() - started > START_LIMIT:
                self.close()
                raise SystemExit("the simulator did not start")
            time.sleep(0.01)
        self.start_s = time.monotonic() - started
        self.ready = json.loads(ready.read_text())
        self.tls = ssl.create_default_context(cafile=self.ready["certificate"])

    def connect(self) -> t.Any:
        """Another client."""
        host, port = self.ready["hostname"], self.ready["port"]
        return SmartConnect(host=host, port=port, user=USER, pwd=PASSWORD, sslContext=self.tls)

    def memory_mb(self, field: str = "VmRSS") -> float:
        """Memory of the process now, or with `VmHWM` at its highest."""
        status = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        return int(next(line.split()[1] for line in status.splitlines() if line.startswith(field))) / 1024

    def close(self) -> None:
        """Stop it."""
        self.process.terminate()
        self.process.wait(timeout=30)


def view_spec(view: t.Any, paths: list[str]) -> t.Any:
    """A filter spec for these properties of all machines of a view."""
    follow = QUERY.TraversalSpec(name="view", type=type(view), path="view", skip=False)
    return QUERY.FilterSpec(
        propSet=[QUERY.PropertySpec(type=vim.VirtualMachine, pathSet=paths)],
        objectSet=[QUERY.ObjectSpec(obj=view, skip=True, selectSet=[follow])],
    )


def machines_view(client: t.Any) -> t.Any:
    """A view of all machines."""
    content = client.content
    return content.viewManager.CreateContainerView(content.rootFolder, [vim.VirtualMachine], True)


def raw_call(server: Server, client: t.Any, view: t.Any) -> tuple[bytes, float]:
    """The reply to one collector call as bytes, and the seconds it took."""
    arguments = [[view_spec(view, PATHS)], QUERY.RetrieveOptions()]
    collector = client.content.propertyCollector
    info = type(collector)._GetMethodInfo("RetrievePropertiesEx")
    body = client._stub.SerializeRequest(collector, info, arguments)
    headers = {
        "Cookie": client._stub.cookie.partition(";")[0],
        "SOAPAction": f'"urn:{client._stub.versionId.strip(chr(34)).removeprefix("urn:")}"',
    }
    connection = http.client.HTTPSConnection(server.ready["hostname"], server.ready["port"], context=server.tls)
    with contextlib.closing(connection):
        started = time.monotonic()
        connection.request("POST", "/sdk", body, headers)
        reply = connection.getresponse()
        content = reply.read()
        if reply.status != 200:
            raise SystemExit(f"the collector call answered {reply.status}: {content[:500]!r}")
        return content, time.monotonic() - started


@contextlib.contextmanager
def pinged(server: Server) -> Iterator[list[float]]:
    """Seconds that another client's smallest call takes, again and again, while something else goes on."""
    found: list[float] = []
    stop = threading.Event()
    client = server.connect()

    def ping() -> None:
        while not stop.is_set():
            started = time.monotonic()
            client.CurrentTime()
            found.append(time.monotonic() - started)

    thread = threading.Thread(target=ping)
    thread.start()
    try:
        yield found
    finally:
        stop.set()
        thread.join()
        Disconnect(client)


def collector_call(server: Server) -> list[tuple[str, str]]:
    """One call for every machine's devices: raw, parsed, and how others fare meanwhile."""
    client = server.connect()
    view = machines_view(client)
    with pinged(server) as pings:
        content, raw = raw_call(server, client, view)
    started = time.monotonic()
    pyVmomi.SoapAdapter.SoapResponseDeserializer(client._stub).Deserialize(io.BytesIO(content), QUERY.RetrieveResult)
    parsing = time.monotonic() - started
    started = time.monotonic()
    result = client.content.propertyCollector.RetrievePropertiesEx([view_spec(view, PATHS)], QUERY.RetrieveOptions())
    whole = time.monotonic() - started
    Disconnect(client)
    return [
        ("collector call: machines", f"{len(result.objects):,}"),
        ("collector call: reply", f"{len(content) / 1e6:.1f} MB"),
        ("collector call: raw", f"{raw:.2f} s"),
        ("collector call: longest call of another client meanwhile", f"{1000 * max(pings, default=0.0):.0f} ms"),
        ("collector call: parsing alone", f"{parsing:.2f} s"),
        ("collector call: with parsing", f"{whole:.2f} s"),
        ("collector call: with parsing / parsing alone", f"{whole / parsing:.2f}"),
    ]


class Watcher(threading.Thread):
    """A client that waits until it has seen the last value of every machine."""

    def __init__(self, server: Server, moids: list[str], wanted: str, started: threading.Barrier) -> None:
        super().__init__(daemon=True)
        self.client = server.connect()
        self.missing = set(moids)
        self.wanted = wanted
        self.barrier = started

    def run(self) -> None:
        """Watch."""
        content = self.client.content
        machines = [vim.VirtualMachine(moid, self.client._stub) for moid in self.missing]
        view = content.viewManager.CreateListView(machines)
        collector = content.propertyCollector.CreatePropertyCollector()
        collector.CreateFilter(view_spec(view, ["config.annotation"]), True)
        version = collector.WaitForUpdatesEx("", QUERY.WaitOptions(maxWaitSeconds=10)).version
        self.barrier.wait()
        deadline = time.monotonic() + WATCH_LIMIT
        while self.missing and time.monotonic() < deadline:
            update = collector.WaitForUpdatesEx(version, QUERY.WaitOptions(maxWaitSeconds=10))
            if update is None:
                continue
            version = update.version
            for changed in (one for filtered in update.filterSet for one in filtered.objectSet):
                if any(change.val == self.wanted for change in changed.changeSet):
                    self.missing.discard(changed.obj._GetMoId())
        Disconnect(self.client)


def updates(server: Server, watchers: int, tasks: int) -> list[tuple[str, str]]:
    """Many clients watch while many machines are reconfigured at once; every client must see every change."""
    client = server.connect()
    machines = list(machines_view(client).view)[:tasks]
    moids = [vm._GetMoId() for vm in machines]
    barrier = threading.Barrier(watchers + 1)
    waiting = [Watcher(server, moids, "benchmark", barrier) for _ in range(watchers)]
    for watcher in waiting:
        watcher.start()
    barrier.wait()
    started = time.monotonic()
    spec = vim.vm.ConfigSpec(annotation="benchmark")
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda vm: vm.ReconfigVM_Task(spec), machines))
    sent = time.monotonic() - started
    for watcher in waiting:
        watcher.join(WATCH_LIMIT)
    done = time.monotonic() - started
    lost = sum(len(watcher.missing) for watcher in waiting)
    Disconnect(client)
    return [
        (f"{len(machines):,} reconfigure tasks: started", f"{sent:.2f} s"),
        (f"… all seen by {watchers} waiting clients", f"{done:.2f} s"),
        ("… updates lost", str(lost)),
    ]


def main() -> int:
    """Run and print; 1 when an update was lost."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--hosts", type=int, default=1000)
    parser.add_argument("--vms-per-host", type=int, default=10)
    parser.add_argument("--watchers", type=int, default=50)
    parser.add_argument("--tasks", type=int, default=1000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="simulator-bench-") as directory:
        server = Server(pathlib.Path(directory), options)
        try:
            rows = [
                (
                    "hosts / GPUs / machines",
                    f"{options.hosts:,} / {8 * options.hosts:,} / {options.vms_per_host * options.hosts:,}",
                ),
                ("start until it serves", f"{server.start_s:.1f} s"),
                ("memory after the start", f"{server.memory_mb():.0f} MB"),
            ]
            rows += collector_call(server)
            rows += updates(server, options.watchers, options.tasks)
            rows.append(("memory at its highest", f"{server.memory_mb('VmHWM'):.0f} MB"))
        finally:
            server.close()
    width = max(len(name) for name, _ in rows)
    for name, figure in rows:
        print(f"{name:<{width}}  {figure:>16}")
    return int(dict(rows)["… updates lost"] != "0")


if __name__ == "__main__":
    sys.exit(main())
