"""Whether two rooted trajectories are alike: distances of cells along them, and the shape of their networks.

Both are dynverse's (Saelens et al., Nature Biotechnology 37, 547, 2019): the correlation of geodesic distances
(*cor_dist*) and the Hamming-Ipsen-Mikhailov similarity of the milestone networks (*HIM*; Jurman et al., Ipsen and
Mikhailov).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.integrate import quad
from scipy.optimize import linear_sum_assignment
from scipy.stats import spearmanr

if TYPE_CHECKING:
    from anndata import AnnData
    from numpy.typing import NDArray

N_WAYPOINTS = 100
"""Cells whose distances to all cells are compared."""
GAMMA = 0.1
"""Width of the lines in the spectra of networks, as dynverse has it."""
SHORTEST = 1e-9
"""Edges that are shorter have no length: their two nodes are one."""

Node = list[tuple[float, "Node"]]
"""A node of a network: the edges that leave it, each with its length and the node it leads to."""


@dataclass(frozen=True)
class Trajectory:
    """Cells on the branches of a rooted tree.

    Parameters
    ----------
    parent
        Branch at whose end each branch begins, (m,); -1 where it begins at the root.
    end
        Time at which each branch ends, (m,), not before its parent.
    branch
        Branch of each cell, (n,).
    time
        Time of each cell, (n,); what lies before or behind its branch is put on the nearer end.
    start
        Time of the root.
    """

    parent: NDArray[np.int64]
    end: NDArray[np.float64]
    branch: NDArray[np.int64]
    time: NDArray[np.float64]
    start: float = 0.0

    @property
    def begin(self) -> NDArray[np.float64]:
        """Time at which each branch begins, (m,)."""
        return np.where(self.parent < 0, self.start, self.end[self.parent])

    def distances(self, rows: NDArray[np.integer]) -> NDArray[np.float64]:
        """Way along the tree from some cells to all, (k, n): up to the last common point, and down."""
        time = np.clip(self.time, self.begin[self.branch], self.end[self.branch])
        common = self._meetings()[self.branch[rows][:, None], self.branch]
        # of two cells on one way from the root the earlier is the last common point
        common = np.minimum(common, np.minimum(time[rows][:, None], time))
        return time[rows][:, None] + time - 2 * common

    def network(self) -> Node:
        """The root of the milestone network, nodes with one way in and one way out merged away.

        The root stays a node where two edges leave it. A network of one edge is cut in two, as in dynverse.
        """
        length = self.end - self.begin
        root = self._edges(-1, length)
        if len(root) == 1 and not root[0][1]:
            half = root[0][0] / 2
            return [(half, [(half, [])])]
        return root

    def _edges(self, above: int, length: NDArray[np.float64]) -> Node:
        out: Node = []
        for branch in np.flatnonzero(self.parent == above):
            far, below = float(length[branch]), self._edges(int(branch), length)
            if far < SHORTEST:
                out += below
                continue
            while len(below) == 1:
                more, below = below[0]
                far += more
            out.append((far, below))
        return out

    def _meetings(self) -> NDArray[np.float64]:
        """Time at which the ways from the root to the ends of two branches part, (m, m)."""
        m = len(self.parent)
        above = np.eye(m, dtype=bool)  # whether the first is the second or above it
        for branch in range(m):
            here = self.parent[branch]
            while here >= 0:
                above[here, branch] = True
                here = self.parent[here]
        out = np.full((m, m), self.start)
        for one in range(m):
            both = np.outer(above[one], above[one])
            out[both] = np.maximum(out[both], self.end[one])
        return out


def true_trajectory(adata: AnnData) -> Trajectory:
    """The trajectory of simulated cells.

    Parameters
    ----------
    adata
        Cells with ``branch`` and ``pt``, and ``uns["edges"]``, which join branches by their names, or milestones where
        branches are called ``"<from>-><to>"``.
    """
    edges = np.asarray(adata.uns["edges"]).astype(str).reshape(-1, 2)
    names, branch = np.unique(adata.obs["branch"].astype(str), return_inverse=True)
    if "->" in names[0]:
        into = {name.split("->")[1]: name for name in names}
        parent_of = {name: into.get(name.split("->")[0], "") for name in names}
    else:
        parent_of = {child: above for above, child in edges}
    number = {name: i for i, name in enumerate(names)}
    parent = np.array([number.get(parent_of.get(name, ""), -1) for name in names])
    time = adata.obs["pt"].to_numpy(float)
    end = np.array([time[branch == i].max() for i in range(len(names))])
    return Trajectory(parent, end, branch, time, float(time.min()))


def geodesic_correlation(truth: Trajectory, found: Trajectory, seed: int = 0) -> float:
    """Spearman correlation of distances from waypoint cells to all cells, in the true and in the found trajectory.

    Parameters
    ----------
    truth
        The true trajectory.
    found
        The one to judge, of the same cells.
    seed
        Seed of the draw of `N_WAYPOINTS` cells; all of them where there are no more.
    """
    n = len(truth.branch)
    rows = np.random.default_rng(seed).permutation(n)[:N_WAYPOINTS]
    return float(spearmanr(truth.distances(rows).ravel(), found.distances(rows).ravel()).statistic)


def him_similarity(a: Node, b: Node) -> float:
    """One less the Hamming-Ipsen-Mikhailov distance of two networks.

    Lengths are weights, as shares of all lengths of their network in both directions. The smaller network has nodes
    without edges added. dynverse compares edges of nodes in the order of their names; here nodes are matched from the
    roots on so that as much of the edges as possible is in both.

    Parameters
    ----------
    a, b
        Their roots.
    """
    networks = [_scaled(one, 0.5 / _total(one)) for one in (a, b) if one]
    if len(networks) < 2:
        return 0.0
    size = max(_n_nodes(one) for one in networks)
    hamming = 2 * (1 - 2 * _overlap(*networks)) / (size * (size - 1))
    spectral = _ipsen_mikhailov(*(_frequencies(one, size) for one in networks))
    return max(0.0, 1 - float(np.sqrt((hamming**2 + spectral**2) / 2)))


def _total(node: Node) -> float:
    return sum(length + _total(below) for length, below in node)


def _scaled(node: Node, factor: float) -> Node:
    return [(length * factor, _scaled(below, factor)) for length, below in node]


def _n_nodes(node: Node) -> int:
    return 1 + sum(_n_nodes(below) for _, below in node)


def _overlap(a: Node, b: Node) -> float:
    """The largest length of edges that is in both, over all ways to match what is below two nodes that are matched."""
    if not a or not b:
        return 0.0
    shared = np.array([[min(x, y) + _overlap(p, q) for y, q in b] for x, p in a])
    return float(shared[linear_sum_assignment(-shared)].sum())


def _frequencies(node: Node, size: int) -> NDArray[np.float64]:
    """Roots of the eigenvalues of a network's Laplacian, less the first, which is nought."""
    adjacency = np.zeros((size, size))
    stack, n = [(node, 0)], 1
    while stack:
        here, number = stack.pop()
        for length, below in here:
            adjacency[number, n] = adjacency[n, number] = length
            stack.append((below, n))
            n += 1
    values = np.linalg.eigvalsh(np.diag(adjacency.sum(1)) - adjacency)
    return np.sqrt(np.maximum(values, 0.0))[1:]


def _ipsen_mikhailov(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """Distance of two spectra whose lines are as wide as `GAMMA`, each of area one above nought."""

    def density(at: float, lines: NDArray[np.float64]) -> float:
        area = (np.pi / 2 + np.arctan(lines / GAMMA)).sum()
        return float((GAMMA / ((at - lines) ** 2 + GAMMA**2)).sum() / area)

    return float(np.sqrt(quad(lambda at: (density(at, a) - density(at, b)) ** 2, 0, np.inf, limit=200)[0]))
