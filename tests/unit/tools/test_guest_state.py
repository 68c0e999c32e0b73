"""What tools/guest remembers, locks, and decides to clean up."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guestlib.cleanup import Decision, decide
from guestlib.errors import CommandError, ConflictError, HostError, WaitError
from guestlib.identity import Identity, kill, marked, parse_stat, wait_gone
from guestlib.locks import locked
from guestlib.podman import Container
from guestlib.records import Record, Records, key_fingerprint, known_hosts_line
from guestlib.run import MARK, run

ALIVE, DEAD = "1:1:now", "2:2:now"


@given(st.text(max_size=15), st.integers(min_value=0), st.integers(min_value=0))
def test_stat_is_read_whatever_the_command_is_called(command: str, parent: int, start: int) -> None:
    fields = ["S", str(parent), *["0"] * 17, str(start), "0"]
    stat = parse_stat(f"77 ({command}) {' '.join(fields)}")
    assert (stat.command, stat.state, stat.parent, stat.start) == (command, "S", parent, start)


def test_an_identity_is_of_one_process_only() -> None:
    own = Identity.own()
    assert own.alive()
    assert Identity.parse(str(own)) == own
    assert own.command() != ""
    assert not Identity(own.pid, own.start + 1, own.boot).alive()
    assert not Identity(own.pid, own.start, "another-boot").alive()
    for text in ("", "1", "1:2", "a:b:c", "1:2:3:4"):
        assert Identity.parse(text) is None


def test_marked_processes_are_found_and_killed() -> None:
    mark = f"test-{os.getpid()}"
    process = subprocess.Popen(["sleep", "60"], env={**os.environ, MARK: mark})
    try:
        # The environment of a program is to be seen a moment after its start.
        end = time.monotonic() + 10
        while not (found := list(marked(mark))) and time.monotonic() < end:
            time.sleep(0.01)
        assert [identity.pid for identity in found] == [process.pid]
        assert wait_gone(found, 0.1) == found
        assert kill(found) == []
        assert marked(mark) == {}
    finally:
        process.kill()
        process.wait()


def test_records_round_trip_and_leave_nothing(tmp_path: Path) -> None:
    records = Records(tmp_path / "guests")
    assert records.read("lab", "gpu.vm") is None
    record = Record("lab", "gpu.vm", ALIVE)
    records.write(record)
    booted = records.booted(record, "ssh-ed25519 AAAA", "degraded", ("a.service",))
    assert records.read("lab", "gpu.vm") == booted
    assert booted.ready
    assert records.all() == [booted]
    records.remove("lab", "gpu.vm")
    records.remove("lab", "gpu.vm")
    assert list((tmp_path / "guests").iterdir()) == []


@pytest.mark.parametrize("text", ["", "{", "[]", '{"instance": "lab"}', '{"failed_units": [], "surprise": 1}'])
def test_a_damaged_record_is_as_good_as_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "lab.vm.json").write_text(text)
    assert Records(tmp_path).read("lab", "vm") is None
    assert Records(tmp_path).all() == []


def test_a_record_is_abandoned_when_its_creator_died_too_early() -> None:
    own = str(Identity.own())
    assert not Record("lab", "vm", own).abandoned()
    assert Record("lab", "vm", "1:1:another-boot").abandoned()
    assert not Record("lab", "vm", "1:1:another-boot", ready=True).abandoned()


def test_the_fingerprint_is_the_one_ssh_shows() -> None:
    key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIODaVdiu+25HzGKr4uqeulZOgRwxV98rBAgR760iaUVr"
    assert key_fingerprint(key) == "SHA256:vVxztuVUyr8iR0PrWNleDIcye/JYFU1CoeedEYqK6vg"
    assert key_fingerprint("") == key_fingerprint("ssh-ed25519 %%%") == ""
    assert known_hosts_line(key, ("10.89.0.2", "vm", "vm")) == f"10.89.0.2,vm {key}"
    assert known_hosts_line("", ("10.89.0.2",)) == ""


HOLDER = """
import sys; from pathlib import Path; from guestlib.locks import locked
with locked(Path(sys.argv[1]), "it", 5.0, shared=sys.argv[2] == "shared"):
    print("held", flush=True); sys.stdin.read()
