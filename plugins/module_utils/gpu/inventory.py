# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Hosts and virtual machines as an inventory shows them: variables, groups, and names that are unique."""

from __future__ import annotations

import collections
import re
import typing as t

from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.catalog import Catalog
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.describe import describe_gpus
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.facts import GpuAttachment, HostFacts, VmFacts
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.ownership import reboot_required

Entry = dict[str, t.Any]
"""`vars` and `groups` of one object; plain JSON types, so that it can be cached."""

Duplicates = t.Literal["suffix", "skip", "fail"]

_POWER = {"poweredOn": "power_on", "poweredOff": "power_off", "suspended": "power_suspended"}
_PROFILE_BOARD = re.compile(r"(?:grid|nvidia)_(.+?)-\d.*")


class DuplicateNameError(Exception):
    """Several objects would have one name in the inventory; the text says which, and what to do."""


def host_entry(host: HostFacts, uuid: str | None, guests: t.Collection[VmFacts], catalog: Catalog) -> Entry:
    """An ESXi host; `guests` are (at least) the virtual machines on it."""
    gpus = describe_gpus(host, guests, catalog)
    free = [gpu for gpu in gpus if gpu["free"]]
    addresses = {gpu["address"] for gpu in gpus}
    pending = bool(gpus) and reboot_required(host, addresses)
    boards = sorted({gpu["board"] or gpu["id"] for gpu in gpus})
    groups = ["esxi", *_cluster(host.cluster), *(f"gpu_model_{board}" for board in boards)]
    groups += ["gpu_hosts"] if gpus else []
    groups += ["gpu_free"] if free else []
    groups += ["passthrough_pending"] if pending else []
    groups += ["in_maintenance"] if host.in_maintenance else []
    groups += ["not_connected"] if not host.answers else []
    return {
        "vars": {
            "gpuops_kind": "host",
            "gpuops_name": host.name,
            "gpuops_moid": host.moid,
            "gpuops_uuid": uuid,
            "gpuops_cluster": host.cluster,
            "gpuops_connection": host.connection,
            "gpuops_in_maintenance": host.in_maintenance,
            "gpuops_gpus": gpus,
            "gpuops_gpu_models": boards,
            "gpuops_gpus_free": len(free),
            "gpuops_passthrough_pending": pending,
            "gpuops_vgpu_types": list(host.vgpu_types),
        },
        "groups": [safe_group(group) for group in groups],
    }


def vm_entry(vm: VmFacts, uuid: str | None, address: str | None, cluster: str | None, catalog: Catalog) -> Entry:
    """A virtual machine with its guest's IP address, and the cluster of its host."""
    gpus = [gpu for gpu in vm.gpus if _is_gpu(gpu, catalog)]
    profiles = sorted({gpu.profile for gpu in gpus if gpu.profile})
    boards = sorted({board for gpu in gpus for board in _boards(gpu, catalog)})
    groups = ["vms", *_cluster(cluster), *(f"gpu_model_{board}" for board in boards)]
    groups += [_POWER[vm.power]] if vm.power in _POWER else []
    groups += ["gpu_vms"] if gpus else []
    groups += [f"vgpu_profile_{profile}" for profile in profiles]
    variables: dict[str, t.Any] = {
        "gpuops_kind": "vm",
        "gpuops_name": vm.name,
        "gpuops_moid": vm.moid,
        "gpuops_uuid": uuid,
        "gpuops_cluster": cluster,
        "gpuops_host": vm.host,
        "gpuops_power": vm.power,
        "gpuops_template": vm.template,
        "gpuops_guest_ip": address,
        "gpuops_gpus": [_attachment(gpu) for gpu in gpus],
        "gpuops_gpu_models": boards,
        "gpuops_vgpu_profiles": profiles,
    }
    if address:
        variables["ansible_host"] = address
    return {"vars": variables, "groups": [safe_group(group) for group in groups]}


def safe_group(name: str) -> str:
    """A group's name in lower case, with `_` for what Ansible does not take."""
    return re.sub(r"[^a-z0-9_]", "_", name.lower())


def unique_names(names: t.Sequence[tuple[str, str]], duplicates: Duplicates) -> dict[str, str]:
    """Managed object id -> name in the inventory, from (id, wanted name) pairs.

    All bearers of a name that several have get their id appended, whatever the order, so that names stay the
    same from run to run; with `skip` they are left out. Raises DuplicateNameError with `fail`.
    """
    counts = collections.Counter(name for _moid, name in names)
    shared = sorted(name for name, count in counts.items() if count > 1)
    if shared and duplicates == "fail":
        more = f" and {len(shared) - 5} more" if len(shared) > 5 else ""
        raise DuplicateNameError(
            f"Several objects are called {', '.join(shared[:5])}{more}. Rename them, choose other hostnames "
            "(for example uuid), or set duplicate_names to suffix or skip."
        )
    if duplicates == "skip":
        return {moid: name for moid, name in names if counts[name] == 1}
    return {moid: name if counts[name] == 1 else f"{name}_{moid}" for moid, name in names}


def _cluster(name: str | None) -> list[str]:
    return [f"cluster_{name}"] if name else []


def _is_gpu(gpu: GpuAttachment, catalog: Catalog) -> bool:
    # A label says nothing of what bears it; those of GPUs are the rule.
    return gpu.mode == "vgpu" or not gpu.ids or any(catalog.get(i) or i.startswith("10de:") for i in gpu.ids)


def _boards(gpu: GpuAttachment, catalog: Catalog) -> list[str]:
    if gpu.profile:
        match = _PROFILE_BOARD.fullmatch(gpu.profile)
        return [match.group(1)] if match else []
    models = [catalog.get(device_id) for device_id in gpu.ids]
    return [model.board or model.id for model in models if model is not None]


def _attachment(gpu: GpuAttachment) -> dict[str, t.Any]:
    fields = {"mode": gpu.mode, "address": gpu.address, "ids": list(gpu.ids), "label": gpu.label}
    return {**fields, "profile": gpu.profile}
