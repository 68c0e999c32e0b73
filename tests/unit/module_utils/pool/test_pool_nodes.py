"""GPU servers of an inventory as Slurm's nodes, partitions and generic resources."""

from __future__ import annotations

import typing as t

import pytest
from ansible_collections.gpuops.vsphere.plugins.module_utils.pool.nodes import plan_pool, read_nodes
from ansible_collections.gpuops.vsphere.plugins.module_utils.pool.servers import server_variables
from hypothesis import given
from hypothesis import strategies as st

from gpurun.pool import read_nodes as as_gpurun_sees


def server(host: str = "gpu-01.example.org", **settings: t.Any) -> dict[str, t.Any]:
    fence = settings.get("fence", "mps")
    kinds = {"mig": "a100_1g.10gb", "vgpu": "grid_t4-4c"}
    gpus = [{"type": kinds.get(fence, "t4"), "count": 1 if fence == "vgpu" else 2}]
    return {
        "host": host,
        "fence": fence,
        "gpus": gpus,
        "cpus": 8,
        "memory_mb": 64000,
        "gpu_memory_mb": 16384,
    } | settings


def plan(*servers: dict[str, t.Any], current: str = "", **settings: t.Any) -> dict[str, t.Any]:
    return plan_pool(servers, current, partition="gpu", **settings)


def test_a_server_whose_gpus_are_shared() -> None:
    found = plan(server(address="192.0.2.1"))
    assert found["problems"] == []
    assert found["nodes"].splitlines()[1:] == [
        "NodeName=gpu-01 NodeAddr=192.0.2.1 CPUs=8 RealMemory=64000 Gres=gpu:t4:2,shard:t4:20 "
        "Features=fence_mps,gpu_t4,gpumem_16384 State=UNKNOWN",
        "PartitionName=gpu Nodes=gpu-01 Default=YES State=UP ExclusiveUser=YES "
        "TRESBillingWeights=CPU=0,GRES/gpu=100,GRES/shard=10",
    ]
    assert found["gres"].splitlines()[1:] == [
        "AutoDetect=off",
        "NodeName=gpu-01 Name=gpu Type=t4 File=/dev/nvidia0,/dev/nvidia1",
        "NodeName=gpu-01 Name=shard Type=t4 Count=20",
    ]
    assert found["tres"] == ["gres/gpu", "gres/shard"]
    assert (found["names"], found["added"], found["memory_per_cpu"]) == (["gpu-01"], ["gpu-01"], 8000)


def test_users_share_servers_unless_mps_serves_them() -> None:
    """An MPS server serves one user at a time, so that is what the partition of such servers says, and no other."""
    mixed = plan(
        server("a"), server("b", fence="vgpu"), server("c", fence="none", unfenced_ok=True), limits="MaxTime=60"
    )
    parts = [line for line in mixed["nodes"].splitlines() if line.startswith("Partition")]
    assert [line.split()[:3] for line in parts] == [
        ["PartitionName=gpu", "Nodes=b,c", "Default=YES"],
        ["PartitionName=gpu-mps", "Nodes=a", "Default=NO"],
    ]
    assert ["ExclusiveUser=YES" in line for line in parts] == [False, True]
    assert all(line.endswith("MaxTime=60") for line in parts)


def test_slices_cost_their_part_of_a_board() -> None:
    devices = [["/dev/nvidia0", "/dev/nvidia-caps/nvidia-cap12", "/dev/nvidia-caps/nvidia-cap13"]]
    found = plan(
        server("a", fence="mig", gpus=[{"type": "a100_3g.20gb", "devices": devices}]),
        server("b", fence="vgpu"),
        server("c", shards=8),
    )
    assert found["problems"] == []
    assert (
        "TRESBillingWeights=CPU=0,GRES/gpu:a100_3g.20gb=43,GRES/gpu:grid_t4-4c=25,GRES/gpu:t4=100,GRES/shard=12.5"
        in found["nodes"]
    )
    assert found["tres"] == [
        "gres/gpu",
        "gres/gpu:a100_3g.20gb",
        "gres/gpu:grid_t4-4c",
        "gres/gpu:t4",
        "gres/shard",
    ]
    assert f"NodeName=a Name=gpu Type=a100_3g.20gb MultipleFiles={','.join(devices[0])}" in found["gres"]
    assert "Gres=gpu:a100_3g.20gb:1 " in found["nodes"]


