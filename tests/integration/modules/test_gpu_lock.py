# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The operators' lock: one holder, whoever contends and whenever a holder dies."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import hashlib
import json
import os
import subprocess
import sys
import threading
from typing import Any

import pytest
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.lock import (
    Holder,
    LockFolder,
    after,
    claim,
    held_text,
    key_of,
    lost_text,
    name_of,
    parse_folder,
)
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere import locks
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.client import Client, Stub
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.intents import vcenter_time
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.options import ConnectionOptions
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.tasks import Bounds
from ansible_collections.gpuops.vsphere.plugins.modules import gpu_lock
from gpu_vms import vcenter_connection
from simulated import StartVcenter, Vcenter, fleet


def folders(vcenter: Vcenter) -> list[str]:
    with vcenter_connection(vcenter) as content:
        return sorted(item.name for item in content.rootFolder.childEntity if item.name.startswith("gpuops-"))


def records(vcenter: Vcenter) -> dict[str, dict[str, Any]]:
    with vcenter_connection(vcenter) as content:
        return {
            item.name: json.loads(item.customValue[0].value)
            for item in content.rootFolder.childEntity
            if item.name.startswith("gpuops-")
        }


def held(vcenter: Vcenter, run: str, **more: Any) -> dict[str, Any]:
    return vcenter.ok("gpu_lock", **{"clusters": ["gpu"], "run_id": run, "holder_pid": os.getpid(), **more})


def test_take_refuse_release(start_vcenter: StartVcenter) -> None:
    vcenter = start_vcenter(fleet())
    planned = held(vcenter, "one", check=True)
    assert planned["changed"]
    assert folders(vcenter) == []
    assert held(vcenter, "one", owner="ann@ops")["changed"]
    assert folders(vcenter) == ["gpuops-lock-gpu-1"]
    assert not held(vcenter, "one")["changed"]
    for check in (False, True):
        refused = vcenter.fails("gpu_lock", clusters=["gpu"], run_id="two", check=check)
        assert refused["failure"] == {"code": "locked", "object": "gpu", "fault": None}
        assert "ann@ops has held it since 20" in refused["msg"]
        assert "force: true, clusters: [gpu]" in refused["msg"]
        assert "gpuops-lock-gpu-1" in refused["msg"]
    assert not vcenter.ok("gpu_lock", clusters=["gpu"], run_id="two", state="released")["changed"]
    assert held(vcenter, "one", state="released")["changed"]
    assert not held(vcenter, "one", state="released")["changed"]
    assert folders(vcenter) == []


def test_several_clusters_are_locked_all_or_none(start_vcenter: StartVcenter) -> None:
    vcenter = start_vcenter(fleet())
    vcenter.ok("gpu_lock", clusters=["b"], run_id="one", holder_pid=os.getpid())
    vcenter.fails("gpu_lock", clusters=["c", "b", "a"], run_id="two", holder_pid=os.getpid())
    assert folders(vcenter) == ["gpuops-lock-b-1"]
    vcenter.ok("gpu_lock", clusters=["b"], state="released", force=True)
    vcenter.ok("gpu_lock", clusters=["c", "b", "a"], run_id="two", holder_pid=os.getpid())
    assert folders(vcenter) == [f"gpuops-lock-{name}-1" for name in "abc"]
    assert held(vcenter, "two", clusters=[], state="released")["changed"]
    assert folders(vcenter) == []
    vcenter.ok("gpu_lock", clusters=["b"], run_id="one", holder_pid=os.getpid())
    assert not held(vcenter, "two", clusters=[], state="released")["changed"]
    refused = vcenter.fails("gpu_lock", state="released", force=True)
    assert "name the clusters or hosts" in refused["msg"]
    assert folders(vcenter) == ["gpuops-lock-b-1"]


def test_what_a_run_had_before_stays_its_own_where_more_is_refused(start_vcenter: StartVcenter) -> None:
    vcenter = start_vcenter(fleet())
    held(vcenter, "one", clusters=["a"])
    held(vcenter, "two", clusters=["c"])
    refused = vcenter.fails("gpu_lock", clusters=["a", "b", "c"], run_id="one", holder_pid=os.getpid())
    assert refused["failure"]["object"] == "c"
    assert folders(vcenter) == ["gpuops-lock-a-1", "gpuops-lock-c-1"]


