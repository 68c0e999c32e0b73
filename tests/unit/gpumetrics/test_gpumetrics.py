"""Metrics of the pool and of GPUs from what Slurm and nvidia-smi answer, and the dashboard against them.

The answers are Slurm 24.11's, cut down to what is read; the Molecule scenario has the dashboard asked by a Prometheus.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from gpumetrics import cli, gpus, pool, text

HERE = Path(__file__).parent
FILES = Path(cli.__file__).parents[1]
NOW = 1796040400.0
SMI = (
    "0, GPU-a, Tesla T4, 550.163.01, 37, 15360, 4096, 54, 61.20, 2\n"
    "1, GPU-b, Tesla T4, 550.163.01, 0, 15360, 0, 38, [N/A], [N/A]\n"
)
SAMPLE = re.compile(r'(?P<name>[a-z_]+)(?:\{(?P<labels>(?:[a-z_]+="(?:[^"\\]|\\.)*",?)*)\})? (?P<value>\S+)')
OURS = re.compile(r"\bgpu_(?:pool|device)_[a-z0-9_]+")
# The node exporter's own; the scenario sees that they are there.
THEIRS = {
    "node_cpu_seconds_total", "node_load1", "node_memory_MemAvailable_bytes", "node_memory_MemTotal_bytes",
    "node_network_receive_bytes_total", "node_textfile_mtime_seconds", "node_textfile_scrape_error", "node_uname_info",
}  # fmt: skip


@pytest.fixture(scope="module")
def replies() -> dict[str, Any]:
    return json.loads((HERE / "data" / "slurm.json").read_text())  # type: ignore[no-any-return]


def samples(families: list[text.Family]) -> dict[tuple[str, str], float]:
    """(name, labels) -> value of what is written."""
    found = {}
    for line in text.render(families).splitlines():
        if not line.startswith("#"):
            match = SAMPLE.fullmatch(line)
            assert match, line
            found[match["name"], match["labels"] or ""] = float(match["value"])
    return found


def test_servers_and_their_gpus(replies: dict[str, Any]) -> None:
    found = samples(pool.families(replies, NOW))
    assert found["gpu_pool_gpus", 'server="gpu-01",gpu_type="t4"'] == 2
    assert found["gpu_pool_gpus_used", 'server="gpu-01",gpu_type="t4"'] == 0.7
    assert found["gpu_pool_gpu_used_ratio", 'server="gpu-01",gpu_type="t4",gpu="0"'] == 0.5
    assert found["gpu_pool_gpus", 'server="gpu-02",gpu_type="a100_1g.5gb"'] == 7
    assert found["gpu_pool_gpu_used_ratio", 'server="gpu-02",gpu_type="a100_1g.5gb",gpu="2"'] == 1
    assert found["gpu_pool_server_info", 'server="gpu-02",gpu_type="a100_1g.5gb",fence="mig"'] == 1
    states = {labels: value for (name, labels), value in found.items() if name == "gpu_pool_server_state"}
    assert [labels for labels, value in states.items() if value] == [
        'server="gpu-01",state="in_service"', 'server="gpu-02",state="draining"', 'server="gpu-03",state="down"',
    ]  # fmt: skip
    assert len(states) == 12


@pytest.mark.parametrize(
    ("states", "state"),
    [
        (["IDLE"], "in_service"),
        (["ALLOCATED"], "in_service"),
        (["IDLE", "DRAIN"], "drained"),
        (["ALLOCATED", "DRAIN"], "draining"),
        (["DOWN", "DRAIN"], "down"),
        (["IDLE", "NOT_RESPONDING"], "down"),
        (["IDLE", "MAINTENANCE", "RESERVED"], "drained"),
    ],
)
def test_state_of_a_server(states: list[str], state: str) -> None:
    assert pool.server_state(states) == state


def test_jobs_and_tenants(replies: dict[str, Any]) -> None:
    found = samples(pool.families(replies, NOW))
    assert [found["gpu_pool_jobs", f'state="{state}"'] for state in pool.JOB_STATES] == [2, 2, 1]
    assert found["gpu_pool_pending_jobs", 'reason="Resources"'] == 1
    assert found["gpu_pool_pending_oldest_seconds", ""] == 1400
    assert found["gpu_pool_tenant_gpus_used", 'tenant="vision"'] == 0.7
    assert found["gpu_pool_tenant_jobs", 'tenant="biology",state="pending"'] == 1
    assert found["gpu_pool_tenant_jobs", 'tenant="none",state="other"'] == 1
    assert found["gpu_pool_jobs_submitted_total", ""] == 14
    assert found["gpu_pool_jobs_finished_total", 'result="canceled"'] == 1
    assert found["gpu_pool_accounting_backlog_records", ""] == 3


def test_an_empty_pool_tells_zeros() -> None:
    found = samples(pool.families({"nodes": {}, "queue": {}, "statistics": {}}, NOW))
    assert found["gpu_pool_up", ""] == 1
    assert found["gpu_pool_jobs", 'state="pending"'] == 0
    assert found["gpu_pool_pending_oldest_seconds", ""] == 0


def test_gpus_tell_what_they_know() -> None:
    found = samples(gpus.families(SMI))
    assert found["gpu_device_busy_ratio", 'gpu="0",uuid="GPU-a"'] == 0.37
    assert found["gpu_device_memory_used_bytes", 'gpu="0",uuid="GPU-a"'] == 4 * 2**30
    assert found["gpu_device_ecc_uncorrected_errors_total", 'gpu="0",uuid="GPU-a"'] == 2
    assert found["gpu_device_info", 'gpu="1",uuid="GPU-b",model="Tesla T4",driver="550.163.01"'] == 1
    assert ("gpu_device_ecc_uncorrected_errors_total", 'gpu="1",uuid="GPU-b"') not in found
    assert ("gpu_device_power_watts", 'gpu="1",uuid="GPU-b"') not in found


def test_names_follow_the_conventions_of_prometheus(replies: dict[str, Any]) -> None:
    families = [*pool.families(replies, NOW), *gpus.families(SMI)]
    assert len({family.name for family in families}) == len(families)
    for family in families:
        assert family.help.endswith((".", ")")), family
        assert family.name.endswith("_total") == (family.kind == "counter"), family
        assert re.fullmatch(r"gpu_(pool|device)_[a-z_]+", family.name), family


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_whatever_a_name_holds_is_one_label(name: str) -> None:
    lines = text.render([text.gauge("gpu_pool_x", "Help.", [({"tenant": name}, 1.5)])]).split("\n")
    assert len(lines) == 4
    match = SAMPLE.fullmatch(lines[2]) if "\r" not in name else re.fullmatch(SAMPLE.pattern, lines[2], re.DOTALL)
    assert match is not None
    held = match["labels"].removeprefix('tenant="').removesuffix('"')
    assert re.sub(r"\\(.)", lambda one: "\n" if one[1] == "n" else one[1], held) == name


def test_a_file_is_replaced_as_a_whole(tmp_path: Path) -> None:
    file = tmp_path / "pool.prom"
    text.write(file, "old 1\n")
    with file.open() as reader:
        text.write(file, "new 1\n")
        # Who reads the old one goes on reading the old one.
        assert reader.read() == "old 1\n"
    assert file.read_text() == "new 1\n"
    assert file.stat().st_mode & 0o777 == 0o644
    assert list(tmp_path.iterdir()) == [file]


def program(directory: Path, name: str, body: str) -> None:
    (directory / name).write_text(f"#!/bin/sh\n{body}\n")
    (directory / name).chmod(0o755)


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, replies: dict[str, Any]) -> Path:
    """Stand-ins for Slurm's programs that give the recorded answers."""
    directory = tmp_path / "bin"
    directory.mkdir()
    for name, reply in (("scontrol", "nodes"), ("squeue", "queue"), ("sdiag", "statistics")):
        (directory / f"{reply}.json").write_text(json.dumps(replies[reply]))
        program(directory, name, f'[ "$1" = --json ] && /bin/cat {directory}/{reply}.json')
    monkeypatch.setenv("PATH", str(directory))
    return directory


