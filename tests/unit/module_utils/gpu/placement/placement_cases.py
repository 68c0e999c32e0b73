# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Questions for placement, a checker that shares no code with it, and a solver that tries everything."""

from __future__ import annotations

import dataclasses
import itertools
import random
import typing as t
from pathlib import Path

import yaml
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.placement.model import (
    Demand,
    Gpu,
    Grant,
    Host,
    Instance,
    Need,
    Resident,
    Result,
)
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.placement.solution import Solution
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.profiles import Needs
from hypothesis import strategies as st

# The table of the other implementation, read as data.
_TABLE = Path(__file__).resolve().parents[5] / "simulator/src/vsphere_simulator/world/catalog.yml"
BOARDS = {entry["board"]: entry for entry in yaml.safe_load(_TABLE.read_text())["gpus"].values()}
ADDRESSES = [f"0000:{bus:02x}:00.0" for bus in (0x3B, 0x5E, 0x86, 0xAF, 0xD8, 0xE1, 0xF1, 0xF8)]


def gpus(count: int, board: str = "a100", use: str = "same_size", **more: t.Any) -> tuple[Gpu, ...]:
    return tuple(Gpu(address, "10de:20f1", board, t.cast("t.Any", use), **more) for address in ADDRESSES[:count])


def vgpu(profile: str, count: int = 1) -> Need:
    return Need("vgpu", count, profile=profile)


def whole(count: int = 1, device: str = "10de:20f1", **more: t.Any) -> Need:
    return Need("dynamic", count, id=device, **more)


def fleet(
    hosts: int, each: int, load: float, *, seed: int = 1, sizes: t.Sequence[int] = (4, 8, 10, 20, 40), **more: t.Any
) -> Instance:
    """Equal hosts with A100-40, and machines of random sizes that ask for this part of the framebuffer."""
    policy, use = more.pop("policy", "performance"), more.pop("use", "same_size")
    made = tuple(Host(f"esx-{number:03}", "gpu", gpus(each, use=use), policy=policy) for number in range(hosts))
    dice = random.Random(seed)  # noqa: S311 - made-up fleets
    left, wanted = hosts * each * 40 * load, []
    while (size := dice.choice(sizes)) <= left:
        left -= size
        wanted.append(Demand(f"vm-{len(wanted):04}", (vgpu(f"a100-{size}c"),)))
    return Instance(made, tuple(wanted), **more)


def check(instance: Instance, result: Result) -> None:
    """Fail where the answer breaks any rule at any step."""
    hosts = {host.name: host for host in instance.hosts}
    demands = {demand.name: demand for demand in instance.demands}
    where = {r.demand.name: (host.name, r.demand, r.grants) for host in instance.hosts for r in host.residents}
    movable = {r.demand.name for host in instance.hosts for r in host.residents if r.movable}
    free = {host.name: [host.free_memory_mb, host.free_cpus] for host in instance.hosts}
    assert len(result.moves) <= instance.max_moves
    for step in (*result.moves, *result.placements):
        moved = step in result.moves
        if moved:
            assert step.vm in movable
            demand = where[step.vm][1]
        else:
            demand = demands[step.vm]
            assert demand.host in (None, step.host)
            assert demand.cluster in (None, hosts[step.host].cluster)
        assert hosts[step.host].closed is None
        assert step.origin != step.host
        others = [(grants, other) for host, other, grants in where.values() if host == step.host]
        assert not any(set(other.groups) & set(demand.groups) for _grants, other in others)
        if step.vm in where:
            origin = where[step.vm][0]
            assert step.origin == origin
            free[origin][0] += demand.memory_mb
            free[origin][1] += demand.cpus
        free[step.host][0] -= demand.memory_mb
        free[step.host][1] -= demand.cpus
        assert min(free[step.host]) >= 0
        where[step.vm] = (step.host, demand, step.grants)
        _check_grants(_here(demand, hosts[step.host]), step.grants, {gpu.address: gpu for gpu in hosts[step.host].gpus})
        _check_host(hosts[step.host], [grants for host, _demand, grants in where.values() if host == step.host])
    placed = {step.vm for step in result.placements}
    assert placed | {refusal.vm for refusal in result.refused} == set(demands)
    assert not placed & {refusal.vm for refusal in result.refused}
    assert result.cost.refused == len(result.refused)
    assert result.cost.moves == len(result.moves)
    counts = [sum(at == host.name for at, _d, _g in where.values()) for host in instance.hosts if not host.closed]
    if instance.goal == "spread":
        assert result.cost.goal == sum(count * count for count in counts)
    elif instance.goal == "fewest_hosts":
        assert result.cost.goal == sum(count > 0 for count in counts)
    assert result.bound.key <= result.cost.key


def _here(demand: Demand, host: Host) -> Demand:
    """The demand with the host's own profiles."""
    own = dict(host.profiles)
    needs = [need if need.wanted is None else vgpu(own[need.wanted], need.count) for need in demand.needs]
    return dataclasses.replace(demand, needs=tuple(needs))


def _check_grants(demand: Demand, grants: t.Sequence[Grant], gpus: t.Mapping[str, Gpu]) -> None:
    """Every need is met by grants of its own."""
    left = list(grants)
    for need in sorted(demand.needs, key=lambda need: (need.address is None, need.label is None, need.id is None)):
        for _number in range(need.count):
            fits = [grant for grant in left if _meets(need, grant, gpus[grant.address])]
            assert fits, (demand, grants)
            left.remove(fits[0])
    assert not left


