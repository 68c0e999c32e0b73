# Copyright: (c) 2026, The gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Set and clean the fence of a job: what Slurm's prolog and epilog do on a server."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

from .holdings import Holding, Register, largest, parts_of
from .settings import Settings
from .tools import ANSWERS_WITHIN_S, FenceError, Mps, Slurm, Smi

# Processes of a job that was ended may take a moment to go.
GONE_WITHIN_S = 15.0


class Fence:
    """The fence of this server. Both ways can be gone again and again, with the same end."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._slurm = Slurm(settings.node)
        self._smi = Smi(settings.smi)
        self._run = Path(settings.run)
        self.register = Register(self._run / "jobs")

    def mps(self, gpu: int) -> Mps:
        """The daemon of a GPU."""
        return Mps(self._settings.mps_control, self._run / "mps", gpu)

    def wanted(self, environment: Mapping[str, str]) -> Holding | None:
        """What the job that the prolog's environment names has here; None without GPUs.

        Waits for a controller where none answers. Raises FenceError: then the job must not start.
        """
        if not environment.get("SLURM_JOB_GPUS"):
            return None
        number, uid = int(environment["SLURM_JOB_ID"]), int(environment["SLURM_JOB_UID"])
        self._devices_exist()
        details = self._slurm.job(number, ANSWERS_WITHIN_S).get("gres_detail") or []
        here = self._slurm.place(environment["SLURM_JOB_NODELIST"]) if len(details) > 1 else 0
        holding = Holding(number, uid, parts_of(details[here] if details else ""))
        if not holding.parts:
            raise FenceError(f"Slurm does not tell which GPUs job {number} has")
        return holding

    def put_up(self, holding: Holding) -> None:
        """Around what a job has. Raises FenceError: then it must not start."""
        number, uid = holding.job, holding.uid
        others = [other for other in self.register.all() if other.job != number]
        if self._settings.fence == "mig" and self._settings.look:
            self._mig_is_on()
        if self._settings.fence != "mps" or not holding.shared:
            self.register.add(holding, {})
            return
        for gpu in holding.shared:
            for other in others:
                if gpu in other.parts and other.uid != uid:
                    raise FenceError(f"GPU {gpu} has job {other.job} of another user, and MPS serves one at a time")
        self.register.add(holding, self._variables(holding))
        for gpu in holding.shared:
            self._fit(gpu, [*others, holding])

    def clean(self, environment: Mapping[str, str]) -> None:
        """After the job that the epilog's environment names. Raises FenceError: then nobody must come after it."""
        number = int(environment["SLURM_JOB_ID"])
        holdings = self.register.all()
        others = [other for other in holdings if other.job != number]
        for holding in holdings:
            if holding.job != number:
                continue
            left = {gpu for gpu in holding.parts if not any(gpu in other.parts for other in others)}
            if self._settings.fence == "mps":
                for gpu in holding.shared:
                    self._fit(gpu, others)
            if self._settings.look and self._settings.fence != "mig":
                self._nobody_on(left)
        self.register.remove(number)

    def reset(self) -> None:
        """Take every fence away; for a server without jobs."""
        for holding in self.register.all():
            self.register.remove(holding.job)
        for directory in (self._run / "mps").glob("*"):
            self.mps(int(directory.name)).stop()

    def _fit(self, gpu: int, holdings: list[Holding]) -> None:
        """Have the GPU's daemon and its limits fit the jobs."""
        part = largest(holdings, gpu)
        mps = self.mps(gpu)
        if not part:
            mps.stop()
            return
        mps.start()
        mps.limit(self._memory(part), max(1, round(100 * part)))

    def _memory(self, part: float) -> int:
        return int(self._settings.gpu_memory_mb * part)

    def _variables(self, holding: Holding) -> dict[str, str]:
        """A job's own limits, which may be lower than those of the daemon that it shares with its user's other jobs."""
        gpu = holding.shared[0]
        part = holding.parts[gpu]
        found = {
            "CUDA_MPS_PIPE_DIRECTORY": str(self.mps(gpu).pipe),
            "CUDA_MPS_ACTIVE_THREAD_PERCENTAGE": str(max(1, round(100 * part))),
        }
        if self._memory(part):
            found["CUDA_MPS_PINNED_DEVICE_MEM_LIMIT"] = f"0={self._memory(part)}M"
        return found

    def _devices_exist(self) -> None:
        missing = [device for device in self._settings.devices if not Path(device).exists()]
        if missing:
            raise FenceError(f"there is no {', '.join(missing)}")

    def _mig_is_on(self) -> None:
        for row in self._smi.gpus("index", "mig.mode.current"):
            if row[1] != "Enabled":
                raise FenceError(f"MIG is {row[1].lower()} on GPU {row[0]}")

    def _nobody_on(self, gpus: set[int]) -> None:
        """Wait until nothing computes on these GPUs."""
        end = time.monotonic() + GONE_WITHIN_S
        while gpus:
            numbers = {row[1]: int(row[0]) for row in self._smi.gpus("index", "uuid")}
            busy = [(process, numbers.get(uuid)) for uuid, process in self._smi.processes()]
            left = [f"process {process} on GPU {gpu}" for process, gpu in busy if gpu in gpus]
            if not left:
                return
            if time.monotonic() > end:
                raise FenceError(f"still there after its job: {', '.join(left)}")
            time.sleep(0.5)
