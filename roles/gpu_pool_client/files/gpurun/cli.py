# Copyright: (c) 2026, The gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The command line: words of Bitfusion's client, served by Slurm."""

from __future__ import annotations

import argparse
import json
import os
import pwd
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from . import container, job, leases, quota, request, settings, show, slurm
from .errors import CredentialError, GpurunError, UsageError
from .pool import Node, read_nodes

EXIT_CODES = """\
exit codes: the job's own; or 2 wrong command line, 120 cannot be had, 121 over quota or quota used up,
122 image missing or not signed, 123 no controller answers, 124 credential not accepted, 125 another error of Slurm,
128+n ended by signal n"""

# Slurm's forms of a time limit: MINUTES, MM:SS, HH:MM:SS, D-HH, D-HH:MM, D-HH:MM:SS.
TIME = re.compile(r"\d+(:\d\d?){0,2}|\d+-\d+(:\d\d?){0,2}|unlimited|infinite", re.IGNORECASE)
ACCOUNTING = (["sacctmgr", "show", "assoc"], ["sacctmgr", "show", "qos"])


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line."""

    def error(self, message: str) -> NoReturn:
        """As everywhere else: one line, exit code 2."""
        raise UsageError(f"{message} (see `{self.prog} --help`)")


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    top = Parser(
        prog="gpurun",
        description="Run programs on any fraction of any GPU of the pool.",
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--config", default=settings.DEFAULT_PATH, help=argparse.SUPPRESS)
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")

    run = commands.add_parser(
        "run", help="run a command on GPUs", epilog=EXIT_CODES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    _gpu_options(run)
    run.add_argument("--image", help="container image: a path, or a name in the site's image directory")
    run.add_argument(
        "--bind", action="append", default=[], metavar="PATH[:PATH[:ro]]", help="bring another path into the container"
    )
    run.add_argument("--chdir", metavar="DIR", help="directory of the command, on shared storage (default: this one)")
    run.add_argument("--lease", type=int, metavar="JOB", help="run in GPUs had by request_gpus")
    run.add_argument(
        "--pty", action=argparse.BooleanOptionalAction, help="give the command a terminal (default: if you are on one)"
    )
    _wait_option(run)
    run.add_argument("--quiet", action="store_true", help="say nothing about waiting")
    run.add_argument("--dry-run", action="store_true", help="show what would be run, and run nothing")
    run.add_argument("argv", nargs=argparse.REMAINDER, metavar="-- CMD", help="the command")

    ask = commands.add_parser("request_gpus", help="hold GPUs for several commands")
    _gpu_options(ask)
    _wait_option(ask)
    ask.add_argument("-f", "--file", help="write the lease to this file")
    free = commands.add_parser("release_gpus", help="give back what request_gpus holds")
    free.add_argument("lease", nargs="*", type=int, help="number of a lease")
    free.add_argument("-f", "--file", help="the lease in this file, which is removed")
    free.add_argument("--all", action="store_true", help="all of your leases")
    for name, text in (
        ("list_gpus", "every GPU of the pool and what is free of it"),
        ("health", "controllers and servers; exit code 1 if one is not well"),
        ("smi", "nvidia-smi on the GPUs that you hold"),
        ("quota", "your limits and what you use of them"),
    ):
        commands.add_parser(name, help=text)
    for command in commands.choices.values():
        command.add_argument("--json", action="store_true", help="print JSON")
    return top


def _gpu_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("-n", "--num-gpus", type=int, default=1, metavar="N", help="how many GPUs (default 1)")
    command.add_argument("-p", "--partial", type=float, metavar="F", help="fraction of each GPU, above 0 and at most 1")
    command.add_argument("--memory", type=int, metavar="MB", help="GPU memory, instead of a fraction")
    command.add_argument("--gpu-type", metavar="TYPE", help="kind of GPU, as list_gpus shows it")
    command.add_argument("--cpus", type=int, metavar="N", help="CPUs for the command (default: the pool's)")
    command.add_argument(
        "--time", metavar="LIMIT", help="end it after this long (Slurm's form: MINUTES, HH:MM:SS, D-HH)"
    )
    command.add_argument("--account", help="account (tenant) that pays, if you have several")


def _wait_option(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--wait", action="store_true", help="queue also while your own quota is used up (without, that is an error)"
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code. Errors are one line on standard error."""
    words = list(sys.argv[1:] if argv is None else argv)
    as_json = "--json" in words[: words.index("--") if "--" in words else None]
    try:
        return _dispatch(parser().parse_args(words))
    except GpurunError as error:
        if as_json:
            print(json.dumps({"error": str(error), "exit_code": error.exit_code}))
        print(f"gpurun: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _dispatch(arguments: argparse.Namespace) -> int:
    site = settings.load(arguments.config)
    if arguments.command == "run":
        return _run(arguments, site)
    if arguments.command == "request_gpus":
        return _request(arguments, site)
    if arguments.command == "release_gpus":
        return _release(arguments)
    if arguments.command == "smi":
        return leases.smi(_user(), as_json=arguments.json)
    nodes = read_nodes(slurm.call(["scontrol", "show", "nodes"]))
    if arguments.command == "list_gpus":
        print(json.dumps(show.gpus(nodes), indent=2) if arguments.json else show.gpu_table(nodes))
        return 0
    if arguments.command == "health":
        report = show.health(nodes, slurm.call(["scontrol", "ping"]))
        print(json.dumps(report, indent=2) if arguments.json else show.health_table(report))
        return 0 if report["healthy"] else 1
    user = _user()
    usage = show.usage(
        _limits(slurm.ask(*ACCOUNTING), user, None),
        slurm.call(["squeue"]),
        user,
        max((node.shards for node in nodes), default=0),
    )
    print(json.dumps(usage, indent=2) if arguments.json else show.usage_table(usage))
    return 0


def _user() -> str:
    """Who this is for Slurm, whatever the environment says."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        raise CredentialError(f"the account number {os.getuid()} has no name here: ask the operator") from None


def _voice(arguments: argparse.Namespace) -> job.Voice:
    return job.Voice(as_json=arguments.json, quiet=getattr(arguments, "quiet", False))


def _grant(arguments: argparse.Namespace) -> request.Grant:
    wish = request.Wish(
        arguments.num_gpus, arguments.partial, arguments.memory, arguments.gpu_type, cpus=arguments.cpus
    )
    request.check(wish)
    if arguments.time and not TIME.fullmatch(arguments.time):
        raise UsageError(f"--time {arguments.time}: a time limit is MINUTES, HH:MM:SS, D-HH or D-HH:MM:SS")
    told, *accounting = slurm.ask(["scontrol", "show", "nodes"], *ACCOUNTING)
    if isinstance(told, GpurunError):
        raise told
    nodes: Sequence[Node] = read_nodes(told)
    grant = request.plan(wish, nodes)
    quota.check(grant, _limits(accounting, _user(), arguments.account))
    if grant.note:
        _voice(arguments).say("note", grant.note)
    return grant


def _limits(accounting: Sequence[Any], user: str, account: str | None) -> list[quota.Limit]:
    """Limits of a user; none where the accounting database does not answer: the queue's reason then tells."""
    if any(isinstance(reply, GpurunError) for reply in accounting):
        return []
    associations, qos = accounting
    quota.check_tenant(associations, user, account)
    return quota.read_limits(associations, qos, user, account)


def _slurm_options(arguments: argparse.Namespace, site: settings.Settings, grant: request.Grant) -> list[str]:
    found = grant.arguments()
    if site.partition:
        found.append(f"--partition={site.partition}")
    if arguments.cpus:
        found.append(f"--cpus-per-task={arguments.cpus}")
    if arguments.time:
        found.append(f"--time={arguments.time}")
    if arguments.account:
        found.append(f"--account={arguments.account}")
    return found


def _run(arguments: argparse.Namespace, site: settings.Settings) -> int:
    argv = arguments.argv[1:] if arguments.argv[:1] == ["--"] else arguments.argv
    if not argv:
        raise UsageError("no command: gpurun run -n 1 -p 0.5 -- python3 train.py")
    directory = Path(arguments.chdir or ".").resolve()
    container.check_shared(directory, site)
    prefix: list[str] = []
    if arguments.image:
        image = container.find_image(arguments.image, site)
        container.check_shared(image.parent, site)
        container.check_signature(image, site)
        prefix = container.command(image, directory, arguments.bind, site, gpu=True)
    comment = None
    if arguments.lease:
        leases.check(arguments.lease, _user())
        options = [f"--jobid={arguments.lease}", "--overlap"]
    else:
        comment = job.mark()
        options = [
            *_slurm_options(arguments, site, _grant(arguments)),
            f"--job-name={Path(argv[0]).name}",
            f"--comment={comment}",
        ]
    # One Ctrl-C ends the job at once; srun alone would only report its state. Its own words about waiting are replaced.
    options += ["--quit-on-interrupt", f"--chdir={directory}", "--quiet", "--kill-on-bad-exit=1"]
    terminal = job.on_terminal() if arguments.pty is None else arguments.pty
    if terminal and arguments.num_gpus == 1:
        options.append("--pty")
    whole = [*options, *prefix, *argv]
    if arguments.dry_run:
        print(json.dumps({"command": ["srun", *whole]}) if arguments.json else slurm.shell(["srun", *whole]))
        return 0
    voice = _voice(arguments)
    code = job.run(whole, comment, voice, patient=arguments.wait)
    if arguments.json:
        voice.say("ended", "", exit_code=code)
    return code


def _request(arguments: argparse.Namespace, site: settings.Settings) -> int:
    lease = leases.take(_slurm_options(arguments, site, _grant(arguments)), _voice(arguments), patient=arguments.wait)
    text = json.dumps(lease)
    if arguments.file:
        leases.write(Path(arguments.file), text)
    if arguments.json:
        print(text)
    else:
        print(
            f"lease {lease['lease']} on {lease['servers']}: use it with `gpurun run --lease {lease['lease']} -- CMD`, "
            f"give it back with `gpurun release_gpus {lease['lease']}`"
        )
    return 0


def _release(arguments: argparse.Namespace) -> int:
    released = leases.release(
        arguments.lease, Path(arguments.file) if arguments.file else None, _user(), everything=arguments.all
    )
    print(
        json.dumps({"released": released})
        if arguments.json
        else f"released: {', '.join(map(str, released)) or 'nothing was held'}"
    )
    return 0
