"""A recording of a simulator, served again, answers the same property reads."""

from __future__ import annotations

import http.server
import pathlib
import ssl
import subprocess
import sys
import threading
import typing as t

import pytest
import yaml
from pyVmomi import vim
from serving import PATIENCE

from vsphere_simulator.model.loader import parse_model

MODEL = """
datacenter: secret-dc
api_version: 8.0.2.0
datastores: [{name: secret-ds, capacity_gb: 900}, {name: secret-nfs, type: NFS}]
networks: [{name: secret-net}]
custom_attributes: [secret-owner, secret-cost]
categories:
  - {name: secret-site, description: secret words, tags: [{name: secret-here, description: secret place}, {name: x}]}
  - {name: secret-tier, single: true, types: [HostSystem, VirtualMachine], tags: [{name: secret-gold}]}
depots: {"https://depot.example/secret.zip": [{version: "16.4-1OEM", vgpu_manager: "16.4"}]}
options: {vgpu.hotmigrate.enabled: "true"}
roles: {SecretRole: [Host.Config.Maintenance]}
clusters:
  - name: secret-gpu
    vcls_agents: 1
    ha: true
    custom_values: {secret-owner: secret-me}
    image: {NVD-VMware_ESXi_8.0.0_Driver: "16.4-1OEM"}
    pools:
      - name: secret-research
        cpu: {reservation: 1000, expandable: false, shares: high}
        memory: {limit: 200000, shares: 1234}
        tags: {secret-site: [x]}
        pools: [{name: secret-night, custom_values: {secret-cost: secret-7}}]
    groups:
      - {name: secret-machines, vms: [secret-vgpu]}
      - {name: secret-places, hosts: [secret-h1]}
    rules:
      - {name: secret-pin, mode: on_hosts, vm_group: secret-machines, host_group: secret-places, mandatory: true}
      - {name: secret-apart, mode: apart, vms: [secret-vgpu, secret-dynamic], enabled: false}
    overrides:
      - {vm: secret-vgpu, drs: manual, restart_priority: high}
      - {vm: secret-dynamic, drs: disabled}
    drs: {automation: fullyAutomated, options: {PassthroughDrsAutomation: "1"}}
    hosts:
      - name: secret-h1
        vgpu_manager: "16.4"
        graphics_type: sharedDirect
        custom_values: {secret-owner: secret-team}
        tags: {secret-tier: [secret-gold]}
        assignment_policy: consolidation
        gpus: [{gpu: A100-40, count: 2}, {gpu: T4, passthrough: true, label: secret-blue}]
      - {name: secret-h2, connection_state: disconnected, cpu_cores: 16, memory_gb: 256, esxi_version: 8.0.2}
  - {name: secret-plain, hosts: [{name: secret-h3, in_maintenance: true, pci_functions: 30, gpus: [{gpu: V100-32}]}]}
standalone_hosts: [{name: secret-h4, gpus: [{gpu: T4, passthrough: true}]}]
vms:
  - {name: secret-alone, host: secret-h4}
  - {name: secret-vgpu, host: secret-h1, power: "on", firmware: efi, memory_locked: true, folder: secret-a/secret-b,
     gpus: [{mode: vgpu, profile: nvidia_a100-10c}], disks_gb: [10, 20],
     pool: secret-research/secret-night, tags: {secret-tier: [secret-gold], secret-site: [secret-here, x]},
     custom_values: {secret-cost: secret-42}}
  - {name: secret-dynamic, host: secret-h1, memory_locked: true, gpus: [{mode: dynamic, ids: ["10de:1eb8"],
     label: secret-blue}], extra_config: {pciPassthru.use64bitMMIO: "TRUE", secret.key: secret-value}}
  - {name: secret-fixed, host: secret-h3, datastore: secret-nfs, snapshots: [{name: secret-one, id: 2, snapshots: [
       {name: secret-two, id: 3, description: secret text, current: true, power: suspended}]}, {name: secret-other,
       id: 5, quiesced: true}], gpus: [{mode: fixed, address: "0000:3b:00.0"}]}
templates: [{name: secret-tpl, host: secret-h2, folder: secret-t, hardware_version: 21, cpus: 8}]
"""
READS: dict[t.Any, list[str]] = {
    vim.Datastore: ["summary.type", "summary.capacity"],
    vim.HostSystem: [
        "summary.hardware.vendor",
        "summary.hardware.cpuModel",
        "summary.hardware.numCpuCores",
        "summary.hardware.memorySize",
        "config.product",
        "hardware.pciDevice",
        "config.pciPassthruInfo",
        "config.graphicsInfo",
        "config.graphicsConfig",
        "config.sharedPassthruGpuTypes",
        "runtime.connectionState",
        "runtime.inMaintenanceMode",
        "capability",
        "customValue",
        "tag",
    ],
    vim.VirtualMachine: [
        "config.hardware.numCPU",
        "config.hardware.memoryMB",
        "config.firmware",
        "config.version",
        "config.guestId",
        "config.template",
        "config.extraConfig",
        "config.memoryReservationLockedToMax",
        "runtime.powerState",
        "resourceConfig.cpuAllocation",
        "resourceConfig.memoryAllocation",
        "resourcePool.name",
        "customValue",
        "snapshot",
        "tag",
    ],
    vim.ClusterComputeResource: [
        "configurationEx",
        "lifecycleManaged",
        "summary.numHosts",
        "summary.totalMemory",
        "customValue",
    ],
    vim.ComputeResource: ["summary.numHosts", "summary.totalMemory"],
    vim.ResourcePool: ["config", "runtime", "parent.name", "owner.name", "customValue", "tag"],
}
PASSWORD = "secret"