def test_hosts_stand_for_their_clusters(start_vcenter: StartVcenter) -> None:
    alone = {"name": "alone.lab", "gpus": [{"gpu": "V100-32", "count": 2}]}
    vcenter = start_vcenter(fleet(standalone_hosts=[alone]))
    taken = held(vcenter, "one", clusters=[], hosts=["esx-001.lab", "alone.lab", "nowhere.lab"])
    assert sorted(taken["objects"]) == ["alone.lab", "gpu"]
    assert folders(vcenter) == ["gpuops-lock-alone.lab-1", "gpuops-lock-gpu-1"]
    refused = vcenter.fails("gpu_lock", hosts=["esx-001.lab"], run_id="two", holder_pid=os.getpid(), check=True)
    assert refused["failure"]["object"] == "gpu"
    assert held(vcenter, "one", clusters=[], hosts=["esx-001.lab"], state="released")["changed"]
    assert folders(vcenter) == ["gpuops-lock-alone.lab-1"]


def test_a_lock_is_prolonged_after_half_of_its_life(start_vcenter: StartVcenter) -> None:
    vcenter = start_vcenter(fleet())
    held(vcenter, "one", lifetime=10**6)
    first = records(vcenter)["gpuops-lock-gpu-1"]
    assert not held(vcenter, "one", lifetime=10**6)["changed"]
    vcenter.reset_counts()
    assert held(vcenter, "one", lifetime=4 * 10**6, kept=["gpu"])["changed"]
    now = records(vcenter)["gpuops-lock-gpu-1"]
    assert (now["since"], now["expires"] > first["expires"]) == (first["since"], True)
    asked = vcenter.counts()["requests"]
    assert (asked["SetField"], asked.get("CreateFolder", 0)) == (1, 0)


def test_a_process_of_another_container_on_this_machine_is_not_taken_for_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Execution environments may have the machine's name and boot, and process ids of their own."""
    here = gpu_lock.controller()
    ours = Holder("ann", "one", "", "", here, os.getpid(), gpu_lock.process_started(os.getpid()))
    assert gpu_lock.alive(ours) is True
    assert gpu_lock.alive(dataclasses.replace(ours, started="1")) is False
    monkeypatch.setattr(gpu_lock.pathlib.Path, "readlink", lambda _path: gpu_lock.pathlib.Path("pid:[1]"))
    assert gpu_lock.controller() != here
    assert gpu_lock.alive(dataclasses.replace(ours, started="1")) is None


def test_what_a_run_that_is_gone_has_held_is_given_back_with_one_s_own(start_vcenter: StartVcenter) -> None:
    """A run that was killed when all but this was done is followed by one that has nothing to do, and takes no lock."""
    vcenter = start_vcenter(fleet())
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        vcenter.ok("gpu_lock", clusters=["gpu"], run_id="dies", holder_pid=process.pid)
        vcenter.ok("gpu_lock", clusters=["other"], run_id="lives", holder_pid=os.getpid())
        assert not vcenter.ok("gpu_lock", run_id="next", state="released")["changed"]
        process.kill()
    assert vcenter.ok("gpu_lock", run_id="next", state="released", check=True)["changed"]
    assert vcenter.ok("gpu_lock", run_id="next", state="released")["changed"]
    assert folders(vcenter) == ["gpuops-lock-other-1"]
    assert not vcenter.ok("gpu_lock", run_id="next", state="released")["changed"]


@pytest.mark.parametrize("now", ["nobody", "somebody"])
def test_a_lock_that_is_lost_is_not_taken_anew(start_vcenter: StartVcenter, now: str) -> None:
    vcenter = start_vcenter(fleet())
    held(vcenter, "one")
    held(vcenter, "one", state="released", force=True)
    if now == "somebody":
        held(vcenter, "two", owner="bob@ops")
    before = folders(vcenter)
    lost = vcenter.fails("gpu_lock", kept=["gpu"], run_id="one", holder_pid=os.getpid())
    assert lost["failure"] == {"code": "lock_lost", "object": "gpu", "fault": None}
    assert ("another operator has it now: bob@ops has held it since 20" in lost["msg"]) is (now == "somebody")
    assert "Run again" in lost["msg"]
    assert folders(vcenter) == before


def _elsewhere(run: str, since: str, lifetime: float) -> Holder:
    return Holder("ann", run, since, after(since, lifetime), "another machine", 7, "123")


