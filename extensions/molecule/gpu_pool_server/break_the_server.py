# Copyright: (c) 2026, The gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a server does when its fence, a device or a job is not as it must be; fails at a surprise."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import time
from pathlib import Path

MPS = Path("/run/gpu-pool/mps/0")


def run(*command: str) -> str:
    return subprocess.run(command, capture_output=True, check=True, text=True).stdout


def submit(wrap: str, options: str = "--gres=shard:5") -> str:
    command = f"cd /home/alice && sbatch --parsable --requeue --output=/dev/null {options} --wrap '{wrap}'"
    return run("su", "-", "alice", "-c", command).strip()


def node() -> tuple[set[str], str]:
    found = json.loads(run("scontrol", "--json", "show", "node", "gpu-01"))["nodes"][0]
    return set(found["state"]), found["reason"]


def job(number: str) -> dict[str, object]:
    return dict(json.loads(run("scontrol", "--json", "show", "job", number))["jobs"][0])


def wait_for(what: str, ready: object) -> None:
    end = time.monotonic() + 90
    while not ready():
        assert time.monotonic() < end, f"timed out: {what}: {node()}: {run('squeue')}"
        time.sleep(0.2)
    print(what, flush=True)


# A fence that cannot be put up: the server is drained with the reason, and the job waits for another one.
Path("/run/stand-in/broken").touch()
waiting = submit("true")
wait_for("drained for its fence", lambda: "DRAIN" in node()[0])
assert node()[1].startswith("gpu-pool fence: nvidia-cuda-mps-control says: cannot start MPS"), node()
wait_for("the job waits", lambda: "PENDING" in job(waiting)["job_state"])
Path("/run/stand-in/broken").unlink()
run("scontrol", "update", "nodename=gpu-01", "state=resume")
wait_for("the job has run", lambda: "COMPLETED" in job(waiting)["job_state"])

# The last job takes the daemon along.
heard = (MPS / "log/heard").read_text().splitlines()
assert "set_default_device_pinned_mem_limit 0 8192M" in heard, heard
wait_for("no daemon without a job", lambda: not (MPS / "pipe/up").exists())

# A device that is gone: drained by the health check, and back when it is back.
Path("/dev/nvidia1").unlink()
wait_for("drained for its health", lambda: "DRAIN" in node()[0])
assert node()[1] == "gpu-pool health: no /dev/nvidia1", node()
os.mknod("/dev/nvidia1", 0o666 | stat.S_IFCHR, os.makedev(195, 1))
Path("/dev/nvidia1").chmod(0o666)
wait_for("back in service", lambda: "DRAIN" not in node()[0])

# Somebody else's drain stays.
run("scontrol", "update", "nodename=gpu-01", "state=drain", "reason=new disk")
run("gpu-pool", "health")
assert "DRAIN" in node()[0]
run("scontrol", "update", "nodename=gpu-01", "state=resume")

# Controllers that are just changing over: the prolog waits for one. They are away here by a wrong configuration.
held = submit("sleep 600")
wait_for("the job runs", lambda: "RUNNING" in job(held)["job_state"])
of_the_job = {
    "SLURM_JOB_ID": held,
    "SLURM_JOB_UID": "2001",
    "SLURM_JOB_GPUS": "0",
    "SLURM_JOB_NODELIST": "gpu-01",
}
right = Path("/run/slurm/conf/slurm.conf").read_text()
elsewhere = Path("/run/stand-in/slurm.conf")
elsewhere.write_text(f"{right}\nSlurmctldPort=1\n".replace("Include ", "Include /run/slurm/conf/"))
prolog = subprocess.Popen(
    ["gpu-pool", "prolog"],
    env={**os.environ, **of_the_job, "SLURM_CONF": str(elsewhere)},
    stderr=subprocess.PIPE,
    text=True,
)
assert prolog.stderr is not None
first = prolog.stderr.readline()
assert first.endswith("asking again\n"), first
elsewhere.write_text(right.replace("Include ", "Include /run/slurm/conf/"))
assert prolog.wait(120) == 0, prolog.stderr.read()
assert "DRAIN" not in node()[0], node()
print("the prolog waited for a controller", flush=True)
run("scancel", held)

# A job that they do not know, as the one of before died with it: it does not start, and the server is back at once.
lost = subprocess.run(
    ["gpu-pool", "prolog"],
    env={**os.environ, **of_the_job, "SLURM_JOB_ID": "999999"},
    capture_output=True,
    check=False,
    text=True,
)
assert (lost.returncode, "do not know job 999999" in lost.stderr) == (1, True), lost
wait_for("back in service after a job that is no more", lambda: "DRAIN" not in node()[0])

# A job that works stays; one that leaves its GPU idle is warned, then ended, and carries the reason.
busy = submit("sleep 600")
wait_for("the job runs", lambda: "RUNNING" in job(busy)["job_state"])
run("gpu-pool", "idle")
assert json.loads(Path("/run/gpu-pool/idle.json").read_text())["since"] == {}
Path("/run/stand-in/use").write_text("0\n")
wait_for("the idle job was ended", lambda: "CANCELLED" in job(busy)["job_state"])
log = run("journalctl", "--no-pager", "--unit=gpu-pool-idle.service")
assert f"job {busy} was warned" in log, log
assert log.index(f"job {busy} was warned") < log.index(f"job {busy} was ended"), log
assert job(busy)["admin_comment"] == "ended: its GPU was idle for 8 seconds", job(busy)
Path("/run/stand-in/use").write_text("90\n")
