# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Connecting to a vCenter: trust, login, the cached session, and every way in which that fails."""

from __future__ import annotations

import contextlib
import hashlib
import json
import socket
import ssl
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from simulated import BIN, PASSWORD, TOP, USERNAME, StartVcenter, Vcenter, environment, fleet, killed_at_the_end

HOST = ["esx-001.lab"]


@pytest.mark.parametrize(
    ("options", "code", "says"),
    [
        ({"password": "wrong-password"}, "invalid_login", "Check the options username and password"),
        ({"username": "nobody@vsphere.local"}, "invalid_login", "nobody@vsphere.local"),
        ({"hostname": "no-such-host.invalid"}, "dns_failure", "no-such-host.invalid"),
        ({"ca_file": None}, "tls_untrusted", "set ca_file"),
        ({"ca_file": "/nonexistent.pem"}, "invalid_input", "cannot be read"),
        ({"thumbprint": "AB:CD"}, "invalid_input", "SHA-256"),
        ({"thumbprint": "ab" * 32}, "tls_thumbprint_mismatch", "another thumbprint"),
        ({"port": 0}, "invalid_input", "not a TCP port"),
        ({"hostname": ""}, "invalid_input", "hostname: is empty"),
    ],
)
def test_each_mistake_is_told_from_the_others(vcenter: Vcenter, options: dict[str, Any], code: str, says: str) -> None:
    result = vcenter.fails("esxi_gpu_info", **options)
    assert result["failure"]["code"] == code
    assert says in result["msg"]
    assert "wrong-password" not in json.dumps(result)


def test_an_untrusted_certificate_is_named_with_three_ways_out(vcenter: Vcenter) -> None:
    message = vcenter.fails("esxi_gpu_info", ca_file=None)["msg"]
    assert f"127.0.0.1:{vcenter.port}" in message
    assert vcenter.thumbprint.upper() in message
    assert all(way in message for way in ("ca_file", "thumbprint", "validate_certs"))


def test_each_way_out_works(vcenter: Vcenter) -> None:
    certificate = ssl.PEM_cert_to_DER_cert(Path(vcenter.certificate).read_text())
    sha1 = hashlib.sha1(certificate, usedforsecurity=False).hexdigest()
    for options in (
        {"ca_file": vcenter.certificate},
        {"ca_file": None, "thumbprint": vcenter.thumbprint},
        {"ca_file": None, "thumbprint": sha1},
        {"ca_file": None, "validate_certs": False},
    ):
        assert vcenter.ok("esxi_gpu_info", **options)["hosts"]


def test_a_name_the_certificate_is_not_for(vcenter: Vcenter) -> None:
    with other_server(vcenter.certificate, "127.0.0.2") as port:
        result = vcenter.fails("esxi_gpu_info", hostname="127.0.0.2", port=port)
    assert result["failure"]["code"] == "tls_hostname_mismatch"
    assert "not for the name 127.0.0.2" in result["msg"]


def test_a_port_nobody_listens_on(vcenter: Vcenter) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        result = vcenter.fails("esxi_gpu_info", port=unused.getsockname()[1])
    assert result["failure"]["code"] == "connection_refused"


class _Other(BaseHTTPRequestHandler):
    status = 404

    def do_GET(self) -> None:
        self.send_response(self.status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        pass


@contextlib.contextmanager
def other_server(certificate: str | None, address: str = "127.0.0.1") -> Iterator[int]:
    """A server that is no vCenter, on a free port; with TLS if given a certificate that is trusted."""
    server = HTTPServer((address, 0), _Other)
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, next(Path(certificate).parent.glob("*key*")))
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.mark.parametrize(
    ("status", "code", "says"),
    [(404, "not_a_vcenter", "is not a vCenter"), (503, "vcenter_unavailable", "services are not up")],
)
def test_something_else_answers(
    vcenter: Vcenter, monkeypatch: pytest.MonkeyPatch, status: int, code: str, says: str
) -> None:
    monkeypatch.setattr(_Other, "status", status)
    with other_server(vcenter.certificate) as port:
        result = vcenter.fails("esxi_gpu_info", port=port)
    assert result["failure"]["code"] == code
    assert says in result["msg"]


