# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Which virtual machines have a tag. Only the REST API knows tags (`cis/tagging` of the vSphere Automation API)."""

from __future__ import annotations

import typing as t

from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.errors import GpuOpsError
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.rest import Rest

_TAGGING: t.Final = "/api/cis/tagging"


def tagged_vms(rest: Rest, category: str, name: str) -> frozenset[str]:
    """The ids of the virtual machines that have a tag.

    The API finds neither by its name: one request for each category and each tag of the one wanted, none for machines.
    Raises GpuOpsError, also if there is no such tag.
    """
    parent = _named(rest, "category", rest.get(f"{_TAGGING}/category"), category)
    if parent is None:
        raise GpuOpsError(f"The vCenter has no category {category} of tags.", code="tag_not_found")
    siblings = rest.call(
        "POST",
        f"{_TAGGING}/tag?action=list-tags-for-category",
        {"category_id": parent},
        doing=f"list the tags of {category}",
    )
    found = _named(rest, "tag", siblings, name)
    if found is None:
        raise GpuOpsError(f"The category {category} has no tag {name}.", code="tag_not_found")
    holders = rest.call(
        "POST",
        f"{_TAGGING}/tag-association/{{tag}}?action=list-attached-objects",
        doing=f"list what has the tag {name}",
        tag=found,
    )
    return frozenset(str(one["id"]) for one in holders if one["type"] == "VirtualMachine")


def _named(rest: Rest, kind: str, ids: t.Iterable[str], name: str) -> str | None:
    """The id of the category or tag of that name."""
    for identifier in ids:
        if rest.get(f"{_TAGGING}/{kind}/{{id}}", id=identifier).get("name") == name:
            return str(identifier)
    return None
