"""The server as a process: counts, latency, several of them, restarts, signals."""

from __future__ import annotations

import json
import os
import pathlib
import signal
import time
import typing as t

import pytest
from pyVmomi import vim
from served import PATIENCE, Served
from wire_helpers import finished, machines, until


def test_requests_and_logins_are_counted(start: t.Callable[..., Served]) -> None:
    server = start()
    client = server.connect()
    server.reset_counts()
    assert server.counts() == {"requests": {}, "total": 0, "logins": 0}
    client.CurrentTime()
    client.CurrentTime()
    client.content.rootFolder.name  # noqa: B018 - the getter is the request
    server.connect()
    counts = server.counts()
    assert counts["requests"] == {"CurrentTime": 2, "Fetch": 2, "Login": 1, "RetrieveServiceContent": 1}
    assert (counts["total"], counts["logins"]) == (6, 1)


def test_latency_is_added_to_each_call(start: t.Callable[..., Served]) -> None:
    client = start("--latency-ms", "50").connect()
    started = time.monotonic()
    for _ in range(4):
        client.CurrentTime()
    assert time.monotonic() - started >= 0.2


def test_two_servers_side_by_side_share_nothing(start: t.Callable[..., Served]) -> None:
    one, two = start(), start()
    client = one.connect()
    client.content.rootFolder.CreateFolder("only here")
    assert "only here" not in [child.name for child in two.connect().content.rootFolder.childEntity]
    other = two.connect()
    other._stub.cookie = client._stub.cookie
    with pytest.raises(vim.fault.NotAuthenticated):
        other.CurrentTime()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_cleanly_even_with_waiting_clients(start: t.Callable[..., Served], number: int) -> None:
    server = start("--time-scale", "0.01")
    machines(server.connect())[0].PowerOnVM_Task()
    server.process.send_signal(number)
    output, _ = server.process.communicate(timeout=PATIENCE)
    assert server.process.returncode == 0
    assert server.ready["thumbprint"] in output
    assert server.ready["url"] in output
    counts = json.loads(output.splitlines()[-1].removeprefix("counts "))
    assert counts["requests"]["PowerOnVM_Task"] == 1
    assert not server.ready_file.exists()
    assert "Traceback" not in server.ready_file.with_name("log").read_text()


def test_the_certificate_is_reused_after_a_restart(start: t.Callable[..., Served], tmp_path: pathlib.Path) -> None:
    first = start(directory=tmp_path)
    first.stop()
    second = start(directory=tmp_path)
    assert second.ready["thumbprint"] == first.ready["thumbprint"]
    assert second.connect().CurrentTime()
    assert (tmp_path / "simulator-key.pem").stat().st_mode & 0o077 == 0


def test_the_state_file_follows_changes_and_only_them(start: t.Callable[..., Served], tmp_path: pathlib.Path) -> None:
    path = tmp_path / "state.json"
    server = start("--state", str(path))
    before = path.read_bytes()
    written = path.stat().st_mtime_ns
    client = server.connect()
    machine = machines(client)[0]
    assert finished(machine.ReconfigVM_Task(vim.vm.ConfigSpec())).state == "success"
    assert finished(machine.ReconfigVM_Task(vim.vm.ConfigSpec(memoryMB=4096))).state == "success"
    after = until(lambda: content if (content := path.read_bytes()) != before else None)
    assert json.loads(after)["machines"][machine._moId]["memory"] == 4096
    server.process.kill()
    server.process.communicate(timeout=PATIENCE)
    assert path.read_bytes() == after
    assert path.stat().st_mtime_ns > written
    assert sorted(item.name for item in tmp_path.iterdir()) == ["state.json"]


def test_the_state_file_is_replaced_and_never_written_into(
    start: t.Callable[..., Served], tmp_path: pathlib.Path
) -> None:
    """Who has the file open while it changes, a backup or a kill in the middle, has one whole state."""
    path = tmp_path / "state.json"
    server = start("--state", str(path))
    with path.open("rb") as held:
        before = path.read_bytes()
        finished(machines(server.connect())[0].ReconfigVM_Task(vim.vm.ConfigSpec(memoryMB=4096)))
        until(lambda: path.read_bytes() != before)
        assert held.read() == before
    json.loads(path.read_bytes())


def test_a_state_that_cannot_be_written_is_said_once_and_written_later(
    start: t.Callable[..., Served], tmp_path: pathlib.Path
) -> None:
    directory = tmp_path / "gone"
    directory.mkdir()
    path = directory / "state.json"
    server = start("--state", str(path))
    client = server.connect()
    path.unlink()
    directory.rmdir()
    finished(machines(client)[0].ReconfigVM_Task(vim.vm.ConfigSpec(memoryMB=4096)))
    complaint = f"{path}: No such file or directory: the state is not kept until that is repaired"
    until(lambda: complaint in server.logged())
    finished(machines(client)[0].ReconfigVM_Task(vim.vm.ConfigSpec(memoryMB=8192)))
    directory.mkdir()
    until(path.exists)
    assert json.loads(path.read_bytes())["machines"][machines(client)[0]._moId]["memory"] == 8192
    until(lambda: "the state is kept again" in server.logged())
    assert server.logged().count(complaint) == 1
    assert "Traceback" not in server.logged()


def test_what_a_killed_writer_left_goes_at_the_next_start(
    start: t.Callable[..., Served], tmp_path: pathlib.Path
) -> None:
    kept = {f".state.json.{os.getpid()}", ".state.json.bak", ".other.json.99999999", "state.json"}
    for name in (*kept - {"state.json"}, ".state.json.99999999"):
        (tmp_path / name).write_text("half")
    start("--state", str(tmp_path / "state.json"))
    assert {item.name for item in tmp_path.iterdir()} == kept
