# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Models and short forms for tests of the modules for virtual machines."""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import Iterator
from typing import Any

from pyVim.connect import Disconnect, SmartConnect
from simulated import PASSWORD, USERNAME, Vcenter, fleet

V100 = "10de:1db6"
TEMPLATE = "golden"


def gpu_fleet(hosts: int = 1, *, vms: list[dict[str, Any]] | None = None, **more: Any) -> dict[str, Any]:
    """Hosts `esx-001.lab`… with two V100 each in passthrough, and an EFI template."""
    model = fleet(hosts)
    model["clusters"][0]["hosts"][0]["gpus"][0]["passthrough"] = True
    shape = {"firmware": "efi", "hardware_version": 21, "memory_mb": 16384, "cpus": 4}
    return model | {"templates": [{"name": TEMPLATE, "folder": "templates", **shape}], "vms": vms or []} | more


def machine(name: str, host: str = "esx-001.lab", **more: Any) -> dict[str, Any]:
    """A virtual machine of the model that needs nothing but GPUs."""
    return {"name": name, "host": host, "firmware": "efi", "hardware_version": 21, "memory_mb": 16384, **more}


def clone(name: str, host: str = "esx-001.lab", **more: Any) -> dict[str, Any]:
    """An entry of `vms` of vm_group."""
    return {"name": name, "host": host, "template": TEMPLATE, **more}


def fixed(count: int | str = 1, device_id: str = V100) -> dict[str, Any]:
    """An entry of `gpus` of vm_gpu."""
    return {"mode": "fixed", "id": device_id, "count": str(count)}


def dynamic(count: int | str = 1, device_id: str = V100) -> dict[str, Any]:
    """An entry of `gpus` of vm_gpu."""
    return {"mode": "dynamic", "id": device_id, "count": str(count)}


def facts(vcenter: Vcenter, name: str) -> dict[str, Any]:
    """What the vCenter has of a virtual machine now."""
    read = vcenter.ok("vm_gpu", check=True, vms=[{"name": name, "gpus": []}], object_errors="report")
    found: dict[str, Any] = read["objects"][name]
    return found


@contextlib.contextmanager
def vcenter_connection(vcenter: Vcenter) -> Iterator[Any]:
    """The vCenter's service content, through pyVmomi alone."""
    context = ssl.create_default_context(cafile=vcenter.certificate)
    connection = SmartConnect(host="127.0.0.1", port=vcenter.port, user=USERNAME, pwd=PASSWORD, sslContext=context)
    try:
        yield connection.RetrieveContent()
    finally:
        Disconnect(connection)


def vgpu_fleet(hosts: int = 1, *, nvlink: bool = False, vms: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    """Hosts `esx-001.lab`… with two A100 40 GB each that take vGPUs."""
    gpus = {"gpu": "A100-40", "count": 2, **({"nvlink": True} if nvlink else {})}
    model = fleet(hosts)
    model["clusters"][0]["hosts"][0] |= {"gpus": [gpus], "vgpu_manager": "16.4", "graphics_type": "sharedDirect"}
    return model | {"vms": vms} | more


def vgpu(profile: str, count: int = 1) -> dict[str, Any]:
    """An entry of `gpus` of vm_gpu."""
    return {"mode": "vgpu", "profile": profile, "count": str(count)}
