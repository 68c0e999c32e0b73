"""Ansible with other projects' collections, in an environment of its own."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import typing as t

HERE = pathlib.Path(__file__).parent
BIN = HERE.parents[2] / ".cache" / "fidelity" / "bin"


class Controller:
    """Ansible in its own environment, pointed at one simulator."""

    def __init__(self, directory: pathlib.Path, served: t.Any) -> None:
        self.directory = directory
        ready = served.ready
        self.environment = {
            "PATH": f"{BIN}:{os.environ['PATH']}",
            "HOME": str(directory),
            "LANG": "C.UTF-8",
            "ANSIBLE_HOME": str(directory / "ansible"),
            "ANSIBLE_CONFIG": str(directory / "none.cfg"),
            "ANSIBLE_STDOUT_CALLBACK": "ansible.posix.json",
            "ANSIBLE_LOCALHOST_WARNING": "false",
            "ANSIBLE_DEPRECATION_WARNINGS": "false",
            "SSL_CERT_FILE": ready["certificate"],
            "REQUESTS_CA_BUNDLE": ready["certificate"],
            "VMWARE_HOST": ready["hostname"],
            "VMWARE_PORT": str(ready["port"]),
            "VMWARE_USER": "admin@lab",
            "VMWARE_PASSWORD": "secret",
            "VMWARE_VALIDATE_CERTS": "true",
        }
        (directory / "none.cfg").touch()

    def run(self, *command: str) -> str:
        """Run a program of the environment and return what it prints."""
        done = subprocess.run(
            [str(BIN / command[0]), *command[1:]],
            env=self.environment,
            cwd=self.directory,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, problems(done.stdout) or done.stdout + done.stderr
        return done.stdout

    def play(self, name: str, run: int, **variables: str) -> dict[str, bool]:
        """Run a playbook; return for each task that has run whether it changed something."""
        given = {"run": str(run), "ansible_python_interpreter": str(BIN / "python"), **variables}
        output = self.run("ansible-playbook", "-i", "localhost,", "-c", "local", "-e", json.dumps(given),
                          str(HERE / "playbooks" / f"{name}.yml"))  # fmt: skip
        tasks = json.loads(output[output.index("{") :])["plays"][0]["tasks"]
        return {
            task["task"]["name"]: bool(result.get("changed"))
            for task in tasks
            for result in task["hosts"].values()
            if not result.get("skipped")
        }


def problems(output: str) -> str:
    """The failed tasks in the JSON callback's output, for the reader of a failing test."""
    if "{" not in output:
        return ""
    try:
        plays = json.loads(output[output.index("{") :])["plays"]
    except ValueError:
        return output
    return "\n".join(
        f"{task['task']['name']}: {json.dumps({k: v for k, v in result.items() if k != 'invocation'}, indent=1)}"
        for play in plays
        for task in play["tasks"]
        for result in task["hosts"].values()
        if result.get("failed")
    )
