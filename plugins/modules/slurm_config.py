#!/usr/bin/python
# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: slurm_config
short_description: Replace the configuration of a Slurm controller as a whole, after a test
version_added: "0.1.0"
author:
  - The gpuops.vsphere contributors (@gpuops)
description:
  - Writes the files into a directory beside the configuration in force and has Slurm read them there. Only if it can,
    they take the place of those in force. What was in force before is kept in the directory C(previous).
  - Daemons do not notice by themselves. RV(pending) says that C(scontrol reconfigure) is due; it stays true, also in
    later runs, until O(state=applied) says that this was done.
options:
  state:
    description:
      - V(present) tests and replaces files.
      - V(previous) brings back what was in force before.
      - V(applied) notes that the daemons use what is in force now.
    type: str
    choices: [present, previous, applied]
    default: present
  directory:
    description: Where Slurm's configuration is.
    type: path
    default: /etc/slurm
  files:
    description: Names of files and their text, C(slurm.conf) among them. Required with O(state=present).
    type: dict
    default: {}
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
- name: Replace the controller's configuration
  gpuops.vsphere.slurm_config:
    files:
      slurm.conf: "{{ lookup('ansible.builtin.template', 'slurm.conf.j2') }}"
      nodes.conf: "{{ plan.nodes }}"
"""

RETURN = r"""
pending:
  description: Whether the daemons have yet to be told of what is in force.
  returned: success
  type: bool
"""

import contextlib
import os
import pathlib
import shutil
import tempfile
import typing as t

from ansible.module_utils.basic import AnsibleModule

PENDING = ".not-applied"


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["present", "previous", "applied"], "default": "present"},
            "directory": {"type": "path", "default": "/etc/slurm"},
            "files": {"type": "dict", "default": {}},
        },
        supports_check_mode=True,
    )
    directory = pathlib.Path(module.params["directory"])
    previous = directory / "previous"
    files: dict[str, str] = module.params["files"]
    if module.params["state"] == "present":
        if "slurm.conf" not in files or any("/" in name for name in files):
            module.fail_json(msg="files must hold slurm.conf, and only names without a directory.")
        result = _replace(module, directory, files, keep=previous, check=True)
    elif module.params["state"] == "previous":
        if not previous.is_dir():
            module.fail_json(msg=f"There is nothing to go back to: {previous} does not exist.")
        result = _replace(module, directory, _read_all(previous), keep=None, check=False)
    else:
        marker = directory / PENDING
        result = {"changed": False, "pending": marker.exists()}
        if not module.check_mode:
            marker.unlink(missing_ok=True)
            result["pending"] = False
    module.exit_json(**result)


def _replace(
    module: AnsibleModule,
    directory: pathlib.Path,
    files: t.Mapping[str, str],
    *,
    keep: pathlib.Path | None,
    check: bool,
) -> dict[str, t.Any]:
    """Bring the files into force; `keep` is where those that they replace go."""
    now = {name: _read(directory / name) for name in files}
    changed = [name for name in sorted(files) if files[name] != now[name]]
    diff = [
        {
            "before_header": str(directory / name),
            "after_header": str(directory / name),
            "before": now[name] or "",
            "after": files[name],
        }
        for name in changed
    ]
    marker = directory / PENDING
    # Without Slurm nothing can be tested: a machine of which check mode asks what will be.
    if changed and (check and module.get_bin_path("scontrol") is not None):
        _test(module, directory, files)
    if changed and not module.check_mode:
        marker.write_text("", encoding="utf-8")
        if keep is not None and now["slurm.conf"] is not None:
            _keep(keep, {name: text for name, text in now.items() if text is not None})
        for name in changed:
            _write(directory / name, files[name])
    return {"changed": bool(changed), "diff": diff, "pending": bool(changed) or marker.exists()}


def _test(module: AnsibleModule, directory: pathlib.Path, files: t.Mapping[str, str]) -> None:
    """Have Slurm read the files in a directory of their own; fail in its words."""
    with tempfile.TemporaryDirectory(prefix=".candidate-", dir=directory) as candidate:
        for name, text in files.items():
            (pathlib.Path(candidate) / name).write_text(text, encoding="utf-8")
        code, out, error = module.run_command(
            ["scontrol", "show", "hostnames", "localhost"],
            environ_update={"SLURM_CONF": f"{candidate}/slurm.conf"},
        )
        if code != 0:
            said = (error or out).replace(f"{candidate}/", "").strip()
            module.fail_json(
                msg=f"Slurm cannot read the new configuration, so the one in force stays: {said}", changed=False
            )


def _keep(place: pathlib.Path, files: t.Mapping[str, str]) -> None:
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(mode=0o755)
    for name, text in files.items():
        _write(place / name, text)


def _write(path: pathlib.Path, text: str) -> None:
    """In one step, so that no daemon reads a half of it."""
    number, name = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    try:
        with os.fdopen(number, "w", encoding="utf-8") as stream:
            stream.write(text)
        pathlib.Path(name).chmod(0o644)
        pathlib.Path(name).replace(path)
    except OSError:
        with contextlib.suppress(FileNotFoundError):
            pathlib.Path(name).unlink()
        raise


def _read(path: pathlib.Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None


def _read_all(directory: pathlib.Path) -> dict[str, str]:
    return {path.name: path.read_text(encoding="utf-8") for path in sorted(directory.iterdir())}


if __name__ == "__main__":
    main()
