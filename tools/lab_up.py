#!/usr/bin/env python3
"""The lab behind `make lab-up`: the demo's, with a real guest (systemd, sshd) for each machine made of its template.

Starts the simulator with tools/guest, converges the lab by site.yml, waits for the guests, and says how to reach them.
`make lab-down` (tools/demo.py down) stops it. Needs root and Debian or Ubuntu: what it says in one line.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import ssl
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pyVim.connect import Disconnect, SmartConnect
from pyVmomi import vim, vmodl

from demo import INTERRUPTED, TOP, DemoError, Lab, run_guest, run_site

BOOT_TIMEOUT_S = 240


def make_key(lab: Lab) -> None:
    """Make the key that logs in to the guests, readable by this user only."""
    if not lab.key_file.exists():
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "lab", "-f", str(lab.key_file)]
        try:
            subprocess.run(command, check=True, capture_output=True, text=True)
        except FileNotFoundError:
            raise DemoError("ssh-keygen is not here; install openssh-client") from None
        except subprocess.CalledProcessError as problem:
            raise DemoError(f"ssh-keygen: {problem.stderr.strip()}") from None


def get_ready(lab: Lab, images: Sequence[Sequence[str]] = ((),)) -> None:
    """Have all that guests need, images with these packages; DemoError in one line where they cannot be had."""
    if lab.running_pid() is not None and lab.instance() is None:
        raise DemoError(f"the demo's simulator runs in {lab.directory}, without guests; `make demo-down` stops it")
    run_guest("setup")
    for packages in images:
        print("==> the guests' image (built at the first time: a minute or two)", flush=True)
        run_guest("image", "build", *(word for name in packages for word in ("--package", name)))
    make_key(lab)
    digest = hashlib.sha256(str(lab.directory.resolve()).encode()).hexdigest()[:10]
    lab.instance_file.write_text(f"lab-{digest}\n", encoding="utf-8")


def guests_of(lab: Lab, ready: dict[str, Any], wait_s: float) -> dict[str, tuple[str, str]]:
    """Name -> host name and address of each running machine, once the vCenter says that all guests are up."""
    password = lab.password_file.read_text(encoding="utf-8").strip()
    tls = ssl.create_default_context(cafile=ready["certificate"])
    user = "administrator@vsphere.local"
    client = SmartConnect(host=ready["hostname"], port=ready["port"], user=user, pwd=password, sslContext=tls)
    try:
        content = client.content
        view = content.viewManager.CreateContainerView(content.rootFolder, [vim.VirtualMachine], True)
        deadline = time.monotonic() + wait_s
        while True:
            found = _read(content.propertyCollector, view)
            silent = [name for name, (_, address) in found.items() if not address]
            if not silent:
                return found
            if time.monotonic() > deadline:
                raise DemoError(f"no guest tools after {wait_s:.0f} s: {', '.join(silent)}; see {lab.log_file}")
            time.sleep(0.5)
    finally:
        Disconnect(client)


def _read(collector: Any, view: Any) -> dict[str, tuple[str, str]]:
    """What runs, by one call: name -> host name and address, empty while the guest is not up."""
    build = vmodl.query.PropertyCollector
    paths = ["name", "runtime.powerState", "guest.hostName", "guest.ipAddress"]
    spec = build.FilterSpec(
        objectSet=[
            build.ObjectSpec(
                obj=view,
                skip=True,
                selectSet=[build.TraversalSpec(type=vim.view.ContainerView, path="view", skip=False)],
            )
        ],
        propSet=[build.PropertySpec(type=vim.VirtualMachine, pathSet=paths)],
    )
    reply = collector.RetrievePropertiesEx([spec], build.RetrieveOptions())
    rows = [{prop.name: prop.val for prop in item.propSet} for item in (reply.objects if reply else [])]
    return {
        row["name"]: (row.get("guest.hostName", ""), row.get("guest.ipAddress", ""))
        for row in rows
        if row["runtime.powerState"] == "poweredOn"
    }


def write_inventory(lab: Lab, instance: str, machines: dict[str, tuple[str, str]]) -> Path:
    """Write how Ansible and ssh reach the guests: an inventory and the host keys they must show."""
    entries = {entry["address"]: entry for entry in run_guest("list", "--instance", instance)["guests"]}
    reached = {name: address for name, (_, address) in machines.items() if address in entries}
    known_hosts = lab.directory / "known_hosts"
    known_hosts.write_text(
        "".join(entries[address]["ssh"]["known_hosts"] + "\n" for address in reached.values()), encoding="utf-8"
    )
    variables = {
        "ansible_user": "root",
        "ansible_ssh_private_key_file": str(lab.key_file),
        "ansible_ssh_common_args": f"-o UserKnownHostsFile={known_hosts} -o StrictHostKeyChecking=yes",
    }
    hosts = {name: {"ansible_host": address} for name, address in sorted(reached.items())}
    inventory = lab.directory / "guests.json"
    content = {"all": {"children": {"lab_guests": {"hosts": hosts, "vars": variables}}}}
    inventory.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    print("==> guests (root, by the lab's key):")
    for name, address in sorted(reached.items()):
        print(f"  {name}: ssh -i {lab.key_file} -o UserKnownHostsFile={known_hosts} root@{address}")
    return inventory


def up(lab: Lab, time_scale: int, extra: list[str]) -> int:
    """Bring the lab up and say how to reach it."""
    lab.prepare()
    with lab.only_one():
        get_ready(lab)
        ready = lab.start(time_scale)
        print(f"==> simulator: {ready['url']} (log: {lab.log_file})", flush=True)
        code = run_site(lab, extra)
        if code != 0:
            print("==> the playbook ended with an error, see above; `make lab-up` tries again", file=sys.stderr)
            return code
        machines = guests_of(lab, ready, BOOT_TIMEOUT_S)
        inventory = write_inventory(lab, lab.instance() or "", machines)
    print(f"==> all of them: ansible lab_guests -i {inventory} -m ping")
    print("==> the vCenter: ansible-playbook playbooks/site.yml -i inventories/lab; `make lab-down` ends it all")
    return 0


def main(arguments: list[str] | None = None) -> int:
    """Parse the command line and run it; returns the exit code."""
    parser = argparse.ArgumentParser(prog="tools/lab_up.py", description="The lab on the simulator, with real guests.")
    parser.add_argument("--time-scale", type=int, default=60, help="how much faster than life hosts boot (default 60)")
    parser.add_argument("extra", nargs="*", help="arguments for ansible-playbook, after --")
    options = parser.parse_args(arguments)
    lab = Lab(Path(os.environ.get("GPUOPS_LAB_DIR") or TOP / ".lab").absolute())
    try:
        return up(lab, options.time_scale, options.extra)
    except DemoError as error:
        print(f"tools/lab_up.py: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
