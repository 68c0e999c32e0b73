"""Write a model of any size: the text that `vsphere-simulator model` prints."""

from __future__ import annotations

import typing as t

import yaml

from vsphere_simulator.world.catalog import CATALOG

PCI_FUNCTIONS = 60
"""PCI functions of a generated host, its GPUs included."""


def generate_model(
    *,
    clusters: int,
    hosts_per_cluster: int,
    vms_per_host: int,
    gpu: str,
    gpus_per_host: int,
    vgpu_manager: str | None = None,
) -> str:
    """YAML of a model with this many clusters, hosts, powered-off virtual machines and GPUs.

    No templates; DRS is manual. With `vgpu_manager` every host has that manager, has rebooted since and uses
    shared direct. Raises ValueError for an unknown GPU or a count that makes no sense.
    """
    CATALOG.gpu(gpu)
    for what, count in {"clusters": clusters, "hosts per cluster": hosts_per_cluster}.items():
        if count < 1:
            raise ValueError(f"{what}: at least 1, not {count}")
    for what, count in {"virtual machines per host": vms_per_host, "GPUs per host": gpus_per_host}.items():
        if count < 0:
            raise ValueError(f"{what}: at least 0, not {count}")
    host: dict[str, t.Any] = {"pci_functions": max(8, PCI_FUNCTIONS - gpus_per_host)}
    if gpus_per_host:
        host["gpus"] = [{"gpu": gpu, "count": gpus_per_host}]
    if vms_per_host:
        host["vms"] = [{"name": f"{{host}}-vm-{_range(vms_per_host)}", "firmware": "bios", "disks_gb": [40]}]
    if vgpu_manager is not None:
        host |= {"vgpu_manager": vgpu_manager, "graphics_type": "sharedDirect"}
    model = {
        "datacenter": "datacenter",
        "datastores": [{"name": "shared-01"}],
        "networks": [{"name": "VM Network"}],
        "clusters": [
            {
                "name": f"cluster-{number:02d}",
                "drs": {"enabled": True, "automation": "manual"},
                "host_defaults": host,
                "hosts": [{"name": f"esx-{number:02d}-{_range(hosts_per_cluster)}.sim"}],
            }
            for number in range(1, clusters + 1)
        ],
    }
    return yaml.safe_dump(model, sort_keys=False, width=120)


def _range(count: int) -> str:
    width = max(2, len(str(count)))
    return f"[{1:0{width}d}:{count:0{width}d}]"