def _meets(need: Need, grant: Grant, gpu: Gpu) -> bool:
    if need.profile:
        board, _, size = need.profile.rpartition("_")[2].partition("-")
        return grant.slot is not None and (gpu.board, f"{grant.slot.size}{grant.slot.series}") == (board, size)
    wanted = ((need.id, gpu.id), (need.label, gpu.label), (need.address, gpu.address))
    return grant.slot is None and all(want in (None, have) for want, have in wanted)


def _check_host(host: Host, taken: t.Sequence[t.Sequence[Grant]]) -> None:
    for gpu in host.gpus:
        here = [grant for grants in taken for grant in grants if grant.address == gpu.address]
        whole = [grant for grant in here if grant.slot is None]
        slots = [grant.slot for grant in here if grant.slot is not None]
        if whole:
            assert (len(here), gpu.use) == (1, "passthrough")
        if not slots:
            continue
        table = BOARDS[gpu.board]
        assert len({slot.series for slot in slots}) == 1
        for one, other in itertools.combinations(slots, 2):
            assert one.start + one.size <= other.start or other.start + other.size <= one.start
        assert all(slot.start + slot.size <= table["framebuffer_gb"] for slot in slots)
        if gpu.use == "same_size":
            assert len({slot.size for slot in slots}) == 1
            assert len(slots) <= table["equal"][slots[0].size]
        else:
            assert gpu.use == "mixed_size"
            for slot in slots:
                every = table["framebuffer_gb"] // table["mixed"][slot.size]
                starts = table.get("placements", {}).get(slot.size) or range(
                    0, every * table["mixed"][slot.size], every
                )
                assert slot.start in starts


def brute_force(instance: Instance) -> tuple[int, int, int]:
    """The least cost there is, without moves: every machine on every host, or refused."""
    start = Solution.empty(instance)
    hosts: list[str | None] = [*start.states, None]
    best = start.cost.key
    for chosen in itertools.product(hosts, repeat=len(start.demands)):
        where = {d.name: h for d, h in zip(start.demands, chosen, strict=True) if h is not None}
        found = start.try_assign(where)
        if found is not None:
            best = min(best, found.cost.key)
    return best


PROFILES = [
    "nvidia_a100-4c",
    "nvidia_a100-5c",
    "nvidia_a100-10c",
    "nvidia_a100-20c",
    "nvidia_a100-40c",
    "nvidia_a100-8q",
]
HALF = Needs(at_least_gb=10, at_most_gpu=0.5)
_needs = st.one_of(
    st.builds(lambda count: Need("vgpu", count, wanted=HALF), st.integers(1, 2)),
    st.builds(vgpu, st.sampled_from(PROFILES), st.integers(1, 2)),
    st.builds(whole, st.integers(1, 2)),
    st.builds(whole, st.just(1), label=st.just("fast")),
    st.builds(lambda: Need("fixed", 1, id="10de:20f1")),
    st.builds(lambda: Need("fixed", 1, address=ADDRESSES[1])),
)


@st.composite
def instances(
    draw: st.DrawFn, *, hosts: int = 3, demands: int = 4, residents: bool = True, moves: int = 0, spare: bool = False
) -> Instance:
    """Small questions of every kind; residents are placed by the rules, so that no host is impossible."""
    made = []
    for number in range(draw(st.integers(1, hosts))):
        made.append(
            Host(
                f"esx-{number}",
                cluster=draw(st.sampled_from(["gpu", "gpu", "other"])),
                gpus=tuple(
                    Gpu(
                        address,
                        "10de:20f1",
                        "a100",
                        draw(st.sampled_from(["same_size", "mixed_size", "passthrough", "same_size", "none"])),
                        label=draw(st.sampled_from([None, "fast"])),
                    )
                    for address in ADDRESSES[: draw(st.integers(0, 2))]
                ),
                policy=draw(st.sampled_from(["performance", "consolidation"])),
                free_memory_mb=draw(st.sampled_from([8, 16, 64])),
                free_cpus=draw(st.sampled_from([4, 100])),
                closed=draw(st.sampled_from([None, None, None, "is in maintenance mode"])),
                profiles=draw(
                    st.sampled_from([(), ((HALF, "nvidia_a100-10c"),), ((HALF, "nvidia_a100-20c"),)]),
                ),
            )
        )
    if residents:
        from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.placement.admission import HostState

        for number, host in enumerate(made):
            state = HostState.of(Host(**{**_fields(host), "closed": None}))
            for index in range(draw(st.integers(0, 2))):
                state.add(draw(_demand(f"old-{number}-{index}")))
            made[number] = Host(
                **{
                    **_fields(host),
                    "gpus": state.gpus,
                    "free_memory_mb": state.memory_mb,
                    "free_cpus": state.cpus,
                    "residents": tuple(
                        Resident(demand, grants, movable=draw(st.booleans())) for demand, grants in state.vms.values()
                    ),
                }
            )
    new = [draw(_demand(f"vm-{number}", len(made))) for number in range(draw(st.integers(0, demands)))]
    return Instance(
        tuple(made),
        tuple(new),
        goal=draw(st.sampled_from(["spread", "fill", "fewest_hosts"])),
        max_moves=moves,
        spare_host=spare,
    )


def _fields(host: Host) -> dict[str, t.Any]:
    return {name: getattr(host, name) for name in host.__dataclass_fields__}


@st.composite
def _demand(draw: st.DrawFn, name: str, hosts: int = 0) -> Demand:
    return Demand(
        name,
        tuple(draw(st.lists(_needs, max_size=2))),
        memory_mb=draw(st.sampled_from([1, 4, 8])),
        cpus=draw(st.sampled_from([0, 2])),
        host=draw(st.sampled_from([None, None, None, "esx-0"])) if hosts else None,
        cluster=draw(st.sampled_from([None, "gpu"])) if hosts else None,
        groups=draw(st.sampled_from([(), (), ("apart",)])),
    )
