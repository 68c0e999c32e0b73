# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""scontrol, squeue and scancel in front of the model of Slurm, kept in a file: `slurm_commands.py FILE scontrol …`."""

from __future__ import annotations

import dataclasses
import fcntl
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from slurm import Job, Node, Slurm


def load(path: Path) -> Slurm:
    """The model as it is in its file."""
    data = json.loads(path.read_text())
    return Slurm(
        {name: Node(**node) for name, node in data["nodes"].items()},
        {int(number): Job(**job) for number, job in data["jobs"].items()},
    )


def save(path: Path, slurm: Slurm) -> None:
    """Write it back."""
    path.write_text(json.dumps(dataclasses.asdict(slurm)))


def install(directory: Path, state: Path) -> None:
    """Put the commands into a directory for the PATH."""
    directory.mkdir()
    for name in ("scontrol", "squeue", "scancel"):
        program = directory / name
        program.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{Path(__file__).resolve()}" "{state}" {name} "$@"\n')
        program.chmod(0o755)


def main(path: Path, words: list[str]) -> int:
    """Carry out one command."""
    options = dict(word.split("=", 1) for word in words if "=" in word)
    with Path(f"{path}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        slurm = load(path)
        if words[:2] == ["scontrol", "update"]:
            for name in options["NodeName"].split(","):
                if options["State"] == "DRAIN":
                    slurm.drain([name], options["Reason"])
                else:
                    slurm.resume(name)
        elif words[:3] == ["scontrol", "show", "node"]:
            names = words[3].split(",")
            nodes = [{"name": name, "reason": slurm.nodes[name].reason} for name in names if name in slurm.nodes]
            print(json.dumps({"nodes": nodes}))
        elif words[:2] == ["scontrol", "requeue"]:
            slurm.requeue(int(words[2]))
        elif words[0] == "squeue":
            jobs = slurm.on(options["--nodelist"].split(","))
            print(json.dumps({"jobs": [{"job_id": job.number, "comment": job.comment} for job in jobs]}))
        elif words[0] == "scancel" and "--signal" in options:
            slurm.signal(int(words[-1]))
        else:
            print(f"not modelled: {words}", file=sys.stderr)
            return 2
        save(path, slurm)
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
