# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Which machines are desktops and which compute, by the pools and names that an operator lists. Pure."""

from __future__ import annotations

import dataclasses
import typing as t

from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.harvest_day import Kind
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.plan import Problem
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.suggest import did_you_mean

Pool = tuple[str, str]
"""Cluster, and path below its root pool."""


class Placed(t.Protocol):
    """A machine and the pools that it is in."""

    @property
    def name(self) -> str:
        """Its name."""

    @property
    def pools(self) -> tuple[Pool, ...]:
        """From the nearest upwards."""


@dataclasses.dataclass(frozen=True, slots=True)
class Listed:
    """Names of pools and of machines."""

    pools: t.Sequence[str]
    vms: t.Sequence[str]


V = t.TypeVar("V", bound=Placed)


def members(
    listed: t.Mapping[Kind, Listed], vms: t.Sequence[V], pools: t.Mapping[str, t.Sequence[str]]
) -> tuple[dict[Kind, list[V]], tuple[Problem, ...]]:
    """The machines of each kind, and what is wrong with the lists; `pools` are clusters by path.

    A machine that is named belongs where it is named, whatever its pool; one in two listed pools where the nearer is.
    """
    by_name: dict[str, list[V]] = {}
    for vm in vms:
        by_name.setdefault(vm.name, []).append(vm)
    problems: list[Problem] = []
    kind_of_vm = _unique("vm", "virtual machine", {kind: one.vms for kind, one in listed.items()}, by_name, problems)
    kind_of_pool = _unique("pool", "resource pool", {kind: one.pools for kind, one in listed.items()}, pools, problems)
    found: dict[Kind, list[V]] = {kind: [] for kind in listed}
    for vm in sorted(vms, key=lambda vm: vm.name):
        near = (kind_of_pool[path] for _cluster, path in vm.pools if path in kind_of_pool)
        kind = kind_of_vm.get(vm.name) or next(near, None)
        if kind is not None:
            found[kind].append(vm)
    return found, tuple(problems)


def _unique(
    option: str,
    what: str,
    listed: t.Mapping[Kind, t.Sequence[str]],
    known: t.Mapping[str, t.Sequence[t.Any]],
    problems: list[Problem],
) -> dict[str, Kind]:
    """The kind of each name, with what is wrong noted."""
    kinds: dict[str, Kind] = {}
    for kind, names in listed.items():
        for name in names:
            text = ""
            code = "ambiguous_name"
            if name not in known:
                code, hint = f"{option}_not_found", did_you_mean(name, known)
                text = f"The vCenter has no {what} of this name. {hint or 'Correct the name.'}"
            elif len(known[name]) > 1:
                text = f"Several {what}s have this name. Rename all but one of them."
            elif kinds.get(name, kind) != kind:
                text = "is listed as desktop and as compute. Keep one of the two."
            if text:
                problems.append(Problem(code, name, text, f"{kind}_{option}s"))
            else:
                kinds[name] = kind
    return kinds
