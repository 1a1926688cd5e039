"""Exact answers from HiGHS, for whom they are worth a dependency: the extra ``plan``. The one file that imports highspy.

``gridsched.core`` decides with numpy alone and takes these as callables: ``select(slot, exact=select_exactly)`` and
``plan_horizon(horizon, solve=solve_transport)``. HiGHS: https://highs.dev
"""

from collections.abc import Mapping

import highspy
import numpy as np
from numpy.typing import NDArray

from gridsched.core.horizon import Transport
from gridsched.core.selection import Slot

__all__ = ["select_exactly", "solve_transport"]

_LONGEST_S = 30.0


def select_exactly(slot: Slot, *, longest_s: float = _LONGEST_S) -> NDArray[np.bool_] | None:
    """The best set [n] of nodes, by the mixed-integer programme of ``gridsched.core.selection``; None where none was found.

    It stops after ``longest_s`` with the best set it has by then. Columns: joules x [n], then choices b [n].
    """
    n, domains = len(slot.domain), len(slot.energy_j)
    if n == 0:
        return np.zeros(0, dtype=bool) if slot.fewest == 0 else None
    unit_j = max(float(slot.most_j.max()), 1.0)  # HiGHS's tolerances are absolute: let the largest number be about one
    every, one = np.arange(n), np.ones(n)
    model = highspy.HighsLp()
    model.col_cost_ = np.concatenate([slot.value_per_j / max(float(slot.value_per_j.max()), 1e-300), np.zeros(n)])
    model.col_lower_, model.col_upper_ = np.zeros(2 * n), np.concatenate([slot.most_j / unit_j, one])
    model.integrality_ = [highspy.HighsVarType.kContinuous] * n + [highspy.HighsVarType.kInteger] * n
    model.row_lower_ = np.concatenate([np.full(n, -np.inf), np.zeros(n), np.full(domains, -np.inf), [slot.fewest]])
    model.row_upper_ = np.concatenate([np.zeros(n), np.full(n, np.inf), slot.energy_j / unit_j, [slot.most]])
    row = np.concatenate([every, every, n + every, n + every, 2 * n + slot.domain, np.full(n, 2 * n + domains)])
    column = np.concatenate([every, n + every, every, n + every, every, n + every])
    entry = np.concatenate([one, -slot.most_j / unit_j, one, -slot.least_j / unit_j, one, one])
    solver = _solve(model, row, column, entry, {"time_limit": longest_s, "mip_rel_gap": 1e-6})
    if solver.getInfo().primal_solution_status != highspy.SolutionStatus.kSolutionStatusFeasible:
        return None
    return np.asarray(solver.getSolution().col_value)[n:] > 0.5


def solve_transport(problem: Transport) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The best watts [c, t] and the prices [t] of the caps, by a linear programme with a column for each pair that is allowed."""
    rows, slots = problem.most.shape
    given, price = np.zeros((rows, slots)), np.zeros(slots)
    row, slot = np.nonzero(problem.most > 0)
    if len(row):
        model = highspy.HighsLp()
        model.col_cost_ = problem.value[row, slot]
        model.col_lower_, model.col_upper_ = np.zeros(len(row)), problem.most[row, slot]
        model.row_lower_ = np.full(rows + slots, -np.inf)
        model.row_upper_ = np.concatenate([problem.supply, problem.cap])
        column = np.arange(len(row))
        solver = _solve(model, np.concatenate([row, rows + slot]), np.concatenate([column, column]), np.ones(2 * len(row)), {})
        assert solver.getModelStatus() == highspy.HighsModelStatus.kOptimal, "giving nothing is allowed, so there is a best"
        solution = solver.getSolution()
        given[row, slot] = solution.col_value
        price = np.maximum(np.asarray(solution.row_dual)[rows:], 0.0)
    return given, price


def _solve(
    model: highspy.HighsLp,
    row: NDArray[np.intp],
    column: NDArray[np.intp],
    entry: NDArray[np.float64],
    options: Mapping[str, float],
) -> highspy.Highs:
    """Maximise ``model`` with the matrix given by its entries; one thread, since the daemon has other things to do."""
    order = np.lexsort((row, column))
    model.sense_ = highspy.ObjSense.kMaximize
    model.num_col_, model.num_row_ = len(model.col_cost_), len(model.row_upper_)
    model.a_matrix_.format_ = highspy.MatrixFormat.kColwise
    model.a_matrix_.start_ = np.searchsorted(column[order], np.arange(model.num_col_ + 1)).astype(np.int32)
    model.a_matrix_.index_ = row[order].astype(np.int32)
    model.a_matrix_.value_ = entry[order]
    solver: highspy.Highs = highspy.Highs()  # type: ignore[no-untyped-call] # half of highspy is typed
    for name, setting in {"output_flag": False, "threads": 1, **options}.items():
        solver.setOptionValue(name, setting)
    solver.passModel(model)
    solver.run()
    return solver
