"""Where a random walk over the cell graph, mostly forward in time, ends."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import sparse
from scipy.sparse.csgraph import breadth_first_order, connected_components, minimum_spanning_tree

from hdtree_sc.graph._walk_solver import Solution, solve_walk

if TYPE_CHECKING:
    from numpy.typing import NDArray

DEPTH = 10.0
"""Cells whose edges are ``exp(DEPTH)`` times as strong as their way out is at its weakest edge are one state."""


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

    References
    ----------
    Absorbing Markov chains: Kemeny and Snell, Finite Markov Chains (1960). Fate probabilities: Setty et al. (Palantir),
    Nat. Biotechnol. 37, 451 (2019); Lange et al. (CellRank), Nat. Methods 19, 159 (2022). Soft bias: Stassen et al.
    (VIA), Nat. Commun. 12, 5528 (2021).
    """
    fixed = end >= 0
    own = np.where(fixed[:, None], np.eye(n_ends)[end], 0.0)
    if n_ends == 1:
        return Absorption(np.ones((len(time), 1)), 0.0, 0.0)
    level = time / width if width > 0 else np.zeros(len(time))
    met = first_met(strengths, level, fixed, own, direct=direct)
    out = np.full(own.shape, 1.0 / n_ends)
    reached = np.isfinite(met.values[:, 0])
    found = np.clip(met.values[reached], 0.0, 1.0)
    out[reached] = found / found.sum(1, keepdims=True)
    return Absorption(out, met.residual, met.error)


def first_met(
    strengths: sparse.csr_matrix,
    level: NDArray[np.float64],
    fixed: NDArray[np.bool_],
    values: NDArray[np.float64],
    *,
    direct: bool | None = None,
) -> Solution:
    """Expected value of the first fixed cell that a walk from each cell meets; NaN where it meets none.

    Parameters
    ----------
    strengths
        Symmetric cell graph, (n, n).
    level
        A step down is ``exp(-difference)`` times as likely as one up, (n,).
    fixed
        Whether each cell is one at which walks end, (n,).
    values
        Values of the cells, of which those of fixed ones are read, (n, k).
    direct
        See :func:`solve_walk`.
    """
    out = np.where(fixed[:, None], values, np.nan)
    _, part = connected_components(strengths, directed=False)
    free = np.isin(part, part[fixed]) & ~fixed
    if not free.any():
        return Solution(out, 0.0, 0.0)
    edges = strengths.tocoo()
    network = sparse.csr_matrix(
        (np.log(edges.data) + np.minimum(level[edges.row], level[edges.col]), (edges.row, edges.col)), strengths.shape
    )
    n_states, state = _states(network, fixed)
    step, log_degree = _steps(network, state, n_states)
    highest = np.full(n_states, -np.inf)
    np.maximum.at(highest, state, level)
    # last first: then the likely steps lead to earlier rows
    rows = np.unique(state[free])
    rows = rows[np.argsort(-highest[rows], kind="stable")]
    arrival = np.zeros((n_states, values.shape[1]))
    arrival[state[fixed]] = values[fixed]
    step = step[rows]
    solved = solve_walk(step[:, rows], step @ arrival, log_degree[rows], direct=direct)
    arrival[rows] = solved.values
    out[free] = arrival[state[free]]
    return Solution(out, solved.residual, solved.error)


def _states(network: sparse.csr_matrix, fixed: NDArray[np.bool_]) -> tuple[int, NDArray[np.int64]]:
    """Number of states of the walk, and that of each cell: cells with far stronger edges than any way out share one.

    Parameters
    ----------
    network
        Logarithm of the weight of each edge, symmetric, (n, n).
    fixed
        Whether each cell is a terminal cell, (n,).
    """
    edges = network.tocoo()
    inside = edges.data > _way_out(network, fixed)[edges.row] + DEPTH
    joined = sparse.coo_matrix(
        (np.ones(int(inside.sum()), bool), (edges.row[inside], edges.col[inside])), shape=network.shape
    )
    n_states, state = connected_components(joined, directed=False)
    return int(n_states), state.astype(np.int64)


def _way_out(network: sparse.csr_matrix, fixed: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Weakest edge on the best way from each cell to a terminal cell, (n,); infinite for these, and without any."""
    n = len(fixed)
    upper = sparse.triu(network, k=1, format="coo")
    ends = np.flatnonzero(fixed)
    # the way whose weakest edge is strongest runs along the spanning tree of strong edges; all ends are one node more
    highest = network.data.max()
    cost = np.concatenate([highest + 1.0 - upper.data, np.full(len(ends), 0.5)])
    source, target = np.concatenate([upper.row, ends]), np.concatenate([upper.col, np.full(len(ends), n)])
    tree = minimum_spanning_tree(sparse.csr_matrix((cost, (source, target)), shape=(n + 1, n + 1)))
    tree = (tree + tree.T).tocsr()
    _, before = breadth_first_order(tree, n, directed=False)
    reached = np.flatnonzero(before[:n] >= 0)
    out, ahead = np.full(n + 1, np.inf), np.full(n + 1, n)
    ahead[reached] = before[reached]
    out[reached] = highest + 1.0 - np.asarray(tree[reached, ahead[reached]]).ravel()
    out[ends] = np.inf
    while (ahead != n).any():  # each round doubles the stretch of way that is looked at
        out = np.minimum(out, out[ahead])
        ahead = ahead[ahead]
    return out[:n]


def _steps(
    network: sparse.csr_matrix, state: NDArray[np.int64], n_states: int
) -> tuple[sparse.csr_matrix, NDArray[np.float64]]:
    """Probability of each step from one state to another, and the logarithm of the weight that was divided by."""
    edges = network.tocoo()
    source, target = state[edges.row], state[edges.col]
    leaves = source != target
    source, target, log_weight = source[leaves], target[leaves], edges.data[leaves]
    # weights of a row relative to its largest: those of a whole graph pass what a float can hold
    largest = np.full(n_states, -np.inf)
    np.maximum.at(largest, source, log_weight)
    weight = sparse.csr_matrix((np.exp(log_weight - largest[source]), (source, target)), shape=(n_states, n_states))
    total = np.asarray(weight.sum(1)).ravel()
    step = (sparse.diags(1.0 / np.maximum(total, 1.0)) @ weight).tocsr()
    return step, largest + np.log(np.maximum(total, 1.0))
