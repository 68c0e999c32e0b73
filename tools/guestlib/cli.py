"""The command line: JSON in, JSON out, one line on standard error when something is wrong."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from . import cleanup, hostpackages
from .errors import INTERRUPTED, GuestError, SpecError
from .guests import Guests
from .host import Host, can_have_guests, in_use
from .images import ImageStore, cache_directory
from .podman import Podman
from .reader import parse_json
from .recipe import SUITES
from .spec import (
    DEFAULT_TIMEOUT_S,
    NamesRequest,
    check_instance,
    parse_create,
    parse_names,
    parse_recipe,
)

_ACTIONS = {
    "freeze": "nothing in the guest runs; memory and address stay",
    "thaw": "let a frozen guest go on",
    "stop": "shut down",
    "start": "start a stopped guest and wait until it is up",
    "reboot": "restart a running guest and wait until it is up",
    "destroy": "remove; fine if already gone",
}


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise SpecError(message, f"see '{self.prog} --help'")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return its exit code (see errors.py)."""
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        options = _parser().parse_args(arguments)
        result = options.run(options)
    except GuestError as error:
        print(f"guest: {error.line()}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("guest: interrupted; what was begun has been undone", file=sys.stderr)
        return INTERRUPTED
    try:
        print(json.dumps(result, indent=2), flush=True)
    except BrokenPipeError:  # whoever reads it has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="guest", description="Container guests with systemd and sshd.")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND", parser_class=_Parser)

    create = commands.add_parser("create", help="make guests, start them and wait until ssh answers")
    create.add_argument("--spec", default="-", metavar="FILE", help="the request (JSON); default: standard input")
    create.set_defaults(run=_create)

    for name, text in _ACTIONS.items():
        action = commands.add_parser(name, help=text)
        action.add_argument("--spec", metavar="FILE", help="the request (JSON; '-': standard input)")
        action.add_argument("--instance", metavar="NAME")
        action.add_argument("--timeout", type=float, default=DEFAULT_TIMEOUT_S, metavar="SECONDS")
        action.add_argument("names", nargs="*", metavar="GUEST", help="default: every guest of the instance")
        if name == "stop":
            action.add_argument("--hard", action="store_true", help="do not wait for services to end")
        action.set_defaults(run=_act, action=name)

    listing = commands.add_parser("list", help="describe guests")
    listing.add_argument("--instance", metavar="NAME", help="default: all instances")
    listing.set_defaults(run=_list)

    image = commands.add_parser("image", help="build, list or prune images")
    image_commands = image.add_subparsers(title="commands", required=True, metavar="COMMAND", parser_class=_Parser)
    build = image_commands.add_parser("build", help="make sure that an image is there")
    build.add_argument("--spec", metavar="FILE", help="the recipe (JSON; '-': standard input)")
    build.add_argument("--suite", default=SUITES[0], metavar="SUITE")
    build.add_argument("--package", action="append", default=[], dest="packages", metavar="NAME")
    build.add_argument("--refresh", action="store_true", help="build anew, to take in updated packages")
    build.set_defaults(run=_image_build)
    image_commands.add_parser("list", help="list images").set_defaults(run=_image_list)
    prune = image_commands.add_parser("prune", help="remove images that no guest uses")
    prune.add_argument("images", nargs="*", metavar="IMAGE", help="default: all")
    prune.set_defaults(run=_image_prune)

    clean = commands.add_parser("cleanup", help="remove what crashed runs have left")
    scope = clean.add_mutually_exclusive_group(required=True)
    scope.add_argument("--instance", metavar="NAME", help="everything of one instance")
    scope.add_argument(
        "--stale", action="store_true", help="guests whose owner, or unfinished ones whose creator, died"
    )
    scope.add_argument("--all", action="store_true", help="every guest of every instance")
    clean.set_defaults(run=_cleanup)

    commands.add_parser("setup", help="install the packages that guests need").set_defaults(
        run=lambda _: hostpackages.setup()
    )
    return parser


def _create(options: argparse.Namespace) -> dict[str, Any]:
    request = parse_create(_read(options.spec))
    with in_use(_has_guests) as host:
        podman = Podman(host, request.instance)
        images = ImageStore(podman, cache_directory())
        return {"guests": Guests(host, podman, request.instance).create(request, images)}


def _act(options: argparse.Namespace) -> dict[str, Any]:
    request = _names(options)
    action: str = options.action
    if action == "destroy" and not can_have_guests():
        return {"guests": []}
    with in_use(_has_guests) as host:
        guests = Guests(host, Podman(host, request.instance), request.instance)
        call: dict[str, Callable[[], list[dict[str, Any]]]] = {
            "freeze": lambda: guests.freeze(request.names),
            "thaw": lambda: guests.thaw(request.names),
            "stop": lambda: guests.stop(request.names, hard=options.hard),
            "start": lambda: guests.start(request.names, request.timeout_s),
            "reboot": lambda: guests.reboot(request.names, request.timeout_s),
            "destroy": lambda: guests.destroy(request.names),
        }
        return {"guests": call[action]()}


def _list(options: argparse.Namespace) -> dict[str, Any]:
    instance = check_instance(options.instance) if options.instance else None
    if not can_have_guests():
        return {"guests": []}
    with in_use(_has_guests) as host:
        podman = Podman(host, "list")
        names = [instance] if instance else sorted({found.instance for found in podman.containers()})
        return {"guests": [entry for name in names for entry in Guests(host, podman, name).describe()]}


def _image_build(options: argparse.Namespace) -> dict[str, Any]:
    value = _read(options.spec) if options.spec else {"suite": options.suite, "packages": options.packages}
    recipe = parse_recipe(value, "image")
    with in_use(_has_guests) as host:
        store = ImageStore(Podman(host, "image"), cache_directory())
        return store.ensure(recipe, refresh=options.refresh).to_dict()


def _image_list(_: argparse.Namespace) -> dict[str, Any]:
    if not can_have_guests():
        return {"images": []}
    with in_use(_has_guests) as host:
        return {"images": ImageStore(Podman(host, "image"), cache_directory()).listing()}


def _image_prune(options: argparse.Namespace) -> dict[str, Any]:
    if not can_have_guests():
        return {"removed": []}
    with in_use(_has_guests) as host:
        return {"removed": ImageStore(Podman(host, "image"), cache_directory()).prune(options.images)}


def _cleanup(options: argparse.Namespace) -> dict[str, Any]:
    instance = check_instance(options.instance) if options.instance else None
    if not can_have_guests():
        return {"removed": {}, "builds": []}
    with in_use(_has_guests) as host:
        builds = ImageStore(Podman(host, "image"), cache_directory()).clean()
        if instance:
            removed = cleanup.remove_instance(host, instance)
        elif options.stale:
            removed = cleanup.remove_stale(host)
        else:
            removed = cleanup.remove_everything(host)
        return {"removed": removed, "builds": builds}


def _has_guests(host: Host) -> bool:
    return bool(Podman(host, "list").containers())


def _names(options: argparse.Namespace) -> NamesRequest:
    if options.spec:
        if options.instance or options.names:
            raise SpecError("--spec names the guests already", "leave out --instance and the names")
        return parse_names(_read(options.spec))
    if not options.instance:
        raise SpecError("no instance is given", "use --instance NAME, or --spec FILE")
    return parse_names({"instance": options.instance, "names": options.names, "timeout_s": options.timeout})


def _read(source: str) -> object:
    if source == "-":
        return parse_json(sys.stdin.read(), "standard input")
    try:
        return parse_json(Path(source).read_text(encoding="utf-8"), source)
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(f"cannot read {source}: {error}", "give a readable JSON file") from error


def _interrupt(_number: int, _frame: object) -> NoReturn:
    raise KeyboardInterrupt
