"""The command line: every mistake is one line and exit status 2; a restart carries on from the state."""

from __future__ import annotations

import json
import pathlib
import re
import signal
import socket
import ssl
import subprocess
import sys
import time
import typing as t

import pytest
from pyVim.connect import SmartConnect
from pyVim.task import WaitForTask
from pyVmomi import vim

from vsphere_simulator import __main__
from vsphere_simulator.cli import main
from vsphere_simulator.serve import Settings

MODEL = """
datacenter: lab
datastores: [{name: shared-01}]
networks: [{name: VM Network}]
clusters:
  - name: gpu
    hosts: [{name: esx-1, gpus: [{gpu: V100-32, count: 2}]}, {name: esx-2}]
templates: [{name: template, host: esx-1}]
roles: {Switcher: [VirtualMachine.Interact.PowerOn]}
users: [{name: switcher@lab, password: switching, role: Switcher}]
api_version: 8.0.2.0
"""
PATIENCE = 180.0


@pytest.fixture
def directory(tmp_path: pathlib.Path) -> pathlib.Path:
    (tmp_path / "model.yml").write_text(MODEL)
    (tmp_path / "password").write_text("secret\n")
    (tmp_path / "password").chmod(0o600)
    return tmp_path


def serve_options(directory: pathlib.Path, **changed: str | None) -> list[str]:
    options: dict[str, str | None] = {
        "model": str(directory / "model.yml"),
        "listen": "127.0.0.1:0",
        "username": "admin@lab",
        "password_file": str(directory / "password"),
        **changed,
    }
    found = ["serve"]
    for name, value in options.items():
        found += [f"--{name.replace('_', '-')}", value] if value is not None else []
    return found


def refused(capsys: pytest.CaptureFixture[str], options: list[str]) -> str:
    """Run a command that must fail, and return its message."""
    assert main(options) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith("vsphere-simulator: ")
    return output.err.removeprefix("vsphere-simulator: ").rstrip("\n")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"listen": "8989"}, "--listen wants HOST:PORT, not '8989'"),
        ({"listen": "localhost:99999"}, "--listen wants HOST:PORT, not 'localhost:99999'"),
        ({"time_scale": "0"}, "--time-scale must be positive"),
        ({"time_scale": "nan"}, "--time-scale must be positive"),
        ({"latency_ms": "-1"}, "--latency-ms must not be negative"),
        ({"session_timeout": "0"}, "--session-timeout must be positive"),
        ({"tls_cert": "x.pem"}, "--tls-cert and --tls-key belong together"),
        ({"tls_cert": "x.pem", "tls_key": "y.pem"}, "x.pem: No such file or directory"),
        ({"password_file": "absent"}, "--password-file absent: No such file or directory"),
        ({"username": ""}, "--username is empty"),
        ({"faults": "absent.yml"}, "absent.yml: No such file or directory"),
        ({"ready_file": "absent/ready.json"}, "absent/ready.json: its directory does not exist"),
        ({"state": "absent/state.json"}, "absent/state.json: its directory does not exist"),
        ({"ready_file": "/"}, "/: is a directory; name a file in it"),
        ({"state": "/"}, "/: is a directory; name a file in it"),
        ({"listen": "192.0.2.1:1"}, "cannot listen on 192.0.2.1:1: Cannot assign requested address"),
        ({"guest_key": "key.pub"}, "--guest-instance, --guest-key and --guest-keep belong to --guest-command"),
        ({"guest_command": "x"}, "--guest-command wants --state or --guest-instance, to clean up after a crash"),
        ({"guest_command": "x", "guest_instance": "My_Lab"}, "--guest-instance 'My_Lab': use 1 to 40 lower-case"),
        ({"guest_command": "x", "guest_instance": "lab", "guest_key": "absent"}, "absent: No such file or directory"),
        (
            {"guest_command": "x", "guest_instance": "lab", "guest_key": __file__},
            f"{__file__}: not an OpenSSH public key; give the .pub file",
        ),
        ({"guest_command": "'", "guest_instance": "lab"}, '"\'": No closing quotation'),
    ],
)
def test_options_that_cannot_be_used(
    capsys: pytest.CaptureFixture[str], directory: pathlib.Path, changed: dict[str, str], message: str
) -> None:
    said = refused(capsys, serve_options(directory, **changed))
    assert said.startswith(message)
    assert "\n" not in said


