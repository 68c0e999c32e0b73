# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Mistakes of an operator: one screen that says what to write instead, and nothing is touched."""

from __future__ import annotations

import json
import socket
from typing import Any

import pytest
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.privileges import needed
from lab import Lab

LIMIT_ONE = ("--limit", "esx-gpu-01.lab")
V100 = "10de:1db6"
LACKING = ("Host.Config.PciPassthru", "VirtualMachine.Provisioning.DeployTemplate")


@pytest.fixture(scope="module")
def lab(module_lab: Lab) -> Lab:
    module_lab.start(change=with_restricted_user)
    return module_lab


def with_restricted_user(model: dict[str, Any]) -> None:
    """A user who has all the privileges of the site but two."""
    model["roles"] = {"robot": [one for one in needed(["site"]) if one not in LACKING]}
    model["users"] = [{"name": "robot", "password": "Robot-1-password", "role": "robot"}]


def extra(**variables: object) -> tuple[str, str]:
    return ("-e", json.dumps(variables))


def vm(name: str, **gpu: object) -> dict[str, object]:
    return {"name": name, "gpus": [{"mode": "fixed", "id": V100, **gpu}]}


CASES = {
    "a misspelt variable, a wrong choice and a wrong type": (
        (
            *LIMIT_ONE,
            *extra(esxi_passthrough_device=[], esxi_passthrough_missing="skpi", gpu_vm_vms="gpu-server-01"),
        ),
        [
            "esxi_passthrough_device (esx-gpu-01.lab)",
            "write esxi_passthrough_devices",
            "esxi_passthrough_missing (esx-gpu-01.lab): must be one of fail, skip: write skip",
            "gpu_vm_vms[0] (esx-gpu-01.lab): must be a mapping",
        ],
    ),
    "two machines want one GPU": (
        (
            *LIMIT_ONE,
            *extra(
                gpu_vm_vms=[
                    {"name": "a", "gpus": [{"mode": "fixed", "address": "0000:3b:00.0"}]},
                    {"name": "b", "gpus": [{"mode": "fixed", "address": "0000:3b:00.0"}]},
                ]
            ),
        ),
        ["gpu_vm_vms (esx-gpu-01.lab)", "0000:3b:00.0"],
    ),
    "more GPUs than there are": (
        (*LIMIT_ONE, *extra(gpu_vm_vms=[vm("a", count=3)])),
        ["gpu_vm_vms (esx-gpu-01.lab)", "3", "2"],
    ),
    "an unknown template": (
        (*LIMIT_ONE, *extra(gpu_vm_template="gpu-server-tmplate")),
        ["gpu_vm_template (esx-gpu-01.lab)", "gpu-server-template"],
    ),
    "a limit without GPU hosts": (("--limit", "esx-gen-01.lab"), ["--limit", "esxi_gpu", "esx-gpu-01.lab"]),
    "a limit that matches nothing": (("--limit", "nonesuch"), ["nonesuch", "no hosts to target"]),
    "a certificate that nothing trusts": (
        (*LIMIT_ONE, *extra(vcenter_ca_file=None)),
        ["vcenter_ca_file, vcenter_thumbprint:", "certificate is not trusted"],
    ),
    "a wrong password": (
        (*LIMIT_ONE, *extra(vcenter_password="not-the-password")),
        ["vcenter_username, vcenter_password:", "incorrect user name or password"],
    ),
    "privileges that the account lacks": (
        extra(vcenter_username="robot", vcenter_password="Robot-1-password"),
        [
            "vcenter_username (esx-gpu-01.lab, esx-gpu-02.lab): robot lacks the privilege "
            "Host.Config.PciPassthru there, needed for passthrough (esxi_passthrough).",
            "vcenter_username (gpu-server-template): robot lacks the privilege "
            "VirtualMachine.Provisioning.DeployTemplate there, needed for vms (vm_group).",
            "`ansible-playbook playbooks/vcenter_role.yml`",
            "2 problem(s) of the inventory",
        ],
    ),
    "an unknown vCenter user": ((*LIMIT_ONE, *extra(vcenter_username="nobody@vsphere.local")), ["vcenter_username"]),
}