def test_something_answers_without_tls(vcenter: Vcenter) -> None:
    with other_server(None) as port:
        result = vcenter.fails("esxi_gpu_info", port=port)
    assert result["failure"]["code"] == "tls_failed"


def _ticket(vcenter: Vcenter) -> Path:
    (path,) = vcenter.session_dir.glob("*.json")
    return path


def test_one_login_serves_all_later_tasks(vcenter: Vcenter) -> None:
    for module in ("esxi_gpu_info", "esxi_power", "esxi_maintenance"):
        vcenter.ok(module, hosts=HOST, check=True)
    assert vcenter.counts()["logins"] == 1
    assert stat.S_IMODE(_ticket(vcenter).stat().st_mode) == 0o600
    assert stat.S_IMODE(vcenter.session_dir.stat().st_mode) == 0o700


def test_many_processes_at_once_log_in_once(vcenter: Vcenter) -> None:
    running = [vcenter.start("esxi_gpu_info", hosts=HOST) for _number in range(20)]
    for process in running:
        with killed_at_the_end(process):
            stdout, stderr = process.communicate(timeout=120)
            assert process.returncode == 0, stdout + stderr
    assert vcenter.counts()["logins"] == 1


def test_a_wrong_password_never_rides_on_the_cached_session(vcenter: Vcenter) -> None:
    vcenter.ok("esxi_gpu_info")
    assert vcenter.fails("esxi_gpu_info", password="wrong-password")["failure"]["code"] == "invalid_login"
    vcenter.ok("esxi_gpu_info")
    assert vcenter.counts()["logins"] == 1


def test_a_session_that_has_ended_is_renewed_without_a_word(vcenter: Vcenter) -> None:
    vcenter.ok("esxi_gpu_info")
    path = _ticket(vcenter)
    ticket = json.loads(path.read_text())
    path.write_text(json.dumps(ticket | {"cookie": "0123456789abcdef"}))
    assert list(vcenter.ok("esxi_gpu_info", hosts=HOST)["hosts"]) == HOST
    assert vcenter.counts()["logins"] == 2
    vcenter.ok("esxi_gpu_info", hosts=HOST)
    assert vcenter.counts()["logins"] == 2


@pytest.mark.parametrize("method", ["RetrievePropertiesEx", "CreateContainerView", "WaitForUpdatesEx", "SetField"])
def test_a_session_lost_half_way_is_renewed_and_the_work_goes_on(start_vcenter: StartVcenter, method: str) -> None:
    fault = {"type": "vim.fault.NotAuthenticated"}
    vcenter = start_vcenter(fleet(1), faults=[{"method": method, "nth": 1, "fault": fault}])
    result = vcenter.ok("esxi_maintenance", hosts=HOST)
    assert result["changed"] is True
    assert vcenter.counts()["logins"] >= 1
    assert vcenter.host(HOST[0])["in_maintenance"] is True


def test_a_session_that_cannot_be_kept_is_an_error(start_vcenter: StartVcenter) -> None:
    fault = {"type": "vim.fault.NotAuthenticated"}
    vcenter = start_vcenter(fleet(1), faults=[{"method": "CreatePropertyCollector", "fault": fault}])
    assert vcenter.fails("esxi_gpu_info")["failure"]["code"] == "not_authenticated"


@pytest.mark.parametrize("content", ["", "{", "[]", '{"format": 7}'])
def test_a_damaged_ticket_counts_as_none(vcenter: Vcenter, content: str) -> None:
    vcenter.ok("esxi_gpu_info")
    _ticket(vcenter).write_text(content)
    vcenter.ok("esxi_gpu_info")
    assert vcenter.counts()["logins"] == 2


