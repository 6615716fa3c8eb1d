"""How a path of nodes lies among real cells: how far apart leaves are, which are linked, and where gaps are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import sparse

from hdtree_sc.data._neighbors import spread_rows
from hdtree_sc.tl._energy import all_distances, mean_distances, mean_within, parts
from hdtree_sc.tl._lineage_graph import MIN_LINKS
from hdtree_sc.tree._agglomerate import link_counts

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from hdtree_sc.tl._energy import Points
    from hdtree_sc.tree import Tree

    Rows = NDArray[np.intp]

MIN_CELLS = 10
"""Fewest generated cells, and fewest real ones that a node is compared by."""
MAX_LEAVES, MAX_LEAF_CELLS = 60, 100
"""Most leaves, and cells of each, that random pairs of nodes are made of."""


# -- cells -------------------------------------------------------------------------------------------------------


@dataclass
class Cells:
    """Real cells: where they are on the tree and in the space they are compared in."""

    shape: Tree
    leaf: NDArray[np.int64]
    points: Points
    latent: Points
    codebook: NDArray[np.float32]

    def below(self, node: str) -> Rows:
        """Rows of the cells of a node."""
        first = int(self.shape.index(node))
        return np.flatnonzero((self.leaf >= first) & (self.leaf < first + self.shape.sizes[first]))

    def near(self, node: str) -> Rows:
        """Rows of the cells that stand for a node: its own, and if these are too few those nearest to its code."""
        own = self.below(node)
        if len(own) >= MIN_CELLS:
            return own
        code = np.asarray(self.codebook[self.shape.index(node)], dtype=np.float64)
        away = np.square(self.latent - code).sum(1)
        away[own] = -1.0
        return np.sort(np.argpartition(away, MIN_CELLS - 1)[:MIN_CELLS])


def at_most(rows: Rows, most: int, rng: np.random.Generator) -> Rows:
    """The rows, or a random choice of ``most`` of them, in order."""
    return rows if len(rows) <= most else np.sort(rng.choice(rows, most, replace=False))


def share_far(samples: Sequence[Points], cells: Cells) -> Points:
    """Share of each sample farther from the nearest cell than cells of that cell's leaf are from each other."""
    limits: dict[int, float] = {}
    out = []
    for sample in samples:
        nearest, shortest = np.empty(len(sample), dtype=np.intp), np.empty(len(sample))
        for rows in parts(len(sample), len(cells.points)):
            away = all_distances(sample[rows], cells.points)
            nearest[rows], shortest[rows] = away.argmin(1), away.min(1)
        leaves = cells.leaf[nearest]
        for leaf in set(leaves.tolist()) - limits.keys():
            own = np.flatnonzero(cells.leaf == leaf)
            inside = cells.points[own[spread_rows(len(own), MAX_LEAF_CELLS)]]
            among = all_distances(inside, inside)[np.triu_indices(len(inside), 1)]
            limits[leaf] = float(np.median(among)) if len(among) else 0.0
        out.append(float((shortest > np.array([limits[leaf] for leaf in leaves.tolist()])).mean()))
    return np.array(out)


def interpolated(a: Points, b: Points, onto: Points, n: int, rng: np.random.Generator) -> Points:
    """Points between random cells of two samples, all at the share of the way that is nearest to a third mean."""
    way = b.mean(0) - a.mean(0)
    share = float(np.clip((onto.mean(0) - a.mean(0)) @ way / max(float(way @ way), 1e-12), 0.0, 1.0))
    return (1 - share) * a[rng.integers(len(a), size=n)] + share * b[rng.integers(len(b), size=n)]


# -- p-values ----------------------------------------------------------------------------------------------------


def share_below(null: Points, values: Points) -> Points:
    """Share of a null at most as large as each value, the value itself counted; missing values stay missing."""
    below = np.searchsorted(np.sort(null), values, side="right")
    return np.where(np.isnan(values), np.nan, (1 + below) / (1 + len(null)))


def combined(p: Points) -> float:
    """One p-value of several: Fisher's or Simes', whichever is lower, times two."""
    from scipy.stats import combine_pvalues

    if len(p) < 2:
        return float(p[0]) if len(p) else float("nan")
    several = float(combine_pvalues(np.maximum(p, 1e-300), method="fisher").pvalue)
    one = float((np.sort(p) * len(p) / np.arange(1, len(p) + 1)).min())
    return min(1.0, 2 * min(several, one))


def gaps(gap_p: Points, far: Points, alpha: float) -> NDArray[np.bool_]:
    """Steps with too few links, and nodes with more than half of the generated cells far from all real ones."""
    return (np.nan_to_num(gap_p, nan=1.0) < alpha) | (far > 0.5)