def test_a_lock_that_is_prolonged_while_it_is_taken_over_stays(
    start_vcenter: StartVcenter, monkeypatch: pytest.MonkeyPatch
) -> None:
    vcenter = start_vcenter(fleet())
    prepare, bounds = locks._prepare, Bounds.of({"timeout": 60, "max_parallel": 4})

    def prolonged_meanwhile(client: Client, holder: Holder) -> Any:
        monkeypatch.setattr(locks, "_prepare", prepare)
        with _client(vcenter) as other:
            locks.acquire(other, "gpu", _elsewhere("one", now, 600), gpu_lock.alive, bounds, new=False)
        return prepare(client, holder)

    with _client(vcenter) as client:
        now = vcenter_time(client)
        locks.acquire(client, "gpu", _elsewhere("one", after(now, -900), 600), gpu_lock.alive, bounds, new=True)
        monkeypatch.setattr(locks, "_prepare", prolonged_meanwhile)
        with pytest.raises(locks.LockHeldError, match="ann has held it since"):
            locks.acquire(client, "gpu", _elsewhere("two", now, 600), gpu_lock.alive, bounds, new=True)
    assert {name: record["run"] for name, record in records(vcenter).items()} == {"gpuops-lock-gpu-1": "one"}


def test_a_lock_that_is_taken_over_while_it_is_prolonged_is_lost(
    start_vcenter: StartVcenter, monkeypatch: pytest.MonkeyPatch
) -> None:
    vcenter = start_vcenter(fleet())
    write, bounds = locks._write, Bounds.of({"timeout": 60, "max_parallel": 4})

    def taken_over_before(client: Client, folder: str, holder: Holder) -> None:
        monkeypatch.setattr(locks, "_write", write)
        with _client(vcenter) as other:
            locks.acquire(other, "gpu", _elsewhere("two", now, 600), gpu_lock.alive, bounds, new=True)
        write(client, folder, holder)

    with _client(vcenter) as client:
        now = vcenter_time(client)
        locks.acquire(client, "gpu", _elsewhere("one", after(now, -900), 600), gpu_lock.alive, bounds, new=True)
        monkeypatch.setattr(locks, "_write", taken_over_before)
        with pytest.raises(locks.LockLostError, match="run two"):
            locks.acquire(client, "gpu", _elsewhere("one", now, 600), gpu_lock.alive, bounds, new=False)
    assert {name: record["run"] for name, record in records(vcenter).items()} == {"gpuops-lock-gpu-2": "two"}


def test_a_process_that_is_gone_holds_nothing(start_vcenter: StartVcenter) -> None:
    vcenter = start_vcenter(fleet())
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        vcenter.ok("gpu_lock", clusters=["gpu"], run_id="dies", holder_pid=process.pid)
        vcenter.fails("gpu_lock", clusters=["gpu"], run_id="next")
        process.kill()
    taken = held(vcenter, "next")
    assert taken["objects"]["gpu"]["taken_over"] == ["gpuops-lock-gpu-1"]
    assert folders(vcenter) == ["gpuops-lock-gpu-2"]


def _params(vcenter: Vcenter, **own: Any) -> dict[str, Any]:
    defaults = {name: option.get("default") for name, option in gpu_lock.argument_spec().items()}
    return {**defaults, "timeout": 60, "max_parallel": 4, "clusters": ["gpu"], "holder_pid": os.getpid(), **own}


def _client(vcenter: Vcenter) -> Client:
    connection = {"validate_certs": True, "thumbprint": None, **vcenter.options()}
    return Client.open(ConnectionOptions.from_params(connection))


@pytest.mark.parametrize("stale", [False, True], ids=["free", "stale"])
def test_of_twenty_contenders_exactly_one_wins(
    start_vcenter: StartVcenter, monkeypatch: pytest.MonkeyPatch, stale: bool
) -> None:
    vcenter = start_vcenter(fleet())
    if stale:
        with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
            vcenter.ok("gpu_lock", clusters=["gpu"], run_id="dies", holder_pid=process.pid)
            process.kill()
    together = threading.Barrier(20)

    def contend(number: int) -> bool:
        params = _params(vcenter, run_id=f"run-{number}")
        with _client(vcenter) as client:
            facts = gpu_lock.read(client, params)
            planned = gpu_lock.plan(facts, params)
            assert planned.todo == ("gpu",)
            together.wait(60)
            return not gpu_lock.apply(client, facts, planned, params)["gpu"].problems

    with concurrent.futures.ThreadPoolExecutor(20) as pool:
        won = list(pool.map(contend, range(20)))
    assert sum(won) == 1
    assert folders(vcenter) == [f"gpuops-lock-gpu-{2 if stale else 1}"]
    winner = f"run-{won.index(True)}"
    assert not held(vcenter, winner)["changed"]


