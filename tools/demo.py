#!/usr/bin/env python3
"""The demo behind `make demo`: the lab on the simulator, converged by site.yml.

`up` starts the simulator with the lab's model (unless it runs already) and runs the playbook; `down` stops the
simulator and removes all that `up` (or tools/lab_up.py) made. Everything lives in one directory: `.lab`, or
`$GPUOPS_LAB_DIR`.
Needs nothing but the standard library; the programs it starts come from `.venv`.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

TOP = Path(__file__).resolve().parent.parent
LAB = TOP / "inventories" / "lab"
GUEST = TOP / "tools" / "guest"
START_TIMEOUT_S = 60
STOP_TIMEOUT_S = 90  # a simulator with guests removes them first
INTERRUPTED = 130


class DemoError(Exception):
    """Something the person at the terminal can act on."""


class Lab:
    """The directory of one lab and the simulator that belongs to it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.ready_file = directory / "ready.json"
        self.pid_file = directory / "simulator.pid"
        self.password_file = directory / "password"
        self.log_file = directory / "simulator.log"
        self.state_file = directory / "state.json"
        self.instance_file = directory / "instance"
        """Whose guests the simulator's are, in a lab that has real ones (tools/lab_up.py)."""
        self.key_file = directory / "guest_key"
        self.model_file = directory / "model.yml"
        """The vCenter's model, in a lab that has one of its own (tools/pool_demo.py)."""

    def prepare(self) -> None:
        """Make the directory and a password that only this user can read."""
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not self.password_file.exists():
            descriptor = os.open(self.password_file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
                stream.write(secrets.token_urlsafe(24) + "\n")

    @contextlib.contextmanager
    def only_one(self) -> Iterator[None]:
        """Hold the lab's lock: two runs in one lab would disturb each other."""
        with (self.directory.parent / f"{self.directory.name}.lock").open("w", encoding="utf-8") as stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise DemoError(f"another demo is at work in {self.directory}; wait for it or stop it first") from None
            yield

    def running_pid(self) -> int | None:
        """The pid of this lab's simulator, or None; a pid that another program has by now does not count."""
        try:
            pid = int(self.pid_file.read_text(encoding="utf-8"))
            arguments = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except (OSError, ValueError):
            return None
        return pid if str(self.ready_file).encode() in arguments else None

    def start(self, time_scale: int) -> dict[str, object]:
        """Start the simulator, or find it running, and return what its ready file says."""
        process: subprocess.Popen[bytes] | None = None
        if self.running_pid() is None:
            self.ready_file.unlink(missing_ok=True)
            command = [
                str(TOP / ".venv" / "bin" / "vsphere-simulator"),
                "serve",
                *("--model", str(self.model_file if self.model_file.exists() else LAB / "model.yml")),
                *("--listen", "127.0.0.1:0"),
                *("--username", "administrator@vsphere.local"),
                *("--password-file", str(self.password_file)),
                *("--time-scale", str(time_scale)),
                *("--state", str(self.state_file)),
                *("--ready-file", str(self.ready_file)),
                *self._guest_options(),
            ]
            with self.log_file.open("ab") as log:
                process = subprocess.Popen(
                    command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
                )
            self.pid_file.write_text(f"{process.pid}\n", encoding="utf-8")
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self.ready_file.exists():
            # a program that has only just been started has no command line yet: ask its parent, which is us
            gone = process.poll() is not None if process else self.running_pid() is None
            if gone or time.monotonic() > deadline:
                raise DemoError(f"the simulator did not start; the end of {self.log_file}:\n{self._log_end()}")
            time.sleep(0.05)
        ready: dict[str, object] = json.loads(self.ready_file.read_text(encoding="utf-8"))
        return ready

    def stop(self) -> bool:
        """Stop the simulator and wait until it is gone; False when none ran."""
        pid = self.running_pid()
        if pid is None:
            return False
        os.kill(pid, signal.SIGTERM)
        deadline = time.monotonic() + STOP_TIMEOUT_S
        while self.running_pid() is not None:
            if time.monotonic() > deadline:
                os.kill(pid, signal.SIGKILL)
            time.sleep(0.05)
        return True

    def instance(self) -> str | None:
        """Whose the guests are; None in a lab without real guests."""
        try:
            return self.instance_file.read_text(encoding="utf-8").strip()
        except FileNotFoundError:
            return None

    def _guest_options(self) -> list[str]:
        instance = self.instance()
        if instance is None:
            return []
        key = str(self.key_file.with_suffix(".pub"))
        words = ["--guest-command", str(GUEST), "--guest-instance", instance, "--guest-key", key]
        return [*words, "--guest-keep"] if self.model_file.exists() else words

    def remove_guests(self) -> None:
        """Remove what is left of the lab's guests, also when its simulator has been killed."""
        instance = self.instance()
        if instance is not None:
            run_guest("cleanup", "--instance", instance)

    def _log_end(self) -> str:
        try:
            return "\n".join(self.log_file.read_text(encoding="utf-8", errors="replace").splitlines()[-12:])
        except OSError:
            return "(no log)"


def run_guest(*words: str) -> dict[str, Any]:
    """Run tools/guest and return its answer; DemoError with its one line when it fails."""
    result = subprocess.run([GUEST, *words], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise DemoError(result.stderr.strip() or f"tools/guest {words[0]} ended with status {result.returncode}")
    answer: dict[str, Any] = json.loads(result.stdout)
    return answer


def run_site(lab: Lab, extra: list[str]) -> int:
    """Run site.yml on the lab inventory and return its exit code; the output is the user's."""
    return run_playbook(lab, "playbooks/site.yml", "inventories/lab", extra)


def playbook_environment(lab: Lab) -> dict[str, str]:
    """The environment in which Ansible finds the lab."""
    return os.environ | {
        "GPUOPS_LAB_DIR": str(lab.directory),
        "ANSIBLE_CONFIG": str(TOP / "ansible.cfg"),
        "ANSIBLE_INVENTORY_ANY_UNPARSED_IS_FAILED": "true",
        "PATH": f"{TOP / '.venv' / 'bin'}{os.pathsep}{os.environ.get('PATH', '')}",
    }


def run_playbook(lab: Lab, playbook: str, inventory: str, extra: list[str]) -> int:
    """Run a playbook of the project and return its exit code; the output is the user's."""
    command = ["ansible-playbook", playbook, "-i", inventory, *extra]
    print("==> " + " ".join(command), flush=True)
    process = subprocess.Popen(command, cwd=TOP, env=playbook_environment(lab))
    while True:
        try:
            return process.wait()
        except KeyboardInterrupt:
            # the terminal has sent the signal to the playbook too; it stops by itself
            continue


def up(lab: Lab, time_scale: int, extra: list[str]) -> int:
    """Start the simulator where needed, converge the lab, say what to do next."""
    lab.prepare()
    with lab.only_one():
        already = lab.running_pid() is not None
        ready = lab.start(time_scale)
        state = "still runs" if already else "started"
        print(f"==> simulator {state}: {ready['url']} (log: {lab.log_file})", flush=True)
        code = run_site(lab, extra)
    if code != 0:
        print(
            "==> the playbook ended with an error, see above; `make demo` tries again, `make demo-down` starts over",
            file=sys.stderr,
        )
    elif {"--check", "-C"} & set(extra):
        print("==> only looked, changed nothing; `make demo` converges, `make demo-down` stops the simulator")
    else:
        print("==> `make demo` again changes nothing; `make demo-down` stops the simulator")
    return code


def down(lab: Lab) -> int:
    """Stop the simulator and remove the lab's directory."""
    stopped = lab.stop()
    lab.remove_guests()
    existed = lab.directory.exists()
    if existed:
        shutil.rmtree(lab.directory)
    (lab.directory.parent / f"{lab.directory.name}.lock").unlink(missing_ok=True)
    print(
        "==> "
        + ("the simulator is stopped" if stopped else "no simulator ran")
        + (", the lab is removed" if existed else "")
    )
    return 0


def main(arguments: list[str] | None = None) -> int:
    """Parse the command line and run it; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="tools/demo.py", description="The lab on the simulator, converged by site.yml."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    up_parser = commands.add_parser("up", help="start the simulator and converge the lab")
    up_parser.add_argument(
        "--time-scale", type=int, default=60, help="how much faster than life hosts boot (default 60)"
    )
    up_parser.add_argument("extra", nargs="*", help="arguments for ansible-playbook, after --")
    commands.add_parser("down", help="stop the simulator and remove the lab")
    options = parser.parse_args(arguments)
    lab = Lab(Path(os.environ.get("GPUOPS_LAB_DIR") or TOP / ".lab").absolute())
    try:
        return up(lab, options.time_scale, options.extra) if options.command == "up" else down(lab)
    except DemoError as error:
        print(f"tools/demo.py: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
