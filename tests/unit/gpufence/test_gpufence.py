"""Fence, health and idleness on a server, with stand-ins for the programs that they call."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gpufence import cli
from gpufence.holdings import Holding, Register, parts_of
from gpufence.idle import Board, Verdict, is_busy, judge

SCONTROL = """#!/bin/sh
echo "scontrol $*" >> {root}/calls
case "$*" in
    '--json show job'*)
        # As Slurm does: nothing, with success, whatever the reason.
        if [ -e {root}/away ] || [ ! -e {root}/job.json ]; then echo '{{"jobs": []}}'; else cat {root}/job.json; fi ;;
    'show job'*)
        if [ -e {root}/away ]; then
            # a controller that comes back after it was asked as often as the file has lines
            sed -i 1d {root}/away; [ -s {root}/away ] || rm {root}/away
            echo 'slurm_load_jobs error: Unable to contact slurm controller (connect failure)' >&2; exit 1
        fi
        if [ ! -e {root}/job.json ]; then echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1; fi ;;
    *'show node'*) cat {root}/node.json ;;
    *'show hostnames'*) printf 'other\\ngpu-01\\n' ;;
esac
"""
# A daemon of which the pipe's directory says that it runs; every word that it hears is noted.
MPS = """#!/bin/sh
if [ "${{1:-}}" = -d ]; then [ ! -e {root}/mps-broken ] || exit 1; touch "$CUDA_MPS_PIPE_DIRECTORY/up"; exit 0; fi
[ -e "$CUDA_MPS_PIPE_DIRECTORY/up" ] || exit 1
read -r word; echo "$word" >> {root}/mps-calls
case $word in get_server_list) echo 4711 ;; quit) rm "$CUDA_MPS_PIPE_DIRECTORY/up" ;; esac
"""
SMI = """#!/bin/sh
case $1 in
    *mig.mode*) echo '0, Disabled' ;;
    *compute-apps*) cat {root}/apps 2>/dev/null || true ;;
    *index,uuid*) echo '0, GPU-a, 0' ;;
    *) echo 0 ;;
esac
"""


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, text in [("scontrol", SCONTROL), ("scancel", SCONTROL), ("mps", MPS), ("smi", SMI)]:
        (programs / name).write_text(text.format(root=tmp_path))
        (programs / name).chmod(0o755)
    monkeypatch.setattr("gpufence.tools.PATH", f"{programs}:/usr/bin:/bin")
    monkeypatch.setenv("PATH", f"{programs}:/usr/bin:/bin")
    (tmp_path / "node.json").write_text(json.dumps({"nodes": [{"state": ["IDLE"], "reason": ""}]}))
    configure(tmp_path)
    return tmp_path


def configure(root: Path, **settings: object) -> None:
    wanted = {
        "node": "gpu-01",
        "fence": "mps",
        "gpu_memory_mb": 16000,
        "run": str(root / "run"),
        "smi": str(root / "bin/smi"),
        "mps_control": str(root / "bin/mps"),
    }
    (root / "server.json").write_text(json.dumps(wanted | settings))


def call(root: Path, command: str) -> int:
    return cli.main(["--config", str(root / "server.json"), command])


def job(root: Path, monkeypatch: pytest.MonkeyPatch, number: int, *details: str, uid: int = 2001) -> None:
    (root / "job.json").write_text(json.dumps({"jobs": [{"gres_detail": list(details)}]}))
    for name, value in [("ID", number), ("UID", uid), ("GPUS", "0"), ("NODELIST", "other,gpu-01")]:
        monkeypatch.setenv(f"SLURM_JOB_{name}", str(value))


def heard(root: Path) -> list[str]:
    return (root / "mps-calls").read_text().splitlines() if (root / "mps-calls").exists() else []


def calls(root: Path) -> str:
    return (root / "calls").read_text() if (root / "calls").exists() else ""


@pytest.mark.parametrize(
    ("detail", "parts"),
    [
        ("gpu:t4:1(IDX:1)", {1: 1.0}),
        ("gpu:t4:3(IDX:0-1,3)", {0: 1.0, 1: 1.0, 3: 1.0}),
        ("gpu:2(IDX:0,2)", {0: 1.0, 2: 1.0}),
        ("shard:t4:5(5/10,0/10)", {0: 0.5}),
        ("shard:t4:2(0/10,2/8)", {1: 0.25}),
        ("", {}),
    ],
)
def test_slurms_words_for_what_a_job_has(detail: str, parts: dict[int, float]) -> None:
    assert parts_of(detail) == parts


def test_the_fence_of_mps_follows_the_jobs(server: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Limits are the daemon's own, of the largest job; the last job takes the daemon along."""
    job(server, monkeypatch, 7, "shard:t4:2(2/10)")
    assert call(server, "prolog") == 0
    assert call(server, "prolog") == 0
    assert "set_default_device_pinned_mem_limit 0 3200M" in heard(server)
    assert "set_device_pinned_mem_limit 4711 0 3200M" in heard(server)
    environment = (server / "run/jobs/7.env").read_text()
    assert "export CUDA_MPS_PINNED_DEVICE_MEM_LIMIT=0=3200M\n" in environment
    assert f"export CUDA_MPS_PIPE_DIRECTORY={server}/run/mps/0/pipe\n" in environment
    job(server, monkeypatch, 8, "gpu:t4:1(IDX:1)", "shard:t4:5(5/10)")
    assert call(server, "prolog") == 0
    assert heard(server)[-2] == "set_active_thread_percentage 4711 50"
    assert call(server, "epilog") == 0
    assert heard(server)[-2] == "set_active_thread_percentage 4711 20"
    job(server, monkeypatch, 7, "shard:t4:2(2/10)")
    assert [call(server, "epilog"), call(server, "epilog")] == [0, 0]
    assert not (server / "run/mps/0/pipe/up").exists()
    assert list((server / "run/jobs").iterdir()) == []
    assert "DRAIN" not in calls(server)


