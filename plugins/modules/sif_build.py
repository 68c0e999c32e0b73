#!/usr/bin/python
# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: sif_build
short_description: Build, sign and publish a Singularity image
version_added: "0.1.0"
author:
  - The gpuops.vsphere contributors (@gpuops)
description:
  - Builds an image from a definition as an ordinary user (C(build --fakeroot)), signs it, verifies it, and puts it into
    a store on this host, from where it can be published to other places.
  - The version of an image is its package date and a hash of its definition. It is rebuilt only when one of them, or
    the image that it is built on, has changed, or when the file in the store is not what was built.
  - A build that fails leaves the store as it was.
options:
  name:
    description: Name of the image.
    type: str
    required: true
  definition:
    description: Text of the definition file.
    type: str
    required: true
  package_date:
    description: Date of the package source in the definition, such as V(20261101T000000Z); empty if none is pinned.
    type: str
    default: ""
  base:
    description:
      - Image that the definition is built on with the bootstrap agent C(localimage), a name in O(store) or a path.
        The definition has C(@base@) where its path goes.
    type: str
    default: ""
  user:
    description: Ordinary user who builds; needs ranges of subordinate ids.
    type: str
    required: true
  store:
    description: Directory that holds the images, one directory each.
    type: path
    required: true
  work_directory:
    description: Where builds have their scratch space, several times the size of the image.
    type: path
    default: /var/tmp
  min_free_mb:
    description: Megabytes that must be free in O(work_directory) and in O(store) before a build begins.
    type: int
    default: 1024
  signing_key:
    description: File with the private key (PEM, not encrypted) that signs.
    type: path
    required: true
  trusted_key:
    description: File with its public key, with which the signature is verified.
    type: path
    required: true
  push:
    description:
      - Other places to publish to. A path, a URL of a web server that takes PUT, or V(oras://registry/prefix).
    type: list
    elements: str
    default: []
  keep:
    description: How many versions stay in the store.
    type: int
    default: 3
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
  - module: gpuops.vsphere.sif_fetch
"""

EXAMPLES = r"""
- name: Build the base image
  gpuops.vsphere.sif_build:
    name: python-base
    definition: "{{ lookup('ansible.builtin.template', 'python-base.def.j2') }}"
    package_date: 20261101T000000Z
    user: gpuops
    store: /srv/images
    signing_key: /etc/gpuops/image-signing.pem
    trusted_key: /etc/gpuops/image-trusted.pem
    push:
      - oras://registry.example.org/gpuops
"""

RETURN = r"""
name:
  description: Name of the image.
  returned: success
  type: str
version:
  description: The version that the definition makes.
  returned: success
  type: str
  sample: 20261101T000000Z-1f0e6c3b9a2d
sha256:
  description: SHA-256 of the signed file; empty in check mode where it would be built.
  returned: success
  type: str
size:
  description: Size in bytes.
  returned: success
  type: int
path:
  description: The file in the store.
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
from ansible_collections.gpuops.vsphere.plugins.module_utils.container import build
from ansible_collections.gpuops.vsphere.plugins.module_utils.container.errors import (
    BROUGHT_BY_ROLES,
    ContainerError,
    finish,
)
from ansible_collections.gpuops.vsphere.plugins.module_utils.container.places import Access, access_spec
from ansible_collections.gpuops.vsphere.plugins.module_utils.container.runtime import Runtime


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "definition": {"type": "str", "required": True},
            "package_date": {"type": "str", "default": ""},
            "base": {"type": "str", "default": ""},
            "user": {"type": "str", "required": True},
            "store": {"type": "path", "required": True},
            "work_directory": {"type": "path", "default": "/var/tmp"},  # noqa: S108 a directory of one's own is made in it
            "min_free_mb": {"type": "int", "default": 1024},
            "signing_key": {"type": "path", "required": True, "no_log": False},
            "trusted_key": {"type": "path", "required": True, "no_log": False},
            "push": {"type": "list", "elements": "str", "default": []},
            "keep": {"type": "int", "default": 3},
            **access_spec(),
        },
        supports_check_mode=True,
    )
    finish(module, module.params["name"], _run)


def _run(module: AnsibleModule) -> dict[str, t.Any]:
    params = module.params
    order = build.Order(
        name=params["name"],
        definition=params["definition"],
        package_date=params["package_date"],
        base=params["base"],
        user=params["user"],
        store=pathlib.Path(params["store"]),
        work=pathlib.Path(params["work_directory"]),
        signing_key=pathlib.Path(params["signing_key"]),
        trusted_key=pathlib.Path(params["trusted_key"]),
        push=tuple(params["push"]),
        keep=params["keep"],
        space=params["min_free_mb"] << 20,
    )
    runtime = Runtime(module, params["runtime"])
    wanted = build.plan(order, assume_base=module.check_mode)
    entry = wanted.present
    try:
        build.check_host(order, runtime, building=entry is None)
    except ContainerError as error:
        if not (module.check_mode and error.code in BROUGHT_BY_ROLES):
            raise
        module.warn(f"{error} (In check mode earlier steps have not brought it.)")
    actions = []
    if entry is None:
        actions.append(f"build {order.name} {wanted.version} ({wanted.reason})")
    elif wanted.index.current != wanted.version:
        actions.append(f"make {order.name} {wanted.version} current")
    actions += [f"push {order.name} {wanted.version} to {target}" for target in wanted.unpushed]
    before = build.definition_before(order, wanted)
    if not module.check_mode:
        if entry is None:
            entry = build.build(order, wanted, runtime)
        else:
            build.select(order, wanted, entry)
        access = Access.from_params(params)
        build.push(order, entry, runtime, access, wanted.unpushed)
    surplus = build.prune(order, wanted.version, apply=not module.check_mode)
    actions += [f"remove {order.name} {version}" for version in surplus]
    result: dict[str, t.Any] = {
        "changed": bool(actions),
        "name": order.name,
        "version": wanted.version,
        "sha256": entry.sha256 if entry else "",
        "size": entry.size if entry else 0,
        "path": str(order.store / order.name / f"{wanted.version}.sif"),
        "actions": actions,
    }
    if actions:
        lines = "".join(f"{line}\n" for line in actions)
        same = wanted.index.current == wanted.version
        result["diff"] = {"prepared": lines} if same else {"before": before, "after": order.definition}
    return result


if __name__ == "__main__":
    main()
