# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.privileges import needed
from lab import Lab


def test_the_playbook_makes_the_role_and_prints_who_needs_what(lab: Lab) -> None:
    lab.start()
    jobs = '{"vcenter_role_jobs": ["passthrough", "vms"], "vcenter_role_name": "gpu robot"}'
    run = lab.playbook("vcenter_role", "-e", jobs)
    assert run.returncode == 0, run.output
    assert run.count("changed") == {"localhost": 1}
    assert "The role gpu robot has, for passthrough, vms:" in run.output
    for privilege, modules in needed(["passthrough", "vms"]).items():
        assert f"{privilege}  ({', '.join(modules)})" in run.output
    again = lab.vcenter.ok("vcenter_role", check=True, name="gpu robot", jobs=["passthrough", "vms"])
    assert again["changed"] is False
