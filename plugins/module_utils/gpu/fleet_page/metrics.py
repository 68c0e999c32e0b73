# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The numbers of the fleet page and of harvesting as metrics, in Prometheus' text format. Pure.

They are gauges for the textfile collector of node_exporter: each is what was so when the file was written.
"""

from __future__ import annotations

import collections
import dataclasses
import datetime
import math
import typing as t

from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.fleet_page.model import GpuState, HostState, Kind, Page

GB: t.Final = 1024**3
_HEAD: t.Final = "# HELP gpuops_"
Labels = tuple[tuple[str, str], ...]


@dataclasses.dataclass(frozen=True, slots=True)
class Metric:
    """One gauge: its name, what it says, and its values by labels."""

    name: str
    help: str
    values: tuple[tuple[Labels, float], ...]


def _one(name: str, text: str, value: float | None) -> Metric:
    return Metric(f"gpuops_{name}", text, () if value is None else (((), float(value)),))


def _many(name: str, text: str, label: str, values: t.Mapping[str, float | None]) -> Metric:
    found = tuple((((label, key),), float(value)) for key, value in sorted(values.items()) if value is not None)
    return Metric(f"gpuops_{name}", text, found)


def _none(words: t.Any) -> dict[str, float | None]:
    """0 for each of these states, so that a series does not end where it falls to nothing."""
    return dict.fromkeys(t.get_args(words), 0)


def _seconds(generated: str) -> float:
    return datetime.datetime.fromisoformat(generated).timestamp()


def of_page(page: Page, generated: str) -> list[Metric]:
    """What the fleet page says; jobs only where they were told."""
    total = page.totals
    hosts = collections.Counter(str(host.state) for cluster in page.clusters for host in cluster.hosts)
    off = total.vms - total.vms_running - total.vms_suspended
    profiles = [((("profile", row.profile), ("model", row.model)), row) for row in page.capacity]
    made = [
        _many("fleet_hosts", "Hosts with GPUs, by state.", "state", {**_none(HostState), **hosts}),
        _one("fleet_hosts_reboot_pending", "Hosts that wait for a reboot.", total.reboots),
        _many("fleet_gpus", "GPUs, by state.", "state", {**_none(GpuState), **total.gpus_by_state}),
        _one("fleet_gpu_memory_bytes", "Memory of the GPUs that are given out whole or in parts.", total.gb * GB),
        _one("fleet_gpu_memory_used_bytes", "Memory of GPUs that is given out.", total.gb_used * GB),
        _one("fleet_vgpus", "vGPUs in use.", total.vgpus),
        _many(
            "fleet_vms", "Machines with GPUs, by power state.", "power",
            {"on": total.vms_running, "suspended": total.vms_suspended, "off": off},
        ),
        Metric(
            "gpuops_fleet_profile_used", "How many of a profile are in use.",
            tuple((labels, float(row.used)) for labels, row in profiles),
        ),
        Metric(
            "gpuops_fleet_profile_free", "How many more of a profile, of it alone, could start now.",
            tuple((labels, float(row.free)) for labels, row in profiles),
        ),
        _many(
            "fleet_points", "What an operator should look at, by kind.", "kind",
            {
                **_none(Kind),
                **collections.Counter(str(point.kind) for point in page.points),
            },
        ),
        _one("fleet_report_timestamp_seconds", "When this was read.", _seconds(generated)),
    ]  # fmt: skip
    if page.jobs is not None:
        jobs = {"running": total.jobs_running, "waiting": total.jobs_waiting}
        made.append(_many("fleet_jobs", "Jobs of the pool, by state.", "state", jobs))
    return made


def of_day(report: t.Mapping[str, t.Any]) -> list[Metric]:
    """What a report of `harvest_day.report` says."""
    figures = report["figures"]
    worst = figures["desktops_worst"]
    kinds = {"desktops": "desktop", "compute": "compute"}
    last: dict[str, dict[str, float]] = {"asked for": {}, "got": {}}
    for kind, chart in zip(kinds.values(), report["charts"][1:], strict=False):
        for series in chart["series"]:
            last[series["name"]][kind] = series["values"][-1] * 1e9
    machines = {"desktop": figures["desktops"], "compute": figures["compute_machines"]}
    return [
        _many("harvest_machines", "Machines that share the hosts, by kind.", "kind", machines),
        _many(
            "harvest_cpu_satisfied_ratio", "CPU time that was got of what was asked for, over the day.", "kind",
            {"desktop": figures["desktops_got"], "compute": figures["compute_got"]},
        ),
        _one(
            "harvest_desktop_cpu_worst_ratio",
            "The least that a desktop got in five minutes of what it asked for.",
            worst["share"] if worst else None,
        ),
        _many("harvest_cpu_asked_hertz", "CPU asked for in the last five minutes.", "kind", last["asked for"]),
        _many("harvest_cpu_used_hertz", "CPU used in the last five minutes.", "kind", last["got"]),
        _one("harvest_cpu_capacity_hertz", "CPUs of the hosts.", figures["capacity_ghz"] * 1e9),
        _one("harvest_compute_ghz_hours", "CPU time that compute got over the day.", figures["harvested_ghz_hours"]),
        _many(
            "harvest_cpu_utilisation_ratio", "Used part of the CPUs over the day, with and without compute.", "compute",
            {"with": figures["utilisation_with"], "without": figures["utilisation_without"]},
        ),
        _one("harvest_day_timestamp_seconds", "When the day was read.", _seconds(report["generated"])),
    ]  # fmt: skip


def of_nights(report: t.Mapping[str, t.Any]) -> list[Metric]:
    """What the report of harvesting by hand-over (`harvest.json`) says of the nights that it has."""
    total = report["total"]
    shares = {"with": total["utilisation_with"], "without": total["utilisation_without"]}
    return [
        _one("harvest_nights", "Nights that the report tells of.", total["nights"]),
        _one("harvest_gpu_hours", "GPU-hours that compute got in these nights.", total["gpu_hours_harvested"]),
        _one("harvest_gpu_hours_available", "GPU-hours of these nights.", total["gpu_hours_total"]),
        _many("harvest_gpu_utilisation_ratio", "Used part of them, with and without compute.", "compute", shares),
        _one("harvest_desktops_lent", "Loans of desktops in these nights.", total["desktops_lent"]),
        _one("harvest_desktops_late", "Desktops that were not ready in time.", total["desktops_late"]),
        _one("harvest_jobs_requeued", "Jobs that were requeued for a desktop.", total["jobs_requeued"]),
        _one("harvest_nights_timestamp_seconds", "When the report was made.", _seconds(report["generated"])),
    ]


def text(metrics: t.Iterable[Metric]) -> str:
    """The file; a metric without a value is left out."""
    lines = []
    for metric in metrics:
        if metric.values:
            lines += [f"# HELP {metric.name} {metric.help}", f"# TYPE {metric.name} gauge"]
            lines += [f"{metric.name}{_labels(labels)} {_number(value)}" for labels, value in metric.values]
    return "".join(f"{line}\n" for line in lines)


def is_metrics(held: str) -> bool:
    """Whether a file is one of these, or empty."""
    return not held.strip() or held.startswith(_HEAD)


def _labels(labels: Labels) -> str:
    def quoted(value: str) -> str:
        return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")

    return "{" + ",".join(f'{name}="{quoted(value)}"' for name, value in labels) + "}" if labels else ""


def _number(value: float) -> str:
    return str(int(value)) if math.isfinite(value) and value.is_integer() else repr(value)
