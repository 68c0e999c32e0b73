# Copyright: (c) 2026, The gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""gpurun's decisions, on answers that Slurm 24.11 gave (data/: one node with two T4s, 10 shards each)."""

from __future__ import annotations

import json
import math
import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpurun import cli, container, job, queue, quota, settings, show, slurm
from gpurun.errors import (
    CredentialError,
    ImageError,
    QuotaError,
    RefusedError,
    SlurmError,
    UnreachableError,
    UsageError,
)
from gpurun.pool import Gpu, Node, device_size, index_list, read_nodes, split_gres
from gpurun.request import Grant, Wish, plan

DATA = Path(__file__).parent / "data"


def recorded(name: str) -> Any:
    return json.loads((DATA / f"{name}.json").read_text(encoding="utf-8"))


def server(
    name: str = "s1",
    *,
    gpus: int = 2,
    gpu_type: str = "t4",
    fence: str = "mps",
    shards: int = 10,
    memory_mb: int = 16384,
    used: tuple[float, ...] = (),
    state: str = "IDLE",
) -> Node:
    fraction, device_mb = device_size(gpu_type, memory_mb)
    uses = [*used, *[0.0] * (gpus - len(used))]
    return Node(name, fence, gpu_type, tuple(map(Gpu, uses)), fraction, device_mb, shards, (state,), "", 8)


def test_a_recorded_pool_is_read_with_the_use_of_each_gpu() -> None:
    (node,) = read_nodes(recorded("nodes"))
    assert (node.name, node.fence, node.gpu_type, node.shards, node.memory_mb) == ("pool-1", "mps", "t4", 10, 16384)
    assert [gpu.used for gpu in node.gpus] == [1.0, 0.5]
    assert node.usable


@pytest.mark.parametrize(
    ("text", "entries"),
    [
        ("gpu:t4:2(S:0),shard:t4:20", [("gpu", "t4", 2, "S:0"), ("shard", "t4", 20, "")]),
        ("gpu:4", [("gpu", "", 4, "")]),
        ("gpu:a100_1g.10gb:7(IDX:0-2,5)", [("gpu", "a100_1g.10gb", 7, "IDX:0-2,5")]),
        ("(null)", []),
        ("", []),
    ],
)
def test_gres_strings_are_split(text: str, entries: list[tuple[str, str, int, str]]) -> None:
    assert split_gres(text) == entries


def test_index_lists_are_spelt_out() -> None:
    assert index_list("0-2,5") == {0, 1, 2, 5}
    assert index_list("N/A") == set()


@pytest.mark.parametrize(
    ("gpu_type", "board_mb", "size"),
    [
        ("t4", 16384, (1.0, 16384)),
        ("a100_1g.10gb", 81920, (1 / 7, 10240)),
        ("3g.40gb", 81920, (3 / 7, 40960)),
        ("grid_a100-10c", 40960, (0.25, 10240)),
        ("v100", None, (1.0, None)),
    ],
)
def test_the_type_tells_how_much_of_a_board_a_device_is(
    gpu_type: str, board_mb: int | None, size: tuple[float, int | None]
) -> None:
    assert (
        device_size(gpu_type, board_mb) == pytest.approx(size) if size[1] else device_size(gpu_type, board_mb) == size
    )


@pytest.mark.parametrize(
    ("wish", "gres"),
    [
        (Wish(), "gpu:1"),
        (Wish(gpus=2), "gpu:2"),
        (Wish(fraction=0.5), "shard:5"),
        (Wish(fraction=0.1), "shard:1"),
        (Wish(fraction=0.01), "shard:1"),
        (Wish(fraction=0.55), "shard:6"),
        (Wish(memory_mb=5000), "shard:4"),
        (Wish(fraction=1.0), "gpu:1"),
        (Wish(gpu_type="t4"), "gpu:t4:1"),
    ],
)
def test_shared_gpus_are_asked_for_in_shards_and_whole_ones_as_gpus(wish: Wish, gres: str) -> None:
    assert plan(wish, [server()]).gres == gres


def test_a_fraction_of_several_gpus_is_one_part_on_each_server_and_says_so() -> None:
    grant = plan(Wish(gpus=2, fraction=0.5), [server("s1"), server("s2")])
    assert grant.arguments() == ["--gres=shard:5", "--nodes=2", "--ntasks=2", "--ntasks-per-node=1"]
    assert grant.note
    assert "2 servers" in grant.note