def test_the_command_writes_the_pool(programs: Path, tmp_path: Path) -> None:
    assert cli.main(["pool", str(tmp_path / "pool.prom")]) == 0
    assert "gpu_pool_up 1\n" in (tmp_path / "pool.prom").read_text()


@pytest.mark.parametrize(
    ("what", "name", "body", "says"),
    [
        ("pool", "squeue", "echo error: Unable to contact slurm controller >&2; exit 1", "squeue: error: Unable"),
        ("pool", "sdiag", "echo hello", "Slurm's answer is no JSON"),
        ("gpus", "nvidia-smi", "echo Failed to initialize NVML; exit 18", "nvidia-smi: Failed to initialize NVML"),
        ("gpus", "nothing", "", "nvidia-smi is not installed"),
    ],
)  # fmt: skip
def test_where_nobody_answers_that_is_all_it_tells(
    programs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], what: str, name: str, body: str, says: str
) -> None:
    program(programs, name, body)
    file = tmp_path / "it.prom"
    file.write_text("gpu_pool_jobs 7\n")
    assert cli.main([what, str(file)]) == 1
    assert says in capsys.readouterr().err
    told = [line for line in file.read_text().splitlines() if not line.startswith("#")]
    assert told == ["gpu_pool_up 0" if what == "pool" else "gpu_device_up 0"]


