# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Why a machine found no place, and what would give it one: each advice has been tried out before it is given."""

from __future__ import annotations

import dataclasses
import typing as t

from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.placement.admission import (
    HostState,
    States,
    admit,
    suits,
)
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.placement.model import (
    Demand,
    Refusal,
    Use,
)
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.placement.solution import Solution

_HOSTS = 200
"""How many hosts are tried out for one advice."""


def explain(solution: Solution) -> list[Refusal]:
    """One refusal for each machine without a place. Equal machines share the work."""
    known: dict[Demand, Refusal] = {}
    refusals = []
    for demand in solution.refused:
        kind = dataclasses.replace(demand, name="")
        if kind not in known:
            known[kind] = _explain(solution, kind)
        refusals.append(dataclasses.replace(known[kind], vm=demand.name))
    return refusals


def _explain(solution: Solution, demand: Demand) -> Refusal:
    states = solution.states
    known_hosts = set(states)
    clusters = {state.host.cluster for state in states.values()}
    if demand.host is not None and demand.host not in known_hosts:
        return Refusal("", "host_not_found", f"there is no host {demand.host}.", "Correct the name of the host.")
    if demand.cluster is not None and demand.cluster not in clusters:
        return Refusal("", "cluster_not_found", f"there is no cluster {demand.cluster}.", "Correct the name.")
    within = {
        name: state
        for name, state in states.items()
        if demand.host in (None, name) and demand.cluster in (None, state.host.cluster) and name != demand.origin
    }
    code, reason = _reason(within, demand, spare=solution.instance.spare_host)
    if code == "placed_too_early":
        name = next(name for name, state in within.items() if state.admits(demand) is not None)
        return Refusal("", code, reason, f"Power on the others, then ask for it again: it would fit on {name}.")
    if code == "spare_host":
        return Refusal("", code, reason, "Add a host, or do without the spare capacity (spare: none).")
    return Refusal("", code, reason, _advice(solution, within, demand))


def needs_text(demand: Demand) -> str:
    """What a machine needs, for people."""
    parts = [str(need) for need in demand.needs]
    if demand.memory_mb:
        parts.append(f"{demand.memory_mb} MB of memory")
    if demand.cpus:
        parts.append(f"{demand.cpus} CPUs")
    return ", ".join(parts) or "nothing"


def _reason(within: States, demand: Demand, *, spare: bool) -> tuple[str, str]:
    where = f"on {demand.host}" if demand.host else f"in cluster {demand.cluster}" if demand.cluster else "anywhere"
    text = (
        f"it needs {needs_text(demand)}, and finds that nowhere {where}"
        if where != "anywhere"
        else (f"it needs {needs_text(demand)}, and finds that nowhere")
    )
    counts: dict[str, list[str]] = {}
    for name, state in within.items():
        counts.setdefault(_obstacle(state, demand, spare=spare), []).append(name)
    parts = [f"{_TEXTS[code]} on {_some(counts[code])}" for code in _TEXTS if code in counts]
    code = next((code for code in _TEXTS if code in counts), "no_host")
    return code, f"{text}: {'; '.join(parts) or 'no host is left'}."


# The obstacle that is the nearest to a place comes first: it is the one worth removing.
_TEXTS = {
    "spare_host": "there would be room, but it is kept for the failure of a host,",
    "placed_too_early": "there is room when the others have been placed, and no order was found in which all fit,",
    "anti_affinity": "a machine of the same anti-affinity group is",
    "memory_short": "memory is short",
    "cpus_short": "CPUs are short",
    "gpus_taken": "the GPUs are taken, or divided in other sizes,",
    "gpus_not_ready": "such GPUs are there, but not set up for this use,",
    "hosts_closed": "no machine may come",
    "no_such_profile": "no vGPU profile has what is needed",
    "no_such_gpu": "there are not so many such GPUs",
}
NO_ROOM: t.Final = frozenset({*_TEXTS, "no_host"})
"""Codes of refusals for want of a place; others say that what was asked for cannot be."""


def _obstacle(state: HostState, demand: Demand, *, spare: bool) -> str:
    needs = state.host.here(demand.needs)
    if needs is None:
        return "no_such_profile"
    demand = dataclasses.replace(demand, needs=needs)
    if state.host.closed is not None:
        return "hosts_closed" if _enough(state, demand) else "no_such_gpu"
    if not _enough(state, demand):
        return "gpus_not_ready" if _enough(state, demand, set_up=False) else "no_such_gpu"
    if admit(state.gpus, state.host.policy, demand.needs) is None:
        return "gpus_taken"
    if demand.memory_mb > state.memory_mb:
        return "memory_short"
    if demand.cpus > state.cpus:
        return "cpus_short"
    if any(state.groups[group] for group in demand.groups):
        return "anti_affinity"
    return "spare_host" if spare else "placed_too_early"


