# Copyright: (c) 2026, The gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""One job: train a model of torchvision on synthetic images for so many steps, on a GPU or on CPUs, and say how long.

Run as a program, so that it needs nothing but itself where the job runs. Data is made once, on the device: what is
measured is the device, not a disk.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import platform
import socket
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

CLASSES = 1000
POLL_S = 0.02


class BenchError(Exception):
    """Why the job could not be done; one line for whoever started it."""


@dataclasses.dataclass(frozen=True)
class Times:
    """Seconds since 1970 of the first and last moment of the measured steps, and each step's length."""

    began: float
    ended: float
    steps_s: tuple[float, ...]


def measure(
    step: Callable[[], None],
    *,
    steps: int,
    warmup: int,
    settle: Callable[[], None] = lambda: None,
    meet: Callable[[], None] = lambda: None,
    clock: Callable[[], float] = time.time,
) -> Times:
    """Do the steps. `settle` waits until the device has done what it was given; `meet` waits for the other jobs."""
    for _step in range(warmup):
        step()
    settle()
    meet()
    began = last = clock()
    lengths = []
    for _step in range(steps):
        step()
        settle()
        now = clock()
        lengths.append(now - last)
        last = now
    return Times(began, last, tuple(lengths))


def meeting(directory: Path | None, number: int, jobs: int, patience_s: float) -> Callable[[], None]:
    """A function that returns once all jobs of the run have called it: none is measured while another still starts."""

    def wait() -> None:
        if directory is None or jobs < 2:
            return
        (directory / f"ready-{number}").touch()
        end = time.monotonic() + patience_s
        while (there := len(list(directory.glob("ready-*")))) < jobs:
            if time.monotonic() > end:
                raise BenchError(
                    f"only {there} of {jobs} jobs run at the same time after {patience_s:g} s: a quota, or no room"
                )
            time.sleep(POLL_S)

    return wait


def device_kind(wanted: str, torch: Any) -> str:
    """`cuda` or `cpu`. Raises BenchError where a GPU is wanted and none can be used."""
    has_gpu = bool(torch.cuda.is_available())
    if wanted == "cuda" and not has_gpu:
        raise BenchError("PyTorch sees no GPU here: see that the job has one, the driver, and that PyTorch has CUDA")
    if wanted == "auto":
        return "cuda" if has_gpu else "cpu"
    return wanted


def training(model: str, batch: int, size: int, device: str) -> Callable[[], None]:
    """A step of training: forward, backward, update."""
    import torch
    import torchvision

    if model not in torchvision.models.list_models(torchvision.models):
        raise BenchError(f"torchvision {torchvision.__version__} has no classification model {model!r}")
    torch.manual_seed(1)
    net = torchvision.models.get_model(model, weights=None, num_classes=CLASSES).to(device).train()
    optimiser = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9)
    loss_of = torch.nn.CrossEntropyLoss()
    images = torch.randn(batch, 3, size, size, device=device)
    labels = torch.randint(CLASSES, (batch,), device=device)

    def step() -> None:
        optimiser.zero_grad(set_to_none=True)
        out = net(images)
        # Inception and GoogLeNet return more than the logits while they are trained.
        loss_of(getattr(out, "logits", out), labels).backward()
        optimiser.step()

    return step


def machine(device: str, torch: Any, torchvision: Any) -> dict[str, Any]:
    """What the job ran on."""
    found: dict[str, Any] = {
        "device": device,
        "host": socket.gethostname(),
        "cpu": cpu_name(),
        "cpus": len(os.sched_getaffinity(0)),
        "threads": torch.get_num_threads(),
        "gpu": "",
        "gpu_id": os.environ.get("SLURM_STEP_GPUS") or os.environ.get("SLURM_JOB_GPUS") or "",
        "driver": "",
        "versions": {
            "python": platform.python_version(),
            "torch": str(torch.__version__),
            "torchvision": str(torchvision.__version__),
            "cuda": str(torch.version.cuda or ""),
        },
    }
    if device == "cuda":
        properties = torch.cuda.get_device_properties(0)
        found["gpu"] = properties.name
        found["gpu_id"] = str(getattr(properties, "uuid", "")) or found["gpu_id"]
        found["driver"] = driver_version()
    return found


def cpu_name(path: Path = Path("/proc/cpuinfo")) -> str:
    """The processor's name as Linux tells it."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.machine()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, "") or platform.machine()


def driver_version(path: Path = Path("/sys/module/nvidia/version")) -> str:
    """The version of the NVIDIA driver that is loaded, empty where it does not say."""
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError:
        return ""


def write(path: Path, report: Any) -> None:
    """Write JSON, so that nobody reads half of it."""
    part = path.with_suffix(".part")
    part.write_text(json.dumps(report), encoding="utf-8")
    part.replace(path)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(prog="train.py", description="One job of the sharing benchmark.")
    made.add_argument("--model", default="resnet50", help="a classification model of torchvision")
    made.add_argument("--batch-size", type=int, default=32)
    made.add_argument("--image-size", type=int, default=224)
    made.add_argument("--steps", type=int, default=50, help="steps that are measured")
    made.add_argument("--warmup", type=int, default=5, help="steps before them")
    made.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    made.add_argument("--threads", type=int, default=0, help="CPU threads of PyTorch; 0: as it does by itself")
    made.add_argument("--number", type=int, default=0, help="which of the run's jobs this is")
    made.add_argument("--jobs", type=int, default=1, help="how many jobs the run has")
    made.add_argument("--meet", type=Path, help="directory, new and shared, in which the jobs wait for each other")
    made.add_argument("--patience", type=float, default=600, help="seconds to wait for the others")
    made.add_argument("--out", type=Path, required=True, help="file to write")
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """Run the job; 1 and one line on standard error where it cannot be done."""
    asked = parser().parse_args(argv)
    try:
        import torch
        import torchvision

        if asked.threads:
            torch.set_num_threads(asked.threads)
        device = device_kind(asked.device, torch)
        times = measure(
            training(asked.model, asked.batch_size, asked.image_size, device),
            steps=asked.steps,
            warmup=asked.warmup,
            settle=torch.cuda.synchronize if device == "cuda" else lambda: None,
            meet=meeting(asked.meet, asked.number, asked.jobs, asked.patience),
        )
        report = {
            "number": asked.number,
            "job": os.environ.get("SLURM_JOB_ID", ""),
            **dataclasses.asdict(times),
            "images": asked.steps * asked.batch_size,
            "machine": machine(device, torch, torchvision),
        }
        write(asked.out, report)
    except ImportError as error:
        print(
            f"train.py: {error}: the job needs PyTorch and torchvision, in its image or on the server", file=sys.stderr
        )
        return 1
    except (BenchError, OSError, RuntimeError) as error:
        # PyTorch says with a RuntimeError, of several lines, that the memory does not suffice.
        print(f"train.py: {str(error).splitlines()[0]}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
