# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A GPU pool in a lab of its own: brought up by the demo, its playbooks and its jobs."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import yaml

from demo import Lab, playbook_environment, run_guest
from pool_demo import INVENTORY, ssh

TOP = Path(__file__).resolve().parents[2]
TIME_SCALE = 60
IMAGE = "/home/images/hello.sif"
_WHY = "; ".join(
    (
        "squeue --long",
        "sinfo --long --Node",
        "sinfo --list-reasons",
        "scontrol show jobs",
        "tail -n 60 /var/log/slurm/slurmctld.log",
    )
)


def until(condition: Callable[[], object], what: str, timeout_s: float = 180.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout_s:.0f} s: {what}"
        time.sleep(0.5)


class PoolLab:
    """The lab of one test."""

    def __init__(self, directory: Path) -> None:
        self.lab = Lab(directory)
        self.environment = playbook_environment(self.lab)
        self.log = directory.parent / "playbooks.log"
        self._added = directory.parent / "added.yml"

    def demo(self, *words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(TOP / "tools" / words[0]), *words[1:]]
        return subprocess.run(
            command,
            env=self.environment,
            cwd=TOP,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )

    def add_host(self, name: str, *groups: str) -> None:
        """Have the inventory of the playbooks that follow list a host in these groups, and no other that was added."""
        children = {group: {"hosts": {name: {}}} for group in groups}
        self._added.write_text(yaml.safe_dump({"all": {"children": children}}), encoding="utf-8")

    def begin(self, playbook: str | Path, *arguments: str, **variables: Any) -> subprocess.Popen[str]:
        """Start a playbook of the project, or another by its path, in a process group of its own."""
        path = str(TOP / "playbooks" / playbook)
        command = ["ansible-playbook", path, "-i", INVENTORY, "-e", json.dumps(variables), *arguments]
        if self._added.exists():
            command += ["-i", str(self._added)]
        return subprocess.Popen(
            command,
            env=self.environment,
            cwd=TOP,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def play(self, playbook: str | Path, *arguments: str, **variables: Any) -> str:
        """Run a playbook to its end; its output."""
        process = self.begin(playbook, *arguments, **variables)
        output, _ = process.communicate()
        with self.log.open("a", encoding="utf-8") as log:
            log.write(output)
        assert process.returncode == 0, output[-6000:]
        return output

    def guests(self) -> dict[str, dict[str, Any]]:
        """The guests by host name."""
        found = run_guest("list", "--instance", self.lab.instance() or "")["guests"]
        return {guest["hostname"]: guest for guest in found}

    def words(self, user: str, machine: str, command: str) -> list[str]:
        return ssh(self.lab, user, self.guests()[machine]["address"], command)

    def on(self, machine: str, command: str, user: str = "root") -> str:
        """Run a command on a machine; what it prints."""
        done = subprocess.run(
            self.words(user, machine, command), stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{machine}: {command}: {done.stdout}{done.stderr}"
        return done.stdout

    def running(self, node: str) -> list[str]:
        """The numbers of the jobs that run on a node."""
        return self.on("pool-01", f"squeue --noheader --format=%i --nodelist={node} --states=RUNNING").split()

    def nodes(self, controller: str = "pool-01") -> dict[str, str]:
        """The state of each node, as one of the controllers sees it."""
        nodes = json.loads(self.on(controller, "scontrol show nodes --json"))["nodes"]
        return {node["name"]: " ".join(node["state"]) for node in nodes}

    def kill_simulator(self) -> None:
        pid = self.lab.running_pid()
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        until(lambda: self.lab.running_pid() is None, "the simulator is gone")


class Ledger:
    """The jobs that were submitted: what each must leave behind, and what accounting must say of it."""

    def __init__(self, pool: PoolLab) -> None:
        self.pool = pool
        self.batch: dict[str, tuple[str, str]] = {}
        """Number of a batch job -> user and name."""
        self.runs: list[tuple[str, str, subprocess.Popen[str]]] = []
        self._count = 0
        self._lock = threading.Lock()

    def _name(self, kind: str) -> str:
        with self._lock:
            self._count += 1
            return f"{kind}-{self._count:03}"

    @staticmethod
    def work(name: str, seconds: int) -> str:
        """What a job does: it computes something for a while, and puts the result into place in one step."""
        return (
            f"sleep {seconds}; cd $HOME/results && echo {name} | sha256sum > {name}.$SLURM_RESTART_COUNT.new"
            f" && mv {name}.$SLURM_RESTART_COUNT.new {name}"
        )

    def submit(self, user: str, client: str, fractions: Sequence[int], seconds: int, *options: str) -> list[str]:
        """Queue batch jobs of so many tenths of a GPU, in one go, with further options of sbatch; their names."""
        lines = ["mkdir -p ~/results; cd ~/results"]
        names = []
        for tenths in fractions:
            name = self._name("batch")
            inner = shlex.quote(self.work(name, seconds))
            script = f"apptainer exec --bind /home {IMAGE} sh -c {inner}"
            gres = "gpu:1" if tenths == 10 else f"shard:{tenths}"
            own = ("--parsable", "--requeue", "--output=/dev/null", f"--job-name={name}", f"--gres={gres}")
            lines.append(shlex.join(["sbatch", *own, *options, "--wrap", script]))
            names.append(name)
        numbers = self.pool.on(client, "\n".join(lines), user=user).split()
        assert len(numbers) == len(names)
        self.batch |= {number: (user, name) for number, name in zip(numbers, names, strict=True)}
        return names

    def until_saved(self, names: Sequence[str]) -> None:
        """Wait until the controllers' state has the jobs: what came in its last five seconds dies with a controller."""
        state = self.pool.lab.directory / "state" / "state" / "job_state"

        def saved() -> bool:
            try:
                jobs = state.read_bytes()
            except FileNotFoundError:  # just being replaced
                return False
            return all(name.encode() in jobs for name in names)

        until(saved, f"saved: {', '.join(names)}")

    def run(self, user: str, client: str, fraction: str, seconds: int) -> None:
        """Begin a job by gpurun; it ends by itself."""
        name = self._name("run")
        inner = shlex.quote(self.work(name, seconds))
        command = f"mkdir -p ~/results; gpurun run -n 1 -p {fraction} --image hello -- sh -c {inner}"
        words = self.pool.words(user, client, command)
        process = subprocess.Popen(
            words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        self.runs.append((user, name, process))

    def settle(self, stuck_s: float = 240.0) -> None:
        """Wait until no job is left, as long as the queue moves: how fast it does is the machine's.

        A job that is put back may begin again after two minutes.
        """
        queue, moved = "", time.monotonic()
        while left := self.pool.on("pool-01", "squeue --noheader --format='%i %T'"):
            if left != queue:
                queue, moved = left, time.monotonic()
            elif time.monotonic() > moved + stuck_s:
                raise AssertionError(f"nothing moved for {stuck_s:.0f} s:\n{self.pool.on('pool-01', _WHY)}")
            time.sleep(0.5)
        for _, name, process in self.runs:
            output, _ = process.communicate(timeout=60)
            assert process.returncode == 0, f"{name}: {output}"

    def _states(self) -> dict[str, str]:
        """The state of each job in accounting, which hears of it a moment after the controllers know."""
        text = self.pool.on("pool-01", "sacct --allusers --allocations --noheader --parsable2 --format=JobID,State")
        return dict(line.split("|") for line in text.splitlines())

    def check(self) -> None:
        """Every job has ended well once, and left its one result; there is no other job and no other result."""
        with contextlib.suppress(AssertionError):  # what is wrong is said below
            until(lambda: {*self._states().values()} <= {"COMPLETED"}, "accounting has the end of every job", 60)
        states = self._states()
        bad = {number: states.get(number) for number in self.batch if states.get(number) != "COMPLETED"}
        assert not bad, bad
        others = {number: state for number, state in states.items() if number not in self.batch}
        # No controller hears the end of an srun while one takes over from another; it counts as timed out.
        assert set(others.values()) <= {"COMPLETED", "TIMEOUT"}, others
        wanted = {(user, name) for user, name in self.batch.values()} | {(user, name) for user, name, _ in self.runs}
        found = {
            (user, path.name): path.read_text().split()[0]
            for user in ("alice", "bob")
            for path in (self.pool.lab.directory / "home" / user / "results").iterdir()
            if not path.name.endswith(".new")
        }
        assert set(found) == wanted
        assert found == {(user, name): hashlib.sha256(f"{name}\n".encode()).hexdigest() for user, name in wanted}
