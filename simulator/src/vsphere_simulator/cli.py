"""The command line: `vsphere-simulator serve`, `model` and `methods`."""

from __future__ import annotations

import argparse
import asyncio
import functools
import hashlib
import logging
import pathlib
import re
import stat
import sys

from vsphere_simulator.certificates import CertificateError
from vsphere_simulator.guests.command import GuestCommand, GuestCommandError
from vsphere_simulator.http import AddressInUseError
from vsphere_simulator.injection import FaultRulesError
from vsphere_simulator.kernel.clock import Clock
from vsphere_simulator.kernel.registry import World
from vsphere_simulator.kernel.service import about_info, install_services
from vsphere_simulator.methods import markdown, spliced
from vsphere_simulator.model.generate import generate_model
from vsphere_simulator.model.loader import ModelError, load_model
from vsphere_simulator.model.schema import PUBLIC_KEY
from vsphere_simulator.recording.client import RecordError, connected
from vsphere_simulator.recording.record import record
from vsphere_simulator.serve import Prepared, Settings, serve
from vsphere_simulator.soap import newest_version
from vsphere_simulator.statefile import StateFileError, read_state
from vsphere_simulator.world.build import build
from vsphere_simulator.world.state import StateError, dump, restore, understood

DEFAULT_LISTEN = "127.0.0.1:8989"


class UsageError(ValueError):
    """An option that cannot be used; the text says which and why."""


def main(arguments: list[str] | None = None) -> int:
    """Run a command; returns the exit status: 2 for what the operator has to correct, 130 after Ctrl-C."""
    options = _parser().parse_args(arguments)
    try:
        if options.command == "model":
            sys.stdout.write(_model(options))
        elif options.command == "record":
            _record(options)
        elif options.command == "methods":
            _methods(options.into)
        else:
            logging.basicConfig(level=options.log_level.upper(), format="%(levelname)s %(name)s: %(message)s")
            asyncio.run(serve(_settings(options), _prepare))
    except (
        UsageError,
        ModelError,
        FaultRulesError,
        CertificateError,
        StateFileError,
        AddressInUseError,
        RecordError,
        GuestCommandError,
    ) as problem:
        print(f"vsphere-simulator: {problem}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("vsphere-simulator: interrupted", file=sys.stderr)
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="vsphere-simulator", description="A vCenter that knows GPUs.")
    commands = parser.add_subparsers(dest="command", required=True)

    run = commands.add_parser("serve", help="serve a model until stopped by SIGTERM or SIGINT")
    run.add_argument("--model", required=True, type=pathlib.Path, metavar="FILE", help="YAML model to serve")
    run.add_argument("--listen", default=DEFAULT_LISTEN, metavar="HOST:PORT", help=f"port 0: any ({DEFAULT_LISTEN})")
    run.add_argument("--username", required=True, help="administrator who may log in")
    run.add_argument("--password-file", required=True, type=pathlib.Path, metavar="FILE", help="holds the password")
    run.add_argument("--tls-cert", type=pathlib.Path, metavar="FILE", help="PEM certificate (default: self-signed)")
    run.add_argument("--tls-key", type=pathlib.Path, metavar="FILE", help="its key")
    run.add_argument("--time-scale", type=float, default=1.0, metavar="N", help="run tasks and boots N times as fast")
    run.add_argument("--latency-ms", type=float, default=0.0, metavar="N", help="delay every answer")
    run.add_argument("--session-timeout", type=float, default=1800.0, metavar="SECONDS", help="of idle sessions (1800)")
    run.add_argument("--faults", type=pathlib.Path, metavar="FILE", help="YAML list of fault rules")
    run.add_argument("--ready-file", type=pathlib.Path, metavar="FILE", help="JSON written once it serves")
    run.add_argument("--state", type=pathlib.Path, metavar="FILE", help="JSON state, kept up to date and resumed from")
    run.add_argument("--guest-command", metavar="CMD", help="makes real guests for machines whose model has `guest`")
    run.add_argument("--guest-instance", metavar="NAME", help="whose guests they are (default: made from --state)")
    run.add_argument(
        "--guest-keep", action="store_true", help="guests outlive a killed simulator, and its successor takes them over"
    )
    run.add_argument("--guest-key", type=pathlib.Path, metavar="FILE", help="public key that may log in to guests")
    run.add_argument("--log-level", choices=("debug", "info", "warning", "error"), default="warning")

    model = commands.add_parser("model", help="print a model of a given size")
    model.add_argument("--clusters", type=int, required=True, metavar="C")
    model.add_argument("--hosts-per-cluster", type=int, required=True, metavar="H")
    model.add_argument("--vms-per-host", type=int, required=True, metavar="V")
    model.add_argument("--gpu", required=True, metavar="KEY", help="catalogue key, for example A100-40")
    model.add_argument("--gpus-per-host", type=int, required=True, metavar="G")
    model.add_argument("--vgpu-manager", metavar="VERSION", help="installed on every host")

    recorded = commands.add_parser("record", help="print a model of a live vCenter; what it leaves out goes to stderr")
    recorded.add_argument("--server", required=True, metavar="HOST[:PORT]")
    recorded.add_argument("--username", required=True, help="who may read everything")
    recorded.add_argument("--password-file", required=True, type=pathlib.Path, metavar="FILE")
    trust = recorded.add_mutually_exclusive_group()
    trust.add_argument("--ca-file", type=pathlib.Path, metavar="FILE", help="PEM of who signed its certificate")
    trust.add_argument("--thumbprint", metavar="AA:BB:…", help="of its certificate (SHA-256)")
    recorded.add_argument("--datacenter", metavar="NAME", help="which one, where there are several")
    recorded.add_argument("--anonymize", action="store_true", help="replace names and addresses by numbers")

    methods = commands.add_parser("methods", help="print what is supported and what is refused, as Markdown")
    methods.add_argument("--into", type=pathlib.Path, metavar="FILE", help="write it between the markers of a document")
    return parser


