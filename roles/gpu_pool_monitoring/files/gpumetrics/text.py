# Copyright: (c) 2026, The gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Prometheus' text format, and files that are replaced as a whole."""

from __future__ import annotations

import dataclasses
import os
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path

Labels = Mapping[str, str]


@dataclasses.dataclass(frozen=True)
class Family:
    """A metric with its samples (labels, value). `kind` is gauge or counter; a counter's name ends in _total."""

    name: str
    kind: str
    help: str
    samples: tuple[tuple[Labels, float], ...]


def gauge(name: str, text: str, samples: Iterable[tuple[Labels, float]]) -> Family:
    """Something that goes up and down."""
    return Family(name, "gauge", text, tuple(samples))


def counter(name: str, text: str, samples: Iterable[tuple[Labels, float]]) -> Family:
    """Something that only grows, until its source begins anew."""
    return Family(name, "counter", text, tuple(samples))


def render(families: Iterable[Family]) -> str:
    """All families that have samples."""
    lines = []
    for family in families:
        if not family.samples:
            continue
        lines += [f"# HELP {family.name} {family.help}", f"# TYPE {family.name} {family.kind}"]
        for labels, value in family.samples:
            words = ",".join(f'{name}="{_escaped(text)}"' for name, text in labels.items())
            lines.append(f"{family.name}{{{words}}} {value:.12g}" if words else f"{family.name} {value:.12g}")
    return "\n".join(lines) + "\n"


def write(path: Path, text: str) -> None:
    """Replace the file: the exporter sees the old one or the new one. It reads files that end in .prom only."""
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".new", dir=path.parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(text)
        Path(name).chmod(0o644)
        Path(name).replace(path)
    except OSError:
        Path(name).unlink(missing_ok=True)
        raise


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
