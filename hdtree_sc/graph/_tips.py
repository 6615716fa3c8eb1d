"""Where development ends: peaks of pseudotime on the cell graph that stand out from its noise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import sparse

if TYPE_CHECKING:
    from numpy.typing import NDArray

LEVELS = 400
"""Levels of pseudotime, with equally many cells between two, at which peaks may be joined."""
SMOOTHING_STEPS = 3
"""Steps of averaging over neighbours before peaks are looked for: what they remove was one cell's noise."""
STREAM = 1.0
"""Edges across, over edges down, from which on two peaks are one stream."""
MAX_PEAKS = 400
"""Pseudotime is averaged further until no more peaks are left: they are compared in pairs."""


@dataclass(frozen=True)
class Peaks:
    """Peaks of pseudotime, the most significant first."""

    cell: NDArray[np.int64]
    """Row of the highest cell of each, (p,)."""
    height: NDArray[np.float64]
    """Its pseudotime, (p,)."""
    saddle: NDArray[np.float64]
    """Pseudotime at which a peak is joined to a higher one; the lowest there is where it never is, (p,)."""
    n_cells: NDArray[np.int64]
    """Cells of the peak above its saddle, (p,)."""
    significance: NDArray[np.float64]
    """Height above the saddle in standard errors, (p,)."""
    basin: NDArray[np.int64]
    """Peak that each cell climbs to, (n,)."""
    into: NDArray[np.int64]
    """Higher peak that each is joined to, -1 for none, (p,)."""
    time: NDArray[np.float64]
    """Pseudotime of the cells as it was averaged, (n,)."""

    def __len__(self) -> int:
        return len(self.cell)


def resolution(strengths: sparse.csr_matrix, time: NDArray[np.float64]) -> float:
    """How far apart in pseudotime neighbours are: the root of the mean square over edges, by their strength.

    Parameters
    ----------
    strengths
        Symmetric cell graph, (n, n).
    time
        Pseudotime, (n,).
    """
    source = np.repeat(np.arange(len(time)), np.diff(strengths.indptr))
    step = np.square(time[source] - time[strengths.indices])
    total = float(strengths.data.sum())
    return float(np.sqrt((step * strengths.data).sum() / total)) if total > 0 else 0.0


def find_peaks(strengths: sparse.csr_matrix, time: NDArray[np.float64]) -> Peaks:
    """Peaks of pseudotime, and how much each stands out.

    Every cell climbs to the neighbour that is most ahead; the cells that climb to one peak are its basin. Then the
    level is lowered. Two peaks are joined where those of their cells that are above the level have as many edges
    *across*, by strength, as one of them has *down* to the cells below: there they are one stream of cells and not two.
    The lower one ends there, and its height above that saddle is its persistence. An edge or two between the ends of
    two branches, of which a noisy graph has plenty, are no saddle.

    Parameters
    ----------
    strengths
        Symmetric cell graph, (n, n).
    time
        Pseudotime, (n,).

    Returns
    -------
    The peaks. Their significance is the persistence over ``resolution / sqrt(cells / degree)``: the standard error of a
    mean over as many cells as the peak has, of which those of one neighbourhood count as one.

    Notes
    -----
    Persistence of peaks on a neighbour graph is that of ToMATo (Chazal et al., Journal of the ACM 2013), with
    pseudotime in place of density. There a saddle is the highest single edge between two peaks; here it takes a cut of
    the graph. Time grows with the edges, and with the square of the number of peaks, which is bounded.
    """
    noise = resolution(strengths, time)
    climbed, top, basin = _climb(strengths, time)
    first, level = _levels(climbed)
    cut, size = _below(strengths, climbed, basin, first, len(top), len(level))
    saddle, into, n_cells = _join(strengths, climbed, top, basin, first, cut, size, level)
    persistence = climbed[top] - saddle
    degree = strengths.nnz / max(len(time), 1)
    error = noise / np.sqrt(np.maximum(n_cells, 1) / max(degree, 1.0))
    significance = persistence / np.maximum(error, 1e-12)
    order = np.argsort(-significance, kind="stable")
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.arange(len(order))
    return Peaks(
        cell=top[order],
        height=climbed[top][order],
        saddle=saddle[order],
        n_cells=n_cells[order],
        significance=significance[order],
        basin=rank[basin],
        into=np.where(into[order] >= 0, rank[into[order]], -1),
        time=climbed,
    )


def tip_cells(peaks: Peaks, tips: NDArray[np.integer]) -> NDArray[np.int64]:
    """Cells at the end of each tip.

    Parameters
    ----------
    peaks
        All peaks.
    tips
        Those that are tips, (k,).

    Returns
    -------
    ``(n,)``: number of the tip whose end a cell is, -1 for all others. The end of a tip is the later half of what is
    above the level at which the first other tip is joined to it.
    """
    is_tip = np.zeros(len(peaks), dtype=bool)
    is_tip[tips] = True
    # peaks that are none belong to the tip that they are joined to
    owner, joined = np.arange(len(peaks)), np.where(is_tip, np.inf, peaks.saddle)
    while True:
        pending = ~is_tip[owner] & (peaks.into[owner] >= 0)
        if not pending.any():
            break
        joined[pending] = np.minimum(joined[pending], peaks.saddle[owner[pending]])
        owner[pending] = peaks.into[owner[pending]]
    # the tip in which each tip ends has the same level for a floor
    floor = peaks.saddle.copy()
    for tip in tips:
        above = peaks.into[tip]
        while above >= 0 and not is_tip[above]:
            above = peaks.into[above]
        if above >= 0:
            floor[above] = max(floor[above], peaks.saddle[tip])
    out = np.full(len(peaks.basin), -1, dtype=np.int64)
    for number, tip in enumerate(tips):
        own = (owner == tip) & (joined >= floor[tip])
        middle = (floor[tip] + peaks.height[tip]) / 2
        out[own[peaks.basin] & (peaks.time >= middle)] = number
        out[peaks.cell[tip]] = number
    return out


