# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The production template: nothing is wrong with it but that its vCenter is not there."""

from __future__ import annotations

import json
import re
import shutil
import socket

from lab import Lab
from simulated import TOP


def test_the_example_inventory_fits_the_roles(lab: Lab) -> None:
    inventory = lab.directory / "site"
    shutil.copytree(TOP / "inventories" / "example", inventory)
    vault = inventory / "group_vars" / "all" / "vault.yml"
    vault.write_text(vault.with_suffix(".yml.example").read_text().replace('""', "from-the-vault"))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        nowhere = {"vcenter_hostname": "127.0.0.1", "vcenter_port": free.getsockname()[1]}
        process = lab.start_ansible(
            "ansible-playbook", "playbooks/validate.yml", "-i", str(inventory), "-e", json.dumps(nowhere)
        )
        output, _ = process.communicate()
    problems = re.findall(r"^- (\S+.*)$", output, flags=re.MULTILINE)
    assert len(problems) == 1, output
    assert problems[0].startswith("vcenter_hostname, vcenter_port: 127.0.0.1:")
