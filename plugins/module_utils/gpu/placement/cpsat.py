# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The exact way with OR-Tools' CP-SAT, for questions that are too large for the plain search.

The solver chooses hosts, with the GPUs of a host as a relaxation: it may put a vGPU on any GPU, where the host goes by
its policy. What it finds is worked out with the hosts' own rules; where they do not follow, that set of machines on
that host is forbidden (or given its true price), and the solver is asked again. So its bound holds, and an answer that
costs no more than the bound is the best there is. Runs are deterministic: one worker, a limit of work instead of time.
"""

from __future__ import annotations

import collections
import dataclasses
import itertools
import typing as t

from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.placement.admission import (
    HostState,
    start_for,
    suits,
)
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.placement.heuristic import movable
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.placement.model import Cost, Demand, Gpu, Slot
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.placement.profiles import BOARDS, Profile, profile
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.placement.solution import Solution

try:
    from ortools.sat.python import cp_model
except ImportError:
    HAS_ORTOOLS = False
else:
    HAS_ORTOOLS = True

MAX_PAIRS = 2_000
"""Machines times hosts beyond which the solver does not pay."""
_ROUNDS = 60
_WORK = 1.0
"""CP-SAT's deterministic time for all rounds together, about as many seconds."""
_PATTERNS = 4_000
_ORDERED = 5
"""Moves of which every order is tried."""


@dataclasses.dataclass(slots=True)
class _Model:
    """The relaxation and what it needs to grow cuts."""

    cp: t.Any
    stay: dict[str, str]
    """Residents that may be moved, by name, with their host."""
    machines: dict[str, Demand]
    on: dict[tuple[str, str], t.Any]
    """(machine, host) -> whether it is there."""
    price: dict[str, t.Any]
    """Host -> its part of the goal."""


def solve(start: Solution, best: Solution, known: Cost) -> tuple[Solution, Cost]:
    """The best answer found, at least as good as `best`, and a bound at least as high as `known`."""
    if not HAS_ORTOOLS:
        return best, known
    model = _build(start)
    left, bound = _WORK, known
    for _round in range(_ROUNDS):
        if best.cost.key <= bound.key or left <= 0:
            break
        solver = cp_model.CpSolver()
        solver.parameters.num_workers = 1
        solver.parameters.random_seed = 1
        solver.parameters.max_deterministic_time = left
        model.cp.clear_hints()
        for (machine, host), there in model.on.items():
            model.cp.add_hint(there, best.where.get(machine, model.stay.get(machine)) == host)
        status = solver.solve(model.cp)
        left -= max(0.01, solver.response_proto.deterministic_time)
        if status == cp_model.INFEASIBLE:
            return best, best.cost
        proven = _cost(model, start, round(solver.best_objective_bound))
        bound = max(bound, proven, key=lambda cost: cost.key)
        if status not in (cp_model.OPTIMAL, cp_model.FEASIBLE):
            break
        where = {machine: host for (machine, host), there in model.on.items() if solver.value(there)}
        found, cut = _carried_out(model, start, where)
        if found is not None and found.cost.key < best.cost.key:
            best = found
        if not cut and status == cp_model.OPTIMAL:
            break
    return best, min(bound, best.cost, key=lambda cost: cost.key)


def _weights(start: Solution) -> tuple[int, int]:
    """What a refusal and a move weigh against the goal, so that the first decides."""
    count = len(start.demands) + sum(len(state.vms) for state in start.base.values()) + 1
    gpus = sum(len(state.gpus) for state in start.base.values())
    goal = count * count + gpus + len(start.base) + 1
    return goal * (start.instance.max_moves + 1), goal


def _cost(model: _Model, start: Solution, objective: int) -> Cost:
    refusal, move = _weights(start)
    refused, rest = divmod(max(0, objective), refusal)
    return Cost(refused, *divmod(rest, move)) if model.stay else Cost(refused, 0, rest)


def _build(start: Solution) -> _Model:
    cp = cp_model.CpModel()
    model = _Model(cp, {}, {demand.name: demand for demand in start.demands}, {}, {})
    for host in start.base:
        for vm in movable(start, host):
            model.stay[vm] = host
            model.machines[vm] = dataclasses.replace(start.base[host].vms[vm][0], host=None)
    stripped = {name: state.copy() for name, state in start.base.items()}
    for vm, host in model.stay.items():
        stripped[host].remove(vm)
    refused = []
    for vm, demand in model.machines.items():
        for name, state in stripped.items():
            if model.stay.get(vm) == name or state.admits(demand) is not None or _could(state, demand):
                model.on[vm, name] = cp.new_bool_var(f"{vm}@{name}")
        there = [model.on[vm, name] for name in stripped if (vm, name) in model.on]
        if vm in model.stay:
            cp.add_exactly_one(there)
        else:
            out = cp.new_bool_var(f"{vm} refused")
            cp.add_exactly_one([*there, out])
            refused.append(out)
    for state in stripped.values():
        _host(model, state, start)
    moved = [1 - model.on[vm, host] for vm, host in model.stay.items()]
    if moved:
        cp.add(sum(moved) <= start.instance.max_moves)
    refusal, move = _weights(start)
    cp.minimize(refusal * sum(refused) + move * sum(moved) + sum(model.price.values()))
    return model


