#!/usr/bin/python
# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: python_program
short_description: Install a Python program that may be running, with its commands
version_added: "0.1.0"
author:
  - The gpuops.vsphere contributors (@gpuops)
description:
  - Every version has a directory of its own below O(directory). Commands are changed to a new version in one step each,
    when all of it is there and compiled; so none ever runs with modules of two versions, also where Slurm starts one at
    that moment or the installation is killed half-way.
  - The version before stays for those who run it, and goes with the next change.
options:
  directory:
    description: Where versions are kept; made if it is not there.
    type: path
    required: true
  files:
    description: Paths of the program's modules below a version's directory, and their text.
    type: dict
    required: true
  main:
    description: What commands call, as C(package.module:function); it returns the exit code.
    type: str
    required: true
  commands:
    description: Commands that start the program.
    type: list
    elements: dict
    required: true
    suboptions:
      path:
        description: Path of the command, from the root.
        type: path
        required: true
      arguments:
        description: What it puts before the arguments that it is called with.
        type: list
        elements: str
        default: []
  interpreter:
    description: The Python that runs the program.
    type: path
    default: /usr/bin/python3
extends_documentation_fragment:
  - gpuops.vsphere.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
  platform:
    platforms: linux
  action_group:
    support: none
    membership: []
"""

EXAMPLES = r"""
- name: Install the fence and the commands that Slurm runs
  gpuops.vsphere.python_program:
    directory: /usr/local/lib/gpu-pool
    files:
      gpufence/__init__.py: ""
      gpufence/cli.py: "{{ lookup('ansible.builtin.file', 'gpufence/cli.py', rstrip=false) }}"
    main: gpufence.cli:main
    commands:
      - path: /usr/local/sbin/gpu-pool
      - path: /usr/local/lib/gpu-pool/prolog
        arguments: [prolog]
"""

RETURN = r"""
version:
  description: Name of the directory of the version that is in use.
  returned: success
  type: str
  sample: 3f5b0c2a9d41
"""

import hashlib
import json
import pathlib
import re
import shlex
import shutil
import tempfile
import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.whole_file import write_whole

VERSION = re.compile(r"[0-9a-f]{12}")


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "directory": {"type": "path", "required": True},
            "files": {"type": "dict", "required": True},
            "main": {"type": "str", "required": True},
            "commands": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "options": {
                    "path": {"type": "path", "required": True},
                    "arguments": {"type": "list", "elements": "str", "default": []},
                },
            },
            "interpreter": {"type": "path", "default": "/usr/bin/python3"},
        },
        supports_check_mode=True,
    )
    for name in module.params["files"]:
        if not re.fullmatch(r"(\w+/)*\w+\.py", name):
            module.fail_json(msg=f"files: {name!r} is not the path of a Python module below the program's directory.")
    if not re.fullmatch(r"\w+(\.\w+)*:\w+", module.params["main"]):
        module.fail_json(msg=f"main is {module.params['main']!r}; it must be like package.module:function.")
    for command in module.params["commands"]:
        if not command["path"].startswith("/"):
            module.fail_json(msg=f"commands: {command['path']!r} is not a path from the root.")
    try:
        result = _install(module)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        module.fail_json(msg=f"The program of {module.params['directory']} stays as it was. {where}{error.strerror}.")
    module.exit_json(**result)


def _install(module: AnsibleModule) -> dict[str, t.Any]:
    directory = pathlib.Path(module.params["directory"])
    files: dict[str, str] = module.params["files"]
    version = hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()[:12]
    commands = {
        pathlib.Path(command["path"]): _command(module, directory / version, command["arguments"])
        for command in module.params["commands"]
    }
    before = {path: _read(path) for path in commands}
    used = _version_of(directory, before.values())
    now = _modules(directory / used) if used else {}
    diff = [
        {"before_header": str(place), "after_header": str(place), "before": old or "", "after": new or ""}
        for place, old, new in [
            *((directory / name, now.get(name), files.get(name)) for name in sorted({*files, *now})),
            *((path, before[path], commands[path]) for path in sorted(commands)),
        ]
        if old != new
    ]
    whole = _modules(directory / version) == files and _modes_fit(directory / version)
    changed = bool(diff) or not whole or any(path.stat().st_mode & 0o777 != 0o755 for path in commands)
    if changed and not module.check_mode:
        if not whole:
            _put(module, directory / version, files)
        for path, text in commands.items():
            path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            write_whole(str(path), text, 0o755)
        for other in directory.iterdir():
            if VERSION.fullmatch(other.name) and other.name not in (version, used):
                shutil.rmtree(other)
    return {"changed": changed, "diff": diff, "version": version}


def _command(module: AnsibleModule, version: pathlib.Path, arguments: list[str]) -> str:
    """The text of a command: isolated from the environment and the directory of whoever calls it."""
    package, function = module.params["main"].split(":")
    entry = f"from {package} import {function}; raise SystemExit({function}())"
    start = f"import sys; sys.path.insert(0, {str(version)!r}); {entry}"
    call = [module.params["interpreter"], "-I", "-c", start, *arguments]
    return f'#!/bin/sh\n# Managed by Ansible (gpuops.vsphere).\nexec {shlex.join(call)} "$@"\n'


def _version_of(directory: pathlib.Path, texts: t.Iterable[str | None]) -> str | None:
    """The version that the first command runs that names one."""
    named = re.compile(re.escape(str(directory)) + f"/({VERSION.pattern})")
    return next((found[1] for text in texts if text and (found := named.search(text))), None)


def _modules(version: pathlib.Path) -> dict[str, str]:
    return {str(path.relative_to(version)): path.read_text(encoding="utf-8") for path in sorted(version.rglob("*.py"))}


def _modes_fit(version: pathlib.Path) -> bool:
    """Whether everybody may run the program, and only its owner may change it."""
    return all(
        path.stat().st_mode & 0o777 == (0o755 if path.is_dir() else 0o644) for path in (version, *version.rglob("*"))
    )


def _put(module: AnsibleModule, version: pathlib.Path, files: dict[str, str]) -> None:
    """Have the whole version, compiled, in its place in one step."""
    version.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    new = pathlib.Path(tempfile.mkdtemp(prefix=f".{version.name}-", dir=version.parent))
    try:
        for name, text in files.items():
            (new / name).parent.mkdir(parents=True, exist_ok=True)
            (new / name).write_text(text, encoding="utf-8")
        code, out, error = module.run_command(
            [module.params["interpreter"], "-m", "compileall", "-q", "-s", str(new), "-p", str(version), str(new)]
        )
        if code != 0:
            module.fail_json(msg=f"The program of {version.parent} stays as it was. {(error or out).strip()}")
        for path in (new, *new.rglob("*")):
            path.chmod(0o755 if path.is_dir() else 0o644)
        if version.exists():  # damaged: what is there is not what its name says
            shutil.rmtree(version)
        new.rename(version)
    finally:
        shutil.rmtree(new, ignore_errors=True)


def _read(path: pathlib.Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None


if __name__ == "__main__":
    main()
