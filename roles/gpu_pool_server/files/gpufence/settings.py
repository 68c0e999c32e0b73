# Copyright: (c) 2026, The gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the role writes of this server into /etc/gpu-pool/server.json."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

DEFAULT_PATH = Path("/etc/gpu-pool/server.json")


@dataclasses.dataclass(frozen=True)
class Settings:
    """Times in seconds, memory in MB. `devices`: files that must exist. `gpus`: number of boards, 0 for any.

    `look`: whether there is a driver to ask; without one, device files are all there is.
    """

    node: str
    fence: str
    devices: tuple[str, ...] = ()
    gpus: int = 0
    gpu_memory_mb: int = 0
    look: bool = True
    shared: tuple[str, ...] = ()
    idle_limit_s: int = 0
    idle_warn_s: int = 0
    idle_below_percent: int = 1
    run: str = "/run/gpu-pool"
    smi: str = "nvidia-smi"
    mps_control: str = "nvidia-cuda-mps-control"


def load(path: Path = DEFAULT_PATH) -> Settings:
    """Read the file. Raises OSError, ValueError or TypeError for one that the role has not written."""
    found = json.loads(path.read_text(encoding="utf-8"))
    lists = {key: tuple(found[key]) for key in ("devices", "shared") if key in found}
    return Settings(**{**found, **lists})
