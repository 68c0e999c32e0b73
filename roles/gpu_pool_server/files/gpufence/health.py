# Copyright: (c) 2026, The gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Whether this server can serve: Slurm's health check. It drains the server, and takes it back when all is well."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from .fence import Fence
from .settings import Settings
from .tools import FenceError, Slurm, Smi, run

REASON = "gpu-pool health: "


def problems(settings: Settings, fence: Fence) -> list[str]:
    """What is wrong, a few words each."""
    found = [f"no {device}" for device in settings.devices if not Path(device).exists()]
    if settings.look:
        try:
            seen = len(Smi(settings.smi).gpus("index"))
            if settings.gpus and seen != settings.gpus:
                found.append(f"{seen} GPUs instead of {settings.gpus}")
        except FenceError as error:
            found.append(str(error))
    for directory in settings.shared:
        try:
            # A file system that hangs would hang this process too.
            run(["stat", "--file-system", directory], timeout_s=10)
        except FenceError as error:
            found.append(f"{directory}: {error}")
    if settings.fence == "mps":
        held = sorted({gpu for holding in fence.register.all() for gpu in holding.shared})
        found += [f"no MPS daemon on GPU {gpu}, which has jobs" for gpu in held if not fence.mps(gpu).alive()]
    return found


def act(slurm: Slurm, found: Sequence[str]) -> str | None:
    """Drain or resume if need be; returns what was done. A server that somebody else drained stays drained."""
    states, reason = slurm.state()
    drained = "DRAIN" in states
    if found and not drained:
        slurm.drain(REASON + "; ".join(found))
        return f"drained: {'; '.join(found)}"
    if not found and drained and reason.startswith(REASON):
        slurm.resume()
        return "back in service"
    return None
