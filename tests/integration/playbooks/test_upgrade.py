# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""upgrade.yml on hosts with a vGPU manager, and vgpu_cluster.yml. Guests' drivers are real guests' work: tests/lab."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
import yaml
from lab import Lab, Model, Run
from pyVmomi import vim
from simulated import BIN, PASSWORD, USERNAME

TWO, THREE = "esx-gpu-02.lab", "esx-gpu-03.lab"
URL = "https://depot.lab/vgpu-550.54.16/metadata.zip"
NEW = "550.54.16"
CLUSTERS = ("-e", '{"vgpu_cluster_names": ["gpu"]}')


def with_managers(model: Model) -> None:
    """Two hosts that divide their GPUs with a manager of release 16; a depot has release 17."""
    for host in model["clusters"][0]["hosts"][1:]:
        host |= {"gpus": [{"gpu": "T4", "count": 2}], "vgpu_manager": "16.4", "graphics_type": "sharedDirect"}
    model["depots"][URL] = [{"version": f"{NEW}-1OEM.800.1.0.20613240", "vgpu_manager": "17.1"}]


# Stand-ins for the client of SSH, which runs its command here, and for esxcli on the host, which asks the vCenter for
# what the real one does by itself.
SSH = """#!/bin/sh
[ "$2" = ControlPersist ] && exit 0
for word; do host=$command; command=$word; done
echo "$host: $command" >> "$(dirname "$0")/calls"
case "$command" in *"${SSH_LOST:-in no command}"*) echo no route to the host >&2; exit 255;; esac
ESXI_HOST=$host exec /bin/sh -c "$command"
"""
ESXCLI = f"""#!{BIN / "python"}
import os, ssl, sys
from pyVim.connect import Disconnect, SmartConnect
from pyVim.task import WaitForTask
removal = sys.argv[1:5] == ["software", "vib", "remove", "-n"]
assert removal or sys.argv[1:] == ["software", "component", "apply", "-d", os.environ["LAB_BUNDLE"]], sys.argv
context = ssl.create_default_context(cafile=os.environ["LAB_CERTIFICATE"])
session = SmartConnect(host="127.0.0.1", port=int(os.environ["LAB_PORT"]), user="{USERNAME}", pwd="{PASSWORD}",
                       sslContext=context)
host = session.content.searchIndex.FindByDnsName(dnsName=os.environ["ESXI_HOST"], vmSearch=False)
patches = host.configManager.patchManager
if removal:
    query = patches.QueryHostPatch_Task()
    WaitForTask(query)
    WaitForTask(patches.UninstallHostPatch_Task([one.id for one in query.info.result.status if sys.argv[5] in one.id]))
else:
    WaitForTask(patches.InstallHostPatchV2_Task(metaUrls=["{URL}"]))
Disconnect(session)
"""


def programs(lab: Lab, **scripts: str) -> Path:
    """Put scripts in the way of the real programs."""
    directory = lab.directory / "programs"
    directory.mkdir(exist_ok=True)
    for name, script in scripts.items():
        (directory / name).write_text(script)
        (directory / name).chmod(0o755)
    lab.programs = directory
    return directory


def upgrade(lab: Lab, *arguments: str) -> Run:
    """The upgrade to release 17, one host by esxcli over SSH and one by a host patch, and of all guests."""
    bundle = lab.directory / "bundle.zip"
    bundle.write_bytes(b"a bundle on the host")
    here = {
        TWO: {
            "grid_host_driver_bundle": str(bundle),
            "grid_host_driver_checksum": hashlib.sha256(bundle.read_bytes()).hexdigest(),
        },
        THREE: {"grid_host_driver_bundle": URL},
    }
    inventory = lab.directory / "upgrade"
    (inventory / "host_vars").mkdir(parents=True, exist_ok=True)
    (inventory / "hosts.yml").write_text(yaml.safe_dump({"esxi_gpu": {"hosts": dict.fromkeys(here)}}))
    for name, own in here.items():
        (inventory / "host_vars" / f"{name}.yml").write_text(yaml.safe_dump(own))
    wanted = {
        "grid_host_driver_version": NEW,
        "grid_host_driver_reboot_ok": True,
        "esxi_graphics_default_type": "sharedDirect",
        "esxi_passthrough_devices": [],
        "gpu_vm_vms": [],
    }
    overlay = lab.directory / "upgrade.json"
    overlay.write_text(json.dumps(wanted))
    programs(lab, ssh=SSH, esxcli=ESXCLI)
    lab.environment |= {
        "LAB_BUNDLE": str(bundle),
        "LAB_CERTIFICATE": lab.vcenter.certificate,
        "LAB_PORT": str(lab.vcenter.port),
    }
    limit = ("--limit", f"{TWO}:{THREE}:gpu_guests", "-i", str(inventory))
    return lab.playbook("upgrade", *limit, "-e", f"@{overlay}", *arguments)


