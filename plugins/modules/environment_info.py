#!/usr/bin/python
# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: environment_info
short_description: Read a guest's research environment, compare it with a lock
version_added: "0.1.0"
author:
  - The gpuops.vsphere contributors (@gpuops)
description:
  - Reads what decides how a computation runs on a guest. That is system, kernel, GPUs as the guest sees them (the name
    of a vGPU is its profile), driver, chosen packages and Singularity images.
  - With O(lock) it also says in what the guest differs from it. Changes nothing.
options:
  directory:
    description: Directory of the images of this guest.
    type: path
    default: /var/lib/gpuops/images
  packages:
    description: Names or patterns of the packages that count.
    type: list
    elements: str
    default: []
  lock:
    description: Content of a lock, as this module returned it.
    type: dict
extends_documentation_fragment:
  - gpuops.vsphere.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
  platform:
    platforms: linux
  action_group:
    support: none
    membership: []
"""

EXAMPLES = r"""
- name: What makes this guest
  gpuops.vsphere.environment_info:
    packages: [apptainer, "nvidia-*"]
  register: my_environment
"""

RETURN = r"""
lock:
  description: The environment, as it goes into a lock file.
  returned: success
  type: dict
differences:
  description: In what the guest differs from O(lock).
  returned: success
  type: list
  elements: dict
  contains:
    part:
      description: One of distribution, architecture, kernel, gpus, driver, packages, images.
      type: str
    name:
      description: The package or image.
      type: str
    wanted:
      description: What the lock has.
      type: str
    here:
      description: What the guest has.
      type: str
    recreated:
      description: Whether the role research_environment can bring it.
      type: bool
    text:
      description: All of it in words, with what to do where it cannot.
      type: str
failure:
  description: Code and object of the failure.
  returned: on failure
  type: dict
"""

import pathlib
import platform
import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.gpuops.vsphere.plugins.module_utils.container import environment, fetch
from ansible_collections.gpuops.vsphere.plugins.module_utils.container.errors import ContainerError, finish

_QUERIES = (
    ("dpkg-query", ["--show", "--showformat", "${Package} ${Version} ${db:Status-Status}\n"]),
    ("rpm", ["--query", "--all", "--queryformat", "%{NAME} %{VERSION}-%{RELEASE} installed\n"]),
)


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "directory": {"type": "path", "default": "/var/lib/gpuops/images"},
            "packages": {"type": "list", "elements": "str", "default": []},
            "lock": {"type": "dict"},
        },
        supports_check_mode=True,
    )
    finish(module, platform.node(), _run)


def _run(module: AnsibleModule) -> dict[str, t.Any]:
    params = module.params
    wanted = environment.checked_lock(params["lock"], "lock") if params["lock"] else None
    packages = _packages(module)
    gpus, driver = _gpus(module)
    facts = {
        "format": environment.FORMAT,
        "distribution": _distribution(),
        "architecture": platform.machine(),
        "kernel": platform.release(),
        "gpus": gpus,
        "driver": driver,
        "packages": environment.matching(packages, params["packages"]),
        "images": _images(pathlib.Path(params["directory"])),
    }
    found = environment.differences(wanted, {**facts, "all_packages": packages}) if wanted else []
    return {"changed": False, "lock": facts, "differences": [difference.to_dict() for difference in found]}


def _distribution() -> str:
    path = pathlib.Path("/etc/os-release")
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    values = {name: value.strip("\"'") for name, value in (line.split("=", 1) for line in lines if "=" in line)}
    return f"{values.get('ID', 'unknown')} {values.get('VERSION_ID', '')}".strip()


def _packages(module: AnsibleModule) -> dict[str, str]:
    for program, arguments in _QUERIES:
        path = module.get_bin_path(program)
        if path is None:
            continue
        code, out, err = module.run_command([path, *arguments])
        if code:
            raise ContainerError("no_packages", f"{program} could not list the packages: {err.strip()}")
        fields = [line.split() for line in out.splitlines()]
        return {entry[0]: entry[1] for entry in fields if len(entry) == 3 and entry[2] == "installed"}
    raise ContainerError("no_packages", "Neither dpkg nor rpm is here, so packages cannot be listed.")


def _gpus(module: AnsibleModule) -> tuple[list[str], str]:
    path = module.get_bin_path("nvidia-smi")
    if path is None:
        return [], ""
    code, out, err = module.run_command([path, "--query-gpu=name,driver_version", "--format=csv,noheader"])
    if code:
        raise ContainerError(
            "driver", f"nvidia-smi fails ({(out + err).strip()}); mend the driver first (role grid_guest_driver)."
        )
    rows = [[cell.strip() for cell in line.rsplit(",", 1)] for line in out.splitlines() if "," in line]
    return sorted(row[0] for row in rows), rows[0][1] if rows else ""


def _images(directory: pathlib.Path) -> dict[str, dict[str, str]]:
    images = {}
    for link in sorted(directory.glob("*.sif")):
        shelf = fetch.Shelf(directory, link.stem, pathlib.Path("/nonexistent"))
        entry = shelf.local(shelf.current())
        if entry is None:
            continue
        if not shelf.intact(entry):
            raise ContainerError("tampered", f"{shelf.image(entry.version)} is not what was fetched; fetch it again.")
        images[shelf.name] = {"version": entry.version, "sha256": entry.sha256}
    return images


if __name__ == "__main__":
    main()
