# Copyright: (c) 2026, The gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The GPUs of this machine as the driver tells them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from .text import Family, Labels, counter, gauge

FIELDS = (
    "index", "uuid", "name", "driver_version", "utilization.gpu", "memory.total", "memory.used", "temperature.gpu",
    "power.draw", "ecc.errors.uncorrected.volatile.total",
)  # fmt: skip
QUERY = ("nvidia-smi", f"--query-gpu={','.join(FIELDS)}", "--format=csv,noheader,nounits")
MIB = 2**20


def up(answers: bool) -> Family:
    """Whether the driver answers; the only metric where it does not."""
    return gauge("gpu_device_up", "Whether the GPU driver answers (1) or not (0).", [({}, float(answers))])


def families(output: str) -> list[Family]:
    """Everything, from what QUERY prints. What a GPU does not know, such as ECC errors without ECC, is left out."""
    rows = [dict(zip(FIELDS, row, strict=True)) for row in _rows(output)]
    known = [({"gpu": row["index"], "uuid": row["uuid"]}, row) for row in rows]

    def values(field: str, factor: float = 1) -> Iterator[tuple[Labels, float]]:
        for labels, row in known:
            value = _number(row[field])
            if value is not None:
                yield labels, value * factor

    return [
        up(True),
        gauge(
            "gpu_device_info",
            "A GPU of this machine.",
            (({**labels, "model": row["name"], "driver": row["driver_version"]}, 1) for labels, row in known),
        ),
        gauge(
            "gpu_device_busy_ratio", "The part of the time in which the GPU computed, 0 to 1.", values(FIELDS[4], 0.01)
        ),
        gauge("gpu_device_memory_bytes", "Memory of the GPU.", values("memory.total", MIB)),
        gauge("gpu_device_memory_used_bytes", "Memory in use.", values("memory.used", MIB)),
        gauge("gpu_device_temperature_celsius", "Temperature of the GPU.", values("temperature.gpu")),
        gauge("gpu_device_power_watts", "Power that the GPU draws.", values("power.draw")),
        counter(
            "gpu_device_ecc_uncorrected_errors_total",
            "Memory errors that could not be corrected, since the driver was loaded.",
            values(FIELDS[9]),
        ),
    ]


def _rows(output: str) -> Iterator[Sequence[str]]:
    for line in output.splitlines():
        row = [word.strip() for word in line.split(",")]
        if len(row) == len(FIELDS):
            yield row


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
