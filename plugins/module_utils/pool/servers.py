# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the inventory says of one GPU server, read and judged. Pure."""

from __future__ import annotations

import dataclasses
import math
import re
import typing as t

FENCES = ("mig", "vgpu", "mps", "none")
PREFIX = "gpu_pool_server_"
DEFAULT_SHARDS = 10

# NVIDIA's user guides: a MIG slice is <compute sevenths>g.<memory>gb, a vGPU profile ends in -<memory in GB><series>.
_MIG = re.compile(r"(?:^|[_-])(?P<sevenths>[1-7])g\.\d+gb")
_VGPU = re.compile(r"-(?P<gb>\d+)[abcq]$")
_TYPE = re.compile(r"[a-z0-9][a-z0-9_.+-]*")
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")
# Part of the machine's memory that the system keeps, where the inventory does not say how much jobs may have.
_FOR_JOBS = 0.95


@dataclasses.dataclass(frozen=True, slots=True)
class GpuSet:
    """GPUs of one type. `hundredths`: what one of them is of a board. `devices`: files of each; none if Slurm looks."""

    type: str
    count: int
    devices: tuple[tuple[str, ...], ...]
    hundredths: int


@dataclasses.dataclass(frozen=True, slots=True)
class Server:
    """One node. `shards`: of one GPU, 0 where none. Memory in MB."""

    host: str
    name: str
    address: str
    fence: str
    gpus: tuple[GpuSet, ...]
    gpu_memory_mb: int
    shards: int
    cpus: int
    memory_mb: int
    autodetect: str


def server_variables(host: str, variables: t.Mapping[str, t.Any]) -> dict[str, t.Any]:
    """What read_server takes, from a host's variables (and its facts, where they were gathered)."""
    found: dict[str, t.Any] = {key[len(PREFIX) :]: variables[key] for key in variables if key.startswith(PREFIX)}
    facts = variables.get("ansible_facts") or {}
    found["host"] = host
    found["fact_cpus"] = facts.get("processor_vcpus")
    found["fact_memory_mb"] = facts.get("memtotal_mb")
    found.setdefault("address", variables.get("ansible_host") or host)
    return found


def read_server(
    wanted: t.Mapping[str, t.Any], before: t.Mapping[str, t.Mapping[str, str]]
) -> tuple[Server | None, list[str]]:
    """The server, or None and what is wrong with it. `before`: nodes in force, from which sizes are kept."""
    host = str(wanted["host"])
    problems: list[str] = []

    def wrong(variable: str, text: str) -> None:
        problems.append(f"{host}: {PREFIX}{variable} {text}")

    name = str(wanted.get("name") or host.split(".", maxsplit=1)[0])
    if not _NAME.fullmatch(name):
        wrong("name", f"is {name!r}; letters, digits, - and _ make a name of a node, a letter first.")
    fence = str(wanted.get("fence", "none"))
    if fence not in FENCES:
        wrong("fence", f"is {fence!r}; it must be one of {', '.join(FENCES)}.")
        return None, problems
    if fence == "none" and not wanted.get("unfenced_ok", False):
        wrong(
            "fence",
            "is none, so a job could use memory of the others on its GPU. Choose mig, vgpu or mps, or say "
            f"{PREFIX}unfenced_ok: true.",
        )
    autodetect = str(wanted.get("autodetect", "off"))
    memory_mb = _whole(wanted.get("gpu_memory_mb", 0))
    if memory_mb is None:
        wrong("gpu_memory_mb", "must be the memory of one whole board in MB.")
    gpus = _gpus(wanted.get("gpus"), fence, autodetect, memory_mb or 0, wrong)
    shards = _shards(wanted.get("shards"), fence, wrong)
    known = before.get(name, {})
    cpus = _size(wanted, "cpus", known.get("CPUs"), 1.0)
    memory = _size(wanted, "memory_mb", known.get("RealMemory"), _FOR_JOBS)
    for variable, value in (("cpus", cpus), ("memory_mb", memory)):
        if not value:
            wrong(variable, "is not known: set it, or gather the host's facts (subset hardware) before.")
    if problems or not cpus or not memory:
        return None, problems
    address = str(wanted.get("address") or host)
    return Server(host, name, address, fence, gpus, memory_mb or 0, shards, cpus, memory, autodetect), []