def test_an_unsafe_session_directory_is_refused(vcenter: Vcenter, tmp_path: Path) -> None:
    directory = tmp_path / "shared"
    directory.mkdir()
    directory.chmod(0o777)
    result = vcenter.fails("esxi_gpu_info", session_dir=str(directory))
    assert result["failure"]["code"] == "session_dir_unsafe"
    assert "chmod 700" in result["msg"]


@pytest.mark.parametrize("method", ["RetrievePropertiesEx", "CreateContainerView", "CreatePropertyCollector"])
def test_a_read_survives_a_dropped_connection(start_vcenter: StartVcenter, method: str) -> None:
    vcenter = start_vcenter(fleet(1), faults=[{"method": method, "nth": 1, "drop_connection": True}])
    result = vcenter.ok("esxi_gpu_info")
    assert list(result["hosts"]) == HOST
    assert result["requests"][method] == 2


def test_reads_give_up_in_the_end(start_vcenter: StartVcenter) -> None:
    vcenter = start_vcenter(fleet(1), faults=[{"method": "RetrievePropertiesEx", "drop_connection": True}])
    result = vcenter.fails("esxi_gpu_info")
    assert result["failure"]["code"] == "connection_lost"
    assert result["requests"]["RetrievePropertiesEx"] == 4


def test_environment_variables_stand_in_for_options(vcenter: Vcenter) -> None:
    variables = {
        "VMWARE_HOST": "127.0.0.1",
        "VMWARE_PORT": str(vcenter.port),
        "VMWARE_USER": USERNAME,
        "VMWARE_PASSWORD": PASSWORD,
        "VMWARE_CA_FILE": vcenter.certificate,
    }
    ran = subprocess.run(
        [sys.executable, "-m", "ansible_collections.gpuops.vsphere.plugins.modules.esxi_gpu_info"],
        input=json.dumps({"ANSIBLE_MODULE_ARGS": {"session_dir": str(vcenter.session_dir)}}),
        capture_output=True,
        text=True,
        env=environment(**variables),
        timeout=60,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout
    assert list(json.loads(ran.stdout)["hosts"]) == HOST


def test_missing_options_are_named(vcenter: Vcenter) -> None:
    ran = vcenter.run("esxi_gpu_info", hostname=None, password=None)
    assert ran.code == 1
    assert "missing required arguments: hostname, password" in ran.result["msg"]


def test_no_output_of_ansible_ever_holds_a_secret(vcenter: Vcenter, tmp_path: Path) -> None:
    variables = tmp_path / "vars.json"
    variables.write_text(json.dumps({"vcenter": vcenter.options()}))
    log = tmp_path / "ansible.log"
    playbook = tmp_path / "play.yml"
    playbook.write_text(
        """
- hosts: localhost
  connection: local
  gather_facts: false
  vars:
    ansible_python_interpreter: "{{ ansible_playbook_python }}"
  tasks:
    - gpuops.vsphere.esxi_gpu_info: "{{ vcenter }}"
      register: seen
    - ansible.builtin.debug: {var: seen.requests}
    - gpuops.vsphere.esxi_gpu_info: "{{ vcenter | combine({'port': 1}) }}"
"""
    )
    ran = subprocess.run(
        [str(BIN / "ansible-playbook"), "-vvvv", "-i", "localhost,", "-e", f"@{variables}", str(playbook)],
        cwd=TOP,
        env=environment(ANSIBLE_LOG_PATH=str(log), ANSIBLE_LOCAL_TEMP=str(tmp_path / "tmp")),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ran.returncode == 2, ran.stdout + ran.stderr
    assert "refuses connections" in ran.stdout
    cookie = json.loads(_ticket(vcenter).read_text())["cookie"]
    places = {"stdout": ran.stdout, "stderr": ran.stderr, "log": log.read_text()}
    places |= {path.name: path.read_text() for path in vcenter.session_dir.iterdir()}
    for place, text in places.items():
        assert PASSWORD not in text, place
        if place != _ticket(vcenter).name:
            assert cookie not in text, place
    assert not any(USERNAME in path.name for path in vcenter.session_dir.iterdir())
