"""A stand-in for the guest command: keeps guests in files, and does what a test tells it by files."""

from __future__ import annotations

import json
import pathlib
import sys
import typing as t

SCRIPT = """#!{python} -S
import json, pathlib, signal, sys, time
home = pathlib.Path(__file__).parent
words = sys.argv[1:]
action, instance = words[0], words[words.index("--instance") + 1] if "--instance" in words else ""
request = json.load(sys.stdin) if action == "create" else None
instance = instance or request["instance"]
names = [g["name"] for g in request["guests"]] if request else words[words.index("--instance") + 2:]
shown = "stop --hard" if "--hard" in words else action
with (home / "calls").open("a") as calls:
    calls.write(json.dumps([shown, *names]) + chr(10))
    if request:
        calls.write(json.dumps(["request", request]) + chr(10))
where = home / "guests" / instance
where.mkdir(parents=True, exist_ok=True)

def interrupted(*_):
    with (home / "calls").open("a") as calls:
        calls.write(json.dumps([shown + " interrupted", *names]) + chr(10))
    sys.exit(130)

signal.signal(signal.SIGTERM, interrupted)
(home / ("busy-" + action)).touch()
while (home / ("hold-" + action)).exists():
    time.sleep(0.01)
if (home / ("fail-" + action)).exists():
    print("stand-in: " + action + " does not work; repair it", file=sys.stderr)
    sys.exit(6)
if action == "cleanup":
    gone = sorted(where.iterdir())
    [one.unlink() for one in gone]
    print(json.dumps({{"removed": {{instance: [one.name for one in gone]}}}}))
    sys.exit()
states = {{"create": "running", "start": "running", "thaw": "running", "reboot": "running", "freeze": "frozen",
          "stop": "stopped"}}
if action in states:
    for name in names:
        known = json.loads((where / name).read_text()) if action != "create" else {{
            "name": name, "hostname": request["guests"][0]["hostname"],
            "address": "198.51.100." + str(len(list(where.iterdir())) + 1)}}
        (where / name).write_text(json.dumps({{**known, "state": states[action]}}))
elif action == "destroy":
    [(where / name).unlink() for name in names]
print(json.dumps({{"guests": [json.loads(one.read_text()) for one in sorted(where.iterdir())]}}))
"""


class StandIn:
    """The command, the guests it has, and what it was called with."""

    def __init__(self, directory: pathlib.Path) -> None:
        self.directory = directory
        directory.mkdir()
        self.path = directory / "guest"
        self.path.write_text(SCRIPT.format(python=sys.executable))
        self.path.chmod(0o700)

    def calls(self) -> list[list[t.Any]]:
        """Each call: what it was, and the guests it named."""
        log = self.directory / "calls"
        lines = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
        return [line for line in lines if line[0] != "request"]

    def actions(self) -> list[str]:
        """What it was called for, in order."""
        return [call[0] for call in self.calls()]

    def requests(self) -> list[t.Any]:
        """What `create` was given."""
        lines = [json.loads(line) for line in (self.directory / "calls").read_text().splitlines()]
        return [line[1] for line in lines if line[0] == "request"]

    def guests(self) -> dict[str, str]:
        """State of each guest, whatever instance it belongs to."""
        found = sorted(self.directory.glob("guests/*/*"))
        return {path.name: json.loads(path.read_text())["state"] for path in found}

    def let(self, effect: str, action: str, wanted: bool = True) -> None:
        """Let an action `fail` or `hold` (until it is let go) from now on, or no more."""
        path = self.directory / f"{effect}-{action}"
        if wanted:
            path.touch()
        else:
            path.unlink()

    def busy(self, action: str) -> bool:
        """Whether an action has ever been at work."""
        return (self.directory / f"busy-{action}").exists()