@pytest.mark.parametrize(
    ("wish", "gres"),
    [
        (Wish(fraction=0.1), "gpu:a100_1g.10gb:1"),
        (Wish(fraction=0.4), "gpu:a100_3g.40gb:1"),
        (Wish(memory_mb=20000), "gpu:a100_3g.40gb:1"),
    ],
)
def test_with_mig_a_fraction_is_the_smallest_slice_that_is_large_enough(wish: Wish, gres: str) -> None:
    pool = [
        server("m1", gpu_type="a100_1g.10gb", fence="mig", shards=0, memory_mb=81920, gpus=7),
        server("m2", gpu_type="a100_3g.40gb", fence="mig", shards=0, memory_mb=81920, gpus=2),
    ]
    assert plan(wish, pool).gres == gres


@pytest.mark.parametrize(
    ("wish", "pool", "words"),
    [
        (Wish(gpus=3), [server()], "at most 2; use -n 2"),
        (Wish(gpus=2, fraction=0.5), [server()], "use -n 1"),
        (Wish(memory_mb=20000), [server()], "16384 MB"),
        (Wish(gpu_type="h100"), [server()], "it has t4"),
        (Wish(), [], "no GPU server"),
        (Wish(cpus=99), [server()], "at most 8; use --cpus 8"),
        (Wish(fraction=0.5), [server(shards=0)], "cannot be shared"),
        (Wish(), [server(gpu_type="a100_3g.40gb", fence="mig", shards=0, memory_mb=81920)], "use -p 0.42 or less"),
    ],
)
def test_what_cannot_be_had_is_refused_with_what_could(wish: Wish, pool: list[Node], words: str) -> None:
    with pytest.raises(RefusedError, match=words):
        plan(wish, pool)


@pytest.mark.parametrize(
    "wish",
    [
        Wish(gpus=0),
        Wish(fraction=0.0),
        Wish(fraction=-0.5),
        Wish(fraction=1.5),
        Wish(memory_mb=0),
        Wish(fraction=0.5, memory_mb=5),
        Wish(fraction=math.nan),
        Wish(cpus=0),
    ],
)
def test_nonsense_is_a_usage_error(wish: Wish) -> None:
    with pytest.raises(UsageError):
        plan(wish, [server()])


def test_servers_with_room_now_come_before_a_better_fit_that_is_full() -> None:
    small_but_full = server("small", gpu_type="t4", memory_mb=16384, gpus=1, used=(1.0,))
    large_and_free = server("large", gpu_type="a100", memory_mb=40960, gpus=1)
    grant = plan(Wish(memory_mb=8000), [small_but_full, large_and_free])
    assert grant.node_names == ("large",)
    assert grant.constraint == "gpu_a100"


def test_a_pool_that_is_down_is_waited_for_not_refused() -> None:
    assert plan(Wish(), [server(state="DOWN")]).gres == "gpu:1"


@given(
    st.floats(min_value=0.001, max_value=1.0),
    st.integers(min_value=1, max_value=64),
    st.lists(st.floats(min_value=0, max_value=1), min_size=1, max_size=8),
)
def test_a_grant_is_never_less_than_asked_for_nor_more_than_one_shard_too_much(
    fraction: float, shards: int, used: list[float]
) -> None:
    grant = plan(Wish(fraction=fraction), [server(gpus=len(used), shards=shards, used=tuple(used))])
    assert fraction - 1e-6 <= grant.fraction <= fraction + 1 / shards + 1e-6
    assert grant.fraction <= 1


def grant_of(hundredths: int) -> Grant:
    return Grant("gpu:1", None, 1, 1.0, None, ("s1",), hundredths)


def test_the_recorded_quota_covers_one_and_a_half_gpus_and_no_more() -> None:
    limits = quota.read_limits(recorded("associations"), recorded("qos"), "alice")
    assert [(limit.whose, limit.hundredths) for limit in limits] == [("user alice", 150)]
    quota.check(grant_of(150), limits)
    with pytest.raises(QuotaError, match=r"1\.5 GPU at a time, and this asks for 2"):
        quota.check(grant_of(200), limits)


