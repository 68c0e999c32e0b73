# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Simulated vCenters for tests that want one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from simulated import StartVcenter, Vcenter, fleet, launch


@pytest.fixture
def start_vcenter(tmp_path: Path) -> Iterator[StartVcenter]:
    """Start simulators: `start_vcenter(model, faults=…, directory=…)`; a directory used before keeps its state."""
    yield from _starter(tmp_path)


def _starter(place: Path) -> Iterator[StartVcenter]:
    running: list[Vcenter] = []

    def start(model: Mapping[str, Any] | Path, *, directory: Path | None = None, **settings: Any) -> Vcenter:
        vcenter = launch(directory or place / f"vcenter-{len(running)}", model, **settings)
        running.append(vcenter)
        return vcenter

    try:
        yield start
    finally:
        for vcenter in running:
            vcenter.stop()


@pytest.fixture(scope="module")
def _one_host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Vcenter]:
    for start in _starter(tmp_path_factory.mktemp("shared")):
        yield start(fleet(1))


@pytest.fixture
def vcenter(_one_host: Vcenter, tmp_path: Path) -> Vcenter:
    """A vCenter with the host `esx-001.lab`, shared by tests that change nothing in it; nobody is logged in."""
    _one_host.session_dir = tmp_path / "sessions"
    _one_host.reset_counts()
    return _one_host
