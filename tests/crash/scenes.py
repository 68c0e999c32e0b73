# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What each playbook begins with in the crash test, and how it is called there, so that it has all its work to do."""

from __future__ import annotations

import dataclasses
import json
import typing as t
from collections.abc import Callable

ONE, TWO, THREE = "esx-gpu-01.lab", "esx-gpu-02.lab", "esx-gpu-03.lab"
Model = dict[str, t.Any]


@dataclasses.dataclass(frozen=True)
class Scene:
    """A playbook, what it begins with, and how it is called."""

    playbook: str
    arguments: tuple[str, ...] = ()
    change: Callable[[Model], None] | None = None
    called: str = ""
    """What it is called where the playbook has another scene."""

    @property
    def name(self) -> str:
        """What it is called in the table, and by --only."""
        return self.called or self.playbook


def _hosts(model: Model) -> dict[str, Model]:
    return {host["name"]: host for host in t.cast("list[Model]", model["clusters"][0]["hosts"])}


def _passthrough(model: Model) -> None:
    """GPUs in passthrough already."""
    for host in _hosts(model).values():
        for gpu in host["gpus"]:
            gpu["passthrough"] = True


def _busy(model: Model) -> None:
    """An ordinary machine on each GPU host, in the way of maintenance mode."""
    shape = {"memory_mb": 4096, "power": "on"}
    model["vms"] = [{"name": f"web-{number}", "host": name, **shape} for number, name in enumerate(_hosts(model))]


_BIG_BARS = {"pciPassthru.use64bitMMIO": "TRUE", "pciPassthru.64bitMMIOSizeGB": "128"}
_SHAPE = {"firmware": "efi", "memory_mb": 4096, "memory_locked": True, "extra_config": _BIG_BARS, "power": "on"}


def _vgpus(model: Model) -> None:
    """A host whose GPUs take vGPUs, and a machine that runs with one."""
    gpus = [{"gpu": "A100-40", "count": 2}]
    _hosts(model)[ONE] |= {"gpus": gpus, "vgpu_manager": "16.4", "graphics_type": "sharedDirect"}
    model["vms"] = [{"name": "train", "host": ONE, "gpus": [{"mode": "vgpu", "profile": "nvidia_a100-10c"}], **_SHAPE}]


def _older_manager(model: Model) -> None:
    """A host that divides its GPUs with an older manager, and an ordinary machine on it."""
    _hosts(model)[THREE] |= {"vgpu_manager": "16.1", "graphics_type": "sharedDirect"}
    model["vms"] = [{"name": "web", "host": THREE, "memory_mb": 4096, "power": "on"}]


def _alone(model: Model) -> None:
    """A host that somebody has added to the vCenter."""
    cluster = model["clusters"][0]
    model["standalone_hosts"] = [host for host in cluster["hosts"] if host["name"] == TWO]
    cluster["hosts"] = [host for host in cluster["hosts"] if host["name"] != TWO]


def _pool(model: Model) -> None:
    """Two machines of the pool on the host that retires, room for one elsewhere, and one to move."""
    for name in (ONE, TWO):
        _hosts(model)[name]["gpus"] = [{"gpu": "P100-16", "count": 2, "passthrough": True}]
    gpus = [{"mode": "dynamic", "ids": ["10de:15f8"]}]
    model["vms"] = [
        {"name": "gpu-pool-01", "host": TWO, "gpus": gpus, **_SHAPE},
        {"name": "gpu-pool-02", "host": TWO, "gpus": gpus, **_SHAPE},
        {"name": "web", "host": TWO, "memory_mb": 4096, "power": "on"},
    ]