def _could(state: HostState, demand: Demand) -> bool:
    """Whether the machine may come and the relaxation may not rule it out: a policy may be kinder in another order."""
    return (
        state.wants(demand)
        and state.host.here(demand.needs) is not None
        and demand.memory_mb <= state.memory_mb
        and demand.cpus <= state.cpus
    )


def _host(model: _Model, state: HostState, start: Solution) -> None:
    cp, name = model.cp, state.host.name
    here = {vm: model.on[vm, name] for vm in model.machines if (vm, name) in model.on}
    if state.host.closed is not None:
        return
    cp.add(sum(model.machines[vm].memory_mb * there for vm, there in here.items()) <= state.memory_mb)
    cp.add(sum(model.machines[vm].cpus * there for vm, there in here.items()) <= state.cpus)
    for group in {group for vm in here for group in model.machines[vm].groups}:
        members = [there for vm, there in here.items() if group in model.machines[vm].groups]
        cp.add(sum(members) <= max(0, 1 - state.groups[group]))
    opened = _whole_gpus(model, state, here) + _vgpus(model, state, here)
    goal = start.instance.goal
    count = len(state.vms) + sum(here.values())
    top = len(state.vms) + len(here)
    if goal == "spread":
        price = cp.new_int_var(0, top * top, f"price {name}")
        for number in range(top):
            # Tangents of the square: exact at whole numbers.
            cp.add(price >= (2 * number + 1) * count - number * (number + 1))
    elif goal == "fill":
        price = cp.new_int_var(0, len(state.gpus), f"price {name}")
        cp.add(price >= opened + sum(gpu.held for gpu in state.gpus))
    else:
        price = cp.new_bool_var(f"price {name}")
        for there in here.values():
            cp.add_implication(there, price)
        if state.vms:
            cp.add(price == 1)
    model.price[name] = price


def _whole_gpus(model: _Model, state: HostState, here: t.Mapping[str, t.Any]) -> t.Any:
    """Passthrough: GPUs of one kind are counted, machines take from the kinds that suit."""
    cp = model.cp
    named = {need.address for vm in here for need in model.machines[vm].needs if need.address}

    def kind(gpu: Gpu) -> tuple[str, str | None, str | None]:
        return gpu.id, gpu.label, gpu.address if gpu.address in named else None

    free = [gpu for gpu in state.gpus if gpu.use == "passthrough" and not gpu.held]
    kinds = {kind(gpu): gpu for gpu in free}
    supply = collections.Counter(kind(gpu) for gpu in free)
    taken: dict[t.Any, list[t.Any]] = collections.defaultdict(list)
    for vm, there in here.items():
        for number, need in enumerate(model.machines[vm].needs):
            if need.mode == "vgpu":
                continue
            parts = []
            for key, gpu in kinds.items():
                if suits(gpu, need):
                    part = cp.new_int_var(0, need.count, f"{vm}@{state.host.name} {number} {key}")
                    parts.append(part)
                    taken[key].append(part)
            cp.add(sum(parts) == need.count * there)
    for key, parts in taken.items():
        cp.add(sum(parts) <= supply[key])
    return sum(part for parts in taken.values() for part in parts)


def _vgpus(model: _Model, state: HostState, here: t.Mapping[str, t.Any]) -> t.Any:
    """vGPUs: each GPU holds one of the sets of profiles that fit on it together."""
    cp = model.cp
    wanted: dict[Profile, list[tuple[int, t.Any]]] = collections.defaultdict(list)
    for vm, there in here.items():
        for need in state.host.here(model.machines[vm].needs) or ():
            if need.profile:
                wanted[profile(need.profile)].append((need.count, there))
    held: dict[Profile, list[t.Any]] = collections.defaultdict(list)
    opened = []
    for gpu in state.gpus:
        kinds = sorted((kind for kind in wanted if kind.board == gpu.board), key=lambda k: (k.series, k.size))
        if gpu.use not in ("same_size", "mixed_size") or gpu.held:
            continue
        counts = [cp.new_int_var(0, BOARDS[kind.board].equal[kind.size], f"{gpu.address} {kind}") for kind in kinds]
        patterns = _patterns(gpu, tuple(kinds))
        if kinds and patterns is not None:
            cp.add_allowed_assignments(counts, patterns)
        elif kinds:
            left = BOARDS[kinds[0].board].framebuffer_gb - sum(slot.size for slot in gpu.slots)
            cp.add(sum(kind.size * count for kind, count in zip(kinds, counts, strict=True)) <= left)
        for kind, count in zip(kinds, counts, strict=True):
            held[kind].append(count)
        used = cp.new_bool_var(f"used {gpu.address}@{state.host.name}")
        opened.append(used)
        if gpu.slots:
            cp.add(used == 1)
        for kind, count in zip(kinds, counts, strict=True):
            cp.add(count <= BOARDS[kind.board].equal[kind.size] * used)
    for kind, parts in wanted.items():
        cp.add(sum(count * there for count, there in parts) == sum(held[kind]))
    return sum(opened)


