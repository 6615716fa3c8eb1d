"""Where a random walk over the cell graph, mostly forward in time, ends."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import sparse
from scipy.sparse.csgraph import breadth_first_order, connected_components, minimum_spanning_tree

from hdtree_sc.tl._walk_solver import solve_walk

if TYPE_CHECKING:
    from numpy.typing import NDArray

DEPTH = 8.0
"""Widths above the way out from which on the cells of a peak are one state: a walk leaves it after e**8 steps."""


@dataclass(frozen=True)
class Absorption:
    """Where walks end."""

    probability: NDArray[np.float64]
    """Of each cell for each set of terminal cells, (n, n_ends); rows sum to 1."""
    residual: float
    """Largest residual of the equations."""
    error: float
    """Bound of the error of every probability."""


def absorption(
    strengths: sparse.csr_matrix,
    time: NDArray[np.float64],
    end: NDArray[np.integer],
    n_ends: int,
    width: float,
    *,
    direct: bool | None = None,
) -> Absorption:
    """Probability of each cell to end in each set of terminal cells.

    A cell steps to a neighbour with a probability in proportion to the strength of the edge, times
    ``exp(-back / width)`` where the neighbour is ``back`` earlier. Terminal cells are left no more.

    Parameters
    ----------
    strengths
        Symmetric cell graph, (n, n).
    time
        What says which way is forward, (n,).
    end
        Which terminal set each cell is in, -1 for none, (n,).
    n_ends
        Number of terminal sets.
    width
        Step back in ``time`` that is a factor e less likely.
    direct
        See :func:`solve_walk`.

    Returns
    -------
    The probabilities. Cells that no way leads from to any terminal cell have all ends alike.

    Raises
    ------
    RuntimeError
        If the equations can not be solved.

    Notes
    -----
    The walk is that of an electrical network: ``strength * exp(min(time_i, time_j) / width)`` is the same in both
    directions. A peak of pseudotime that is no terminal set is left once in ``exp(height / width)`` steps, so that the
    equations are singular in floating point, however small their residual. But within the upper part of such a peak all
    cells share their fate: a walk comes to all of them many times before it leaves. They are merged into one state,
    by sums of positive numbers alone, and what is left is well-conditioned.
    """
    out = np.full((len(time), n_ends), 1.0 / n_ends)
    fixed = end >= 0
    out[fixed] = np.eye(n_ends)[end[fixed]]
    _, part = connected_components(strengths, directed=False)
    free = np.isin(part, part[fixed]) & ~fixed
    if n_ends == 1 or not free.any():
        return Absorption(out, 0.0, 0.0)
    level = time / width if width > 0 else np.zeros(len(time))
    n_states, state = _states(strengths, level, fixed)
    step, log_degree = _steps(strengths, level, state, n_states)
    highest = np.full(n_states, -np.inf)
    np.maximum.at(highest, state, level)
    # last first: then the likely steps lead to earlier rows
    rows = np.unique(state[free])
    rows = rows[np.argsort(-highest[rows], kind="stable")]
    arrival = np.zeros((n_states, n_ends))
    arrival[state[fixed]] = out[fixed]
    step = step[rows]
    solved = solve_walk(step[:, rows], step @ arrival, log_degree[rows], direct=direct)
    found = np.clip(solved.values, 0.0, 1.0)
    arrival[rows] = found / found.sum(1, keepdims=True)
    out[free] = arrival[state[free]]
    return Absorption(out, solved.residual, solved.error)


def _states(
    strengths: sparse.csr_matrix, level: NDArray[np.float64], fixed: NDArray[np.bool_]
) -> tuple[int, NDArray[np.int64]]:
    """Number of states of the walk, and that of each cell: the cells high on one peak without an end share one."""
    trapped = level - _way_out(strengths, level, fixed) > DEPTH
    edges = strengths.tocoo()
    inside = trapped[edges.row] & trapped[edges.col]
    joined = sparse.coo_matrix(
        (np.ones(int(inside.sum()), bool), (edges.row[inside], edges.col[inside])), shape=strengths.shape
    )
    n_states, state = connected_components(joined, directed=False)
    return int(n_states), state.astype(np.int64)


def _way_out(
    strengths: sparse.csr_matrix, level: NDArray[np.float64], fixed: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Lowest level on the best way from each cell to a terminal cell, (n,): its own where the way leads up only."""
    n = len(level)
    edges = sparse.triu(strengths, k=1, format="coo")
    ends = np.flatnonzero(fixed)
    # the way with the highest low point runs along the spanning tree of highest edges; all ends are one node more
    lowest = np.concatenate([np.minimum(level[edges.row], level[edges.col]), np.full(len(ends), level.max())])
    source, target = np.concatenate([edges.row, ends]), np.concatenate([edges.col, np.full(len(ends), n)])
    cost = level.max() + 1.0 - lowest
    tree = minimum_spanning_tree(sparse.csr_matrix((cost, (source, target)), shape=(n + 1, n + 1)))
    tree = (tree + tree.T).tocsr()
    _, before = breadth_first_order(tree, n, directed=False)
    reached = np.flatnonzero(before[:n] >= 0)
    out, ahead = np.full(n + 1, np.inf), np.full(n + 1, n)
    ahead[reached] = before[reached]
    out[reached] = level.max() + 1.0 - np.asarray(tree[reached, ahead[reached]]).ravel()
    while (ahead != n).any():  # each round doubles the stretch of way that is looked at
        out = np.minimum(out, out[ahead])
        ahead = ahead[ahead]
    return np.minimum(out[:n], level)


def _steps(
    strengths: sparse.csr_matrix, level: NDArray[np.float64], state: NDArray[np.int64], n_states: int
) -> tuple[sparse.csr_matrix, NDArray[np.float64]]:
    """Probability of each step from one state to another, and the logarithm of the weight that was divided by."""
    edges = strengths.tocoo()
    source, target = state[edges.row], state[edges.col]
    leaves = source != target
    source, target = source[leaves], target[leaves]
    log_weight = np.log(edges.data[leaves]) + np.minimum(level[edges.row], level[edges.col])[leaves]
    # weights of a row relative to its largest: those of a whole graph pass what a float can hold
    largest = np.full(n_states, -np.inf)
    np.maximum.at(largest, source, log_weight)
    weight = sparse.csr_matrix((np.exp(log_weight - largest[source]), (source, target)), shape=(n_states, n_states))
    total = np.asarray(weight.sum(1)).ravel()
    step = (sparse.diags(1.0 / np.maximum(total, 1.0)) @ weight).tocsr()
    return step, largest + np.log(np.maximum(total, 1.0))
