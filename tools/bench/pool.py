#!/usr/bin/env python3
# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What `gpurun run` adds to the `srun` that it stands for, on the pool of its Molecule scenario (root, podman).

Both run `true` with two fifths of a GPU, in turn, so that whatever else the machine does meets both alike. The medians
count; more than 20 % or 0.3 s, whichever is more, is an error. The time on the client's CPUs is printed too: it is
what a machine that has nothing else to do would need at least.
"""

from __future__ import annotations

import argparse
import inspect
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import yaml

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from molecule_runs import TOP, step_directory

SCENARIO = "gpu_pool_client"
Took = dict[str, list[tuple[float, float]]]
RELATIVE, ABSOLUTE_S = 0.20, 0.3
COMMANDS = {
    "srun": ["srun", "--gres=shard:4", "--quiet", "--chdir=/home/alice", "true"],
    "gpurun": ["gpurun", "run", "-p", "0.4", "--chdir=/home/alice", "--", "true"],
}


def measure(commands: dict[str, list[str]], rounds: int) -> dict[str, list[tuple[float, float]]]:
    """Seconds of each command, and those on CPUs, taking turns; one round before does not count. Runs on the client."""
    took: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
    for number in range(rounds + 1):
        for name, command in commands.items():
            began, used = time.monotonic(), os.times()
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            now, then = time.monotonic(), os.times()
            cpu = then.children_user - used.children_user + then.children_system - used.children_system
            if number:
                took[name].append((now - began, cpu))
    return took


def program(rounds: int) -> str:
    """`measure` as a program that prints its result as JSON."""
    return (
        "from __future__ import annotations\nimport json, os, subprocess, time\n"
        f"{inspect.getsource(measure)}\nprint(json.dumps(measure({COMMANDS!r}, {rounds})))\n"
    )


def on_client(run: Path, text: str) -> Took:
    """What the program prints on the scenario's client, as the user alice."""
    inventory = yaml.safe_load((run / "guests" / "guests.yml").read_text(encoding="utf-8"))
    address = _host(inventory, "client-01")["ansible_host"]
    command = ["ssh", "-i", str(run / "key"), "-o", f"UserKnownHostsFile={run / 'known_hosts'}", f"root@{address}"]
    done = subprocess.run(
        [*command, "su - alice -c 'python3 -'"], input=text, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"the measurement failed: {done.stderr.strip()}")
    found: Took = json.loads(done.stdout)
    return found


def _host(tree: Any, name: str) -> dict[str, Any]:
    for key, value in tree.items() if isinstance(tree, dict) else ():
        if key == name and isinstance(value, dict):
            return value
        if isinstance(value, dict) and (found := _host(value, name)):
            return found
    return {}


def table(took: Took) -> str:
    """Medians, quartiles, and what gpurun adds."""
    lines = ["| command | median | quartiles | on CPUs of the client |", "|---|---|---|---|"]
    for name, runs in took.items():
        low, middle, high = statistics.quantiles([wall for wall, _ in runs], n=4)
        cpu = statistics.median(cpu for _, cpu in runs)
        lines.append(f"| `{' '.join(COMMANDS[name])}` | {middle:.3f} s | {low:.3f} to {high:.3f} s | {cpu:.3f} s |")
    plain, ours = medians(took)
    return "\n".join([*lines, "", f"gpurun adds {ours - plain:.3f} s: {ours / plain:.2f} times as long"])


def medians(took: Took) -> tuple[float, float]:
    """Of srun and of gpurun."""
    plain, ours = (statistics.median(wall for wall, _ in took[name]) for name in COMMANDS)
    return plain, ours


def fits(took: Took) -> bool:
    """Whether gpurun adds no more than is allowed."""
    plain, ours = medians(took)
    return ours - plain <= max(RELATIVE * plain, ABSOLUTE_S)


def main() -> int:
    """Make the pool, measure, print, remove the pool."""
    parser = argparse.ArgumentParser(description="What gpurun adds to srun.")
    parser.add_argument("--rounds", type=int, default=20, help="how often each is run")
    asked = parser.parse_args()
    step = [str(TOP / "tools" / "molecule"), "step", SCENARIO]
    try:
        made = subprocess.run([*step, "converge"], capture_output=True, text=True, check=False)
        if made.returncode:
            raise SystemExit(f"the pool could not be made:\n{made.stdout[-3000:]}{made.stderr[-1000:]}")
        took = on_client(step_directory(SCENARIO), program(asked.rounds))
    finally:
        subprocess.run([*step, "destroy"], capture_output=True, check=False)
    print(table(took))
    if not fits(took):
        print(f"gpurun: more than {RELATIVE:.0%} or {ABSOLUTE_S} s", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