@pytest.mark.parametrize(
    ("name", "content", "pattern"),
    [
        ("model.yml", "datacenter: lab\nclusters: [{nam: x}]", r"nam: unknown key; did you mean name\?"),
        ("model.yml", MODEL.replace("8.0.2.0", "5.9.9"), r"api_version: unknown API version 5\.9\.9"),
        ("model.yml", MODEL.replace("role: Switcher", "role: Boss"), "Boss"),
        ("password", "", "password: is empty$"),
        ("faults", "{", "not valid YAML"),
        ("faults", "a: b", "expected a list of rules"),
        ("faults", "- {method: X, objet: y, delay_s: 1}", r"rule 1: unknown key objet, did you mean object\?"),
        ("faults", "- {method: X}", "rule 1: exactly one of"),
        ("faults", "- {method: X, delay_s: 1, drop_connection: true}", "rule 1: exactly one of"),
        ("faults", "- {method: X, fault: {type: vim.fault.Nothing}}", r"unknown fault type vim\.fault\.Nothing"),
        ("faults", "- {method: X, fault: {type: vim.HostSystem}}", "is not a fault"),
        ("faults", "- {method: X, fault: {type: vim.fault.InvalidState, fields: {a: 1}}}", "no such field"),
        ("faults", "- {method: X, nth: 0, delay_s: 1}", "nth: "),
        ("state", "{", "not a state file"),
        ("state", "[]", "not a state file"),
        ("state", '{"format": 99}', "format 99"),
        ("state", '{"format": 1}', r"damaged, or written by another version \(KeyError: 'options'\); put a copy"),
        ("state", '{"format": 1, "options": 1}', "damaged, or written by another version .* remove it to begin"),
    ],
)
def test_files_that_cannot_be_used(
    capsys: pytest.CaptureFixture[str], directory: pathlib.Path, name: str, content: str, pattern: str
) -> None:
    (directory / name).write_text(content)
    changed = {name: str(directory / name)} if name in ("faults", "state") else {}
    said = refused(capsys, serve_options(directory, **changed))
    assert str(directory / name) in said
    assert re.search(pattern, said)
    assert "Traceback" not in said


def test_a_port_in_use_is_named(capsys: pytest.CaptureFixture[str], directory: pathlib.Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        assert refused(capsys, serve_options(directory, listen=address)) == (
            f"cannot listen on {address}: Address already in use; choose another port (0: any free one)"
        )


def test_a_host_that_is_unknown_cannot_be_listened_on(
    capsys: pytest.CaptureFixture[str], directory: pathlib.Path
) -> None:
    said = refused(capsys, serve_options(directory, listen="no-such-host.invalid:0"))
    assert said.startswith("cannot listen on no-such-host.invalid:0: ")
    assert "Errno" not in said


def test_it_listens_on_loopback_unless_told_otherwise(directory: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, int]] = []

    async def listen(settings: Settings, _: t.Any) -> None:
        asked.append((settings.host, settings.port))

    monkeypatch.setattr("vsphere_simulator.cli.serve", listen)
    assert main(serve_options(directory, listen=None)) == 0
    assert main(serve_options(directory, listen="[::]:1234")) == 0
    assert asked == [("127.0.0.1", 8989), ("::", 1234)]


def test_an_interrupted_command_ends_without_a_traceback(
    capsys: pytest.CaptureFixture[str], directory: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(_: pathlib.Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("vsphere_simulator.cli.load_model", interrupted)
    assert main(serve_options(directory)) == 130
    assert capsys.readouterr().err == "vsphere-simulator: interrupted\n"


def test_an_interruption_while_modules_load_is_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(_: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("importlib.import_module", interrupted)
    assert __main__.main() == 130
    assert capsys.readouterr().err == "vsphere-simulator: interrupted\n"


def test_a_state_whose_objects_do_not_fit_together_is_refused(
    capsys: pytest.CaptureFixture[str], directory: pathlib.Path, serve: t.Callable[..., Server]
) -> None:
    path = directory / "state.json"
    serve(state=str(path)).stop()
    whole = json.loads(path.read_text())
    host = next(moid for moid, data in whole["objects"].items() if data["kind"] == "HostSystem")
    for damage in (
        {"objects": whole["objects"] | {host: whole["objects"][host] | {"parent": "domain-c404"}}},
        {"objects": []},
        {"authorization": {"roles": 1}},
        {"hardware": [1]},
    ):
        path.write_text(json.dumps(whole | damage))
        said = refused(capsys, serve_options(directory, state=str(path)))
        assert said.startswith(f"{path}: damaged, or written by another version ("), damage
        assert "\n" not in said


def test_what_it_prints_is_enough_for_a_client(directory: pathlib.Path) -> None:
    """Without a ready file nothing else says where the certificate is."""
    program = [sys.executable, "-m", "vsphere_simulator", *serve_options(directory)]
    with subprocess.Popen(program, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            shown = dict(process.stdout.readline().split() for _ in range(4))
            address = re.fullmatch(r"https://127\.0\.0\.1:(\d+)/sdk", shown["url"])
            assert address
            tls = ssl.create_default_context(cafile=shown["certificate"])
            client = SmartConnect(
                host="127.0.0.1", port=int(address[1]), user="admin@lab", pwd="secret", sslContext=tls
            )
            assert client.content.about.apiVersion == "8.0.2.0"
            process.send_signal(signal.SIGINT)
            assert process.stdout.read().startswith("counts {")
        finally:
            process.kill()
    assert not pathlib.Path(shown["certificate"]).exists()


def test_a_certificate_and_a_key_that_do_not_belong_together(
    capsys: pytest.CaptureFixture[str], directory: pathlib.Path
) -> None:
    (directory / "bad.pem").write_text("nothing")
    options = serve_options(directory, tls_cert=str(directory / "bad.pem"), tls_key=str(directory / "bad.pem"))
    assert refused(capsys, options) == f"{directory}/bad.pem: not a PEM certificate"


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"gpu": "V100-33"}, "V100-33"),
        ({"clusters": "0"}, "clusters: at least 1, not 0"),
        ({"vms-per-host": "-1"}, "virtual machines per host: at least 0, not -1"),
    ],
)
def test_a_model_that_cannot_be_made(capsys: pytest.CaptureFixture[str], changed: dict[str, str], message: str) -> None:
    sizes = {"clusters": "1", "hosts-per-cluster": "1", "vms-per-host": "1", "gpu": "T4", "gpus-per-host": "1"}
    options = ["model", *(f"--{name}={value}" for name, value in {**sizes, **changed}.items())]
    assert message in refused(capsys, options)