def _enough(state: HostState, demand: Demand, *, set_up: bool = True) -> bool:
    """Whether the host has so many GPUs of the kind, taken or not."""
    for need in demand.needs:
        count = 0
        for gpu in state.gpus:
            uses: tuple[Use, ...] = (gpu.use,) if set_up else ("passthrough", "same_size")
            if any(suits(dataclasses.replace(gpu, use=use), need) for use in uses):
                count += 1
        if count < (1 if need.profile else need.count):
            return False
    return True


def _some(names: t.Sequence[str], most: int = 3) -> str:
    head = ", ".join(names[:most])
    return f"{head} and {len(names) - most} more" if len(names) > most else head


def _advice(solution: Solution, within: States, demand: Demand) -> str:
    for attempt in (_open_host, _less_memory, _fewer_cpus, _without_group, _leave, _other_cluster):
        text = attempt(solution, within, demand)
        if text is not None:
            return text
    unmet = [text for state in within.values() for needs, text in state.host.unmet if needs in _wanted(demand)]
    if unmet and len(unmet) >= len(within):
        return unmet[0]
    kinds = " and ".join(str(need) for need in demand.needs)
    return f"Add a host with {kinds or 'enough memory'} free, or ask for less."


def _wanted(demand: Demand) -> set[t.Any]:
    return {need.wanted for need in demand.needs if need.wanted is not None}


def _open_host(_solution: Solution, within: States, demand: Demand) -> str | None:
    for name, state in within.items():
        if state.host.closed is not None:
            opened = state.copy()
            opened.host = dataclasses.replace(state.host, closed=None)
            if opened.admits(demand) is not None:
                return f"It would fit on {name}, which {state.host.closed}."
    return None


def _less_memory(_solution: Solution, within: States, demand: Demand) -> str | None:
    best = max((state.memory_mb for state in within.values() if _fits(state, demand, memory_mb=0)), default=0)
    if best < 1024:
        return None
    name = next(n for n, state in within.items() if state.memory_mb == best and _fits(state, demand, memory_mb=0))
    return f"With at most {best // 1024 * 1024} MB of memory it would fit on {name}."


def _fewer_cpus(_solution: Solution, within: States, demand: Demand) -> str | None:
    fits = {name: state.cpus for name, state in within.items() if state.cpus > 0 and _fits(state, demand, cpus=0)}
    if not fits:
        return None
    name = max(fits, key=lambda host: fits[host])
    return f"With at most {fits[name]} CPUs it would fit on {name}; or raise cpu_overcommit."


def _without_group(_solution: Solution, within: States, demand: Demand) -> str | None:
    if not demand.groups:
        return None
    name = next((name for name, state in within.items() if _fits(state, demand, groups=())), None)
    return name and f"It would fit on {name}, if it might share the host with others of its anti-affinity group."


def _fits(state: HostState, demand: Demand, **changes: t.Any) -> bool:
    return state.admits(dataclasses.replace(demand, **changes)) is not None


def _leave(solution: Solution, within: States, demand: Demand) -> str | None:
    """A machine whose leaving makes room: one that can be moved if there is any, else the smallest."""
    found: tuple[float, str, str] | None = None
    for name, state in list(within.items())[:_HOSTS]:
        if not state.wants(demand):
            continue
        movable = {resident.demand.name: resident.movable for resident in state.host.residents}
        for vm, (other, _grants) in state.vms.items():
            if vm not in movable:  # it has only been asked for, as this one has
                continue
            after = state.copy()
            after.remove(vm)
            if after.admits(demand) is None:
                continue
            if movable[vm]:
                stay = dataclasses.replace(other, host=None, origin=name)
                target = next((n for n, there in solution.states.items() if there.admits(stay) is not None), None)
                if target is not None:
                    return f"Moving {vm} from {name} to {target} would make room: do that first."
            if found is None or other.weight < found[0]:
                found = (other.weight, vm, name)
    if found is None:
        return None
    return f"Room for it appears on {found[2]} when {found[1]} leaves or is powered off; or add a host."


def _other_cluster(solution: Solution, _within: States, demand: Demand) -> str | None:
    anywhere = dataclasses.replace(demand, host=None, cluster=None)
    for name, state in solution.states.items():
        if state.admits(anywhere) is not None:
            where = f"{name} in cluster {state.host.cluster}" if state.host.cluster else name
            return f"It would fit on {where}, if it might go there."
    return None