def test_another_users_job_never_joins_an_mps_daemon(server: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job(server, monkeypatch, 7, "shard:t4:2(2/10)")
    assert call(server, "prolog") == 0
    job(server, monkeypatch, 8, "", "shard:t4:2(2/10)", uid=2002)
    assert call(server, "prolog") == 1
    assert "State=DRAIN Reason=gpu-pool fence: GPU 0 has job 7 of another user" in calls(server)
    assert not (server / "run/jobs/8.json").exists()


@pytest.mark.parametrize(
    ("settings", "break_it", "reason"),
    [
        ({}, "mps-broken", "mps says: no reason given"),
        ({"devices": ["/dev/nothing-of-the-kind"]}, "", "there is no /dev/nothing-of-the-kind"),
        ({"fence": "mig"}, "", "MIG is disabled on GPU 0"),
        ({"mps_control": "/nowhere/mps"}, "", "/nowhere/mps is not installed"),
    ],
)
def test_a_fence_that_cannot_be_set_drains_the_server(
    server: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, object], break_it: str, reason: str
) -> None:
    configure(server, **settings)
    if break_it:
        (server / break_it).touch()
    job(server, monkeypatch, 7, "shard:t4:2(2/10)")
    assert call(server, "prolog") == 1
    assert f"Reason=gpu-pool fence: {reason}" in calls(server).replace(f"{server}/bin/", "")