def _record(options: argparse.Namespace) -> None:
    text = options.server
    host, port = _address(text if text.rpartition(":")[2].isdecimal() and not text.endswith("]") else f"{text}:443")
    if options.ca_file is not None and not options.ca_file.is_file():
        raise UsageError(f"{options.ca_file}: no such file")
    password = _password(options.password_file)
    with connected(
        host, port, options.username, password, ca_file=options.ca_file, thumbprint=options.thumbprint
    ) as source:
        model, left_out = record(source, datacenter=options.datacenter, anonymize=options.anonymize)
    sys.stdout.write(model)
    for line in left_out:
        print(f"vsphere-simulator: left out: {line}", file=sys.stderr)


def _methods(document: pathlib.Path | None) -> None:
    if document is None:
        sys.stdout.write(markdown())
        return
    try:
        document.write_text(spliced(document.read_text(encoding="utf-8"), markdown()), encoding="utf-8")
    except (OSError, ValueError) as problem:
        raise UsageError(f"{document}: {getattr(problem, 'strerror', None) or problem}") from None


def _model(options: argparse.Namespace) -> str:
    try:
        return generate_model(
            clusters=options.clusters,
            hosts_per_cluster=options.hosts_per_cluster,
            vms_per_host=options.vms_per_host,
            gpu=options.gpu,
            gpus_per_host=options.gpus_per_host,
            vgpu_manager=options.vgpu_manager,
        )
    except (ValueError, KeyError) as problem:
        raise UsageError(problem.args[0]) from None


def _prepare(settings: Settings) -> Prepared:
    """Build the world of the model, or the one that the state file describes if there is one already."""
    model = load_model(settings.model)
    try:
        newest = newest_version(model.api_version)
    except ValueError as problem:
        raise ModelError(str(settings.model), [f"api_version: {problem}"]) from None
    saved = read_state(settings.state) if settings.state is not None else None
    world = World(Clock(settings.time_scale))
    install_services(world, about_info(model.api_version))
    try:
        site = build(world, model) if saved is None else restore(world, model, saved)
        for name, privileges in model.roles.items():
            world.authorization.add_role(name, privileges)
        for user in model.users:
            if user.role not in world.authorization.roles:
                known = ", ".join(world.authorization.roles)
                raise ModelError(str(settings.model), [f"users: {user.name}: no role {user.role}; there are {known}"])
            world.authorization.add_user(user.name, user.password, user.role)
        if saved is not None:
            with understood():
                world.authorization.load(saved.get("authorization", {}))
    except ValueError as problem:
        raise ModelError(str(settings.model), [str(problem)]) from None
    except StateError as problem:
        raise StateFileError(f"{settings.state}: {problem}") from None
    return Prepared(world, newest, functools.partial(dump, world), site)