def test_waiting_tells_the_place_and_the_reason() -> None:
    place = queue.place(recorded("queue"), "gpurun:me")
    assert place
    assert "number 1 of 1" in place.text()
    assert "your quota is in use" in place.text()
    assert queue.place(recorded("queue"), "gpurun:other") is None


def test_where_the_site_hides_the_jobs_of_others_their_number_is_told() -> None:
    place = queue.place(recorded("queue"), "gpurun:me", in_pool=7)
    assert place
    assert "number 1 of your 1, 7 in the whole pool" in place.text()
    alone = queue.place(recorded("queue"), "gpurun:me", in_pool=1)
    assert alone
    assert "number 1 of 1 in the queue" in alone.text()


@pytest.mark.parametrize(
    ("reason", "over"),
    [
        ("AssocGrpBillingLimit", True),
        ("QOSMaxGRESPerUser", True),
        ("QOSGrpBillingLimit", True),
        ("Resources", False),
        ("Priority", False),
        ("AssocMaxJobsLimit", False),
    ],
)
def test_a_quota_in_use_is_told_from_a_full_pool(reason: str, over: bool) -> None:
    assert queue.over_quota({"state_reason": reason}) is over


def test_a_quota_that_is_used_up_names_the_jobs_that_use_it() -> None:
    reply = recorded("queue")
    job = queue.find(reply, "gpurun:me")
    assert job
    running = [str(each["job_id"]) for each in reply["jobs"] if "RUNNING" in queue.states(each)]
    assert f"used up by your jobs {', '.join(running)}" in queue.used_up(reply, job)
    assert "others of your group" in queue.used_up({"jobs": []}, job)


def test_who_is_in_no_tenant_is_told_before_anything_is_asked_for() -> None:
    associations = recorded("associations")
    quota.check_tenant(associations, "alice", None)
    with pytest.raises(CredentialError, match="dave is in no tenant"):
        quota.check_tenant(associations, "dave", None)
    with pytest.raises(CredentialError, match="alice is not in the account other; use --account"):
        quota.check_tenant(associations, "alice", "other")


def test_usage_adds_whole_gpus_and_shards() -> None:
    report = show.usage([], recorded("queue"), "alice", 10)
    assert report["in_use"] == 1.5
    assert [job["gpus"] for job in report["running"]] == [1.0, 0.5]
    assert len(report["waiting"]) == 1
    assert show.usage([], recorded("queue"), "bob", 10)["running"] == []


def test_health_is_bad_as_soon_as_one_server_is() -> None:
    assert show.health([server()], recorded("ping"))["healthy"]
    report = show.health([server(), server("s2", state="DOWN")], recorded("ping"))
    assert not report["healthy"]
    assert "s2" in show.health_table(report)


def test_free_parts_of_a_drained_server_are_not_offered() -> None:
    (record, _other) = show.gpus([server(state="DRAIN")])
    assert (record["free"], record["state"]) == (0.0, "unavailable")
    assert "0.00 of 2 GPUs free" in show.gpu_table([server(state="DRAIN")])


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("slurm_load_jobs error: Unable to contact slurm controller (connect failure)", UnreachableError),
        ("srun: error: Unable to allocate resources: Invalid authentication credential", CredentialError),
        ("sinfo: error: Munge decode failed: Expired credential", CredentialError),
        ("srun: error: Invalid --time specification", SlurmError),
        ("srun: error: Unable to allocate resources: Requested node configuration is not available", RefusedError),
        ("", SlurmError),
    ],
)
def test_slurms_errors_have_their_own_exit_codes(text: str, kind: type[Exception]) -> None:
    assert type(slurm.explain(text)) is kind


def test_images_are_found_by_name_and_a_wrong_name_is_answered_with_near_ones(tmp_path: Path) -> None:
    (tmp_path / "pytorch.sif").touch()
    site = settings.Settings(images=(str(tmp_path),))
    assert container.find_image("pytorch", site) == tmp_path / "pytorch.sif"
    with pytest.raises(ImageError, match=r"pytorch\.sif"):
        container.find_image("pytroch", site)


