"""Where a random walk over the cell graph, mostly forward in time, ends."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import sparse
from scipy.sparse.csgraph import connected_components
from scipy.sparse.linalg import LinearOperator, bicgstab, splu

if TYPE_CHECKING:
    from numpy.typing import NDArray

FARTHEST_BACK = 10.0
"""A step back costs no more than one of so many widths: the equations stay well-conditioned."""
TOLERANCE = 1e-4
MOST_STEPS = 1000


def absorption(
    strengths: sparse.csr_matrix, time: NDArray[np.float64], end: NDArray[np.integer], n_ends: int, width: float
) -> NDArray[np.float64]:
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

    Returns
    -------
    ``(n, n_ends)``, rows sum to 1. Cells that no way leads from to any terminal cell have all ends alike.

    Notes
    -----
    With the cells sorted by time, last first, the matrix of the walk is nearly lower triangular: its lower triangle,
    which is solved at once, is the preconditioner, and few steps of BiCGSTAB are left to do (ten to forty, whatever the
    number of cells). Time and memory grow with the edges times the number of ends.
    """
    out = np.full((len(time), n_ends), 1.0 / n_ends)
    fixed = end >= 0
    out[fixed] = np.eye(n_ends)[end[fixed]]
    _, part = connected_components(strengths, directed=False)
    reaches = np.isin(part, part[fixed])
    if n_ends == 1:
        return out
    cells = np.flatnonzero(reaches & ~fixed)
    cells = cells[np.argsort(-time[cells], kind="stable")]
    if len(cells) == 0:
        return out
    step = _steps(strengths, time, width)[cells]
    arrival = step @ np.where(fixed[:, None], out, 0.0)
    stay = (sparse.identity(len(cells), format="csr") - step[:, cells]).tocsr()
    lower = splu(sparse.tril(stay, format="csc"), permc_spec="NATURAL", diag_pivot_thresh=0.0)
    preconditioner = LinearOperator(stay.shape, lower.solve)
    found = np.empty((len(cells), n_ends))
    for column in range(n_ends - 1):
        # where the iteration stalls its last estimate is still a weighting of ends
        found[:, column], _ = bicgstab(
            stay, arrival[:, column], rtol=TOLERANCE, atol=TOLERANCE * 1e-3, maxiter=MOST_STEPS, M=preconditioner
        )
    found[:, -1] = 1.0 - found[:, :-1].sum(1)
    found = np.clip(found, 0.0, 1.0)
    out[cells] = found / np.maximum(found.sum(1, keepdims=True), 1e-12)
    return out


def _steps(strengths: sparse.csr_matrix, time: NDArray[np.float64], width: float) -> sparse.csr_matrix:
    source = np.repeat(np.arange(len(time)), np.diff(strengths.indptr))
    ahead = (time[strengths.indices] - time[source]) / max(width, 1e-12)
    weight = strengths.data * np.exp(np.clip(ahead, -FARTHEST_BACK, 0.0))
    total = np.bincount(source, weight, minlength=len(time))
    return sparse.csr_matrix((weight / total[source], strengths.indices, strengths.indptr), shape=strengths.shape)