def _desktops(model: Model) -> None:
    """Idle desktops on two hosts, and a machine that is to compute there."""
    for name in (ONE, TWO):
        gpus = [{"gpu": "A100-40", "count": 1}]
        _hosts(model)[name] |= {"gpus": gpus, "vgpu_manager": "16.4", "graphics_type": "sharedDirect"}
    half, full = ([{"mode": "vgpu", "profile": f"nvidia_a100-{size}c"}] for size in (20, 40))
    model["vms"] = [
        {"name": "desk-1", "host": ONE, "gpus": half, **_SHAPE},
        {"name": "desk-2", "host": TWO, "gpus": half, **_SHAPE},
        {"name": "train-1", "host": ONE, "gpus": full, **_SHAPE, "power": "off"},
    ]


def _in_pools(model: Model) -> None:
    """Pools of desktops and of compute machines, and a machine outside of them."""
    model["clusters"][0]["pools"] = [{"name": "desktops"}, {"name": "compute"}]
    model["vms"] = [{"name": "web", "host": ONE, "memory_mb": 4096, "power": "on"}]


def _variables(**variables: t.Any) -> tuple[str, ...]:
    return ("-e", json.dumps(variables))


_TRAIN = {
    "name": "train",
    "gpus": [{"mode": "vgpu", "profile": "a100-20c", "count": 2}],
    "cpu": {"shares": "high"},
}
_HARVEST = _variables(
    gpu_harvest_now="2026-01-13T20:00:00+01:00",
    gpu_harvest_directory="{{ lab_dir }}/harvest",
    gpu_harvest_clusters=["gpu"],
    gpu_harvest_schedules={"office": {"timezone": "Europe/Berlin", "ready_by": "07:30", "lend_from": "19:00"}},
    gpu_harvest_desktops=[{"name": f"desk-{number}", "lend": True, "cpu_mhz": [40] * 6} for number in (1, 2)],
    gpu_harvest_compute=["train-1", "train-2"],
    gpu_harvest_compute_profile="nvidia_a100-40c",
    gpu_harvest_compute_template="gpu-server-template",
    gpu_harvest_lock_tries=1,
)
_IN_POOL = ("-i", "inventories/pool")
_RETIRING = (*_IN_POOL, "-i", "tests/crash/retiring", "--limit", f"{ONE}:{TWO}")

SCENES = (
    Scene("site", ("--limit", f"{ONE}:{THREE}")),
    Scene("expand", (*_IN_POOL, "--limit", TWO), change=_alone),
    Scene(
        "contract",
        (*_RETIRING, *_variables(gpu_fleet_pool_size=0, gpu_fleet_leave_as="removed")),
        change=_pool,
        called="contract_removed",
    ),
    Scene("contract", (*_RETIRING, *_variables(gpu_fleet_pool_size=1)), change=_pool),
    Scene("upgrade", ("--limit", THREE), change=_older_manager),
    Scene("vgpu_host", ("--limit", THREE)),
    Scene("esxi_passthrough", ("--limit", f"{ONE}:{THREE}"), change=_busy),
    Scene(
        "esxi_rolling",
        ("--limit", f"{ONE}:{THREE}", *_variables(esxi_rolling_reboot="always")),
        change=_busy,
    ),
    Scene("gpu_vm", ("--limit", f"{ONE}:{TWO}"), change=_passthrough),
    Scene(
        "gpu_vm_change",
        (
            "--limit", ONE,
            *_variables(gpu_vm_vms=[_TRAIN], esxi_passthrough_missing="skip", gpu_vm_guest_timeout=60),
        ),
        change=_vgpus,
    ),
    Scene("harvest", _HARVEST, change=_desktops),
    Scene(
        "cycle_harvesting",
        _variables(
            cycle_harvesting_desktop_pools=["desktops"],
            cycle_harvesting_compute_pools=["compute"],
            cycle_harvesting_compute_vms=["web"],
        ),
        change=_in_pools,
    ),
    Scene("vgpu_cluster", _variables(vgpu_cluster_names=["gpu"])),
    Scene("vcenter_role"),
)  # fmt: skip
"""Every playbook that changes something in the vCenter, the slowest first; a new one gets a line here.

Of those that a playbook has, the last is its ordinary one.
"""