def test_a_file_that_cannot_be_written_is_an_error_of_one_line(
    programs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["pool", str(tmp_path / "none" / "pool.prom")]) == 1
    assert capsys.readouterr().err.endswith("pool.prom cannot be written: No such file or directory\n")


@pytest.fixture(scope="module")
def exported(replies: dict[str, Any]) -> dict[str, set[str]]:
    """By metric the labels that it has."""
    families = [*pool.families(replies, NOW), *gpus.families(SMI)]
    return {family.name: {name for labels, _ in family.samples for name in labels} for family in families}


def asked(dashboard: Any) -> list[tuple[str, str, str]]:
    return [
        (panel["title"], target["expr"], target["legendFormat"])
        for panel in dashboard["panels"]
        for target in panel.get("targets", ())
    ]


def test_the_dashboard_asks_for_what_is_exported(exported: dict[str, set[str]]) -> None:
    dashboard = json.loads((FILES / "dashboard.json").read_text())
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])
    used: set[str] = set()
    for panel, expression, legend in asked(dashboard):
        names = set(OURS.findall(expression))
        used |= names
        assert names <= set(exported), panel
        others = set(re.findall(r"\bnode_[a-zA-Z0-9_]+", expression))
        assert others <= THEIRS, panel
        labels = {label for name in names for label in exported[name]} | {"instance", "file"}
        assert set(re.findall(r"\{\{(\w+)\}\}", legend)) <= labels, panel
        if not others:
            assert set(re.findall(r'(\w+)(?:=~|!=|!~|=)"', expression)) <= labels, panel
    never = {name for name in exported if name not in used}
    assert never == {
        "gpu_device_info", "gpu_device_up", "gpu_pool_jobs_submitted_total", "gpu_pool_tenant_jobs",
    }, "the documentation says what the dashboard leaves out"  # fmt: skip


def test_alerts_are_about_what_is_exported(exported: dict[str, set[str]]) -> None:
    for group in yaml.safe_load((FILES / "gpu-pool.rules.yml").read_text())["groups"]:
        for rule in group["rules"]:
            assert set(OURS.findall(rule["expr"])) <= set(exported), rule["alert"]
            assert rule["annotations"]["summary"], rule["alert"]
            assert rule["annotations"]["description"], rule["alert"]


def test_every_metric_is_documented(exported: dict[str, set[str]]) -> None:
    told = (FILES.parents[2] / "docs" / "monitoring.md").read_text()
    for name, labels in exported.items():
        row = next((line for line in told.splitlines() if line.startswith(f"| `{name}`")), "")
        assert row, f"docs/monitoring.md has no row for {name}"
        assert all(f"`{label}`" in row for label in labels), row