class Server:
    """`vsphere-simulator serve` as a process."""

    def __init__(self, directory: pathlib.Path, **changed: str) -> None:
        self.ready_file = directory / "ready.json"
        self.ready_file.unlink(missing_ok=True)
        options = serve_options(directory, ready_file=str(self.ready_file), time_scale="100", **changed)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "vsphere_simulator.cli", *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        deadline = time.monotonic() + PATIENCE
        while not self.ready_file.exists():
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.process.kill()
                raise RuntimeError(self.process.communicate()[1])
            time.sleep(0.02)
        self.ready = json.loads(self.ready_file.read_text())

    def connect(self, user: str = "admin@lab", secret: str = "secret") -> t.Any:  # noqa: S107 - the fixture's
        tls = ssl.create_default_context(cafile=self.ready["certificate"])
        return SmartConnect(host=self.ready["hostname"], port=self.ready["port"], user=user, pwd=secret, sslContext=tls)

    def stop(self, number: int = signal.SIGTERM) -> tuple[str, str]:
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            return self.process.communicate(timeout=PATIENCE)
        finally:
            self.process.kill()


@pytest.fixture
def serve(directory: pathlib.Path) -> t.Iterator[t.Callable[..., Server]]:
    running: list[Server] = []

    def launch(**changed: str) -> Server:
        running.append(Server(directory, **changed))
        return running[-1]

    yield launch
    for server in running:
        server.stop()


def named(client: t.Any, kind: t.Any) -> dict[str, t.Any]:
    view = client.content.viewManager.CreateContainerView(client.content.rootFolder, [kind], True)
    return {obj.name: obj for obj in view.view}


def test_a_model_is_served_with_its_users_and_version(serve: t.Callable[..., Server]) -> None:
    server = serve()
    client = server.connect()
    assert client.content.about.apiVersion == "8.0.2.0"
    assert client._stub.version == "vim.version.v8_0_2_0"
    assert sorted(named(client, vim.HostSystem)) == ["esx-1", "esx-2"]
    limited = server.connect("switcher@lab", "switching")
    with pytest.raises(vim.fault.NoPermission):
        named(limited, vim.VirtualMachine)["template"].Destroy_Task()


def test_a_readable_password_file_is_warned_about(directory: pathlib.Path, serve: t.Callable[..., Server]) -> None:
    (directory / "password").chmod(0o644)
    output, errors = serve().stop()
    assert "password can be read by others" in errors
    assert "secret" not in output + errors


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_restart_carries_on_from_the_state(
    directory: pathlib.Path, serve: t.Callable[..., Server], number: int
) -> None:
    state = directory / "state.json"
    first = serve(state=str(state))
    client = first.connect()
    template = named(client, vim.VirtualMachine)["template"]
    place = vim.vm.RelocateSpec(pool=named(client, vim.ClusterComputeResource)["gpu"].resourcePool)
    WaitForTask(template.CloneVM_Task(template.parent, "kept", vim.vm.CloneSpec(location=place)))
    made = named(client, vim.VirtualMachine)["kept"]
    deadline = time.monotonic() + PATIENCE
    while b'"kept"' not in state.read_bytes() and time.monotonic() < deadline:
        time.sleep(0.02)
    first.stop(number)
    before = state.read_bytes()
    second = serve(state=str(state))
    again = named(second.connect(), vim.VirtualMachine)
    assert again["kept"]._moId == made._moId
    assert again["kept"].config.instanceUuid
    second.stop()
    assert state.read_bytes() == before
