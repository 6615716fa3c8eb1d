"""Linear equations of a random walk that ends, with a bound of the error."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import sparse
from scipy.sparse.csgraph import connected_components
from scipy.sparse.linalg import LinearOperator, bicgstab, splu

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Solve = Callable[[NDArray[np.float64], float], NDArray[np.float64]]

DIRECT_STATES = 5_000
"""Up to this many states the equations are solved directly; a factor of 20,000 took ten times as long as iteration."""
COARSE_STATES = 1_000
"""States are merged with the neighbour that they step to most until no more than this many are left."""
TOLERANCE = 1e-12
"""Largest residual, per equation, that iteration leaves."""
MAX_STEPS = 500
MAX_ERROR = 1e-3
"""Largest error of a solution that is given out."""


@dataclass(frozen=True)
class Solution:
    """What a walk comes to."""

    values: NDArray[np.float64]
    """(n_states, n_columns)."""
    residual: float
    """Largest absolute residual of an equation."""
    error: float
    """Bound of the absolute error of every value."""


def solve_walk(
    step: sparse.csr_matrix,
    arrival: NDArray[np.float64],
    log_degree: NDArray[np.float64],
    *,
    direct: bool | None = None,
) -> Solution:
    """Solve ``x = step @ x + arrival``.

    Parameters
    ----------
    step
        Probability of each step between states that the walk leaves again, (n, n), with an empty diagonal. Sorted so
        that steps to earlier rows are the likely ones; that makes iteration short.
    arrival
        Expected value of the step that ends the walk, (n, k).
    log_degree
        Logarithm of how often each state is visited, up to a constant, (n,): ``degree * step`` is symmetric.
    direct
        Whether to factorise the equations, or to iterate; by default what is faster for their number.

    Raises
    ------
    RuntimeError
        If the bound of the error is above 0.001.

    Notes
    -----
    A small residual proves little: it is multiplied by the expected number of steps of the walk, since the inverse of
    ``1 - step`` is positive and its row sums are these numbers. So they are solved for as well, and the product is the
    bound. Iteration is BiCGSTAB with a two-grid preconditioner: Gauss-Seidel in the order of the rows, and equations of
    aggregates, in which each state has joined the neighbour that it steps to most.

    References
    ----------
    BiCGSTAB: van der Vorst, SIAM J. Sci. Stat. Comput. 13, 631 (1992).
    """
    n = step.shape[0]
    stay = (sparse.identity(n, format="csr") - step).tocsr()
    use_factor = n <= DIRECT_STATES if direct is None else direct
    solve = _factor(stay) if use_factor else _iteration(stay, step, log_degree)
    values, length = solve(arrival, TOLERANCE), solve(np.ones((n, 1)), 1e-3)
    residual = float(np.abs(arrival - stay @ values).max(initial=0.0))
    doubt = float(np.abs(1.0 - stay @ length).max(initial=0.0))
    error = residual * float(length.max(initial=0.0)) / (1.0 - doubt) if doubt < 1.0 else np.inf
    if not error <= MAX_ERROR:
        msg = (
            f"The equations of the walk were not solved: residual {residual:.1e}, and an error up to {error:.1e} where "
            f"{MAX_ERROR} is allowed. Name ends in every lineage (terminal=), so that walks do not get lost in others, "
            "or make the graph with more neighbours (hdtree_sc.tl.lineage_graph, n_neighbors=)."
        )
        raise RuntimeError(msg)
    return Solution(values, residual, error)


def _factor(stay: sparse.csr_matrix) -> Solve:
    factor = splu(stay.tocsc(), permc_spec="MMD_AT_PLUS_A")
    return lambda right, _: factor.solve(right)


def _iteration(stay: sparse.csr_matrix, step: sparse.csr_matrix, log_degree: NDArray[np.float64]) -> Solve:
    ends = 1.0 - np.asarray(step.sum(1)).ravel()
    coarse = _coarse_solve(step, np.maximum(ends, 0.0), log_degree)
    ahead = splu(sparse.tril(stay, format="csc"), permc_spec="NATURAL", diag_pivot_thresh=0.0)

    def two_grids(right: NDArray[np.float64]) -> NDArray[np.float64]:
        x = ahead.solve(right)
        x += coarse(right - stay @ x)
        x += ahead.solve(right - stay @ x)
        return x

    operator = LinearOperator(stay.shape, two_grids, dtype=np.float64)

    def solve(right: NDArray[np.float64], tolerance: float) -> NDArray[np.float64]:
        # whether it converged is seen from the residual, whatever BiCGSTAB says of its own
        columns = [
            bicgstab(stay, column, rtol=0.0, atol=tolerance, maxiter=MAX_STEPS, M=operator)[0] for column in right.T
        ]
        return np.stack(columns, 1)

    return solve


def _coarse_solve(
    step: sparse.csr_matrix, ends: NDArray[np.float64], log_degree: NDArray[np.float64]
) -> Callable[[NDArray[np.float64]], NDArray[np.float64]]:
    """Solver of the equations of aggregates; only sums of positive numbers are made on the way to them."""
    grids = []
    while step.shape[0] > COARSE_STATES:
        n = step.shape[0]
        nearest = np.asarray(step.argmax(axis=1)).ravel()
        own = np.flatnonzero(np.diff(step.indptr))
        pairs = sparse.coo_matrix((np.ones(len(own)), (own, nearest[own])), shape=(n, n))
        n_groups, group = connected_components(pairs, directed=False)
        if n_groups == n:
            break
        highest = np.full(n_groups, -np.inf)
        np.maximum.at(highest, group, log_degree)
        spread = sparse.csr_matrix((np.ones(n), (np.arange(n), group)), shape=(n, n_groups))
        gather = sparse.csr_matrix((np.exp(log_degree - highest[group]), (group, np.arange(n))), shape=(n_groups, n))
        between, ends = (gather @ step @ spread).tocsr(), gather @ ends
        between.setdiag(0.0)
        between.eliminate_zeros()
        total = np.maximum(np.asarray(between.sum(1)).ravel() + ends, np.finfo(float).tiny)
        grids.append((sparse.diags(1.0 / total) @ gather, spread))
        step, ends = (sparse.diags(1.0 / total) @ between).tocsr(), ends / total
        log_degree = highest + np.log(total)
    last = splu((sparse.identity(step.shape[0]) - step).tocsc(), permc_spec="MMD_AT_PLUS_A")

    def solve(right: NDArray[np.float64]) -> NDArray[np.float64]:
        for gather, _ in grids:
            right = gather @ right
        x = last.solve(right)
        for _, spread in reversed(grids):
            x = spread @ x
        return x

    return solve
