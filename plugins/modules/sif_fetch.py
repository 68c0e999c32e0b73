#!/usr/bin/python
# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: sif_fetch
short_description: Bring a Singularity image to this guest, checked and verified
version_added: "0.1.0"
author:
  - The gpuops.vsphere contributors (@gpuops)
description:
  - Fetches an image, compares its checksum, verifies its signature, and only then lets the link
    C(directory/name.sif) name it. Versions before it are kept for a rollback, which is to ask for one of them.
  - A version that is here already needs no source. Versions that a container service runs are never pruned.
options:
  name:
    description: Name of the image.
    type: str
    required: true
  state:
    description: Whether the image is wanted.
    type: str
    choices: [present, absent]
    default: present
  source:
    description:
      - Where M(gpuops.vsphere.sif_build) published it. A path, a URL of a web server, or V(oras://registry/prefix).
    type: str
    default: ""
  version:
    description: The version; empty means the one that the source calls current. Required for a registry.
    type: str
    default: ""
  sha256:
    description: What the file's SHA-256 must be; empty means what the source's index says. Required for a registry.
    type: str
    default: ""
  directory:
    description: Directory of the images of this guest.
    type: path
    required: true
  in_use:
    description: Directory of links to images that must not be pruned.
    type: path
    default: /var/lib/gpuops/in-use
  trusted_key:
    description: File with the public key (PEM) that the image must be signed with. Required unless O(allow_unsigned).
    type: path
  allow_unsigned:
    description: Take images without verifying a signature.
    type: bool
    default: false
  min_free_mb:
    description: Megabytes that must remain free in O(directory).
    type: int
    default: 256
  keep:
    description: How many versions stay, the current one included.
    type: int
    default: 2
extends_documentation_fragment:
  - gpuops.vsphere.image_access
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
seealso:
  - module: gpuops.vsphere.sif_build
"""

EXAMPLES = r"""
- name: The current base image
  gpuops.vsphere.sif_fetch:
    name: python-base
    source: https://images.example.org/gpuops
    directory: /var/lib/gpuops/images
    trusted_key: /etc/gpuops/image-trusted.pem

- name: Back to the one before
  gpuops.vsphere.sif_fetch:
    name: python-base
    version: 20261001T000000Z-77ab01cd02ef
    directory: /var/lib/gpuops/images
    trusted_key: /etc/gpuops/image-trusted.pem
"""

RETURN = r"""
name:
  description: Name of the image.
  returned: success
  type: str
version:
  description: The version that is current now.
  returned: when O(state=present)
  type: str
sha256:
  description: SHA-256 of the file.
  returned: when O(state=present)
  type: str
previous:
  description: The version that was current before; empty if none.
  returned: when O(state=present)
  type: str
versions:
  description: All versions that are here, oldest first.
  returned: success
  type: list
  elements: str
path:
  description: The link that names the current version.
  returned: success
  type: str
actions:
  description: What was done or would be done.
  returned: success
  type: list
  elements: str
failure:
  description: Code and object of the failure.
  returned: on failure
  type: dict
"""

import pathlib
import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.gpuops.vsphere.plugins.module_utils.container import fetch, images
from ansible_collections.gpuops.vsphere.plugins.module_utils.container.errors import (
    BROUGHT_BY_ROLES,
    ContainerError,
    finish,
)
from ansible_collections.gpuops.vsphere.plugins.module_utils.container.places import Access, access_spec, place_of
from ansible_collections.gpuops.vsphere.plugins.module_utils.container.runtime import Runtime


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "source": {"type": "str", "default": ""},
            "version": {"type": "str", "default": ""},
            "sha256": {"type": "str", "default": ""},
            "directory": {"type": "path", "required": True},
            "in_use": {"type": "path", "default": "/var/lib/gpuops/in-use"},
            "trusted_key": {"type": "path", "no_log": False},
            "allow_unsigned": {"type": "bool", "default": False},
            "min_free_mb": {"type": "int", "default": 256},
            "keep": {"type": "int", "default": 2},
            **access_spec(),
        },
        supports_check_mode=True,
    )
    finish(module, module.params["name"], _run)


def _run(module: AnsibleModule) -> dict[str, t.Any]:
    params = module.params
    shelf = fetch.Shelf(
        pathlib.Path(params["directory"]), images.checked_name(params["name"]), pathlib.Path(params["in_use"])
    )
    if params["state"] == "absent":
        gone = fetch.remove(shelf, apply=not module.check_mode)
        actions = [f"remove {shelf.name}"] if gone else []
        return _result(shelf, actions, shelf.current() if gone and module.check_mode else "", "")
    runtime = Runtime(module, params["runtime"])
    try:
        key = _trusted_key(params)
        if key is not None:
            runtime.need_program()
    except ContainerError as error:
        if not (module.check_mode and error.code in BROUGHT_BY_ROLES):
            raise
        module.warn(f"{error} (In check mode earlier steps have not brought it.)")
        key = None
    access = Access.from_params(params)
    place = place_of(params["source"], runtime, access) if params["source"] else None
    checksum = images.checked_sha256(params["sha256"], shelf.name) if params["sha256"] else ""
    before = shelf.current()
    try:
        entry = fetch.choose(shelf, place, params["version"], checksum)
    except ContainerError as error:
        if not (module.check_mode and error.code == "no_checksum"):
            raise
        module.warn(f"{error} (In check mode nothing has been built.)")
        return {**_result(shelf, [f"fetch {shelf.name}, once it is published"], before, ""), "previous": before}
    actions = []
    missing = not shelf.intact(entry)
    if missing:
        if place is None:
            raise ContainerError(
                "tampered", f"{shelf.image(entry.version)} is not what was fetched; give a source to fetch it again."
            )
        fetch.check_space(shelf, entry, params["min_free_mb"] << 20)
        actions.append(f"fetch {shelf.name} {entry.version}")
        if not module.check_mode:
            fetch.bring(shelf, place, entry, runtime, key)
    elif key is not None and before != entry.version:
        # It was verified when it came; the key may be another one since.
        runtime.verify(shelf.image(entry.version), key)
    if before != entry.version:
        actions.append(f"switch {shelf.name} to {entry.version}")
        if not module.check_mode:
            fetch.switch(shelf, entry.version)
    surplus = fetch.prune(shelf, entry.version, params["keep"], apply=not module.check_mode)
    actions += [f"remove {shelf.name} {version}" for version in surplus]
    return {
        **_result(shelf, actions, before, entry.version),
        "version": entry.version,
        "sha256": entry.sha256,
        "previous": before,
    }


def _trusted_key(params: dict[str, t.Any]) -> pathlib.Path | None:
    if params["allow_unsigned"]:
        return None
    key = pathlib.Path(params["trusted_key"]) if params["trusted_key"] else None
    if key is None or not key.exists():
        raise ContainerError(
            "no_key",
            f"There is no trusted key {key or ''} to verify {params['name']} with; "
            "set singularity_image_trusted_key, or allow unsigned images.",
        )
    return key


def _result(shelf: fetch.Shelf, actions: list[str], before: str, after: str) -> dict[str, t.Any]:
    result: dict[str, t.Any] = {
        "changed": bool(actions),
        "name": shelf.name,
        "versions": shelf.versions(),
        "path": str(shelf.link),
        "actions": actions,
    }
    if actions:
        result["diff"] = {"before": f"{before}\n", "after": f"{after}\n", "prepared": "\n".join(actions)}
    return result


if __name__ == "__main__":
    main()