# -- links and leaves --------------------------------------------------------------------------------------------


class Links:
    """Pairs of cells that are nearest neighbours, and how many of them leaves have that are joined.

    Parameters
    ----------
    cells
        Real cells.
    neighbors
        Neighbours of each cell, (n, k).
    """

    def __init__(self, cells: Cells, neighbors: NDArray[np.integer]) -> None:
        n, self.k = neighbors.shape
        one_way = sparse.csr_matrix(
            (np.ones(neighbors.size), (np.repeat(np.arange(n), self.k), neighbors.ravel())), shape=(n, n)
        )
        self.pairs = one_way.maximum(one_way.T).tocsr()
        self.held, group, size = np.unique(cells.leaf, return_inverse=True, return_counts=True)
        scale = self._scale(size[:, None], size[None])
        # as in the lineage graph, but of the cells that are here now
        near = np.triu(link_counts(neighbors, group, len(size)) >= MIN_LINKS * self.k * scale, 1)
        self.joined = np.argwhere(near)
        member = sparse.csr_matrix((np.ones(n), (np.arange(n), group)), shape=(n, len(size)))
        counts = (member.T @ self.pairs @ member).toarray()
        self._counts, self._scales = counts[near], scale[near]

    def _scale(self, a: Any, b: Any) -> Any:
        return np.sqrt(np.maximum(np.minimum(a, b) / self.k, 1.0))

    def between(self, a: Rows, b: Rows) -> float:
        """Pairs of a cell of each; of nodes that share cells each pair once per direction."""
        return float(self.pairs[a][:, b].sum())

    def p(self, count: float, size: int, other: int) -> float:
        """Probability of so few pairs between joined leaves, if they had the sizes given."""
        from scipy.stats import poisson

        if not len(self._counts):
            return float(poisson.cdf(count, MIN_LINKS * self.k * self._scale(size, other)))
        scaled = np.floor(count * self._scales / self._scale(size, other) + 1e-9)
        return float(poisson.cdf(scaled, self._counts).mean())


class Leaves:
    """Distances between leaves, and of the generated cells from them.

    Parameters
    ----------
    cells
        Real cells.
    links
        Their links.
    made
        Generated cells of each node of a path.
    rng
        Random numbers: which cells stand for large leaves.
    """

    def __init__(self, cells: Cells, links: Links, made: list[Points], rng: np.random.Generator) -> None:
        sizes = np.bincount(cells.leaf, minlength=len(cells.shape))[links.held]
        enough = np.flatnonzero(sizes >= 2)
        kept = enough[spread_rows(len(enough), MAX_LEAVES)] if len(enough) > MAX_LEAVES else enough
        self._shape, self._positions = cells.shape, links.held[kept]
        samples = [
            cells.points[at_most(np.flatnonzero(cells.leaf == leaf), MAX_LEAF_CELLS, rng)] for leaf in self._positions
        ]
        within = np.array([mean_within(sample) for sample in samples])
        self._all = np.empty((0, 0))
        self._from_made = np.empty((len(made), 0))
        if samples:
            self._all = 2 * mean_distances(samples, samples) - within[:, None] - within[None]
            own = np.array([mean_within(part) for part in made])
            self._from_made = 2 * mean_distances(made, samples) - own[:, None] - within[None]
        self.apart = self._all[np.triu_indices(len(samples), 1)]
        place = np.full(len(links.held), -1)
        place[kept] = np.arange(len(kept))
        both = place[links.joined] if len(links.joined) else np.empty((0, 2), dtype=int)
        both = both[(both >= 0).all(1)]
        self.neighbors_apart = self._all[both[:, 0], both[:, 1]]

    def contrast(self, i: int, node: str, distance: float) -> float:
        """Share of the leaves outside a node that are no farther from its generated cells than the node itself is."""
        first = int(self._shape.index(node))
        outside = (self._positions < first) | (self._positions >= first + self._shape.sizes[first])
        return float((self._from_made[i, outside] <= distance).mean()) if outside.any() else float("nan")

    def random_p(self, step: Points, n_null: int, rng: np.random.Generator) -> float:
        """Share of paths over random leaves, none twice if there are enough, with a mean step as short."""
        n, length = len(self._all), len(step) + 1
        if not len(step) or n < 2:
            return float("nan")
        if length <= n:
            order = rng.random((n_null, n)).argsort(1)[:, :length]
        else:
            # each step leads to another leaf
            order = np.cumsum(rng.integers(1, n, (n_null, length)), 1) % n
        null = self._all[order[:, :-1], order[:, 1:]].mean(1)
        return float((1 + (null <= step.mean() + 1e-9).sum()) / (n_null + 1))