def test_slurm_can_look_for_the_gpus_itself() -> None:
    found = plan(server(fence="mig", autodetect="nvml"))
    assert found["gres"].splitlines()[1:] == ["AutoDetect=off", "NodeName=gpu-01 AutoDetect=nvml"]
    assert "Gres=gpu:a100_1g.10gb:2 " in found["nodes"]


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"fence": "wall"}, "gpu_pool_server_fence is 'wall'"),
        ({"fence": "none"}, "gpu_pool_server_unfenced_ok: true"),
        ({"fence": "mig"}, "needs the device files"),
        ({"fence": "mig", "autodetect": "nvml", "gpus": [{"type": "a100"}]}, "for example a100_3g.20gb"),
        ({"fence": "vgpu", "gpus": [{"type": "t4"}]}, "for example grid_t4-4c"),
        ({"fence": "vgpu", "gpus": [{"type": "grid_t4-4c", "count": 2}]}, "has several GPUs"),
        ({"fence": "vgpu", "shards": 10}, "gpu_pool_server_shards does not go with the fence vgpu"),
        ({"gpus": [{"type": "grid_t4-4c"}]}, "its fence is vgpu"),
        ({"gpus": [{"type": "t4"}, {"type": "p4"}]}, "has several types"),
        ({"gpus": [{"type": "t4"}, {"type": "t4"}]}, "names a type twice"),
        ({"gpus": [{"type": "T4 big"}]}, "has the type 'T4 big'"),
        ({"gpus": [{"type": "t4", "count": 0}]}, "no usable count"),
        ({"gpus": [{"type": "t4", "count": 2, "devices": ["/dev/nvidia0"]}]}, "2 t4 but 1 devices"),
        ({"gpus": []}, "must list the server's GPUs"),
        ({"gpus": "t4"}, "must list the server's GPUs"),
        ({"shards": 0}, "gpu_pool_server_shards must be 1 to 100"),
        ({"shards": 101}, "gpu_pool_server_shards must be 1 to 100"),
        ({"gpu_memory_mb": "much"}, "gpu_pool_server_gpu_memory_mb must be"),
        ({"cpus": None}, "gpu_pool_server_cpus is not known"),
        ({"memory_mb": None}, "gpu_pool_server_memory_mb is not known"),
        ({"name": "gpu 1"}, "gpu_pool_server_name is 'gpu 1'"),
    ],
)
def test_what_cannot_be_is_refused_by_the_variables_name(settings: dict[str, t.Any], says: str) -> None:
    found = plan(server(**settings))
    assert any(says in problem and problem.startswith("gpu-01.example.org: ") for problem in found["problems"]), found
    assert found["names"] == []


def test_servers_must_not_clash() -> None:
    two = plan(server("gpu-01.a"), server("gpu-01.b"))
    assert "gpu-01.b and gpu-01.a would both be the node gpu-01" in two["problems"][0]
    assert "gpu_pool_server_shards differs (b 4, a 10)" in plan(server("a"), server("b", shards=4))["problems"][0]


def test_what_would_disturb_jobs_is_told_apart() -> None:
    current = plan(server("a"), server("b"), server("c"), server("d"))["nodes"]
    found = plan(
        server("a", gpus=[{"type": "t4", "count": 3}]),
        server("b", address="192.0.2.9", gpu_memory_mb=15360),
        server("c", state="absent"),
        server("d"),
        server("e"),
        current=current,
    )
    assert (found["added"], found["altered"], found["removed"]) == (["e"], ["a"], ["c"])


def test_sizes_that_are_not_set_are_kept() -> None:
    """Facts differ a little from boot to boot; that must not look like another machine. A smaller machine is one."""
    facts = server_variables(
        "a", {"gpu_pool_server_fence": "mps", "ansible_facts": {"processor_vcpus": 4, "memtotal_mb": 10000}}
    )
    first = plan(server("a") | facts | {"cpus": None, "memory_mb": None})
    assert "CPUs=4 RealMemory=9500 " in first["nodes"]
    for memory, wanted in [(10100, 9500), (9600, 9500), (None, 9500), (8000, 7600)]:
        again = {**server("a"), **facts, "cpus": None, "memory_mb": None, "fact_memory_mb": memory}
        assert f"RealMemory={wanted} " in plan(again, current=first["nodes"])["nodes"]


def test_variables_of_a_host() -> None:
    found = server_variables("gpu-01.lab", {"gpu_pool_server_fence": "vgpu", "other": 1, "ansible_host": "192.0.2.7"})
    assert (found["host"], found["fence"], found["address"]) == ("gpu-01.lab", "vgpu", "192.0.2.7")
    assert "other" not in found
    assert server_variables("gpu-01.lab", {})["address"] == "gpu-01.lab"


@given(
    st.lists(
        st.builds(
            dict,
            fence=st.sampled_from(["mps", "vgpu"]),
            cpus=st.integers(1, 256),
            gpu_memory_mb=st.sampled_from([16384, 81920]),
        ),
        max_size=6,
    )
)
def test_gpurun_reads_what_is_planned(wanted: list[dict[str, t.Any]]) -> None:
    """The client's own reader of nodes understands what was meant; planning again changes nothing."""
    found = plan(*(server(f"n{number}", **settings) for number, settings in enumerate(wanted)))
    assert found["problems"] == []
    reply = {
        "nodes": [
            {"name": name, "gres": node["Gres"], "features": node["Features"]}
            for name, node in read_nodes(found["nodes"]).items()
        ]
    }
    for node, settings in zip(as_gpurun_sees(reply), wanted, strict=True):
        assert node.fence == settings["fence"]
        assert node.shards == (10 if settings["fence"] == "mps" else 0)
        assert node.memory_mb == (settings["gpu_memory_mb"] if settings["fence"] == "mps" else 4096)
    again = plan(*(server(f"n{number}", **settings) for number, settings in enumerate(wanted)), current=found["nodes"])
    assert (again["nodes"], again["added"], again["altered"], again["removed"]) == (found["nodes"], [], [], [])