def _settings(options: argparse.Namespace) -> Settings:
    host, port = _address(options.listen)
    for name in ("time_scale", "session_timeout"):
        if not getattr(options, name) > 0:
            raise UsageError(f"--{name.replace('_', '-')} must be positive")
    if not options.latency_ms >= 0:
        raise UsageError("--latency-ms must not be negative")
    if (options.tls_cert is None) != (options.tls_key is None):
        raise UsageError("--tls-cert and --tls-key belong together")
    for name in ("ready_file", "state"):
        path = getattr(options, name)
        if path is not None and not path.absolute().parent.is_dir():
            raise UsageError(f"{path}: its directory does not exist")
        if path is not None and path.is_dir():
            raise UsageError(f"{path}: is a directory; name a file in it")
    if not options.username:
        raise UsageError("--username is empty")
    return Settings(
        model=options.model,
        host=host,
        port=port,
        username=options.username,
        password=_password(options.password_file),
        certificate=(options.tls_cert, options.tls_key) if options.tls_cert is not None else None,
        time_scale=options.time_scale,
        latency_s=options.latency_ms / 1000,
        session_timeout_s=options.session_timeout,
        faults=options.faults,
        ready_file=options.ready_file.absolute() if options.ready_file is not None else None,
        state=options.state,
        guests=_guest_command(options),
    )


_INSTANCE = re.compile(r"[a-z0-9][a-z0-9-]{0,39}")


def _guest_command(options: argparse.Namespace) -> GuestCommand | None:
    """What makes guests; its instance must be the same after a crash, so that the next start finds what is left."""
    if options.guest_command is None:
        if options.guest_instance is not None or options.guest_key is not None or options.guest_keep:
            raise UsageError("--guest-instance, --guest-key and --guest-keep belong to --guest-command")
        return None
    instance = options.guest_instance
    if instance is None:
        if options.state is None:
            raise UsageError("--guest-command wants --state or --guest-instance, to clean up after a crash")
        instance = "sim-" + hashlib.sha256(str(options.state.resolve()).encode()).hexdigest()[:12]
    if not _INSTANCE.fullmatch(instance):
        raise UsageError(f"--guest-instance {instance!r}: use 1 to 40 lower-case letters, digits and hyphens")
    return GuestCommand(options.guest_command, instance, _public_keys(options.guest_key), keep=options.guest_keep)


def _public_keys(path: pathlib.Path | None) -> tuple[str, ...]:
    """The keys in a .pub file."""
    if path is None:
        return ()
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as problem:
        raise UsageError(f"{path}: {getattr(problem, 'strerror', None) or 'not UTF-8 text'}") from None
    if not lines or not all(PUBLIC_KEY.fullmatch(line) for line in lines):
        raise UsageError(f"{path}: not an OpenSSH public key; give the .pub file")
    return tuple(lines)


def _address(listen: str) -> tuple[str, int]:
    """Split `HOST:PORT`, where HOST may be an IPv6 address in brackets."""
    host, colon, port = listen.rpartition(":")
    if not colon or not host or not port.isdecimal() or int(port) > 65535:
        raise UsageError(f"--listen wants HOST:PORT, not {listen!r}")
    return host.removeprefix("[").removesuffix("]"), int(port)


def _password(path: pathlib.Path) -> str:
    """Read the password, and say so if others can read it too."""
    try:
        password = path.read_text(encoding="utf-8").rstrip("\r\n")
        mode = path.stat().st_mode
    except (OSError, UnicodeDecodeError) as problem:
        reason = getattr(problem, "strerror", None) or "not UTF-8 text"
        raise UsageError(f"--password-file {path}: {reason}") from None
    if not password:
        raise UsageError(f"--password-file {path}: is empty")
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        print(f"vsphere-simulator: warning: {path} can be read by others; chmod 600 it", file=sys.stderr)
    return password


if __name__ == "__main__":
    sys.exit(main())
