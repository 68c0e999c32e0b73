# Copyright: (c) 2026, The gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""From "N GPUs, fraction F" to Slurm's own words, or to a refusal that says what could be had. Pure.

| fence | a fraction is | a whole GPU is |
|---|---|---|
| mps, none | `--gres=shard:ceil(F * S)`, S shards per GPU | `--gres=gpu:N` |
| mig | `--gres=gpu:<smallest slice type >= F>:N` | the same, F = 1 |
| vgpu | `--gres=gpu:<smallest vGPU type >= F>` | the same, F = 1 |

Shards are of one GPU: Slurm 23.11.1 and newer refuse a request larger than one GPU, older ones block the queue with it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from .errors import RefusedError, UsageError
from .pool import Node

# What a request of F = 0.1 needs of a 10-shard GPU is one shard, although 0.1 * 10 is a little more than 1 in binary.
ROUNDING = 1e-9


@dataclass(frozen=True)
class Wish:
    """What the user typed: `gpus` (count), and of each a `fraction` (0 < F <= 1) or `memory_mb`; `gpu_type` or any.

    `cpus`: of one server, None for what the pool gives.
    """

    gpus: int = 1
    fraction: float | None = None
    memory_mb: int | None = None
    gpu_type: str | None = None
    cpus: int | None = None


@dataclass(frozen=True)
class Grant:
    """What Slurm is asked for. `fraction` and `memory_mb` are of each part; `servers` > 1: one part on each of them."""

    gres: str
    constraint: str | None
    servers: int
    fraction: float
    memory_mb: int | None
    node_names: tuple[str, ...]
    hundredths: int
    note: str | None = None

    def arguments(self) -> list[str]:
        """Options for srun, salloc or sbatch."""
        found = [f"--gres={self.gres}", f"--nodes={self.servers}"]
        if self.servers > 1:
            found += [f"--ntasks={self.servers}", "--ntasks-per-node=1"]
        if self.constraint:
            found.append(f"--constraint={self.constraint}")
        return found


def check(wish: Wish) -> None:
    """Raise UsageError for a wish that makes no sense on any pool."""
    if wish.gpus < 1:
        raise UsageError(f"-n {wish.gpus}: ask for 1 GPU or more")
    if wish.fraction is not None and wish.memory_mb is not None:
        raise UsageError("-p and --memory say the same thing in two ways: give one of them")
    if wish.fraction is not None and not 0 < wish.fraction <= 1:
        raise UsageError(
            f"-p {wish.fraction:g}: a fraction of one GPU is more than 0 and at most 1; for several GPUs use -n"
        )
    if wish.memory_mb is not None and wish.memory_mb < 1:
        raise UsageError(f"--memory {wish.memory_mb}: ask for 1 MB or more")
    if wish.cpus is not None and wish.cpus < 1:
        raise UsageError(f"--cpus {wish.cpus}: ask for 1 CPU or more")


def plan(wish: Wish, nodes: Sequence[Node]) -> Grant:
    """Choose what to ask Slurm for.

    Of several kinds of GPU that could serve, those with room now come first, then the one that wastes least.
    Nodes that are down or drained count too when nothing else could serve: the job then waits for them.
    Raises UsageError or RefusedError.
    """
    check(wish)
    if not nodes:
        raise RefusedError("the pool has no GPU server: ask its operator (`gpurun health` shows the servers)")
    of_type = [node for node in nodes if wish.gpu_type in (None, node.gpu_type)]
    if not of_type:
        kinds = ", ".join(sorted({node.gpu_type for node in nodes}))
        raise RefusedError(f"no GPU of type {wish.gpu_type} in the pool: it has {kinds}")
    if wish.cpus:
        largest = max(node.cpus for node in of_type)
        of_type = [node for node in of_type if not node.cpus or node.cpus >= wish.cpus]
        if not of_type:
            raise RefusedError(
                f"{wish.cpus} CPUs cannot be had: one server has at most {largest}; use --cpus {largest}"
            )
    usable = [node for node in of_type if node.usable] or of_type
    grants = [
        grant for shape in sorted({_shape_key(node) for node in usable}) for grant in _grants(wish, _of(usable, shape))
    ]
    if not grants:
        raise RefusedError(f"{describe(wish)} cannot be had: {_offer(wish, of_type)}")
    return min(
        grants, key=lambda grant: (not _room(grant, usable), grant.hundredths, grant.gres, grant.constraint or "")
    )


def describe(wish: Wish) -> str:
    """The wish in words."""
    kind = f" of type {wish.gpu_type}" if wish.gpu_type else ""
    count = f"{wish.gpus} GPU{'s' if wish.gpus > 1 else ''}{kind}"
    if wish.memory_mb is not None:
        return f"{wish.memory_mb} MB on {count}" if wish.gpus == 1 else f"{wish.memory_mb} MB on each of {count}"
    if wish.fraction in (None, 1.0):
        return count
    return f"{wish.fraction:g} of {count}" if wish.gpus == 1 else f"{wish.fraction:g} of each of {count}"