def _size(wanted: t.Mapping[str, t.Any], key: str, known: str | None, part: float) -> int | None:
    """What is set, else what is in force if the machine still has it, else what the machine has."""
    if wanted.get(key) is not None:
        return _whole(wanted[key])
    fact = _whole(wanted.get(f"fact_{key}") or 0)
    if known and (not fact or int(known) <= fact):
        return int(known)
    return int(fact * part) if fact else None


def _whole(value: t.Any) -> int | None:
    """A number of 0 or more; None for what is none."""
    try:
        number = int(str(value))
    except ValueError:
        return None
    return number if number >= 0 else None


def _shards(value: t.Any, fence: str, wrong: t.Callable[[str, str], None]) -> int:
    if fence in ("mig", "vgpu"):
        if value:
            wrong("shards", f"does not go with the fence {fence}, whose parts are made by the GPU. Leave it out.")
        return 0
    shards = _whole(DEFAULT_SHARDS if value is None else value)
    if not shards or shards > 100:
        wrong("shards", "must be 1 to 100, the parts that one GPU is cut in.")
        return 0
    return shards


def _gpus(
    value: t.Any, fence: str, autodetect: str, board_mb: int, wrong: t.Callable[[str, str], None]
) -> tuple[GpuSet, ...]:
    if not isinstance(value, t.Sequence) or isinstance(value, str) or not value:
        wrong("gpus", "must list the server's GPUs, for example [{type: t4, count: 2}].")
        return ()
    sets: list[GpuSet] = []
    for entry in value:
        found = _gpu_set(entry, fence, autodetect, board_mb, sum(each.count for each in sets), wrong)
        if found:
            sets.append(found)
    types = [each.type for each in sets]
    if len(set(types)) < len(types):
        wrong("gpus", "names a type twice; give each type once, with its count.")
    if fence == "vgpu" and sum(each.count for each in sets) > 1:
        wrong("gpus", "has several GPUs; with the fence vgpu a server has one vGPU, which fences its tenant.")
    if fence in ("mps", "none") and len(sets) > 1:
        wrong("gpus", "has several types; GPUs of a server that are cut in shards are of one type.")
    return tuple(sets)


def _gpu_set(
    entry: t.Any, fence: str, autodetect: str, board_mb: int, first: int, wrong: t.Callable[[str, str], None]
) -> GpuSet | None:
    settings = entry if isinstance(entry, t.Mapping) else {}
    kind = str(settings.get("type", ""))
    given = settings.get("devices") or []
    count = _whole(settings.get("count", len(given) or 1))
    if not _TYPE.fullmatch(kind):
        wrong("gpus", f"has the type {kind!r}; a type is written in small letters, digits and _ . + -.")
        return None
    if not count:
        wrong("gpus", f"has no usable count for {kind}.")
        return None
    devices = tuple(tuple([files] if isinstance(files, str) else files) for files in given)
    if devices and len(devices) != count:
        wrong("gpus", f"has {count} {kind} but {len(devices)} devices of it.")
    if fence == "mig" and not devices and autodetect == "off":
        wrong("gpus", f"needs the device files of each {kind}, or {PREFIX}autodetect: nvml.")
    if not devices and autodetect == "off":
        devices = tuple((f"/dev/nvidia{first + number}",) for number in range(count))
    mig, vgpu = _MIG.search(kind), _VGPU.search(kind)
    if fence == "mig" and not mig:
        wrong("gpus", f"has the type {kind}; with the fence mig it is a slice's, for example a100_3g.20gb.")
    if fence == "vgpu" and not vgpu:
        wrong("gpus", f"has the type {kind}; with the fence vgpu it is a profile's, for example grid_t4-4c.")
    if fence in ("mps", "none") and (mig or vgpu):
        wrong("gpus", f"has the type {kind}, a part of a board; its fence is {'mig' if mig else 'vgpu'}.")
    hundredths = 100
    if mig:
        hundredths = math.ceil(100 * int(mig["sevenths"]) / 7)
    elif vgpu and board_mb:
        hundredths = min(100, math.ceil(100 * int(vgpu["gb"]) * 1024 / board_mb))
    return GpuSet(kind, count, devices, hundredths)