def facts(server: t.Any) -> dict[str, t.Any]:
    """What clients read, by name, with references replaced by names."""
    content = server.client.content
    found: dict[str, t.Any] = {"about": content.about.apiVersion, "options": str(content.setting.setting)}
    for kind, paths in READS.items():
        view = content.viewManager.CreateContainerView(content.rootFolder, [kind], True)
        for obj in view.view:
            if obj.name.startswith("vCLS"):
                continue
            for path in paths:
                value: t.Any = obj
                for step in path.split("."):
                    value = getattr(value, step) if value is not None else None
                found[f"{obj.name}: {path}"] = without_references(value)
            if kind is vim.VirtualMachine:
                found[f"{obj.name}: devices"] = [shape(device) for device in obj.config.hardware.device]
                found[f"{obj.name}: place"] = (obj.runtime.host.name, obj.parent.name, [d.name for d in obj.datastore])
    return found


def without_references(value: t.Any) -> str:
    """Text in which ids of objects, which are given anew, are left out."""
    return "\n".join(
        line
        for line in str(value).splitlines()
        if ("'vim." not in line or "(vim." in line) and "createTime" not in line
    )


def shape(device: t.Any) -> tuple[t.Any, ...]:
    backing = device.backing
    own = {name: getattr(backing, name, None) for name in ("vgpu", "customLabel", "id")}
    return type(device).__name__, getattr(device, "capacityInKB", None), tuple(own.items())


def record(server: t.Any, *options: str, password: str = PASSWORD) -> subprocess.CompletedProcess[str]:
    return record_at(server.ready["port"], server, *options, password=password)


def record_at(port: int, server: t.Any, *options: str, password: str = PASSWORD) -> subprocess.CompletedProcess[str]:
    secret = server.directory / "record-password"
    secret.write_text(password)
    secret.chmod(0o600)
    command = [sys.executable, "-m", "vsphere_simulator.cli", "record", "--username", "admin@lab"]
    command += ["--server", f"{server.ready['hostname']}:{port}", "--password-file", str(secret)]
    return subprocess.run([*command, *options], capture_output=True, text=True, timeout=PATIENCE, check=False)


@pytest.fixture
def original(serve: t.Callable[..., t.Any]) -> t.Any:
    return serve(MODEL)


def test_a_recording_served_again_reads_the_same(original: t.Any, serve: t.Callable[..., t.Any]) -> None:
    done = record(original, "--ca-file", original.ready["certificate"])
    assert done.returncode == 0, done.stderr
    again = serve(done.stdout)
    before, after = facts(original), facts(again)
    assert after == before
    source, recorded = parse_model(MODEL), parse_model(done.stdout)
    for key in ("custom_attributes", "categories"):
        assert getattr(recorded, key) == getattr(source, key)
    for key in ("pools", "groups", "rules", "overrides", "image", "custom_values", "tags"):
        assert [getattr(one, key) for one in recorded.clusters] == [getattr(one, key) for one in source.clusters], key
    wanted = {one.name: one for one in source.vms}
    for vm in recorded.vms:
        for key in ("pool", "snapshots", "custom_values", "tags"):
            assert getattr(vm, key) == getattr(wanted[vm.name], key), (vm.name, key)
    assert recorded.clusters[0].hosts[0].tags == {"secret-tier": ["secret-gold"]}
    assert [host.name for host in recorded.standalone_hosts] == ["secret-h4"]
    second = record(again, "--thumbprint", again.ready["thumbprint"])
    assert yaml.safe_load(second.stdout) == yaml.safe_load(done.stdout)