def _patterns(gpu: Gpu, kinds: tuple[Profile, ...]) -> list[tuple[int, ...]] | None:
    """Every combination of counts that fits on the GPU beside what it has; None when there are too many."""
    found: set[tuple[int, ...]] = set()
    seen: set[tuple[tuple[int, ...], tuple[Slot, ...]]] = set()
    todo = [((0,) * len(kinds), gpu)]
    while todo:
        counts, now = todo.pop()
        key = (counts, tuple(sorted(now.slots, key=lambda slot: (slot.start, slot.size))))
        if key in seen:
            continue
        seen.add(key)
        found.add(counts)
        if len(seen) > _PATTERNS:
            return None
        for index, kind in enumerate(kinds):
            more = (*counts[:index], counts[index] + 1, *counts[index + 1 :])
            todo += [(more, dataclasses.replace(now, slots=(*now.slots, slot))) for slot in _slots(now, kind)]
    return sorted(found)


def _slots(gpu: Gpu, kind: Profile) -> t.Iterator[Slot]:
    """Every place for one more vGPU."""
    if gpu.use == "same_size":
        start = start_for(gpu, kind)
        if start is not None:
            yield Slot(start, kind.size, kind.series)
    elif all(slot.series == kind.series for slot in gpu.slots):
        for start in BOARDS[kind.board].starts(kind.size):
            if all(start + kind.size <= slot.start or slot.start + slot.size <= start for slot in gpu.slots):
                yield Slot(start, kind.size, kind.series)


def _carried_out(model: _Model, start: Solution, where: dict[str, str]) -> tuple[Solution | None, bool]:
    """What the solver's choice comes to with the hosts' own rules, and whether the model has learnt from it."""
    placed = {vm: host for vm, host in where.items() if vm not in model.stay}
    moved = {vm: host for vm, host in where.items() if vm in model.stay and model.stay[vm] != host}
    base = _after_moves(start, model, moved)
    if base is None:
        few = len(moved) <= _ORDERED
        if few:  # with more, not every order has been tried
            _forbid(model, where)
        return None, few
    cut, states = False, {}
    by_host: dict[str, list[Demand]] = collections.defaultdict(list)
    for demand in start.demands:
        if demand.name in placed:
            by_host[placed[demand.name]].append(demand)
    for name, state in base.base.items():
        after = state.copy()
        if any(after.add(demand) is None for demand in by_host[name]):
            if moved:
                few = len(moved) <= 1  # else another order may leave room
                if few:
                    _forbid(model, where)
                return None, few
            _forbid(model, {vm: host for vm, host in where.items() if host == name}, on=name)
            cut = True
        states[name] = after
    if cut:
        return None, True
    found = dataclasses.replace(base, where=placed, states=states)
    if start.instance.goal == "fill" and not moved:
        cut = _true_prices(model, found, where)
    return found, cut


def _after_moves(start: Solution, model: _Model, moved: t.Mapping[str, str]) -> Solution | None:
    """The hosts after the moves, in an order in which each finds its room; None when there is none."""
    if len(moved) > _ORDERED:
        orders: t.Iterable[tuple[str, ...]] = [tuple(sorted(moved))]
    else:
        orders = itertools.permutations(sorted(moved))
    for chosen in orders:
        base: Solution | None = start
        for vm in chosen:
            base = base.after_move(vm, model.stay[vm], moved[vm]) if base is not None else None
        if base is not None:
            return base
    return None


def _mismatch(model: _Model, where: t.Mapping[str, str], on: str | None) -> t.Any:
    """0 when exactly these machines are there (on one host, or on all), else at least 1."""
    terms = []
    for (vm, host), there in model.on.items():
        if on is None or host == on:
            terms.append(1 - there if where.get(vm) == host else there)
    return sum(terms)


def _forbid(model: _Model, where: t.Mapping[str, str], on: str | None = None) -> None:
    model.cp.add(_mismatch(model, where, on) >= 1)


def _true_prices(model: _Model, found: Solution, where: t.Mapping[str, str]) -> bool:
    """Give sets of machines that take more GPUs into use than the solver thought their price."""
    for name, state in found.states.items():
        if state.host.closed is None:
            true = sum(gpu.in_use for gpu in state.gpus)
            here = {vm: host for vm, host in where.items() if host == name}
            if here:
                model.cp.add(model.price[name] >= true - len(state.gpus) * _mismatch(model, here, name))
    return True