def test_a_prolog_waits_for_a_controller(server: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is killed as a job starts must not cost the pool a server."""
    monkeypatch.setattr("gpufence.tools.ASK_AGAIN_S", 0.01)
    job(server, monkeypatch, 7, "shard:t4:2(2/10)")
    (server / "away").write_text("1\n2\n3\n")
    assert call(server, "prolog") == 0
    assert calls(server).count("--json show job 7") == 4
    assert (server / "run/jobs/7.json").exists()
    assert "DRAIN" not in calls(server)


def test_controllers_that_stay_away_drain_in_the_end(server: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gpufence.fence.ANSWERS_WITHIN_S", 0.0)
    job(server, monkeypatch, 7, "shard:t4:2(2/10)")
    (server / "away").write_text("1\n" * 99)
    assert call(server, "prolog") == 1
    assert "Reason=gpu-pool fence: scontrol says: slurm_load_jobs error: Unable to contact" in calls(server)


def test_a_job_that_is_no_more_does_not_start_and_costs_no_server(
    server: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job(server, monkeypatch, 7, "shard:t4:2(2/10)")
    (server / "job.json").unlink()
    assert call(server, "prolog") == 1
    reason = "gpu-pool health: the controllers do not know job 7"
    assert f"State=DRAIN Reason={reason}" in calls(server)
    (server / "node.json").write_text(json.dumps({"nodes": [{"state": ["IDLE", "DRAIN"], "reason": reason}]}))
    assert call(server, "health") == 0
    assert "State=RESUME" in calls(server)


def test_a_job_that_stays_on_its_gpu_drains_the_server(server: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gpufence.fence.GONE_WITHIN_S", 0.0)
    configure(server, fence="vgpu")
    job(server, monkeypatch, 7, "gpu:grid_t4-4c:1(IDX:0)")
    assert call(server, "prolog") == 0
    (server / "apps").write_text("GPU-a, 999999999\n")
    assert call(server, "epilog") == 1
    assert "fence: still there after its job: process 999999999 on GPU 0" in calls(server)
    (server / "apps").unlink()
    assert call(server, "epilog") == 0
    assert list((server / "run/jobs").iterdir()) == []


def test_a_broken_note_of_a_job_stops_the_next_one(server: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (server / "run/jobs").mkdir(parents=True)
    (server / "run/jobs/6.json").write_text("{")
    job(server, monkeypatch, 7, "shard:t4:2(2/10)")
    assert call(server, "prolog") == 1
    assert "State=DRAIN" in calls(server)


@pytest.mark.parametrize(
    ("states", "reason", "broken", "acts"),
    [
        (["IDLE"], "", False, ""),
        (["IDLE"], "", True, "State=DRAIN Reason=gpu-pool health: no /dev/nothing-of-the-kind"),
        (["IDLE", "DRAIN"], "gpu-pool health: no GPU", True, ""),
        (["IDLE", "DRAIN"], "gpu-pool health: no GPU", False, "State=RESUME"),
        (["IDLE", "DRAIN"], "operator: new disk", False, ""),
        (["IDLE", "DRAIN"], "gpu-pool fence: MPS", False, ""),
    ],
)
def test_health_drains_and_takes_back_only_what_it_drained(
    server: Path, states: list[str], reason: str, broken: bool, acts: str
) -> None:
    configure(server, devices=["/dev/nothing-of-the-kind"] if broken else [], gpus=1, shared=[str(server)])
    (server / "node.json").write_text(json.dumps({"nodes": [{"state": states, "reason": reason}]}))
    assert call(server, "health") == 0
    updates = [line for line in calls(server).splitlines() if "update" in line]
    assert len(updates) == bool(acts)
    assert all(acts in line for line in updates)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"gpus": 2}, "1 GPUs instead of 2"),
        ({"smi": "/nowhere/smi"}, "/nowhere/smi is not installed"),
        ({"shared": ["/nothing-of-the-kind"]}, "/nothing-of-the-kind: stat says"),
    ],
)
def test_health_tells_what_is_wrong(server: Path, settings: dict[str, object], says: str) -> None:
    configure(server, **settings)
    assert call(server, "health") == 0
    assert says in calls(server)


def test_health_misses_the_daemon_of_a_gpu_that_has_jobs(server: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job(server, monkeypatch, 7, "shard:t4:2(2/10)")
    assert call(server, "prolog") == 0
    (server / "run/mps/0/pipe/up").unlink()
    assert call(server, "health") == 0
    assert "no MPS daemon on GPU 0, which has jobs" in calls(server)


HALF, OTHER_HALF, WHOLE = Holding(1, 1, {0: 0.5}), Holding(2, 1, {0: 0.5}), Holding(3, 1, {1: 1.0})


@pytest.mark.parametrize(
    ("holding", "boards", "busy"),
    [
        (WHOLE, {1: Board(0, [])}, False),
        (WHOLE, {1: Board(50, [])}, True),
        (WHOLE, {1: Board(None, [3])}, True),
        (WHOLE, {1: Board(None, [])}, False),
        (WHOLE, {}, True),
        (HALF, {0: Board(50, [2])}, False),
        (HALF, {0: Board(50, [1, 2])}, True),
        (HALF, {0: Board(0, [1])}, False),
    ],
)
def test_a_gpu_works_for_the_job_that_is_on_it(holding: Holding, boards: dict[int, Board], busy: bool) -> None:
    assert is_busy(holding, [HALF, OTHER_HALF, WHOLE], boards, 1) is busy


def test_an_idle_job_is_warned_and_then_ended() -> None:
    verdict = Verdict()
    told = []
    for now, idle in [(0, [1, 2]), (50, [1, 2]), (60, [1]), (70, [1, 2]), (100, [1, 2]), (125, [1, 2]), (170, [1, 2])]:
        verdict = judge(verdict, idle, now, warn_s=50, limit_s=100)
        verdict.warned.update(verdict.warn)
        told.append((now, verdict.warn, verdict.end))
    assert [entry for entry in told if entry[1] or entry[2]] == [
        (50, [1, 2], []),
        (100, [], [1]),
        (125, [2], [1]),
        (170, [], [1, 2]),
    ]


def test_nobody_is_ended_unwarned() -> None:
    verdict = judge(Verdict(since={1: 0}), [1], 1000, warn_s=50, limit_s=100)
    assert (verdict.warn, verdict.end) == ([1], [])


def test_the_watcher_warns_ends_and_says_so(
    server: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    configure(server, idle_limit_s=3600, idle_warn_s=1800)
    Register(server / "run/jobs").add(Holding(7, 2001, {0: 1.0}), {})
    for now in (10000, 12000, 14000):
        monkeypatch.setattr("gpufence.idle.time.time", lambda now=now: now)
        assert call(server, "idle") == 0
    assert "notify 7 job 7 leaves its GPU idle and will be ended in 30 minutes" in calls(server)
    assert "update JobId=7 AdminComment=ended: its GPU was idle for 60 minutes\nscontrol 7" in calls(server)
    assert "was warned" in capsys.readouterr().out


def test_a_configuration_that_is_not_the_roles_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "server.json").write_text('{"nodes": 1}')
    assert call(tmp_path, "prolog") == 1
    assert "server.json" in capsys.readouterr().err