"""


@pytest.mark.parametrize(
    ("held", "wanted", "free"),
    [("exclusive", False, False), ("exclusive", True, False), ("shared", False, False), ("shared", True, True)],
)
def test_locks_exclude_other_processes_and_end_with_them(tmp_path: Path, held: str, wanted: bool, free: bool) -> None:
    path = tmp_path / "locks" / "lab.lock"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3] / "tools")}
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path), held],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment,
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        if free:
            with locked(path, "instance lab", 0.0, shared=wanted):
                pass
        else:
            with pytest.raises(ConflictError, match="instance lab"), locked(path, "instance lab", 0.1, shared=wanted):
                pass
    finally:
        holder.kill()
        holder.communicate()
    with locked(path, "instance lab", 5.0):
        assert path.exists()
    assert not path.exists()


def test_a_failed_program_becomes_one_line() -> None:
    with pytest.raises(CommandError) as failed:
        run(["sh", "-c", "echo first >&2; echo 'Error: no space' >&2; exit 3"], name="podman create")
    assert failed.value.line() == "podman create failed: Error: no space"
    with pytest.raises(HostError, match="not installed"):
        run(["no-such-program"])
    with pytest.raises(WaitError, match=r"sleep did not finish within 0\.2 s"):
        run(["sleep", "60"], timeout_s=0.2)
    assert run(["sh", "-c", "echo out; exit 3"], accept=(0, 3)) == "out\n"


def container(instance: str, guest: str, owner: str = "") -> Container:
    return Container(f"gpuops.{instance}.{guest}", instance, guest, "running", 1, {"owner": owner})


@pytest.mark.parametrize(
    ("containers", "records", "networks", "expected"),
    [
        pytest.param([], [], [], Decision(), id="nothing"),
        pytest.param([container("a", "1")], [], ["a"], Decision(), id="no owner: stays"),
        pytest.param([container("a", "1", ALIVE)], [], ["a"], Decision(), id="owner lives"),
        pytest.param([container("a", "1", DEAD)], [], ["a"], Decision(("a",)), id="owner died"),
        pytest.param(
            [container("a", "1", DEAD), container("b", "1", ALIVE)], [], ["a", "b"], Decision(("a",)), id="only its own"
        ),
        pytest.param(
            [container("a", "1", DEAD), container("a", "2", ALIVE)],
            [],
            ["a"],
            Decision((), {"a": ("1",)}),
            id="one of two owners died",
        ),
        pytest.param([container("a", "1")], [Record("a", "1", DEAD)], ["a"], Decision(("a",)), id="creator died"),
        pytest.param([container("a", "1")], [Record("a", "1", DEAD, ready=True)], ["a"], Decision(), id="was ready"),
        pytest.param([container("a", "1")], [Record("a", "1", ALIVE)], ["a"], Decision(), id="being made"),
        pytest.param([], [Record("a", "1", DEAD)], [], Decision(("a",)), id="died before the container"),
        pytest.param([], [Record("a", "1", ALIVE)], ["a"], Decision(), id="network of one being made"),
        pytest.param([], [], ["a"], Decision(("a",)), id="network of none"),
        pytest.param(
            [container("a", "1")],
            [Record("a", "1", ALIVE, ready=True), Record("a", "2", DEAD)],
            ["a"],
            Decision((), {"a": ("2",)}),
            id="half-made beside a good one",
        ),
    ],
)
def test_what_is_stale(
    containers: list[Container], records: list[Record], networks: list[str], expected: Decision
) -> None:
    assert decide(containers, records, networks, lambda text: text == ALIVE) == expected