def test_anonymized_it_is_as_large_and_names_nobody(original: t.Any, serve: t.Callable[..., t.Any]) -> None:
    done = record(original, "--ca-file", original.ready["certificate"], "--anonymize")
    assert done.returncode == 0, done.stderr
    assert "secret" not in done.stdout.lower()
    model = parse_model(done.stdout)
    assert [len(cluster.hosts) for cluster in model.clusters] == [2, 1]
    assert len(model.vms) == 4
    assert model.clusters[0].groups[0].vms == [model.vms[1].name]
    assert model.clusters[0].pools[0].pools[0].name == (model.vms[1].pool or "").rpartition("/")[2]
    assert model.clusters[0].hosts[0].gpus[1].label == "label-01"
    assert model.vms[2].gpus[0].label == "label-01"  # type: ignore[union-attr]
    serve(done.stdout)


@pytest.mark.parametrize(("options", "named"), [([], True), (["--anonymize"], False)])
def test_what_hosts_did_not_tell_is_noted_without_names_where_they_are_secret(
    serve: t.Callable[..., t.Any], tmp_path: pathlib.Path, options: list[str], named: bool
) -> None:
    (tmp_path / "rules.yml").write_text(
        "- {method: fetchSoftwarePackages, object: secret-h1, fault: {type: vim.fault.InvalidState}}\n"
    )
    server = serve(MODEL, "--faults", str(tmp_path / "rules.yml"))
    done = record(server, "--ca-file", server.ready["certificate"], *options)
    assert done.returncode == 0, done.stderr
    for text in (done.stdout, done.stderr):
        assert "installed software of hosts that did not tell" in text
        assert ("secret" in text.lower()) is named


def test_it_says_what_it_leaves_out(serve: t.Callable[..., t.Any]) -> None:
    model = MODEL.replace("secret.key: secret-value", "guestinfo.userdata: hunter2")
    done = record(original := serve(model), "--ca-file", original.ready["certificate"])
    assert "guestinfo" in done.stderr
    assert "passwords" in done.stderr
    assert "hunter2" not in done.stdout
    assert "# - passwords, users and permissions" in done.stdout


@pytest.mark.parametrize(
    ("options", "password", "said"),
    [
        (["--thumbprint", ":".join(["00"] * 32)], "secret", "thumbprint"),
        ([], "secret", "certificate verify failed: self-signed certificate; give --ca-file, or --thumbprint"),
        (["CA"], "wrong", "incorrect user name or password"),
        (["CA", "--datacenter", "nowhere"], "secret", "secret-dc"),
    ],
)
def test_what_cannot_be_recorded_is_one_line(original: t.Any, options: list[str], password: str, said: str) -> None:
    given = [
        part for one in options for part in (["--ca-file", original.ready["certificate"]] if one == "CA" else [one])
    ]
    done = record(original, *given, password=password)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not done.stdout


class Stranger(http.server.BaseHTTPRequestHandler):
    """A web server that is no vCenter."""

    def do_GET(self) -> None:
        self.send_error(404)

    do_POST = do_GET  # noqa: N815 - the name that the library calls


def test_where_no_vcenter_answers_that_is_said(original: t.Any) -> None:
    certificate = pathlib.Path(original.ready["certificate"])
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate, certificate.with_name("simulator-key.pem"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Stranger) as server:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            done = record_at(server.server_port, original, "--ca-file", str(certificate))
        finally:
            server.shutdown()
            thread.join()
        address = f"127.0.0.1:{server.server_port}"
    assert (done.returncode, done.stderr) == (2, f"vsphere-simulator: {address}: no vCenter answers there\n")
    done = record_at(server.server_port, original, "--ca-file", str(certificate))
    assert (done.returncode, done.stderr) == (2, f"vsphere-simulator: {address}: Connection refused\n")


def test_the_lab_can_be_recorded(serve: t.Callable[..., t.Any]) -> None:
    lab = pathlib.Path(__file__).parents[3] / "inventories" / "lab" / "model.yml"
    server = serve(lab.read_text())
    done = record(server, "--ca-file", server.ready["certificate"])
    assert done.returncode == 0, done.stderr
    assert facts(serve(done.stdout)) == facts(server)
