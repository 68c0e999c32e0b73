# Copyright: (c) 2026, The gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The pool as Slurm describes it: `scontrol show nodes --json` read into plain records.

The role gpu_pool_server gives each node the features `fence_<mig|vgpu|mps|none>` and `gpumem_<MB>` (memory of one whole
GPU). GPU types, counts and shards are Slurm's own (`gres`, `gres_used`). Nothing here calls a program.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

# NVIDIA's MIG user guide names a slice by its compute sevenths and its memory: 1g.10gb, 3g.40gb, 1g.10gb+me.
MIG_TYPE = re.compile(r"(?:^|[_-])(?P<sevenths>\d)g\.(?P<gb>\d+)gb")
# NVIDIA's vGPU guide names a profile board-<memory in GB><series letter>: grid_a100-10c.
VGPU_TYPE = re.compile(r"-(?P<gb>\d+)[abcq]$")
UNUSABLE = {"DOWN", "DRAIN", "FAIL", "FAILING", "NOT_RESPONDING", "MAINTENANCE", "POWERED_DOWN", "INVALID_REG"}


@dataclass(frozen=True)
class Gpu:
    """One GPU of a node as Slurm counts it.

    `used` is the part in use, 0 to 1: by shards, or 1 where a job has it whole.
    """

    used: float


@dataclass(frozen=True)
class Node:
    """A GPU server. `fraction`: what one device of `gpu_type` is of a whole board (a MIG slice or vGPU is less than 1).

    `memory_mb` is the memory of one device; None where the node does not tell. `shards` is the number of shards of one
    GPU, 0 where it cannot be shared. `cpus`: of the server, 0 where it does not tell.
    """

    name: str
    fence: str
    gpu_type: str
    gpus: tuple[Gpu, ...]
    fraction: float
    memory_mb: int | None
    shards: int
    states: tuple[str, ...]
    reason: str
    cpus: int = 0

    @property
    def usable(self) -> bool:
        """Whether new jobs may start here now."""
        return not UNUSABLE.intersection(self.states)

    @property
    def shape(self) -> tuple[str, str, int, int | None]:
        """What makes two nodes interchangeable for a request."""
        return self.fence, self.gpu_type, self.shards, self.memory_mb


def read_nodes(reply: Mapping[str, Any]) -> tuple[Node, ...]:
    """Nodes with GPUs of a reply of `scontrol show nodes --json` (Slurm 23.11 or newer), by name."""
    found = (node for entry in reply.get("nodes", ()) for node in _nodes(entry))
    return tuple(sorted(found, key=lambda node: (node.name, node.gpu_type)))


def _nodes(entry: Mapping[str, Any]) -> list[Node]:
    features = entry.get("active_features") or entry.get("features") or ()
    fence = _feature(features, "fence_") or "none"
    board_mb = _feature(features, "gpumem_")
    gres = list(split_gres(entry.get("gres") or ""))
    used = list(split_gres(entry.get("gres_used") or ""))
    states = entry.get("state") or ()
    nodes = []
    for kind, gpu_type, count, _detail in gres:
        if kind != "gpu" or not count:
            continue
        shards = sum(number for name, of_type, number, _detail in gres if name == "shard" and of_type in ("", gpu_type))
        fraction, memory_mb = device_size(gpu_type, int(board_mb) if board_mb else None)
        nodes.append(
            Node(
                name=str(entry.get("name") or entry.get("hostname") or ""),
                fence=fence,
                gpu_type=gpu_type,
                gpus=_gpus(count, gpu_type, used),
                fraction=fraction,
                memory_mb=memory_mb,
                shards=shards // count,
                states=tuple([states] if isinstance(states, str) else states),
                reason=str(entry.get("reason") or ""),
                cpus=int(entry.get("cpus") or 0),
            )
        )
    return nodes


def _gpus(count: int, gpu_type: str, used: Sequence[tuple[str, str, int, str]]) -> tuple[Gpu, ...]:
    """Use of each GPU from `gpu:t4:1(IDX:0),shard:t4:5(5/10,0/10)`."""
    whole: set[int] = set()
    parts: dict[int, float] = {}
    for kind, of_type, _number, detail in used:
        if of_type not in ("", gpu_type):
            continue
        if kind == "gpu" and detail.startswith("IDX:"):
            whole |= index_list(detail[4:])
        elif kind == "shard":
            for index, pair in enumerate(re.findall(r"(\d+)/(\d+)", detail)):
                parts[index] = int(pair[0]) / int(pair[1]) if int(pair[1]) else 0.0
    return tuple(Gpu(used=1.0 if index in whole else parts.get(index, 0.0)) for index in range(count))


def split_gres(text: str) -> list[tuple[str, str, int, str]]:
    """`gpu:t4:2(S:0),shard:t4:20` as (name, type, count, what is in the parentheses)."""
    entries = []
    for name, gpu_type, count, detail in re.findall(r"(\w+)(?::([^:(),]+))??(?::(\d+))(?:\(([^)]*)\))?", text):
        entries.append((name, gpu_type, int(count), detail))
    return entries


def index_list(text: str) -> set[int]:
    """`0-1,3` as {0, 1, 3}; `N/A` as nothing."""
    found: set[int] = set()
    for first, last in re.findall(r"(\d+)(?:-(\d+))?", text):
        found.update(range(int(first), int(last or first) + 1))
    return found


def device_size(gpu_type: str, board_mb: int | None) -> tuple[float, int | None]:
    """(fraction of a board, memory in MB) of one device of a type: MIG slice, vGPU profile or whole GPU."""
    mig = MIG_TYPE.search(gpu_type)
    if mig:
        return int(mig["sevenths"]) / 7, int(mig["gb"]) * 1024
    vgpu = VGPU_TYPE.search(gpu_type)
    if vgpu:
        memory_mb = int(vgpu["gb"]) * 1024
        return (min(1.0, memory_mb / board_mb) if board_mb else 1.0), memory_mb
    return 1.0, board_mb


def _feature(features: Sequence[str] | str, prefix: str) -> str | None:
    names = features.split(",") if isinstance(features, str) else features
    return next((name[len(prefix) :] for name in names if name.startswith(prefix)), None)