def _climb(
    strengths: sparse.csr_matrix, time: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]]:
    """Pseudotime that was averaged until peaks are few, the highest cell of each, and the peak each cell climbs to."""
    degree = np.asarray(strengths.sum(1)).ravel()
    average = sparse.diags(1.0 / np.maximum(degree, 1e-12)) @ strengths
    held = np.flatnonzero(np.diff(strengths.indptr))
    start = strengths.indptr[held]
    source = np.repeat(np.arange(len(time)), np.diff(strengths.indptr))
    n_steps = SMOOTHING_STEPS
    while True:
        for _ in range(n_steps):
            time = np.where(degree > 0, 0.5 * (time + average @ time), time)
        gain = strengths.data * (time[strengths.indices] - time[source])
        best = np.zeros(len(time))
        if len(held):
            best[held] = np.maximum.reduceat(gain, start)
        up = np.arange(len(time))
        steepest = np.flatnonzero((gain > 0) & (gain == best[source]))
        up[source[steepest]] = strengths.indices[steepest]
        while not np.array_equal(up[up], up):
            up = up[up]
        top, basin = np.unique(up, return_inverse=True)
        if len(top) <= MAX_PEAKS or n_steps > 1000:
            return time, top, basin
        n_steps *= 2


def _levels(time: NDArray[np.float64]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """First level, from the top, that each cell is above, (n,), and the levels, highest first."""
    level = np.unique(np.quantile(time, np.linspace(0, 1, LEVELS + 1)))[::-1]
    first = np.searchsorted(-level, -time, side="left")
    return np.minimum(first, len(level) - 1), level


def _below(
    strengths: sparse.csr_matrix,
    time: NDArray[np.float64],
    basin: NDArray[np.int64],
    first: NDArray[np.int64],
    n_peaks: int,
    n_levels: int,
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Strength of the edges from each peak's cells above a level to those below, and its cells above, (p, levels)."""
    source = np.repeat(np.arange(len(time)), np.diff(strengths.indptr))
    down = time[strengths.indices] < time[source]
    high, low, weight = source[down], strengths.indices[down], strengths.data[down]
    row = basin[high] * (n_levels + 1)
    shape = (n_peaks, n_levels + 1)
    begins = np.bincount(row + first[high], weight, minlength=n_peaks * (n_levels + 1)).reshape(shape)
    ends = np.bincount(row + first[low], weight, minlength=n_peaks * (n_levels + 1)).reshape(shape)
    held = np.bincount(basin * n_levels + first, minlength=n_peaks * n_levels).reshape(n_peaks, n_levels)
    return np.cumsum(begins - ends, axis=1)[:, :-1], np.cumsum(held, axis=1)


def _join(
    strengths: sparse.csr_matrix,
    time: NDArray[np.float64],
    top: NDArray[np.int64],
    basin: NDArray[np.int64],
    first: NDArray[np.int64],
    cut: NDArray[np.float64],
    size: NDArray[np.int64],
    level: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]]:
    """Saddle of each peak, the peak it is joined to (-1: none) and its cells above the saddle."""
    source = np.repeat(np.arange(len(time)), np.diff(strengths.indptr))
    # each pair of basins once: the graph is symmetric
    over = np.flatnonzero(basin[source] < basin[strengths.indices])
    one, other, weight = basin[source[over]], basin[strengths.indices[over]], strengths.data[over]
    at = np.maximum(first[source[over]], first[strengths.indices[over]])
    order = np.argsort(at, kind="stable")
    one, other, weight = one[order], other[order], weight[order]
    stop = np.searchsorted(at[order], np.arange(1, len(level) + 1))

    n = len(top)
    height, born = time[top], first[top]
    across, holder, alive = np.zeros((n, n)), np.arange(n), np.ones(n, dtype=bool)
    saddle, into, n_cells = np.full(n, level[-1]), np.full(n, -1), size[:, -1].copy()
    cut, size = cut.copy(), size.copy()
    done = 0
    for step in range(len(level)):
        new = slice(done, stop[step])
        done = stop[step]
        a, b = holder[one[new]], holder[other[new]]
        apart = a != b
        np.add.at(across, (a[apart], b[apart]), weight[new][apart])
        np.add.at(across, (b[apart], a[apart]), weight[new][apart])
        while True:
            here = np.flatnonzero(alive & (born <= step))
            down = np.maximum(cut[here, step], 1e-9)
            share = across[np.ix_(here, here)] / np.minimum(down[:, None], down[None])
            if share.size == 0 or share.max() < STREAM:
                break
            pair = here[list(np.unravel_index(share.argmax(), share.shape))]
            stays, goes = pair if height[pair[0]] >= height[pair[1]] else pair[::-1]
            alive[goes] = False
            saddle[goes], into[goes], n_cells[goes] = level[step], stays, size[goes, step]
            holder[holder == goes] = stays
            cut[stays] += cut[goes]
            size[stays] += size[goes]
            across[stays] += across[goes]
            across[:, stays] += across[:, goes]
            across[goes] = across[:, goes] = across[stays, stays] = 0.0
    n_cells[alive] = size[alive, -1]
    return saddle, into, n_cells
