#!/usr/bin/env python3
"""The demo behind `make demo-pool`: from nothing to a GPU pool on real guests, and one job in a container on it.

Starts the simulator with the model of inventories/lab_pool, runs the playbooks that an operator runs, and then types
what a researcher types. `make demo-down` ends it. Needs root and Debian or Ubuntu; where guests cannot run, one line
says so.
"""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys
from pathlib import Path

import yaml
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from demo import GUEST, INTERRUPTED, TOP, DemoError, Lab, run_playbook
from lab_up import BOOT_TIMEOUT_S, get_ready, guests_of

INVENTORY = "inventories/lab_pool"
PLAYBOOKS = ("playbooks/site.yml", "playbooks/pool.yml")
JOB = "gpurun run -n 1 -p 0.5 --image hello -- sh -c"
SCRIPT = 'cat /hello; echo "$USER on $(hostname): $SLURM_SHARDS_ON_NODE of 10 shards of GPU $CUDA_VISIBLE_DEVICES"'


def write_model(lab: Lab) -> list[list[str]]:
    """Write the model with the lab's own directories, and return the packages of each image that its guests need."""
    text = (TOP / INVENTORY / "model.yml").read_text(encoding="utf-8")
    for volume in ("home", "state"):
        (lab.directory / volume).mkdir(exist_ok=True)
    # Guests reach their homes through it; its files keep their own modes.
    lab.directory.chmod(0o711)
    text = text.replace("LAB/", f"{lab.directory}/")
    lab.model_file.write_text(text, encoding="utf-8")
    model = yaml.safe_load(text)
    images = [machine["guest"]["image"]["packages"] for machine in (*model["templates"], *model["vms"])]
    return [image for position, image in enumerate(images) if image not in images[:position]]


def write_keys(lab: Lab) -> None:
    """Make the pair of keys that the lab's image is signed and verified with."""
    private, public = lab.directory / "image.pem", lab.directory / "image.pub"
    if public.exists():
        return
    key = Ed25519PrivateKey.generate()
    plain = serialization.NoEncryption()
    pem, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    private.touch(mode=0o600)
    private.write_bytes(key.private_bytes(pem, form, plain))
    public.write_bytes(key.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo))


def write_host_keys(lab: Lab) -> Path:
    """Write the program that tells ssh the host keys of the lab's guests, whoever has which address now."""
    program = lab.directory / "host_keys"
    program.write_text(
        f"""#!{sys.executable}
import json, subprocess, sys
if sys.argv[1:] != ["ORDER"]:
    found = subprocess.run(["{GUEST}", "list", "--instance", "{lab.instance()}"], check=True, capture_output=True)
    print(*(guest["ssh"]["known_hosts"] for guest in json.loads(found.stdout)["guests"]), sep="\\n")
""",
        encoding="utf-8",
    )
    program.chmod(0o700)
    return program


def ssh(lab: Lab, user: str, address: str, command: str) -> list[str]:
    """The words that run a command on a guest."""
    known = f"KnownHostsCommand={lab.directory}/host_keys %I"
    trust = ["-oStrictHostKeyChecking=yes", "-oUserKnownHostsFile=/dev/null", f"-o{known}"]
    return ["ssh", "-q", "-i", str(lab.key_file), *trust, f"{user}@{address}", command]


def up(lab: Lab, time_scale: int, extra: list[str]) -> int:
    """Bring the pool up and run a job on it."""
    lab.prepare()
    with lab.only_one():
        if lab.running_pid() is not None and not lab.model_file.exists():
            raise DemoError(f"another lab runs in {lab.directory}; `make demo-down` ends it")
        get_ready(lab, write_model(lab))
        write_keys(lab)
        write_host_keys(lab)
        ready = lab.start(time_scale)
        print(f"==> simulator: {ready['url']} (log: {lab.log_file})", flush=True)
        for playbook in PLAYBOOKS:
            if run_playbook(lab, playbook, INVENTORY, extra) != 0:
                raise DemoError(f"{playbook} ended with an error, see above; `make demo-pool` tries again")
            # The next one reads from the vCenter where machines are.
            guests_of(lab, ready, BOOT_TIMEOUT_S)
        client = guests_of(lab, ready, BOOT_TIMEOUT_S)["ws-01"][1]
        command = ssh(lab, "alice", client, f"{JOB} '{SCRIPT}'")
        print(f"==> alice on ws-01 (there are no GPUs: device files stand in for them)\n$ {JOB} '{SCRIPT}'", flush=True)
        code = subprocess.run(command, stdin=subprocess.DEVNULL, check=False).returncode
    if code != 0:
        raise DemoError(f"the job ended with status {code}")
    print(f"==> more: {shlex.join(ssh(lab, 'alice', client, 'gpurun list_gpus'))}\n==> `make demo-down` ends it all")
    return 0


def main(arguments: list[str] | None = None) -> int:
    """Parse the command line and run it; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="tools/pool_demo.py", description="A GPU pool on the simulator's real guests."
    )
    parser.add_argument("--time-scale", type=int, default=60, help="how much faster than life hosts boot (default 60)")
    parser.add_argument("extra", nargs="*", help="arguments for ansible-playbook, after --")
    options = parser.parse_args(arguments)
    lab = Lab(Path(os.environ.get("GPUOPS_LAB_DIR") or TOP / ".lab").absolute())
    try:
        return up(lab, options.time_scale, options.extra)
    except DemoError as error:
        print(f"tools/pool_demo.py: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