class CrashError(BaseException):
    """The process dies here."""


@pytest.mark.parametrize("carried_out", [False, True], ids=["not carried out", "carried out"])
def test_a_holder_that_dies_at_any_call_is_replaced(
    start_vcenter: StartVcenter, monkeypatch: pytest.MonkeyPatch, carried_out: bool
) -> None:
    """Taking and giving back, stopped at every call; its process is gone then, so the next run need not wait."""
    vcenter = start_vcenter(fleet(), time_scale=50_000)
    original, calls, limit = Stub._call, [0], [0]

    def call(stub: Stub, *args: Any) -> Any:
        calls[0] += 1
        if limit[0] and calls[0] >= limit[0]:
            if carried_out and calls[0] == limit[0]:
                original(stub, *args)
            raise CrashError
        return original(stub, *args)

    monkeypatch.setattr(Stub, "_call", call)
    living = gpu_lock.controller()

    def run(name: str) -> None:
        for state in ("held", "released"):
            params = _params(vcenter, run_id=name, state=state)
            with _client(vcenter) as client:
                facts = gpu_lock.read(client, params)
                planned = gpu_lock.plan(facts, params)
                if planned.todo:
                    assert not gpu_lock.apply(client, facts, planned, params)["gpu"].problems

    step, crashed = 0, True
    while crashed:
        step += 1
        calls[0], limit[0] = 0, step
        monkeypatch.setattr(gpu_lock, "process_started", lambda _pid, step=step: str(step))
        monkeypatch.setattr(gpu_lock, "controller", lambda: living)
        try:
            run(f"dies-{step}")
            crashed = False
        except CrashError:
            pass
        limit[0] = 0
        monkeypatch.setattr(gpu_lock, "process_started", lambda _pid, step=step: str(100 + step))
        run(f"next-{step}")
    assert step > 15
    assert folders(vcenter) == []


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        ("20260101T120000Z-7-123-{here}", False),
        ("20260101T120000Z-{pid}-{started}-{here}", True),
        ("20260101T120000Z-7-123-{there}", False),
        ("{now}-7-123-{there}", True),
    ],
    ids=["a process that is gone", "one that runs", "elsewhere, an hour ago and more", "elsewhere, just now"],
)
def test_only_what_a_run_that_is_gone_has_prepared_is_removed(
    start_vcenter: StartVcenter, name: str, kept: bool
) -> None:
    vcenter = start_vcenter(fleet())
    with _client(vcenter) as client:
        now = vcenter_time(client)
    digests = {"here": _digest(gpu_lock.controller()), "there": _digest("another")}
    mine = {"pid": os.getpid(), "started": gpu_lock.process_started(os.getpid())}
    made = f"gpuops-lock-new-{name}-0badcafen".format(
        now=now[:19].replace("-", "").replace(":", "") + "Z", **digests, **mine
    )
    with vcenter_connection(vcenter) as content:
        content.rootFolder.CreateFolder(made)
        content.rootFolder.CreateFolder("gpuops-lock-new-of-somebody")
    held(vcenter, "one")
    held(vcenter, "one", state="released")
    assert folders(vcenter) == sorted([made] * kept + ["gpuops-lock-new-of-somebody"])


def _digest(controller: str) -> str:
    return hashlib.sha256(controller.encode()).hexdigest()[:12]


@pytest.mark.parametrize("clusters", [1, 10, 100])
def test_requests_grow_with_nothing_but_the_locks(start_vcenter: StartVcenter, clusters: int) -> None:
    """What is held already, and looking, is the same for any number of clusters; each lock taken costs its own."""
    vcenter = start_vcenter(fleet())
    names = [f"c-{number:03}" for number in range(clusters)]
    mine = {"clusters": names, "run_id": "one", "holder_pid": os.getpid(), "lifetime": 10**8}
    looking = vcenter.ok("gpu_lock", check=True, **mine)["requests"]
    vcenter.reset_counts()
    taken = vcenter.ok("gpu_lock", **mine)["requests"]
    assert vcenter.counts()["logins"] == 0
    for method in ("CreateFolder", "SetField", "Rename_Task"):
        assert taken.pop(method) == clusters
    assert taken.pop("AddCustomFieldDef") == 1
    assert taken.pop("RetrievePropertiesEx") <= 3 * clusters + 2
    # One filter for each task, as the locks are taken one after the other: all or none.
    assert taken.pop("CreateFilter") == taken.pop("DestroyPropertyFilter") == clusters
    taken.pop("WaitForUpdatesEx", None)
    constant = {
        "RetrieveServiceContent": 1, "CreatePropertyCollector": 1, "CurrentTime": 1, "DestroyPropertyCollector": 1,
    }  # fmt: skip
    assert taken == constant
    assert looking == constant | {"Login": 1, "RetrievePropertiesEx": 1}
    kept = vcenter.ok("gpu_lock", **mine, kept=names)
    assert not kept["changed"]
    assert kept["requests"] == constant | {"RetrievePropertiesEx": 1}


