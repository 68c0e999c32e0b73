# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The GPU servers of the inventory as Slurm's nodes, partitions and generic resources. Pure.

| fence | GPUs in Slurm | who may be on a server at one time |
|---|---|---|
| mig | typed slices, `gpu:a100_1g.10gb:7` | anybody, one job a slice |
| vgpu | one typed vGPU, `gpu:grid_t4-4c:1` | one job |
| mps | typed boards and shards of them | one user: an MPS server serves one at a time |
| none | typed boards and shards of them | anybody, unfenced |
"""

from __future__ import annotations

import re
import typing as t

from ansible_collections.gpuops.vsphere.plugins.module_utils.pool.servers import Server, read_server

_SETTING = re.compile(r"(\w+)=(\S+)")


def plan_pool(
    servers: t.Sequence[t.Mapping[str, t.Any]], current: str, *, partition: str, limits: str = ""
) -> dict[str, t.Any]:
    """What the controllers' files say of these servers.

    `servers`: one mapping each, as read_server takes it. `current`: the nodes.conf that is in force, "" if none; what a
    server does not say of its CPUs and memory is kept from there. `limits`: further words of the partitions' lines.

    Returns `nodes` and `gres` (text of nodes.conf and gres.conf), `tres` (what accounting counts), `names`,
    `memory_per_cpu` (MB, the least of all servers), `problems` (texts), and by comparison with `current` the names that
    are `added`, `altered` and `removed`.
    """
    before = read_nodes(current)
    read = [read_server(server, before) for server in servers if server.get("state", "present") == "present"]
    problems = [problem for _server, found in read for problem in found]
    good = sorted((server for server, _found in read if server), key=lambda server: server.name)
    problems += _clashes(good)
    shards = max((server.shards for server in good), default=0)
    weights = _weights(good, shards)
    lines = {server.name: _node_line(server) for server in good}
    parts = _partitions(good, partition, f"TRESBillingWeights={_words(weights)} {limits}".rstrip())
    gres = ["AutoDetect=off", *(line for server in good for line in _gres_lines(server))]
    return {
        "nodes": _text([*lines.values(), *parts]),
        "gres": _text(gres),
        "tres": sorted({"gres/gpu", "gres/shard", *(name.lower() for name in weights if ":" in name)}),
        "names": sorted(lines),
        "memory_per_cpu": min((server.memory_mb // server.cpus for server in good), default=0),
        "problems": problems,
        "added": sorted(set(lines) - set(before)),
        "altered": sorted(name for name in set(lines) & set(before) if _differs(lines[name], before[name])),
        "removed": sorted(set(before) - set(lines)),
    }


def read_nodes(text: str) -> dict[str, dict[str, str]]:
    """The settings of each node in a nodes.conf that plan_pool wrote."""
    nodes = {}
    for line in text.splitlines():
        if line.startswith("NodeName="):
            settings = dict(_SETTING.findall(line))
            nodes[settings.pop("NodeName")] = settings
    return nodes


def _differs(line: str, before: t.Mapping[str, str]) -> bool:
    """Whether jobs on the node would notice: its address and features can change under them."""
    now = dict(_SETTING.findall(line))
    return any(now[key] != before.get(key) for key in ("CPUs", "RealMemory", "Gres"))


def _text(lines: t.Sequence[str]) -> str:
    return "".join(f"{line}\n" for line in ["# Managed by Ansible (gpuops.vsphere.gpu_pool_controller).", *lines])


def _node_line(server: Server) -> str:
    gres = [f"gpu:{gpu.type}:{len(gpu.devices) or gpu.count}" for gpu in server.gpus]
    gres += [f"shard:{gpu.type}:{gpu.count * server.shards}" for gpu in server.gpus if server.shards]
    features = [f"fence_{server.fence}", *(f"gpu_{gpu.type}" for gpu in server.gpus)]
    if server.gpu_memory_mb:
        features.append(f"gpumem_{server.gpu_memory_mb}")
    return (
        f"NodeName={server.name} NodeAddr={server.address} CPUs={server.cpus} RealMemory={server.memory_mb} "
        f"Gres={','.join(gres)} Features={','.join(features)} State=UNKNOWN"
    )


def _gres_lines(server: Server) -> list[str]:
    start = f"NodeName={server.name}"
    lines = [f"{start} AutoDetect={server.autodetect}"] if server.autodetect != "off" else []
    for gpu in server.gpus:
        single = [files[0] for files in gpu.devices if len(files) == 1]
        if single:
            lines.append(f"{start} Name=gpu Type={gpu.type} File={','.join(single)}")
        lines += [
            f"{start} Name=gpu Type={gpu.type} MultipleFiles={','.join(files)}"
            for files in gpu.devices
            if len(files) > 1
        ]
        if server.shards:
            lines.append(f"{start} Name=shard Type={gpu.type} Count={gpu.count * server.shards}")
    return lines


def _weights(servers: t.Sequence[Server], shards: int) -> dict[str, str]:
    """Hundredths of a GPU. Slices have their own weight each, and Slurm would add a weight of all GPUs to it."""
    weights = {"CPU": "0"}
    parts = {gpu.type: gpu.hundredths for server in servers for gpu in server.gpus}
    if any(part < 100 for part in parts.values()):
        weights |= {f"GRES/gpu:{name}": str(part) for name, part in sorted(parts.items())}
    else:
        weights["GRES/gpu"] = "100"
    if shards:
        weights["GRES/shard"] = f"{100 / shards:g}"
    return weights


def _words(weights: t.Mapping[str, str]) -> str:
    return ",".join(f"{name}={value}" for name, value in weights.items())


def _partitions(servers: t.Sequence[Server], name: str, settings: str) -> list[str]:
    """One partition, or two where servers for one user at a time are only a part of the pool."""
    one_user = [server.name for server in servers if server.fence == "mps"]
    anybody = [server.name for server in servers if server.fence != "mps"]
    lines = []
    if anybody or not one_user:
        nodes = f"Nodes={','.join(anybody)} " if anybody else ""
        lines.append(f"PartitionName={name} {nodes}Default=YES State=UP {settings}")
    if one_user:
        own, default = (f"{name}-mps", "NO") if anybody else (name, "YES")
        lines.append(
            f"PartitionName={own} Nodes={','.join(one_user)} Default={default} State=UP ExclusiveUser=YES {settings}"
        )
    return lines


def _clashes(servers: t.Sequence[Server]) -> list[str]:
    problems = []
    hosts: dict[str, str] = {}
    for server in servers:
        if server.name in hosts:
            problems.append(
                f"{server.host} and {hosts[server.name]} would both be the node {server.name}. "
                f"Give one of them another gpu_pool_server_name."
            )
        hosts.setdefault(server.name, server.host)
    sharing = {server.shards: server.host for server in servers if server.shards}
    if len(sharing) > 1:
        told = ", ".join(f"{host} {count}" for count, host in sorted(sharing.items()))
        problems.append(
            f"gpu_pool_server_shards differs ({told}). A shard costs the same everywhere, so set one number for all."
        )
    return problems