@pytest.mark.parametrize(("arguments", "expected"), CASES.values(), ids=CASES)
def test_a_mistake_is_named_on_one_screen(lab: Lab, arguments: tuple[str, ...], expected: list[str]) -> None:
    before = lab.state()
    run = lab.playbook("site", *arguments)
    assert run.returncode != 0
    for text in expected:
        assert text in plain(run.output), run.output
    one_screen(run.output)
    assert run.count("changed") == {}
    assert lab.state() == before


def plain(output: str) -> str:
    """The output without its line breaks."""
    return " ".join(output.split())


def one_screen(output: str) -> None:
    """At most 40 lines besides Ansible's own headings and per-host `ok` lines; no traceback."""
    assert "Traceback" not in output
    noise = ("ok: [", "skipping: [", "TASK [", "PLAY ", "included: ")
    said = [line for line in output.partition("PLAY RECAP")[0].splitlines() if line and not line.startswith(noise)]
    assert len(said) <= 40, "\n".join(said)
    assert "not-the-password" not in output


def test_an_unreachable_port_is_named(lab: Lab) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        run = lab.playbook("site", *LIMIT_ONE, *extra(vcenter_port=port))
    assert run.returncode != 0
    assert "vcenter_hostname" in run.output
    assert str(port) in run.output
    one_screen(run.output)


def test_a_host_that_the_vcenter_does_not_know_is_named(lab: Lab) -> None:
    before = lab.state()
    inventory = lab.directory / "more.yml"
    inventory.write_text("esxi_gpu: {hosts: {esx-gpu-04.lab: {esxi_passthrough_devices: [{id: '10de:1eb8'}]}}}\n")
    run = lab.playbook("site", "-i", str(inventory))
    assert run.returncode != 0
    assert "group esxi_gpu (esx-gpu-04.lab)" in run.output
    one_screen(run.output)
    assert lab.state() == before


def test_all_mistakes_are_listed_at_once(lab: Lab) -> None:
    mistakes = extra(esxi_passthrough_devices=[{"id": "10de:20b5"}], gpu_vm_templat="x", esxi_rolling_on_failure="stpo")
    before = lab.state()
    run = lab.playbook("site", *mistakes)
    assert lab.state() == before
    for text in (
        "esxi_passthrough_devices (esx-gpu-01.lab)",
        "10de:20b5",
        *(V100, "10de:15f8", "10de:1eb8"),  # what there is instead
        "gpu_vm_templat (",
        "write gpu_vm_template",
        "esxi_rolling_on_failure (esx-gpu-01.lab, esx-gpu-02.lab, esx-gpu-03.lab): must be one of continue, stop",
    ):
        assert text in plain(run.output), run.output
    one_screen(run.output)


def test_values_from_a_vault_are_not_quoted(lab: Lab) -> None:
    secret = "hunter2-from-the-vault"
    (lab.directory / "vault-password").write_text("opensesame\n")
    (lab.directory / "secret.yml").write_text(f"gpu_vm_firmware: {secret}\nesxi_rolling_timeout: {secret}\n")
    run = lab.playbook(
        "site",
        *(*LIMIT_ONE, "-e", f"@{encrypted(lab)}", "--vault-password-file", str(lab.directory / "vault-password")),
    )
    assert run.returncode != 0
    assert "gpu_vm_firmware (esx-gpu-01.lab): must be one of check, efi" in run.output
    assert "esxi_rolling_timeout (esx-gpu-01.lab): must be a whole number" in run.output
    assert secret not in run.output


def encrypted(lab: Lab) -> str:
    """The path of secret.yml, encrypted."""
    path = str(lab.directory / "secret.yml")
    lab.run("ansible-vault", "encrypt", path, "--vault-password-file", str(lab.directory / "vault-password"))
    return path


def test_a_lab_that_is_not_there_is_named(lab: Lab) -> None:
    run = lab.playbook("site", *extra(lab_dir="/nonexistent"))
    assert run.returncode != 0
    assert "vcenter_hostname (" in run.output
    assert "file '/nonexistent/ready.json'" in plain(run.output)
    one_screen(run.output)