def a_guest(lab: Lab, driver: str) -> tuple[str, ...]:
    """A guest with a driver, as an inventory. Its own variables lack a checksum, so that nothing is ever installed."""
    programs(lab, modinfo=f"#!/bin/sh\necho {driver}\n")
    guest = {
        "ansible_connection": "local",
        "ansible_become": False,
        "ansible_python_interpreter": str(BIN / "python"),
        "grid_guest_driver_file": "/srv/NVIDIA-Linux-x86_64-550.54.15-grid.run",
        "grid_guest_driver_token": "none",
    }
    inventory = lab.directory / "guests.yml"
    inventory.write_text(yaml.safe_dump({"all": {"children": {"gpu_guests": {"hosts": {"guest.lab": guest}}}}}))
    return ("-i", str(inventory))


def installed(lab: Lab, name: str) -> str:
    wish = {"name": name, "version": NEW, "bundle": URL}
    entry = lab.vcenter.ok("esxi_driver", check=True, hosts=[wish], outside_maintenance="report")["objects"][name]
    return str(entry["installed"])


def test_hosts_follow_one_another_and_a_guest_that_would_be_left_behind_stops_it(lab: Lab) -> None:
    lab.start(time_scale=1000, change=with_managers)
    before = lab.state()
    # A driver of release 15 works on 16, and would not on 17: found by reading the guest.
    refused = upgrade(lab, *a_guest(lab, "525.147.05"))
    assert refused.returncode != 0
    said = " ".join(refused.output.split())
    assert "guest driver 525.147.05 does not work on the vGPU manager 550.54.16" in said
    assert "grid_host_driver_guest_drivers" in said
    assert lab.state() == before

    booted = {name: host["booted"] for name, host in lab.hosts().items()}
    done = upgrade(lab)
    assert done.returncode == 0, done.output
    assert set(done.count("changed")) == {TWO, THREE}
    calls = (lab.directory / "programs" / "calls").read_text().splitlines()
    assert [line.partition(" ")[0] for line in calls] == [f"{TWO}:"] * 2  # the checksum, and the installation
    assert "sha256sum" in calls[0]
    assert [installed(lab, name).split("-")[0] for name in (TWO, THREE)] == [NEW, NEW]
    hosts = lab.hosts()
    assert {name for name in hosts if hosts[name]["booted"] != booted[name]} == {TWO, THREE}
    assert not any(host["in_maintenance"] or host["intent"] for host in hosts.values())

    # Again, with a guest that may stay as it is; its own part of the play is refused before anything is touched.
    again = upgrade(lab, *a_guest(lab, "535.154.05"))
    assert again.count("changed") == {}, again.output
    assert again.count("failed") == {"guest.lab": 1}
    assert "checksum is missing" in " ".join(again.output.split())


@pytest.mark.parametrize("at", ["sha256sum", "component apply"])
def test_a_host_that_takes_no_ssh_fails_and_the_others_go_on(lab: Lab, at: str) -> None:
    lab.start(time_scale=1000, change=with_managers)
    lab.environment = {"SSH_LOST": at}
    run = upgrade(lab, "-e", "esxi_rolling_max_failures=0")
    assert run.count("failed") == {TWO: 1}, run.output
    assert f"{TWO}: the vGPU manager was not installed or removed, as the host cannot be reached" in " ".join(
        run.output.split()
    )
    hosts = lab.hosts()
    assert [hosts[name]["in_maintenance"] for name in (TWO, THREE)] == [True, False]
    assert installed(lab, THREE).startswith(NEW)
    assert lab.locks() == []


def test_a_removal_by_esxcli_asks_for_no_bundle(lab: Lab) -> None:
    lab.start(time_scale=1000, change=with_managers)
    done = upgrade(lab, "-e", "grid_host_driver_state=absent", "--limit", f"{TWO}")
    assert done.returncode == 0, done.output
    calls = (lab.directory / "programs" / "calls").read_text().splitlines()
    assert [line.rpartition("software ")[2].partition(" -n")[0] for line in calls] == ["vib remove"]
    assert installed(lab, TWO) == "None"


def test_what_machines_with_vgpus_need_to_move(lab: Lab) -> None:
    lab.start()
    before = lab.state()
    planned = lab.playbook("vgpu_cluster", "--check", "--diff", *CLUSTERS)
    assert (planned.returncode, planned.count("changed")) == (0, {"vcenter.lab": 1}), planned.output
    assert "vgpu.hotmigrate.enabled: true" in planned.output
    assert lab.state() == before

    done = lab.playbook("vgpu_cluster", *CLUSTERS)
    assert (done.returncode, done.count("changed")) == (0, {"vcenter.lab": 1}), done.output
    with lab._all(vim.ClusterComputeResource) as clusters:
        options = {
            cluster.name: {option.key: option.value for option in cluster.configurationEx.drsConfig.option or ()}
            for cluster in clusters
        }
    assert options["gpu"].items() >= {"PassthroughDrsAutomation": "1", "LBMaxVmotionPerHost": "1"}.items()
    assert options["generic"] == {}
    again = lab.playbook("vgpu_cluster", *CLUSTERS)
    assert (again.returncode, again.count("changed")) == (0, {}), again.output