def _shape_key(node: Node) -> tuple[str, str, int, int]:
    fence, gpu_type, shards, memory_mb = node.shape
    return fence, gpu_type, shards, memory_mb or 0


def _of(nodes: Sequence[Node], shape: tuple[str, str, int, int]) -> list[Node]:
    return [node for node in nodes if _shape_key(node) == shape]


def _part(wish: Wish, node: Node) -> float | None:
    """The part of a whole board that is wanted; None where memory is asked for and the node does not tell its own."""
    if wish.memory_mb is None:
        return wish.fraction or 1.0
    return wish.memory_mb / node.memory_mb * node.fraction if node.memory_mb else None


def _grants(wish: Wish, nodes: Sequence[Node]) -> list[Grant]:
    """At most one way to serve the wish on nodes of one shape."""
    node = nodes[0]
    part = _part(wish, node)
    if part is None or part > node.fraction + ROUNDING:
        return []
    names = tuple(sorted(each.name for each in nodes))
    constraint = f"gpu_{node.gpu_type}" if wish.gpu_type or wish.memory_mb is not None else None
    if node.fraction < 1 or part > 1 - ROUNDING:
        # a whole device, be it a board, a MIG slice or a vGPU
        if max(len(each.gpus) for each in nodes) < wish.gpus:
            return []
        typed = node.fraction < 1 or wish.gpu_type or wish.memory_mb is not None
        return [
            Grant(
                gres=f"gpu:{node.gpu_type}:{wish.gpus}" if typed else f"gpu:{wish.gpus}",
                constraint=None,
                servers=1,
                fraction=node.fraction,
                memory_mb=node.memory_mb,
                node_names=tuple(each.name for each in nodes if len(each.gpus) >= wish.gpus),
                hundredths=math.ceil(100 * node.fraction * wish.gpus - ROUNDING),
            )
        ]
    if not node.shards or len(nodes) < wish.gpus:
        return []
    shards = math.ceil(part * node.shards - ROUNDING)
    granted = shards / node.shards
    return [
        Grant(
            gres=f"shard:{shards}",
            constraint=constraint,
            servers=wish.gpus,
            fraction=granted,
            memory_mb=int(node.memory_mb * granted) if node.memory_mb else None,
            node_names=names,
            hundredths=math.ceil(100 * granted * wish.gpus - ROUNDING),
            note=_parts_note(wish, granted),
        )
    ]


def _parts_note(wish: Wish, granted: float) -> str | None:
    if wish.gpus == 1:
        return None
    return (
        f"{wish.gpus} parts of {granted:g} GPU on {wish.gpus} servers: the command runs once on each "
        f"(SLURM_PROCID 0 to {wish.gpus - 1})"
    )


def _room(grant: Grant, nodes: Sequence[Node]) -> bool:
    """Whether enough is free now, by Slurm's own count."""
    kind, _sep, rest = grant.gres.partition(":")
    with_room = 0
    for node in nodes:
        if node.name not in grant.node_names or not node.usable:
            continue
        if kind == "gpu":
            free = sum(gpu.used == 0 for gpu in node.gpus)
            with_room += free >= int(rest.rpartition(":")[2])
        else:
            with_room += any(1 - gpu.used >= grant.fraction - ROUNDING for gpu in node.gpus)
    return with_room >= grant.servers


def _offer(wish: Wish, nodes: Sequence[Node]) -> str:
    """What could be had instead."""
    largest = max(len(node.gpus) for node in nodes)
    fractions = sorted({node.fraction for node in nodes}, reverse=True)
    sharing = [node for node in nodes if node.shards]
    if wish.memory_mb is not None:
        sizes = [node.memory_mb for node in nodes if node.memory_mb]
        if not sizes:
            return "the servers do not tell their GPUs' memory; use -p"
        if wish.memory_mb > max(sizes):
            return f"the largest GPU here has {max(sizes)} MB"
    part = wish.fraction or 1.0
    if wish.memory_mb is None and part > fractions[0]:
        most = math.floor(fractions[0] * 100) / 100
        return f"the largest device here is {fractions[0]:.2g} of a GPU; use -p {most:g} or less"
    if wish.gpus > 1 and (part < 1 or wish.memory_mb is not None) and sharing:
        servers = f"{len(sharing)} server{'s' if len(sharing) > 1 else ''}"
        return f"parts go one to a server, and {servers} can share; use -n {len(sharing)} or less"
    if wish.gpus > largest:
        return f"one server has at most {largest}; use -n {largest} or less"
    return "the GPUs here cannot be shared; use -p 1"
