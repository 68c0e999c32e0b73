# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A simulated vCenter for each test that wants one."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from simulated import BIN, PASSWORD, TIME_SCALE, USERNAME, StartVcenter, Vcenter, wait_for


@pytest.fixture
def start_vcenter(tmp_path: Path) -> Iterator[StartVcenter]:
    """Start simulators: `start_vcenter(model, faults=…, directory=…)`; a directory used before keeps its state."""
    running: list[Vcenter] = []

    def start(
        model: Mapping[str, Any] | Path,
        *,
        faults: list[dict[str, Any]] | None = None,
        time_scale: float = TIME_SCALE,
        latency_ms: float = 0,
        directory: Path | None = None,
        arguments: tuple[str, ...] = (),
    ) -> Vcenter:
        place = directory or tmp_path / f"vcenter-{len(running)}"
        place.mkdir(exist_ok=True)
        password = place / "password"
        password.touch(mode=0o600)
        password.write_text(PASSWORD)
        if isinstance(model, Path):
            model_file = model
        else:
            model_file = place / "model.yml"
            model_file.write_text(yaml.safe_dump(dict(model)))
        ready = place / "ready.json"
        ready.unlink(missing_ok=True)
        command = [
            str(BIN / "vsphere-simulator"), "serve", "--model", str(model_file), "--listen", "127.0.0.1:0",
            "--username", USERNAME, "--password-file", str(password), "--time-scale", str(time_scale),
            "--latency-ms", str(latency_ms), "--ready-file", str(ready), "--state", str(place / "state.json"),
            *arguments,
        ]  # fmt: skip
        if faults is not None:
            (place / "faults.yml").write_text(yaml.safe_dump(faults))
            command += ["--faults", str(place / "faults.yml")]
        with (place / "log").open("a") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log, text=True)
        try:
            wait_for(lambda: ready.exists() or process.poll() is not None, "the simulator is ready")
            if process.poll() is not None:
                pytest.fail((place / "log").read_text())
        except BaseException:
            process.kill()
            process.wait()
            raise
        vcenter = Vcenter(place, process, json.loads(ready.read_text()))
        running.append(vcenter)
        return vcenter

    try:
        yield start
    finally:
        for vcenter in running:
            vcenter.stop()