def test_the_container_sees_the_shared_storage_and_the_gpu(tmp_path: Path) -> None:
    site = settings.Settings(shared=("/home", "/data"))
    command = container.command(Path("/data/x.sif"), Path("/home/a"), ["/opt:/opt:ro"], site, gpu=True)
    assert command == [
        "apptainer",
        "exec",
        "--nv",
        "--bind",
        "/home",
        "--bind",
        "/data",
        "--bind",
        "/opt:/opt:ro",
        "--pwd",
        "/home/a",
        "/data/x.sif",
    ]
    with pytest.raises(RefusedError, match="not on shared storage"):
        container.check_shared(tmp_path, site)


@pytest.mark.parametrize(
    ("text", "words"), [("{", "not JSON"), ('{"shard": 1}', "unknown setting shard"), ('["x"]', "not an object")]
)
def test_a_broken_settings_file_is_named(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "gpurun.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UsageError, match=words):
        settings.load(str(path))


def test_settings_are_read_and_have_defaults(tmp_path: Path) -> None:
    path = tmp_path / "gpurun.json"
    path.write_text('{"shared": ["/work"], "require_signed": true}', encoding="utf-8")
    assert settings.load(str(path)) == settings.Settings(shared=("/work",), require_signed=True)
    assert settings.load(str(tmp_path / "none.json")) == settings.Settings()


def sif(kinds: list[int], *, magic: bytes = b"SIF_MAGIC\0") -> bytes:
    """An image with these kinds of objects, as the format's reference lays them out; 0 is a free place."""
    header = struct.pack(
        "<32s10s3s3s16sqqqqqqqq", b"#!/usr/bin/env run-singularity\n", magic, b"01", b"02", b"", *(0,) * 8
    )
    header = header[:88] + struct.pack("<qq", len(kinds), 4096) + header[104:]
    table = b"".join(struct.pack("<i?III7q128s384s", kind, kind != 0, 1, 0, 0, *(0,) * 7, b"", b"") for kind in kinds)
    return header.ljust(4096, b"\0") + table


@pytest.mark.parametrize(
    ("content", "signed"),
    [
        (sif([0x4001, 0x4004, 0x4005, 0]), True),
        (sif([0x4001, 0x4004, 0, 0]), False),
        (sif([0x4005], magic=b"NOT_MAGIC\0"), False),
        (sif([0x4005])[:4200], False),
        (b"", False),
        (b"x" * 5000, False),
    ],
)
def test_a_client_without_the_runtime_sees_whether_an_image_is_signed(
    tmp_path: Path, content: bytes, signed: bool
) -> None:
    image = tmp_path / "x.sif"
    image.write_bytes(content)
    assert container.has_signature(image) is signed
    site = settings.Settings(require_signed=True, runtime="no-such-runtime")
    if signed:
        container.check_signature(image, site)
    else:
        with pytest.raises(ImageError, match="is not signed"):
            container.check_signature(image, site)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["run", "-p", "abc", "--", "true"], "invalid float value: 'abc'"),
        (["run", "-p", "0", "--", "true"], "more than 0"),
        (["run", "-p", "0.5", "--time", "soon", "--", "true"], "--time soon"),
        (["run"], "no command"),
        (["fly"], "invalid choice"),
        ([], "required: COMMAND"),
    ],
)
def test_a_wrong_command_line_is_one_line(
    words: list[str], says: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(container, "check_shared", lambda *_: None)
    assert cli.main(words) == 2
    line = capsys.readouterr().err
    assert line.startswith("gpurun: ")
    assert says in line
    assert line.count("\n") == 1


def test_errors_are_json_too_where_that_is_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["run", "--json", "-p", "x", "--", "true"]) == 2
    assert json.loads(capsys.readouterr().out)["exit_code"] == 2
    assert cli.main(["run", "-p", "x", "--", "program", "--json"]) == 2
    assert capsys.readouterr().out == ""


def test_what_is_said_beside_the_job_is_json_on_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    job.Voice(as_json=True).say("waiting", "job 3 waits", position=2)
    job.Voice(quiet=True).say("waiting", "job 3 waits")
    out, error = capsys.readouterr()
    assert (out, json.loads(error)) == ("", {"event": "waiting", "message": "job 3 waits", "position": 2})


@pytest.mark.parametrize("limit", ["30", "1:30", "1:30:00", "2-0", "2-12:30", "2-12:30:00", "UNLIMITED"])
def test_slurms_forms_of_a_time_limit_are_taken(limit: str) -> None:
    assert cli.TIME.fullmatch(limit)