@pytest.mark.parametrize("hosts", [1, 10, 100])
def test_requests_do_not_grow_with_the_hosts(start_vcenter: StartVcenter, hosts: int) -> None:
    vcenter = start_vcenter(fleet(hosts))
    mine = {"hosts": [f"esx-{number:03}.lab" for number in range(1, hosts + 1)], "run_id": "one"}
    taken = vcenter.ok("gpu_lock", **mine, holder_pid=os.getpid(), lifetime=10**8)["requests"]
    assert (taken["SetField"], taken["RetrievePropertiesEx"], taken["CreateContainerView"]) == (1, 5, 1)
    kept = vcenter.ok("gpu_lock", **mine, holder_pid=os.getpid(), lifetime=10**8)["requests"]
    del kept["DestroyView"]
    assert kept == {
        "RetrieveServiceContent": 1, "CreatePropertyCollector": 1, "CreateContainerView": 1, "CurrentTime": 1,
        "RetrievePropertiesEx": 2, "DestroyPropertyCollector": 1,
    }  # fmt: skip


def _holder(run: str = "one", expires: str = "2026-01-01T00:00:00.000000Z") -> Holder:
    return Holder("ann", run, "2025-12-31T00:00:00.000000Z", expires)


@pytest.mark.parametrize(
    ("now", "run", "alive", "expected"),
    [
        ("2025-12-31T12:00:00.000000Z", "two", True, "held"),
        ("2025-12-31T12:00:00.000000Z", "one", True, "ours"),
        ("2025-12-31T12:00:00.000000Z", "two", False, "stale"),
        ("2025-12-31T12:00:00.000000Z", "two", None, "held"),
        ("2026-01-01T00:00:00.000000Z", "one", None, "ours"),
        ("2026-01-01T00:00:00.000000Z", "two", None, "stale"),
        ("2026-01-01T00:00:00.000000Z", "two", True, "held"),
    ],
)
def test_who_may_have_a_lock(now: str, run: str, alive: bool | None, expected: str) -> None:
    from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.lock import format_holder

    folder = parse_folder("group-1", "gpuops-lock-gpu-a-7", format_holder(_holder()))
    assert folder is not None
    found = claim([folder], "gpu-a", run, now, lambda _holder: alive)
    assert ("held" if found.held_by else "ours" if found.ours else "stale") == expected
    assert found.next_generation == 8
    assert claim([folder], "gpu", run, now, lambda _holder: alive).next_generation == 1


@pytest.mark.parametrize(
    ("now", "end"),
    [
        ("2025-12-31T12:00:00.000000Z", "run one, until 2026-01-01T00:00:00Z."),
        ("2026-01-01T12:00:00.000000Z", "run one, and its process 42 still runs here."),
    ],
)
def test_who_has_it_is_told(now: str, end: str) -> None:
    folder = LockFolder("group-1", "gpuops-lock-gpu-1", "gpu", 1, dataclasses.replace(_holder(), pid=42))
    for text in (held_text("gpu", folder, now), lost_text(folder, now)):
        assert f"ann has held it since 2025-12-31T00:00:00Z, {end}" in text


def test_a_record_that_cannot_be_read_is_nobody_s_to_take() -> None:
    folder = parse_folder("group-1", "gpuops-lock-gpu-1", "nonsense")
    assert folder is not None
    assert claim([folder], "gpu", "one", "2027-01-01T00:00:00.000000Z", lambda _holder: False).held_by is folder


def test_names_fit_the_vcenter() -> None:
    long = "a" * 80
    assert len(name_of(long, 10**9)) <= 80
    assert key_of(long) != key_of("a" * 79)
