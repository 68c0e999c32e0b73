# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Which virtual machine on which host: the entry to placement."""

from __future__ import annotations

import typing as t

from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.placement import cpsat, search
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.placement.bounds import bound
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.placement.explain import explain
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.placement.heuristic import solve
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.placement.model import Cost, Instance, Result
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.placement.solution import Solution
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.placement.spare import solve_with_spare

Solver = t.Literal["auto", "heuristic", "search", "cp_sat"]
_SEARCHED = 36
"""Machines times hosts up to which the plain search is tried first: that is quicker than to load the solver."""


def place(instance: Instance, solver: Solver = "auto") -> Result:
    """Places for all machines, as far as there are any.

    `auto` takes the heuristic's answer where a bound proves it to be the best, or where the question is too large for
    more; else the plain search for small questions and CP-SAT (if OR-Tools is there) for middling ones. The answer
    is the same for the same question, on every run.
    """
    if instance.spare_host:
        kept = solve_with_spare(instance)
        return result(kept, bound(instance, solve(instance)), "heuristic")
    best = solve(instance)
    least = bound(instance, best)
    engine = "heuristic"
    pairs = len(instance.demands) * len(instance.hosts)
    open_question = best.cost != least and solver != "heuristic"
    if open_question and (solver == "search" or (solver == "auto" and pairs <= _SEARCHED)):
        try:
            best = search.solve(Solution.empty(instance), best)
            least, engine = best.cost, "search"
        except search.TooLargeError:
            pass
    if best.cost != least and solver in ("auto", "cp_sat") and pairs <= cpsat.MAX_PAIRS and cpsat.HAS_ORTOOLS:
        best, least = cpsat.solve(Solution.empty(instance), best, least)
        engine = "cp-sat"
    return result(best, least, engine)


def result(solution: Solution, least: Cost, engine: str) -> Result:
    """The answer as it is handed out."""
    return Result(
        moves=tuple(solution.moves),
        placements=tuple(solution.placed()),
        refused=tuple(explain(solution)),
        cost=solution.cost,
        bound=min(least, solution.cost, key=lambda cost: cost.key),
        engine=engine,
    )
