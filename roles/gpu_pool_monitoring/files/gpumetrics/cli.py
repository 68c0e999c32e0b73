# Copyright: (c) 2026, The gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The command line: `gpu-pool-metrics pool | gpus FILE.prom`."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from . import gpus, pool
from .text import Family, render, write

TIMEOUT_S = 20


class AskError(Exception):
    """Why a program could not be asked; one line."""


def ask(command: Sequence[str]) -> str:
    """What a command prints. Raises AskError."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)  # noqa: S603 - fixed programs, no shell
    except FileNotFoundError:
        raise AskError(f"{command[0]} is not installed") from None
    except subprocess.TimeoutExpired:
        raise AskError(f"{command[0]} does not answer within {TIMEOUT_S} s") from None
    if done.returncode != 0:
        last = (done.stderr or done.stdout).strip().splitlines()[-1:] or ["no reason given"]
        raise AskError(f"{command[0]}: {last[0]}")
    return done.stdout


def collect(what: str) -> list[Family]:
    """The metrics of the pool, or of this machine's GPUs. Raises AskError."""
    if what == "gpus":
        return gpus.families(ask(gpus.QUERY))
    try:
        replies = {name: json.loads(ask([call[0], "--json", *call[1:]])) for name, call in pool.CALLS.items()}
    except json.JSONDecodeError as error:
        raise AskError(f"Slurm's answer is no JSON: {error}") from error
    return pool.families(replies, time.time())


def main(argv: Sequence[str] | None = None) -> int:
    """Write the file; where nobody answers it says only that, and the exit code is 1."""
    parser = argparse.ArgumentParser(prog="gpu-pool-metrics", description="Metrics for the node exporter.")
    parser.add_argument("what", choices=["pool", "gpus"])
    parser.add_argument("file", type=Path)
    asked = parser.parse_args(argv)
    code = 0
    try:
        found = collect(asked.what)
    except AskError as error:
        print(f"gpu-pool-metrics: {error}", file=sys.stderr)
        found, code = [(pool if asked.what == "pool" else gpus).up(False)], 1
    try:
        write(asked.file, render(found))
    except OSError as error:
        print(f"gpu-pool-metrics: {asked.file} cannot be written: {error.strerror}", file=sys.stderr)
        code = 1
    return code
